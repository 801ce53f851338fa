#!/usr/bin/env bash
# Writes docs/sizes.md, from what two commands have left below target:
#
#   cargo lambda build --release -p functions --arm64 --lambda-dir target/lambda-arm64
#   cargo lambda build --release -p functions --x86-64
set -euo pipefail
cd "$(dirname "$0")/.."

arm64=target/lambda-arm64 x86_64=target/lambda

bytes() { stat --format %s "$1/bootstrap"; }
# As Lambda is given it: a ZIP file deflates what it holds, as gzip does.
compressed() { gzip --stdout "$1/bootstrap" | wc -c; }
megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1e6 }'; }

{
  cat <<EOF
# Sizes of the functions

Megabytes (10^6 bytes) of each \`bootstrap\` of the release profile, and compressed as Lambda is given it.
\`docs/sizes.sh\` writes this page.

Commit $(git rev-parse --short=12 HEAD), $(rustc --version), $(cargo lambda --version | head -n 1), zig $(python3 -m ziglang version 2>/dev/null || zig version).

| function | arm64 | compressed | x86_64 | compressed |
|---|---:|---:|---:|---:|
EOF
  for path in functions/src/bin/*; do
    name=$(basename "$path" .rs)
    printf '| `%s`' "$name"
    for folder in "$arm64/$name" "$x86_64/$name"; do
      if [ -f "$folder/bootstrap" ]; then
        printf ' | %s | %s' "$(megabytes "$(bytes "$folder")")" "$(megabytes "$(compressed "$folder")")"
      else
        printf ' | not built | '
      fi
    done
    echo ' |'
  done | tee target/sizes.rows
  awk -F '|' '{ for (column = 3; column <= 6; column++) sum[column] += $column }
    END { printf "| **%d functions** | %.2f | %.2f | %.2f | %.2f |\n", NR, sum[3], sum[4], sum[5], sum[6] }' target/sizes.rows
} >docs/sizes.md.new
mv docs/sizes.md.new docs/sizes.md

#!/usr/bin/env bash
# Writes docs/sizes.md, from what two commands have left below target:
#
#   cargo lambda build --release -p functions --arm64 --lambda-dir target/lambda-arm64
#   cargo lambda build --release -p functions --x86-64
set -euo pipefail
cd "$(dirname "$0")/.."

megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1e6 }'; }

# The rows of what is built in the folder $2, for the architecture $1. Lambda is given a ZIP file, which deflates what it
# holds as gzip does.
table() {
  local path name built=0 sum=0 sum_compressed=0 all=(functions/src/bin/*) size compressed
  printf '\n## %s\n\n| function | MB | MB compressed |\n|---|---:|---:|\n' "$1"
  for path in "${all[@]}"; do
    name=$(basename "$path" .rs)
    [ -f "$2/$name/bootstrap" ] || continue
    size=$(stat --format %s "$2/$name/bootstrap")
    compressed=$(gzip --stdout "$2/$name/bootstrap" | wc -c)
    built=$((built + 1)) sum=$((sum + size)) sum_compressed=$((sum_compressed + compressed))
    echo "| \`$name\` | $(megabytes "$size") | $(megabytes "$compressed") |"
  done
  echo "| $built of ${#all[@]} functions | $(megabytes "$sum") | $(megabytes "$sum_compressed") |"
}

{
  cat <<EOF
# Sizes of the functions

Each \`bootstrap\` of the release profile in megabytes (10^6 bytes), and compressed as Lambda is given it. \`docs/sizes.sh\`
writes this page from the functions that have been built.

Commit $(git rev-parse --short=12 HEAD), $(rustc --version), $(cargo lambda --version | head -n 1), zig $(python3 -m ziglang version 2>/dev/null || zig version).
EOF
  table arm64 target/lambda-arm64
  table x86_64 target/lambda
} >docs/sizes.md.new
mv docs/sizes.md.new docs/sizes.md

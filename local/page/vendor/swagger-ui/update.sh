#!/bin/sh
# Takes Swagger UI from npm: `./update.sh VERSION INTEGRITY`, both as `npm view swagger-ui-dist version dist.integrity`
# prints them. Nothing of the package is run. Without arguments: takes the version that is here once more.
set -eu
cd "$(dirname "$0")"

version=${1:-$(sed -n 's/^version: //p' SOURCE)}
integrity=${2:-$(sed -n 's/^integrity: //p' SOURCE)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

npm pack --silent --pack-destination "$folder" "swagger-ui-dist@$version" >/dev/null
archive=$folder/swagger-ui-dist-$version.tgz
actual=sha512-$(openssl dgst -sha512 -binary "$archive" | base64 -w 0)
if [ "$actual" != "$integrity" ]; then
  echo "swagger-ui-dist $version has $actual, not $integrity" >&2
  exit 1
fi

tar -xzf "$archive" -C "$folder"
for file in swagger-ui-bundle.js swagger-ui.css; do
  gzip -9n <"$folder/package/$file" >"$file.gz"
done
cp "$folder/package/LICENSE" "$folder/package/NOTICE" "$folder/package/swagger-ui-bundle.js.LICENSE.txt" .
chmod 644 LICENSE NOTICE swagger-ui-bundle.js.LICENSE.txt
cat >SOURCE <<END
package: https://www.npmjs.com/package/swagger-ui-dist
version: $version
integrity: $integrity
END

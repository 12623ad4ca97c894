#!/bin/sh
# All tests, in two processes at the same time: test files know nothing of each other.
#   test.sh PYTHON
set -u
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'kill 0' INT TERM

"$python" -m pytest tests/test_[l-z]*.py tests/contracts --basetemp="$work/second" > "$work/log" 2>&1 &
other=$!
"$python" -m pytest tests/test_[a-k]*.py tests/browser --nbmake notebooks --basetemp="$work/first"
first=$?
wait $other
second=$?
cat "$work/log"
[ $first -eq 0 ] && [ $second -eq 0 ]

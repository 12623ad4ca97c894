#!/bin/sh
# Tests in two processes at a time, each with a group of files: test files know nothing of each other.
#   test.sh PYTHON          all of them
#   test.sh PYTHON quick    what needs less than a minute together
# Whoever is free takes the next group, so that both end at the same time. Groups that take long come first.
set -u
export PYTHON="$1"
QUICK="not (slow or browser or model or wheel or process)"

# Tests sync what they write thousands of times. In memory that takes no time; not where no program may run, or room is short.
work=$(mktemp -d -p /dev/shm 2>/dev/null) || work=
if [ -n "$work" ]; then
    printf '#!/bin/sh\n' > "$work/try" && chmod +x "$work/try"
    free=$(df -Pk "$work" | awk 'NR == 2 { print $4 }')
    if ! "$work/try" 2>/dev/null || [ "${free:-0}" -lt 6000000 ]; then
        rm -rf "$work"
        work=
    fi
fi
export WORK="${work:-$(mktemp -d)}"
trap 'rm -rf "$WORK"' EXIT
trap 'kill 0' INT TERM

if [ "${2:-}" = quick ]; then
    groups='tests/unit --ignore=tests/unit/diagram --ignore=tests/unit/execution --ignore=tests/unit/llm
tests/integration
tests/unit/diagram
tests/unit/execution tests/unit/llm
tests/repository'
    export OPTIONS="-q -p no:nbmake" HYPOTHESIS_PROFILE=quick
else
    QUICK=
    export CI=true  # here as there: a test that skips for want of a part fails
    groups='tests/browser
tests/contracts tests/unit/execution/state
tests/unit/llm/providers
tests/integration/test_[r-s]*.py
tests/integration/test_[a-d]*.py
tests/integration/test_[t-z]*.py
tests/integration/test_[e-k]*.py
tests/integration/test_[l-q]*.py
tests/unit/execution --ignore=tests/unit/execution/state
--nbmake notebooks
tests/unit/storage tests/unit/security tests/unit/notebook
tests/unit/cli tests/unit/server
tests/unit/llm --ignore=tests/unit/llm/providers
tests/repository
tests/unit --ignore=tests/unit/cli --ignore=tests/unit/execution --ignore=tests/unit/llm --ignore=tests/unit/notebook --ignore=tests/unit/security --ignore=tests/unit/server --ignore=tests/unit/storage'
    export OPTIONS=
fi
export QUICK

# The log of a group is shown when it ends.
printf '%s\n' "$groups" | xargs -P 2 -I {} sh -c '
    name=$(printf %s "$1" | cksum | cut -d" " -f1)  # short: sockets are below it
    "$PYTHON" -m pytest $1 $OPTIONS ${QUICK:+-m "$QUICK"} --basetemp="$WORK/$name" > "$WORK/$name.log" 2>&1
    status=$?
    cat "$WORK/$name.log"
    rm -rf "$WORK/$name"
    exit $status
' group {}

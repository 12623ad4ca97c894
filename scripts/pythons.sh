#!/bin/sh
# Prints the interpreters of the other Python versions that we name and that are on this machine, one a line: those on the
# PATH, else those of pyenv.
set -eu

for version in 3.12 3.13; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version."*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1; then
            command -v "$candidate"
            break
        fi
    done
done

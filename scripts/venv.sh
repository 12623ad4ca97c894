#!/bin/sh
# Prints the name of the environment that make works in: .venv, or .venv-X.Y when PYTHON ($1) names an interpreter of
# another version than the .venv that is there, so that trying a second Python leaves the first environment alone.
set -eu

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

if [ -n "${1:-}" ] && wanted=$(version "$1") && found=$(version .venv/bin/python) && [ "$wanted" != "$found" ]; then
    echo ".venv-$wanted"
else
    echo .venv
fi

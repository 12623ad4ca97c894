#!/usr/bin/env python3
"""Write environment.yml from pyproject.toml: a conda Python, everything else from pip.

Usage: scripts/make_environment.py [--check]      (--check: write nothing; exit status 1 when the file is out of date)

conda brings only the interpreter, because several of our packages exist as wheels alone; one `pip` section keeps one
resolver in charge. The section lists the dependencies and the extras of `all` and `test`, then the package itself.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "environment.yml"
EXTRAS = ("all", "test")
HEADER = """\
# Written by scripts/make_environment.py from pyproject.toml. Do not edit.
# Use: conda env create -f environment.yml && conda activate dipeo-nb
"""


def main(arguments: list[str]) -> int:
    text = environment(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    if "--check" in arguments:
        current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
        if current != text:
            print("environment.yml is out of date. Run: make environment", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.name} written")
    return 0


def environment(pyproject: dict[str, Any]) -> str:
    """The text of environment.yml for a parsed pyproject.toml."""
    project = pyproject["project"]
    lines = ["name: " + project["name"], "channels:", "  - conda-forge", "  - nodefaults", "dependencies:"]
    lines += [f"  - python{project['requires-python']}", "  - pip", "  - pip:", "      - -c constraints.txt"]
    lines += [f'      - "{r}"' for r in requirements(project, EXTRAS)]
    lines += ["      - -e ."]
    return HEADER + "\n".join(lines) + "\n"


def requirements(project: dict[str, Any], extras: tuple[str, ...]) -> list[str]:
    """Dependencies and those of *extras*, sorted, each once; extras that name our own extras are followed."""
    own = re.compile(rf"{re.escape(project['name'])}\[(?P<extras>[^\]]+)\]$")
    found: dict[str, None] = dict.fromkeys(project["dependencies"])
    waiting, seen = list(extras), set[str]()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in project["optional-dependencies"][extra]:
            if match := own.match(requirement):
                waiting += [name.strip() for name in match["extras"].split(",")]
            else:
                found[requirement] = None
    return sorted(found, key=str.lower)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

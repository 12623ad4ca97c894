#!/usr/bin/env python3
"""Write constraints.txt: name and version of everything installed in the given virtual environments.

Usage: scripts/make_constraints.py [VENV ...]      (default: .venv)

Names and versions only, so the file says nothing about where packages come from. The installers themselves and
dipeo-nb are left out. Exit status 1 when two environments hold different versions of one package.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
LEFT_OUT = {"dipeo-nb", "pip", "setuptools", "wheel"}
HEADER = "# Written by scripts/make_constraints.py: the versions that dipeo-nb is tested with. Do not edit.\n"


def main(arguments: list[str]) -> int:
    found: dict[str, str] = {}
    clashes: list[str] = []
    for venv in arguments or [".venv"]:
        for name, version in installed(ROOT / venv).items():
            if found.setdefault(name, version) != version:
                clashes.append(f"{name}: {found[name]} and {version}")
    if clashes:
        print("The environments disagree:\n  " + "\n  ".join(clashes), file=sys.stderr)
        return 1
    TARGET.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(found.items())))
    print(f"{TARGET.name}: {len(found)} packages")
    return 0


def installed(venv: Path) -> dict[str, str]:
    """Normalised name → version of the packages of a virtual environment."""
    places = [str(p) for p in (*venv.glob("lib/python*/site-packages"), *venv.glob("Lib/site-packages"))]
    if not places:
        sys.exit(f"error: {venv} is not a virtual environment. Run: make install")
    names = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in distributions(path=places)}
    return {name: version for name, version in names.items() if name not in LEFT_OUT}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

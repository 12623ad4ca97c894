"""Programs of npm packages (tests/support/package.json), which `make npm` installs into the environment of the tests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from dipeo_nb.execution.node_js import node

FOLDER = Path(sys.prefix, "npm", "node_modules")


def command(package: str, *arguments: str) -> list[str]:
    """The command line that runs the program of a package with these arguments."""
    found, description = node(), FOLDER / package / "package.json"
    if found is None or not description.exists():
        pytest.skip(f"{package} is missing. Run: make npm")
    programs = json.loads(description.read_text())["bin"]
    program = programs if isinstance(programs, str) else next(iter(programs.values()))
    return [found[0], str(FOLDER / package / program), *arguments]


def environment() -> dict[str, str]:
    """The environment of such a program: nothing of npm's own settings, no telemetry."""
    return {k: v for k, v in os.environ.items() if not k.lower().startswith("npm_config")}

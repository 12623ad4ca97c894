"""environment.yml, constraints.txt and the hooks follow pyproject.toml."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_is_up_to_date() -> None:
    """environment.yml is what the script makes of pyproject.toml today."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make_environment.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_environment_lists_every_dependency() -> None:
    """The pip section holds every dependency, the extras of `all`, and the package itself, under a conda Python."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = dependencies[-1]["pip"]
    assert f"python{PYPROJECT['project']['requires-python']}" in dependencies
    assert pip[-1] == "-e ."
    assert set(PYPROJECT["project"]["dependencies"]) <= set(pip)
    assert set(PYPROJECT["project"]["optional-dependencies"]["lab"]) <= set(pip)


def test_check_notices_a_change(tmp_path: Path) -> None:
    """A new dependency in pyproject.toml makes another environment.yml."""
    environment = runpy.run_path(str(ROOT / "scripts/make_environment.py"))["environment"]
    project = PYPROJECT["project"]
    changed = {"project": {**project, "dependencies": [*project["dependencies"], "brand-new>=1"]}}
    assert environment(PYPROJECT) == (ROOT / "environment.yml").read_text()
    assert '"brand-new>=1"' in environment(changed)


def test_constraints_are_names_and_versions() -> None:
    """constraints.txt holds `name==version` lines only: no URL, no path, no index."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    wanted = {
        re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")
        for name in ("lab", "local", "test", "dev")
        for requirement in [*PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"][name]]
    }
    assert wanted - {"dipeo-nb"} <= pinned


def test_hooks_need_no_download() -> None:
    """Every pre-commit hook is a local one that runs a tool of the virtual environment."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)

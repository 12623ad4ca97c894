"""SECURITY.md names tests that exist; databases that others could read are closed to them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))


def test_promises_name_tests() -> None:
    """There are some."""
    assert len(NAMED) >= 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    """With that very name."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(" if name else "^def test_", text, re.MULTILINE)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_open_stores_are_closed_to_others(tmp_path: Path) -> None:
    """A store and a folder that an earlier version or a copy left readable are private once they are opened."""
    nodes = [{"label": "Start", "type": "start"}, {"label": "End", "type": "endpoint"}]
    diagram = {"version": "light", "nodes": nodes, "connections": [{"from": "Start", "to": "End"}]}
    for _ in range(2):
        with Session(tmp_path, llm=scripted()) as dp:
            dp.run(diagram, view=False)
        assert (tmp_path / ".dipeo/runs.db").stat().st_mode & 0o077 == 0
        assert (tmp_path / ".dipeo").stat().st_mode & 0o077 == 0
        (tmp_path / ".dipeo/runs.db").chmod(0o644)
        (tmp_path / ".dipeo").chmod(0o755)

"""What the settings change, seen in runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.config import Settings, get_settings, reset_settings
from dipeo_nb.errors import RunTimeoutError
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.single_node import diagram

TWO = {
    "version": "light",
    "nodes": [
        {"label": "Start", "type": "start"},
        {"label": "A", "type": "hook", "props": {"command": "sleep 0.3"}},
        {"label": "B", "type": "hook", "props": {"command": "sleep 0.3"}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [
        {"from": "Start", "to": "A"},
        {"from": "Start", "to": "B"},
        {"from": "A", "to": "End"},
        {"from": "B", "to": "End"},
    ],
}


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reset_settings()
    return get_settings()


@pytest.mark.parametrize(("value", "at_once"), [("true", 2), ("false", 1)])
def test_parallel_execution(monkeypatch: pytest.MonkeyPatch, value: str, at_once: int):
    """DIPEO_PARALLEL_EXECUTION (S105): two branches at the same time, or one after the other."""
    with Session(settings=settings(monkeypatch, DIPEO_PARALLEL_EXECUTION=value), llm=scripted()) as dp:
        events = dp.run(TWO, view=False).events
    going, most = 0, 0
    for event in events:
        if event.payload.get("label") in ("A", "B") or event.node_id in _hooks(events):
            going += {"node_started": 1, "node_completed": -1}.get(event.type, 0)
            most = max(most, going)
    assert (going, most) == (0, at_once)


def _hooks(events: Any) -> set[str]:
    return {e.node_id for e in events if e.type == "node_started" and e.payload.get("label") in ("A", "B")}


def test_execution_timeout(monkeypatch: pytest.MonkeyPatch):
    """DIPEO_EXECUTION_TIMEOUT (S104) stops a run whose node sleeps."""
    with Session(settings=settings(monkeypatch, DIPEO_EXECUTION_TIMEOUT="0.3"), llm=scripted()) as dp:
        with pytest.raises(RunTimeoutError):
            dp.run(diagram("hook", {"command": "sleep 30"}), view=False)
        assert dp.runs()[0].status == "failed"


def test_base_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """DIPEO_BASE_DIR is the root of what a diagram names, and where runs are recorded."""
    (tmp_path / "elsewhere").mkdir()
    props = {"operation": "write", "file": "out/x.txt", "data": "there"}
    with Session(settings=settings(monkeypatch, DIPEO_BASE_DIR=str(tmp_path / "elsewhere")), llm=scripted()) as dp:
        dp.run(diagram("db", props), view=False, inputs={"value": "there"})
    assert "there" in (tmp_path / "elsewhere/out/x.txt").read_text()
    assert (tmp_path / "elsewhere/.dipeo/runs.db").exists()

"""For how long a run was at work: in Python and on its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from dipeo_nb.execution.live_clock import LiveClock
from dipeo_nb.notebook.timeline import timeline
from tests.support.js_engine import run_module

STARTED, NODE, RESUMED = EventType.EXECUTION_STARTED, EventType.NODE_STARTED, {"resumed": 1}
CASES: dict[str, tuple[list[tuple[float, EventType, dict[str, Any]]], list[float]]] = {
    "interrupted overnight": ([(0, STARTED, {}), (5, NODE, {}), (50_000, STARTED, RESUMED), (50_002, NODE, {})], [0, 5, 5, 7]),
    "resumed with an earlier clock": ([(0, STARTED, {}), (5, NODE, {}), (-900, STARTED, RESUMED), (-898, NODE, {})], [0, 5, 5, 7]),
    "clock set back": ([(0, STARTED, {}), (5, NODE, {}), (2, NODE, {}), (6, NODE, {})], [0, 5, 5, 6]),
}  # fmt: skip


def events(case: str) -> list[Event]:
    given, _ = CASES[case]
    return [
        Event(n, kind, "e", 1000 + at, None if kind is STARTED else "a", {"run": n, "label": "A", "inputs": {}, **payload})
        for n, (at, kind, payload) in enumerate(given, 1)
    ]


@pytest.mark.parametrize("case", CASES)
def test_only_live_time_counts(case: str) -> None:
    """Time in which the run lay interrupted does not, and it never goes back."""
    clock, seen = LiveClock(), list[float]()
    for event in events(case):
        clock.take(event)
        seen.append(clock.now(live=False))
    assert seen == CASES[case][1]
    assert timeline(events(case)).seconds == seen[-1]


@pytest.mark.parametrize("case", CASES)
def test_the_page_has_the_same_times(case: str, tmp_path: Path) -> None:
    script = (
        f"{run_page.script()}\nconst answer = (rows) => {{ const log = new Recording(); log.push(rows); return log.times; }};"
    )
    assert run_module(script, list(run_page.rows(events(case))), tmp_path) == CASES[case][1]


def test_a_note_takes_no_time() -> None:
    clock = LiveClock()
    for n, (at, kind) in enumerate([(0.0, STARTED), (5.0, NODE), (9_000.0, EventType.RUN_NOTE)], 1):
        clock.take(Event(n, kind, "e", 1000 + at, None, {}))
    assert clock.now(live=False) == 5
    assert clock.now(live=True) > 5

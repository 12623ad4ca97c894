"""What reads a long run reads it some events at a time, and holds no more than it shows."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.events import Event
from dipeo_nb.notebook import tables
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.run_orders import RunOrders
from dipeo_nb.notebook.session import Session

ROUNDS = """
version: light
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: "Go on.", max_iteration: 150}
- {label: Enough, type: condition, condition_type: detect_max_iterations}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: Enough}
- {from: "Enough[condfalse]", to: Say}
- {from: "Enough[condtrue]", to: End}
"""
PAGE = 20


class Payload(dict[str, Any]):
    """That of an event, which says how many there are."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Reading:
    """How a run is read, and how many of its events there were at a time."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self.read = 0
        self._events = store.events
        self._there = weakref.WeakSet[Payload]()
        monkeypatch.setattr(store, "events", self.events)
        monkeypatch.setattr(store, "scan", self.scan)

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        found = []
        for event in await self._events(run_id, after=after, limit=limit):
            payload = Payload(event.payload)
            self._there.add(payload)
            found.append(event._replace(payload=payload))
        self.read += len(found)
        self.most = max(self.most, len(self._there))
        return found

    async def scan(self, run_id: str, *, after: int = 0, page: int = PAGE) -> AsyncIterator[Sequence[Event]]:
        while events := await self.events(run_id, after=after, limit=PAGE):
            yield events
            after = events[-1].seq


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Session(tmp_path) as session:
        made = session.start(ROUNDS, view=False, max_iterations=10_000)
        made.result()
        run = session.open_run(made.id)
        assert run.state.events > 800
        yield run


READERS: dict[str, Callable[[Run, Path], object]] = {
    "as_python": lambda run, folder: run.as_python(),
    "as_test": lambda run, folder: run.as_test(),
    "copy in a view": lambda run, folder: RunOrders(run, run._of_session()).copy("python", None, None),
    "explain": lambda run, folder: str(run.explain()),
    "metrics": lambda run, folder: run.metrics,
    "stretch": lambda run, folder: repr(run[500:510]),
    "to_html": lambda run, folder: run.to_html(folder / "run.html"),
}


@pytest.mark.parametrize("name", READERS)
def test_it_is_read_some_events_at_a_time(run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(run._runtime.services.store, monkeypatch)
    READERS[name](run, tmp_path)
    assert reading.read >= run.state.events
    assert reading.most <= 4 * PAGE


def test_a_question_is_copied_without_reading_events(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(run._runtime.services.store, monkeypatch)
    assert "Go on." in run.as_python("Say")
    assert reading.read == 0


def test_a_table_of_events_makes_the_rows_that_it_shows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    short_repr = tables.short_repr
    monkeypatch.setattr(tables, "short_repr", lambda *given: made.append(given) or short_repr(*given))
    events = run.events
    text, html = repr(events), events._repr_html_()
    assert f"… and {len(events) - tables.TEXT_ROWS} more rows" in text
    assert html.count("<tr>") == 201
    assert len(made) <= 2 * 240

"""What every run store promises (`domain.ports.RunStore`), on every one we have."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore

STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda folder: InMemoryRunStore(),
    "sqlite": lambda folder: SqliteRunStore(folder / "runs.db"),
    "sqlite-full": lambda folder: SqliteRunStore(folder / "runs.db", sync="full"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path):
    made: RunStore = STORES[request.param](tmp_path)
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())


def event(seq: int, kind: T = T.NODE_STARTED, run: str = "r1", **payload: Any) -> Event:
    return Event(seq, kind, run, 1000.0 + seq, "node_1" if kind is T.NODE_STARTED else None, payload)


def started(run: str = "r1", **payload: Any) -> Event:
    return event(1, T.EXECUTION_STARTED, run, **{"diagram": "d", **payload})


def ended(seq: int, run: str = "r1", **payload: Any) -> Event:
    return event(seq, T.EXECUTION_COMPLETED, run, status="completed", **payload)


def test_it_is_the_port(store: RunStore):
    """Every method of the port is there."""
    assert isinstance(store, RunStore)


def test_events_come_back_in_order(store: RunStore):
    """What was appended is read back, in order, with its types."""
    run_sync(store.append([started(), event(2, inputs={"x": ["n", 1]})]))
    run_sync(store.append([event(3), ended(4)]))
    events = run_sync(store.events("r1"))
    assert [e.seq for e in events] == [1, 2, 3, 4]
    assert events[1].payload == {"inputs": {"x": ["n", 1]}}
    assert events[3].type is T.EXECUTION_COMPLETED
    assert events[0].occurred_at == 1001.0
    assert (events[1].node_id, events[0].node_id) == ("node_1", None)


def test_reading_from_a_place_and_a_few(store: RunStore):
    """`after` and `limit` cut without gap."""
    run_sync(store.append([started(), *(event(n) for n in range(2, 11))]))
    assert [e.seq for e in run_sync(store.events("r1", after=4, limit=3))] == [5, 6, 7]
    assert run_sync(store.events("r1", after=10)) == []
    assert run_sync(store.events("unknown")) == []


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        ([event(2)], "begins with execution_started"),
        ([started(), event(3)], "event 3 comes where 2 is due"),
        ([started(), event(2), event(2)], "event 2 comes where 3 is due"),
        ([started(), event(2, run="r2")], "different runs"),
        ([started(), ended(2), event(3)], "final event"),
    ],
)
def test_gaps_and_repeats_are_refused_whole(store: RunStore, batch: list[Event], problem: str):
    """A batch that breaks the numbering is refused, and nothing of it is stored."""
    with pytest.raises(StorageError, match=problem):
        run_sync(store.append(batch))
    assert run_sync(store.events("r1")) == []
    run_sync(store.append([started()]))
    assert len(run_sync(store.events("r1"))) == 1


def test_nothing_after_the_end(store: RunStore):
    """An ended run takes no more events, also from a store that has forgotten the run."""
    run_sync(store.append([started(), ended(2)]))
    with pytest.raises(StorageError, match="has ended"):
        run_sync(store.append([event(3)]))


def test_a_repeat_across_batches_is_refused(store: RunStore):
    """The numbering is checked against what is stored."""
    run_sync(store.append([started(), event(2)]))
    with pytest.raises(StorageError, match="where 3 is due"):
        run_sync(store.append([event(2)]))
    assert len(run_sync(store.events("r1"))) == 2


def test_an_empty_batch_is_nothing(store: RunStore):
    """Appending nothing does nothing."""
    run_sync(store.append([]))
    assert run_sync(store.runs()) == []


def test_history(store: RunStore):
    """Runs are listed newest first, with status, times and counts; going on, ended and failed ones."""
    run_sync(store.append([started("a", parent="p")]))
    run_sync(store.append([Event(1, T.EXECUTION_STARTED, "b", 2000.0, None, {"diagram": "other"})]))
    run_sync(store.append([Event(2, T.EXECUTION_ERROR, "b", 2001.0, None, {"status": "failed"})]))
    rows = run_sync(store.runs())
    assert [(r.run_id, r.status, r.diagram, r.events) for r in rows] == [
        ("b", "failed", "other", 2),
        ("a", "running", "d", 1),
    ]
    assert (rows[0].started_at, rows[0].ended_at, rows[1].ended_at) == (2000.0, 2001.0, None)
    assert rows[1].parent_run_id == "p"
    assert [r.run_id for r in run_sync(store.runs(status="running"))] == ["a"]
    assert [r.run_id for r in run_sync(store.runs(diagram="other"))] == ["b"]
    assert [r.run_id for r in run_sync(store.runs(limit=1))] == ["b"]
    one = run_sync(store.run("a"))
    assert one is not None
    assert one.status == "running"
    assert run_sync(store.run("zzz")) is None


def test_forgetting(store: RunStore):
    """A deleted run is gone with its events; unknown ones are ignored; its id may be used again."""
    run_sync(store.append([started()]))
    run_sync(store.delete("r1"))
    run_sync(store.delete("never"))
    assert run_sync(store.runs()) == []
    assert run_sync(store.events("r1")) == []
    run_sync(store.append([started()]))


def test_any_text_survives(store: RunStore):
    """Text of any script, quotes, newlines and NUL-like escapes come back as they were."""
    text = 'שלום "quoted" \\u0000 \n\t 😀 <script>'
    run_sync(store.append([started(text=text)]))
    assert run_sync(store.events("r1"))[0].payload["text"] == text


def test_closing_twice(store: RunStore):
    """cleanup may be called again; initialize opens again."""
    run_sync(store.cleanup())
    run_sync(store.cleanup())
    run_sync(store.initialize())
    run_sync(store.append([started()]))


def test_many_runs_interleave(store: RunStore):
    """Runs that write in turn keep each their own numbering."""
    for run in ("a", "b", "c"):
        run_sync(store.append([started(run)]))
    for seq in range(2, 30):
        for run in ("a", "b", "c"):
            run_sync(store.append([event(seq, run=run)]))
    for run in ("a", "b", "c"):
        assert [e.seq for e in run_sync(store.events(run))] == list(range(1, 30))


def test_time_is_not_invented(store: RunStore):
    """The store takes the events' own times."""
    run_sync(store.append([started()]))
    assert run_sync(store.runs())[0].started_at < time.time() - 1_000_000

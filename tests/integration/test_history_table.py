"""The run history in pages: sorted, filtered, searched, and as the widget that asks for them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import UserError, ValidationError
from dipeo_nb.execution.run_pages import RunQuery, page_of_runs
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.history import Runs
from dipeo_nb.notebook.history_table import HistoryTable
from dipeo_nb.notebook.session import Session
from tests.support.row_diagrams import ASKS
from tests.support.waiting import wait_until

TALK = """\
version: light
name: Talk
persons:
  Ann: {service: echo}
nodes:
- {label: S, type: start}
- {label: First, type: person_job, person: Ann, default_prompt: "About {{topic}}."}
- {label: E, type: endpoint}
connections: [{from: S, to: First}, {from: First, to: E}]
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=tmp_path)) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    made: RunStore = InMemoryRunStore() if request.param == "memory" else SqliteRunStore(tmp_path / "runs.db")
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())


def fill(store: RunStore, count: int) -> None:
    async def write() -> None:
        for n in range(count):
            run = f"exec_{n:04}"
            first = Event(1, EventType.EXECUTION_STARTED, run, 1000.0 + n, None, {"diagram": f"d{n % 3}", "variables": {}})
            done = Event(2, EventType.NODE_COMPLETED, run, 1000.5 + n, "a", {"output": f'said "{n}" 100%_Ä\n', "run": 1})
            last = Event(3, EventType.EXECUTION_COMPLETED, run, 1001.0 + n * 2, None, {"status": "completed"})
            await store.append([first, done, last])

    run_sync(write())


def ids(store: RunStore, **given: Any) -> list[str]:
    return [row.run_id for row in run_sync(page_of_runs(store, RunQuery.of(given))).runs]


def test_pages_follow_each_other(store: RunStore) -> None:
    fill(store, 12)
    assert ids(store, limit=5) == ["exec_0011", "exec_0010", "exec_0009", "exec_0008", "exec_0007"]
    assert ids(store, limit=5, offset=10) == ["exec_0001", "exec_0000"]
    assert ids(store, limit=3, sort="duration", descending=False) == ["exec_0000", "exec_0001", "exec_0002"]
    assert run_sync(page_of_runs(store, RunQuery(limit=5))).total == 12
    assert ids(store, offset=500) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('said "7"', ["exec_0007"]),
        ("EXEC_0003", ["exec_0003"]),
        ("100%_", 12),
        ("%", 12),
        ("100_%", 0),
        ("nowhere", 0),
        ("D1", 4),
        ('"', 12),
    ],
)
def test_texts_are_searched(store: RunStore, text: str, found: Any) -> None:
    """In names, ids and what was said; signs of the database mean themselves."""
    fill(store, 12)
    got = ids(store, text=text)
    assert got == found if isinstance(found, list) else len(got) == found


@pytest.mark.parametrize("given", [{"sort": "colour"}, {"offset": "x"}, {"limit": [1]}])
def test_bad_queries_are_refused(given: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunQuery.of(given)


class Answers(HistoryTable):
    """The widget without a page."""

    def __init__(self, *options: Any) -> None:
        self.sent: list[Any] = []
        super().__init__(*options)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.sent.append(content)

    def asked(self, **message: Any) -> Any:
        self.command({"id": 1, **message})
        return self.sent[-1]


def test_the_widget_answers_its_page(session: Session) -> None:
    for topic in ("cats", "dogs", "<b>"):
        session.start(TALK, view=False, topic=topic).result()
    session.note(session.runs()[0], (1, 3), "the last one")
    table = session.runs().live()
    assert isinstance(table, HistoryTable)
    page = Answers(table._query, table._html, table._facts, table._delete, table._newest)
    found = page.asked(type="query", query={"text": "dogs"})
    assert (found["total"], found["runs"][0]["inputs"], found["runs"][0]["model"]) == (1, "topic=dogs", "echo")
    every = page.asked(type="query", query={})
    assert every["runs"][0]["note"] == "the last one"
    assert every["runs"][0]["tokens"] > 0
    first, second, _ = (run["run_id"] for run in every["runs"])
    html = page.asked(type="open", runs=[first])["html"]
    assert "About" in html
    assert "About <b>" not in html
    assert page.asked(type="open", runs=[first])["html"] == html, "the same view"
    facts = page.asked(type="compare", runs=[second, first])["facts"]
    assert facts["inputs"] == [["topic", "dogs", "<b>"]]
    json.dumps(facts)
    assert "error" not in page.asked(type="delete", runs=[second])
    assert page.asked(type="query", query={})["total"] == 2
    assert "There is no run" in page.asked(type="open", runs=["exec_nowhere"])["error"]
    assert "sorted" in page.asked(type="query", query={"sort": "x"})["error"]
    assert page.asked(type="dance") == {"id": 1}


def test_a_run_of_another_session_is_opened_as_it_is_now(session: Session, tmp_path: Path) -> None:
    """Also when it was opened before, while it was going on."""
    with Session(settings=Settings(base_dir=tmp_path)) as other:
        run = other.start(ASKS, view=False)
        wait_until(lambda: run.question)
        table = session.runs().live()
        assert "Ada" not in table._html(run.id)
        run.answer("Ada")
        run.result()
        html = table._html(run.id)
        assert "Ada" in html
        assert table._html(run.id) == html


def test_the_events_of_a_run_that_is_written_faster_than_it_is_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere: a loop over them ends with those there were when it began."""
    store = session.runtime.services.store
    begun = [Event(1, EventType.EXECUTION_STARTED, "exec_0000", 1000.0, None, {"diagram": "D", "labels": {}, "variables": {}})]
    run_sync(store.append([*begun, Event(2, EventType.EXECUTION_LOG, "exec_0000", 1001.0, None, {"message": "first"})]))
    run, read, numbers = session.open_run("exec_0000"), store.events, itertools.count(3)

    async def slowly(run_id: str, **options: Any) -> list[Event]:
        seq = next(numbers)
        assert seq < 20, "it goes on for ever"
        await store.append([Event(seq, EventType.EXECUTION_LOG, run_id, 1002.0, None, {"message": "more"})])
        return await read(run_id, **options)

    async def seen() -> list[int]:
        return [event.seq async for event in run]

    monkeypatch.setattr(store, "events", slowly)
    found = asyncio.run(seen())
    assert found[:2] == [1, 2]
    assert found == sorted(set(found))


def test_rows_without_a_session_have_no_live_table() -> None:
    with pytest.raises(UserError, match="do not belong"):
        Runs().live()

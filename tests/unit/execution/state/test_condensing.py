"""Streamed texts of runs that have ended are kept once; what is read of the run is the same."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.common import injection
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.container import run_store
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.metrics import measure
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.condensing import joined
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from tests.benchmarks.growth import SAY, Words


def piece(seq: int, text: str, node: str = "a", **more: Any) -> Event:
    return Event(seq, T.NODE_OUTPUT, "r", float(seq), node, {"kind": "text", "text": text, "run": 1, **more})


def test_the_text_of_pieces_is_in_the_first_of_each():
    pieces = [
        piece(1, "a1 "),
        piece(2, "b1 ", "b"),
        piece(3, "a2 ", pieces=4),
        piece(4, "", restart=True),
        piece(5, "a3"),
        piece(6, "b2", "b"),
    ]
    assert [(e.node_id, e.payload["text"], e.payload["pieces"]) for e in joined(pieces)] == [
        ("a", "a1 a2 ", 5), ("b", "b1 b2", 2), ("a", "", 0), ("a", "a3", 1), ("a", "", 0), ("b", "", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_states_before_and_after_are_the_same(seed: int):
    """Of what follows the pieces, and of a run that was cut off behind them: texts, and the tokens that they are taken for."""
    rng = random.Random(seed)
    labels = {"a": "A", "b": "B"}
    events = [Event(1, T.EXECUTION_STARTED, "r", 0.0, None, {"diagram": "d", "labels": labels})]
    for node in labels:
        events.append(Event(len(events) + 1, T.NODE_STARTED, "r", 0.0, node, {"label": labels[node], "run": 1}))
    pieces = list[Event]()
    for n in range(rng.randrange(1, 40)):
        more: dict[str, Any] = {"restart": True} if rng.random() < 0.1 else {}
        more |= {"kind": "reasoning"} if rng.random() < 0.2 else {}
        more |= {"pieces": rng.randrange(2, 9)} if rng.random() < 0.3 else {}
        pieces.append(piece(len(events) + n + 1, rng.choice(("", "x", f"word{n} ")), rng.choice("ab"), **more))
    breaks = {rng.choice(pieces).seq} if rng.random() < 0.5 else set[int]()
    short = joined(pieces, breaks)
    assert joined(short, breaks) == short
    for end in (len(pieces), *(n for n, event in enumerate(pieces, 1) if event.seq in breaks)):
        one, two = (RunState.fold([*events, *some[:end]]) for some in (pieces, short))
        assert {i: (n.text, n.pieces) for i, n in one.nodes.items()} == {i: (n.text, n.pieces) for i, n in two.nodes.items()}


def told(run: Any) -> Any:
    events = list(run.events)
    metrics = measure(events)
    return run.to_dict(), [n.text for n in run.state.nodes.values()], [n.first_text_s for n in metrics.nodes], len(events)


def rows(base: Path) -> int:
    with sqlite3.connect(base / ".dipeo" / "runs.db") as connection:
        return connection.execute("SELECT count(*) FROM events").fetchone()[0]


def test_old_runs_are_condensed_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with dp.Session(tmp_path, llm=Words(100, 500)) as session:
        ids = [session.run(SAY, view=False).id for _ in range(2)]
        before = [told(session.open_run(run)) for run in ids]
    many = rows(tmp_path)
    assert main(["runs", "condense", "--older-than", "1h", "--base-dir", str(tmp_path)]) == 0
    assert rows(tmp_path) == many
    assert main(["runs", "condense", "--json", "--base-dir", str(tmp_path)]) == 0
    assert sorted(json.loads(capsys.readouterr().out.splitlines()[-1])["condensed"]) == sorted(ids)
    assert rows(tmp_path) < many
    with dp.Session(tmp_path) as session:
        assert json_text([told(session.open_run(run)) for run in ids]) == json_text(before)
    assert main(["runs", "condense", "--older-than", "soon", "--base-dir", str(tmp_path)]) == 2


def test_runs_are_condensed_at_their_end_where_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPEO_STREAMED_TEXT", "condensed")
    with dp.Session(tmp_path, llm=Words(100, 500)) as session:
        run = session.start(SAY, view=False)
        run.result()
        seen = told(run)
        kept = [event.payload["text"] for event in session.open_run(run.id).events if event.payload.get("kind") == "text"]
        assert json_text(told(session.open_run(run.id))) == json_text(seen)
    assert [bool(text) for text in kept] == [True, *[False] * (len(kept) - 1)]
    assert len(kept[0]) == 500


def test_a_text_of_more_than_64_KB_stands_once(tmp_path: Path):
    """In its first piece and in what its node gave: both refer to it."""

    with dp.Session(tmp_path, llm=Words(40_000)) as session:
        run = session.run(SAY, view=False)
        before = told(session.open_run(run.id))
        store = SqliteRunStore(tmp_path / ".dipeo" / "runs.db")
        assert run_sync(store.condense(run.id)) > 0
        run_sync(store.compact())
        run_sync(store.cleanup())
        assert json_text(told(session.open_run(run.id))) == json_text(before)
    with sqlite3.connect(tmp_path / ".dipeo" / "runs.db") as connection:
        assert connection.execute("SELECT sum(length(payload)) FROM events").fetchone()[0] < 20_000
        assert 200_000 < connection.execute("SELECT sum(length(value)) FROM blobs").fetchone()[0] < 220_000


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_run_that_is_resumed_meanwhile_is_not_followed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """It writes as fast as it is read."""
    place = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgres_server").schema()
    module = f"dipeo_nb.execution.state.{kind}"
    monkeypatch.setattr(f"{module}.ROWS", 10)
    read: list[int] = []

    async def go() -> None:
        loop, store = asyncio.get_running_loop(), run_store(Settings(state_store_path=place))
        await store.initialize()

        async def write(first: int, last: int) -> None:
            await store.append(
                [Event(n, T.EXECUTION_LOG, "r", float(n), None, {"message": "x"}) for n in range(first, last + 1)]
            )

        async def resumed() -> None:
            if not read:
                await store.claim("r")
            if len(read) < 40:
                await write(31 + 10 * len(read), 40 + 10 * len(read))

        def condensed(rows: list[Any], breaks: Any) -> list[Any]:
            asyncio.run_coroutine_threadsafe(resumed(), loop).result(60)
            read.append(rows[-1][0])
            return []

        monkeypatch.setattr(f"{module}.condensed", condensed)
        await store.append([Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d", "labels": {}})])
        await write(2, 29)
        await store.append([Event(30, T.EXECUTION_ERROR, "r", 30.0, None, {"status": "failed"})])
        assert await store.condense("r") == 0
        await store.cleanup()

    asyncio.run(go())
    assert len(read) == 3
    assert read[-1] >= 30


def test_a_stop_in_the_middle_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class StopError(Exception):
        pass

    def stop(point: str) -> None:
        if point == "store.condense":
            raise StopError

    with dp.Session(tmp_path, llm=Words(50, 500)) as session:
        run = session.run(SAY, view=False).id
        store = session.runtime.services.store
        before = run_sync(store.events(run))
        monkeypatch.setattr(injection, "hook", stop)
        with pytest.raises(StopError):
            run_sync(store.condense(run))
        assert run_sync(store.events(run)) == before

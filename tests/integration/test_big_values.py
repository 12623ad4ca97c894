"""Big values of a run are recorded once, whoever holds them; every reader gets them as they were."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state import blobs
from dipeo_nb.execution.state.blobs import LIMIT, Resolver, encoded, events_of_lines, lines
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.postgres import PostgresRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.servers import PostgresProcess

BIG = "0123456789" * 10_000


def event(seq: int, run: str = "r", **payload: Any) -> Event:
    kind = T.EXECUTION_STARTED if seq == 1 else T.NODE_COMPLETED
    return Event(seq, kind, run, 1000.0 + seq, "n", {"diagram": "d", **payload} if seq == 1 else payload)


def read_back(payload: dict[str, Any]) -> Any:
    found = encoded(payload)
    return Resolver(found.blobs).payload(found.text) if found.blobs else json.loads(found.text)


# The encoding.

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("x" * 300) | st.just("é" * 250)
keys = st.text(max_size=4) | st.just("$blob")
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3) | st.just("$blob").map(lambda k: {k: "x"})
    ),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4), st.integers(5, 200))
def test_any_payload_comes_back(payload: dict[str, Any], limit: int):
    """Also one that looks like a reference, and one with blobs within blobs; and no text that is left is big."""
    before, blobs.LIMIT = blobs.LIMIT, limit
    try:
        assert read_back(payload) == payload
        found = encoded(payload)
        names = set(found.blobs)
        assert all(name in found.text + "".join(found.blobs.values()) for name in names)
    finally:
        blobs.LIMIT = before


def test_what_is_big_and_what_is_not():
    """Texts, lists and mappings over the limit; what is below it stays in its event, as it was before there were blobs."""
    assert encoded({"output": "x" * (LIMIT - 100)}).blobs == {}
    assert len(encoded({"output": "x" * (LIMIT + 1)}).blobs) == 1
    assert len(encoded({"output": list(range(20_000))}).blobs) == 1
    assert len(encoded({"output": {f"k{i}": "v" * 100 for i in range(1000)}}).blobs) == 1
    assert len(encoded({"output": b"x" * LIMIT}).blobs) == 1
    both = encoded({"output": [BIG, BIG + "!"], "text": BIG})
    assert len(both.blobs) == 2, "the parts that are big themselves, and not the list that holds them"
    grown = encoded({"output": [BIG, BIG + "!", "more"]})
    assert set(grown.blobs) == set(both.blobs), "a list that grows holds what it held"


WORDS = [
    "node",
    "run",
    "diagram",
    "agent",
    "value",
    "text",
    "loop",
    "prompt",
    "memory",
    "model",
    "answer",
    "list",
    "key",
    "index",
    "change",
    "record",
]


def a_mapping(pick: random.Random) -> dict[str, str]:
    return {f"key{n}": " ".join(pick.choices(WORDS, k=8)) for n in range(12_000)}


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (a_mapping, lambda v, n: v | {f"key{n * 97}": f"new {n}"}),
        (a_mapping, lambda v, n: {f"more{n}": "x"} | v),
        (lambda pick: [pick.random() for _ in range(40_000)], lambda v, n: [*v[: n * 301], n, *v[n * 301 :]]),
        (lambda pick: " ".join(pick.choices(WORDS, k=120_000)), lambda v, n: f"{v} and {n}"),
        (lambda pick: "x" * 700_000, lambda v, n: f"{v}y"),
    ],
    ids=["a key", "a key in front", "an item within", "text at the end", "one letter"],
)
def test_a_large_value_that_changes_a_little(make: Callable[[random.Random], Any], change: Callable[[Any, int], Any]):
    """Costs what changed, and not the whole again: 40 changes less than six times the value, not 41 times."""
    value = make(random.Random(1))
    kept = dict(encoded({"output": value}).blobs)
    for n in range(1, 41):
        value = change(value, n)
        found = encoded({"output": value})
        kept |= found.blobs
        assert Resolver(found.blobs).payload(found.text) == {"output": value}
    assert sum(map(len, kept.values())) < 6 * len(json.dumps(value))
    assert max(map(len, kept.values())) <= LIMIT


def test_equal_values_are_one_object_when_read():
    """Reading a run does not take more memory than its record."""
    found = encoded({"a": BIG, "b": {"c": BIG}})
    payload = Resolver(found.blobs).payload(found.text)
    assert payload["a"] is payload["b"]["c"]


def test_a_missing_blob_is_a_clear_error():
    """A damaged record is said to be one."""
    with pytest.raises(StorageError, match="damaged"):
        Resolver({}).payload(encoded({"a": BIG}).text)


# Stores.


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    if request.param == "memory":
        return InMemoryRunStore()
    if request.param == "sqlite":
        return SqliteRunStore(tmp_path / "runs.db")
    return PostgresRunStore(request.getfixturevalue("postgres_server").schema())


async def size_of(store: RunStore) -> int:
    """Characters of all that the store keeps."""
    if isinstance(store, SqliteRunStore):
        tables = (("events", "payload"), ("blobs", "value"))
        return sum(store._file.read(f"SELECT coalesce(sum(length({c})), 0) FROM {t}", ())[0][0] for t, c in tables)
    if isinstance(store, PostgresRunStore):
        tables = (("dipeo_events", "payload"), ("dipeo_blobs", "value"))
        return sum(
            [(await store._server.read(f"SELECT coalesce(sum(length({c})), 0)::bigint FROM {t}", ()))[0][0] for t, c in tables]
        )  # type: ignore[arg-type]
    seen: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, str):
            seen[id(value)] = len(value)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    assert isinstance(store, InMemoryRunStore)
    for log in store._runs.values():
        for one in log:
            walk(one.payload)
    return sum(seen.values())


def fresh(value: Any) -> Any:
    """An equal value that is another object, as each code job gives one."""
    return json.loads(json.dumps(value))


def test_a_value_that_many_nodes_hand_on_is_kept_once(store: RunStore):
    """1 MB through 95 nodes makes about 1 MB (in memory, events become one sixteen at a time); two runs share nothing; a deleted run takes its values along."""

    async def go() -> None:
        value = {"rows": [fresh(BIG) for _ in range(10)], "name": "x"}
        await store.initialize()
        try:
            for run in ("r", "other"):
                await store.append([event(1, run, variables={"given": fresh(value)})])
                for seq in range(2, 97):
                    payload = {
                        "output": fresh(value),
                        "text": fresh(BIG),
                        "meta": {"variables": {"v": fresh(BIG)}},
                        "n": seq,
                    }
                    await store.append([event(seq, run, **payload)])
            for run in ("r", "other"):
                events = await store.events(run)
                assert [e.payload["output"] for e in events[1:]] == [value] * 95
                assert events[0].payload["variables"] == {"given": value}
                assert (await store.events(run, after=50, limit=2))[1].payload["text"] == BIG
            assert 200_000 <= await size_of(store) < 400_000
            await store.delete("r", owned=True)
            assert 100_000 <= await size_of(store) < 200_000
            assert (await store.events("other"))[-1].payload["output"] == value
            await store.delete("other", owned=True)
            assert await size_of(store) == 0
        finally:
            await store.cleanup()

    run_sync(go())


def test_what_looks_like_a_reference_is_none(store: RunStore):
    """A value of a node that has the form of a reference comes back as it was, beside big ones and without."""

    async def go() -> None:
        await store.initialize()
        try:
            tricky = {"$blob": "abc"}
            await store.append(
                [event(1, variables=tricky), event(2, output=tricky), event(3, output=[tricky, {"$blob": ["x"]}, BIG])]
            )
            events = await store.events("r")
            assert events[0].payload["variables"] == tricky
            assert events[1].payload["output"] == tricky
            assert events[2].payload["output"] == [tricky, {"$blob": ["x"]}, BIG]
        finally:
            await store.cleanup()

    run_sync(go())


WRITER = """
import asyncio, sys
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from tests.integration.test_big_values import event

async def main(path):
    store = SqliteRunStore(path)
    await store.initialize()
    await store.append([event(1)])
    for seq in range(2, 10_000):
        await store.append([event(seq, output=[f"{seq}" * 70_000, "x" * 70_000])])
        print(seq, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_kill_9_parts_no_event_from_its_values(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """They are one transaction: every event that is there has its values, and none is there without an event."""
    path = tmp_path / "runs.db"
    for last in (1, 4, 7):
        writer = child(WRITER, str(path))
        assert writer.stdout is not None
        list(itertools.islice(writer.stdout, last))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        store = SqliteRunStore(path)
        run_sync(store.initialize())
        events = run_sync(store.events("r"))
        assert len(events) > last
        assert [e.payload["output"][0] for e in events[1:]] == [f"{e.seq}" * 70_000 for e in events[1:]]
        orphans = "SELECT count(*) FROM blobs WHERE hash NOT IN (SELECT hash FROM event_blobs)"
        assert store._file.read(orphans, ()) == [(0,)]
        run_sync(store.delete("r"))
        run_sync(store.cleanup())


def test_a_process_of_the_version_before_goes_on_writing(tmp_path: Path):
    """A kernel that has the file open while a newer version migrates it."""
    golden = Path(__file__).parents[1] / "golden/runs-v2.db"
    path = tmp_path / "runs.db"
    path.write_bytes(golden.read_bytes())
    older = sqlite3.connect(path, isolation_level=None)
    store = SqliteRunStore(path)
    run_sync(store.initialize())
    older.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", ("r", 1, "execution_started", 1.0, None, '{"diagram":"d"}'))
    assert [e.payload for e in run_sync(store.events("r"))] == [{"diagram": "d"}]
    run_sync(store.cleanup())
    older.close()


VERSION_1 = """
CREATE TABLE dipeo_schema (version INTEGER NOT NULL);
INSERT INTO dipeo_schema VALUES (1);
CREATE TABLE dipeo_runs (
    run_id TEXT PRIMARY KEY, diagram TEXT NOT NULL, status TEXT NOT NULL, started_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION, events INTEGER NOT NULL, parent_run_id TEXT, owner BIGINT NOT NULL
);
CREATE INDEX dipeo_runs_by_start ON dipeo_runs (started_at DESC, run_id);
CREATE INDEX dipeo_runs_by_parent ON dipeo_runs (parent_run_id);
CREATE TABLE dipeo_events (
    run_id TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, occurred_at DOUBLE PRECISION NOT NULL,
    node_id TEXT, payload TEXT NOT NULL, PRIMARY KEY (run_id, seq)
)
"""


def test_a_database_of_the_first_version_is_migrated(postgres_server: PostgresProcess):
    """PostgreSQL: what was recorded is there, and big values can be."""
    url = postgres_server.schema()

    async def go() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            for statement in VERSION_1.split(";"):
                await connection.execute(statement)
            await connection.execute("INSERT INTO dipeo_runs VALUES ('r', 'd', 'failed', 1, 2, 1, NULL, 1)")
            row = "INSERT INTO dipeo_events VALUES ('r', 1, 'execution_started', 1, NULL, '{\"diagram\":\"d\"}')"
            await connection.execute(row)
        for _ in range(2):
            store = PostgresRunStore(url)
            await store.initialize()
            assert [e.payload for e in await store.events("r")] == [{"diagram": "d"}]
            await store.cleanup()
        store = PostgresRunStore(url)
        await store.claim("r")
        await store.append([event(2, output=BIG)])
        assert (await store.events("r"))[1].payload["output"] == BIG
        await store.cleanup()

    run_sync(go())


# Real runs.

CHAIN = {
    "version": "light",
    "persons": {"A": {"service": "openai", "model": "m"}},
    "nodes": [
        {"label": "S", "type": "start"},
        {"label": "Say", "type": "person_job", "person": "A", "default_prompt": "hi"},
        {"label": "Job", "type": "code_job", "code": "kept = say\nreturn [say, say]"},
        {"label": "Ask", "type": "person_job", "person": "A", "default_prompt": "{{ say }}"},
        {"label": "E", "type": "endpoint"},
    ],
    "connections": [
        {"from": "S", "to": "Say"},
        {"from": "Say", "to": "Job", "label": "say"},
        {"from": "Say", "to": "Ask", "label": "say"},
        {"from": "Job", "to": "E", "label": "job", "content_type": "object"},
        {"from": "Ask", "to": "E", "label": "ask"},
    ],
}


def test_every_reader_of_a_run_gets_whole_values(tmp_path: Path):
    """State, replay, fork, difference, export and the run opened again; the file is small."""
    answer = "".join(f"{n:010}" for n in range(10_000))
    with Session(tmp_path, llm=scripted(answer)) as dp:
        run = dp.run(CHAIN, view=False).run
        events = run.events
        live = run.outputs
    with Session(tmp_path, llm=scripted(answer)) as dp:
        again = dp.open_run(run.id)
        assert again.outputs == live
        assert again.outputs["E"]["job"] == [answer, answer]
        assert [e.to_wire() for e in again.events] == [e.to_wire() for e in events]
        replayed = dp.replay(again, speed=float("inf"), view=False)
        replayed.wait(20)
        assert replayed.outputs == live
        forked = dp.fork(again, at="Job", view=False)
        forked.result(30)
        assert forked.outputs["E"]["job"] == [answer, answer]
    store = SqliteRunStore(tmp_path / ".dipeo/runs.db")
    rows = store._file.read("SELECT count(*), sum(length(value)) FROM blobs WHERE run_id = ?", (run.id,))
    assert rows[0][0] == 1
    assert rows[0][1] < 110_000
    whole = store._file.read("SELECT sum(length(payload)) FROM events WHERE run_id = ? AND type != 'node_output'", (run.id,))
    assert whole[0][0] < 30_000
    run_sync(store.cleanup())


def test_an_exported_run_has_each_big_value_once(tmp_path: Path):
    """As a line of its own, before the first event that refers to it; the events come back from the lines."""
    events = [event(1, variables={"a": BIG}), *(event(n, output=[BIG, {"$blob": "x"}], text=BIG) for n in range(2, 12))]
    text = list(lines(events))
    assert sum(map(len, text)) < 150_000
    assert json.loads(text[0]).keys() == {"blob", "value"}
    assert [e.to_wire() for e in events_of_lines(text)] == [e.to_wire() for e in events]
    plain = [event(1), event(2, output={"$blob": "x"})]
    assert [json.loads(line) for line in lines(plain)] == [e.to_wire() for e in plain]
    assert list(events_of_lines(lines(plain))) == plain

"""Snapshots of runs: whatever becomes of them, a run reads as its events tell it, and long ones read quickly with them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore, Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.execution import snapshots
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import KIND, VERSION, recorded_state, snapshot_of, state_of
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.execution.state.sqlite_file import RunFile
from dipeo_nb.notebook.session import Session

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("runs-v*.db"))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of short runs, too."""
    monkeypatch.setattr(snapshots, "EVERY", 10)
    monkeypatch.setattr(snapshots, "FINAL_EVENTS_FROM", 5)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Event]:
    """The events of a run with conversations, streamed text and a loop."""
    with Session(tmp_path_factory.mktemp("log")) as dp:
        return list(dp.run("demo:debate", model="echo", view=False).events)


async def stored(store: RunStore, events: Sequence[Event]) -> RunStore:
    await store.initialize()
    for event in events:
        await store.append([event])
    return store


def read(store: RunStore, run_id: str) -> RunState:
    return run_sync(recorded_state(store, run_id))


def row(path: Path) -> tuple[Any, ...] | None:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT seq, version, content FROM snapshots WHERE kind = ?", (KIND,)).fetchone()


def change(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


class Counting(SqliteRunStore):
    """Counts the events that are read."""

    read = 0

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        found = await super().events(run_id, after=after, limit=limit)
        self.read += len(found)
        return found


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_snapshot_at_any_event_tells_what_the_events_tell(tmp_path: Path, golden: Path):
    """Of logs of every version, through a real file."""
    path = shutil.copy(golden, tmp_path / "runs.db")

    async def go() -> int:
        store, count = SqliteRunStore(path), 0
        for run in await store.runs(nested=True):
            events = await store.events(run.run_id)
            whole = RunState.fold(events)
            for seq in range(1, len(events) + 1):
                await store.put_snapshot(snapshot_of(RunState.fold(events[:seq]))._replace(version=VERSION))
                assert await recorded_state(store, run.run_id) == whole, f"event {seq}"
                count += 1
        await store.cleanup()
        return count

    assert run_sync(go()) > 30


def test_a_snapshot_shares_nothing_that_changes(log: Sequence[Event]):
    """Neither with the state that it is of, nor with those that are made of it."""
    state = RunState.fold(log[:40])
    snapshot = snapshot_of(state)
    first = state_of(snapshot, log[0])
    assert first == RunState.fold(log[:40])
    for one in (state, first):
        assert one is not None
        for event in log[40:]:
            one.apply(event)
    assert state_of(snapshot, log[0]) == RunState.fold(log[:40])


def test_a_run_that_ended_is_opened_without_its_events(tmp_path: Path, log: Sequence[Event]):
    """The final event and the snapshot are one commit: one event is read, the first."""
    with Session(tmp_path) as dp:
        run = dp.run("demo:debate", model="echo", view=False)
    store = Counting(tmp_path / ".dipeo/runs.db")
    state = read(store, run.id)
    assert store.read == 1
    assert state == RunState.fold(run_sync(store.events(run.id)))
    found = row(store.path)
    assert found is not None
    assert found[0] == state.events
    run_sync(store.cleanup())
    with Session(tmp_path) as dp:
        again = dp.open_run(run.id)
        assert again.outputs == run.outputs
        assert str(again.explain()) == str(run.explain())
        assert "every node gave the same" in str(dp.diff(run.id, again))
        assert dp.runs()._repr_html_()


def test_runs_that_are_going_on_have_snapshots_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every so many events; and no more often than their size allows."""
    seqs: list[int] = []

    class Watched(SqliteRunStore):
        def attach_snapshot(self, snapshot: Snapshot) -> None:
            if snapshot.kind == KIND:
                seqs.append(snapshot.seq)
            super().attach_snapshot(snapshot)

    monkeypatch.setattr(snapshots, "EVERY", 4)
    monkeypatch.setattr(snapshots, "CHARACTERS_PER_EVENT", 10**9)
    made = Watched(tmp_path / "runs.db")
    with Session(tmp_path, store=made) as dp:
        run = dp.run("demo:debate", model="echo", view=False)
    total = run.run.state.events
    assert seqs[-1] == total
    assert len(seqs) > 4
    assert all(b - a >= 4 for a, b in pairwise(seqs[:-1]))
    assert read(made, run.id) == RunState.fold(run_sync(made.events(run.id)))
    seqs.clear()
    monkeypatch.setattr(snapshots, "CHARACTERS_PER_EVENT", 1)
    with Session(tmp_path, store=made) as dp:
        dp.run("demo:debate", model="echo", view=False)
    assert len(seqs) == 2


DAMAGES = {
    "no JSON": ("content", "{"),
    "a list": ("content", "[]"),
    "a number": ("content", "7"),
    "a mapping of nothing": ("content", "{}"),
    "bytes": ("content", b"\xff\xfe"),
    "fields of other types": ("content", '{"nodes": 3}'),
    "a blob that is not there": ("content", '{"$blob": "abc"}'),
    "another version": ("version", VERSION + 1),
    "events that are not there": ("seq", 10_000),
    "other events": ("seq", 3),
    "hashes that are none": ("blobs", "{{"),
    "hashes of another kind": ("blobs", "[1, null]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_cannot_be_used_is_made_again(tmp_path: Path, log: Sequence[Event], damage: str):
    """The run reads as ever, and the next reader finds a snapshot of its own version."""
    path = tmp_path / "runs.db"
    store = run_sync(stored(SqliteRunStore(path), log))
    whole = RunState.fold(log)
    run_sync(store.put_snapshot(snapshot_of(whole)))
    column, value = DAMAGES[damage]
    change(path, f"UPDATE snapshots SET {column} = ?", value)
    assert read(store, whole.run_id) == whole
    assert read(store, whole.run_id) == whole
    run_sync(store.cleanup())


def test_a_snapshot_of_another_run_is_not_used(tmp_path: Path, log: Sequence[Event]):
    """Whoever exchanges them finds each run as it was."""
    store = run_sync(stored(SqliteRunStore(tmp_path / "runs.db"), [e._replace(run_id="a") for e in log]))
    for event in log[:30]:
        run_sync(store.append([event._replace(run_id="b")]))
    a = RunState.fold([e._replace(run_id="a") for e in log])
    run_sync(store.put_snapshot(snapshot_of(a)))
    change(tmp_path / "runs.db", "UPDATE snapshots SET run_id = 'b', seq = 30")
    assert read(store, "b") == RunState.fold([e._replace(run_id="b") for e in log[:30]])
    run_sync(store.cleanup())


def test_a_long_run_of_an_older_version_gets_one_when_it_is_opened(tmp_path: Path, log: Sequence[Event]):
    """Once; and a short one none."""
    path = tmp_path / "runs.db"
    store = Counting(path)
    run_sync(stored(store, log))
    assert row(path) is None
    assert read(store, log[0].run_id) == RunState.fold(log)
    found = row(path)
    assert found is not None
    assert found[0] == len(log)
    store.read = 0
    assert read(store, log[0].run_id) == RunState.fold(log)
    assert store.read == 1
    for event in log[:9]:
        run_sync(store.append([event._replace(run_id="short")]))
    read(store, "short")
    assert run_sync(store.snapshot("short", KIND)) is None
    run_sync(store.cleanup())


@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full"])
def test_where_nothing_can_be_written_a_run_is_read_all_the_same(
    tmp_path: Path, log: Sequence[Event], monkeypatch: pytest.MonkeyPatch, full: bool
):
    """A folder that cannot be written, a disk that is full."""
    path = tmp_path / "runs.db"
    run_sync(run_sync(stored(SqliteRunStore(path), log)).cleanup())

    def refuse(self: RunFile) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full" if full else "attempt to write a readonly database")

    monkeypatch.setattr(RunFile, "_connected", refuse)
    monkeypatch.setattr(RunFile, "_can_be_written", lambda self: False)
    store = SqliteRunStore(path)
    with pytest.raises(StorageError):
        run_sync(store.put_snapshot(snapshot_of(RunState.fold(log))))
    assert read(store, log[0].run_id) == RunState.fold(log)
    monkeypatch.undo()
    assert row(path) is None


def test_stores_of_others_need_none(log: Sequence[Event]):
    """A store that has the required methods of the port alone reads and records as before."""

    class Bare:
        def __init__(self) -> None:
            self.inner = InMemoryRunStore()

        def __getattr__(self, name: str) -> Any:
            if name in ("scan", "snapshot", "attach_snapshot", "put_snapshot"):
                raise AttributeError(name)
            return getattr(self.inner, name)

    bare: Any = Bare()
    run_sync(stored(bare, log))
    assert read(bare, log[0].run_id) == RunState.fold(log)
    with Session(store=bare) as dp:
        run = dp.run("demo:debate", model="echo", view=False)
        assert dp.open_run(run.id).outputs == run.outputs
        assert str(run.explain())


KILLED = """
import os, sys, threading
import dipeo_nb as dp
from dipeo_nb.execution import snapshots
from dipeo_nb.execution.state.sqlite import SqliteRunStore
snapshots.EVERY = snapshots.FINAL_EVENTS_FROM = 5
snapshots.CHARACTERS_PER_EVENT = 10**9
commits = int(sys.argv[2])
from dipeo_nb.common import sqlite as files
from dipeo_nb.execution.state import sqlite_file
inner = sqlite_file.in_transaction

def dying(connection, work, *rest):
    global commits
    commits -= 1
    def whole(found):
        result = work(found)
        if not commits:
            os.kill(os.getpid(), 9)  # all is written, nothing is committed
        return result
    result = inner(connection, whole, *rest)
    if commits == 1 and sys.argv[3] == "after":
        os.kill(os.getpid(), 9)
    return result

sqlite_file.in_transaction = dying
dp.Session(sys.argv[1]).run("demo:debate", model="echo", view=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["within", "after"])
def test_a_process_is_killed_at_a_commit(tmp_path: Path, child: Callable[..., subprocess.Popen[str]], when: str):
    """A snapshot is there with the events of its commit, or neither is. KILLED_COMMITS is how many commits are tried (1)."""
    for commits in range(4, 4 + int(os.environ.get("KILLED_COMMITS", "1"))):
        base = tmp_path / str(commits)
        base.mkdir()
        assert child(KILLED, str(base), str(commits), when).wait(60) == -signal.SIGKILL
        store = Counting(base / ".dipeo/runs.db")
        (found,) = run_sync(store.runs())
        events = run_sync(store.events(found.run_id))
        assert [e.seq for e in events] == list(range(1, found.events + 1))
        snapshot = run_sync(store.snapshot(found.run_id, KIND))
        assert snapshot is None or snapshot.seq <= found.events
        assert read(store, found.run_id) == RunState.fold(events)
        run_sync(store.cleanup())


WRITER = """
import asyncio, sys, time
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import snapshots
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.sqlite import SqliteRunStore

async def main(path):
    store, state = SqliteRunStore(path), RunState()
    events = [Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d", "labels": {"n": "N"}})]
    while True:
        snapshots.Snapshots(store, -10**9, lambda event: event).attach(events, state)
        await store.append(events)
        for event in events:
            state.apply(event)
        print(state.events, flush=True)
        payload = {"label": "N", "run": state.events, "status": "completed", "output": "x" * 2000}
        events = [Event(state.events + n, T.NODE_COMPLETED, "r", 1.0 + state.events, "n", payload) for n in (1, 2, 3)]

asyncio.run(main(sys.argv[1]))
"""


def test_one_process_reads_and_another_writes(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """Each reads a state that the events told at some time; the snapshot of the writer is never replaced by an older one."""
    path = tmp_path / "runs.db"
    writer = child(WRITER, str(path))
    assert writer.stdout is not None
    writer.stdout.readline()
    store = SqliteRunStore(path)
    before = latest = 0
    for _ in range(30):
        state = read(store, "r")
        assert state == RunState.fold(run_sync(store.events("r", limit=state.events)))
        assert state.events >= before
        before = state.events
        snapshot = run_sync(store.snapshot("r", KIND))
        assert snapshot is None or snapshot.seq >= latest
        latest = snapshot.seq if snapshot is not None else latest
    assert latest > 0
    writer.kill()
    run_sync(store.cleanup())


def test_a_state_that_has_no_encoding_costs_the_snapshot_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The events are worth more."""
    store = SqliteRunStore(tmp_path / "runs.db")
    store.attach_snapshot(Snapshot("r", KIND, VERSION, 1, {"value": object()}))
    run_sync(store.append([Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d"})]))
    assert len(run_sync(store.events("r"))) == 1
    assert run_sync(store.snapshot("r", KIND)) is None
    assert "is not stored" in caplog.text
    run_sync(store.cleanup())


def test_other_tasks_proceed_while_a_long_run_is_read(tmp_path: Path, log: Sequence[Event]):
    """Between two pages."""
    store = run_sync(stored(SqliteRunStore(tmp_path / "runs.db"), log))

    async def go() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async for _ in store.scan(log[0].run_id, page=5):
            pass
        counting.cancel()
        return turns

    assert run_sync(go()) >= len(log) // 5
    run_sync(store.cleanup())

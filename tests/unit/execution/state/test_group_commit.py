"""Appends of several runs at about one time: one transaction, and no run suffers for another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from dipeo_nb.common import injection
from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.group_commit import MOST_TOGETHER, GroupCommit
from dipeo_nb.execution.state.sqlite import SqliteRunStore

RUNS = [f"r{n}" for n in range(10)]


def event(run: str, seq: int, kind: T = T.NODE_STARTED) -> Event:
    return Event(seq, T.EXECUTION_STARTED if seq == 1 else kind, run, time.time(), None, {"diagram": "d"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRunStore]:
    made = SqliteRunStore(tmp_path / "runs.db")
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Points that are reached, and how often: `store.append` once in each transaction."""
    reached: Counter[str] = Counter()
    monkeypatch.setattr(injection, "hook", lambda point: reached.update([point]))
    return reached


async def begin(store: SqliteRunStore, runs: Sequence[str] = RUNS) -> None:
    for run in runs:
        await store.append([event(run, 1)])


def numbers(store: SqliteRunStore, run: str) -> list[int]:
    return [e.seq for e in run_sync(store.events(run))]


def test_runs_that_append_in_one_turn_share_a_transaction(store: SqliteRunStore, transactions: Counter[str]):
    async def go() -> None:
        await begin(store)
        transactions.clear()
        await asyncio.gather(*(store.append([event(run, 2), event(run, 3)]) for run in RUNS))

    run_sync(go())
    assert transactions["store.append"] == 1
    assert {tuple(numbers(store, run)) for run in RUNS} == {(1, 2, 3)}
    assert {row.events for row in run_sync(store.runs())} == {3}


def test_a_run_on_its_own_waits_for_nobody(store: SqliteRunStore):
    """Its append is done when the coroutine has been begun: no turn of the event loop passes."""

    async def go() -> None:
        await begin(store)
        await store.append([event("r0", 2)])
        with pytest.raises(StopIteration):
            store.append([event("r0", 3)]).send(None)

    run_sync(go())
    assert numbers(store, "r0") == [1, 2, 3]


def test_more_runs_than_one_transaction_takes(store: SqliteRunStore, transactions: Counter[str]):
    """The event loop has its turn between two of them."""
    runs = [f"r{n}" for n in range(2 * MOST_TOGETHER + 10)]

    async def go() -> None:
        await asyncio.gather(*(begin(store, [run]) for run in runs))
        transactions.clear()
        await asyncio.gather(*(store.append([event(run, 2, T.NODE_ERROR)]) for run in runs))

    run_sync(go())
    assert transactions["store.append"] == 3
    assert {len(numbers(store, run)) for run in runs} == {2}


def test_appends_of_one_run_keep_their_order(store: SqliteRunStore):
    """Also those that nobody waits for in between, and its beginning and its end."""

    async def go() -> None:
        await begin(store, RUNS[:3])
        steps = [("new", 1), ("r1", 2), ("new", 2), ("r1", 3), ("new", 3), ("r2", 2)]
        end = event("new", 4, T.EXECUTION_COMPLETED)
        await asyncio.gather(*(store.append([event(*step)]) for step in steps), store.append([end]))

    run_sync(go())
    assert numbers(store, "new") == [1, 2, 3, 4]
    assert numbers(store, "r1") == [1, 2, 3]
    row = run_sync(store.run("new"))
    assert row is not None
    assert row.status == "completed"


def test_a_run_that_was_taken_over_does_not_fail_the_others(store: SqliteRunStore):
    async def go() -> list[BaseException | None]:
        await begin(store)
        other = SqliteRunStore(store.path)
        await other.claim("r3", owned=True)
        await other.cleanup()
        return await asyncio.gather(*(store.append([event(run, 2)]) for run in RUNS), return_exceptions=True)

    errors = run_sync(go())
    assert [n for n, error in enumerate(errors) if error is not None] == [3]
    assert isinstance(errors[3], StorageError)
    assert errors[3].facts["cause"] == "going_on"
    assert {run: len(numbers(store, run)) for run in RUNS} == {run: 1 if run == "r3" else 2 for run in RUNS}


def test_a_full_disk_is_told_to_each_run(store: SqliteRunStore):
    """Nothing of a refused batch is stored, and each run goes on when there is room again."""

    async def go() -> None:
        await begin(store)
        connection = store._file.connection
        connection.execute("PRAGMA max_page_count = 1")  # as many as there are
        large = {"diagram": os.urandom(20_000).hex()}
        batches = [[event(run, 2)._replace(payload=large)] for run in RUNS]
        errors = await asyncio.gather(*map(store.append, batches), return_exceptions=True)
        assert {error.facts["cause"] for error in errors if isinstance(error, StorageError)} == {"disk_full"}
        assert all(errors)
        assert {len(await store.events(run)) for run in RUNS} == {1}
        connection.execute("PRAGMA max_page_count = 1073741823")
        await asyncio.gather(*map(store.append, batches))

    run_sync(go())
    assert {len(numbers(store, run)) for run in RUNS} == {2}


def test_a_cancelled_append_is_withdrawn_or_stored(store: SqliteRunStore):
    """Whenever its caller is cancelled; the others are stored, and the run goes on from what it has."""

    async def go() -> None:
        await begin(store)
        for turns in range(8):
            seqs = {run: len(await store.events(run)) for run in RUNS}
            tasks = [asyncio.create_task(store.append([event(run, seqs[run] + 1)])) for run in RUNS]
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks[4].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [n for n, result in enumerate(results) if result is not None] in ([], [4])
            for run in RUNS:
                row = await store.run(run)
                assert row is not None
                assert row.events == len(await store.events(run))
                assert row.events == seqs[run] + 1 or run == "r4"

    run_sync(go())


def test_a_cancellation_waits_for_the_transaction_under_way():
    """What was cancelled has ended when the cancellation arrives."""
    written: list[int] = []

    async def write(batches: Sequence[int]) -> None:
        await asyncio.sleep(0.05)
        written.extend(batches)

    async def go() -> None:
        group = GroupCommit(write)
        tasks = [asyncio.create_task(group.add(n)) for n in range(3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        with suppress(asyncio.CancelledError):
            await tasks[1]
        assert written == [0, 1, 2]
        await asyncio.gather(tasks[0], tasks[2])

    run_sync(go())


def test_a_store_that_is_away_is_asked_once_for_all():
    """Each of a hundred runs would wait for it as long as one does."""
    asked: list[int] = []
    away = StorageError("no answer", cause="unavailable")

    async def write(batches: Sequence[int]) -> None:
        asked.append(len(batches))
        raise away

    async def go() -> None:
        group = GroupCommit(write)
        assert await asyncio.gather(*(group.add(n) for n in range(5)), return_exceptions=True) == [away] * 5

    run_sync(go())
    assert asked == [5]


def test_batches_that_were_all_withdrawn_are_not_written():
    written: list[int] = []

    async def write(batches: Sequence[int]) -> None:
        written.append(len(batches))

    async def go() -> None:
        group = GroupCommit(write)
        tasks = [asyncio.create_task(group.add(n)) for n in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not group.busy
        await group.add(7)

    run_sync(go())
    assert written == [1]


WRITERS = """
import asyncio, sys, time
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.sqlite import SqliteRunStore

async def write(store, run):
    await store.append([Event(1, T.EXECUTION_STARTED, run, time.time(), None, {"diagram": "d"})])
    seq = 1
    while True:
        await store.append([Event(seq + i, T.NODE_STARTED, run, time.time(), "n", {"pad": "x" * 500}) for i in (1, 2, 3)])
        seq += 3
        print(run, seq, flush=True)

async def main(path):
    store = SqliteRunStore(path)
    await store.initialize()
    await asyncio.gather(*(write(store, f"r{n}") for n in range(10)))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """Of any run; and each batch is there as a whole or not at all."""
    for turn in range(5):
        path = tmp_path / f"{turn}.db"
        writer = child(WRITERS, str(path))
        assert writer.stdout is not None
        lines: list[str] = []
        deadline = time.monotonic() + 0.05 * (turn + 1)
        for line in writer.stdout:
            lines.append(line)
            if time.monotonic() > deadline:
                break
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        acknowledged = {run: int(seq) for run, seq in (line.split() for line in lines if line.endswith("\n"))}
        store = SqliteRunStore(path)
        for run in RUNS:
            found = numbers(store, run)
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= acknowledged.get(run, 0)
            assert len(found) % 3 in (0, 1)
            assert not found or (len(found) - 1) % 3 == 0
        run_sync(store.cleanup())

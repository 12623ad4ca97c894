"""The SQLite run store when things go wrong: killed processes, several processes, full disks, strange files."""

from __future__ import annotations

import asyncio
import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.sqlite import connect
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.sqlite import SCHEMA_VERSION, SqliteRunStore

ROOT = Path(__file__).parents[4]


def opened(path: Path) -> SqliteRunStore:
    store = SqliteRunStore(path)
    run_sync(store.initialize())
    return store


def begin(run: str = "r", **payload: Any) -> Event:
    return Event(1, T.EXECUTION_STARTED, run, time.time(), None, {"diagram": "d", **payload})


WRITER = """
import asyncio, sys, time
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.sqlite import SqliteRunStore

async def main(path, run):
    store = SqliteRunStore(path)
    await store.initialize()
    await store.append([Event(1, T.EXECUTION_STARTED, run, time.time(), None, {"diagram": "d"})])
    seq = 1
    while True:
        batch = [Event(seq + i, T.NODE_STARTED, run, time.time(), "n", {"i": seq + i, "pad": "x" * 500}) for i in (1, 2, 3)]
        await store.append(batch)
        seq += 3
        print(seq, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """Twenty writers are killed at random moments: the store opens, every acknowledged event is there, batches are
    whole, and each run is listed as interrupted."""
    path = tmp_path / "runs.db"
    for n in range(20):
        writer = child(WRITER, str(path), f"run{n}")
        assert writer.stdout is not None
        acknowledged = 1
        deadline = time.monotonic() + random.uniform(0.02, 0.15)
        for line in writer.stdout:
            acknowledged = int(line)
            if time.monotonic() > deadline:
                break
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        acknowledged = (
            int(rest[-1]) if rest and rest[-1].isdigit() and len(rest[-1]) >= len(str(acknowledged)) else acknowledged
        )
        store = opened(path)
        events = run_sync(store.events(f"run{n}"))
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert len(events) >= acknowledged
        assert (len(events) - 1) % 3 == 0, "a batch is stored whole or not at all"
        row = run_sync(store.run(f"run{n}"))
        assert row is not None
        assert row.status == "interrupted"
        assert row.events == len(events)
        run_sync(store.cleanup())


def test_a_run_going_on_elsewhere_is_running(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """The run of another living process is listed as running, and readable while it is written."""
    path = tmp_path / "runs.db"
    writer = child(WRITER, str(path), "theirs")
    assert writer.stdout is not None
    writer.stdout.readline()
    store = opened(path)
    row = run_sync(store.run("theirs"))
    assert row is not None
    assert row.status == "running"
    assert len(run_sync(store.events("theirs"))) >= 4
    run_sync(store.cleanup())


MANY = """
import asyncio, sys, time
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.sqlite import SqliteRunStore

async def main(path, name, count):
    store = SqliteRunStore(path)
    await store.initialize()
    for n in range(count):
        run = f"{name}-{n}"
        await store.append([Event(1, T.EXECUTION_STARTED, run, time.time(), None, {"diagram": name})])
        await store.append([Event(2, T.NODE_STARTED, run, time.time(), "n", {})])
        await store.append([Event(3, T.EXECUTION_COMPLETED, run, time.time(), None, {"status": "completed"})])
    await store.cleanup()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.slow
def test_two_processes_lose_nothing(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """Two processes write 1,000 runs each into one file at the same time: none is lost, no lock error."""
    path = tmp_path / "runs.db"
    writers = [child(MANY, str(path), name, "1000") for name in ("a", "b")]
    assert [w.wait(100) for w in writers] == [0, 0]
    store = opened(path)
    rows = run_sync(store.runs(limit=5000))
    assert len(rows) == 2000
    assert {r.status for r in rows} == {"completed"}
    assert {r.events for r in rows} == {3}
    run_sync(store.cleanup())


def test_a_long_foreign_write_does_not_block_the_loop(tmp_path: Path):
    """While another connection holds the file the loop goes on, and the append succeeds afterwards."""
    path = tmp_path / "runs.db"
    store = opened(path)
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")

    async def go() -> None:
        appending = asyncio.create_task(store.append([begin()]))
        turns, began = 0, time.monotonic()
        while time.monotonic() - began < 0.3 or turns < 3:  # the loop itself ends the other's transaction
            await asyncio.sleep(0.005)
            turns += 1
            assert not appending.done(), "it did not wait, or held the loop until it gave up"
        blocker.execute("COMMIT")
        await appending

    run_sync(go())
    assert len(run_sync(store.events("r"))) == 1
    blocker.close()
    run_sync(store.cleanup())


def test_runs_that_wait_for_another_process_do_not_meet(tmp_path: Path):
    """Many runs append while other connections take the file again and again: each batch is whole, and none is read before it is
    stored for good. (Two transactions on one connection would get into each other.)"""
    path = tmp_path / "runs.db"
    store = opened(path)
    over = threading.Event()

    def disturb() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        while not over.is_set():
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(0.03)  # longer than the loop waits
            connection.execute("COMMIT")
            time.sleep(0.001)
        connection.close()

    async def write(run: str) -> None:
        await store.append([begin(run)])
        for first in range(2, 23, 3):
            await store.append([Event(first + n, T.NODE_STARTED, run, time.time(), "n", {}) for n in range(3)])

    async def look() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            while True:
                for run in ("r0", "r7"):
                    seen = [event.seq for event in await store.events(run)]
                    kept = other.execute("SELECT count(*) FROM events WHERE run_id = ?", (run,)).fetchone()[0]
                    assert len(seen) <= kept, "read before it was committed"
                    assert len(seen) % 3 in (0, 1), "a part of a batch"
                await asyncio.sleep(0.002)

    async def go() -> None:
        looking = asyncio.ensure_future(look())
        try:
            await asyncio.gather(*(write(f"r{n}") for n in range(12)))
            assert not looking.done(), looking.exception()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        run_sync(go())
    finally:
        over.set()
        disturber.join()
    for n in range(12):
        assert [event.seq for event in run_sync(store.events(f"r{n}"))] == list(range(1, 23))
    run_sync(store.cleanup())


def test_a_full_disk_is_one_clear_error(tmp_path: Path):
    """When the file cannot grow: StorageError with what to do, nothing half-written, the old events whole."""
    store = opened(tmp_path / "runs.db")
    run_sync(store.append([begin()]))

    def fill() -> None:
        for seq in range(2, 200):
            run_sync(store.append([Event(seq, T.NODE_STARTED, "r", 0.0, "n", {"pad": "x" * 20_000})]))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(StorageError) as caught:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert caught.value.operation == "append"
    assert caught.value.hint
    events = run_sync(store.events("r"))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    run_sync(store.append([Event(len(events) + 1, T.NODE_STARTED, "r", 0.0, "n", {})]))
    run_sync(store.cleanup())


def test_other_files_are_left_alone(tmp_path: Path):
    """A text file, another program's database and a newer store are refused, untouched."""
    text = tmp_path / "notes.db"
    text.write_bytes(b"These are notes, not a database. " * 100)
    with pytest.raises(StorageError, match="not a database"):
        opened(text)
    assert text.read_bytes().startswith(b"These are notes")

    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StorageError, match="something else"):
        opened(other)

    newer = tmp_path / "newer.db"
    run_sync(opened(newer).cleanup())
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StorageError, match="newer version"):
        opened(newer)


def test_a_missing_folder_is_made_and_a_file_in_its_place_refused(tmp_path: Path):
    """The folder of the store is made, private; a file in its place is one clear error."""
    run_sync(opened(tmp_path / "a" / "b" / "runs.db").cleanup())
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Run store"):
        opened(tmp_path / "file" / "runs.db")


def test_a_fork_gets_its_own_connection(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """A forked child may write; the parent's connection is not harmed."""
    path = tmp_path / "runs.db"
    store = opened(path)
    run_sync(store.append([begin("parent")]))
    code = f"""
    import asyncio, os, time
    from pathlib import Path
    from dipeo_nb.domain.enums import EventType as T
    from dipeo_nb.domain.events import Event
    from dipeo_nb.execution.state.sqlite import SqliteRunStore
    store = SqliteRunStore({str(path)!r})
    asyncio.run(store.initialize())
    pid = os.fork()
    asyncio.run(store.append([Event(1, T.EXECUTION_STARTED, f"fork{{pid == 0}}", time.time(), None, {{"diagram": "d"}})]))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    """
    assert child(code).wait(30) == 0
    assert {r.run_id for r in run_sync(store.runs())} == {"parent", "forkTrue", "forkFalse"}
    run_sync(store.cleanup())


def test_values_beyond_json():
    """What nodes really give is stored; what nobody can store is one clear error."""
    from datetime import UTC, date, datetime
    from decimal import Decimal

    text = encode(
        {
            "t": (1, 2), "s": {3}, "d": date(2025, 1, 11), "dt": datetime(2025, 1, 11, tzinfo=UTC), "p": Path("a/b"),
            "n": float("nan"), "i": float("-inf"), "dec": Decimal("1.5"), "b": b"\x00\xff",
        }
    )  # fmt: skip
    assert text == (
        '{"t":[1,2],"s":[3],"d":"2025-01-11","dt":"2025-01-11T00:00:00+00:00","p":"a/b","n":null,"i":null,"dec":"1.5",'
        '"b":{"base64":"AP8="},"$floats":[[["n"],"NaN"],[["i"],"-Infinity"]]}'
    )
    assert repr(decode(text)["n"]) == "nan"
    assert decode(text)["i"] == -math.inf
    with pytest.raises(StorageError, match="cannot be stored"):
        encode({"x": object()})


def test_an_unstorable_payload_leaves_nothing(tmp_path: Path):
    """A batch with a value that cannot be stored is refused whole; the run goes on."""
    store = opened(tmp_path / "runs.db")
    run_sync(store.append([begin()]))
    with pytest.raises(StorageError):
        run_sync(
            store.append([Event(2, T.NODE_STARTED, "r", 0, "n", {}), Event(3, T.NODE_STARTED, "r", 0, "n", {"x": object()})])
        )
    run_sync(store.append([Event(2, T.NODE_STARTED, "r", 0, "n", {})]))
    assert len(run_sync(store.events("r"))) == 2
    run_sync(store.cleanup())


@pytest.mark.parametrize("mode", [0o600, 0o644], ids=oct)
def test_a_second_connection_leaves_the_locks_of_the_first(tmp_path: Path, mode: int):
    """Else another process, when it closes the file, deletes the log that the connections here go on writing to."""
    path = tmp_path / "runs.db"
    first = connect(path, None, isolation_level=None)
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE t (x)")
    path.chmod(mode)
    second = connect(path, None, isolation_level=None)
    second.execute("INSERT INTO t VALUES (1)")
    assert path.stat().st_mode & 0o777 == 0o600
    count = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*c.execute('SELECT count(*) FROM t').fetchone()); c.close()"

    def elsewhere() -> int:
        return int(subprocess.run([sys.executable, "-c", count, str(path)], capture_output=True, text=True, check=True).stdout)

    assert elsewhere() == 1
    second.close()
    assert elsewhere() == 1
    first.execute("INSERT INTO t VALUES (2)")
    assert elsewhere() == 2
    first.close()

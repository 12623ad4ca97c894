"""Caches and locks: one execution for many callers, one holder among threads, tasks and processes."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from dipeo_nb.common import AsyncFileLock, CacheFileLock, FileLock, SingleFlightCache, get_cache_lock_manager
from dipeo_nb.common.aio import gather_limited
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import APIKeyError, StorageError
from dipeo_nb.security.keystore import KeyFile
from dipeo_nb.security.trust_store import DiagramTrust, TrustStore
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter
from tests.support.wire_openai import run


class Factory:
    """Counts its executions."""

    def __init__(self, seconds: float = 0.02, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.calls = self.cancelled = 0

    async def __call__(self) -> int:
        self.calls += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.calls


def test_many_callers_share_one_execution():
    """A hundred tasks make one call; the value is kept, unless it is not to be, then the next call is fresh."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()
        factory = Factory()
        assert set(await asyncio.gather(*(cache.get_or_create("k", factory) for _ in range(100)))) == {1}
        assert await cache.get_or_create("k", factory) == 1
        fresh = Factory()
        assert set(await asyncio.gather(*(cache.get_or_create("f", fresh, False) for _ in range(100)))) == {1}
        assert await cache.get_or_create("f", fresh, cache_result=False) == 2
        cache.clear("k")
        assert await cache.get_or_create("k", factory) == 2
        assert len(cache) == 1

    run(go())


def test_a_cancelled_leader_leaves_the_others_alone():
    """Stop for the first caller does not hang or fail those who joined; nobody left cancels the work."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()
        factory = Factory(0.1)
        tasks = [asyncio.create_task(cache.get_or_create("k", factory)) for _ in range(5)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        assert await asyncio.wait_for(asyncio.gather(*tasks[1:]), 1) == [1] * 4
        assert factory.cancelled == 0
        alone = Factory(5)
        task = asyncio.create_task(cache.get_or_create("alone", alone))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.sleep(0.02)
        assert alone.cancelled == 1
        alone.seconds = 0
        assert await cache.get_or_create("alone", alone) == 2

    run(go())


def test_errors_reach_all_and_are_not_kept():
    """Everybody who waited gets the error; the next call tries again."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()
        factory = Factory(error=OSError("no"))
        results = await asyncio.gather(*(cache.get_or_create("k", factory) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(r, OSError) for r in results)
        assert factory.calls == 1
        factory.error = None
        assert await cache.get_or_create("k", factory) == 2

    run(go())


def test_values_leave_by_age_and_number():
    """Seconds and size are limits."""
    now = [0.0]

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache(ttl=10, maxsize=3, timer=lambda: now[0])
        factory = Factory(0)
        for key in "abcd":
            await cache.get_or_create(key, factory)
        assert len(cache) == 3
        assert await cache.get_or_create("d", factory) == 4
        now[0] = 11
        assert await cache.get_or_create("d", factory) == 5

    run(go())


def test_threads_with_loops_of_their_own_share_it():
    """Two event loops in two threads make one call, and one loop that ends in the middle hands over."""
    cache: SingleFlightCache[int] = SingleFlightCache()
    factory = Factory(0.2)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(run(cache.get_or_create("k", factory)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert got == [1] * 4

    async def leaves() -> None:
        asyncio.create_task(cache.get_or_create("gone", factory))  # noqa: RUF006 - dies with its loop
        await asyncio.sleep(0.05)

    leader = threading.Thread(target=lambda: asyncio.run(leaves()))
    leader.start()
    time.sleep(0.02)
    assert run(cache.get_or_create("gone", factory)) > 1
    leader.join(5)


# Locks.

COUNT = """
import sys
from dipeo_nb.common import FileLock
path = sys.argv[1]
lock = FileLock(path + ".lock")
for _ in range(1000):
    with lock:
        n = int(open(path).read())
        with open(path, "w") as file:
            file.write(str(n + 1))
"""


def test_processes_and_threads_count_exactly(tmp_path: Path):
    """Four processes and two threads that share one object, 1,000 increments each: none is lost."""
    path = tmp_path / "count"
    path.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(4)]
    shared = FileLock(f"{path}.lock")

    def count() -> None:
        for _ in range(1000):
            with shared:
                path.write_text(str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [p.wait(60) for p in processes] == [0] * 4
    assert path.read_text() == "6000"


def test_a_lock_is_counted_and_times_out(tmp_path: Path):
    """Taken twice, it is given back twice; another thread does not get it and is told in time."""
    lock = FileLock(tmp_path / "sub" / "x.lock", timeout=0.1)
    with lock, lock:
        pass
    assert lock.acquire()
    assert lock.acquire()
    lock.release()
    seen: list[Any] = []

    def other() -> None:
        seen.append(lock.acquire(blocking=False))
        try:
            with lock:
                seen.append("got it")
        except TimeoutError as error:
            seen.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(5)
    assert seen[0] is False
    assert "locked by another process for 0.1 s" in seen[1]
    lock.release()
    assert not lock.is_locked


def test_a_killed_holder_frees_its_lock(tmp_path: Path):
    """kill -9 of the process that has the lock lets the next one in at once."""
    code = f"from dipeo_nb.common import FileLock\nimport time\nlock = FileLock({str(tmp_path / 'x.lock')!r})\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lock = FileLock(tmp_path / "x.lock", timeout=5)
    assert not lock.acquire(blocking=False)
    holder.kill()
    holder.wait(10)
    holder.stdout.close()
    with lock:
        pass


def test_fifty_waiting_tasks_leave_the_loop_free(tmp_path: Path):
    """Waiters of a lock block neither the loop nor the worker threads; ten of them are cancelled, the others get it in turn."""

    async def go() -> tuple[int, int, float]:
        lock = AsyncFileLock(tmp_path / "x.lock")
        holding = most = got = 0
        worst = 0.0

        async def hold() -> None:
            nonlocal holding, most, got
            async with lock:
                holding += 1
                most = max(most, holding)
                await asyncio.sleep(0.002)
                holding -= 1
                got += 1

        async def tick() -> None:
            nonlocal worst
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                await asyncio.to_thread(lambda: None)
                worst = max(worst, time.monotonic() - before)

        ticker = asyncio.create_task(tick())
        assert await lock.acquire()
        tasks = [asyncio.create_task(hold()) for _ in range(50)]
        await asyncio.sleep(0.1)
        for task in tasks[:10]:
            task.cancel()
        await lock.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        ticker.cancel()
        assert most == 1
        assert not await lock.acquire(blocking=False) or await lock.release() is None
        return got, most, worst

    got, _, worst = run(go())
    assert got == 40
    assert worst < 5  # upstream: as long as the lock is held


# Files of a cache.


def test_cache_files_do_not_mix(tmp_path: Path):
    """`k.json` and `k.txt` written at the same time keep their own content; readers share, a writer waits."""
    cache = CacheFileLock(tmp_path)

    async def write(name: str, text: str) -> None:
        async with cache.awrite(name) as path:
            path.write_text(text)
            await asyncio.sleep(0.01)

    async def go() -> None:
        for n in range(5):
            await asyncio.gather(write("k.json", f"json {n}"), write("k.txt", f"text {n}"))
        async with cache.aread("k.json") as one, cache.aread("k.json") as two:
            assert one.read_text() == two.read_text() == "json 4"

    run(go())
    with cache.read("k.txt") as path:
        assert path.read_text() == "text 4"
        with pytest.raises(TimeoutError, match=r"k\.txt"), CacheFileLock(tmp_path, timeout=0.1).write("k.txt"):
            pass
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["k.json", "k.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path):
    """An exception in the middle of a write leaves what was there, and no draft."""
    cache = get_cache_lock_manager(tmp_path)
    with cache.write("a/k.json") as path:
        path.write_text("old")

    def fails() -> None:
        with cache.write("a/k.json") as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with cache.read("a/k.json") as path:
        assert path.read_text() == "old"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["k.json"]


@pytest.mark.parametrize("name", ["../esc.txt", "a/../../esc.txt", "/esc.txt", "a\0b", "", ".", "link/x", "x" * 300, "con"])
def test_cache_files_stay_in_their_folder(tmp_path: Path, name: str):
    """Every name that leads out, or is none, is refused by all four ways, and nothing is written."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    cache = CacheFileLock(folder)

    async def go() -> None:
        for way in (cache.aread, cache.awrite):
            with pytest.raises(StorageError):
                async with way(name):
                    pass

    run(go())
    for way in (cache.read, cache.write):
        with pytest.raises(StorageError) as caught, way(name):
            pass
        assert caught.value.facts["cause"] == "refused"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache"]


@pytest.mark.parametrize("name", ["x" * 240, "日本語" * 25, "a%2Fb", "deep/er/name.txt"])
def test_cache_files_have_long_names(tmp_path: Path, name: str):
    """As long as the file system has them."""
    cache = CacheFileLock(tmp_path)
    with cache.write(name) as draft:
        draft.write_text("kept")
    with cache.read(f"./{name}") as path:
        assert path == tmp_path / name
        assert path.read_text() == "kept"
        with pytest.raises(TimeoutError), CacheFileLock(tmp_path, timeout=0.05).write(f"p/../{name}"):
            pass


def test_only_the_holder_gives_an_async_lock_back(tmp_path: Path):
    """A release by another task frees nothing."""

    async def go() -> None:
        lock = AsyncFileLock(tmp_path / "x.lock")
        async with lock:
            await asyncio.create_task(lock.release())
            assert not await asyncio.create_task(lock.acquire(blocking=False))
        assert await lock.acquire(blocking=False)
        await lock.release()

    run(go())


# Where the system cannot lock.


async def _with(lock: Any) -> None:
    async with lock:
        pass


def _in(lock: Any) -> None:
    with lock:
        pass


def _key(folder: Path) -> None:
    with KeyFile(folder / "keys.json").changing():
        pass


LOCKING: dict[str, Callable[[Path], Any]] = {
    "a lock": lambda folder: _in(FileLock(folder / "x.lock")),
    "an async lock": lambda folder: run(_with(AsyncFileLock(folder / "x.lock"))),
    "a database": lambda folder: run(
        DBOperationsDomainService(LocalFileSystemAdapter(folder)).execute_operation("q.json", "append", 1)
    ),
    "a blob": lambda folder: run(LocalBlobAdapter(folder).put("k", b"1")),
    "an artifact": lambda folder: run(ArtifactStoreAdapter(LocalBlobAdapter(folder)).push(Artifact("m", "1", b"1"))),
    "keys": _key,
    "trust": lambda folder: TrustStore(folder).add(DiagramTrust(digest="d", base="/b")),
}
"""Everything that takes a lock of the system."""
NO_LOCK = {
    errno.ENOLCK: "unsupported",
    errno.EOPNOTSUPP: "unsupported",
    errno.ESTALE: "unavailable",
    errno.EIO: "failed",
}
"""What a system says that has no locks -> the cause."""
NO_LOCK_FILE = {
    errno.EACCES: "permission",
    errno.EROFS: "read_only",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EMFILE: "failed",
}
"""What it says where the file of a lock cannot be made -> the cause."""


@pytest.mark.skipif(sys.platform == "win32", reason="not here: Windows has no flock")
@pytest.mark.parametrize("number", [*NO_LOCK, *NO_LOCK_FILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("locking", LOCKING.values(), ids=LOCKING)
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locking: Callable[[Path], Any], number: int
):
    """One error of ours, with the cause and what to do; nothing was written, and it works once there are locks."""
    import fcntl

    opened = os.open

    def refuses(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    def opens(path: Any, *args: Any, **options: Any) -> int:
        if os.fspath(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), path)
        return opened(path, *args, **options)

    with monkeypatch.context() as patch:
        if number in NO_LOCK:
            patch.setattr(fcntl, "flock", refuses)
        else:
            patch.setattr(os, "open", opens)
        with pytest.raises((StorageError, APIKeyError)) as caught:
            locking(tmp_path)
    assert caught.value.hint
    if isinstance(caught.value, StorageError):
        assert caught.value.facts["cause"] == {**NO_LOCK, **NO_LOCK_FILE}[number]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]
    locking(tmp_path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("disk I/O error", "failed"), ("database or disk is full", "disk_full"), ("locking protocol", "unsupported"),
        ("unable to open database file", "permission"), ("attempt to write a readonly database", "read_only"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["read", "write", "aread", "awrite"])
def test_files_of_a_cache_that_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, text: str, cause: str
):
    """Its locks are SQLite's: what SQLite says is an error of ours, what the block raises is not touched."""

    def refuses(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError(text)

    def use() -> None:
        place = getattr(CacheFileLock(tmp_path), way)("k.txt")
        run(_with(place)) if way.startswith("a") else _in(place)

    with monkeypatch.context() as patch:
        for kind in (filelock.ReadWriteLock, filelock.AsyncReadWriteLock):
            patch.setattr(kind, "acquire_read", refuses)
            patch.setattr(kind, "acquire_write", refuses)
        with pytest.raises(StorageError) as caught:
            use()
    assert caught.value.facts["cause"] == cause
    assert caught.value.hint
    use()
    with pytest.raises(sqlite3.OperationalError, match="its own"), CacheFileLock(tmp_path).write("k.txt"):
        raise sqlite3.OperationalError("its own")


def test_work_on_many_items_is_limited_and_in_order():
    """So many at a time, results as the items; the first error is raised, and nothing goes on behind it."""
    busy: list[int] = []
    most = ended = 0

    async def work(number: int) -> int:
        nonlocal most, ended
        busy.append(number)
        most = max(most, len(busy))
        try:
            await asyncio.sleep(0.001 * (5 - number % 5))
            if number == 100:
                raise ValueError("a bad one")
        finally:
            busy.remove(number)
            ended += 1
        return number

    async def go() -> None:
        assert await gather_limited(work, range(20), 3) == list(range(20))
        assert most == 3
        with pytest.raises(ValueError, match="a bad one"):
            await gather_limited(work, range(99, 500), 3)
        assert busy == []
        assert ended < 30

    asyncio.run(go())

"""Caches, locks, files as a database and S3, against their peers.

Usage: python -m tests.benchmarks.storage [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from dipeo_nb.common import AsyncFileLock, FileLock, SingleFlightCache
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter
from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, main
from tests.support.servers import S3Server, s3_running

Contender = Callable[[], Awaitable[float]]
"""Runs once and returns how many seconds one operation took."""
CALLERS, KEYS = 10_000, 100
RECORDS = 10_000


# Single flight.


async def ours_cached() -> float:
    cache: SingleFlightCache[int] = SingleFlightCache()

    async def work() -> int:
        await asyncio.sleep(0.001)
        return 1

    started = time.perf_counter()
    await asyncio.gather(*(cache.get_or_create(n % KEYS, work) for n in range(CALLERS)))
    return (time.perf_counter() - started) / CALLERS


async def async_lru_cached() -> float:
    from async_lru import alru_cache

    @alru_cache(maxsize=1024)
    async def work(key: int) -> int:
        await asyncio.sleep(0.001)
        return 1

    started = time.perf_counter()
    await asyncio.gather(*(work(n % KEYS) for n in range(CALLERS)))
    return (time.perf_counter() - started) / CALLERS


# A list of 10,000 records, and one more.


async def ours_appended() -> float:
    with tempfile.TemporaryDirectory() as folder:
        db = DBOperationsDomainService(LocalFileSystemAdapter(Path(folder)))
        await db.execute_operation("records", "write", [record(n) for n in range(RECORDS)])
        started = time.perf_counter()
        for n in range(20):
            await db.execute_operation("records", "append", record(n))
        return (time.perf_counter() - started) / 20


async def tinydb_inserted() -> float:
    from tinydb import TinyDB

    with tempfile.TemporaryDirectory() as folder:
        db = TinyDB(Path(folder) / "records.json")
        db.insert_multiple([record(n) for n in range(RECORDS)])
        started = time.perf_counter()
        for n in range(20):
            db.insert(record(n))
        taken = (time.perf_counter() - started) / 20
        db.close()
        return taken


# S3: a hundred objects of 1 MB.

OBJECTS, OBJECT = 100, b"x" * (1024 * 1024)
AT_ONCE = 10


async def ours_in_s3(server: S3Server) -> float:
    blobs = server.adapter(versioning=False)
    await blobs.initialize()

    async def one(n: int) -> None:
        await blobs.put(f"{n}", OBJECT)
        with await blobs.get(f"{n}") as file:
            assert len(file.read()) == len(OBJECT)

    try:
        return await _all(one)
    finally:
        await blobs.cleanup()


async def obstore_in_s3(server: S3Server) -> float:
    import obstore
    from obstore.store import S3Store

    facts = server.credentials()
    store = S3Store(
        server.plain, prefix=f"bare/{uuid.uuid4().hex}", endpoint=facts["endpoint_url"], region="us-east-1",
        access_key_id=facts["access_key_id"], secret_access_key=facts["secret_access_key"],
        client_options={"allow_http": True},
    )  # fmt: skip

    async def one(n: int) -> None:
        await obstore.put_async(store, f"{n}", OBJECT)
        answer = await obstore.get_async(store, f"{n}")
        assert len(await answer.bytes_async()) == len(OBJECT)

    return await _all(one)


async def _all(one: Callable[[int], Awaitable[None]]) -> float:
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(n: int) -> None:
        async with turns:
            await one(n)

    started = time.perf_counter()
    await asyncio.gather(*(in_turn(n) for n in range(OBJECTS)))
    return (time.perf_counter() - started) / OBJECTS


# Locks: taken and given back, and handed from task to task.

TURNS = 2_000


async def our_lock() -> float:
    with tempfile.TemporaryDirectory() as folder:
        lock = FileLock(Path(folder) / "x.lock")
        started = time.perf_counter()
        for _ in range(TURNS):
            with lock:
                pass
        return (time.perf_counter() - started) / TURNS


async def filelock_lock() -> float:
    import filelock

    with tempfile.TemporaryDirectory() as folder:
        lock = filelock.FileLock(Path(folder) / "x.lock")
        started = time.perf_counter()
        for _ in range(TURNS):
            with lock:
                pass
        return (time.perf_counter() - started) / TURNS


async def our_async_lock() -> float:
    with tempfile.TemporaryDirectory() as folder:
        lock = AsyncFileLock(Path(folder) / "x.lock")
        started = time.perf_counter()
        for _ in range(TURNS):
            async with lock:
                pass
        return (time.perf_counter() - started) / TURNS


async def filelock_async_lock() -> float:
    import filelock

    with tempfile.TemporaryDirectory() as folder:
        lock = filelock.AsyncFileLock(Path(folder) / "x.lock")
        started = time.perf_counter()
        for _ in range(TURNS):
            async with lock:
                pass
        return (time.perf_counter() - started) / TURNS


def record(n: int) -> dict[str, Any]:
    return {"id": n, "name": f"person {n}", "tags": ["a", "b", "c"], "score": n / 7}


def each(contender: Contender) -> Make:
    async def make(stack: AsyncExitStack, n: int) -> Run:
        return contender

    return make


async def rows(stack: AsyncExitStack) -> list[Row]:
    """All rows, with the S3 server that the last one asks."""
    server = stack.enter_context(s3_running(Path(stack.enter_context(tempfile.TemporaryDirectory()))))

    def row(title: str, ours: Contender, peer: str, theirs: Contender, goal: Goal | None = None) -> Row:
        return Row(title, 1, "call", {OURS: each(ours), peer: each(theirs)}, goal or Goal())

    return [
        row(
            "single flight: 10,000 callers on 100 keys", ours_cached, "async-lru (unsafe when cancelled)", async_lru_cached,
            Goal(within={"async-lru (unsafe when cancelled)": 1.0}),
        ),
        row(
            "JSON DB: one more of 10,000 records, synced", ours_appended, "TinyDB, not synced", tinydb_inserted,
            Goal(faster={"TinyDB, not synced": 10}),
        ),
        row("lock: taken and given back", our_lock, "filelock", filelock_lock),
        row("async lock: taken and given back", our_async_lock, "filelock", filelock_async_lock),
        row(
            "S3: put and get of 1 MB, ten at once", lambda: ours_in_s3(server), "obstore", lambda: obstore_in_s3(server),
            Goal(within={"obstore": 1 / 0.9}),
        ),
    ]  # fmt: skip


GROUP = "storage"

if __name__ == "__main__":
    main(GROUP, rows, "Storage against its peers.")

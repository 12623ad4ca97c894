"""Caches, and files as a database, against their peers: `make bench`.

Contenders take turns; the table shows the median of the rounds and the ratio to ours.

Usage: python -m tests.benchmarks.storage [--rounds N] [--only WORD]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dipeo_nb.common import AsyncFileLock, FileLock, SingleFlightCache
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter
from tests.servers import S3Server, s3_running

Contender = Callable[[], Awaitable[float]]
"""Runs once and says how many seconds one operation took."""
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


async def measured(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            taken[name].append(await contender())
    return {name: statistics.median(times) for name, times in taken.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description="Storage against its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title holds this word")
    options = parser.parse_args()
    rows: dict[str, dict[str, Contender]] = {
        "single flight: 10,000 callers on 100 keys, a call (goal: at par with async-lru)": {
            "dipeo_nb": ours_cached,
            "async-lru (unsafe when cancelled)": async_lru_cached,
        },
        "JSON DB: one more of 10,000 records, synced to disk (goal: ≥ 10× TinyDB, which does not sync)": {
            "dipeo_nb": ours_appended,
            "TinyDB": tinydb_inserted,
        },
        "lock: taken and given back": {"dipeo_nb": our_lock, "bare filelock": filelock_lock},
        "async lock: taken and given back": {"dipeo_nb": our_async_lock, "bare filelock": filelock_async_lock},
    }
    with ExitStack() as stack:
        if options.only in (title := "S3: put and get of 1 MB, ten at once (goal: ≥ 0.9× of bare obstore)"):
            server = stack.enter_context(s3_running(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
            rows[title] = {
                "dipeo_nb": lambda: ours_in_s3(server),
                "bare obstore": lambda: obstore_in_s3(server),
            }
        await show({title: row for title, row in rows.items() if options.only in title}, options.rounds)


async def show(rows: dict[str, dict[str, Contender]], rounds: int) -> None:
    console = Console(width=118)
    for title, contenders in rows.items():
        found = await measured(contenders, rounds)
        table = Table(title=title, min_width=80)
        for column in ("", "median", "against ours"):
            table.add_column(column, justify="right" if column else "left")
        base = next(iter(found.values()))
        for name, seconds in found.items():
            table.add_row(name, f"{seconds * 1e6:,.1f} µs", f"{seconds / base:.2f}×")
        console.print(table)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main())

"""The run store of several machines: PostgreSQL 12 or later (extra `postgres`; the one module that imports psycopg).

An acknowledged append is as durable as the server's commits are (`synchronous_commit`, on unless it was switched off there).

A run belongs to the store object that appends it. Each holds, for as long as it is open, a lock of its own on the server (an
advisory lock of its session, https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS), which goes when the
process does, on whatever machine; a run without a final event whose owner's lock is gone is `interrupted`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.operations import logged
from dipeo_nb.common.retry import Backoff
from dipeo_nb.common.scrub import logger, place_of
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event, RunSummary
from dipeo_nb.errors import MissingDependencyError, StorageError
from dipeo_nb.execution.state.memory import (
    answered,
    check_claim,
    check_delete,
    check_order,
    final_status,
    relatives,
    taken_over,
)
from dipeo_nb.execution.state.rows import batch_of, chosen, events_of, storable

SCHEMA_VERSION = 3
"""In `dipeo_schema`."""
CONNECTIONS = 8
"""To the server, at most, beside the one that holds the lock."""
CONNECT_S = 10.0
"""Seconds to reach the server when the store is opened."""
PATIENCE_S = 30.0
"""Seconds that reading and writing wait for a server that went away."""
STATEMENT_MS = 60_000
"""Milliseconds after which the server gives a statement up."""
HOLD_S = 5.0
"""Seconds between two looks whether the lock is still held."""

_LOG = logger(__name__)
_OPENING = 0x44495045  # "DIPE": one store at a time makes or migrates the tables
_BLOBS = """
ALTER TABLE dipeo_events ADD COLUMN blobs TEXT[];
CREATE TABLE dipeo_blobs (
    run_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_id, hash)
)
"""
_ANSWERS = """
CREATE TABLE dipeo_answers (
    run_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (run_id, request_id)
)
"""
_MIGRATIONS = {1: _BLOBS, 2: _ANSWERS}
"""Version → what makes the next one of it."""
_SCHEMA = f"""
CREATE TABLE dipeo_schema (version INTEGER NOT NULL);
INSERT INTO dipeo_schema VALUES ({SCHEMA_VERSION});
CREATE TABLE dipeo_runs (
    run_id TEXT PRIMARY KEY,
    diagram TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION,
    events INTEGER NOT NULL,
    parent_run_id TEXT,
    owner BIGINT NOT NULL
);
CREATE INDEX dipeo_runs_by_start ON dipeo_runs (started_at DESC, run_id);
CREATE INDEX dipeo_runs_by_parent ON dipeo_runs (parent_run_id);
CREATE TABLE dipeo_events (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    occurred_at DOUBLE PRECISION NOT NULL,
    node_id TEXT,
    payload TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
);
{_BLOBS};
{_ANSWERS}
"""
# A lock on a bigint is shown as its two halves.
_ROWS = """
WITH held AS (
    SELECT (classid::bigint << 32) | objid::bigint AS owner FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
), rows AS (
    SELECT run_id, diagram,
           CASE WHEN status = 'running' AND owner NOT IN (SELECT owner FROM held) THEN 'interrupted' ELSE status END AS status,
           started_at, ended_at, events, parent_run_id
    FROM dipeo_runs
)
SELECT * FROM rows
"""
_RELATED = """
WITH RECURSIVE below AS (
    SELECT unnest(%s::text[]) AS run_id
    UNION SELECT runs.run_id FROM dipeo_runs runs JOIN below ON runs.parent_run_id = below.run_id
), above AS (
    SELECT unnest(%s::text[]) AS run_id
    UNION SELECT runs.parent_run_id FROM dipeo_runs runs JOIN above USING (run_id) WHERE runs.parent_run_id IS NOT NULL
), related AS (SELECT run_id FROM below UNION SELECT run_id FROM above)
"""
"""Runs, given twice, with all below and above them."""
T = TypeVar("T")


@logged("append", "events", "runs", "run")
class PostgresRunStore:
    """`RunStore` in a PostgreSQL database, for any number of processes and machines.

    Args:
        url: `postgresql://user:password@host:5432/database`; what libpq knows may follow (`?sslmode=require`). User and password
            are never shown. The tables `dipeo_runs`, `dipeo_events` and `dipeo_schema` are made where they are missing.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._owner = secrets.randbits(62)
        self._pool: Any = None
        self._holder: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._stored: dict[str, tuple[int, bool]] = {}
        self._held: set[str] = set()
        """Runs that were begun or claimed here."""

    def __repr__(self) -> str:
        return f"PostgresRunStore({self.place!r})"

    @property
    def place(self) -> str:
        """The database, without user and password."""
        return place_of(self._url)

    async def initialize(self) -> None:
        async with self._opening:
            if self._pool is None:
                await self._open()

    async def _open(self) -> None:
        psycopg, pools = await asyncio.to_thread(_imported)
        options = {
            "autocommit": True,
            "application_name": f"dipeo_nb process {os.getpid()} on {platform.node()}"[:63],
            "connect_timeout": int(CONNECT_S),
            "options": self._options(),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        pool = pools.AsyncConnectionPool(
            self._url, kwargs=options, min_size=1, max_size=CONNECTIONS, timeout=CONNECT_S, open=False, name="dipeo_nb"
        )
        try:
            self._holder = await psycopg.AsyncConnection.connect(self._url, **options)
            await self._migrate(self._holder)
            await self._hold(self._holder)
            await pool.open(wait=True, timeout=CONNECT_S)
        except BaseException as error:
            await pool.close()
            await self._let_go()
            if (found := self._failed("open", error)) is not None:
                raise found from error
            raise
        self._pool = pool
        self._keeper = asyncio.get_running_loop().create_task(self._keep(psycopg, options))

    async def cleanup(self) -> None:
        pool, self._pool = self._pool, None
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if pool is not None:
            await pool.close()
        await self._let_go()
        self._stored.clear()

    async def append(self, events: Sequence[Event]) -> None:
        if not events:
            return
        first, last = events[0], events[-1]
        stored, ended = self._stored.get(first.run_id) or await self._count(first.run_id)
        try:
            check_order(events, stored, ended)
        except StorageError:
            if first.seq != 1 and first.run_id in self._held and not await self.beat(first.run_id):
                raise taken_over(first.run_id, "another process") from None
            raise
        batch = batch_of(events)
        columns = [list(column) for column in zip(*batch.events, strict=True)]
        tried = False

        async def write(connection: Any) -> None:
            nonlocal tried
            again, tried = tried, True
            if again and (await self._counted(connection, first.run_id))[0] >= last.seq:
                return  # it was stored, and only the answer got lost
            blobs = await self._missing(connection, first.run_id, batch.blobs) if batch.blobs else {}
            async with connection.transaction(), connection.pipeline():
                if blobs:
                    await connection.execute(
                        "INSERT INTO dipeo_blobs (run_id, hash, value) SELECT %s, * FROM unnest(%s::text[], %s::text[]) "
                        "ON CONFLICT DO NOTHING",
                        (first.run_id, list(blobs), list(blobs.values())),
                    )
                if first.seq == 1:
                    await connection.execute(
                        "INSERT INTO dipeo_runs VALUES (%s, %s, %s, %s, NULL, 0, %s, %s)",
                        (first.run_id, str(first.payload.get("diagram", "")), str(Status.RUNNING), first.occurred_at,
                         first.payload.get("parent"), self._owner),
                    )  # fmt: skip
                await connection.execute(
                    "INSERT INTO dipeo_events (run_id, seq, type, occurred_at, node_id, payload) SELECT %s, * FROM "
                    "unnest(%s::integer[], %s::text[], %s::double precision[], %s::text[], %s::text[])",
                    (first.run_id, *columns),
                )
                for seq, names in batch.references.items():
                    await connection.execute(
                        "UPDATE dipeo_events SET blobs = %s WHERE run_id = %s AND seq = %s", (names, first.run_id, seq)
                    )
                final = last.type in FINAL_EVENTS
                done = await connection.execute(
                    "UPDATE dipeo_runs SET events = %s, status = %s, ended_at = %s WHERE run_id = %s AND events = %s AND owner = %s "
                    "RETURNING 1",
                    (last.seq, final_status(last) if final else str(Status.RUNNING), last.occurred_at if final else None,
                     first.run_id, first.seq - 1, self._owner),
                )  # fmt: skip
                if await done.fetchone() is None:
                    raise taken_over(first.run_id, "another process")

        try:
            await uncancelled(self._patiently("append", write))
        except BaseException:
            self._stored.pop(first.run_id, None)  # how much is stored is looked up by the next append
            raise
        if last.type in FINAL_EVENTS:
            self._stored.pop(first.run_id, None)
            self._held.discard(first.run_id)
        else:
            self._stored[first.run_id] = (last.seq, False)
            if first.seq == 1:
                self._held.add(first.run_id)

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        rows = await self._read(
            "SELECT seq, type, run_id, occurred_at, node_id, payload, blobs FROM dipeo_events "
            "WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT %s",
            (run_id, after, limit),
        )
        references: dict[int, list[str]] = {row[0]: row[6] for row in rows if row[6]}
        names = list({name for found in references.values() for name in found})
        query = "SELECT hash, value FROM dipeo_blobs WHERE run_id = %s AND hash = ANY(%s)"
        blobs = dict(await self._read(query, (run_id, names))) if names else {}
        return events_of([row[:6] for row in rows], references, blobs)

    async def _missing(self, connection: Any, run_id: str, blobs: Mapping[str, str]) -> dict[str, str]:
        """Those that the server does not have yet."""
        query = "SELECT hash FROM dipeo_blobs WHERE run_id = %s AND hash = ANY(%s)"
        found = {row[0] for row in await (await connection.execute(query, (run_id, list(blobs)))).fetchall()}
        return {name: text for name, text in blobs.items() if name not in found}

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        where, values = chosen("%s", status=status, diagram=diagram, parent=parent, nested=nested)
        query = f"{_ROWS} {where} ORDER BY started_at DESC, run_id LIMIT %s"
        return [RunSummary(*row) for row in await self._read(query, (*values, limit))]

    async def run(self, run_id: str) -> RunSummary | None:
        rows = await self._read(f"{_ROWS} WHERE run_id = %s", (run_id,))
        return RunSummary(*rows[0]) if rows else None

    async def claim(self, run_id: str, *, mine: bool = False) -> None:
        async def take(connection: Any) -> None:
            async with connection.transaction():
                found = await connection.execute("SELECT owner FROM dipeo_runs WHERE run_id = %s FOR UPDATE", (run_id,))
                row = await found.fetchone()
                shown = await (await connection.execute(f"{_ROWS} WHERE run_id = %s", (run_id,))).fetchone()
                own = mine and row is not None and row[0] == self._owner
                holder = await self._holder_of(connection, row[0]) if row is not None and not own else ""
                check_claim(run_id, shown and shown[2], own, holder)
                await connection.execute(
                    "UPDATE dipeo_runs SET status = %s, ended_at = NULL, owner = %s WHERE run_id = %s",
                    (str(Status.RUNNING), self._owner, run_id),
                )

        await self._patiently("claim", take)
        self._stored.pop(run_id, None)
        self._held.add(run_id)

    async def compact(self) -> None:
        """The server's autovacuum does it."""

    async def beat(self, run_id: str) -> bool:
        # That the process lives shows by its lock; only who has the run is looked at.
        rows = await self._read("SELECT owner FROM dipeo_runs WHERE run_id = %s", (run_id,))
        return not rows or rows[0][0] == self._owner

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        async def put(connection: Any) -> None:
            row = (run_id, request_id, answer)
            done = await connection.execute("INSERT INTO dipeo_answers VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", row)
            if not done.rowcount:
                raise answered(run_id, request_id)

        await self._patiently("answer", put)

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(await self._read("SELECT request_id, answer FROM dipeo_answers WHERE run_id = %s", (run_id,)))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        async def drop(connection: Any) -> None:
            query = "DELETE FROM dipeo_answers WHERE run_id = %s AND request_id = %s"
            await connection.execute(query, (run_id, request_id))

        await self._patiently("answer", drop)

    async def delete(self, *run_ids: str, mine: bool = False, compact: bool = True) -> list[str]:
        names = list(run_ids)

        async def forget(connection: Any) -> list[str]:
            async with connection.transaction():
                query = "SELECT run_id FROM dipeo_runs WHERE run_id IN (SELECT run_id FROM related) ORDER BY run_id FOR UPDATE"
                await connection.execute(f"{_RELATED} {query}", (names, names))  # nobody claims one of them, or appends to it, from now on
                query = "SELECT run_id, parent_run_id, owner FROM dipeo_runs WHERE run_id IN (SELECT run_id FROM related)"
                rows = await (await connection.execute(f"{_RELATED} {query}", (names, names))).fetchall()
                family, above = relatives({row[0]: row[1] for row in rows}, names)
                query = f"{_ROWS} WHERE run_id = ANY(%s) AND status = 'running'"
                going = {row[0] for row in await (await connection.execute(query, ([row[0] for row in rows],))).fetchall()}
                for run_id, _, owner in rows:
                    if run_id in going and not (mine and owner == self._owner):
                        check_delete([run_id], family, above, await self._holder_of(connection, owner))
                for table in ("dipeo_events", "dipeo_blobs", "dipeo_answers", "dipeo_runs"):
                    await connection.execute(f"DELETE FROM {table} WHERE run_id = ANY(%s)", (family,))
                return family

        deleted = await self._patiently("delete", forget)
        for run_id in deleted:
            self._stored.pop(run_id, None)
        return deleted

    # The tables.

    async def _migrate(self, connection: Any) -> None:
        await connection.execute("SELECT pg_advisory_lock(%s)", (_OPENING,))
        try:
            found = await (await connection.execute("SELECT to_regclass('dipeo_schema') IS NOT NULL")).fetchone()
            if not found[0]:
                async with connection.transaction():
                    for statement in _SCHEMA.split(";"):
                        await connection.execute(statement)
                return
            (version,) = await (await connection.execute("SELECT version FROM dipeo_schema")).fetchone()
            if version > SCHEMA_VERSION:
                raise StorageError(
                    f"{self.place} was written by a newer version of dipeo_nb (schema {version}; this one knows {SCHEMA_VERSION}).",
                    hint="Upgrade dipeo-nb, or use another database (STATE_STORE_PATH).",
                    operation="open",
                )
            async with connection.transaction():
                for number in range(version, SCHEMA_VERSION):
                    for statement in _MIGRATIONS[number].split(";"):
                        await connection.execute(statement)
                    await connection.execute("UPDATE dipeo_schema SET version = %s", (number + 1,))
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (_OPENING,))

    # The lock that says that this process lives.

    async def _holder_of(self, connection: Any, owner: int) -> str:
        """Who has a run, in words; "" when its process is gone."""
        query = (
            "SELECT application_name FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' "
            "AND objsubid = 1 AND granted AND (classid::bigint << 32) | objid::bigint = %s)"
        )
        row = await (await connection.execute(query, (owner,))).fetchone()
        return row[0].removeprefix("dipeo_nb ") if row and row[0] else ""

    async def _hold(self, connection: Any) -> None:
        await connection.execute("SELECT pg_advisory_lock(%s)", (self._owner,))

    async def _keep(self, psycopg: Any, options: dict[str, Any]) -> None:
        """Hold the lock again when the connection that held it is lost."""
        while True:
            await asyncio.sleep(HOLD_S)
            try:
                if self._holder is None:
                    self._holder = await psycopg.AsyncConnection.connect(self._url, **options)
                    await self._hold(self._holder)
                await self._holder.execute("SELECT 1")
            except (psycopg.Error, OSError) as error:
                _LOG.warning("Run store %s: the connection is lost, trying again: %s", self.place, error)
                await self._let_go()

    async def _let_go(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.close()

    # Asking the server.

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            await self.initialize()
        assert self._pool is not None
        async with self._pool.connection() as connection:
            yield connection

    async def _patiently(self, operation: str, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do it, again when the server went away, for `PATIENCE_S` seconds."""
        loop = asyncio.get_running_loop()
        deadline, backoff, attempt = loop.time() + PATIENCE_S, Backoff(0.05, 1.0), 0
        while True:
            try:
                async with self._connection() as connection:
                    return await work(connection)
            except StorageError:
                raise
            except Exception as error:
                found = self._failed(operation, error) or StorageError(
                    f"Run store {self.place}: {type(error).__name__}: {error}",
                    hint="Check that the values can be stored, and the server's log.",
                    operation=operation,
                    cause="failed",
                )
                if found.facts.get("cause") != "unavailable" or loop.time() > deadline:
                    raise found from error
            await asyncio.sleep(backoff.delay(attempt := attempt + 1))

    async def _read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if not storable(values):
            return []

        async def ask(connection: Any) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self._patiently("read", ask)

    async def _count(self, run_id: str) -> tuple[int, bool]:
        return await self._patiently("read", lambda connection: self._counted(connection, run_id))

    async def _counted(self, connection: Any, run_id: str) -> tuple[int, bool]:
        query = "SELECT events, ended_at IS NOT NULL FROM dipeo_runs WHERE run_id = %s"
        row = await (await connection.execute(query, (run_id,))).fetchone()
        return (row[0], row[1]) if row else (0, False)

    def _options(self) -> str:
        given = parse_qs(urlsplit(self._url).query).get("options", [])
        return " ".join([*given[-1:], f"-c statement_timeout={STATEMENT_MS}"])

    def _failed(self, operation: str, error: BaseException) -> StorageError | None:
        """What an error means; None: it is none of the server's."""
        import psycopg
        import psycopg_pool
        from psycopg import errors as codes

        if isinstance(error, StorageError):
            return error
        text = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, (codes.DiskFull, codes.OutOfMemory)):
            cause, hint = "disk_full", "Free some disk space on the server; what was stored before is safe."
        elif isinstance(error, codes.ReadOnlySqlTransaction):
            cause, hint = "read_only", "Use the primary server, or another store (STATE_STORE_PATH)."
        elif isinstance(
            error, (codes.InsufficientPrivilege, codes.InvalidPassword, codes.InvalidAuthorizationSpecification)
        ):
            cause, hint = "permission", "Check user, password and rights (CREATE on the schema)."
        elif isinstance(error, codes.UniqueViolation):
            cause, hint = "going_on", "Another process writes this run; open it again: dp.open_run(…)."
        elif isinstance(error, (psycopg.OperationalError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, OSError)):
            if "authentication failed" in text or "no password supplied" in text:
                cause, hint = "permission", "Check user and password in STATE_STORE_PATH."
            else:
                cause, hint = "unavailable", "Check that the server runs and can be reached, then try again."
        elif isinstance(error, psycopg.Error):
            cause, hint = "failed", "Check the server's version (12 or later) and log."
        else:
            return None
        return StorageError(f"Run store {self.place}: {text}.", hint=hint, operation=operation, cause=cause)


def _imported() -> tuple[Any, Any]:
    try:
        import psycopg
        import psycopg_pool
    except ImportError as error:
        raise MissingDependencyError.for_extra("psycopg", extra="postgres") from error
    return psycopg, psycopg_pool

"""The PostgreSQL server of a run store: connections, the lock that shows that this process lives, patience, errors.

The one module that imports psycopg.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from dipeo_nb.common.redaction import logger, place_of
from dipeo_nb.common.retry import Backoff
from dipeo_nb.errors import MissingDependencyError, StorageError
from dipeo_nb.execution.state.postgres_schema import migrate
from dipeo_nb.execution.state.rows import storable

T = TypeVar("T")
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


class PostgresServer:
    """A database on a server, as one store uses it.

    Args:
        url: see `PostgresRunStore`.
    """

    def __init__(self, url: str) -> None:
        self.owner = secrets.randbits(62)
        """Number of the lock that this object holds as long as its process lives."""
        self._url = url
        self._pool: Any = None
        self._holder: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    @property
    def place(self) -> str:
        """The database, without user and password."""
        return place_of(self._url)

    async def open(self) -> None:
        async with self._opening:
            if self._pool is None:
                await self._connect()

    async def _connect(self) -> None:
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
            await migrate(self._holder, self.place)
            await self._hold(self._holder)
            await pool.open(wait=True, timeout=CONNECT_S)
        except BaseException as error:
            await pool.close()
            await self._let_go()
            if (found := self.failed("open", error)) is not None:
                raise found from error
            raise
        self._pool = pool
        self._keeper = asyncio.get_running_loop().create_task(self._keep(psycopg, options))

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if pool is not None:
            await pool.close()
        await self._let_go()

    # The lock that says that this process lives.

    async def _hold(self, connection: Any) -> None:
        await connection.execute("SELECT pg_advisory_lock(%s)", (self.owner,))

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
            await self.open()
        assert self._pool is not None
        async with self._pool.connection() as connection:
            yield connection

    async def patiently(self, operation: str, work: Callable[[Any], Awaitable[T]]) -> T:
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
                found = self.failed(operation, error) or StorageError(
                    f"Run store {self.place}: {type(error).__name__}: {error}",
                    hint="Check that the values can be stored, and the server's log.",
                    operation=operation,
                    cause="failed",
                )
                if found.facts.get("cause") != "unavailable" or loop.time() > deadline:
                    raise found from error
            await asyncio.sleep(backoff.delay(attempt := attempt + 1))

    async def read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if not storable(values):
            return []

        async def ask(connection: Any) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self.patiently("read", ask)

    def _options(self) -> str:
        given = parse_qs(urlsplit(self._url).query).get("options", [])
        return " ".join([*given[-1:], f"-c statement_timeout={STATEMENT_MS}"])

    def failed(self, operation: str, error: BaseException) -> StorageError | None:
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
        elif isinstance(error, (codes.InsufficientPrivilege, codes.InvalidPassword, codes.InvalidAuthorizationSpecification)):
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

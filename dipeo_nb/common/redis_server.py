"""A Redis server: connecting to it, and what its errors mean (extra `redis`; the one module that imports redis)."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from dipeo_nb.common.redaction import place_of
from dipeo_nb.errors import MissingDependencyError

CONNECT_S = 5.0
"""Seconds to reach the server."""
ANSWER_S = 30.0
"""Seconds to wait for an answer."""


class Trouble(NamedTuple):
    """Meaning of a Redis error."""

    cause: str
    """`permission`, `unavailable` (try again later), `disk_full`, `failed`."""
    hint: str


class RedisServer:
    """Connections to one server.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS), `unix://…`; user and password may be in it and are never shown.
        connections: at once; who needs more waits.
    """

    def __init__(self, url: str, *, connections: int = 16) -> None:
        self._url = url
        self._connections = connections
        self._client: Any = None

    @property
    def place(self) -> str:
        """The server, without user and password."""
        return place_of(self._url)

    async def client(self) -> Any:
        """The client, made when it is first asked for; connects by itself, again after an outage.

        Raises:
            MissingDependencyError: redis is not installed.
        """
        if self._client is None:
            client = await asyncio.to_thread(self._made)  # importing takes a while
            self._client = self._client or client  # another task may have been faster; this one has not connected yet
        return self._client

    async def close(self) -> None:
        """Close the connections; `client` may be asked for again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _made(self) -> Any:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
        except ImportError as error:
            raise MissingDependencyError.for_extra("redis", extra="redis") from error
        # More callers at once wait for a connection, instead of an error.
        pool = BlockingConnectionPool.from_url(
            self._url, max_connections=self._connections, timeout=ANSWER_S,
            socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S,
        )  # fmt: skip
        return Redis.from_pool(pool)


def trouble(error: Exception) -> Trouble | None:
    """The meaning of an error; None: it is not one of Redis."""
    from redis import exceptions

    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return Trouble("permission", "Check user and password in the URL.")
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return Trouble("unavailable", "Check that the server runs and can be reached, then try again.")
    if isinstance(error, exceptions.OutOfMemoryError):
        return Trouble("disk_full", "Give the server more memory (maxmemory).")
    if isinstance(error, exceptions.RedisError):
        return Trouble("failed", "Check the server's version (6.2 or later) and log.")
    return None

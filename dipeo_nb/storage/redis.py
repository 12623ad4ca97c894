"""Conversations in Redis, shared by processes and machines (extra `redis`)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.redis_server import RedisServer, trouble
from dipeo_nb.domain.chat import Message
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.conversation.messages import decoded, encoded, history_of, kept_form, same_id

R = TypeVar("R")

_PAGE = 1000
"""Messages per read."""

# Each script is atomic. An id is stored with a mark of the call that wrote it, so that a call that is retried because its answer was
# lost can be distinguished from a second message with that id.
_ADD = """
local mark = redis.call('HGET', KEYS[2], ARGV[1])
if mark then return mark == ARGV[2] and 1 or 0 end
local seq = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], seq, ARGV[3])
redis.call('ZADD', KEYS[4], seq, seq)
redis.call('ZADD', KEYS[5], seq, seq)
redis.call('SADD', KEYS[6], ARGV[4])
return 1
"""
_CLEAR = """
local seqs = redis.call('ZRANGE', KEYS[5], 0, -1)
for i = 1, #seqs do
    redis.call('HDEL', KEYS[3], seqs[i])
    redis.call('ZREM', KEYS[4], seqs[i])
end
redis.call('DEL', KEYS[5], KEYS[2])
redis.call('SREM', KEYS[6], ARGV[1])
return #seqs
"""


@logged("add_message", "get_messages", "clear")
class RedisConversationRepository:
    """`ConversationRepository` in a Redis server (6 or later). What survives a restart depends on its configuration
    (`appendonly yes`).

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS), `unix://…`; user and password may be in it and are never shown.
        prefix: prefix of all keys; repositories with different prefixes are separate.
    """

    def __init__(self, url: str = "redis://localhost:6379/0", *, prefix: str = "dipeo") -> None:
        self._server = RedisServer(url)
        # In braces, so that a cluster keeps all keys in one slot and a script may access them together.
        self._prefix = f"{{{prefix}}}:conversation"

    def __repr__(self) -> str:
        return f"RedisConversationRepository({self._server.place!r})"

    async def initialize(self) -> None:
        """Connect.

        Raises:
            StorageError: `unavailable`, `permission`.
            MissingDependencyError: redis is not installed.
        """
        await self._call("open", lambda redis: redis.ping())

    async def cleanup(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def add_message(self, message: Message, execution_id: str | None = None, node_id: str | None = None) -> Message:
        kept = await kept_form(message, execution_id, node_id)
        execution = _execution(execution_id)
        text = json.dumps(encoded(kept), ensure_ascii=False)
        keys, values = self._keys(execution), (kept.id, uuid.uuid4().hex, text, execution)
        if not await self._call("add", lambda redis: redis.eval(_ADD, len(keys), *keys, *values)):
            raise same_id(kept.id, execution_id)
        return kept

    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        if limit is not None and limit <= 0:
            return []
        index, bodies = self._index(execution_id), f"{self._prefix}:messages"
        begin = 0 if limit is None else -limit
        seqs = await self._call("read", lambda redis: redis.zrange(index, begin, -1))
        found: list[Message] = []
        for start in range(0, len(seqs), _PAGE):
            page = seqs[start : start + _PAGE]
            texts = await self._call("read", lambda redis: redis.hmget(bodies, page))  # noqa: B023 - called at once
            # Messages that were cleared in the meantime are missing.
            found += [decoded(json.loads(text)) for text in texts if text is not None]
        return found

    async def get_global_conversation(self) -> list[Message]:
        return await self.get_messages()

    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        return await history_of(await self.get_messages(execution_id), person_id)

    async def get_message_count(self, execution_id: str | None = None) -> int:
        return await self._call("read", lambda redis: redis.zcard(self._index(execution_id)))

    async def get_latest_message(self, execution_id: str | None = None) -> Message | None:
        return next(iter(await self.get_messages(execution_id, limit=1)), None)

    async def clear(self, execution_id: str | None = None) -> None:
        if execution_id is not None:
            executions = [_execution(execution_id)]
        else:
            names = await self._call("clear", lambda redis: redis.smembers(f"{self._prefix}:executions"))
            executions = sorted(name.decode() for name in names)
        for execution in executions:
            keys = self._keys(execution)
            await self._call("clear", lambda redis: redis.eval(_CLEAR, len(keys), *keys, execution))  # noqa: B023

    def _keys(self, execution: str) -> tuple[str, ...]:
        """Return the keys of the scripts, in order."""
        start = self._prefix
        own = f"{start}:ids:{execution}", f"{start}:messages", f"{start}:all", f"{start}:of:{execution}"
        return f"{start}:seq", *own, f"{start}:executions"

    def _index(self, execution_id: str | None) -> str:
        return f"{self._prefix}:all" if execution_id is None else f"{self._prefix}:of:{_execution(execution_id)}"

    async def _call(self, operation: str, work: Callable[[Any], Awaitable[R]]) -> R:
        client = await self._server.client()
        try:
            return await work(client)
        except Exception as error:
            found = trouble(error)
            if found is None:
                raise
            raise StorageError(
                f"Cannot {operation} the conversation at {self._server.place}: {error}.",
                hint=found.hint, operation=operation, path=self._server.place, cause=found.cause,
            ) from error  # fmt: skip


def _execution(execution_id: str | None) -> str:
    """Return the name of an execution in keys; distinct for none at all."""
    return "-" if execution_id is None else f"={execution_id}"

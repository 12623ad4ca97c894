"""Stored form of messages, shared by all repositories of conversations."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dipeo_nb.common import collecting
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.selection import SYSTEM
from dipeo_nb.errors import StorageError

R = TypeVar("R")
MANY = 200
"""Messages, or entries of metadata, that are processed on the event loop without a break."""
MUCH = 1_000_000
"""Characters that are."""


def prepared(message: Message, execution_id: str | None, node_id: str | None) -> Message:
    """Return the message as it is stored: with an id, the node, and both ids in its metadata, which is a JSON copy.

    Raises:
        StorageError: `not_json`.
    """
    node = node_id if node_id is not None else message.node_id
    stamps = {"execution_id": execution_id, "node_id": node}
    metadata = {**message.metadata, **{name: value for name, value in stamps.items() if value is not None}}
    try:
        plain = json.loads(json.dumps(metadata, allow_nan=False))
        for text in (message.content, json.dumps(plain, ensure_ascii=False)):
            if not str.isascii(text):
                str.encode(text)  # lone surrogates cannot be stored
    except (TypeError, ValueError) as error:
        raise not_json("message", message.id or "without id", error) from error
    return dataclasses.replace(message, id=message.id or uuid.uuid4().hex, node_id=node, metadata=plain)


async def kept_form(message: Message, execution_id: str | None, node_id: str | None) -> Message:
    """`prepared`, without blocking the event loop for a large message."""
    if len(str(message.content)) <= MUCH and len(message.metadata) <= MANY:
        return prepared(message, execution_id, node_id)
    return await asyncio.to_thread(prepared, message, execution_id, node_id)


def copied(message: Message) -> Message:
    return dataclasses.replace(message, metadata=_copied(message.metadata))


def _copied(value: Any) -> Any:
    """Copy a JSON value."""
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return [_copied(item) for item in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def last(messages: list[Message], limit: int | None) -> list[Message]:
    return messages if limit is None else messages[max(0, len(messages) - max(0, limit)) :]


def history(messages: Iterable[Message], person_id: str) -> list[dict[str, Any]]:
    """Return a person's messages as mappings; see `ConversationRepository.get_conversation_history`."""
    return [
        {
            "role": "assistant" if m.from_person_id == person_id else "system" if m.from_person_id == SYSTEM else "user",
            "content": m.content,
            "from_person_id": m.from_person_id,
            "to_person_id": m.to_person_id,
            "timestamp": m.timestamp,
            "metadata": dict(m.metadata),
        }
        for m in messages
        if person_id in (m.from_person_id, m.to_person_id)
    ]


async def history_of(messages: list[Message], person_id: str) -> list[dict[str, Any]]:
    """`history`, without blocking the event loop."""
    return await in_parts(messages, lambda part: history(part, person_id))


async def in_parts(messages: list[Message], work: Callable[[list[Message]], list[R]]) -> list[R]:
    """Process messages in groups, so that other tasks get their turns in between."""
    if len(messages) <= MANY:
        return work(messages)
    results: list[R] = []
    with collecting.paused():
        for start in range(0, len(messages), MANY):
            results += work(messages[start : start + MANY])
            await asyncio.sleep(0)
    return results


def encoded(message: Message) -> tuple[str, str, str, str, str, float, str | None, str]:
    """Convert a message to the columns of a table, with its metadata as JSON."""
    m = message
    metadata = json.dumps(dict(m.metadata), ensure_ascii=False)
    return m.id, m.from_person_id, m.to_person_id, m.content, str(m.message_type), m.timestamp, m.node_id, metadata


def decoded(row: Iterable[Any]) -> Message:
    """Convert the columns of `encoded` back to a message."""
    message_id, sender, receiver, content, kind, at, node_id, metadata = row
    return Message(message_id, sender, receiver, content, MessageType(kind), at, node_id, json.loads(metadata))


def same_id(message_id: str, execution_id: str | None) -> StorageError:
    where = "outside executions" if execution_id is None else f"in execution '{execution_id}'"
    return StorageError(
        f"There is a message '{message_id}' {where} already.", hint="Use another id, or an empty one for a new id.",
        operation="add", cause="exists",
    )  # fmt: skip


def not_json(what: str, name: str, error: Exception) -> StorageError:
    return StorageError(
        f"The {what} '{name}' cannot be stored: {error}.", hint="Use JSON values only: text, numbers, lists, mappings.",
        operation="save", cause="not_json",
    )  # fmt: skip

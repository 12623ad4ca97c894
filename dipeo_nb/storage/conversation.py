"""Conversations and persons that outlive a run: in memory and in SQLite. `storage.redis` keeps conversations in Redis.

A run's own conversation is part of its event log; these repositories are for what several runs share.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dipeo_nb.common.operations import logged
from dipeo_nb.common.sqlite import close_with, connect, failed_database, in_transaction
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, Message, normalize_service, parse_model
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.selection import SYSTEM
from dipeo_nb.errors import StorageError, UnknownModelError

R = TypeVar("R")

APPLICATION_ID = 0x44495052
"""`PRAGMA application_id` ("DIPR"): tells these files from other SQLite files."""
SCHEMA_VERSION = 1
"""`PRAGMA user_version` of the files this version writes."""
MANY = 200
"""Messages, or entries of metadata, that are worked on at once on the event loop."""
MUCH = 1_000_000
"""Characters that are."""
BUSY_S = 30.0
"""Seconds after which another process's write counts as stuck."""


@logged("add_message", "get_messages", "clear")
class InMemoryConversationRepository:
    """`ConversationRepository` in this process; any thread may use it."""

    def __init__(self) -> None:
        self._messages: list[tuple[str | None, Message]] = []
        self._ids: set[tuple[str | None, str]] = set()
        self._lock = threading.Lock()

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close; the messages stay readable."""

    async def add_message(
        self, message: Message, execution_id: str | None = None, node_id: str | None = None
    ) -> Message:
        kept = await kept_form(message, execution_id, node_id)
        with self._lock:
            if (execution_id, kept.id) in self._ids:
                raise same_id(kept.id, execution_id)
            self._ids.add((execution_id, kept.id))
            self._messages.append((execution_id, kept))
        return copied(kept)

    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        return await _in_parts(last(self._of(execution_id), limit), lambda part: [copied(message) for message in part])

    async def get_global_conversation(self) -> list[Message]:
        return await self.get_messages()

    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        return await history_of(await self.get_messages(execution_id), person_id)

    async def get_message_count(self, execution_id: str | None = None) -> int:
        return len(self._of(execution_id))

    async def get_latest_message(self, execution_id: str | None = None) -> Message | None:
        return next(iter(await self.get_messages(execution_id, limit=1)), None)

    async def clear(self, execution_id: str | None = None) -> None:
        with self._lock:
            self._messages = [row for row in self._messages if execution_id is not None and row[0] != execution_id]
            self._ids = {(execution, message.id) for execution, message in self._messages}

    def _of(self, execution_id: str | None) -> list[Message]:
        with self._lock:
            return [m for execution, m in self._messages if execution_id is None or execution == execution_id]


@logged("get", "save", "create", "get_or_create", "register_person", "delete", "get_all", "clear")
class InMemoryPersonRepository:
    """`PersonRepository` in this process."""

    def __init__(self) -> None:
        self._persons: dict[str, DomainPerson] = {}

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close; the persons stay readable."""

    async def get(self, person_id: str) -> DomainPerson:
        return person_of(self._persons[person_id].label, person_id, encoded_config(self._persons[person_id]))

    async def save(self, person: DomainPerson) -> None:
        self._persons[person.id] = person_of(person.label, person.id, encoded_config(person))

    async def create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        if person_id in self._persons:
            raise same_person(person_id)
        await self.save(DomainPerson(person_id, name, llm_config or default_config()))
        return await self.get(person_id)

    async def get_or_create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        if person_id not in self._persons:
            await self.save(DomainPerson(person_id, name, llm_config or default_config()))
        return await self.get(person_id)

    async def register_person(self, person_id: str, config: LLMConfig) -> DomainPerson:
        await self.save(DomainPerson(person_id, person_id, config))
        return await self.get(person_id)

    async def delete(self, person_id: str) -> None:
        self._persons.pop(person_id, None)

    async def exists(self, person_id: str) -> bool:
        return person_id in self._persons

    async def get_all(self) -> dict[str, DomainPerson]:
        return {person_id: await self.get(person_id) for person_id in list(self._persons)}

    async def get_by_service(self, service: str) -> list[DomainPerson]:
        return of_service((await self.get_all()).values(), service)

    async def clear(self) -> None:
        self._persons.clear()


@logged("add_message", "get_messages", "clear")
class SqliteConversationRepository:
    """`ConversationRepository` in one SQLite file, which other processes may use at the same time.

    An acknowledged message survives the death of the process. The file may hold the persons of a `SqlitePersonRepository` too.

    Args:
        path: the file; it and its folder are made when missing.
        base: a folder below which no symbolic link leads to the file.
    """

    def __init__(self, path: str | Path, *, base: Path | None = None) -> None:
        self._file = _File(Path(path), base)

    async def initialize(self) -> None:
        """Open. Raises StorageError when the file is something else, or too new."""
        await self._file.run("open", lambda connection: None)

    async def cleanup(self) -> None:
        """Close the file."""
        await self._file.close()

    async def add_message(
        self, message: Message, execution_id: str | None = None, node_id: str | None = None
    ) -> Message:
        kept = await kept_form(message, execution_id, node_id)
        row = (execution_id, *encoded(kept))

        def insert(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO messages (execution_id, id, sender, receiver, content, type, at, node_id, metadata)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
            except sqlite3.IntegrityError as error:
                raise same_id(kept.id, execution_id) from error

        await self._file.run("add", insert)
        return kept

    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        query = (
            "SELECT id, sender, receiver, content, type, at, node_id, metadata FROM messages"
            f"{_where(execution_id)} ORDER BY seq DESC LIMIT ?"
        )
        values = (*_values(execution_id), -1 if limit is None else max(0, limit))

        def select(connection: sqlite3.Connection) -> list[Message]:
            return [decoded(row) for row in reversed(connection.execute(query, values).fetchall())]

        return await self._file.run("read", select)

    async def get_global_conversation(self) -> list[Message]:
        return await self.get_messages()

    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        return await history_of(await self.get_messages(execution_id), person_id)

    async def get_message_count(self, execution_id: str | None = None) -> int:
        query = f"SELECT count(*) FROM messages{_where(execution_id)}"
        return await self._file.run("read", lambda db: db.execute(query, _values(execution_id)).fetchone()[0])

    async def get_latest_message(self, execution_id: str | None = None) -> Message | None:
        return next(iter(await self.get_messages(execution_id, limit=1)), None)

    async def clear(self, execution_id: str | None = None) -> None:
        query = f"DELETE FROM messages{_where(execution_id)}"
        await self._file.run("clear", lambda db: db.execute(query, _values(execution_id)).close())


@logged("get", "save", "create", "get_or_create", "register_person", "delete", "get_all", "clear")
class SqlitePersonRepository:
    """`PersonRepository` in one SQLite file; see `SqliteConversationRepository`."""

    def __init__(self, path: str | Path, *, base: Path | None = None) -> None:
        self._file = _File(Path(path), base)

    async def initialize(self) -> None:
        """Open. Raises StorageError when the file is something else, or too new."""
        await self._file.run("open", lambda connection: None)

    async def cleanup(self) -> None:
        """Close the file."""
        await self._file.close()

    async def get(self, person_id: str) -> DomainPerson:
        rows = await self._rows("WHERE id = ?", person_id)
        if not rows:
            raise KeyError(person_id)
        return rows[0]

    async def save(self, person: DomainPerson) -> None:
        await self._write(person, "ON CONFLICT (id) DO UPDATE SET label = excluded.label, llm = excluded.llm")

    async def create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        await self._write(DomainPerson(person_id, name, llm_config or default_config()), "")
        return await self.get(person_id)

    async def get_or_create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        await self._write(DomainPerson(person_id, name, llm_config or default_config()), "ON CONFLICT (id) DO NOTHING")
        return await self.get(person_id)

    async def register_person(self, person_id: str, config: LLMConfig) -> DomainPerson:
        await self.save(DomainPerson(person_id, person_id, config))
        return await self.get(person_id)

    async def delete(self, person_id: str) -> None:
        await self._file.run("delete", lambda db: db.execute("DELETE FROM persons WHERE id = ?", (person_id,)).close())

    async def exists(self, person_id: str) -> bool:
        return bool(await self._rows("WHERE id = ?", person_id))

    async def get_all(self) -> dict[str, DomainPerson]:
        return {person.id: person for person in await self._rows("ORDER BY seq")}

    async def get_by_service(self, service: str) -> list[DomainPerson]:
        return of_service((await self.get_all()).values(), service)

    async def clear(self) -> None:
        await self._file.run("clear", lambda db: db.execute("DELETE FROM persons").close())

    async def _write(self, person: DomainPerson, conflict: str) -> None:
        row = (person.id, person.label, encoded_config(person))

        def insert(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(f"INSERT INTO persons (id, label, llm) VALUES (?, ?, ?) {conflict}", row)
            except sqlite3.IntegrityError as error:
                raise same_person(person.id) from error

        await self._file.run("save", insert)

    async def _rows(self, rest: str, *values: str) -> list[DomainPerson]:
        def select(connection: sqlite3.Connection) -> list[DomainPerson]:
            rows = connection.execute(f"SELECT id, label, llm FROM persons {rest}", values)
            return [person_of(label, person_id, llm) for person_id, label, llm in rows]

        return await self._file.run("read", select)


# What all repositories share.


def prepared(message: Message, execution_id: str | None, node_id: str | None) -> Message:
    """The message as it is kept: an id, the node, both ids in its metadata, which is a JSON copy.

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
        raise _not_json("message", message.id or "without id", error) from error
    return dataclasses.replace(message, id=message.id or uuid.uuid4().hex, node_id=node, metadata=plain)


def copied(message: Message) -> Message:
    return dataclasses.replace(message, metadata=_copied(message.metadata))


def _copied(value: Any) -> Any:
    """A copy of JSON."""
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return [_copied(item) for item in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def last(messages: list[Message], limit: int | None) -> list[Message]:
    return messages if limit is None else messages[max(0, len(messages) - max(0, limit)) :]


def history(messages: Iterable[Message], person_id: str) -> list[dict[str, Any]]:
    """A person's messages as mappings; see `ConversationRepository.get_conversation_history`."""
    return [
        {
            "role": "assistant"
            if m.from_person_id == person_id
            else "system"
            if m.from_person_id == SYSTEM
            else "user",
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
    """`history`, without holding the event loop up."""
    return await _in_parts(messages, lambda part: history(part, person_id))


async def kept_form(message: Message, execution_id: str | None, node_id: str | None) -> Message:
    """`prepared`, without holding the event loop up for a large message."""
    if len(str(message.content)) <= MUCH and len(message.metadata) <= MANY:
        return prepared(message, execution_id, node_id)
    return await asyncio.to_thread(prepared, message, execution_id, node_id)


async def _in_parts(messages: list[Message], work: Callable[[list[Message]], list[R]]) -> list[R]:
    """The results of *work* on some messages at a time; others on the event loop have their turns in between."""
    results: list[R] = []
    for start in range(0, len(messages), MANY):
        results += work(messages[start : start + MANY])
        if len(messages) > MANY:
            await asyncio.sleep(0)
    return results


def encoded(message: Message) -> tuple[str, str, str, str, str, float, str | None, str]:
    """A message as the columns of a table; the metadata as JSON."""
    m = message
    metadata = json.dumps(dict(m.metadata), ensure_ascii=False)
    return m.id, m.from_person_id, m.to_person_id, m.content, str(m.message_type), m.timestamp, m.node_id, metadata


def decoded(row: Iterable[Any]) -> Message:
    """The message of `encoded` columns."""
    message_id, sender, receiver, content, kind, at, node_id, metadata = row
    return Message(message_id, sender, receiver, content, MessageType(kind), at, node_id, json.loads(metadata))


def same_id(message_id: str, execution_id: str | None) -> StorageError:
    where = "outside executions" if execution_id is None else f"in execution '{execution_id}'"
    return StorageError(
        f"There is a message '{message_id}' {where} already.", hint="Give it another id, or an empty one for a new id.",
        operation="add", cause="exists",
    )  # fmt: skip


def same_person(person_id: str) -> StorageError:
    return StorageError(
        f"There is a person '{person_id}' already.", hint="Use save() to replace it, or get_or_create().",
        operation="create", cause="exists",
    )  # fmt: skip


def default_config() -> LLMConfig:
    """The default model of the settings."""
    default = get_settings().default_llm_model
    try:
        service, model = parse_model(default)
    except UnknownModelError:  # `service:model` of a third party: which there are, only the services know
        if ":" not in default:
            raise
        service, model = parse_model(default, [normalize_service(default.partition(":")[0])])
    return LLMConfig(service=service, model=model)


def encoded_config(person: DomainPerson) -> str:
    """A person's model as JSON. Raises StorageError `not_json`."""
    fields = {f.name: getattr(person.llm, f.name) for f in dataclasses.fields(LLMConfig)}
    try:
        return json.dumps(fields | {"extra": dict(person.llm.extra)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _not_json("person", person.id, error) from error


def person_of(label: str, person_id: str, llm: str) -> DomainPerson:
    return DomainPerson(person_id, label, LLMConfig(**json.loads(llm)))


def of_service(persons: Iterable[DomainPerson], service: str) -> list[DomainPerson]:
    wanted, default = normalize_service(service), default_config().service

    def serving(llm: LLMConfig) -> str:
        return default if llm.follows_default else normalize_service(llm.service or DEFAULT_MODEL_SERVICE)

    return [person for person in persons if serving(person.llm) == wanted]


def _not_json(what: str, name: str, error: Exception) -> StorageError:
    return StorageError(
        f"The {what} '{name}' cannot be stored: {error}.", hint="Use JSON values only: text, numbers, lists, mappings.",
        operation="save", cause="not_json",
    )  # fmt: skip


# The file.

_SCHEMA = """
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    execution_id TEXT,
    id TEXT NOT NULL,
    sender TEXT NOT NULL,
    receiver TEXT NOT NULL,
    content TEXT NOT NULL,
    type TEXT NOT NULL,
    at REAL NOT NULL,
    node_id TEXT,
    metadata TEXT NOT NULL
);
CREATE UNIQUE INDEX messages_by_id ON messages (coalesce(execution_id, ''), execution_id IS NULL, id);
CREATE INDEX messages_by_execution ON messages (execution_id, seq);
CREATE TABLE persons (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL,
    llm TEXT NOT NULL
);
"""


def _where(execution_id: str | None) -> str:
    return "" if execution_id is None else " WHERE execution_id = ?"


def _values(execution_id: str | None) -> tuple[str, ...]:
    return () if execution_id is None else (execution_id,)


class _File:
    """One SQLite connection in WAL mode, used by one worker thread at a time; each use is a transaction."""

    def __init__(self, path: Path, base: Path | None) -> None:
        self.path, self.base = path, base
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._lock = threading.Lock()

    async def run(self, operation: str, work: Callable[[sqlite3.Connection], R]) -> R:
        """The result of *work* in a worker thread; SQLite's errors as ours."""
        return await asyncio.to_thread(self._run, operation, work)

    async def close(self) -> None:
        if self._connection is not None or self._lock.locked():  # else nothing was opened: no thread for that
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def _run(self, operation: str, work: Callable[[sqlite3.Connection], R]) -> R:
        with self._lock:
            try:
                return in_transaction(self._opened(), work, "BEGIN" if operation in ("read", "open") else "BEGIN IMMEDIATE")
            except (sqlite3.Error, OSError) as error:
                raise failed_database(operation, self.path, error) from error

    def _opened(self) -> sqlite3.Connection:
        # A connection must not cross a fork (https://sqlite.org/howtocorrupt.html §2.6).
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        deadline = time.monotonic() + BUSY_S
        for attempt in itertools.count():
            connection = None
            try:
                connection = connect(
                    self.path, self.base, isolation_level=None, check_same_thread=False, timeout=BUSY_S
                )
                self._check(connection)
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")  # survives the process; see execution.state.sqlite
            except BaseException as error:
                if connection is not None:
                    connection.close()
                # Changing to WAL needs the file alone and does not wait by itself (two processes that start at once).
                if not (_is_busy(error) and time.monotonic() < deadline):
                    raise
                time.sleep(min(0.01 * 2**attempt, 0.2))
            else:
                self._connection, self._pid = close_with(self, connection), os.getpid()
                return connection
        raise AssertionError("unreachable: counted without end")

    def _check(self, connection: sqlite3.Connection) -> None:
        """Make the tables in an empty file; refuse one of something else."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif owner != APPLICATION_ID:
                raise self._refused("is an SQLite file of something else", "Use another file.")
            elif version > SCHEMA_VERSION:
                raise self._refused("was written by a newer version of dipeo_nb", "Upgrade dipeo-nb.")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _refused(self, why: str, hint: str) -> StorageError:
        return StorageError(f"{self.path} {why}.", hint=hint, operation="open", path=str(self.path), cause="refused")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))

"""Conversations and persons in an SQLite file."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dipeo_nb.common.operations import logged
from dipeo_nb.common.sqlite import close_with, connect, failed_database, in_transaction
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.conversation.messages import decoded, encoded, history_of, kept_form, same_id
from dipeo_nb.storage.conversation.persons import default_config, encoded_config, of_service, person_of, same_person

R = TypeVar("R")

APPLICATION_ID = 0x44495052
"""`PRAGMA application_id` ("DIPR"): tells these files from other SQLite files."""
SCHEMA_VERSION = 1
"""`PRAGMA user_version` of the files this version writes."""
BUSY_S = 30.0
"""Seconds after which another process's write counts as stuck."""
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

"""Conversations and persons in an SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from dipeo_nb.common import collecting
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.sqlite import Schema, SqliteFile
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.storage.conversation.messages import decoded, encoded, history_of, kept_form, same_id
from dipeo_nb.storage.conversation.persons import default_config, encoded_config, of_service, person_of, same_person

_SCHEMA = Schema(application_id=0x44495052, version=1, statements="""
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
""")  # fmt: skip
"""Schema of these files; the id reads "DIPR"."""


@logged("add_message", "get_messages", "clear")
class SqliteConversationRepository:
    """`ConversationRepository` in one SQLite file, which other processes may use at the same time.

    An acknowledged message survives the death of the process. The file may hold the persons of a `SqlitePersonRepository` too.

    Args:
        path: the file; it and its folder are created if missing.
        base: a folder below which the path to the file must not contain symbolic links.
    """

    def __init__(self, path: str | Path, *, base: Path | None = None) -> None:
        self._file = SqliteFile(Path(path), _SCHEMA, base=base)

    async def initialize(self) -> None:
        """Open. Raises StorageError when the file is something else, or too new."""
        await self._file.run("open", lambda connection: None)

    async def cleanup(self) -> None:
        """Close the file."""
        await self._file.close()

    async def add_message(self, message: Message, execution_id: str | None = None, node_id: str | None = None) -> Message:
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
            with collecting.paused():
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
        self._file = SqliteFile(Path(path), _SCHEMA, base=base)

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

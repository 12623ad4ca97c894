"""Conversations and persons in memory."""

from __future__ import annotations

import asyncio
import threading
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple

from dipeo_nb.common.operation_log import logged
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.storage.conversation.messages import MANY, copied, history_of, in_parts, kept_form, last, same_id
from dipeo_nb.storage.conversation.persons import default_config, encoded_config, of_service, person_of, same_person


class _Kept(NamedTuple):
    """The messages of one execution."""

    rows: list[tuple[int, Message]]
    """(number in the order of all executions, message)"""
    ids: set[str]


@logged("add_message", "get_messages", "clear")
class InMemoryConversationRepository:
    """`ConversationRepository` in this process; any thread may use it."""

    def __init__(self) -> None:
        self._executions: dict[str | None, _Kept] = {}
        self._numbers = count()
        self._lock = threading.Lock()

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close; the messages stay readable."""

    async def add_message(self, message: Message, execution_id: str | None = None, node_id: str | None = None) -> Message:
        kept = await kept_form(message, execution_id, node_id)
        with self._lock:
            held = self._executions.setdefault(execution_id, _Kept([], set()))
            if kept.id in held.ids:
                raise same_id(kept.id, execution_id)
            held.ids.add(kept.id)
            held.rows.append((next(self._numbers), kept))
        return copied(kept)

    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        return await in_parts(last(self._of(execution_id), limit), lambda part: [copied(message) for message in part])

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
            chosen = list(self._executions) if execution_id is None else [execution_id]
            gone = [self._executions.pop(one).rows for one in chosen if one in self._executions]
        for rows in gone:  # in parts: giving back the memory of very many takes long, too
            while rows:
                del rows[-MANY:]
                await asyncio.sleep(0)

    def _of(self, execution_id: str | None) -> list[Message]:
        with self._lock:
            chosen = self._executions.values() if execution_id is None else filter(None, [self._executions.get(execution_id)])
            rows = [row for held in chosen for row in held.rows]
        if execution_id is None:
            rows.sort(key=itemgetter(0))  # runs that are sorted already: quick
        return [message for _, message in rows]


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

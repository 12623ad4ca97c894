"""Conversations and persons in memory."""

from __future__ import annotations

import threading
from typing import Any

from dipeo_nb.common.operations import logged
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.storage.conversation.messages import copied, history_of, in_parts, kept_form, last, same_id
from dipeo_nb.storage.conversation.persons import default_config, encoded_config, of_service, person_of, same_person


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

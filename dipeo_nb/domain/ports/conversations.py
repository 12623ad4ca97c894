"""Conversations and persons that outlive a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig


@runtime_checkable
class ConversationRepository(Protocol):
    """Messages in the order in which they were added, each of one execution.

    Without an `execution_id`, methods see all executions. What they return are copies: changing them changes nothing here.
    """

    @abstractmethod
    async def add_message(
        self, message: Message, execution_id: str | None = None, node_id: str | None = None
    ) -> Message:
        """Append and return the message as it is kept: with an id when it had none, `node_id` when given, and
        `execution_id` and `node_id` in its metadata.

        Raises:
            StorageError: `exists` (the execution has a message with that id), `not_json` (metadata), `unavailable` …
        """
        ...

    @abstractmethod
    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        """In order; only the last *limit* when given."""
        ...

    @abstractmethod
    async def get_global_conversation(self) -> list[Message]:
        """All messages of all executions, in order."""
        ...

    @abstractmethod
    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        """Messages from and to a person, as mappings with `role` (assistant: the person spoke; system: the system did; else
        user), `content`, `from_person_id`, `to_person_id`, `timestamp`, `metadata`."""
        ...

    @abstractmethod
    async def get_message_count(self, execution_id: str | None = None) -> int: ...

    @abstractmethod
    async def get_latest_message(self, execution_id: str | None = None) -> Message | None: ...

    @abstractmethod
    async def clear(self, execution_id: str | None = None) -> None:
        """Forget one execution's messages, or all."""
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@runtime_checkable
class PersonRepository(Protocol):
    """Persons by id."""

    @abstractmethod
    async def get(self, person_id: str) -> DomainPerson:
        """Raises KeyError when there is none."""
        ...

    @abstractmethod
    async def save(self, person: DomainPerson) -> None:
        """Keep *person*, in place of the one with its id. Raises StorageError `not_json` (extra keys of its model)."""
        ...

    @abstractmethod
    async def create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """Make and keep a person; without a configuration it gets the default model of the settings.

        Raises StorageError `exists`.
        """
        ...

    @abstractmethod
    async def get_or_create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """The person with that id, made when there is none."""
        ...

    @abstractmethod
    async def register_person(self, person_id: str, config: LLMConfig) -> DomainPerson:
        """Keep a person that is called as its id, in place of one that is there."""
        ...

    @abstractmethod
    async def delete(self, person_id: str) -> None:
        """Deleting what does not exist is not an error."""
        ...

    @abstractmethod
    async def exists(self, person_id: str) -> bool: ...

    @abstractmethod
    async def get_all(self) -> dict[str, DomainPerson]:
        """By id, in the order in which they were first kept."""
        ...

    @abstractmethod
    async def get_by_service(self, service: str) -> list[DomainPerson]:
        """Persons whose model is of a service; aliases are understood (`claude` is `anthropic`)."""
        ...

    @abstractmethod
    async def clear(self) -> None: ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""

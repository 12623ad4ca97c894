"""Conversations and persons that outlive a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from dipeo_nb.domain.chat import Message
    from dipeo_nb.domain.diagram import DomainPerson, LLMConfig


@runtime_checkable
class ConversationRepository(Protocol):
    """Messages in the order in which they were added, each of one execution.

    Without an `execution_id`, methods cover all executions. They return copies: changing them has no effect here.
    """

    @abstractmethod
    async def add_message(self, message: Message, execution_id: str | None = None, node_id: str | None = None) -> Message:
        """Append and return the message as stored: with an id if it had none, `node_id` if given, and
        `execution_id` and `node_id` in its metadata.

        Raises:
            StorageError: `exists` (the execution has a message with that id), `not_json` (metadata), `unavailable` …
        """
        ...

    @abstractmethod
    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        """Return messages in order; only the last *limit* if given."""
        ...

    @abstractmethod
    async def get_global_conversation(self) -> list[Message]:
        """Return all messages of all executions, in order."""
        ...

    @abstractmethod
    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        """Return the messages from and to a person, as mappings with `role` (assistant: the person spoke; system: the system did; else
        user), `content`, `from_person_id`, `to_person_id`, `timestamp`, `metadata`."""
        ...

    @abstractmethod
    async def get_message_count(self, execution_id: str | None = None) -> int: ...

    @abstractmethod
    async def get_latest_message(self, execution_id: str | None = None) -> Message | None: ...

    @abstractmethod
    async def clear(self, execution_id: str | None = None) -> None:
        """Delete one execution's messages, or all."""
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
        """Return a person. Raises KeyError when there is none."""
        ...

    @abstractmethod
    async def save(self, person: DomainPerson) -> None:
        """Store *person*, replacing the one with its id. Raises StorageError `not_json` (extra keys of its model)."""
        ...

    @abstractmethod
    async def create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """Create and store a person; without a configuration it gets the default model of the settings.

        Raises StorageError `exists`.
        """
        ...

    @abstractmethod
    async def get_or_create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """Return the person with that id, created if there is none."""
        ...

    @abstractmethod
    async def register_person(self, person_id: str, config: LLMConfig) -> DomainPerson:
        """Store a person named like its id, replacing an existing one."""
        ...

    @abstractmethod
    async def delete(self, person_id: str) -> None:
        """Delete a person; a missing one is not an error."""
        ...

    @abstractmethod
    async def exists(self, person_id: str) -> bool: ...

    @abstractmethod
    async def get_all(self) -> dict[str, DomainPerson]:
        """Return persons by id, in the order in which they were first stored."""
        ...

    @abstractmethod
    async def get_by_service(self, service: str) -> list[DomainPerson]:
        """Return the persons whose model belongs to a service; aliases are accepted (`claude` is `anthropic`)."""
        ...

    @abstractmethod
    async def clear(self) -> None: ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""

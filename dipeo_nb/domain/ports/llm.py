"""Models, and the keys they are reached with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, runtime_checkable

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent


@runtime_checkable
class LLMClient(Protocol):
    """One provider's models. Born, used and closed on the library's loop thread."""

    @property
    @abstractmethod
    def provider(self) -> str:
        """Service name, e.g. `openai`."""
        ...

    async def prepare(self) -> None:
        """Load what a first call needs, such as the provider's package: the time limit of a call does not count it. Default: nothing.

        Raises:
            MissingDependencyError: the provider's package is not installed.
        """

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """Answer *request* piece by piece; the last event is `end` with the whole response.

        Cancelling the iteration stops the work and closes the connection. What the provider reports of tokens before the end is
        kept with `request.note`, so that an answer that breaks off is booked; one that failed for good carries it as `usage`.

        Raises:
            LLMError: a subclass for each cause; vendor errors never pass through.
            APIKeyNotFoundError: a key is needed and there is none.
            MissingDependencyError: the provider's package is not installed.
        """
        ...

    async def cleanup(self) -> None:
        """Close connections and free memory. Safe to call twice. Default: nothing to close."""


@runtime_checkable
class LLMServicePort(Protocol):
    """All models behind one interface: chooses the client by `request.service`, fills defaults, counts cost."""

    @property
    @abstractmethod
    def services(self) -> Sequence[str]:
        """Names of the services that requests can go to."""
        ...

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMClient.stream`.

        Raises:
            UnsupportedError: no such service; the message lists the choices and the nearest.
        """
        ...

    @abstractmethod
    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; same errors."""
        ...

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@runtime_checkable
class APIKeyPort(Protocol):
    """Where API keys come from. Secrets leave only through `get_api_key`, and only as `SecretStr`-like objects; whoever hands
    one out makes it known to `common.scrub.redactor`.

    Every method raises APIKeyError when the place where the keys are cannot be used, and changes nothing then.
    """

    @abstractmethod
    async def get_api_key(self, key_id: str) -> Any:
        """The secret (`pydantic.SecretStr`) for a key id (`APIKEY_52609F`), a service, an alias or the name of a model.

        Raises:
            APIKeyNotFoundError: none there; the hint names the variable, the command to store one and `--model local`.
        """
        ...

    @abstractmethod
    async def set_api_key(self, key_id: str, key: str) -> None:
        """Keep *key* under an id or a service, in place of the one that is there. Raises APIKeyError when this store is
        read-only."""
        ...

    @abstractmethod
    async def delete_api_key(self, key_id: str) -> None:
        """Raises APIKeyNotFoundError when there is none, APIKeyError when this store is read-only."""
        ...

    @abstractmethod
    async def list_api_keys(self) -> list[dict[str, Any]]:
        """id, label, service and a masked form of each (`key`), and where it is from (`source`, optional); never a secret."""
        ...

"""Models, and API keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent


@runtime_checkable
class LLMClient(Protocol):
    """Client of one provider's models. Created, used and closed on the library's event loop thread."""

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
        """Stream the answer to *request*; the last event is `end` with the whole response.

        Cancelling the iteration stops the work and closes the connection. Token usage reported before the end is passed
        to `request.note`, so that an interrupted answer is charged; a final failure carries it as `usage`.

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
    """One entry point for all models: selects the client by `request.service`, fills in defaults, adds up costs."""

    @property
    @abstractmethod
    def services(self) -> Sequence[str]:
        """Names of the available services."""
        ...

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """Like `LLMClient.stream`.

        Raises:
            UnsupportedError: no such service; the message lists the choices and the closest match.
        """
        ...

    @abstractmethod
    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer; same errors."""
        ...

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@runtime_checkable
class APIKeyPort(Protocol):
    """Source of API keys. Secrets are returned only by `get_api_key`, as `SecretStr`-like objects, and are registered with
    `common.scrub.redactor` then.

    Every method raises APIKeyError when the store of keys cannot be used, without changing anything.
    """

    @abstractmethod
    async def get_api_key(self, key_id: str) -> Any:
        """Return the secret (`pydantic.SecretStr`) of a key id (`APIKEY_52609F`), a service, an alias or the name of a model.

        Raises:
            APIKeyNotFoundError: there is none; the hint names the variable, the command to store one and `--model local`.
        """
        ...

    @abstractmethod
    async def set_api_key(self, key_id: str, key: str) -> None:
        """Store *key* under an id or a service, replacing an existing one. Raises APIKeyError when this store is
        read-only."""
        ...

    @abstractmethod
    async def delete_api_key(self, key_id: str) -> None:
        """Raises APIKeyNotFoundError when there is none, APIKeyError when this store is read-only."""
        ...

    @abstractmethod
    async def list_api_keys(self) -> list[dict[str, Any]]:
        """Return id, label, service, a masked form (`key`) and optionally the `source` of each; never a secret."""
        ...

"""What the service of integrations needs of a provider, whatever is behind it: a manifest, a class, or an MCP server."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dipeo_nb.domain.ports import OfferedTool

Progress = Callable[[str], None]
Ask = Callable[[str], Awaitable[str | None]]
"""Asks the user a question; None: there is no answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation, as a node or a user makes it.

    Attributes:
        key_id: id of a key of the provider; None: its own.
        stamp: the same for every attempt at the same work.
        repeated: whether an earlier attempt at it may have been sent, by this process or one that is gone.
        all: read all pages of a list; `limit`: read until there are so many items.
        timeout: seconds for one attempt; None: the operation's own.
        max_retries: None: the provider's own.
        progress: hears of each page, and of how far a tool is.
        ask: asks the user a question of a tool.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    resource_id: str | None = None
    key_id: str | None = None
    stamp: str = ""
    repeated: bool = False
    all: bool = False
    limit: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    progress: Progress | None = None
    ask: Ask | None = None


class ProviderPort(Protocol):
    """A provider. Methods that take an operation raise ValidationError when there is none of that name."""

    name: str

    @property
    def starts(self) -> bool:
        """Whether something has to be started before its operations are known."""
        ...

    def operation_names(self) -> tuple[str, ...]: ...

    def check(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> Any:
        """Check a call without making it. Raises ValidationError when it cannot be made."""
        ...

    def check_node(self, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        """Check a call whose parameters are templates, as far as that is known before a run. Raises as `check`."""
        ...

    async def check_key(self, key_id: str | None) -> None:
        """Check that a call would have its key, as far as that is known without making it.

        Raises:
            APIKeyNotFoundError: there is none.
            ValidationError: *key_id* is the key of another service.
            ConfigurationError: the user has not said which server.
        """
        ...

    def accepted(self, operation: str) -> frozenset[str] | None:
        """The parameters of an operation; None when they are not known."""
        ...

    def preview(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> dict[str, Any]:
        """What a call would send, with the key masked. Raises as `check`."""
        ...

    async def offered(self) -> list[OfferedTool]:
        """Its operations as tools of a model."""
        ...

    async def execute(self, operation: str, call: Call) -> Any:
        """The result of an operation, as a JSON value. Raises as `IntegrationPort.execute`."""
        ...

    async def row(self) -> dict[str, Any]:
        """It in a list of providers: name, what it lacks, number of operations, what it is, where it is from."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """One row per operation."""
        ...

    def signature(self, operation: str) -> inspect.Signature:
        """The parameters of an operation, as Python shows them."""
        ...

    def help(self, operation: str) -> str:
        """What an operation does, and its parameters."""
        ...

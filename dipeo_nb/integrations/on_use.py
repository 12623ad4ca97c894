"""The integrations of a session, made when something uses them: most runs call no provider, and reading manifests takes time."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.domain.ports import APIKeyPort, Clock, HTTPPort

if TYPE_CHECKING:
    from dipeo_nb.integrations.providers import IntegratedApiService

Recorded = Callable[[str, Mapping[str, Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]
_OF_REQUEST = ("config", "resource_id", "all", "limit")
"""Options of a call that tell it from another one."""


class IntegrationsOnUse:
    """`IntegrationPort` over an `IntegratedApiService` with all manifests, made on first use.

    Args:
        base: the base directory, whose folder `integrations` may have manifests.
        locks: folder for the locks of tokens.
        trusted: whether the user trusts a file.
        reserved: whether a name has the key of something else.
        variable: the value of a variable of the user's, for the file of MCP servers.
        recorded: makes a call, or replays it: name of the operation, its request, what makes it.
        replaying: whether recordings may answer in place of a provider, now.
    """

    def __init__(
        self, base: Path, locks: Path, *, keys: APIKeyPort, http: HTTPPort, clock: Clock, trusted: Callable[[Path], bool],
        reserved: Callable[[str], bool], recorded: Recorded | None = None,
        replaying: Callable[[], bool] = lambda: False,
        variable: Callable[[str], str | None] = lambda name: None,
    ) -> None:  # fmt: skip
        self._base = base
        self._locks = locks
        self._keys = keys
        self._http = http
        self._clock = clock
        self._trusted = trusted
        self._reserved = reserved
        self._recorded = recorded
        self._replaying = replaying
        self._variable = variable
        self._service: IntegratedApiService | None = None
        self._guard = threading.Lock()

    @property
    def service(self) -> IntegratedApiService:
        """The service itself."""
        with self._guard:
            if self._service is None:
                from dipeo_nb.integrations.attempts import Limits
                from dipeo_nb.integrations.manifest_provider import Surroundings
                from dipeo_nb.integrations.mcp_client import McpClients
                from dipeo_nb.integrations.mcp_servers import McpFile
                from dipeo_nb.integrations.providers import IntegratedApiService
                from dipeo_nb.integrations.registry import Registry

                near = Surroundings(self._keys, self._http, self._clock, Limits(self._clock), self._locks)
                self._service = IntegratedApiService(
                    registry=Registry(self._base, self._trusted, self._reserved),
                    surroundings=lambda: near,
                    mcp=McpClients(McpFile(self._base, self._trusted, self._variable), self._keys),
                )
            return self._service

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.service, name)

    def operations(self) -> Mapping[str, Sequence[str]]:
        return self.service.operations()

    async def check_key(self, provider: str, key_id: str | None = None) -> None:
        """As `IntegratedApiService.check_key`; what is recorded needs no key."""
        if not self._replaying():
            await self.service.check_key(provider, key_id)

    async def execute(self, provider: str, operation: str, **options: Any) -> Any:
        async def call() -> Any:
            return await self.service.execute(provider, operation, **options)

        if self._recorded is None:
            return await call()
        asked = {name: options[name] for name in _OF_REQUEST if options.get(name)}
        return await self._recorded(f"{provider}.{operation}", asked, call)

    def initialize(self) -> None:
        """Nothing: it is made on first use."""

    async def cleanup(self) -> None:
        """Close the providers that were used."""
        if self._service is not None:
            await self._service.cleanup()

"""Clients, one per service, key and server; and which server may have which key."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, normalize_service
from dipeo_nb.domain.ports import APIKeyPort, LLMClient
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.limits import AdaptiveLimit, CircuitBreaker

LIFE_S = 3600.0
"""Seconds that a client is used for; then a new one takes its place (infra-spec §8.2)."""
SIZE = 32
"""Clients kept at most; the one unused for longest goes first."""


class Identity(NamedTuple):
    """What makes a client another one."""

    service: str
    base_url: str | None
    secret: SecretStr | None


@dataclass
class _Entry:
    client: LLMClient
    born: float
    used: float
    leases: int = 0
    retired: bool = False


class ClientManager:
    """Hands out clients; those that expired, were evicted or belong to a closed manager are closed once nobody uses them.

    Args:
        clock: seconds, monotonic.
        life: see `LIFE_S`.
        size: see `SIZE`.
    """

    def __init__(
        self,
        settings: Settings,
        keys: APIKeyPort,
        *,
        clock: Callable[[], float] = time.monotonic,
        life: float = LIFE_S,
        size: int = SIZE,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._life = life
        self._size = size
        self._entries: dict[Identity, _Entry] = {}
        self._guards: dict[tuple[str, str | None], tuple[CircuitBreaker, AdaptiveLimit]] = {}

    @contextlib.asynccontextmanager
    async def client(self, request: LLMRequest) -> AsyncIterator[LLMClient]:
        """The client for *request*, for as long as the block lasts.

        Raises:
            UnsupportedError: there is no such service.
            APIKeyError: the keys cannot be read.
        """
        identity = await self._identity(request)
        for gone in self._make_room(identity):
            await gone.client.cleanup()
        # Nothing is awaited from here to the lease, so that any number of callers get the same client.
        entry = self._entries.get(identity)
        if entry is None:
            entry = self._entries[identity] = self._made(identity)
        entry.leases += 1
        entry.used = self._clock()
        try:
            yield entry.client
        finally:
            entry.leases -= 1
            if entry.retired and not entry.leases:
                await entry.client.cleanup()

    def guards(self, request: LLMRequest) -> tuple[CircuitBreaker, AdaptiveLimit]:
        """What protects the server of *request*: one circuit and one limit for all clients of it."""
        server = request.service, self.base_url(request)
        if server not in self._guards:
            self._guards[server] = CircuitBreaker(request.service, self._clock), AdaptiveLimit()
        return self._guards[server]

    def base_url(self, request: LLMRequest) -> str | None:
        """The server a request goes to; None for the provider's own."""
        if request.base_url:
            return request.base_url
        setting = getattr(providers.client_class(request.service), "base_url_setting", "")
        return getattr(self._settings, setting, None) if setting else None

    async def cleanup(self) -> None:
        """Close all clients. The manager can be used again."""
        entries, self._entries = list(self._entries.values()), {}
        self._guards.clear()
        for entry in entries:
            entry.retired = True
            await entry.client.cleanup()

    def _made(self, identity: Identity) -> _Entry:
        config = AdapterConfig(provider_type=identity.service, api_key=identity.secret, base_url=identity.base_url)
        now = self._clock()
        return _Entry(providers.create(config, self._settings), now, now)

    def _make_room(self, wanted: Identity) -> list[_Entry]:
        """Takes out what is too old or too much; those of it that nobody uses."""
        now = self._clock()
        old = [i for i, e in self._entries.items() if now - e.born >= self._life]
        unused = sorted((i for i in self._entries if i not in old and i != wanted), key=lambda i: self._entries[i].used)
        spare = len(self._entries) - len(old) + (wanted not in self._entries) - self._size
        gone = [self._entries.pop(i) for i in [*old, *unused[: max(0, spare)]]]
        for entry in gone:
            entry.retired = True
        return [entry for entry in gone if not entry.leases]

    async def _identity(self, request: LLMRequest) -> Identity:
        kind = providers.client_class(request.service)
        base_url = self.base_url(request)
        return Identity(request.service, base_url, await self._secret(kind, request, base_url))

    async def _secret(self, kind: Any, request: LLMRequest, base_url: str | None) -> SecretStr | None:
        """The key by its id, else the service's.

        A key goes to the provider itself, to the server that the settings name and to this machine; never to a server that
        only a diagram names.
        """
        if not getattr(kind, "key_variable", request.service) or not self._trusted(kind, base_url):
            return None
        if request.api_key_id and await self._is_of_service(request.api_key_id, kind, request.service):
            with contextlib.suppress(APIKeyNotFoundError):  # ids of other machines; then the service's key
                return await self._keys.get_api_key(request.api_key_id)
        try:
            return await self._keys.get_api_key(request.service)
        except APIKeyNotFoundError:
            if base_url is not None or getattr(kind, "key_optional", True):
                return None
            raise

    async def _is_of_service(self, key_id: str, kind: Any, service: str) -> bool:
        """Whether a key that a diagram names may be asked for: by an id, not by the name of another service.

        Raises:
            APIKeyError: the id is that of a key of another service, which must not see it.
        """
        rows = await self._keys.list_api_keys()
        row = next((row for row in rows if row.get("id") == key_id), None)
        if row is None:
            return not rows or key_id.upper().startswith("APIKEY") or normalize_service(key_id) == service
        owner = str(row.get("service", service))
        theirs = getattr(providers.client_class(owner), "key_variable", "") if owner in providers.services() else ""
        if owner in (service, key_id) or (theirs and theirs == getattr(kind, "key_variable", None)):
            return True
        raise APIKeyError(
            f"The key '{key_id}' is one of {owner}, not of {service}.",
            hint=f"Name a key of {service} in `api_key_id`, or leave it out for the service's own.",
            key_id=key_id,
        )

    def _trusted(self, kind: Any, base_url: str | None) -> bool:
        setting = getattr(kind, "base_url_setting", "")
        if base_url is None or (setting and base_url == getattr(self._settings, setting, None)):
            return True
        try:
            address = urlsplit(base_url)
        except ValueError:
            return False
        host = address.hostname or ""
        if host in ("localhost", "127.0.0.1", "::1"):
            return True
        own = any(host == name or host.endswith(f".{name}") for name in getattr(kind, "hosts", ()))
        return own and address.scheme == "https"

"""Clients, one per service, key and server; and which server may have which key."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import SecretStr

from dipeo_nb.config import (
    DEFAULT,
    FolderSettingWarning,
    Origin,
    Settings,
    is_loopback,
    is_own_server,
    not_approved,
    without_password,
)
from dipeo_nb.config.folder_secret import FolderSecret
from dipeo_nb.domain.chat import LLMRequest, normalize_service
from dipeo_nb.domain.ports import APIKeyPort, LLMClient
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError, LLMError
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.limits import AdaptiveLimit, CircuitBreaker

LIFE_S = 3600.0
"""Seconds that a client is used for; then a new one takes its place."""
SIZE = 32
"""Clients kept at most; the one unused for longest goes first."""


class Identity(NamedTuple):
    """What makes a client another one."""

    service: str
    base_url: str | None
    secret: SecretStr | None
    ambient_headers: bool


class Server(NamedTuple):
    """The server that a request is meant for, and who named it."""

    url: str | None
    """None: the provider's own."""
    standing: Literal["own", "personal", "folder", "diagram"]
    """`own`: of the provider. `personal`: named by the user, or approved. `folder`: named by a file that came with the folder."""
    setting: str
    """The field that may name one."""
    origin: Origin = DEFAULT


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

    async def check(self, request: LLMRequest) -> None:
        """Raises SettingNotApprovedError when the folder names the server, and nobody approved that."""
        with contextlib.suppress(LLMError, APIKeyError):  # said when it is asked
            await self._identity(request)

    def guards(self, request: LLMRequest) -> tuple[CircuitBreaker, AdaptiveLimit]:
        """What protects the server of *request*: one circuit and one limit for all clients of it."""
        server = request.service, self.base_url(request)
        if server not in self._guards:
            self._guards[server] = CircuitBreaker(request.service, self._clock), AdaptiveLimit()
        return self._guards[server]

    def base_url(self, request: LLMRequest) -> str | None:
        """The server a request is meant for; None for the provider's own. Whether it may go there, `client` says."""
        return self._server(request).url

    def _server(self, request: LLMRequest) -> Server:
        kind = providers.client_class(request.service)
        name = getattr(kind, "base_url_setting", "")
        setting = self._settings.peek(name) if name else None
        if request.base_url and (setting is None or not _same(request.base_url, setting)):
            own = is_own_server(request.base_url, getattr(kind, "hosts", ()))
            return Server(request.base_url, "own" if own else "diagram", name)
        url = request.base_url or setting
        if url is None or is_own_server(url, getattr(kind, "hosts", ())):
            return Server(url, "own", name)
        waits = self._settings.waits(name)
        return Server(url, "folder" if waits else "personal", name, self._settings.origin(name))

    async def cleanup(self) -> None:
        """Close all clients. The manager can be used again."""
        entries, self._entries = list(self._entries.values()), {}
        self._guards.clear()
        for entry in entries:
            entry.retired = True
            await entry.client.cleanup()

    def _made(self, identity: Identity) -> _Entry:
        config = AdapterConfig(
            provider_type=identity.service,
            api_key=identity.secret,
            base_url=identity.base_url,
            ambient_headers=identity.ambient_headers,
        )
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
        server = self._server(request)
        secret = await self._secret(kind, request, server)
        ambient = server.standing in ("own", "personal")
        return Identity(request.service, server.url, secret, ambient)

    async def _secret(self, kind: Any, request: LLMRequest, server: Server) -> SecretStr | None:
        """The key that goes to the server; None: none.

        Where the URL and the key come from decides. The user's own key goes to the provider, to the server that the user named
        and to one that the user approved; a key that came with the folder goes to the provider and to the server that the same
        file names. A server of this machine that only the folder names gets no key, as any program of it may listen there; a
        server that only a diagram names never gets one.

        Raises:
            SettingNotApprovedError: the folder names a server elsewhere, which nobody approved. Nothing is sent.
            APIKeyError: the key came with the folder, and the server did not; or there would be a login in place of a key.
        """
        takes_key = bool(getattr(kind, "key_variable", request.service))
        if server.standing == "diagram":
            if getattr(kind, "own_login", False):
                raise _no_login(request, server)
            return None
        key = await self._key(kind, request, server) if takes_key else None
        of_folder = key.origin if isinstance(key, FolderSecret) else None
        match server.standing:
            case "own":
                if of_folder is not None:
                    self._say(f"{request.service}: the key of {of_folder.file}")
                return key
            case "personal":
                same_file = of_folder is not None and server.origin.suggestion and server.origin.file == of_folder.file
                if of_folder is not None and not same_file:
                    raise _stays_in_folder(request, server, of_folder)
                return key
            case _:
                if of_folder is not None and of_folder.file == server.origin.file:
                    self._say(f"{request.service} → {without_password(str(server.url))} with the key of {of_folder.file}")
                    return key
                if is_loopback(str(server.url)) and not getattr(kind, "own_login", False):
                    self._say(
                        f"{request.service} → {without_password(str(server.url))}, as {server.origin.file} says, without a key"
                    )
                    return None
                raise not_approved(server.origin, server.url, self._settings.folder)

    async def _key(self, kind: Any, request: LLMRequest, server: Server) -> SecretStr | None:
        """The key by its id, else the service's."""
        if request.api_key_id and await self._is_of_service(request.api_key_id, kind, request.service):
            with contextlib.suppress(APIKeyNotFoundError):  # ids of other machines; then the service's key
                return await self._keys.get_api_key(request.api_key_id)
        try:
            return await self._keys.get_api_key(request.service)
        except APIKeyNotFoundError:
            if server.url is not None or getattr(kind, "key_optional", True):
                return None
            raise

    def _say(self, what: str) -> None:
        """Say once where words and keys go that the folder directs."""
        if what not in _said:
            _said.add(what)
            warnings.warn(what, FolderSettingWarning, stacklevel=2)

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


_said: set[str] = set()


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _stays_in_folder(request: LLMRequest, server: Server, key: Origin) -> APIKeyError:
    return APIKeyError(
        f"The key of {key.file} came with the folder and does not go to {without_password(str(server.url))}, which {server.origin} names.",
        hint=f"Set {key.variable} in the environment, or store a key of your own: dipeo-nb keys set {request.service}.",
        variable=key.variable,
    )


def _no_login(request: LLMRequest, server: Server) -> APIKeyError:
    return APIKeyError(
        f"{request.service} would use your own login at {without_password(str(server.url))}, a server that only the diagram names.",
        hint="Take `base_url` out of the person, or set ANTHROPIC_BASE_URL to that server.",
    )

"""Tokens of users who agreed (OAuth), as they are stored: renewed under a file lock, for a refresh token may work once only.

Before a refresh token is sent, it is stored that this has begun, and the answer is stored before it is used. So a process that is killed
in between leaves a mark, and no other one sends that token again: providers take a token that is used twice for a stolen one.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dipeo_nb.common.locks import TIMEOUT_S, AsyncFileLock
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.ports import APIKeyPort, Clock
from dipeo_nb.errors import DipeoError, ProviderAuthError

EARLY_S = 60.0
"""Seconds before its end at which a token is not used any more."""
BEGUN, REUSABLE = "begun", "reusable"


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and what renews it. `expires` is a time since 1970; 0: unknown."""

    access: str
    expires: float = 0.0
    refresh: str = ""
    state: str = ""
    """`begun`: its refresh token was sent, and no answer is known; `reusable`: the provider takes a refresh token any number of times."""

    def is_fresh(self, now: float) -> bool:
        """Whether it can be used."""
        return bool(self.access) and (not self.expires or now < self.expires - EARLY_S)


class StoredTokens:
    """The tokens of one provider's users, by the names of their keys.

    Args:
        lasting: seconds that a renewal takes at most.
        again: the error that tells the user to agree again, from a reason.
    """

    def __init__(
        self, keys: APIKeyPort, clock: Clock, locks: Path, *, lasting: float, again: Callable[[str], ProviderAuthError]
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._locks = locks
        self._lasting = lasting
        self._again = again
        self._known: dict[str, Token] = {}
        self._renewing: set[asyncio.Task[Token]] = set()

    async def access(self, name: str, stored: str, issue: Callable[[Token], Awaitable[Token]]) -> str:
        """A token that can be used, renewed by *issue* if need be.

        Args:
            stored: what was found under *name*.

        Raises:
            ProviderAuthError: the user has to agree again.
            IntegrationError: the provider issues none now.
        """
        token = self._known.get(name) or unpacked(stored)
        if not token.is_fresh(self._clock.now()):
            # Who waits may be stopped; what was sent is brought to its end.
            renewing = asyncio.create_task(self._renewed(name, token, issue))
            self._renewing.add(renewing)
            renewing.add_done_callback(self._done)
            token = await asyncio.shield(renewing)
        self._known[name] = token
        return token.access

    def refused(self) -> None:
        """The provider did not accept the tokens that were used last: the next request needs new ones."""
        self._known = {name: replace(token, expires=1.0) for name, token in self._known.items()}

    async def store(self, name: str, token: Token) -> None:
        """Keep the token of a user who has just agreed."""
        await self._keys.set_api_key(name, packed(token))
        self._known[name] = token

    def _done(self, renewing: asyncio.Task[Token]) -> None:
        self._renewing.discard(renewing)
        if not renewing.cancelled():
            renewing.exception()  # who waits for it gets it; if nobody does any more, nobody needs it

    async def _renewed(self, name: str, old: Token, issue: Callable[[Token], Awaitable[Token]]) -> Token:
        async with AsyncFileLock(self._locks / f"oauth-{name}.lock", self._lasting + TIMEOUT_S):
            newest = unpacked((await self._keys.get_api_key(name)).get_secret_value())
            if newest.access != old.access and newest.is_fresh(self._clock.now()):  # another process was first
                return newest
            if not newest.refresh:
                raise self._again("its token has expired")
            if newest.state == BEGUN:
                raise self._again("the renewal of its token was cut off, and what renews it works once")
            if newest.state != REUSABLE:
                await self._keys.set_api_key(name, packed(replace(newest, state=BEGUN)))
            try:
                token = await issue(newest)
            except DipeoError as error:
                if error.facts.get("sent") is not True:  # refused, or never sent: nothing has happened to it
                    spent = error.facts.get("provider_code") == "invalid_grant"
                    await self._keys.set_api_key(name, packed(replace(newest, refresh="") if spent else newest))
                raise
            if not token.refresh or token.refresh == newest.refresh:
                token = replace(token, refresh=newest.refresh, state=REUSABLE)
            await self._keys.set_api_key(name, packed(token))  # before its use: the old one is gone
            return token


def packed(token: Token) -> str:
    """A token as a store of keys takes it: one word."""
    text = json.dumps([token.access, token.expires, token.refresh, token.state])
    return base64.urlsafe_b64encode(text.encode()).decode()


def unpacked(stored: str) -> Token:
    """A token that was stored, also one that a user stored by hand."""
    try:
        access, expires, refresh, *state = json.loads(base64.urlsafe_b64decode(stored))
        token = Token(str(access), float(expires), str(refresh), str(state[0]) if state else "")
    except (ValueError, TypeError):
        return Token(stored)
    redactor.add(*(text for text in (token.access, token.refresh) if text))
    return token

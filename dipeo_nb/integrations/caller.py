"""Sending a request to a provider: limits, authorisation, and repetition by effect.

What must not be sent twice (`once`) is repeated only when it is known not to have been carried out: nothing was sent, the provider
said that it takes no calls, or a search for it (`find`) shows that it is not there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dipeo_nb.common.retry import Backoff
from dipeo_nb.domain.ports import Clock, HTTPPort, HTTPResponse
from dipeo_nb.errors import IntegrationError, ProviderRateLimitError, ProviderUnavailableError, UnknownOutcomeError
from dipeo_nb.integrations import limits
from dipeo_nb.integrations.answers import error_of, value_of
from dipeo_nb.integrations.authorization import Authorizer
from dipeo_nb.integrations.manifest import Effect, Limit, Manifest, Operation, Retry
from dipeo_nb.integrations.requests import Request, other_server

JITTER = 0.1


class Next(Enum):
    """What follows a failed attempt."""

    AGAIN = "again"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed. `status` is the provider's answer, None without one."""

    sent: bool
    status: int | None = None
    refused: bool = False
    """Whether the provider said that it did not carry the request out (too many calls)."""


def after(failure: Failure, effect: Effect, attempt: int, retry: Retry, max_retries: int) -> Next:
    """What follows a failed attempt (from 1): the one rule of repetition."""
    not_done = not failure.sent or failure.refused
    passing = failure.status is None or failure.refused or failure.status in retry.on
    if effect == "once" and not not_done and (failure.status is None or failure.status >= 500 or failure.status == 408):
        return Next.UNKNOWN
    if not passing or (effect == "once" and not not_done):
        return Next.FAIL
    return Next.AGAIN if attempt <= max_retries else Next.FAIL


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request: its value and what came with it."""

    value: Any
    status: int
    headers: Mapping[str, str]
    url: str
    attempts: int


class Limits:
    """The limits of a process: one for each provider, key and operation that has its own. Safe between threads."""

    def __init__(self, clock: Clock, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._usage: dict[tuple[str, ...], limits.Usage] = {}
        self._guard = threading.Lock()

    async def wait(self, name: str, limit: Limit | None, of: tuple[str, ...], longest: float) -> None:
        """Wait until the next call may go.

        Raises:
            ProviderRateLimitError: the provider takes no call for longer than *longest* seconds.
        """
        with self._guard:
            now = self._clock.monotonic()
            usage = self._usage.get(of, limits.Usage())
            if usage.closed_until - now > longest:
                wait = usage.closed_until - now
                raise ProviderRateLimitError(
                    f"{name} was not called: the provider takes no call for {wait:.0f} s.",
                    hint=f"Wait {wait:.0f} s.",
                    retry_after=wait,
                )
            at, self._usage[of] = limits.reserve(limit, usage, now)
        if at > now:
            await self._sleep(at - now)

    def close(self, of: tuple[str, ...], seconds: float) -> None:
        """The provider takes no call for some seconds."""
        with self._guard:
            self._usage[of] = limits.closed(self._usage.get(of, limits.Usage()), self._clock.monotonic() + seconds)

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        await self._sleep(seconds)

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()


class Caller:
    """Sends the requests of one provider."""

    def __init__(
        self, manifest: Manifest, authorizer: Authorizer, http: HTTPPort, shared: Limits, servers: Collection[str]
    ) -> None:
        self._manifest = manifest
        self._authorizer = authorizer
        self._http = http
        self._limits = shared
        self._servers = servers

    async def send(
        self,
        name: str,
        operation: Operation,
        request: Request,
        *,
        key_id: str | None,
        timeout: float | None,
        max_retries: int | None,
    ) -> Answer:
        """Send a request until there is an answer.

        Raises:
            IntegrationError: one of its kinds; `UnknownOutcomeError` when nobody knows whether it was carried out.
        """
        retry = self._manifest.retry
        retries = retry.max if max_retries is None else max_retries
        backoff = Backoff(retry.delay, retry.longest, jitter=JITTER)
        of = (self._manifest.name, key_id or "", name if operation.limit is not None else "")
        attempt, renewed = 0, False
        while True:
            attempt += 1
            await self._limits.wait(name, operation.limit or self._manifest.limit, of, retry.longest)
            ready = await self._authorizer.authorized(request, key_id)
            wait: float | None = None
            response: HTTPResponse | None = None
            try:
                response = await self._once(ready, operation, timeout)
            except IntegrationError as error:
                failed, failure = self._lost(name, error, attempt)
            else:
                wait = limits.wait_asked(response.status, response.headers, self._limits.wall())
                if wait is not None:
                    self._limits.close(of, wait)
                found = error_of(name, self._manifest, operation, response, attempt, wait)
                if found is None:
                    return Answer(value_of(name, operation, response), response.status, response.headers, response.url, attempt)
                if found.status == 401 and self._authorizer.renewable and not renewed:
                    renewed = True
                    await self._authorizer.forget(key_id)
                    attempt -= 1
                    continue
                failed = found
                failure = Failure(True, response.status, isinstance(found, ProviderRateLimitError))
            match after(failure, operation.effective, attempt, retry, retries):
                case Next.UNKNOWN:
                    raise UnknownOutcomeError(
                        f"{failed.message.rstrip('.')}; whether it was carried out is not known, so it was not sent again.",
                        hint="Look whether it is there before you do it again.", **failed.facts,
                    ) from None  # fmt: skip
                case Next.FAIL:
                    raise failed from None
                case Next.AGAIN:
                    if wait is not None and wait > retry.longest:
                        raise failed from None
                    if wait is None:
                        await self._limits.pause(backoff.delay(attempt))

    async def _once(self, request: Request, operation: Operation, timeout: float | None) -> HTTPResponse:
        limit = operation.timeout or self._manifest.timeout
        return await self._http.request(
            request.method,
            request.address,
            headers=dict(request.headers),
            content=request.content,
            timeout=limit if timeout is None else min(timeout, limit) if operation.timeout else timeout,
            max_retries=0,
            allowed=self._allowed,
        )

    def _allowed(self, server: str) -> bool:
        return server in self._servers

    def _lost(self, name: str, error: IntegrationError, attempts: int) -> tuple[IntegrationError, Failure]:
        """An attempt without an answer that can be read."""
        facts = {**error.facts, "attempts": attempts}
        if error.facts.get("cause") in ("not_granted", "private_address"):
            wanted = str(error.facts.get("wanted", "")).removeprefix("net=")
            raise other_server(
                f"{name}: {self._manifest.name} leads to {wanted or 'a server'}, which is none of its servers."
            ) from None
        if "sent" not in error.facts:  # an answer came, and cannot be used
            raise type(error)(f"{name}: {error.message}", hint=error.hint, **facts) from None
        shown = ProviderUnavailableError(f"{name}: {error.message}", hint=error.hint, **facts)
        return shown, Failure(bool(error.facts["sent"]))

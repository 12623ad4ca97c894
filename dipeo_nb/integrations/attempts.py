"""Attempts at a request: what follows a failed one, and when the next may go. For operations of providers and for `api_job`.

What must not be sent twice (`once`) is repeated only when it is known not to have been carried out: nothing was sent, the provider
said that it takes no calls, or a search for it (`find`) shows that it is not there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from dipeo_nb.errors import ProviderRateLimitError
from dipeo_nb.integrations import limits

if TYPE_CHECKING:
    from dipeo_nb.integrations.manifest import Effect, Limit


MOST = 10_000
"""Limits that are kept; above, those that limit nothing any more are forgotten."""


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


def after(failure: Failure, effect: Effect, attempt: int, passing_statuses: Collection[int], max_retries: int) -> Next:
    """What follows a failed attempt (from 1): the one rule of repetition."""
    not_done = not failure.sent or failure.refused
    passing = failure.status is None or failure.refused or failure.status in passing_statuses
    if effect == "once" and not not_done and (failure.status is None or failure.status >= 500 or failure.status == 408):
        return Next.UNKNOWN
    if not passing or (effect == "once" and not not_done):
        return Next.FAIL
    return Next.AGAIN if attempt <= max_retries else Next.FAIL


class Time(Protocol):
    """What tells the time: a `Clock`, or what has these two of it."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


class Limits:
    """The limits of a process: one for each provider, key and operation that has its own. Safe between threads."""

    def __init__(self, clock: Time, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
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
            at, reserved = limits.reserve(limit, usage, now)
            if reserved != usage:
                self._usage[of] = reserved
        if at > now:
            await self._sleep(at - now)

    def close(self, of: tuple[str, ...], seconds: float) -> None:
        """The provider takes no call for some seconds."""
        with self._guard:
            if len(self._usage) > MOST:
                now = self._clock.monotonic()
                self._usage = {
                    key: usage for key, usage in self._usage.items() if usage.level or usage.times or usage.closed_until > now
                }
            self._usage[of] = limits.closed(self._usage.get(of, limits.Usage()), self._clock.monotonic() + seconds)

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        await self._sleep(seconds)

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()

"""Delays between attempts, and what a server asks for in their place (Retry-After)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST_STEPS = 64
"""Exponent at most: an outage of hours has more attempts than a float has room for."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays, capped, with jitter.

    Args:
        initial: seconds after the first attempt.
        maximum: seconds at most, also of what a server asks for.
        base: factor from one delay to the next.
        jitter: share by which a delay varies in both directions, from 0 to 1.
    """

    initial: float
    maximum: float
    base: float = 2.0
    jitter: float = 0.0

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds to wait after a failed attempt.

        Args:
            attempt: its number, from 1.
            retry_after: seconds that the server asks for; they replace the exponential delay, and nothing waits less.
        """
        if retry_after is not None:
            return min(retry_after * (1 + random.uniform(0, self.jitter)), self.maximum)
        delay = min(self.initial * self.base ** min(attempt - 1, _MOST_STEPS), self.maximum)
        return delay * (1 + random.uniform(-self.jitter, self.jitter))


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3: a number or a date); None when it has neither.

    Args:
        now: default: the current time.
    """
    text = (value or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:  # `-0000`: in UTC, from an unknown place (RFC 5322 §3.3)
        until = until.replace(tzinfo=UTC)
    return max((until - (now or datetime.now(UTC))).total_seconds(), 0.0)

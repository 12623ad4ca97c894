"""Delays between attempts, and what a server asks for in their place: `Retry-After`, and headers like it."""

from __future__ import annotations

import math
import random
import re
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


_EPOCH = 1_000_000_000
"""Numbers from here on are times: seconds since 1970, or milliseconds (OpenRouter)."""


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that the value of a `Retry-After` header asks to wait, in either of its forms (RFC 9110, section 10.2.3: a number of
    seconds or a date) or as `seconds_until_reset` takes it; never negative. None: it asks for nothing that can be understood."""
    if not value:
        return None
    now = now or datetime.now(UTC)
    if (wait := seconds_until_reset(value, now)) is not None:
        return wait
    try:
        return seconds_left(parsedate_to_datetime(value), now)
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_until_reset(value: str, now: datetime) -> float | None:
    """Seconds until a reset, given as a duration (`1h2m3.5s`, `20ms`, a plain number of seconds) or as a time since 1970."""
    wait = _duration(value)
    if wait is not None and wait >= _EPOCH:
        wait = max(0.0, wait / (1000 if wait >= 1000 * _EPOCH else 1) - now.timestamp())
    return wait


def seconds_left(then: datetime, now: datetime) -> float:
    """Seconds until a time, 0 when it has passed; a time without a zone is in UTC."""
    return max(0.0, ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds())


def number_of_seconds(value: str | None, divisor: float = 1) -> float | None:
    """A plain number as seconds, after division; None for anything else, and for NaN and infinities."""
    try:
        seconds = float(value or "") / divisor
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _duration(value: str) -> float | None:
    if (seconds := number_of_seconds(value)) is not None:
        return seconds
    parts = re.findall(r"(?<!\d)(\d++(?:\.\d++)?)(ms|[hms])", value)
    if not parts or "".join(n + u for n, u in parts) != value.strip():
        return None
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[u] for n, u in parts)

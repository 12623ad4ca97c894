"""Rate limits as pure functions of the time: when the next call may go, and what the limit remembers then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dipeo_nb.common.retry import number_of_seconds, retry_after

if TYPE_CHECKING:
    from dipeo_nb.integrations.manifest import Limit


@dataclass(frozen=True, slots=True)
class Usage:
    """What a limit remembers of the calls so far. Times are seconds of a monotonic clock."""

    level: float = 0.0
    """token_bucket and leaky_bucket: calls in the bucket that have not run out of it; fixed_window: calls in the window."""
    since: float = 0.0
    """When the level was worked out; fixed_window: the beginning of the window."""
    times: tuple[float, ...] = ()
    """sliding_window: the calls of the last window."""
    closed_until: float = 0.0
    """The server takes no call before."""


def reserve(limit: Limit | None, usage: Usage, now: float) -> tuple[float, Usage]:
    """When the next call may go (a time, `now` at the earliest), and the usage with it.

    A call is reserved whether or not it is made, so callers that wait keep their order.
    """
    at = max(now, usage.closed_until)
    if limit is None or limit.algorithm == "none":
        return at, usage
    if limit.algorithm in ("token_bucket", "leaky_bucket"):
        return _bucket(limit, usage, at)
    return (_sliding if limit.algorithm == "sliding_window" else _fixed)(limit, usage, at)


def _bucket(limit: Limit, usage: Usage, at: float) -> tuple[float, Usage]:
    at = max(at, usage.since)  # behind those that wait
    level = max(0.0, usage.level - (at - usage.since) * limit.per_second) if usage.level else 0.0
    over = level + 1 - limit.capacity
    if over > 1e-9:
        at += over / limit.per_second
        level -= over
    return at, replace(usage, level=level + 1, since=at)


def _sliding(limit: Limit, usage: Usage, at: float) -> tuple[float, Usage]:
    times = usage.times[-limit.capacity :]
    if len(times) == limit.capacity:
        at = max(at, times[0] + limit.window)
    at = max(at, times[-1]) if times else at
    return at, replace(usage, times=(*times, at)[-limit.capacity :])


def _fixed(limit: Limit, usage: Usage, at: float) -> tuple[float, Usage]:
    window = max(math.floor(at / limit.window) * limit.window, usage.since)
    used = usage.level if window == usage.since else 0.0
    if used >= limit.capacity:
        window, used = window + limit.window, 0.0
    return max(at, window), replace(usage, level=used + 1, since=window)


def closed(usage: Usage, until: float) -> Usage:
    """The usage after the server has said that it takes no call before a time."""
    return replace(usage, closed_until=max(usage.closed_until, until))


def wait_asked(status: int, headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds for which a server takes no further call; None when it says nothing of that kind.

    Args:
        wall: seconds since 1970.
    """
    if (status in (403, 429) or status >= 500) and (asked := retry_after(headers.get("retry-after"))) is not None:
        return asked
    if headers.get("x-ratelimit-remaining") != "0" and headers.get("ratelimit-remaining") != "0":
        return None
    reset = number_of_seconds(headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset"))
    if reset is None:
        return None
    return max(0.0, reset - wall) if reset > 1_000_000_000 else reset  # a time, or a duration

"""When streamed text is committed: for all runs on an event loop at one moment, so that a store can write it in one transaction.

With many runs the moments are further apart: committing takes a run some time, and there must be time for the texts themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

PER_RUN_S = 0.0005
"""Seconds between two moments at least, for each run with text to commit."""


class DeltaTicks:
    """Of one event loop, for runs whose text is committed that often.

    Args:
        interval: seconds between two moments, with few runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self._loop, self._interval = loop, interval
        self._due: dict[Callable[[], None], None] = {}
        self._latest = 0
        """Runs at the latest moment."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, commit: Callable[[], None]) -> None:
        """Have *commit* called at the next moment; adding it again until then changes nothing."""
        self._due[commit] = None
        if self._timer is None:
            self._timer = self._loop.call_later(max(self._interval, self._latest * PER_RUN_S), self._tick)

    def discard(self, commit: Callable[[], None]) -> None:
        self._due.pop(commit, None)

    def _tick(self) -> None:
        due, self._due, self._timer = self._due, {}, None
        self._latest = len(due)
        for commit in due:
            commit()


_TICKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, DeltaTicks]] = WeakKeyDictionary()


def ticks_of(interval: float) -> DeltaTicks:
    """The ticks of the running event loop for an interval."""
    loop = asyncio.get_running_loop()
    ticks = _TICKS.setdefault(loop, {})
    if interval not in ticks:
        ticks[interval] = DeltaTicks(loop, interval)
    return ticks[interval]

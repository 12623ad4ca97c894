"""When streamed text is committed: for all runs on an event loop at one moment, so that a store can write it in one transaction.

With many runs the moments are further apart: committing takes a run some time, and there must be time for the texts themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

PER_RUN_S = 0.001
"""Seconds between two moments at least, for each run with text to commit."""


class DeltaTicks:
    """Of one event loop, for runs whose text is committed that often.

    Args:
        interval: seconds between two moments, with few runs.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due: dict[Callable[[], None], None] = {}
        self._latest = 0
        """Runs at the latest moment."""
        self._awaited = False
        """Whether a moment is to come. (A timer would hold the loop.)"""

    def add(self, commit: Callable[[], None]) -> None:
        """Have *commit* called at the next moment; adding it again until then changes nothing."""
        self._due[commit] = None
        if not self._awaited:
            self._awaited = True
            pause = max(self._interval, self._latest * PER_RUN_S)
            asyncio.get_running_loop().call_later(pause, self._tick)

    def discard(self, commit: Callable[[], None]) -> None:
        self._due.pop(commit, None)

    def _tick(self) -> None:
        due, self._due, self._awaited = self._due, {}, False
        self._latest = len(due)
        for commit in due:
            commit()


_TICKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, DeltaTicks]] = WeakKeyDictionary()


def ticks_of(interval: float) -> DeltaTicks:
    """The ticks of the running event loop for an interval."""
    ticks = _TICKS.setdefault(asyncio.get_running_loop(), {})
    if interval not in ticks:
        ticks[interval] = DeltaTicks(interval)
    return ticks[interval]

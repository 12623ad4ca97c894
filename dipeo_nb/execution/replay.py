"""A recorded run once more: the same events in the same order, as fast as wanted, without a single call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import RunAbortedError
from dipeo_nb.execution.fold import RunState, interrupted

COMMIT_S = 1 / 30
"""Seconds of the recording, at speed 1, that go out together at most; more often no view draws."""


class Replay:
    """Goes through a log as if it were happening; stands where an `Execution` stands for whoever follows a run.

    Args:
        services: a store and a bus of its own, which the events go to; nothing else is used.
        events: the whole log of a run.
        speed: 1 takes the time it took, 10 a tenth of it; infinity takes none.
        was_cut_off: the run's process ended before the run did.
    """

    def __init__(
        self, services: Services, events: Sequence[Event], *, speed: float = 1.0, was_cut_off: bool = False
    ) -> None:
        self.run_id = events[0].run_id
        self.state = RunState.fresh(self.run_id, str(events[0].payload.get("diagram", "")), {})
        self.error: RunAbortedError | None = None
        self.tail: list[Event] = []
        self._services = services
        self.events = list(events)
        """The whole log."""
        self._speed = speed
        self._was_cut_off = was_cut_off
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self, reason: str = "stopped by the user") -> None:
        """End it where it is. Any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def run(self) -> RunState:
        """Go through it to the end."""
        self._loop = asyncio.get_running_loop()
        began, first = self._loop.time(), self.events[0].occurred_at
        at = 0
        while at < len(self.events) and not self._stopped.is_set():
            elapsed = (self._loop.time() - began) * self._speed if self._speed != float("inf") else float("inf")
            due = at
            while due < len(self.events) and self.events[due].occurred_at - first <= elapsed:
                due += 1
            if due > at:
                await self._tell(self.events[at:due])
                at = due
                continue
            pause = (self.events[at].occurred_at - first - elapsed) / self._speed
            try:
                async with asyncio.timeout(max(pause, COMMIT_S)):
                    await self._stopped.wait()
            except TimeoutError:
                continue
        if at < len(self.events):
            self.error = RunAbortedError("The replay was stopped.", hint="Replay the run again.")
        elif self._was_cut_off:
            interrupted(self.state)
        return self.state

    async def _tell(self, events: Sequence[Event]) -> None:
        await self._services.store.append(events)
        for event in events:
            self.state.apply(event)
        await self._services.bus.publish_batch(events)

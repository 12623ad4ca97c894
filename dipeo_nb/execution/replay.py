"""A recorded run once more: the same events in the same order, as fast as wanted, without a single call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import RunAbortedError, UserError
from dipeo_nb.execution.run_state import RunState, interrupted

COMMIT_S = 1 / 30
"""Seconds of the recording, at speed 1, that go out together at most; more often no view draws."""


MAX_PAUSE_S = 10.0
"""Seconds that a replay waits between two events, at most, unless another limit is given."""


def checked_pace(speed: float, max_pause: float) -> tuple[float, float]:
    """The pace of a replay.

    Raises:
        UserError: one of them is not such a number.
    """
    if not (_is_number(speed) and speed > 0):
        raise UserError(
            f"{speed!r} is not a speed.", hint="Use a number above 0: 1 for the time it took, 10 for a tenth of it."
        )
    if not (_is_number(max_pause) and max_pause >= 0):
        raise UserError(
            f"{max_pause!r} is not a max_pause.", hint="Use the seconds that a pause takes at most: 10, 0, float('inf')."
        )
    return float(speed), float(max_pause)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class Replay:
    """Goes through a log as if it were happening; stands where an `Execution` stands for those that follow a run.

    Args:
        services: a store and a bus of its own, which the events go to; nothing else is used.
        events: the whole log of a run.
        speed: 1 takes the time it took, 10 a tenth of it; infinity takes none.
        max_pause: seconds between two events at most, whatever the speed: a run may have waited for an answer overnight, or been
            resumed after a week.
        was_cut_off: the run's process ended before the run did.
    """

    def __init__(
        self,
        services: Services,
        events: Sequence[Event],
        *,
        speed: float = 1.0,
        max_pause: float = MAX_PAUSE_S,
        was_cut_off: bool = False,
    ) -> None:
        self.run_id: str = events[0].run_id
        self.state: RunState = RunState.fresh(self.run_id, str(events[0].started.get("diagram", "")), {})
        self.error: RunAbortedError | None = None
        self.tail: list[Event] = []
        self._services = services
        self.events: list[Event] = list(events)
        """The whole log."""
        self._speed, self._max_pause = checked_pace(speed, max_pause)
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
        began, times = self._loop.time(), self._times()
        at = 0
        while at < len(self.events) and not self._stopped.is_set():
            elapsed = self._loop.time() - began
            due = at
            while due < len(self.events) and times[due] <= elapsed:
                due += 1
                resumed = due < len(self.events) and self.events[due].type is EventType.EXECUTION_STARTED
                if resumed or self.events[due - 1].type in FINAL_EVENTS:
                    break  # a store takes what follows an end by itself
            if due > at:
                await self._tell(self.events[at:due])
                at = due
                continue
            try:
                async with asyncio.timeout(max(times[at] - elapsed, COMMIT_S)):
                    await self._stopped.wait()
            except TimeoutError:
                continue
        if at < len(self.events):
            self.error = RunAbortedError("The replay was stopped.", hint="Replay the run again.")
        elif self._was_cut_off:
            interrupted(self.state)
        return self.state

    def _times(self) -> list[float]:
        """When each event is due, in seconds from the beginning. Clocks of old records may have been set back in the middle."""
        times = [0.0]
        for before, event in pairwise(self.events):
            noted = EventType.RUN_NOTE in (event.type, before.type)  # by somebody who looked at it, perhaps days later
            pause = 0.0 if noted else max(0.0, event.occurred_at - before.occurred_at) / self._speed
            times.append(times[-1] + min(pause, self._max_pause))
        return times

    async def _tell(self, events: Sequence[Event]) -> None:
        if events[0].seq > 1 and events[0].type is EventType.EXECUTION_STARTED:
            await self._services.store.claim(self.run_id, owned=True)
        await self._services.store.append(events)
        for event in events:
            self.state.apply(event)
        await self._services.bus.publish_batch(events)

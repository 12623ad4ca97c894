"""Publishes the events of one run once they are stored: in order, and without a failure of theirs becoming one of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from dipeo_nb.common import injection
from dipeo_nb.common.aio import DONE, begun
from dipeo_nb.common.open_on_use import service_of
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventBus

HURRIED_S = 2.0
"""Seconds that a publication waits for those who watch once the run was stopped or met its time limit."""
_LOG = logger(__name__)


class Publisher:
    """On the loop's thread; one publication at a time."""

    def __init__(self, run_id: str, bus: EventBus) -> None:
        self._run_id, self._bus = run_id, bus
        self.at_once: bool = False
        """Whether nobody had to be waited for the last time."""
        self._lost = 0
        self._limit: asyncio.Timeout | None = None
        self._hurried = False

    def opened(self) -> None:
        """The bus is open: from here on there is no detour by what would open it."""
        self._bus = service_of(self._bus)

    def publish(self, events: list[Event]) -> Awaitable[None]:
        """Publish events; return what is left to be awaited of that."""
        self.at_once = False
        try:
            publishing = self._bus.publish_batch(events)
            if publishing is not DONE and (rest := begun(publishing)) is not DONE:
                return self._published(events, rest)
            self.at_once = True
        except Exception as error:  # noqa: BLE001 - a run does not fail for those who watch it
            self._failed(events, error)
        if injection.hook is not None:
            injection.reach("run.published")
        return DONE

    async def _published(self, events: list[Event], rest: Awaitable[None]) -> None:
        """Wait until events are published that subscribers do not take at once."""
        try:
            async with asyncio.timeout(HURRIED_S if self._hurried else None) as self._limit:
                await rest
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(events, error)
        finally:
            self._limit = None
        injection.reach("run.published")

    def _failed(self, events: list[Event], error: Exception) -> None:
        """They are stored, so a watcher can catch up from there."""
        if not self._lost:
            slow = f"a subscriber of its events took none for {HURRIED_S:g} s and is not waited for, as the run ends"
            _LOG.warning("Run %s: %s", self._run_id, error if str(error) else slow)
        self._lost += len(events)

    def hurry(self) -> None:
        """The run ends before its time: subscribers that take no events hold it up no longer than a moment."""
        if not self._hurried:
            self._hurried = True
            if self._limit is not None:
                self._limit.reschedule(asyncio.get_running_loop().time() + HURRIED_S)

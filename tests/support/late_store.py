"""A run store with a fault: it confirms events before they are written."""

from __future__ import annotations

from collections.abc import Sequence

from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.execution.state.sqlite import SqliteRunStore


class LateStore(SqliteRunStore):
    """Writes events with the next ones only, so that it has lost them when the process is killed."""

    _held: Sequence[Event] = ()

    async def append(self, events: Sequence[Event]) -> None:
        if events[-1].type in FINAL_EVENTS:
            ready, self._held = [*self._held, *events], ()
        else:
            ready, self._held = self._held, events
        await super().append(ready)

"""For how long a run was at work, read from its events."""

from __future__ import annotations

import time

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event


class LiveClock:
    """Seconds for which a run was at work: the sum over its live stretches, each from its beginning to its last event.

    The time in which it lay interrupted does not count, and where the wall clock was set back, time stands still until it has caught up
    within a stretch. `recording.js` has the same rule.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.at: float | None = None
        """The latest moment of the stretch, in seconds since the epoch; None before the first event."""

    def take(self, event: Event) -> None:
        """Take the next event. A note about a run, which may come long after its end, takes no time."""
        if event.type is EventType.RUN_NOTE:
            return
        resumed = event.type is EventType.EXECUTION_STARTED and "resumed" in event.payload
        if self.at is None or resumed:
            self.at = event.occurred_at
        elif event.occurred_at > self.at:
            self.seconds += event.occurred_at - self.at
            self.at = event.occurred_at

    def now(self, live: bool) -> float:
        """The seconds up to the last event; of a run that is live, up to now."""
        if self.at is None or not live:
            return self.seconds
        return self.seconds + max(0.0, time.time() - self.at)

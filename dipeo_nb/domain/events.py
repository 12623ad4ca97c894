"""Events: the record of a run; everything that is shown of it is a fold over them.

An `Event` is a named tuple because a run makes hundreds of thousands of them. `seq` counts from 1 within a run, without
gap. `payload` holds plain values only (`common.values`); its shape depends on the type, see `domain.payloads`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.errors import EventBusError

if TYPE_CHECKING:
    from dipeo_nb.domain.payloads import ExecutionStarted

EVENT_VERSION = "2.0.0"


class Event(NamedTuple):
    """One thing that happened in one run."""

    seq: int
    type: EventType
    run_id: str
    occurred_at: float
    """Seconds since the epoch, UTC."""
    node_id: str | None
    payload: Mapping[str, Any]

    __repr__ = bounded_repr

    @property
    def priority(self) -> EventPriority:
        return _PRIORITY.get(self.type, EventPriority.NORMAL)

    @property
    def started(self) -> ExecutionStarted:
        """The payload of the first event of a run, or of one that resumes it."""
        return cast("ExecutionStarted", self.payload)

    @property
    def output_kind(self) -> str | None:
        """What a `node_output` event is about: `text`, `usage`, `run` …; None for the other types."""
        return self.payload.get("kind") if self.type is EventType.NODE_OUTPUT else None

    def to_wire(self) -> dict[str, Any]:
        """The form clients receive: type, execution_id, node_id, data, timestamp (ISO 8601, UTC), metadata."""
        return {
            "type": str(self.type),
            "execution_id": self.run_id,
            "node_id": self.node_id,
            "data": self.payload,
            "timestamp": datetime.fromtimestamp(self.occurred_at, UTC).isoformat(),
            "metadata": {"seq": self.seq, "version": EVENT_VERSION, "priority": str(self.priority)},
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Event:
        """The event that a client received; times are exact to the microsecond.

        Raises:
            EventBusError: `invalid`: a field is missing or of another kind, or a newer version of dipeo_nb wrote it.
        """
        try:
            meta = wire["metadata"]
            version = str(meta["version"])
            if int(version.partition(".")[0]) > int(EVENT_VERSION.partition(".")[0]):
                raise EventBusError(
                    f"An event of version {version} cannot be read here; this is {EVENT_VERSION}.",
                    hint="Upgrade dipeo-nb.",
                    cause="invalid",
                )
            at = datetime.fromisoformat(wire["timestamp"])
            node_id = wire.get("node_id")
            if at.tzinfo is None or not isinstance(node_id, str | None):
                raise ValueError("a time without a zone, or a node that is not text")
            return cls(
                int(meta["seq"]),
                EventType(wire["type"]),
                str(wire["execution_id"]),
                at.timestamp(),
                node_id,
                dict(wire["data"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EventBusError(
                f"This is not an event: {error!r}.", hint="Pass what `Event.to_wire` returned.", cause="invalid"
            ) from error


_PRIORITY = {
    EventType.EXECUTION_ERROR: EventPriority.CRITICAL,
    EventType.EXECUTION_COMPLETED: EventPriority.HIGH,
    EventType.EXECUTION_STARTED: EventPriority.HIGH,
    EventType.NODE_ERROR: EventPriority.HIGH,
    EventType.INTERACTIVE_PROMPT: EventPriority.HIGH,
    EventType.NODE_OUTPUT: EventPriority.LOW,
    EventType.NODE_WAITING: EventPriority.LOW,
    EventType.RUN_NOTE: EventPriority.LOW,
    EventType.EXECUTION_LOG: EventPriority.LOW,
}

FINAL_EVENTS = frozenset({EventType.EXECUTION_COMPLETED, EventType.EXECUTION_ERROR})
"""The last event of a run is one of these, but for notes; a run without one was interrupted or is still running."""


SEARCHED = (EventType.NODE_COMPLETED, EventType.INTERACTIVE_RESPONSE, EventType.RUN_NOTE, EventType.EXECUTION_STARTED)
"""Events whose texts are looked through for runs that have a text."""


def notes_only(events: Iterable[Event]) -> bool:
    """Whether these events are remarks on a run, which may be stored after its end."""
    return all(event.type is EventType.RUN_NOTE for event in events)


class RunSummary(NamedTuple):
    """One row of the run history."""

    run_id: str
    diagram: str
    status: str
    """A `Status` value; `interrupted` when the process of the run is gone."""
    started_at: float
    ended_at: float | None
    events: int
    parent_run_id: str | None = None

    __repr__ = bounded_repr

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end; None while there is no end. (The clock of an old run may have been set back meanwhile.)"""
        return None if self.ended_at is None else max(0.0, self.ended_at - self.started_at)

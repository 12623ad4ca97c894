"""The log of one run in memory, most of it as bytes: an event is made of several objects, and Python's garbage collector would go
through those of a long run again and again."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any, overload

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.blobs import LIMIT, SharedValues

_TYPES = tuple(EventType)
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}
_FORM = 2
"""Version of `marshal` that takes the least time."""


class PackedLog(Sequence[Event]):
    """Events of one run. Equal big values in their payloads become one object."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._events: list[bytes | Event] = []
        self._values = SharedValues()
        self.last: Event
        """The latest one."""
        self.latest_of_run: Event
        """The latest one that is not a note."""

    def extend(self, events: Sequence[Event]) -> None:
        """Append events."""
        self.last = events[-1]
        for event in reversed(events):
            if event[1] is not EventType.RUN_NOTE:
                self.latest_of_run = event
                break
        for event in events:
            seq, kind, _, at, node_id, payload = event
            form: Any = seq, _NUMBERS[kind], at, node_id, payload
            try:
                packed = marshal.dumps(form, _FORM)
            except ValueError:  # some object that is not a plain value
                packed = None
            if packed is not None and len(packed) <= LIMIT:
                self._events.append(packed)
            else:
                self._events.append(event._replace(payload=self._values.shared(payload)))

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if isinstance(index, slice):
            return [self._unpacked(event) for event in self._events[index]]
        return self._unpacked(self._events[index])

    def _unpacked(self, event: bytes | Event) -> Event:
        if not isinstance(event, bytes):
            return event
        seq, number, at, node_id, payload = marshal.loads(event)
        return Event(seq, _TYPES[number], self._run_id, at, node_id, payload)

"""The log of one run in memory, most of it as bytes: an event is made of several objects, and Python's garbage collector would go
through those of a long run again and again."""

from __future__ import annotations

import marshal
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.blobs import LIMIT, SharedValues

_TYPES = tuple(EventType)
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}
_NOTE = EventType.RUN_NOTE
_dumps: Callable[[Any, int], bytes] = marshal.dumps
TOGETHER = 16
"""Events that are packed at a time."""
_FORM = 4
"""Version of `marshal`: what stands in several of the events stands once, which takes the least time, too."""


class PackedLog(Sequence[Event]):
    """Events of one run, the first with number 1. Equal big values in their payloads become one object."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._packs: list[bytes | Event] = []
        """Events that came after each other; or one alone, whose payload is large or holds some object that is not a plain value."""
        self._starts: array[int] = array("q")
        """Of each pack, the place of its first event."""
        self.stored = 0
        """Events."""
        self._packed = 0
        """Those in packs."""
        self._tail: list[Event] = []
        """The latest ones, as they came."""
        self._values = SharedValues()
        self.first: Event
        self.latest_of_run: Event
        """The latest one that is not a note."""

    def extend(self, events: Sequence[Event]) -> None:
        """Append events."""
        tail = self._tail
        if not self.stored:
            self.first = events[0]
        tail += events
        last = events[-1]
        self.stored = last[0]
        if last[1] is not _NOTE:
            self.latest_of_run = last
        else:
            for event in reversed(events):
                if event[1] is not _NOTE:
                    self.latest_of_run = event
                    break
        if len(tail) >= TOGETHER:
            self._tail = []
            self._pack(tail)

    def _pack(self, events: Sequence[Event]) -> None:
        try:
            packed = _dumps([(_NUMBERS[event[1]], *event[3:]) for event in events], _FORM)
        except ValueError:
            packed = None
        if packed is not None and len(packed) <= LIMIT:
            self._starts.append(self._packed)
            self._packs.append(packed)
            self._packed += len(events)
        elif (half := len(events) // 2) > 0:
            self._pack(events[:half])
            self._pack(events[half:])
        else:
            self._starts.append(self._packed)
            self._packs.append(events[0]._replace(payload=self._values.shared(events[0].payload)))
            self._packed += 1

    def __len__(self) -> int:
        return self.stored

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if not isinstance(index, slice):
            place = range(len(self))[index]
            return next(self._between(place, place + 1))
        start, stop, step = index.indices(len(self))
        return list(self._between(start, stop))[::step] if step > 0 else list(self)[index]

    def __iter__(self) -> Iterator[Event]:
        return self._between(0, len(self))

    def _between(self, start: int, stop: int) -> Iterator[Event]:
        tail, packed = self._tail, self._packed  # of this moment: others may be appended meanwhile
        pack = bisect_right(self._starts, start) - 1
        while start < min(stop, packed):
            place = self._starts[pack]
            for event in self._unpacked(self._packs[pack], place + 1)[start - place : stop - place]:
                yield event
                start += 1
            pack += 1
        yield from tail[start - packed : max(stop - packed, 0)]

    def _unpacked(self, pack: bytes | Event, seq: int) -> list[Event]:
        if not isinstance(pack, bytes):
            return [pack]
        run_id = self._run_id
        return [
            Event(n, _TYPES[number], run_id, at, node_id, payload)
            for n, (number, at, node_id, payload) in enumerate(marshal.loads(pack), seq)
        ]

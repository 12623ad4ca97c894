"""The log of one run in memory, most of it as bytes: events are made of several objects each, and Python's garbage collector would
go through those of a long run again and again."""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence
from typing import overload

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event

PACK = 64
"""Events that are packed together."""
_LARGE = 1024 * PACK
"""Bytes beyond which they are not: big values are shared with other events, and are few objects."""
_TYPES = tuple(EventType)
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}


class PackedLog(Sequence[Event]):
    """Events of one run, numbered from 1 without gap. The latest ones are kept as they are."""

    def __init__(self, first: Event) -> None:
        self._first = first
        self._packs: list[bytes | list[Event]] = []
        self._latest = [first]

    def append(self, event: Event) -> None:
        latest = self._latest
        latest.append(event)
        if len(latest) >= 2 * PACK:
            self._packs.append(_packed(latest[:PACK]))
            del latest[:PACK]

    def __len__(self) -> int:
        return PACK * len(self._packs) + len(self._latest)

    def __iter__(self) -> Iterator[Event]:
        for pack in tuple(self._packs):
            yield from self._unpacked(pack)
        yield from self._latest

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if not isinstance(index, slice):
            if index == -1:
                return self._latest[-1]
            return self._first if index == 0 else self[range(len(self))[index] :][0]
        begin, end, step = index.indices(len(self))
        if step != 1:
            return list(self)[index]
        first = min(begin // PACK, len(self._packs))
        found: list[Event] = []
        for pack in self._packs[first : -(-end // PACK)]:
            found += self._unpacked(pack)
        if end > PACK * len(self._packs):
            found += self._latest
        return found[begin - PACK * first : max(end - PACK * first, 0)]

    def _unpacked(self, pack: bytes | list[Event]) -> list[Event]:
        if isinstance(pack, list):
            return pack
        run_id = self._first.run_id
        return [Event(seq, _TYPES[kind], run_id, at, node, payload) for seq, kind, at, node, payload in marshal.loads(pack)]


def _packed(events: list[Event]) -> bytes | list[Event]:
    """Events as bytes, where they hold nothing but plain values and are not large."""
    try:
        packed = marshal.dumps([(seq, _NUMBERS[kind], at, node, payload) for seq, kind, _, at, node, payload in events])
    except ValueError:  # some other object
        return events
    return packed if len(packed) <= _LARGE else events

"""Big values of a run are kept once: events refer to them by the hash of their JSON.

Whatever of a payload takes more than `LIMIT` characters as JSON (a text, a list, a mapping) is a blob of the run. In its place the
recorded payload has `{"$blob": "<sha256>"}`; a blob may refer to others in the same way. Such references stand only in payloads that
are recorded together with the names of their blobs; a mapping of theirs that looks like a reference is written
`{"$blob": [value]}`. Stores write the blobs of an event in the transaction of the event and resolve references when they read, so
nobody else sees one, but for readers of `lines`.

Larger texts are stored in pieces: `{"$blob": ["pieces", [hash, …]]}` is a blob whose pieces, put together, are its JSON. Where a piece
ends is for the characters there to say, so a large value that changes a little shares nearly all pieces with what it was before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple, cast

from dipeo_nb.common import stepwise_json
from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError

LIMIT = 65_536
"""Characters that a value takes as JSON, at most, to be kept within its event."""
PIECE = 16_384
"""Characters of a piece, about."""
_CUT = re.compile(
    "["
    + "][".join("".join(re.escape(chr(c)) for c in range(32, 127) if c % n == r) for n, r in ((7, 2), (6, 1), (7, 4), (6, 3)))
    + "]"
)
"""Four characters that a piece ends with, as rare as one in a few thousand."""
_REFERENCE = "$blob"
_PIECES = "pieces"
_REFERENCE_SIZE = 80
_NUMBER_SIZE = 8
"""Characters that a number counts for; near enough to tell what is big."""


class Encoded(NamedTuple):
    """A payload as JSON, and its big values."""

    text: str
    blobs: Mapping[str, str]
    """Hash → JSON of the value, or a piece of it; also those that are within others."""
    pieces: Collection[str] = ()
    """Those of them that are pieces."""


def encoded(payload: Mapping[str, Any]) -> Encoded:
    """A payload as it is recorded.

    Raises:
        StorageError: a value has no encoding.
    """
    text = encode(payload)
    return Encoded(text, {}) if len(text) <= LIMIT else separated(text)


def separated(text: str) -> Encoded:
    """A payload of which all is JSON already, without its big values."""
    blobs: dict[str, str] = {}
    extraction = _Extraction(blobs)
    try:
        # What was encoded is looked through and not what was given: that is JSON, whatever the values were.
        small, _ = extraction.mapping(stepwise_json.loads(text) if len(text) > stepwise_json.LARGE else json.loads(text))
    except RecursionError:
        return Encoded(text, {})
    return Encoded(_dumps(small), blobs, extraction.pieces) if blobs else Encoded(text, {})


class _Extraction:
    """Moves big values into blobs, the innermost first. Every method gives what is left and its size as JSON, nearly."""

    def __init__(self, blobs: dict[str, str]) -> None:
        self._blobs = blobs
        self.pieces: set[str] = set()

    def value(self, value: Any) -> tuple[Any, int]:
        kind = type(value)
        if kind is str:
            size = len(value) + 2
        elif kind is list:
            value, size = self.sequence(value)
        elif kind is dict:
            value, size = self.mapping(value)
        else:
            return value, _NUMBER_SIZE
        return (self._moved(value), _REFERENCE_SIZE) if size > LIMIT else (value, size)

    def sequence(self, items: list[Any]) -> tuple[list[Any], int]:
        kept: list[Any] = []
        total = 2
        for item in items:
            left, size = self.value(item)
            kept.append(left)
            total += size + 1
        return kept, total

    def mapping(self, items: dict[str, Any]) -> tuple[dict[str, Any], int]:
        kept: dict[str, Any] = {}
        total = 2
        for name, item in items.items():
            kept[name], size = self.value(item)
            total += len(name) + size + 4
        return ({_REFERENCE: [kept[_REFERENCE]]}, total + 2) if kept.keys() == {_REFERENCE} else (kept, total)

    def _moved(self, value: Any) -> dict[str, str]:
        text = _dumps(value)
        if len(text) > 2 * LIMIT:
            names = [self._named(piece) for piece in _pieces(text)]
            self.pieces.update(names)
            text = _dumps({_REFERENCE: [_PIECES, names]})
        return {_REFERENCE: self._named(text)}

    def _named(self, text: str) -> str:
        name = sha256(text.encode()).hexdigest()
        self._blobs[name] = text
        return name


def _pieces(text: str) -> Iterator[str]:
    """A text, cut where its own characters say so, and where a piece would get longer than `LIMIT`."""
    least, most = min(PIECE // 4, LIMIT // 2), LIMIT
    start = 0
    while len(text) - start > most:
        found = _CUT.search(text, start + least, start + most)
        end = found.end() if found else start + most
        yield text[start:end]
        start = end
    yield text[start:]


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Resolver:
    """Payloads as they were before `encoded`; equal big values of them are one object.

    Args:
        texts: hash → JSON of every blob that is referred to.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._values: dict[str, Any] = {}

    def payload(self, text: str) -> dict[str, Any]:
        """The payload of an event that refers to blobs.

        Raises:
            StorageError: a blob is missing.
        """
        return decode(text, object_hook=self._resolved)

    def _resolved(self, mapping: dict[str, Any]) -> Any:
        if mapping.keys() != {_REFERENCE}:
            return mapping
        found = mapping[_REFERENCE]
        if isinstance(found, list):
            parts = cast("list[Any]", found)
            if len(parts) == 1:
                return {_REFERENCE: parts[0]}
            return json.loads("".join(map(self._text, parts[1])), object_hook=self._resolved)
        if found not in self._values:
            self._values[found] = json.loads(self._text(found), object_hook=self._resolved)
        return self._values[found]

    def _text(self, name: str) -> str:
        if name not in self._texts:
            raise StorageError(
                f"The record is damaged: there is no blob {name}.",
                hint="Run the diagram again.",
                operation="read",
                cause="failed",
            )
        return self._texts[name]


# In memory.

_VALUES = ("output", "text", "meta", "globals", "variables")
"""Fields of payloads that hold values of nodes and runs."""


class SharedValues:
    """Makes equal big values of a run one object, for a store that keeps payloads as they are."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        """A big text, or the JSON of another big value → the one that is kept."""

    def shared(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload with values that are kept already in place of equal ones; the very object when there are none."""
        changed: dict[str, Any] = {}
        for name in _VALUES:
            if (value := payload.get(name)) and _size(value) > LIMIT and (kept := self._value(value)[0]) is not value:
                changed[name] = kept
        return {**payload, **changed} if changed else payload

    def _value(self, value: Any) -> tuple[Any, int]:
        kind = type(value)
        if kind is str:
            size = len(value)
            return (self._known.setdefault(value, value), _REFERENCE_SIZE) if size > LIMIT else (value, size)
        if kind is list:
            pairs = [self._value(item) for item in value]
            kept: Any = (
                [item for item, _ in pairs] if any(a is not b for (a, _), b in zip(pairs, value, strict=True)) else value
            )
            size = sum(size for _, size in pairs) + len(pairs)
        elif kind is dict:
            found = {name: self._value(item) for name, item in value.items()}
            same = all(found[name][0] is item for name, item in value.items())
            kept = value if same else {name: item for name, (item, _) in found.items()}
            size = sum(size for _, size in found.values()) + 10 * len(found)
        else:
            return value, _NUMBER_SIZE
        if size <= LIMIT:
            return kept, size
        try:
            text = encode({"value": value})
        except Exception:  # noqa: BLE001 - what has no encoding is kept as it is
            return kept, size
        return self._known.setdefault(text, kept), _REFERENCE_SIZE


def _size(value: Any) -> int:
    """Characters that a value takes as JSON, nearly."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind is dict:
        total = 10 * len(value)
        for item in value.values():
            total += _size(item)
        return total
    if kind is list:
        total = len(value)
        for item in value:
            total += _size(item)
        return total
    return _NUMBER_SIZE


# In files.


class LineWriter:
    """Writes a run as lines of JSON: each event in its wire form; each big value once, as `{"blob": hash, "value": …}`, before the
    first event that refers to it, and a piece of one as `{"blob": hash, "text": …}`. The line of an event that does so has the hashes
    as `blobs`.

    Args:
        line: is called with each line, without its end.
    """

    def __init__(self, line: Callable[[str], object]) -> None:
        self._line = line
        self._written: set[str] = set()

    def write(self, event: Event) -> None:
        wire = event.to_wire()
        found = encoded(wire["data"])
        for name, text in found.blobs.items():
            if name not in self._written:
                self._written.add(name)
                value = name not in found.pieces
                self._line(f'{{"blob":"{name}","value":{text}}}' if value else _dumps({"blob": name, "text": text}))
        extra = {"blobs": list(found.blobs)} if found.blobs else {}
        self._line(_dumps({**wire, "data": json.loads(found.text), **extra}))


def lines(events: Iterable[Event]) -> Iterator[str]:
    """A run as lines of JSON, see `LineWriter`."""
    found: list[str] = []
    writer = LineWriter(found.append)
    for event in events:
        writer.write(event)
        yield from found
        found.clear()


def events_of_lines(texts: Iterable[str]) -> Iterator[Event]:
    """The events that `lines` wrote.

    Raises:
        EventBusError: a line is not an event.
        StorageError: a big value is missing.
    """
    blobs: dict[str, str] = {}
    resolver = Resolver(blobs)
    for text in texts:
        found = json.loads(text)
        if "blob" in found:
            blobs[found["blob"]] = found["text"] if "text" in found else _dumps(found["value"])
            continue
        data = _dumps(found["data"])  # without `blobs`, nothing in it is a reference, whatever it looks like
        yield Event.from_wire({**found, "data": resolver.payload(data) if found.get("blobs") else decode(data)})

"""Big values of a run are kept once: events refer to them by the hash of their JSON.

Whatever of a payload takes more than `LIMIT` characters as JSON (a text, a list, a mapping) is a blob of the run. In its place the
recorded payload has `{"$blob": "<sha256>"}`; a blob may refer to others in the same way. Such references stand only in payloads that
are recorded together with the names of their blobs; a mapping of theirs that looks like a reference is written
`{"$blob": [value]}`. Stores write the blobs of an event in the transaction of the event and resolve references when they read, so
nobody else sees one, but for readers of `lines`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple, cast

from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError

LIMIT = 65_536
"""Characters that a value takes as JSON, at most, to be kept within its event."""
_REFERENCE = "$blob"
_REFERENCE_SIZE = 80
_NUMBER_SIZE = 8
"""Characters that a number counts for; near enough to tell what is big."""


class Encoded(NamedTuple):
    """A payload as JSON, and its big values."""

    text: str
    blobs: Mapping[str, str]
    """Hash → JSON of the value; also those that are within others."""


def encoded(payload: Mapping[str, Any]) -> Encoded:
    """A payload as it is recorded.

    Raises:
        StorageError: a value has no encoding.
    """
    text = encode(payload)
    if len(text) <= LIMIT:
        return Encoded(text, {})
    blobs: dict[str, str] = {}
    try:
        # What was encoded is looked through and not what was given: that is JSON, whatever the values were.
        small, _ = _Extraction(blobs).mapping(json.loads(text))
    except RecursionError:
        return Encoded(text, {})
    return Encoded(_dumps(small), blobs) if blobs else Encoded(text, {})


class _Extraction:
    """Moves big values into blobs, the innermost first. Every method gives what is left and its size as JSON, nearly."""

    def __init__(self, blobs: dict[str, str]) -> None:
        self._blobs = blobs

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
        name = sha256(text.encode()).hexdigest()
        self._blobs[name] = text
        return {_REFERENCE: name}


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
            return {_REFERENCE: cast("list[Any]", found)[0]}
        if found not in self._values:
            if found not in self._texts:
                raise StorageError(
                    f"The record is damaged: there is no blob {found}.",
                    hint="Run the diagram again.",
                    operation="read",
                    cause="failed",
                )
            self._values[found] = json.loads(self._texts[found], object_hook=self._resolved)
        return self._values[found]


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
            kept: Any = [item for item, _ in pairs] if any(a is not b for (a, _), b in zip(pairs, value, strict=True)) else value
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


def lines(events: Iterable[Event]) -> Iterator[str]:
    """A run as lines of JSON: each event in its wire form; each big value once, as `{"blob": hash, "value": …}`, before the first
    event that refers to it. The line of an event that does so has the hashes as `blobs`."""
    written: set[str] = set()
    for event in events:
        wire = event.to_wire()
        found = encoded(wire["data"])
        for name, text in found.blobs.items():
            if name not in written:
                written.add(name)
                yield f'{{"blob":"{name}","value":{text}}}'
        extra = {"blobs": list(found.blobs)} if found.blobs else {}
        yield _dumps({**wire, "data": json.loads(found.text), **extra})


def events_of_lines(texts: Iterable[str]) -> Iterator[Event]:
    """The events that `lines` wrote.

    Raises:
        EventBusError: a line is no event.
        StorageError: a big value is missing.
    """
    blobs: dict[str, str] = {}
    resolver = Resolver(blobs)
    for text in texts:
        found = json.loads(text)
        if "blob" in found:
            blobs[found["blob"]] = _dumps(found["value"])
            continue
        data = _dumps(found["data"])  # without `blobs`, nothing in it is a reference, whatever it looks like
        yield Event.from_wire({**found, "data": resolver.payload(data) if found.get("blobs") else decode(data)})

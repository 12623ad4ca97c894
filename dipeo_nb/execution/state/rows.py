"""What the run stores in databases have in common: rows of events, and which runs a listing asks for.

Pieces of streamed text are small and many. Those that are appended together and stand next to each other share one row, the *pack*
(`PACK` is its type, and the number of the first its number). Nothing is lost by that: each is an event with its own number, time and
text again when it is read. A piece that is alone in its append has a row like any other event.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from dipeo_nb.common import collecting
from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import STREAMED
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.blobs import LIMIT, Resolver, separated

_TYPES = {str(t): t for t in EventType}
_NAMES = {t: str(t) for t in EventType}
_OUTPUT = EventType.NODE_OUTPUT
PACK = "node_outputs"
"""Type of a row that holds several pieces of streamed text."""
PACK_CHARACTERS = 16_384
"""Characters of text in a pack, about; so that reading a few events never decodes many."""
COMPRESSED = 512
"""Characters of a pack as JSON from which on it is compressed."""
PACK_EVENTS = 2_000
"""Pieces of a pack, at most."""
_EXACT = frozenset({str, int, bool, type(None)})
"""Types of which equal values are the same as JSON."""
_new = tuple.__new__
"""Makes a named tuple in half the time."""
Row = tuple[int, str, float, str | None, str]
"""seq, type, occurred_at, node_id, payload (JSON)."""


class Batch(NamedTuple):
    """Events of one run as rows."""

    events: Sequence[Row]
    references: Mapping[int, Sequence[str]]
    """seq → hashes of the blobs that the payload refers to."""
    blobs: Mapping[str, str]
    """Hash → JSON of the value."""


def batch_of(events: Iterable[Event]) -> Batch:
    """Events of one run as they are stored.

    Raises:
        StorageError: a value has no encoding.
    """
    rows: list[Row] = []
    references: dict[int, Sequence[str]] = {}
    blobs: dict[str, str] = {}
    pack: list[Event] = []
    size = 0
    for event in events:
        if event[1] is _OUTPUT and event.payload.get("kind") in STREAMED:
            text = event.payload.get("text")
            if isinstance(text, str) and len(text) < PACK_CHARACTERS:
                if size > PACK_CHARACTERS or len(pack) == PACK_EVENTS:
                    rows.append(_pack(pack))
                    pack, size = [], 0
                pack.append(event)
                size += len(text)
                continue
        if pack:
            rows.append(_pack(pack))
            pack, size = [], 0
        seq, kind, _, at, node_id, payload = event
        text = encode(payload)
        if len(text) > LIMIT:
            text, own, _ = separated(text)
            if own:
                references[seq] = list(own)
                blobs.update(own)
        rows.append((seq, _NAMES[kind], at, node_id, text))
    if pack:
        rows.append(_pack(pack))
    return Batch(rows, references, blobs)


def _pack(events: Sequence[Event]) -> Row:
    """One row for pieces of text with consecutive numbers. Equal parts of their payloads stand once."""
    first = events[0]
    if len(events) == 1:
        return first.seq, str(first.type), first.occurred_at, first.node_id, encode(first.payload)
    kinds: dict[tuple[str | None, str], int] = {}
    which: list[int] = []
    before: Any = None
    number = 0
    for event in events:
        template = {**event.payload, "text": ""}
        types = list(map(type, template.values()))
        shared = event.node_id, template, list(template), types
        if shared != before:  # nearly all are as the one before
            before = shared if _EXACT.issuperset(types) else None
            kind = event.node_id, encode(template)
            number = kinds.setdefault(kind, len(kinds))
        which.append(number)
    packed: dict[str, Any] = {
        "of": [[node_id, template] for node_id, template in kinds],
        "later": [b - a for a, b in pairwise(_bits([event.occurred_at for event in events]))],
        "texts": [event.payload["text"] for event in events],
    }
    if len(kinds) > 1:
        packed["which"] = which
    return first.seq, PACK, first.occurred_at, None, encode(packed)


def compressed(payload: str) -> str | bytes:
    """The payload of a pack, as a store whose columns take bytes keeps it."""
    return zlib.compress(payload.encode(), 1) if len(payload) > COMPRESSED else payload


def _unpacked(first: int, run_id: str, at: float, payload: str | bytes) -> Iterable[Event]:
    packed = decode(zlib.decompress(payload) if isinstance(payload, bytes) else payload)
    kinds = [(node_id, decode(template)) for node_id, template in packed["of"]]
    texts = packed["texts"]
    times = _floats(list(accumulate(packed["later"], initial=_bits([at])[0])))
    which = packed.get("which") or [0] * len(texts)
    for n, (text, kind, time) in enumerate(zip(texts, which, times, strict=True)):
        node_id, template = kinds[kind]
        yield Event(first + n, EventType.NODE_OUTPUT, run_id, time, node_id, {**template, "text": text})


def _bits(times: Sequence[float]) -> Sequence[int]:
    """Floats as the integers of their bits: differences of these are small for times that are near, and exact."""
    return struct.unpack(f"<{len(times)}q", struct.pack(f"<{len(times)}d", *times))


def _floats(bits: Sequence[int]) -> Sequence[float]:
    return struct.unpack(f"<{len(bits)}d", struct.pack(f"<{len(bits)}q", *bits))


def events_of(
    rows: Iterable[tuple[Any, ...]],
    references: Mapping[int, Any] | None = None,
    blobs: Mapping[str, str] | None = None,
    *,
    after: int = 0,
    limit: int | None = None,
) -> list[Event]:
    """Rows of seq, type, run_id, occurred_at, node_id, payload (JSON) as events.

    Args:
        references: has the seq of every event whose payload refers to blobs.
        blobs: hash → JSON of every blob that is referred to.
        after, limit: see `RunStore.events`; the first row may be a pack that begins before.

    Raises:
        StorageError: a blob is missing, or a pack is damaged.
    """
    with (
        collecting.paused()
    ):  # else it walks the events of a page, all of which are in use, again and again while they are made
        found = list(_events(rows, Resolver(blobs or {}) if references else None, references or {}))
    if found and found[0].seq <= after:
        found = [event for event in found if event.seq > after]
    return found if limit is None else found[:limit]


def _events(rows: Iterable[tuple[Any, ...]], resolver: Resolver | None, references: Mapping[int, Any]) -> Iterator[Event]:
    for seq, kind, run, at, node, payload in rows:
        if kind == PACK:
            try:
                yield from _unpacked(seq, run, at, payload)
            except (ValueError, KeyError, IndexError, TypeError, struct.error, zlib.error) as error:
                raise StorageError(
                    f"The record is damaged: event {seq} of run {run} cannot be read: {error!r}.",
                    hint="Run the diagram again.",
                    operation="read",
                    cause="failed",
                ) from error
        elif resolver is not None and seq in references:
            yield _new(Event, (seq, _TYPES[kind], run, at, node, resolver.payload(payload)))
        else:
            yield _new(Event, (seq, _TYPES[kind], run, at, node, decode(payload)))


def storable(values: Iterable[object]) -> bool:
    """Whether there can be rows with these values: text with NUL (which PostgreSQL refuses) or half a pair of surrogates is in none."""
    return not any(isinstance(value, str) and ("\0" in value or not _encodes(value)) for value in values)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def chosen(mark: str, *, parent: str | None, nested: bool, **columns: str | None) -> tuple[str, list[str]]:
    """The condition of `RunStore.runs` in SQL ("" for none), and its values.

    Args:
        mark: stands for a value: `?` or `%s`.
        columns: column → value that it must have; None: any.
    """
    named = {name: value for name, value in {**columns, "parent_run_id": parent}.items() if value is not None}
    conditions = [f"{name} = {mark}" for name in named]
    if parent is None and not nested:
        conditions.append("parent_run_id IS NULL")
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), list(named.values())


_LITERAL = str.maketrans({c: f"\\{c}" for c in "\\%_"})


def like(text: str) -> str:
    """The pattern of LIKE, whose escape is a backslash, for payloads with a text: as it stands in their JSON."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # no payload has half a pair of surrogates
    return f"%{json.dumps(whole, ensure_ascii=False)[1:-1].translate(_LITERAL)}%"

"""What the run stores in databases have in common: rows of events, and which runs a listing asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dipeo_nb.common.json_values import decode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.blobs import Resolver, encoded

_TYPES = {str(t): t for t in EventType}


class Batch(NamedTuple):
    """Events of one run as rows."""

    events: Sequence[tuple[int, str, float, str | None, str]]
    """seq, type, occurred_at, node_id, payload (JSON)."""
    references: Mapping[int, Sequence[str]]
    """seq → hashes of the blobs that the payload refers to."""
    blobs: Mapping[str, str]
    """Hash → JSON of the value."""


def batch_of(events: Iterable[Event]) -> Batch:
    """Events of one run as they are stored.

    Raises:
        StorageError: a value has no encoding.
    """
    rows: list[tuple[int, str, float, str | None, str]] = []
    references: dict[int, Sequence[str]] = {}
    blobs: dict[str, str] = {}
    for event in events:
        text, own, _ = encoded(event.payload)
        rows.append((event.seq, str(event.type), event.occurred_at, event.node_id, text))
        if own:
            references[event.seq] = list(own)
            blobs.update(own)
    return Batch(rows, references, blobs)


def events_of(
    rows: Iterable[tuple[Any, ...]], references: Mapping[int, Any] | None = None, blobs: Mapping[str, str] | None = None
) -> list[Event]:
    """Rows of seq, type, run_id, occurred_at, node_id, payload (JSON) as events.

    Args:
        references: has the seq of every event whose payload refers to blobs.
        blobs: hash → JSON of every blob that is referred to.

    Raises:
        StorageError: a blob is missing.
    """
    if not references:
        return [Event(seq, _TYPES[kind], run, at, node, decode(payload)) for seq, kind, run, at, node, payload in rows]
    resolver = Resolver(blobs or {})
    return [
        Event(
            seq, _TYPES[kind], run, at, node, resolver.payload(payload) if seq in references else decode(payload)
        )
        for seq, kind, run, at, node, payload in rows
    ]


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

"""A streamed text of a run that has ended, in fewer rows: what came in many pieces is in the first of them.

Every event stays, with its number and its time; all but the first piece of a text have no text any more, and rows of them are packed.
What is lost is how the text grew. A text larger than 64 KB stands once with what its node gave, see `blobs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dipeo_nb.common.json_values import encode
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.payloads import STREAMED, VARYING
from dipeo_nb.execution.state.rows import PACK, Batch, batch_of, events_of

ROWS = 500
"""Rows that are read, and written in one transaction, at most: others write in between."""

EVENTS = 10_000
"""Pieces among which those of one text are joined, about."""


class Condensed(NamedTuple):
    """What takes the place of rows."""

    rows: Sequence[int]
    """Numbers of the rows that go."""
    batch: Batch
    """Those that come."""


def ended_at(run: RunSummary | None) -> int:
    """Number of the last event of a run that has ended; 0 when it has not. One that is resumed meanwhile is not followed further:
    it may write as fast as it is read."""
    return 0 if run is None or run.ended_at is None else run.events


def condensed(rows: Iterable[tuple[Any, ...]], breaks: Collection[int]) -> Iterator[Condensed]:
    """What consecutive rows of a run may be replaced with, if any.

    Args:
        rows: as `events_of` takes them; the type of one that refers to blobs is another one.
        breaks: numbers of events up to which there is a snapshot; what was before one stays there.
    """
    numbers: list[int] = []
    events: list[Event] = []
    for row in rows:
        found = events_of([row]) if row[1] in (PACK, "node_output") else []
        if not found or found[0].output_kind not in STREAMED or len(events) > EVENTS:
            yield from _replaced(numbers, events, breaks)
            numbers, events = [], []
        if found and found[0].output_kind in STREAMED:
            numbers.append(row[0])
            events += found
    yield from _replaced(numbers, events, breaks)


def _replaced(numbers: Sequence[int], events: Sequence[Event], breaks: Collection[int]) -> Iterator[Condensed]:
    whole = joined(events, breaks)
    batch = batch_of(whole)
    if whole != events or len(batch.events) < len(numbers):
        yield Condensed(numbers, batch)


def joined(events: Sequence[Event], breaks: Collection[int] = ()) -> list[Event]:
    """Consecutive pieces of texts, with the text of each in its first piece."""
    firsts: dict[Any, int] = {}
    texts: dict[int, list[str]] = {}
    counts: dict[int, int] = {}
    for place, event in enumerate(events):
        text = event.payload.get("text", "")
        name = event.node_id, encode({k: v for k, v in event.payload.items() if k not in VARYING})
        if event.payload.get("restart") or name not in firsts:
            firsts[name] = place
            texts[place], counts[place] = [], 0
        first = firsts[name]
        texts[first].append(text)
        counts[first] += _counted(event)
        if event.seq in breaks:
            firsts.clear()
    found: list[Event] = []
    for place, event in enumerate(events):
        whole = "".join(texts.get(place, ()))
        count = counts.get(place, 0)
        count_now = _counted(event) if place in texts else event.payload.get("pieces")
        same = whole == event.payload.get("text", "") and count == count_now
        found.append(event if same else event._replace(payload={**event.payload, "text": whole, "pieces": count}))
    return found


def _counted(event: Event) -> int:
    """How many pieces a state takes it for."""
    payload = event.payload
    return payload.get("pieces", 1) if payload.get("text") or payload.get("kind") == "reasoning" else 0

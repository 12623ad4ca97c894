"""Adds remarks to the record of a run: to one that is executing here, or to one that has ended."""

from __future__ import annotations

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import well_formed
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.payloads import RunNote
from dipeo_nb.domain.ports import EventBus, RunStore
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.execution import live
from dipeo_nb.execution.engine import Execution

LONGEST = 10_000
"""Characters of a note."""
TRIES = 5
"""Times that a note is appended when others append theirs at the same moment."""


async def add_note(
    store: RunStore, bus: EventBus, row: RunSummary, first: int, last: int | None, text: str, *, now: float
) -> None:
    """Store a note on the events *first* to *last* (None: up to the latest one) of the run of that row.

    Raises:
        UserError: there are no such events, or no text.
        StorageError: the run is executing elsewhere, or was cut off, or the store takes no notes.
    """
    text = well_formed(text.strip())
    if not text or len(text) > LONGEST:
        raise UserError(
            "The note is empty." if not text else f"The note has {len(text):,} characters.",
            hint=f"Write up to {LONGEST:,} characters.",
        )
    here = live.holder(store, row.run_id)
    executing = here if isinstance(here, Execution) else None
    events = executing.state.events if executing is not None else row.events
    end = events if last is None else min(last, events)
    if not 1 <= first <= end:
        raise UserError(f"Run {row.run_id} has no events {first} to {last or end}.", hint=f"It has the events 1 to {events}.")
    payload: RunNote = {"first": first, "last": end, "text": text}
    if executing is not None and not executing.state.finished:
        executing.journal.emit(EventType.RUN_NOTE, None, payload)
        await executing.journal.flush()
    else:
        await _append(store, bus, row, redactor(payload), now)


async def _append(store: RunStore, bus: EventBus, row: RunSummary, payload: RunNote, now: float) -> None:
    if row.ended_at is None:
        where = "is still running in another process" if row.status == Status.RUNNING else "was interrupted"
        hint = "Write the note there, or when it has ended."
        raise StorageError(
            f"Run {row.run_id} {where}; it takes no notes here.",
            hint=hint if row.status == Status.RUNNING else f"Resume it first: dp.resume('{row.run_id}').",
            operation="append",
            run_id=row.run_id,
            cause="going_on",
        )
    for attempt in range(TRIES):
        current = await store.run(row.run_id)
        if current is None:
            raise UserError(f"Run {row.run_id} was deleted.", hint="See dp.runs() for those there are.")
        note = Event(current.events + 1, EventType.RUN_NOTE, row.run_id, max(now, row.ended_at), None, payload)
        try:
            await store.append([note])
        except StorageError:
            later = await store.run(row.run_id)
            if attempt + 1 == TRIES or later is None or later.events == current.events:
                raise  # else another note was first
        else:
            await bus.publish(note)
            return

"""The rules that all run stores keep, whatever they store events in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event, notes_only
from dipeo_nb.errors import StorageError


def final_status(last: Event) -> str:
    """Status of a run that ended with *last*."""
    default = Status.COMPLETED if last.type is EventType.EXECUTION_COMPLETED else Status.FAILED
    return str(last.payload.get("status", default))


def check_claim(run_id: str, status: str | None, owned: bool, holder: str = "") -> None:
    """The rules of `RunStore.claim`; *status* None: there is no such run.

    Args:
        holder: who has it, in words.

    Raises:
        StorageError: the run cannot be claimed.
    """
    if status is None:
        cause, message, hint = "not_found", f"There is no run {run_id}.", "See dp.runs() for those there are."
    elif status == Status.COMPLETED:
        cause, message, hint = "completed", f"Run {run_id} is complete.", "Fork it to run a part of it again."
    elif status == Status.RUNNING and not owned:
        cause, message = "going_on", f"Run {run_id} is still running{f' in {holder}' if holder else ''}."
        hint = "Wait for it, or stop it where it runs."
    else:
        return
    raise StorageError(message, hint=hint, operation="claim", run_id=run_id, cause=cause)


def relatives(parents: Mapping[str, str | None], run_ids: Iterable[str]) -> tuple[list[str], set[str]]:
    """Which runs are deleted with *run_ids*, and which ones they are parts of.

    Args:
        parents: run → the run that it is a part of, of all runs that may be concerned.

    Returns:
        Those of *run_ids* that there are with all below them, parts first; all above them that are not among these.
    """
    parts: dict[str, list[str]] = {}
    for run_id, parent in parents.items():
        if parent is not None:
            parts.setdefault(parent, []).append(run_id)
    family = dict.fromkeys(run_id for run_id in run_ids if run_id in parents)
    waiting = list(family)
    for run_id in waiting:  # grows meanwhile
        new = [part for part in parts.get(run_id, ()) if part not in family]
        family.update(dict.fromkeys(new))
        waiting += new
    above: set[str] = set()
    for run_id in family:
        parent = parents[run_id]
        while parent is not None and parent in parents and parent not in family and parent not in above:
            above.add(parent)
            parent = parents[parent]
    return waiting[::-1], above


def check_delete(going: Iterable[str], family: Iterable[str], above: Iterable[str], holder: str = "") -> None:
    """The rules of `RunStore.delete`.

    Args:
        going: runs that go on.
        family, above: see `relatives`.
        holder: who has them, in words.

    Raises:
        StorageError: `going_on`; nothing may be deleted.
    """
    going, family, above = set(going), set(family), set(above)
    where = f" in {holder}" if holder else ""
    if living := sorted(going & family):
        message = f"Run {living[0]} is still running{where}; nothing was deleted."
    elif living := sorted(going & above):
        message = f"Run {living[0]} is still running{where}, of which these runs are a part; nothing was deleted."
    else:
        return
    raise StorageError(
        message, hint="Wait for it, or stop it where it runs.", operation="delete", run_id=living[0], cause="going_on"
    )


def check_order(events: Sequence[Event], stored: int, ended: bool) -> None:
    """The rules of `RunStore.append` that need no storage: one run, no gap, no repeat, nothing but notes after the end.

    Raises:
        StorageError: one is broken; nothing may be stored.
    """
    run_id, place = events[0][2], stored
    for event in events:
        place += 1
        if event[0] != place or event[2] != run_id or event[1] in FINAL_EVENTS:
            break
    else:
        if stored and not ended:
            return  # as nearly always
    problem = None
    if ended and not notes_only(events):
        problem = "the run has ended"
    elif stored == 0 and events[0].type is not EventType.EXECUTION_STARTED:
        problem = "a run begins with execution_started"
    else:
        for place, (seq, kind, run, *_) in enumerate(events, start=stored + 1):
            if run != run_id:
                problem = "the events are of different runs"
            elif seq != place:
                problem = f"event {seq} comes where {place} is due"
            elif kind in FINAL_EVENTS and place != stored + len(events):
                problem = "a final event is not the last one"
            else:
                continue
            break
    if problem:
        raise StorageError(
            f"Run {run_id}: {problem}.", hint="Append consecutive events of one run.", operation="append", run_id=run_id
        )


def taken_over(run_id: str, holder: str = "") -> StorageError:
    """The error for a writer of a run that another process has claimed since."""
    return StorageError(
        f"Run {run_id} was taken over{f' by {holder}' if holder else ''} and continues there.",
        hint="Look at it where it is running, or later: dp.open_run(…).",
        operation="append",
        run_id=run_id,
        cause="going_on",
    )


def answered(run_id: str, request_id: str) -> StorageError:
    """The error of a second answer to a question."""
    return StorageError(
        f"The question '{request_id}' of run {run_id} is answered already.",
        hint="Look at what the run does next: dp.open_run(…).",
        operation="answer",
        run_id=run_id,
        cause="answered",
    )

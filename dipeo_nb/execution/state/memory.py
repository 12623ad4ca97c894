"""The run store of one process; gone with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event, RunSummary
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.blobs import SharedValues


class InMemoryRunStore:
    """`RunStore` over lists. Payloads are kept as they are, but for equal big values, which become one object: whoever appends
    them must not change them afterwards."""

    def __init__(self) -> None:
        self._runs: dict[str, list[Event]] = {}
        self._shared: dict[str, SharedValues] = {}
        self._claimed: set[str] = set()
        """Runs that ended and go on."""
        self._answers: dict[str, dict[str, str]] = {}

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close; the runs stay readable."""

    async def append(self, events: Sequence[Event]) -> None:
        if not events:
            return
        log = self._runs.get(events[0].run_id)
        run_id = events[0].run_id
        ended = log is not None and log[-1].type in FINAL_EVENTS and run_id not in self._claimed
        check_order(events, len(log) if log is not None else 0, ended)
        self._claimed.discard(run_id)
        if log is None:
            log = self._runs[run_id] = []
            self._shared[run_id] = SharedValues()
        shared = self._shared[run_id].shared
        for event in events:
            kind = event.type
            if (kind is EventType.NODE_COMPLETED or kind is EventType.EXECUTION_STARTED) and (
                payload := shared(event.payload)
            ) is not event.payload:
                log.append(event._replace(payload=payload))
            else:
                log.append(event)

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        log = self._runs.get(run_id, [])
        return log[after : None if limit is None else after + limit]

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        rows = (self._summary(log) for log in reversed(self._runs.values()))
        if parent is not None or not nested:
            rows = (r for r in rows if r.parent_run_id == parent)
        return [r for r in rows if status in (None, r.status) and diagram in (None, r.diagram)][:limit]

    async def run(self, run_id: str) -> RunSummary | None:
        log = self._runs.get(run_id)
        return None if log is None else self._summary(log)

    async def claim(self, run_id: str, *, mine: bool = False) -> None:
        log = self._runs.get(run_id)
        check_claim(run_id, None if log is None else self._summary(log).status, mine)
        self._claimed.add(run_id)

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        left = self._answers.setdefault(run_id, {})
        if request_id in left:
            raise answered(run_id, request_id)
        left[request_id] = answer

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(self._answers.get(run_id, {}))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        self._answers.get(run_id, {}).pop(request_id, None)

    async def compact(self) -> None:
        """Nothing is kept of deleted runs."""

    async def beat(self, run_id: str) -> bool:
        return True  # nobody else has this object

    async def delete(self, *run_ids: str, mine: bool = False, compact: bool = True) -> list[str]:
        parents = {run_id: log[0].payload.get("parent") for run_id, log in self._runs.items()}
        going = [
            run_id for run_id, log in self._runs.items() if self._summary(log).status == Status.RUNNING or run_id in self._claimed
        ]
        family, above = relatives(parents, run_ids)
        check_delete([] if mine else going, family, above)
        for run_id in family:
            del self._runs[run_id], self._shared[run_id]
            self._answers.pop(run_id, None)
            self._claimed.discard(run_id)
        return family

    @staticmethod
    def _summary(log: list[Event]) -> RunSummary:
        first, last = log[0], log[-1]
        ended = last.type in FINAL_EVENTS
        return RunSummary(
            first.run_id,
            first.payload.get("diagram", ""),
            final_status(last) if ended else Status.RUNNING,
            first.occurred_at,
            last.occurred_at if ended else None,
            last.seq,
            first.payload.get("parent"),
        )


def final_status(last: Event) -> str:
    """Status of a run that ended with *last*."""
    default = Status.COMPLETED if last.type is EventType.EXECUTION_COMPLETED else Status.FAILED
    return str(last.payload.get("status", default))


def check_claim(run_id: str, status: str | None, mine: bool, holder: str = "") -> None:
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
    elif status == Status.RUNNING and not mine:
        cause, message = "going_on", f"Run {run_id} still goes on{f' in {holder}' if holder else ''}."
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
        message = f"Run {living[0]} still goes on{where}; nothing was deleted."
    elif living := sorted(going & above):
        message = f"Run {living[0]} still goes on{where}, of which these runs are a part; nothing was deleted."
    else:
        return
    raise StorageError(
        message, hint="Wait for it, or stop it where it runs.", operation="delete", run_id=living[0], cause="going_on"
    )


def check_order(events: Sequence[Event], stored: int, ended: bool) -> None:
    """The rules of `RunStore.append` that need no storage: one run, no gap, no repeat, nothing after the end.

    Raises:
        StorageError: one is broken; nothing may be stored.
    """
    run_id = events[0].run_id
    problem = None
    if ended:
        problem = "the run has ended"
    elif stored == 0 and events[0].type is not EventType.EXECUTION_STARTED:
        problem = "a run begins with execution_started"
    else:
        for place, event in enumerate(events, start=stored + 1):
            if event.run_id != run_id:
                problem = "the events are of different runs"
            elif event.seq != place:
                problem = f"event {event.seq} comes where {place} is due"
            elif event.type in FINAL_EVENTS and event is not events[-1]:
                problem = "a final event is not the last one"
            if problem:
                break
    if problem:
        raise StorageError(
            f"Run {run_id}: {problem}.", hint="Append consecutive events of one run.", operation="append", run_id=run_id
        )


def taken_over(run_id: str, holder: str = "") -> StorageError:
    """The error of whoever writes a run that somebody else has claimed since."""
    return StorageError(
        f"Run {run_id} was taken over{f' by {holder}' if holder else ''} and goes on there.",
        hint="Look at it where it goes on, or later: dp.open_run(…).",
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

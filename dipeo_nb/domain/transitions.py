"""How the status of a node in a run changes: all there is. `docs/events.md` shows this table, and the logs of runs are tested
against it."""

from __future__ import annotations

from typing import NamedTuple

from dipeo_nb.domain.enums import EventType, Status


class Transition(NamedTuple):
    before: Status
    event: EventType
    after: Status
    when: str


NODE_TRANSITIONS: tuple[Transition, ...] = (
    Transition(Status.PENDING, EventType.NODE_STARTED, Status.RUNNING, "its first run begins"),
    Transition(Status.RUNNING, EventType.NODE_COMPLETED, Status.COMPLETED, "its run has completed"),
    Transition(Status.RUNNING, EventType.NODE_ERROR, Status.FAILED, "its run has failed"),
    Transition(Status.COMPLETED, EventType.NODE_STARTED, Status.RUNNING, "a loop leads to it again"),
    Transition(Status.FAILED, EventType.NODE_STARTED, Status.RUNNING, "a loop leads to it again, or the run was resumed"),
    Transition(Status.COMPLETED, EventType.NODE_COMPLETED, Status.MAXITER_REACHED, "it may not run again and passes its last output on"),
    Transition(Status.MAXITER_REACHED, EventType.NODE_COMPLETED, Status.MAXITER_REACHED, "the same, once more"),
    Transition(Status.PENDING, EventType.EXECUTION_COMPLETED, Status.SKIPPED, "the run ends and nothing led to it"),
    Transition(Status.PENDING, EventType.EXECUTION_ERROR, Status.SKIPPED, "nothing can lead to it any more, and the run fails"),
    Transition(Status.RUNNING, EventType.EXECUTION_ERROR, Status.ABORTED, "the run was stopped, or another node made it fail"),
    Transition(Status.RUNNING, EventType.EXECUTION_ERROR, Status.INTERRUPTED, "the process ended in order"),
    Transition(Status.RUNNING, EventType.EXECUTION_STARTED, Status.INTERRUPTED, "the run is resumed after its process was gone"),
    Transition(Status.ABORTED, EventType.EXECUTION_STARTED, Status.INTERRUPTED, "the run is resumed after it was stopped or failed"),
    Transition(Status.INTERRUPTED, EventType.NODE_STARTED, Status.RUNNING, "its run begins again"),
)  # fmt: skip

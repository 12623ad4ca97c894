"""The runs that this process has begun: which of them failed unseen, go on behind a cell that runs again, or are cut off at the end."""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import Protocol

from dipeo_nb.common.loop import before_exit
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.enums import Status
from dipeo_nb.execution.fold import RunState
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.calls import RunGoesOnWarning, warn


class BegunRun(Protocol):
    """A run that this process executes or replays."""

    cell: tuple[str, str] | None
    """The notebook cell that began it, and the execution of that cell."""
    attended: bool
    """Whether somebody has learnt how it ended."""

    @property
    def id(self) -> str: ...
    @property
    def replayed(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def recorded_state(self) -> RunState:
        """The fold over its events, not a copy, without anybody having learnt of it."""
        ...


_BEGUN: weakref.WeakSet[BegunRun] = weakref.WeakSet()
"""Those that somebody still holds, or that still go on."""


def add(run: BegunRun) -> None:
    """Keep a run in mind."""
    _BEGUN.add(run)


def say_unattended(run: BegunRun) -> None:
    """Say that a run failed while nobody waited for it."""
    if run.attended or run.replayed or not run.finished:
        return
    run.attended = True
    state = run.recorded_state
    if state.status == Status.FAILED:
        why = clean((state.error or {}).get("message") or "it could not be recorded", 200)
        _write(
            f"Run {state.run_id} ({clean(state.diagram, 80)}) failed and nobody asked for its result: {why}\n"
            f"See dp.open_run('{state.run_id}'); `await run` or run.result() raises it."
        )


def check_cell() -> None:
    """Warn about runs that an earlier execution of this notebook cell has started: they go on, and nobody sees them any more."""
    here = kernel.current_cell()
    for run in list(_BEGUN):
        if here is not None and run.cell is not None and run.cell[0] == here[0] and run.cell != here and not run.finished:
            warn(
                f"This cell has started a run before that still goes on: dp.open_run('{run.id}').stop() ends it.",
                RunGoesOnWarning,
            )


def _at_exit() -> None:
    """The process ends: say which runs nobody looked at, and which are cut off now."""
    going: list[str] = []
    for run in list(_BEGUN):
        if run.finished:
            say_unattended(run)
        elif not run.replayed:
            going.append(run.id)
            run.attended = True
    if going:
        runs = f"Run {going[0]} was" if len(going) == 1 else f"{len(going)} runs were"
        _write(
            f"{runs} cut off by the end of the process.\nWait for a run with run.result() or `await run`; "
            f"go on with one that was cut off: dp.resume('{going[0]}')."
        )


before_exit(_at_exit)


def _write(text: str) -> None:
    """Lines on stderr. No warning: in a finaliser and at the end of a process one that is made an error could not be caught."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # it is closed
            sys.stderr.write(f"dipeo_nb: {text}\n")

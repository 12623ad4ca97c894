"""The runs that this process has started: which failed unseen, still run behind a cell that is executed again, or are interrupted at exit."""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import Protocol

from dipeo_nb.common.loop import before_exit
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.enums import Status
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.calls import RunGoesOnWarning, warn


class BegunRun(Protocol):
    """A run that this process executes or replays."""

    cell: tuple[str, str] | None
    """The notebook cell that started it, and the execution of that cell."""
    attended: bool
    """Whether its outcome was read or shown."""

    @property
    def id(self) -> str: ...
    @property
    def replayed(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def recorded_state(self) -> RunState:
        """The state after its events, not a copy; reading it does not count as reading the outcome."""
        ...


_BEGUN: weakref.WeakSet[BegunRun] = weakref.WeakSet()
"""Those that are still referenced or executing."""


def add(run: BegunRun) -> None:
    """Register a run."""
    _BEGUN.add(run)


def say_unattended(run: BegunRun) -> None:
    """Report a run that failed while nothing waited for it."""
    if run.attended or run.replayed or not run.finished:
        return
    run.attended = True
    state = run.recorded_state
    if state.status == Status.FAILED:
        why = clean((state.error or {}).get("message") or "it could not be recorded", 200)
        _write(
            f"Run {state.run_id} ({clean(state.diagram, 80)}) failed and its result was never read: {why}\n"
            f"See dp.open_run('{state.run_id}'); `await run` or run.result() raises it."
        )


def check_cell() -> None:
    """Warn about runs of an earlier execution of this notebook cell: they continue, and are no longer shown."""
    here = kernel.current_cell()
    for run in list(_BEGUN):
        if here is not None and run.cell is not None and run.cell[0] == here[0] and run.cell != here and not run.finished:
            warn(
                f"A run that this cell started before is still running: dp.open_run('{run.id}').stop() ends it.",
                RunGoesOnWarning,
            )


def _at_exit() -> None:
    """At the end of the process, report which failed runs were not read, and which runs are interrupted now."""
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
            f"{runs} interrupted by the end of the process.\nWait for a run with run.result() or `await run`; "
            f"resume an interrupted one: dp.resume('{going[0]}')."
        )


before_exit(_at_exit)


def _write(text: str) -> None:
    """Write lines to stderr. A warning would not do: as an error in a finaliser or at exit, it could not be caught."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # it is closed
            sys.stderr.write(f"dipeo_nb: {text}\n")

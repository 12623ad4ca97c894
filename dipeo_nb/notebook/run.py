"""A run as an object: watch it, await it, stop it, read it. Everything comes from the event log."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dipeo_nb.common import lazy
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import run_sync, submit
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.common.text import displayed
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import DipeoError, RunError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import no_question
from dipeo_nb.execution.metrics import RunMetrics
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.run_errors import as_run_error, describe
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_state import RunState, interrupted
from dipeo_nb.llm.recording import replaying
from dipeo_nb.notebook import begun_runs, kernel, static_view
from dipeo_nb.notebook.explanation import RunExplanation
from dipeo_nb.notebook.interrupts import short
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.run_failure import failure
from dipeo_nb.notebook.run_orders import RunOrders
from dipeo_nb.notebook.shown_run import ShownRun
from dipeo_nb.notebook.tables import Events, Table
from dipeo_nb.notebook.transcript import Transcript, Turns
from dipeo_nb.runtime import Runtime

_facade: Any = lazy.module("dipeo_nb.notebook.facade")  # which makes sessions, and they make runs

__all__ = ["Events", "NotebookPrompter", "Run", "RunExplanation", "RunResult", "Table", "Transcript", "Turns"]


class RunActions(Protocol):
    """Creates runs from other ones: a session."""

    runtime: Runtime

    @property
    def resume(self) -> Callable[..., Run]: ...
    @property
    def fork(self) -> Callable[..., Run]: ...
    @property
    def rerun_node(self) -> Callable[..., Run]: ...
    @property
    def open_run(self) -> Callable[..., Run]: ...


class RunResult:
    """The result of a finished run. Its display is short; `run` shows everything."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def id(self) -> str:
        """The same as `run_id`."""
        return self.run.id

    @property
    def run_id(self) -> str:
        """The id under which the run store has the run."""
        return self.run.id

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Endpoint label → value."""
        return self.run.outputs

    @property
    def output(self) -> Any:
        """The value of the only endpoint that was reached; None without one, the mapping when there are several."""
        values = list(self.outputs.values())
        return values[0] if len(values) == 1 else (dict(self.outputs) if values else None)

    @property
    def status(self) -> str:
        return self.run.status

    @property
    def usage(self) -> TokenUsage:
        return self.run.usage

    @property
    def cost(self) -> float | None:
        """US dollars; None when a price is unknown."""
        return self.run.cost

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.run.state.duration_s

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Always None: a run that failed raises instead of returning a result. `run.error` has it."""
        return self.run.error

    @property
    def events(self) -> Events:
        return self.run.events

    @property
    def conversation(self) -> Transcript:
        return self.run.conversation

    @property
    def nodes(self) -> Table:
        """One row per node; see `Run.nodes`."""
        return self.run.nodes

    @property
    def metrics(self) -> RunMetrics:
        """See `Run.metrics`."""
        return self.run.metrics

    def explain(self) -> RunExplanation:
        """See `Run.explain`."""
        return self.run.explain()

    def node(self, reference: str) -> Any:
        """State of a node by label or id: status, runs, output, text, usage, cost_usd, meta."""
        return self.run.node(reference)

    def to_dataframe(self) -> Any:
        """One row per node; see `Run.to_dataframe`."""
        return self.run.to_dataframe()

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """As `Run.to_html`."""
        return self.run.to_html(path)

    def to_dict(self) -> dict[str, Any]:
        """The object that `dipeo-nb run --json` prints; see `Run.to_dict`."""
        return self.run.to_dict()

    def _ipython_display_(self) -> None:
        if not self.run.shown_here:  # which shows the outputs already
            raise NotImplementedError  # IPython displays it as any other value

    @displayed
    def __repr__(self) -> str:
        state = self._shown
        outputs = short_repr(dict(self.outputs), 600)
        return f"RunResult({short_repr(state.diagram, 80)}, {static_view.headline(state)}, outputs={outputs})"

    @displayed
    def _repr_html_(self) -> str:
        return static_view.short_html(self._shown)

    @property
    def _shown(self) -> RunState:
        return static_view.timeless(self.run.state) if self.run.repeated else self.run.state


class Run(ShownRun["RunResult"]):
    """One run, executing or finished.

    As the last line of a cell, it is shown live. `await run` or `run.result()` waits for it, returns a `RunResult`, and raises
    the error that made it fail; `async for event in run` yields every event from the first, at whatever time it is started,
    and ends with the run, failed or not; of a run of another process, those there were when it was started.

    The error is a `RunError` (`RunAbortedError` when the run was stopped) or, when a service failed, a `ServiceError`;
    its `run_id` is the id of the run and its `run` this object.
    """

    def __init__(
        self,
        runtime: Runtime,
        state: RunState,
        *,
        execution: Execution | Replay | None = None,
        answers: NotebookPrompter | None = None,
        diagram: DomainDiagram | None = None,
        view: bool = True,
        session: RunActions | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        self._runtime = runtime
        self._recorded = None if events is None else Events(events)
        self.attended = False
        """Whether its outcome was read or shown."""
        self._session = session
        self._execution = execution
        self._answers = answers
        self._diagram = diagram
        self._state = state
        self._view = view
        self.cell = None if execution is None else kernel.current_cell()
        """The notebook cell that started it, and the execution of that cell."""
        self.repeated = execution is not None and kernel.unattended() and replaying(runtime.settings)
        self._finished = threading.Event()
        self._displays: list[concurrent.futures.Future[None]] = []
        self._shown = None
        self._future: concurrent.futures.Future[None] | None = None
        if execution is None:
            self._finished.set()
        else:
            begun_runs.add(self)
            self._future = submit(self._drive(execution))
            self._future.add_done_callback(lambda _: self._finished.set())

    # State.

    @property
    def id(self) -> str:
        """The same as `run_id`."""
        return self._state.run_id

    @property
    def run_id(self) -> str:
        """The id under which the run store has the run."""
        return self._state.run_id

    @property
    def state(self) -> RunState:
        """The state after the events so far: a copy, which does not change while the run continues."""
        self._attend()
        execution = self._execution
        if isinstance(execution, Execution) and not self._finished.is_set():
            return execution.journal.snapshot()
        return self._state

    @property
    def status(self) -> str:
        """pending, running, completed, failed, aborted or interrupted."""
        self._attend()
        return str(self._state.status)

    @property
    def _seen(self) -> RunState:
        self._attend()
        return self._state

    @property
    def recorded_state(self) -> RunState:
        """The state itself; reading it does not count as reading the outcome."""
        return self._state

    @property
    def replayed(self) -> bool:
        """Whether this is a replay of a recorded run."""
        return isinstance(self._execution, Replay)

    @property
    def finished(self) -> bool:
        """Whether it has ended, or was opened from the store."""
        return self._finished.is_set()

    @property
    def events(self) -> Events:
        """All events so far, from the run store."""
        if self._recorded is not None:
            return self._recorded
        found: list[Event] = []
        self._read(found.extend)
        return Events(found)

    @property
    def question(self) -> Mapping[str, Any] | None:
        """The first question that waits for an answer: prompt, label, default, timeout, request_id; None when there is none."""
        execution = self._execution
        for question in list(self._state.questions.values()):
            if not isinstance(execution, Execution) or execution.questions.waits(question["request_id"]):
                return question
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        # The record up to now: a run executes only in the process that started it.
        return _recorded_run, (list(self.events), self._state.status == Status.INTERRUPTED)

    def _attend(self) -> None:
        if self._finished.is_set():
            self.attended = True

    # Control.

    def stop(self, reason: str = "stopped by the user") -> None:
        """Abort the run. Safe from any thread, any number of times; a finished run stays as it is.

        Raises:
            RunError: it is running in another process, which alone can stop it.
        """
        if self._execution is None and self._state.status == Status.RUNNING:
            raise RunError(
                "This run is running in another process, or was when it was opened.",
                hint=f"Stop it there; dp.open_run('{self.id}') shows its current state.",
                run_id=self.id,
            )
        if self._execution is not None and not self._finished.is_set():
            self._execution.stop(reason)

    def resume(
        self,
        *,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        view: bool = True,
        **variables: Any,
    ) -> Run:
        """Resume the run after it was interrupted, failed or was stopped; returns at once. Finished nodes never run again.

        Args:
            answers: node label → answer (or list of answers) for user_response nodes.
            inputs: inputs of the run that held secrets, which are not recorded, also as keywords; no others are accepted.
            timeout: seconds for the rest of the run.
            budget: limit for model calls from now on: `dp.Budget(usd=0.1)`.
            trust, allow: what a run that was recorded elsewhere may do; see `dp.start`.
            diagram: the diagram that ran, when it held a credential, which is not recorded, and its file has changed.
            view: False shows the run as a static picture, never live.

        Raises:
            UserError: it is complete (see `fork`), needs what is not recorded, or an answer matches no question.
            StorageError: it is still running, here or in another process.
        """
        return self._of_session().resume(
            self,
            answers=answers,
            inputs=inputs,
            timeout=timeout,
            budget=budget,
            trust=trust,
            allow=allow,
            diagram=diagram,
            view=view,
            **variables,
        )

    @checked_call
    def fork(
        self,
        *,
        at: str | None = None,
        of: int = 1,
        set: Mapping[str, Any] | None = None,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        view: bool = True,
    ) -> Run:
        """Start a new run that reuses what this one had finished, with changes, and runs only the rest again.

            run.fork(at="Judge", set={"nodes.Judge.default_prompt": "…", "persons.Judge.model": "…"})

        Args:
            at: label or id of a node: it, and everything that depends on it, runs again. Default: the nodes that `set`, `model`
                and `inputs` change.
            of: which iteration of the node in a loop (1-based).
            set: changes to the diagram, see `Diagram.set`. A person whose service or model is set keeps it, also when `model` is
                given.
            model: use this model for every other person: `local`, `echo`, `openai:NAME`; default: as in this run.
            answers: node label → answer (or list of answers) for user_response nodes.
            inputs: variables of the run to change; the others stay.
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node after which its loop counts as endless.
            budget: limit for model calls: `dp.Budget(usd=0.1)`.
            trust, allow: what a run that was recorded elsewhere may do; see `dp.start`.
            diagram: the diagram that ran, when it held a credential, which is not recorded, and its file has changed.
            view: False shows the run as a static picture, never live.

        Raises:
            UserError: no such node, no difference from this run, or a change before `at` that iteration `of` depends on.
        """
        return self._of_session().fork(
            self, at=at, of=of, set=set, model=model, answers=answers, inputs=inputs, timeout=timeout,
            max_iterations=max_iterations, budget=budget, trust=trust, allow=allow, diagram=diagram, view=view,
        )  # fmt: skip

    def _of_session(self) -> RunActions:
        return self._session or _facade.default_session()  # a run of another process has none

    @checked_call
    def answer(self, text: str, request_id: str | None = None) -> None:
        """Answer the waiting question, or the one with that id. Safe from any thread; the first answer counts.

        A run of another process can be answered, too: it continues with the answer, or does so when it is resumed.

        Raises:
            RunError: no question waits, not that one, or no longer.
        """
        if isinstance(self._execution, Execution):
            request_id = request_id or (self.question or {}).get("request_id")
            if request_id is None or self._finished.is_set():
                raise no_question(request_id, self.id)
            self._execution.answer(str(request_id), text)
        elif self._execution is None:
            run_sync(self._runtime.answer(self.id, text, request_id=request_id))
        else:
            raise no_question(request_id, self.id)

    def _answered_in_view(self, request_id: str, text: str) -> None:
        with suppress(RunError):  # answered elsewhere meanwhile, or the run has ended: the form disappears in a moment
            self.answer(text, request_id)

    def _orders(self) -> RunOrders | None:
        if self._recorded is not None:
            return None
        return RunOrders(
            self, self._of_session(), self._execution.options.budget if isinstance(self._execution, Execution) else None
        )

    def signal(self, name: str, **payload: Any) -> None:
        """Send the run an event that one of its nodes waits for, or will: `run.signal("approved", by="Ada")`. Any thread.

        Raises:
            RunError: the run is not executing in this process.
        """
        if not isinstance(self._execution, Execution) or self._finished.is_set():
            raise RunError("The run is not executing in this process.", hint="Start or resume it first.", run_id=self.id)
        self._execution.signal(name, payload)

    def _outcome(self) -> RunResult:
        self.attended = True
        error = failure(self._state, self._execution, self._future)
        if error is None:
            return RunResult(self)
        if isinstance(error, DipeoError):
            error.run_id, error.run = self.id, self  # type: ignore[attr-defined]
            vars(error).pop("_render_traceback_", None)  # of an earlier cell
            if self.shown_here and not kernel.unattended():
                short(error, f"Run {self.id}: {self._state.status}. Its view says why.")
        # Without the frames of an earlier call of this method.
        raise error.with_traceback(None)

    async def _drive(self, execution: Execution | Replay) -> None:
        try:
            await self._runtime.run(execution)
        except Exception as error:  # the run store fails, so this error is shown but cannot be recorded
            if not self._state.finished:
                self._state.fail(describe(as_run_error(error, None), None), self._runtime.services.clock.now())
            raise

    @displayed
    def __repr__(self) -> str:
        self._attend()
        return f"Run({self.id!r}, {short_repr(self._state.diagram, 80)}, {static_view.headline(self._state)})"

    def __del__(self) -> None:
        if getattr(self, "_finished", None) is not None:
            begun_runs.say_unattended(self)


def _recorded_run(events: list[Event], was_cut_off: bool) -> Run:
    """A run as it is in another process, or as a copy: its record, without the store that it is in."""
    state = RunState.fold(events)
    if was_cut_off:
        interrupted(state)
    return Run(None, state, diagram=diagram_of(state), events=events)  # type: ignore[arg-type]


# Where these were before, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Answers": "dipeo_nb.notebook.prompter:NotebookPrompter",
            "Conversation": "dipeo_nb.notebook.transcript:Transcript",
            "Explanation": "dipeo_nb.notebook.explanation:RunExplanation",
            "in_kernel": "dipeo_nb.notebook.kernel",
            "unattended": "dipeo_nb.notebook.kernel",
        },
    )

"""A run as an object: watch it, await it, stop it, read it. All of it comes from the event log."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import queue
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dipeo_nb import errors
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import LoopThread, before_exit, run_on_loop, run_sync, submit
from dipeo_nb.common.scrub import logger
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.common.text import displayed, nearest
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Question
from dipeo_nb.errors import DipeoError, RunAbortedError, RunError, UnknownNodeError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.failures import as_run_error, describe
from dipeo_nb.execution.fold import RunState, Spent, interrupted
from dipeo_nb.execution.interaction import no_question, nobody
from dipeo_nb.execution.metrics import RunMetrics, measure, told
from dipeo_nb.execution.options import checked_number
from dipeo_nb.execution.replay import Replay
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.calls import RunGoesOnWarning, warn
from dipeo_nb.notebook.cell_input import CellInput, QuestionOverError, hide_box
from dipeo_nb.notebook.conversation import Conversation, Turns
from dipeo_nb.notebook.interrupts import short, stopping_on_ctrl_c
from dipeo_nb.notebook.safe_markdown import safe
from dipeo_nb.notebook.tables import Events, Outputs, Table

if TYPE_CHECKING:
    import os

    from dipeo_nb.container import Runtime
    from dipeo_nb.diagram.document import Diagram
    from dipeo_nb.domain.budget import Budget
    from dipeo_nb.notebook.session import Session
    from dipeo_nb.notebook.view import LiveDisplay

STOP_GRACE_S = 5.0
"""Seconds an interrupted wait gives the run to write its end, and a finished one its views to draw theirs."""
TICK_S = 0.05
"""Seconds between two looks for a question, and for a kernel's Stop, while a cell waits."""
SENTENCE = 2_000
"""Characters of one sentence about a run; labels of nodes may be of any length."""
VIEW_S = 2.0
"""Seconds that a page has to show a live view and to be heard from."""
PAGE = 500
"""Events read at a time by `async for`."""

_LOG = logger(__name__)
_NODE_KINDS = {"node": str, "status": str, "runs": int, "seconds": float, "tokens": int, "cost_usd": float}

METRIC_KINDS = {
    "node": str, "runs": int, "working_s": float, "waiting_s": float, "share": str, "tokens": int, "cost_usd": float, "retries": int,
}  # fmt: skip

__all__ = ["Answers", "Conversation", "Events", "Explanation", "Run", "RunResult", "Table", "Turns", "in_kernel"]


class RunResult:
    """What a finished run gave. Its display is short; `run` shows everything."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def id(self) -> str:
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
        """Always None: a run that failed raises instead of giving a result. `run.error` has it."""
        return self.run.error

    @property
    def events(self) -> Events:
        return self.run.events

    @property
    def conversation(self) -> Conversation:
        return self.run.conversation

    @property
    def nodes(self) -> Table:
        """One row per node; see `Run.nodes`."""
        return self.run.nodes

    @property
    def metrics(self) -> RunMetrics:
        """See `Run.metrics`."""
        return self.run.metrics

    def explain(self) -> Explanation:
        """See `Run.explain`."""
        return self.run.explain()

    def node(self, reference: str) -> Any:
        """State of a node by label or id: status, runs, output, text, usage, cost_usd, meta."""
        return self.run.node(reference)

    def to_dataframe(self) -> Any:
        """One row per node; see `Run.to_dataframe`."""
        return self.run.to_dataframe()

    def to_dict(self) -> dict[str, Any]:
        """What `dipeo-nb run --json` prints; see `Run.to_dict`."""
        return self.run.to_dict()

    @displayed
    def __repr__(self) -> str:
        state = self.run.state
        outputs = short_repr(dict(self.outputs), 600)
        return f"RunResult({short_repr(state.diagram, 80)}, {static_view.headline(state)}, outputs={outputs})"

    @displayed
    def _repr_html_(self) -> str:
        return static_view.short_html(self.run.state)


class Explanation:
    """A run in words and a table: print it, show it, or paste `markdown` into a report."""

    def __init__(self, metrics: RunMetrics) -> None:
        self.metrics = metrics
        self.sentences = [said if len(said) <= SENTENCE else f"{said[: SENTENCE - 1]}…" for said in told(metrics)]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def table(self) -> Table:
        """One row per node; see `RunMetrics.rows`."""
        return Table(self.metrics.rows, METRIC_KINDS)

    @property
    def markdown(self) -> str:
        rows = self.metrics.rows
        if not rows:
            return self.text
        lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
        for row in rows:
            cells = ("" if value is None else clean(value, 200) for value in row.values())
            lines.append(" | ".join(safe(cell).replace("|", "\\|") for cell in cells))
        return "\n".join([safe(self.text), "", *(f"| {line} |" for line in lines)])

    @displayed
    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    @displayed
    def _repr_html_(self) -> str:
        return static_view.explanation(self.sentences, self.metrics)

    @displayed
    def _repr_markdown_(self) -> str:
        return self.markdown


class Run:
    """One run, going on or over.

    `run` as the last line of a cell shows it live; `await run` or `run.result()` waits for it, gives a `RunResult`, and
    raises what made it fail; `async for event in run` gives every event from the first, however late one comes, and
    simply ends with the run, failed or not.

    What is raised is a `RunError` (`RunAbortedError` when it was stopped) or, when a service failed, a `ServiceError`;
    its `run_id` names the run and its `run` is this object.
    """

    def __init__(
        self,
        runtime: Runtime,
        state: RunState,
        *,
        execution: Execution | Replay | None = None,
        answers: Answers | None = None,
        diagram: DomainDiagram | None = None,
        view: bool = True,
        session: Session | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        self._runtime = runtime
        self._recorded = None if events is None else Events(events)
        self._attended = False
        """Whether somebody has learnt how it ended."""
        self._session = session
        self._execution = execution
        self._answers = answers
        self._diagram = diagram
        self._state = state
        self._view = view
        self._cell = None if execution is None else current_cell()
        """The notebook cell that began it, and the execution of that cell."""
        self._finished = threading.Event()
        self._displays: list[concurrent.futures.Future[None]] = []
        self._future: concurrent.futures.Future[None] | None = None
        if execution is None:
            self._finished.set()
        else:
            _BEGUN.add(self)
            self._future = submit(self._drive(execution))
            self._future.add_done_callback(lambda _: self._finished.set())

    # What it is.

    @property
    def id(self) -> str:
        return self._state.run_id

    @property
    def state(self) -> RunState:
        """The fold over what is written so far: a copy, which does not change while the run goes on."""
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
    def finished(self) -> bool:
        """Whether it is over, or was opened from the store."""
        return self._finished.is_set()

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Endpoint label → value."""
        return Outputs(dict(self._state.outputs))

    @property
    def usage(self) -> TokenUsage:
        return self._state.usage

    @property
    def cost(self) -> float | None:
        """US dollars; None when nothing was spent yet or a price is unknown."""
        return self._state.cost_usd

    @property
    def persons(self) -> Mapping[str, Spent]:
        """Label of each person that answered → usage, cost_usd, calls."""
        return self.state.persons

    @property
    def error(self) -> Mapping[str, Any] | None:
        """type, message, node, hint of what made it fail."""
        self._attend()
        return self._state.error

    @property
    def conversation(self) -> Conversation:
        state = self.state
        return Conversation(state.conversation, state.turns, state.labels)

    @property
    def events(self) -> Events:
        """All events so far, from the run store."""
        if self._recorded is not None:
            return self._recorded

        async def read() -> list[Event]:
            await self._runtime.initialize()
            return await self._runtime.services.store.events(self.id)

        return Events(run_sync(read()) + (list(self._execution.tail) if self._execution is not None else []))

    @property
    def question(self) -> Mapping[str, Any] | None:
        """The (first) question that waits for an answer: prompt, label, default, timeout, request_id; else None."""
        execution = self._execution
        for question in list(self._state.questions.values()):
            if not isinstance(execution, Execution) or execution.questions.waits(question["request_id"]):
                return question
        return None

    def node(self, reference: str) -> Any:
        """State of a node by label or id.

        Raises:
            UnknownNodeError: there is none; the hint has the nearest.
        """
        for node_id, node in self.state.nodes.items():
            if reference in (node_id, self._state.label(node_id)):
                return node
        raise no_node(reference, self._state.labels.values())

    @property
    def nodes(self) -> Table:
        """One row per node, in the order they first ran: node, status, runs, seconds, tokens, cost_usd, output."""
        state = self.state
        rows = (
            {
                "node": state.label(i),
                "status": str(n.status),
                "runs": n.runs,
                "seconds": round(n.duration_s, 3),
                "tokens": n.usage.total,
                "cost_usd": n.cost_usd,
                "output": n.output,
            }
            for i, n in static_view.in_order(state)
        )
        return Table(rows, _NODE_KINDS)

    @property
    def metrics(self) -> RunMetrics:
        """Where its time and money went so far: per node and in all, working and waiting, the critical path, bottlenecks."""
        return replace(measure(self.events), status=self.status)

    def explain(self) -> Explanation:
        """What happened, in words and a table, out of the log: no model is asked."""
        return Explanation(self.metrics)

    def to_dataframe(self) -> Any:
        """`nodes` as a pandas DataFrame. Its columns have the same types for every run, so frames can be put together.

        Raises:
            MissingDependencyError: pandas is not installed; `nodes` has the same rows without it.
        """
        return self.nodes.to_dataframe()

    def to_dict(self) -> dict[str, Any]:
        """The run in a few values of JSON, exactly the object that `dipeo-nb run --json` prints: run_id, status, diagram, outputs,
        node_runs, node_status, usage, cost_usd, duration_s, events, error."""
        self._attend()
        return json.loads(json_text(self._state.report()))

    def __reduce__(self) -> tuple[Any, ...]:
        # As far as it is: a run goes on where it began, and only there.
        return _recorded_run, (list(self.events), self._state.status == Status.INTERRUPTED)

    def _attend(self) -> None:
        if self._finished.is_set():
            self._attended = True

    # What one does with it.

    def stop(self, reason: str = "stopped by the user") -> None:
        """Abort it. Any thread, any number of times; a finished run is not changed.

        Raises:
            RunError: it goes on in another process, which alone can stop it.
        """
        if self._execution is None and self._state.status == Status.RUNNING:
            raise RunError(
                "This run goes on in another process, or did when it was opened.",
                hint=f"Stop it there; dp.open_run('{self.id}') shows how it is now.",
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
        """Go on with it after it was cut off, failed or was stopped; returns at once. What is recorded as finished never runs
        again.

        Args:
            answers: node label → answer (or list of answers) for user_response nodes.
            inputs: with the keywords: inputs of the run that held secrets, which are not recorded; nothing else can be given.
            timeout: seconds for what is left.
            budget: what models may cost from now on: `dp.Budget(usd=0.1)`.
            trust, allow: what a run that was recorded elsewhere may do; as of `dp.start`.
            diagram: what ran, when it held a credential, which is not recorded, and is not in its file any more.
            view: False shows the run as a picture only, never live.

        Raises:
            UserError: it is complete (see `fork`), needs what is not recorded, or answers name no node that asks.
            StorageError: it still goes on, here or in another process.
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
        """Edit in the past: a new run that takes over what this one had done and does only the rest again.

            run.fork(at="Judge", set={"nodes.Judge.default_prompt": "…", "persons.Judge.model": "…"})

        Args:
            at: label or id of a node: it, and all that depends on it, runs again. Default: the nodes that `set`, `model` and
                `inputs` change.
            of: which run of the node in a loop (1-based).
            set: changes of the diagram, as of `Diagram.set`. A person whose service or model it names has that one, also when the
                run moves all others.
            model: moves every other person: `local`, `echo`, `openai:NAME`; default: as in this run.
            answers: node label → answer (or list of answers) for user_response nodes.
            inputs: variables of the run to change; the others stay.
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node before its loop counts as endless.
            budget: what models may cost: `dp.Budget(usd=0.1)`.
            trust, allow: what a run that was recorded elsewhere may do; as of `dp.start`.
            diagram: what ran, when it held a credential, which is not recorded, and is not in its file any more.
            view: False shows the run as a picture only, never live.

        Raises:
            UserError: no such node, nothing to do differently, or a change before `at` on which its run `of` depends.
        """
        return self._of_session().fork(
            self, at=at, of=of, set=set, model=model, answers=answers, inputs=inputs, timeout=timeout,
            max_iterations=max_iterations, budget=budget, trust=trust, allow=allow, diagram=diagram, view=view,
        )  # fmt: skip

    def _of_session(self) -> Session:
        if self._session is None:  # it came from another process
            from dipeo_nb.notebook.session import default_session

            return default_session()
        return self._session

    @checked_call
    def answer(self, text: str, request_id: str | None = None) -> None:
        """Answer the waiting question (or the one named). Any thread; the first answer counts.

        A run that does not go on in this process may be answered, too: one of another process goes on with the answer, one that
        was interrupted does when it is resumed.

        Raises:
            RunError: no question waits, or not that one, or not any more.
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
        with suppress(RunError):  # answered elsewhere meanwhile, or the run is over: the form goes in a moment
            self.answer(text, request_id)

    def signal(self, name: str, **payload: Any) -> None:
        """Tell the run of an event that a node of it waits for, or will: `run.signal("approved", by="Ada")`. Any thread.

        Raises:
            RunError: the run does not go on in this process.
        """
        if not isinstance(self._execution, Execution) or self._finished.is_set():
            raise RunError("The run does not wait for anything here.", hint="Start or resume it first.", run_id=self.id)
        self._execution.signal(name, payload)

    @checked_call
    def result(self, timeout: float | None = None) -> RunResult:
        """Wait for the end, in this thread; questions are asked with input() meanwhile. Ctrl-C or Stop aborts the run.

        Raises:
            RunError, ServiceError: what made the run fail, or RunAbortedError.
            TimeoutError: it was not over after *timeout* seconds; it goes on.
        """
        if threading.current_thread() is LoopThread.get().thread:
            raise RuntimeError("run.result() on dipeo_nb's own event loop would never return; use `await run`.")
        checked_number(timeout, "timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._asking_here() as ask:
                # Short waits: a question may come, and not every platform lets Ctrl-C into a wait without end.
                while not self._finished.wait(TICK_S):
                    if deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutError(f"Run {self.id} is still {self.status} after {timeout:g} s.")
                    ask()
            concurrent.futures.wait(self._displays, timeout=STOP_GRACE_S)
        except KeyboardInterrupt as interrupt:
            self._interrupted(interrupt)
            raise
        return self._outcome()

    @checked_call
    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end without raising what went wrong; False when *timeout* seconds were not enough.

        Nobody is asked here: questions are answered in the live view, by `run.answer` or from elsewhere. Where nothing of that can
        happen (a notebook that runs unattended), they fail at once.
        """
        checked_number(timeout, "timeout")
        if self._answers is None or not unattended():
            return self._finished.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._asking_here() as ask:
            while not self._finished.wait(TICK_S):
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if timeout is None:
                    ask()
        return True

    def __await__(self) -> Generator[Any, None, RunResult]:
        return self._awaited().__await__()

    async def __aiter__(self) -> AsyncIterator[Event]:
        seq = 0
        while events := await self._next_events(seq):
            for event in events:
                seq = event.seq
                yield event

    async def _next_events(self, seq: int) -> list[Event]:
        if self._answers is None or not unattended():
            return await run_on_loop(self._more(seq))
        more = asyncio.ensure_future(run_on_loop(self._more(seq)))
        with self._asking_here() as ask:
            while not more.done():
                await asyncio.wait({more}, timeout=TICK_S)
                ask()
        return more.result()

    async def _awaited(self) -> RunResult:
        # On any loop, mostly a notebook cell's; the end comes from another. The ticks let questions in, and a kernel's
        # Stop, which does not wake an idle `await` (ipykernel#881).
        try:
            with self._asking_here() as ask, stopping_on_ctrl_c(lambda: self.stop("interrupted")):
                pause = 0.001
                while not self._finished.is_set():
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, TICK_S)
                    ask()
            while not all(display.done() for display in self._displays):  # noqa: ASYNC110 - as above
                await asyncio.sleep(TICK_S)
        except (asyncio.CancelledError, KeyboardInterrupt) as interrupt:
            self.stop("interrupted")
            self._attended = True
            until = time.monotonic() + STOP_GRACE_S
            self._show_shortly(interrupt)
            if isinstance(interrupt, asyncio.CancelledError):
                # Whoever cancels it finds it stopped; cancelled again, it waits no longer.
                while not self._finished.is_set() and time.monotonic() < until:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(TICK_S)
            raise
        return self._outcome()

    def _interrupted(self, interrupt: BaseException) -> None:
        """The user interrupted what waits for the run: it ends, and its views with it."""
        self.stop("interrupted")
        self._finished.wait(STOP_GRACE_S)
        concurrent.futures.wait(self._displays, timeout=STOP_GRACE_S)
        self._attended = True
        self._show_shortly(interrupt)

    def _show_shortly(self, interrupt: BaseException) -> None:
        short(interrupt, f"Run {self.id} was stopped.", f"dp.resume('{self.id}') goes on with it.")

    @contextmanager
    def _asking_here(self) -> Iterator[Callable[[], None]]:
        """While a cell waits for the run, questions are asked in that cell: a form needs a page whose messages get
        through to a busy kernel, which not every kernel and front end grants (jupyter.md §2)."""
        answers = self._answers
        if answers is None:
            yield lambda: None
            return
        answers.waiting_cells += 1
        try:
            yield answers.ask_here
        finally:
            answers.waiting_cells -= 1

    @property
    def _how_to_go_on(self) -> str:
        return f"Go on with it: dp.resume('{self.id}')."

    def _outcome(self) -> RunResult:
        self._attended = True
        error: BaseException | None = None
        if self._future is not None:
            if self._future.cancelled():  # the library's loop was closed under it
                error = RunAbortedError("The run was cut off.", hint=self._how_to_go_on)
            else:
                error = self._future.exception()
        if error is None and self._execution is not None:
            error = self._execution.error
        if error is None and self._state.error is not None:
            error = _rebuilt(self._state.error)
        if error is None and self.status == Status.INTERRUPTED:
            error = RunError("The process of this run ended before the run did.", hint=self._how_to_go_on)
        if error is None and not self._state.finished:
            error = RunError("This run still goes on in another process.", hint=f"Open it again later: dp.open_run('{self.id}').")
        if error is None:
            return RunResult(self)
        if isinstance(error, DipeoError):
            error.run_id, error.run = self.id, self  # type: ignore[attr-defined]
        # Without the frames of an earlier call of this method.
        raise error.with_traceback(None)

    # On the loop thread.

    async def _drive(self, execution: Execution | Replay) -> None:
        try:
            await self._runtime.initialize()
            await execution.run()
        except Exception as error:  # the run store refuses, so this failure is shown but cannot be recorded
            if not self._state.finished:
                self._state.fail(describe(as_run_error(error, None), None), self._runtime.services.clock.now())
            raise

    async def _more(self, seq: int) -> list[Event]:
        """Events after *seq*; waits for some, and gives none when the run is over."""
        if self._recorded is not None:
            return [event for event in self._recorded if event.seq > seq][:PAGE]
        await self._runtime.initialize()
        while self._state.events <= seq and not self._finished.is_set():  # noqa: ASYNC110 - a queue per reader is dearer
            await asyncio.sleep(0.02)
        stored = await self._runtime.services.store.events(self.id, after=seq, limit=PAGE)
        if not stored and self._execution is not None:  # the rest of it is not recorded
            return [event for event in self._execution.tail if event.seq > seq][:PAGE]
        return stored

    # How it looks.

    def show(self) -> None:
        """Display the run in the running cell: live while it goes on, at the end (or when it is over) its static picture.

        Outside a kernel: the lines of text, as far as the run is.
        """
        self._attended = self._finished.is_set() or in_kernel()  # a live view will show the end
        if not in_kernel():
            sys.stdout.write(static_view.plain(self.state, self._diagram) + "\n")
            return
        if self._finished.is_set() or self._diagram is None or not self._view:
            from IPython.display import display

            display(self._repr_mimebundle_(), raw=True)
            return
        from dipeo_nb.notebook.view import LiveDisplay

        answers = self._answers

        def reached() -> None:
            if answers is not None:
                answers.form_got_through()

        if answers is not None:
            answers.view_since = time.monotonic()

        live = LiveDisplay(
            self._state,
            self._diagram,
            stop=self.stop,
            answer=self._answered_in_view,
            elsewhere=lambda: answers is not None and answers.waiting_cells > 0 and not answers.form_works,
            reached=reached,
        )
        live.show()
        following = submit(self._follow(live))
        following.add_done_callback(_report)
        self._displays.append(following)

    async def _follow(self, live: LiveDisplay) -> None:
        services = self._runtime.services
        await self._runtime.initialize()
        # Subscribed first: what is stored meanwhile comes twice rather than never, and the view takes each number once.
        subscription = services.bus.subscribe(live.see, run_id=self.id)
        try:
            for event in await services.store.events(self.id):
                live.see(event)
            await live.follow(self._finished.is_set)
        finally:
            services.bus.unsubscribe(subscription)

    def _ipython_display_(self) -> None:
        # Not only a mimebundle: the live view is replaced at the end, for which its output needs a handle.
        self.show()

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The static form of the run as far as it is."""
        return static_view.bundle(self.state, self._diagram)

    @displayed
    def __repr__(self) -> str:
        self._attend()
        return f"Run({self.id!r}, {short_repr(self._state.diagram, 80)}, {static_view.headline(self._state)})"

    def __del__(self) -> None:
        if getattr(self, "_finished", None) is not None:
            _say_unattended(self)


_BEGUN: weakref.WeakSet[Run] = weakref.WeakSet()
"""The runs that this process began and that somebody still holds, or that still go on."""


def _recorded_run(events: list[Event], was_cut_off: bool) -> Run:
    """A run as another process, or a copy, has it: its record, without the store that it is in."""
    state = RunState.fold(events)
    if was_cut_off:
        interrupted(state)
    return Run(None, state, diagram=static_view.diagram_of(state), events=events)  # type: ignore[arg-type]


def _say_unattended(run: Run) -> None:
    """Tell about a run that failed while nobody waited for it."""
    state = run._state
    if run._attended or run._execution is None or isinstance(run._execution, Replay) or not run._finished.is_set():
        return
    run._attended = True
    if state.status == Status.FAILED:
        why = clean((state.error or {}).get("message") or "it could not be recorded", 200)
        _write(
            f"Run {state.run_id} ({clean(state.diagram, 80)}) failed and nobody asked for its result: {why}\n"
            f"See dp.open_run('{state.run_id}'); `await run` or run.result() raises it."
        )


def check_cell() -> None:
    """Warn about runs that an earlier execution of this notebook cell has started: they go on, and nobody sees them any more."""
    here = current_cell()
    for run in list(_BEGUN):
        if here is not None and run._cell is not None and run._cell[0] == here[0] and run._cell != here and not run.finished:
            warn(
                f"This cell has started a run before that still goes on: dp.open_run('{run.id}').stop() ends it.",
                RunGoesOnWarning,
            )


def current_cell() -> tuple[str, str] | None:
    """The notebook cell that is being executed, and this execution of it; None where the front end names no cell."""
    if not in_kernel():
        return None
    get_parent = getattr(sys.modules["IPython"].get_ipython(), "get_parent", None)  # other kernels may have none
    if get_parent is None:
        return None
    request = get_parent()
    cell, execution = request.get("metadata", {}).get("cellId"), request.get("header", {}).get("msg_id")
    return (cell, execution) if cell and execution else None


def _at_exit() -> None:
    """The process ends: say which runs nobody looked at, and which are cut off now."""
    going: list[str] = []
    for run in list(_BEGUN):
        if run._finished.is_set():
            _say_unattended(run)
        elif not isinstance(run._execution, Replay):
            going.append(run.id)
            run._attended = True
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


class Answers:
    """Who answers in a notebook: a cell that waits for the run asks with input() where the form of the live view does not get
    through to a busy kernel; besides, whoever calls `run.answer(…)` first."""

    def __init__(self) -> None:
        self.waiting_cells = 0
        self.form_works = False
        """Whether a live view has been heard from while a cell was at work, so that its form gets through."""
        self.view_since: float | None = None
        """When a live view was shown."""
        self._input = CellInput()
        self._waiting: dict[str, asyncio.Future[tuple[str, str]]] = {}
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()

    async def ask(self, question: Question) -> tuple[str, str]:
        answered: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[question.request_id] = answered
        self._questions.put(question)
        try:
            return await answered
        finally:
            del self._waiting[question.request_id]
            self._input.release(question.request_id)

    def give(self, request_id: str, answer: str | BaseException, source: str = "user") -> None:
        """Answer a question of the run from any thread; the first answer counts."""

        def settle() -> None:
            waiting = self._waiting.get(request_id)
            if waiting is None or waiting.done():
                return
            if isinstance(answer, str):
                waiting.set_result((answer, source))
            else:
                waiting.set_exception(answer)

        LoopThread.get().loop.call_soon_threadsafe(settle)

    def ask_here(self) -> None:
        """Ask the next question that still waits with input(), in this thread (the one a kernel reads from), unless the form of a
        live view gets through. Returns when it is answered or over."""
        if self.form_works or self._view_is_coming():
            return
        question = self._next()
        if question is None:
            return
        request_id, default = question.request_id, question.default
        try:
            if not in_kernel() and not sys.stdin.isatty():
                raise EOFError
            prompt = f"{question.prompt} " if default is None else f"{question.prompt} [{default}] "
            text = self._input.read(prompt, request_id, lambda: request_id in self._waiting)
        except QuestionOverError as over:
            if over.open_box:
                form = request_id in self._waiting
                _close_box(question, "is asked in the form of the view now" if form else "needs no answer any more")
        except KeyboardInterrupt:
            if in_kernel():
                _close_box(question, "needs no answer any more")
            raise
        except (EOFError, NotImplementedError) as error:
            # StdinNotImplementedError of a kernel without a front end (nbclient, nbmake) is a NotImplementedError.
            if default is not None:
                self.give(request_id, default, "default")
            else:
                refused = nobody(question)
                refused.__cause__ = error
                self.give(request_id, refused)
        else:
            if text or default is None:
                self.give(request_id, text)
            else:
                self.give(request_id, default, "default")

    def form_got_through(self) -> None:
        """A live view was heard from. Any thread."""
        if self.waiting_cells > 0 and not self.form_works:
            self.form_works = True
            for request_id in list(self._waiting):
                self._input.release(request_id)

    def _view_is_coming(self) -> bool:
        shown = self.view_since is not None and not unattended()
        return shown and time.monotonic() - (self.view_since or 0.0) < VIEW_S

    def _next(self) -> Question | None:
        while not self._questions.empty():
            question = self._questions.get()
            if question.request_id in self._waiting:
                return question
        return None


def _close_box(question: Question, why: str) -> None:
    """Say why a question is over that somebody still sees: below a cell, or at the end of a terminal's line."""
    said = f"“{clean(question.prompt, 200)}” {why}."
    if in_kernel():
        hide_box(said)
    else:
        sys.stdout.write(f"\n{said}\n")


def no_node(reference: Any, labels: Iterable[str]) -> UnknownNodeError:
    """The error of a node that is not there, with the nearest that is."""
    known = [clean(label, 60) for label in labels]
    near = nearest(reference, known)
    shown = ", ".join(f"'{label}'" for label in known[:20]) + (" …" if len(known) > 20 else "")
    return UnknownNodeError(
        f"There is no node {str(reference)[:80]!r}.", hint=f"Did you mean '{near}'?" if near else f"Nodes: {shown or 'none'}."
    )


def _rebuilt(described: Mapping[str, Any]) -> DipeoError:
    """A recorded error as it was raised; a class this version does not know is a RunError."""
    kind = getattr(errors, str(described.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, DipeoError)):
        kind = RunError
    return kind(str(described.get("message")), hint=described.get("hint"), node=described.get("node"))


def _report(following: concurrent.futures.Future[None]) -> None:
    """A view that breaks must not break the run it shows; it says so in the log."""
    if not following.cancelled() and (error := following.exception()) is not None:
        _LOG.error("The live view of a run ended early: %s", error, exc_info=error)


def unattended() -> bool:
    """Whether this is a kernel without anybody in front of it (nbclient, papermill, nbconvert --execute)."""
    if not in_kernel():
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell.kernel, "_allow_stdin", True) is False


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")

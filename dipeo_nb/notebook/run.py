"""A run as an object: watch it, await it, stop it, read it. All of it comes from the event log."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import sys
import threading
from collections.abc import AsyncIterator, Generator, Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.loop import LoopThread, run_on_loop, run_sync, submit, wait_for_future
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Question
from dipeo_nb.errors import DipeoError, MissingDependencyError, RunError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.fold import RunState
from dipeo_nb.execution.interaction import nobody
from dipeo_nb.notebook import static_view

if TYPE_CHECKING:
    from dipeo_nb.container import Runtime
    from dipeo_nb.notebook.view import LiveDisplay

STOP_GRACE_S = 5.0
"""Seconds an interrupted wait gives the run to write its end."""


class RunResult:
    """What a finished run gave. Its display is short; `run` shows everything."""

    def __init__(self, run: Run) -> None:
        self.run = run

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
    def events(self) -> list[Event]:
        return self.run.events

    @property
    def conversation(self) -> Conversation:
        return self.run.conversation

    def node(self, reference: str) -> Any:
        """State of a node by label or id: status, runs, output, text, usage, cost_usd, meta."""
        return self.run.node(reference)

    def to_dataframe(self) -> Any:
        """One row per node; see `Run.to_dataframe`."""
        return self.run.to_dataframe()

    def __repr__(self) -> str:
        return f"RunResult({self.run.state.diagram!r}, {static_view.headline(self.run.state)}, outputs={dict(self.outputs)!r})"

    def _repr_html_(self) -> str:
        head = f"<p>{static_view.headline(self.run.state)}</p>"
        return head + (static_view.table(("endpoint", "value"), self.outputs.items()) if self.outputs else "")


class Conversation(list[Mapping[str, Any]]):
    """Messages in order: id, from_person_id, to_person_id, content, message_type, timestamp, node_id."""

    def _repr_html_(self) -> str:
        return static_view.conversation_table(self)


class Run:
    """One run, going on or over.

    `run` as the last line of a cell shows it live; `await run` or `run.result()` waits for it and raises what made it
    fail; `async for event in run` gives every event from the first, however late one comes.
    """

    def __init__(
        self,
        runtime: Runtime,
        state: RunState,
        *,
        execution: Execution | None = None,
        answers: Answers | None = None,
        diagram: DomainDiagram | None = None,
    ) -> None:
        self._runtime = runtime
        self._execution = execution
        self._answers = answers
        self._diagram = diagram
        self._state = state
        self._finished = threading.Event()
        self._broken: BaseException | None = None
        self._displays: list[concurrent.futures.Future[None]] = []
        self._changed: asyncio.Event | None = None
        self._future: concurrent.futures.Future[None] | None = None
        if execution is None:
            self._finished.set()
        else:
            self._future = submit(self._drive(execution))

    # What it is.

    @property
    def id(self) -> str:
        return self._state.run_id

    @property
    def state(self) -> RunState:
        """The fold over what is written so far."""
        return self._state

    @property
    def status(self) -> str:
        """pending, running, completed, failed, aborted or interrupted."""
        return str(self._state.status)

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Endpoint label → value."""
        return self._state.outputs

    @property
    def usage(self) -> TokenUsage:
        return self._state.usage

    @property
    def cost(self) -> float | None:
        """US dollars; None when nothing was spent yet or a price is unknown."""
        return self._state.cost_usd

    @property
    def error(self) -> Mapping[str, Any] | None:
        """type, message, node, hint of what made it fail."""
        return self._state.error

    @property
    def conversation(self) -> Conversation:
        return Conversation(self._state.conversation)

    @property
    def events(self) -> list[Event]:
        """All events so far, from the run store."""
        return run_sync(self._runtime.services.store.events(self.id))

    @property
    def question(self) -> Mapping[str, Any] | None:
        """The question that waits for an answer: prompt, label, default, request_id."""
        return self._state.pending_question

    def node(self, reference: str) -> Any:
        """State of a node by label or id.

        Raises:
            KeyError: there is none; the message lists the labels.
        """
        for node_id, node in self._state.nodes.items():
            if reference in (node_id, self._state.label(node_id)):
                return node
        raise KeyError(f"no node '{reference}'; nodes: {', '.join(self._state.labels.values())}")

    def to_dataframe(self) -> Any:
        """One row per node: node, status, runs, seconds, tokens, cost_usd, output. Needs pandas."""
        try:
            import pandas  # pyright: ignore[reportMissingImports,reportMissingModuleSource]
        except ImportError as error:
            raise MissingDependencyError(
                "A DataFrame needs the package 'pandas'.", hint="Run: pip install pandas"
            ) from error
        rows = [
            {
                "node": self._state.label(i),
                "status": str(n.status),
                "runs": n.runs,
                "seconds": n.duration_s,
                "tokens": n.usage.total,
                "cost_usd": n.cost_usd,
                "output": n.output,
            }
            for i, n in self._state.nodes.items()
        ]
        return pandas.DataFrame(rows)

    # What one does with it.

    def stop(self, reason: str = "stopped by the user") -> None:
        """Abort it. Any thread, any number of times; a finished run is not changed."""
        if self._execution is not None and not self._finished.is_set():
            self._execution.stop(reason)

    def answer(self, text: str, request_id: str | None = None) -> None:
        """Answer the waiting question (or the one named)."""
        request_id = request_id or (self.question or {}).get("request_id")
        if request_id is None or self._answers is None:
            raise RunError("No question waits for an answer.", hint="See run.question.", run_id=self.id)
        self._answers.give(str(request_id), text)

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait for the end, in this thread; questions are asked with input() meanwhile. Ctrl-C or Stop aborts the run.

        Raises:
            RunError: the run failed or was aborted; the class says how, `error.run_id` which.
            TimeoutError: it was not over after *timeout* seconds; it goes on.
        """
        if threading.current_thread() is LoopThread.get().thread:
            raise RuntimeError("run.result() on dipeo_nb's own event loop would never return; use `await run`.")
        try:
            self._wait(timeout)
        except KeyboardInterrupt:
            self.stop("interrupted")
            self._finished.wait(STOP_GRACE_S)
            raise
        return self._outcome()

    def __await__(self) -> Generator[Any, None, RunResult]:
        return self._awaited().__await__()

    async def __aiter__(self) -> AsyncIterator[Event]:
        seq = 0
        while True:
            events, over = await run_on_loop(self._more(seq))
            for event in events:
                seq = event.seq
                yield event
            if over and not events:
                return

    async def _awaited(self) -> RunResult:
        if self._future is not None:
            waiting: concurrent.futures.Future[bool] = submit(self._over())
            try:
                await wait_for_future(waiting)
            except asyncio.CancelledError:
                self.stop("interrupted")
                raise
        return self._outcome()

    def _wait(self, timeout: float | None) -> None:
        if self._future is None:
            return
        # Short waits: a wait without end cannot be interrupted on every platform, and questions come in between.
        left = timeout
        while not self._finished.wait(0.05 if left is None else min(0.05, max(left, 0.0))):
            if left is not None:
                left -= 0.05
                if left <= 0:
                    raise TimeoutError(f"Run {self.id} is still {self.status} after {timeout:g} s.")
            if self._answers is not None:
                self._answers.ask_here()
        for display in list(self._displays):
            display.result(STOP_GRACE_S)

    def _outcome(self) -> RunResult:
        if self._broken is not None:
            raise self._broken
        error = self._execution.error if self._execution is not None else None
        if error is not None:
            error.run_id = self.id  # type: ignore[attr-defined]
            raise error
        if self._state.error is not None:
            described = self._state.error
            raise RunError(
                str(described.get("message")), hint=described.get("hint"), run_id=self.id, node=described.get("node")
            )
        if self.status == Status.INTERRUPTED:
            raise RunError(
                "The process of this run ended before the run did.", hint="Run the diagram again.", run_id=self.id
            )
        return RunResult(self)

    # On the loop thread.

    async def _drive(self, execution: Execution) -> None:
        try:
            await self._runtime.initialize()
            await execution.run()
        except DipeoError as error:  # the run store refuses: the run cannot even be recorded as failed
            self._broken = error
        finally:
            self._finished.set()

    async def _over(self) -> bool:
        while not self._finished.is_set():
            await asyncio.sleep(0.02)
        for display in list(self._displays):
            await asyncio.wait_for(asyncio.wrap_future(display), STOP_GRACE_S)
        return True

    async def _more(self, seq: int) -> tuple[list[Event], bool]:
        """Events after *seq*; waits for some unless the run is over."""
        while True:
            over = self._finished.is_set()
            events = await self._runtime.services.store.events(self.id, after=seq)
            if events or over:
                return events, over
            await asyncio.sleep(0.02)

    # How it looks.

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self._finished.is_set() or self._diagram is None:
            display(static_view.bundle(self._state, self._diagram), raw=True)
        else:
            self.show()

    def show(self) -> None:
        """Display the live view in the running cell; at the end it becomes the static picture of the run."""
        from dipeo_nb.notebook.view import LiveDisplay

        assert self._diagram is not None  # only runs opened from the store lack it, and those are over
        live = LiveDisplay(
            self._state, self._diagram, stop=self.stop, answer=lambda request, text: self.answer(text, request)
        )
        live.show()
        self._displays.append(submit(self._follow(live)))

    async def _follow(self, live: LiveDisplay) -> None:
        bus = self._runtime.services.bus
        for event in await self._runtime.services.store.events(self.id):
            live.see(event)
        subscription = bus.subscribe(live.see, run_id=self.id)
        try:
            await live.follow(self._finished.is_set)
        finally:
            bus.unsubscribe(subscription)

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self._state.diagram!r}, {static_view.headline(self._state)})"


class Answers:
    """Who answers in a notebook: given answers first, then whoever comes first of the form in the live view,
    `run.answer(…)`, and input() while a cell waits in `run.result()`."""

    def __init__(self, *, console: bool) -> None:
        self._console = console
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()

    async def ask(self, question: Question) -> tuple[str, str]:
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[question.request_id] = answered
        if self._console:
            self._questions.put(question)
        try:
            return await answered, "user"
        finally:
            del self._waiting[question.request_id]

    def give(self, request_id: str, text: str | BaseException) -> None:
        """Answer from any thread; unknown or answered requests are ignored."""

        def settle() -> None:
            waiting = self._waiting.get(request_id)
            if waiting is None or waiting.done():
                return
            if isinstance(text, str):
                waiting.set_result(text)
            else:
                waiting.set_exception(text)

        LoopThread.get().loop.call_soon_threadsafe(settle)

    def ask_here(self) -> None:
        """Ask what waits with input(), in this thread (the one a kernel reads from)."""
        try:
            question = self._questions.get_nowait()
        except queue.Empty:
            return
        if not in_kernel() and not sys.stdin.isatty():
            self.give(question.request_id, question.default if question.default is not None else nobody(question))
            return
        try:
            text = input(f"{question.prompt} ")
        except (EOFError, NotImplementedError) as error:
            # StdinNotImplementedError of a kernel without a front end (nbclient, nbmake) is a NotImplementedError.
            refused = nobody(question)
            refused.__cause__ = error
            self.give(question.request_id, question.default if question.default is not None else refused)
        else:
            self.give(question.request_id, text or question.default or "")


def in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")

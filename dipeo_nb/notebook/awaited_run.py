"""Waiting for a run: in a thread, in a cell's `await`, event by event; questions are asked meanwhile, and interrupts stop it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import LoopThread, run_on_loop, run_sync
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.options import checked_number
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.snapshots import read_run
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.interrupts import short, stopping_on_ctrl_c
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.run_facts import RunFacts
from dipeo_nb.notebook.tables import Events
from dipeo_nb.runtime import Runtime

STOP_GRACE_S = 5.0
"""Seconds an interrupted wait gives the run to write its end, and a finished one its views to draw theirs."""
TICK_S = 0.05
"""Seconds between two looks for a question, and for a kernel's Stop, while a cell waits."""
PAGE = 500
"""Events read at a time by `async for`."""
R = TypeVar("R")


class AwaitedRun(RunFacts, Generic[R]):
    """A run that one waits for, and what it gives at its end."""

    attended: bool
    """Whether somebody has learnt how it ended."""
    _runtime: Runtime
    _recorded: Events | None
    _execution: Execution | Replay | None
    _answers: NotebookPrompter | None
    _finished: threading.Event
    _displays: list[concurrent.futures.Future[None]]

    @property
    @abstractmethod
    def id(self) -> str: ...

    @abstractmethod
    def stop(self, reason: str = "stopped by the user") -> None: ...

    @abstractmethod
    def _outcome(self) -> R:
        """What it gave; raises what made it fail."""

    @checked_call
    def result(self, timeout: float | None = None) -> R:
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
        if self._answers is None or not kernel.unattended():
            return self._finished.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._asking_here() as ask:
            while not self._finished.wait(TICK_S):
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if timeout is None:
                    ask()
        return True

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def __aiter__(self) -> AsyncIterator[Event]:
        seq = 0
        while events := await self._next_events(seq):
            for event in events:
                seq = event.seq
                yield event

    async def _next_events(self, seq: int) -> list[Event]:
        if self._answers is None or not kernel.unattended():
            return await run_on_loop(self._more(seq))
        more = asyncio.ensure_future(run_on_loop(self._more(seq)))
        with self._asking_here() as ask:
            while not more.done():
                await asyncio.wait({more}, timeout=TICK_S)
                ask()
        return more.result()

    async def _awaited(self) -> R:
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
            self.attended = True
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
        self.attended = True
        self._show_shortly(interrupt)

    def _show_shortly(self, interrupt: BaseException) -> None:
        short(interrupt, f"Run {self.id} was stopped.", f"dp.resume('{self.id}') goes on with it.")

    @contextmanager
    def _asking_here(self) -> Iterator[Callable[[], None]]:
        """While a cell waits for the run, questions are asked in that cell: a form needs a page whose messages get
        through to a busy kernel, which not every kernel and front end grants."""
        answers = self._answers
        if answers is None:
            yield lambda: None
            return
        answers.waiting_cells += 1
        try:
            yield answers.ask_here
        finally:
            answers.waiting_cells -= 1

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

    def _read(self, take: Callable[[Event], object]) -> None:
        async def read() -> None:
            await self._runtime.initialize()
            await read_run(self._runtime.services.store, self.id, take)

        if self._recorded is None:
            run_sync(read())
        for event in list(self._execution.tail) if self._execution is not None else self._recorded or ():
            take(event)

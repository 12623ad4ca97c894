"""Waits for a run: in a thread, in the `await` of a cell, or event by event; meanwhile it asks questions, and an interrupt stops it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import LoopThread, run_on_loop, run_sync
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import UserError
from dipeo_nb.execution import run_file
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.options import checked_number
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.snapshots import pages, read_run
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.interrupts import short, stopping_on_ctrl_c
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.run_facts import RunFacts
from dipeo_nb.notebook.tables import Events
from dipeo_nb.runtime import Runtime

STOP_GRACE_S = 5.0
"""Seconds that an interrupted wait gives the run to record its end, and that a finished run gives its views to draw theirs."""
TICK_S = 0.05
"""Seconds between two checks for a question, and for Stop in the kernel, while a cell waits."""
PAGE = 500
"""Events read at a time by `async for`."""
R = TypeVar("R")


class AwaitedRun(RunFacts, Generic[R]):
    """A run that can be waited for, with the result that it returns."""

    attended: bool
    """Whether its outcome was read or shown."""
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
        """Its result; raises the error that made it fail."""

    @checked_call
    def result(self, timeout: float | None = None) -> R:
        """Wait for the end in this thread, and ask questions with input() meanwhile. Ctrl-C or Stop aborts the run.

        Raises:
            RunError, ServiceError: the error that made the run fail; RunAbortedError when it was stopped.
            TimeoutError: it had not ended after *timeout* seconds; it is still running.
        """
        if threading.current_thread() is LoopThread.get().thread:
            raise RuntimeError("run.result() on dipeo_nb's own event loop would never return; use `await run`.")
        checked_number(timeout, "timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._asking_here() as ask:
                # Short waits: a question may arrive, and not every platform delivers Ctrl-C during a wait without a timeout.
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
        """Wait for the end without raising the run's error; return False when *timeout* seconds were not enough.

        Nothing is asked in the cell: questions are answered in the live view, by `run.answer` or from elsewhere. Where none of these
        is possible (a notebook that a program executes), they fail at once.
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
        seq, last = 0, await self._last()
        while (last is None or seq < last) and (events := await self._next_events(seq)):
            for event in events:
                seq = event.seq
                yield event

    async def _last(self) -> int | None:
        """Where to end with a run that another process executes: if events come faster than they are read, that would be when it ends."""
        if self._execution is not None or self._recorded is not None:
            return None
        row = await run_on_loop(self._runtime.find_run(self.id))
        return row.events

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
        # On any loop, mostly the one of a notebook cell, while the run ends on another. The ticks let in questions, and Stop in the
        # kernel, which does not wake an idle `await` (ipykernel#881).
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
                # The run has stopped when the cancellation takes effect; cancelled again, this waits no longer.
                while not self._finished.is_set() and time.monotonic() < until:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(TICK_S)
            raise
        return self._outcome()

    def _interrupted(self, interrupt: BaseException) -> None:
        """End the run, and its views, after the user interrupted what waits for it."""
        self.stop("interrupted")
        self._finished.wait(STOP_GRACE_S)
        concurrent.futures.wait(self._displays, timeout=STOP_GRACE_S)
        self.attended = True
        self._show_shortly(interrupt)

    def _show_shortly(self, interrupt: BaseException) -> None:
        short(interrupt, f"Run {self.id} was stopped.", f"Resume it: dp.resume('{self.id}').")

    @contextmanager
    def _asking_here(self) -> Iterator[Callable[[], None]]:
        """Ask questions in the cell that waits for the run.

        A form would need a page whose messages reach a busy kernel, which not every kernel and front end supports.
        """
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
        """The events after *seq*; waits until there are some, and returns none when the run has ended."""
        if self._recorded is not None:
            return [event for event in self._recorded if event.seq > seq][:PAGE]
        await self._runtime.initialize()
        while self._state.events <= seq and not self._finished.is_set():  # noqa: ASYNC110 - a queue per reader would cost more
            await asyncio.sleep(0.02)
        stored = await self._runtime.services.store.events(self.id, after=seq, limit=PAGE)
        if not stored and self._execution is not None:  # the rest of it is not recorded
            return [event for event in self._execution.tail if event.seq > seq][:PAGE]
        return stored

    def _add_note(self, first: int, last: int | None, text: str) -> None:
        if self._recorded is not None:
            raise UserError("This is a copy of a run, which takes no notes.", hint=f"Open the run: dp.open_run('{self.id}').")
        run_sync(self._runtime.note(self.id, first, last, text))
        self._catch_up()

    def _catch_up(self) -> None:
        if self._finished.is_set() and self._recorded is None:  # else the journal applies what comes
            run_sync(read_run(self._runtime.services.store, self.id, self._state.apply, after=self._state.events))

    def _logs(self) -> list[run_file.Log]:
        own = run_file.Log(self.state, self._pages)
        return (
            [own]
            if self._recorded is not None
            else [own, *run_sync(run_file.sub_runs(self._runtime.services.store, own.state))]
        )

    async def _pages(self, after: int) -> AsyncIterator[Iterable[Event]]:
        """The events after a number, in pages; on the loop thread."""
        if self._recorded is not None:
            yield [event for event in self._recorded if event.seq > after]
            return
        await self._runtime.initialize()
        async for page in pages(self._runtime.services.store, self.id, after=after):
            yield page
        if self._execution is not None:
            yield [event for event in self._execution.tail if event.seq > after]

    def _read(self, take: Callable[[Iterable[Event]], object]) -> None:
        async def read() -> None:
            await self._runtime.initialize()
            async for page in pages(self._runtime.services.store, self.id):
                take(page)

        if self._recorded is None:
            run_sync(read())
        take(list(self._execution.tail) if self._execution is not None else self._recorded or ())

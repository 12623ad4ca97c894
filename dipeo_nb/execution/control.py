"""How a run ends before its time, and how other threads reach the loop that it lives on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from dipeo_nb.common.loop import closing
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import DipeoError, RunAbortedError, RunInterruptedError, RunTimeoutError
from dipeo_nb.execution.state.rules import taken_over

_LOG = logger(__name__)


class RunControl:
    """Of one run. The first reason to end counts; what is finished stays recorded.

    Args:
        on_halt: ends the work of the nodes; called once, on the loop's thread.
        hurry: called whenever the run is to end before its time, also when only its end is left to be recorded.
    """

    def __init__(self, run_id: str, *, on_halt: Callable[[], None], hurry: Callable[[], None]) -> None:
        self._run_id = run_id
        self._on_halt, self._hurry = on_halt, hurry
        self.failure: DipeoError | None = None
        """Why the run fails."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._stop_reason: str | None = None
        self._stoppable = False
        """True while nodes work. A second stop, or one that comes when the end is being written, changes nothing."""
        self._guard = threading.Lock()

    # From any thread.

    def stop(self, reason: str) -> None:
        """Abort the run. Safe to call before it begins, and twice."""
        with self._guard:
            if self._stop_reason is None:
                self._stop_reason = reason
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.abort)

    def elsewhere(self, method: Callable[..., None], *args: Any) -> bool:
        """Whether this is not the thread of the run's loop; then the method is called there."""
        if self._loop is None or threading.get_ident() == self._thread:
            return False
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(method, *args)
        return True

    @property
    def begun(self) -> bool:
        """Whether the run lives on a loop."""
        return self._loop is not None

    # On the loop's thread.

    def enter(self) -> asyncio.AbstractEventLoop:
        """The run lives on this loop from now on."""
        with self._guard:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        return self._loop

    def open(self) -> None:
        """The work of the nodes can be halted from now on."""
        self._stoppable = True

    def close(self) -> None:
        """Only the end is left."""
        self._stoppable = False

    def look(self) -> None:
        """Abort the run when it was stopped before it began."""
        if self._stop_reason is not None:
            self.abort()

    def fail(self, failure: DipeoError) -> None:
        """Why the run fails; what comes first counts."""
        if self.failure is None:
            self.failure = failure

    def halt(self, failure: DipeoError) -> None:
        """End the run before its time. Its loop is not cancelled, which may be committing; the nodes at work are."""
        if self._stoppable:
            self._stoppable = False
            self.fail(failure)
            self._on_halt()
        self._hurry()

    async def beat(self, store: RunStore, interval: float, recorded: Callable[[], bool]) -> None:
        """Say in the store, again and again, that the run lives; end it when another process has taken it over.

        Args:
            interval: seconds between two heartbeats.
            recorded: whether the store has the run so far; else it cannot know who has it.
        """
        while True:
            await asyncio.sleep(interval)
            try:
                ours = await store.beat(self._run_id)
            except Exception as error:  # noqa: BLE001 - the next append tells whether the store works
                _LOG.warning("Run %s: its heartbeat could not be recorded: %s", self._run_id, error)
                continue
            if not ours and recorded():
                self.halt(taken_over(self._run_id))
                return

    def abort(self) -> None:
        """End it because it was stopped, or because the process ends."""
        if closing() and self._stop_reason in (None, "cancelled"):
            self.halt(
                RunInterruptedError(
                    "The run was cut off: its process ended.",
                    hint=f"Go on with it: dp.resume('{self._run_id}'), or dipeo-nb resume {self._run_id}.",
                    run_id=self._run_id,
                )
            )
        else:
            self.halt(RunAbortedError(f"The run was aborted: {self._stop_reason or 'cancelled'}.", run_id=self._run_id))

    def out_of_time(self, limit: float) -> None:
        """End it because it took longer than *limit* seconds."""
        self.halt(
            RunTimeoutError(
                f"The run took longer than its limit of {limit:g} s.",
                hint="Raise it with timeout= (--timeout, DIPEO_EXECUTION_TIMEOUT).",
                run_id=self._run_id,
            )
        )

"""An event loop whose time is virtual: it stands still while there is work and jumps to the next timer when there is none."""

from __future__ import annotations

import asyncio
import re
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dipeo_nb.common import function_loop
from dipeo_nb.common.loop import LoopThread

T = TypeVar("T")
PATIENCE_S = 60.0
"""Real seconds to wait for a process or thread that gives no sign; then time goes on."""
WORKER = re.compile("dipeo-(?!loop|functions)")
"""Names of threads that work for the library's loop; that of users' async functions stays, and is at work while it has calls."""


class _Selector(selectors.DefaultSelector):
    """Waits for files in real time, and for timers not at all."""

    elapsed = 0.0
    """Virtual seconds since the beginning."""
    processes = 0
    """How many are at work."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        outside = timeout != 0 and self._outside()
        ready = super().select(0)
        if outside and not ready:
            ready = super().select(PATIENCE_S)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select()
        self.elapsed += timeout
        return []

    def _outside(self) -> bool:
        """Whether processes or threads work for the loop."""
        files = len(self.get_map()) > 1  # the first one is the loop's own, which wakes it
        functions = any(loop.calls for loop in function_loop._LOOPS._loops)
        return files or functions or self.processes > 0 or any(WORKER.match(thread.name) for thread in threading.enumerate())


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Timers fire in their order and cost no time; processes and threads take none of it. What is meant for a pool of threads runs
    at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.elapsed

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call it at once: threads would come back in any order."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # raised where it is awaited
            future.set_exception(error)
        return future

    # A process ends some time after its pipes were closed.

    async def _make_subprocess_transport(self, *args: Any, **named: Any) -> Any:
        transport = await super()._make_subprocess_transport(*args, **named)  # type: ignore[misc]
        self._virtual.processes += 1
        return transport

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        self.call_soon_threadsafe(self._process_ended)
        super()._child_watcher_callback(pid, returncode, transport)  # type: ignore[misc]

    def _process_ended(self) -> None:
        self._virtual.processes -= 1


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop in virtual time, which is the library's loop meanwhile, so that models answer on it, too."""
    made, before = asyncio.new_event_loop, LoopThread._current
    asyncio.new_event_loop = VirtualTimeLoop
    try:
        thread = LoopThread._current = LoopThread("golden-loop")
    finally:
        asyncio.new_event_loop = made
    try:
        return thread.submit(work).result()
    finally:
        thread.close()
        LoopThread._current = before
        thread.loop.close()

"""The event loop of async functions that users wrote, apart from the library's own: one that blocks (`time.sleep`, a loop without
`await`) delays neither runs nor their limits, nor the code that stops them.

There is one such loop, which lives as long as the process, so functions may share clients, locks and queues. As on any event loop, a
function that blocks holds the others that are at work there. One that is called meanwhile begins on a spare loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dipeo_nb.common import loop as library_loop
from dipeo_nb.common.loop import LoopThread
from dipeo_nb.common.redaction import logger

T = TypeVar("T")
PATIENCE_S = 1.0
"""Seconds after which a loop that does not answer counts as blocked."""
CLEANUP_S = 5.0
"""Seconds that a cancelled function has for what it does about that (`finally`, `except CancelledError`)."""
_LIBRARIES = (os.path.dirname(os.__file__), sys.prefix, os.path.dirname(os.path.dirname(__file__)))
_LOG = logger(__name__)


async def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a coroutine on the functions' loop. Cancelling the caller cancels it; it has `CLEANUP_S` to end, and is not waited
    for when it blocks. The CancelledError then has a note about it.

    Args:
        work: makes the coroutine, in the caller's context; what it raises is an `Exception` that a future can hold.
    """
    call = _Call(work)
    try:
        return await call.result
    except asyncio.CancelledError as error:
        if why := await call.cancel():
            error.add_note(why)
        raise
    finally:
        call.timer.cancel()


class _Loop(LoopThread):
    """A loop for functions. Its attributes are those of `_Loops`, under its lock."""

    def __init__(self) -> None:
        self.blocked = False
        self.calls = 0
        self.ended = False
        super().__init__("dipeo-functions")

    @property
    def why(self) -> str:
        """Why it does not answer, and what to do."""
        return (
            f"An async function blocks the event loop that it shares with others{_place(self.thread)}. Await what takes long, or "
            "write the function with `def`: it then has a thread of its own."
        )

    def interrupt(self, task: asyncio.Task[Any] | None) -> bool:
        """Raise CancelledError in a task at work, where it is; false when another task is. What does not come back to Python code
        (`time.sleep`) meets it only when it does."""
        import ctypes

        if task is None or asyncio.current_task(self.loop) is not task:
            return False
        thread = ctypes.c_ulong(self.thread.ident or 0)
        return ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(asyncio.CancelledError)) == 1

    def _run(self) -> None:
        super()._run()
        if self.ended:
            self.loop.close()


def _place(thread: threading.Thread) -> str:
    """The location where a thread is at work: the innermost line that is neither Python's own nor of an installed package."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    return "" if frame is None else f", in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"


class _Loops:
    """Those of this process: the one for all, and spare ones while it is blocked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loops: list[_Loop] = []

    def acquire(self) -> _Loop:
        """A loop for one call: the first that is not blocked. Created again after a fork."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._loops = os.getpid(), []
            loops = self._loops = [loop for loop in self._loops if loop.thread.is_alive()]
            found = next((loop for loop in loops if not loop.blocked), None)
            if found is None:
                found = _Loop()
                loops.append(found)
            found.calls += 1
            return found

    def release(self, loop: _Loop) -> None:
        """The call is over."""
        with self._lock:
            loop.calls -= 1
            alone = len(self._loops) == 1
        if not alone:
            self._tidy()

    def block(self, loop: _Loop) -> None:
        """Begin nothing on a loop until it answers."""
        with self._lock:
            if loop.blocked:
                return
            loop.blocked = True
        _LOG.warning("%s", loop.why)
        loop.loop.call_soon_threadsafe(self._answers, loop)

    def _answers(self, loop: _Loop) -> None:
        with self._lock:
            loop.blocked = False
        self._tidy()

    def _tidy(self) -> None:
        """End spare loops that nothing needs any more."""
        with self._lock:
            answering = [loop for loop in self._loops if not loop.blocked]
            spare = [loop for loop in answering[1:] if not loop.calls]
            self._loops = [loop for loop in self._loops if loop not in spare]
            for loop in spare:
                loop.ended = True
                loop.stop()

    def close(self) -> None:
        """The process ends: cancel what runs."""
        with self._lock:
            loops, self._loops = self._loops, []
        for loop in loops:
            loop.close(0.1 if loop.blocked else CLEANUP_S)


_LOOPS = _Loops()
library_loop.after_shutdown(_LOOPS.close)


class _Call:
    """One call: by the loop that waits for it (here), and by the one that it runs on (there)."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._work = work
        self._here = asyncio.get_running_loop()
        self.result: asyncio.Future[Any] = self._here.create_future()
        self._over = False
        self._news = asyncio.Event()
        """It has answered, or is over."""
        self._lock = threading.Lock()
        self._asked: _Loop | None = None
        """The loop that is to begin it; None when it has begun, or is given up."""
        self._there: _Loop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._beginning: asyncio.Task[Any] | None = None
        """Kept here, since an event loop does not."""
        self._ask()

    # Here.

    def _ask(self) -> None:
        self._asked = loop = _LOOPS.acquire()
        loop.loop.call_soon_threadsafe(self._begin, loop)
        self.timer = self._here.call_later(PATIENCE_S, self._late, loop)

    def _given_up(self, loop: _Loop | None) -> bool:
        """Whether a loop has not begun it, and will not any more."""
        with self._lock:
            if loop is None or self._asked is not loop:
                return False
            self._asked = None
        _LOOPS.release(loop)
        return True

    def _late(self, loop: _Loop) -> None:
        if self._given_up(loop):
            _LOOPS.block(loop)
            self._ask()

    async def cancel(self) -> str | None:
        """Cancel it, and wait for its end; when that does not come, why."""
        self.timer.cancel()
        if self._over or self._given_up(self._asked):
            return None
        there = self._there
        assert there is not None
        there.loop.call_soon_threadsafe(self._cancel)
        if not await self._heard(PATIENCE_S):
            _LOOPS.block(there)
            why = there.why
            if there.interrupt(self._task):
                await self._heard(PATIENCE_S)
            return why
        if self._over:
            return None
        self._news.clear()
        if await self._heard(CLEANUP_S):
            return None
        return f"The async function kept running {CLEANUP_S:g} s after it was cancelled. Let it raise CancelledError again."

    async def _heard(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        except TimeoutError:
            return False

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._over = True
        self._news.set()
        if self.result.done():
            return  # cancelled
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)

    # There.

    def _begin(self, loop: _Loop) -> None:
        self._beginning = loop.loop.create_task(self._begun(loop))

    async def _begun(self, loop: _Loop) -> None:
        # Only now, as another task may block the loop before this one has its first turn.
        with self._lock:
            if self._asked is not loop:
                return
            self._asked, self._there = None, loop
            self._task = asyncio.current_task()
        try:
            value = await self._work()
        except asyncio.CancelledError:
            self._ended(None, RuntimeError("CancelledError: its task was cancelled"))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            self._ended(None, error)
        else:
            self._ended(value, None)

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        self._tell(self._news.set)

    def _ended(self, value: Any, error: BaseException | None) -> None:
        # Not in a callback of the task: before that has its turn, another task may block the loop.
        assert self._there is not None
        _LOOPS.release(self._there)
        self._tell(self._end, value, error)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        if not self._here.is_closed():
            self._here.call_soon_threadsafe(callback, *args)

"""Ctrl-C and a kernel's Stop: what they end, and how they are shown."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple


def short(interrupt: BaseException, what: str, hint: str = "") -> None:
    """Have IPython show an exception in a line or two instead of with the frames of our waiting."""
    lines = [f"\x1b[31m{type(interrupt).__name__}\x1b[0m: {what}", *([hint] if hint else [])]
    interrupt._render_traceback_ = lambda: lines  # type: ignore[attr-defined]



class _Waiting(NamedTuple):
    """Something that the main thread awaits."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[object] | None
    stop: Callable[[], object]


_waiting: list[_Waiting] = []


@contextmanager
def stopping_on_ctrl_c(stop: Callable[[], object]) -> Iterator[None]:
    """While the main thread awaits something, have Ctrl-C call *stop* also where nobody cancels the awaiting task: IPython's
    terminal leaves its loop with the KeyboardInterrupt, and the task stays behind for ever."""
    here = _Waiting(asyncio.get_running_loop(), asyncio.current_task(), stop)
    if threading.current_thread() is not threading.main_thread() or not _installed():
        yield
        return
    _waiting.append(here)
    try:
        yield
    finally:
        if here in _waiting:
            _waiting.remove(here)
        if not _waiting and signal.getsignal(signal.SIGINT) is _on_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _installed() -> bool:
    """Put our handler in the place of Python's own; where there is another, as in a kernel or in `asyncio.run`, it sees to the
    cancelling of tasks."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
        return True
    return handler is _on_interrupt


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = [one for one in _waiting if one.loop.is_running()]  # the others are awaited by tasks that stand still meanwhile
    for one in stopped:
        _waiting.remove(one)
        one.stop()
        if one.task is not None:
            one.loop.call_soon_threadsafe(one.task.cancel)  # should the loop run again, the task ends quietly
    interrupt = KeyboardInterrupt()
    if stopped:
        short(interrupt, "What was awaited was stopped.")
    raise interrupt

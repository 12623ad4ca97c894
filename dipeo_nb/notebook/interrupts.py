"""Ctrl-C and a kernel's Stop: what they end, and how they are shown."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Stoppable(Protocol):
    """What can be stopped from any thread."""

    def stop(self, reason: str = ...) -> None: ...


def short(interrupt: BaseException, what: str, hint: str = "") -> None:
    """Have IPython show an exception in a line or two instead of with the frames of our waiting."""
    lines = [f"\x1b[31m{type(interrupt).__name__}\x1b[0m: {what}", *([hint] if hint else [])]
    interrupt._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


_waiting: list[tuple[asyncio.AbstractEventLoop, Stoppable]] = []
"""What the main thread awaits, and the loop that it does it on."""


@contextmanager
def stopping_on_ctrl_c(run: Stoppable) -> Iterator[None]:
    """While the main thread awaits *run*, Ctrl-C stops it also where nobody cancels the awaiting task: IPython's terminal leaves
    its loop with the KeyboardInterrupt, and the task stays behind for ever."""
    here = (asyncio.get_running_loop(), run)
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
    for loop, run in _waiting:
        if loop.is_running():  # else it is awaited by a task that stands still meanwhile
            run.stop("interrupted")
    _waiting[:] = [(loop, run) for loop, run in _waiting if not loop.is_running()]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.default_int_handler(number, frame)

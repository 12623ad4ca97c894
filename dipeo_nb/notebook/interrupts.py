"""Ctrl-C, and Stop in a kernel: what they end, and how they are shown."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple


def short(interrupt: BaseException, what: str, hint: str = "") -> None:
    """Make IPython show an exception in a line or two, without the frames of our waiting."""
    lines = [f"\x1b[31m{type(interrupt).__name__}\x1b[0m: {what}", *([hint] if hint else [])]
    interrupt._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


class _Waiting(NamedTuple):
    """An operation that the main thread awaits."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[object] | None
    stop: Callable[[], object]


_waiting: list[_Waiting] = []


@contextmanager
def stopping_on_ctrl_c(stop: Callable[[], object]) -> Iterator[None]:
    """While the main thread awaits something, make Ctrl-C call *stop*, also where the awaiting task is not cancelled.

    IPython's terminal leaves its loop with the KeyboardInterrupt, and the task would stay behind forever.
    """
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
    """Replace Python's own handler with ours; another one, as in a kernel or in `asyncio.run`, cancels the tasks itself."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
        return True
    return handler is _on_interrupt


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = [one for one in _waiting if one.loop.is_running()]  # the tasks that await the others are not running now
    for one in stopped:
        _waiting.remove(one)
        one.stop()
        if one.task is not None:
            one.loop.call_soon_threadsafe(one.task.cancel)  # should the loop run again, the task ends quietly
    interrupt = KeyboardInterrupt()
    if stopped:
        short(interrupt, "The awaited call was stopped.")
    raise interrupt

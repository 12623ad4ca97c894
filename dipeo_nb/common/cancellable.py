"""Work in worker threads that can be cancelled: nothing can stop a thread from outside, so it asks at each of its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy.module("asyncio")  # who only reads and writes files needs no event loop

T = TypeVar("T")

COMMIT_WAIT_S = 0.02
"""Seconds that a cancellation waits for a change that is being made at that moment."""


class WorkCancelledError(BaseException):
    """Nobody waits for the work of this thread any more. No `Exception`: it passes through what handles the errors of the work."""


class _Work:
    """The work of a thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self.committing = threading.Lock()

    def cancel(self) -> None:
        """From now on nothing is committed. A change that has begun is not waited for longer than `COMMIT_WAIT_S`."""
        self.cancelled = True
        if self.committing.acquire(timeout=COMMIT_WAIT_S):
            self.committing.release()


_current: ContextVar[_Work | None] = ContextVar("dipeo_cancellable_work", default=None)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """As `asyncio.to_thread`. When the waiting is cancelled, by a time limit for example, the work ends at its next `check`,
    and no `commit` of it begins any more."""
    work = _Work()

    def run() -> T:
        _current.set(work)  # in the thread's copy of the context
        check()
        return function(*arguments)

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        work.cancel()
        raise


def is_cancelled() -> bool:
    """Whether the caller of this thread's work has stopped waiting."""
    work = _current.get()
    return work is not None and work.cancelled


def check() -> None:
    """A checkpoint in long work. Raises WorkCancelledError when its caller has stopped waiting."""
    if is_cancelled():
        raise WorkCancelledError


@contextmanager
def commit() -> Iterator[None]:
    """The moment in which a change comes into force: it is made before a cancellation, or not at all. Raises as `check`."""
    work = _current.get()
    if work is None:
        yield
        return
    with work.committing:
        if work.cancelled:
            raise WorkCancelledError
        yield

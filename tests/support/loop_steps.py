"""How long the steps on the library's event loop take: while one goes on, every other run and every client waits.

    LOOP_STEPS=/tmp/steps.txt pytest tests/unit/notebook

appends to that file, longest first, each step that took more than 20 ms of the loop thread's CPU: milliseconds, what it was, and the
test. Nothing is asserted, and without the variable nothing is measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.loop import LoopThread

LIMIT_S = 0.020
"""CPU seconds of a step that count as long."""


class Step(NamedTuple):
    """A long step."""

    seconds: float
    what: str
    test: str


@contextmanager
def recorded(limit: float = LIMIT_S) -> Iterator[list[Step]]:
    """The steps of the library's loop that took longer than *limit* CPU seconds, as they come."""
    found: list[Step] = []
    run = asyncio.Handle._run

    def timed(handle: Any) -> None:
        current = LoopThread._current
        if current is None or handle._loop is not current.loop:
            run(handle)
            return
        callback, begin = handle._callback, time.thread_time()
        run(handle)
        if (taken := time.thread_time() - begin) > limit:
            found.append(Step(taken, _named(callback), os.environ.get("PYTEST_CURRENT_TEST", "")))

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield found
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


def _named(callback: Any) -> str:
    """What a callback does: the coroutine of a task with the line where it waits now, else the function."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return getattr(callback, "__qualname__", repr(callback))
    coro: Any = task.get_coro()
    places: list[str] = []
    while coro is not None and len(places) < 12:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        places.append(f"{getattr(coro, '__qualname__', coro)}:{frame.f_lineno if frame else 'ended'}")
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return " > ".join(places)


@contextmanager
def reported() -> Iterator[None]:
    """Append long steps to the file that LOOP_STEPS names, if it names one."""
    path = os.environ.get("LOOP_STEPS")
    if not path:
        yield
        return
    with recorded() as found:
        yield
    lines = [f"{step.seconds * 1000:7.1f} ms  {step.what}  [{step.test}]" for step in sorted(found, reverse=True)]
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))

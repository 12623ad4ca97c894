"""Waiting for what happens elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Found = TypeVar("Found")


@contextmanager
def cpu_within(seconds: float) -> Iterator[None]:
    """The work takes no more CPU time of this thread, whatever else the machine does; many times what it needs."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < seconds


async def until(true: Callable[[], bool], *, seconds: float = 40) -> None:
    """Wait until something is so; the limit only ends a test that would hang."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


def wait_until(true: Callable[[], Found], *, seconds: float = 40) -> Found:
    """Wait, outside of an event loop, until something is so; what it gave then."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
    return found

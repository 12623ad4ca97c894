"""What asyncio leaves to its users."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def uncancelled(work: Awaitable[T]) -> T:
    """Await *work* to its end. A cancellation that comes meanwhile does not reach it; it is raised when the work is done."""
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # else asyncio complains that nobody asked for it
    raise cancelled


async def gather_limited(work: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int) -> list[R]:
    """What *work* gives for each item, in their order, at most *limit* of them at a time. The first error ends the others."""
    turns = asyncio.Semaphore(limit)

    async def one(item: T) -> R:
        async with turns:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def closing_iterator(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Close *items* on leaving, if it can be closed: `contextlib.aclosing` for iterators that need not be generators."""
    try:
        yield items
    finally:
        if (close := getattr(items, "aclose", None)) is not None:
            await close()

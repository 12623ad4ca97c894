"""What asyncio leaves to its users."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import TypeVar

T = TypeVar("T")


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


@contextlib.asynccontextmanager
async def closing_iterator(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Close *items* on leaving, if it can be closed: `contextlib.aclosing` for iterators that need not be generators."""
    try:
        yield items
    finally:
        if (close := getattr(items, "aclose", None)) is not None:
            await close()

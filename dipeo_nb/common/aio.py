"""Helpers for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from types import CoroutineType
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Done(Coroutine[Any, Any, None]):
    """A coroutine whose work is done; it can be awaited any number of times."""

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()

    def __repr__(self) -> str:
        return "DONE"


DONE: CoroutineType[Any, Any, None] = _Done()  # pyright: ignore[reportAssignmentType] - it is used as any other
"""What a function whose work may have to be awaited returns when it has done it at once: that saves a coroutine, and awaiting it."""


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
        future.exception()  # else asyncio reports it as never retrieved
    raise cancelled


def begun(work: Awaitable[None]) -> Awaitable[None]:
    """Begin *work*, as awaiting it would. Return DONE when it is done already, else what is to be awaited at once in this task."""
    if not isinstance(work, CoroutineType):
        return work
    try:
        return _Begun(work, work.send(None))
    except StopIteration:
        return DONE


class _Begun:
    """The rest of a coroutine that waits for *awaited*."""

    def __init__(self, work: CoroutineType[Any, Any, None], awaited: Any) -> None:
        self._work, self._awaited = work, awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - as `yield from` does
                resume = functools.partial(self._work.throw, error)
            else:
                resume = functools.partial(self._work.send, value)
            try:
                awaited = resume()
            except StopIteration:
                return


async def on_loop(loop: asyncio.AbstractEventLoop | None, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await *work* on an event loop, whichever the caller's own is; on the caller's when that one is None or does not run."""
    if loop is None or not loop.is_running() or loop is asyncio.get_running_loop():
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


async def gather_limited(work: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int) -> list[R]:
    """The results of *work* for each item, in their order, at most *limit* at a time. The first error cancels the others."""
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

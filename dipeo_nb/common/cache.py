"""One computation for many callers who want the same thing at the same time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from cachetools import LRUCache, TTLCache

T = TypeVar("T")


class SingleFlightCache(Generic[T]):
    """A cache in which concurrent callers of one key share one execution. Safe from threads and from several event loops.

    The work runs in a task of its own: a caller that is cancelled (Stop in a notebook) leaves the others alone, and only when
    nobody waits any more is the work cancelled. When the loop of the work goes away, a waiter takes over. Errors reach
    everybody who waited and are not kept.

    Args:
        ttl: seconds that a value is kept; None: for ever.
        maxsize: values kept at most; the one unused for longest leaves first.
        timer: seconds, monotonic.
    """

    def __init__(
        self, ttl: float | None = None, maxsize: int = 1024, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._values: LRUCache[Hashable, T] | TTLCache[Hashable, T] = (
            LRUCache(maxsize) if ttl is None else TTLCache(maxsize, ttl, timer)
        )
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._lock = threading.Lock()

    async def get_or_create(self, key: Hashable, factory: Callable[[], Awaitable[T]], cache_result: bool = True) -> T:
        """The value of *key*: the kept one, that of the execution going on, or a new one.

        Args:
            factory: makes the value; called at most once at a time for a key.
            cache_result: False keeps nothing: the next call after this one calls *factory* again.

        Raises:
            Exception: what *factory* raised.
        """
        while True:
            with self._lock:
                if cache_result and key in self._values:
                    with contextlib.suppress(KeyError):  # it may expire between the two
                        return self._values[key]
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight()
                    flight.start(self._work(key, flight, factory, cache_result))
                flight.waiting += 1
            try:
                return await flight.landed()
            except _AbandonedError:
                continue
            finally:
                with self._lock:
                    flight.waiting -= 1
                    if not flight.waiting:
                        flight.cancel()

    def clear(self, key: Hashable = None) -> None:
        """Forget the value of *key*, or all of them (None). What is being made is made all the same."""
        with self._lock:
            if key is None:
                self._values.clear()
            else:
                self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)

    async def _work(
        self, key: Hashable, flight: _Flight[T], factory: Callable[[], Awaitable[T]], cache_result: bool
    ) -> None:
        try:
            value = await factory()
        except BaseException as error:
            with self._lock:
                self._flights.pop(key, None)
            if isinstance(error, asyncio.CancelledError):
                flight.result.set_exception(_AbandonedError())
                raise
            flight.result.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            with self._lock:
                self._flights.pop(key, None)
                if cache_result:
                    self._values[key] = value
            flight.result.set_result(value)


class _AbandonedError(Exception):
    """The work was cancelled before it had a value."""


class _Flight(Generic[T]):
    """One execution, and who waits for it."""

    def __init__(self) -> None:
        self.result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.waiting = 0
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Any) -> None:
        self._task = self._loop.create_task(work)

    def cancel(self) -> None:
        if self._task is not None and not self.result.done():
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the task with it
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def landed(self) -> T:
        """The result, from any loop; cancelling the wait does not cancel the work."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop and self._loop.is_closed() and not self.result.done():
            self.result.set_exception(_AbandonedError())
        news: asyncio.Future[None] = loop.create_future()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits there any more
                loop.call_soon_threadsafe(lambda: news.done() or news.set_result(None))

        self.result.add_done_callback(tell)
        await news
        return self.result.result()

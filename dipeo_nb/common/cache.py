"""One computation for many callers who want the same thing at the same time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache, TTLCache

T = TypeVar("T")

LOOK_S = 0.5
"""Seconds between two looks of a waiter at the event loop that does the work, when that is another one."""


class SingleFlightCache(Generic[T]):
    """A cache in which concurrent callers of one key share one execution. Safe from threads and from several event loops.

    The work runs in a task of its own: a caller that is cancelled (Stop in a notebook) leaves the others alone, and only when
    no caller waits is the work cancelled. When the loop of the work is closed or stopped, a waiter on another loop takes
    over. Errors reach everybody who waited and are not kept; so does the cancellation of something that the factory awaits.

    Args:
        ttl: seconds that a value is kept; None: forever.
        maxsize: values kept at most, 0 for none; the one unused for longest leaves first.
        timer: seconds, monotonic.
    """

    def __init__(self, ttl: float | None = None, maxsize: int = 1024, *, timer: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(maxsize, int) or maxsize < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"maxsize is {maxsize!r}; it must be an integer >= 0 (0 keeps nothing)")
        self._values: LRUCache[Hashable, T] | TTLCache[Hashable, T] = (
            LRUCache(maxsize) if ttl is None else TTLCache(maxsize, ttl, timer)
        )
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._lock = threading.RLock()

    async def get_or_create(self, key: Hashable, factory: Callable[[], Awaitable[T]], cache_result: bool = True) -> T:
        """The value of *key*: the kept one, that of a running execution, or a new one.

        Args:
            factory: makes the value; called at most once at a time for a key.
            cache_result: False keeps nothing: the next call after this one calls *factory* again.

        Raises:
            Exception: what *factory* raised.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if cache_result and key in self._values:
                    with contextlib.suppress(KeyError):  # it may expire between the two
                        return self._values[key]
                flight = self._flights.get(key)
                leads = flight is None or flight.is_over
                if flight is None or leads:
                    flight = self._flights[key] = _Flight(loop, keep=cache_result)
                flight.waiting += 1
            try:
                if leads:  # outside the lock: a loop with eager tasks runs the factory here
                    flight.start(factory, functools.partial(self._ended, key, flight))
                return await flight.landed()
            except _AbandonedError:
                # Another loop went away, or this caller came when all others had just gone: it does the work itself. A
                # cancellation of the task on this very loop is meant for the callers, too.
                if flight.loop is loop and not flight.dropped:
                    raise asyncio.CancelledError from None
            finally:
                with self._lock:
                    flight.waiting -= 1
                    if not flight.waiting:
                        flight.drop()

    def clear(self, key: Hashable = None) -> None:
        """Forget the value of *key*, or all of them (None). What is being made still reaches its callers, but is not kept."""
        with self._lock:
            if key is None:
                self._values.clear()
            else:
                self._values.pop(key, None)
            for flown, flight in self._flights.items():
                if key is None or flown == key:
                    flight.keep = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)

    def _ended(self, key: Hashable, flight: _Flight[T], task: asyncio.Task[T]) -> None:
        """Called when the task of a flight is done, however it ended: also when it was cancelled before it began."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if task.cancelled():
                # The task was cancelled, or the factory met the cancellation of something else.
                flight.fail(_AbandonedError() if task.cancelling() else asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                flight.fail(error)
            else:
                value = task.result()
                try:
                    if flight.keep and self._values.maxsize >= 1:
                        self._values[key] = value
                except Exception as error:  # noqa: BLE001 - a key or clock that fails fails the call, so that no caller waits forever
                    flight.fail(error)
                flight.succeed(value)


class _AbandonedError(Exception):
    """The work was cancelled before it had a value, or its loop has stopped."""


class _Flight(Generic[T]):
    """One execution, and who waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, keep: bool) -> None:
        self.loop = loop
        self.keep = keep
        self.waiting = 0
        self.dropped = False
        """Whether the work was cancelled because no caller waited."""
        self._result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[T] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self._result.done() or self.loop.is_closed()

    def start(self, factory: Callable[[], Awaitable[T]], ended: Callable[[asyncio.Task[T]], None]) -> None:
        async def work() -> T:
            return await factory()

        self._task = self.loop.create_task(work())
        self._task.add_done_callback(ended)

    def drop(self) -> None:
        """Cancel the work."""
        if self._task is not None and not self._result.done():
            self.dropped = True
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the task with it
                self.loop.call_soon_threadsafe(self._task.cancel)

    def succeed(self, value: T) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # given up by a waiter; its loop runs again
            self._result.set_result(value)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self._result.set_exception(error)

    async def landed(self) -> T:
        """The result, from any loop; cancelling the wait does not cancel the work."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()

        def notify(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # there are no waiters
                loop.call_soon_threadsafe(lambda: news.done() or news.set_result(None))

        self._result.add_done_callback(notify)
        while loop is not self.loop and not news.done():
            await asyncio.wait([news], timeout=LOOK_S)
            if not self.loop.is_running():
                self.fail(_AbandonedError())
        await news
        return self._result.result()

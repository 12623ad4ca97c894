"""The library's one event loop, on one daemon thread (architecture rule 4).

All async work runs here, so HTTP clients never meet a second loop and a notebook cell never meets "event loop is
already running". Measured: 0.2 ms a call. A daemon thread does not hold the interpreter's exit;
an open portal would.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import concurrent.futures.thread
import contextlib
import inspect
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from dipeo_nb.common.aio import closing_iterator
from dipeo_nb.common.redaction import logger

T = TypeVar("T")
CLOSE_S = 5.0
"""Seconds that a reader who leaves waits for an iterator on the library's loop to be closed."""
TICK_S = 0.2
"""Seconds after which a wait for the library's loop looks up."""
BURST = 64
"""Items that are taken from the library's loop in a row at most."""
FAILURES = 100
"""Errors of the loop itself after which it counts as broken."""
_LOG = logger(__name__)


class LoopThread:
    """A daemon thread that runs an event loop for as long as the process lives; created again after a fork."""

    _current: LoopThread | None = None
    _lock = threading.Lock()

    def __init__(self, name: str = "dipeo-loop") -> None:
        self.pid: int = os.getpid()
        self.closing = False
        """Whether what runs is cancelled because the loop ends, mostly with its process."""
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._closing = False
        self._submitted: weakref.WeakSet[concurrent.futures.Future[Any]] = weakref.WeakSet()
        self.thread: threading.Thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        failures = 0
        try:
            while not self._closing:
                try:
                    self.loop.run_forever()  # ends early when a task or callback of a user's stops the loop
                except (SystemExit, KeyboardInterrupt) as error:
                    # asyncio lets them escape from the loop; the task that raised them has them as its result.
                    _LOG.error("Code on the event loop raised %r; the loop continues", error)
                except BaseException as error:
                    failures += 1
                    if failures > FAILURES or self.loop.is_closed():
                        raise
                    _LOG.error("The event loop failed and continues", exc_info=error)
        finally:
            self._fail_pending()

    def _fail_pending(self) -> None:
        """Nobody waits for a loop that does not turn any more."""
        for future in list(self._submitted):
            if not future.done():
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    future.set_exception(
                        RuntimeError("The event loop of dipeo_nb has ended; what ran on it is lost. Run it again.")
                    )

    @classmethod
    def get(cls) -> LoopThread:
        """The process's loop thread, started on first use."""
        with cls._lock:
            current = cls._current
            if current is None or current.pid != os.getpid() or not current.thread.is_alive():
                current = cls._current = cls()
            return current

    def submit(self, coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start *coro* on the loop from any thread. Interrupted (Ctrl-C), it does not run on behind the caller's back."""
        try:
            future = asyncio.run_coroutine_threadsafe(coro, self.loop)
        except BaseException:
            self._take_back(coro)
            raise
        self._submitted.add(future)
        if not self.thread.is_alive():  # it ended meanwhile
            self._fail_pending()
        return future

    def _take_back(self, coro: Coroutine[Any, Any, Any]) -> None:
        """See that a coroutine ends that may have been handed over: an interrupt can arrive at any moment of that."""

        def end() -> None:
            for task in asyncio.all_tasks(self.loop):
                if task.get_coro() is coro:
                    task.cancel()
                    return
            coro.close()

        try:
            self.loop.call_soon_threadsafe(end)
        except RuntimeError:  # the loop is closed: it has not begun
            coro.close()

    def stop(self) -> None:
        """Let the loop end. Any thread, the loop's own too; nothing is to run on it any more."""
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)

    def close(self, timeout: float = 5) -> None:
        """Cancel what runs, then stop the loop. Called at exit; safe to call twice.

        Args:
            timeout: seconds to wait for what is cancelled, and then for the thread.
        """
        if self.pid != os.getpid() or self.loop.is_closed() or not self.thread.is_alive():
            return

        self.closing: bool = True

        async def cancel_all() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.loop.shutdown_asyncgens()

        with contextlib.suppress(concurrent.futures.TimeoutError):
            # A task that ignores its cancellation must not hold the interpreter's exit.
            self.submit(cancel_all()).result(timeout=timeout)
        self.stop()
        self.thread.join(timeout=timeout)


def closing() -> bool:
    """Whether the library's loop is ending."""
    current = LoopThread._current
    return current is not None and current.closing


def on_library_loop() -> bool:
    """Whether this is the thread of the library's loop."""
    current = LoopThread._current
    return current is not None and threading.current_thread() is current.thread


def submit(coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start *coro* on the library's loop; returns at once."""
    return LoopThread.get().submit(coro)


def blocking_result(future: concurrent.futures.Future[T]) -> T:
    """The result of *future*, waited for in steps: Ctrl-C and signals are noticed meanwhile on every system."""
    while not future.done():
        with contextlib.suppress(TimeoutError):
            return future.result(TICK_S)
    return future.result()


def run_sync(coro: Coroutine[Any, Any, T]) -> T:
    """Run *coro* on the library's loop and wait for it. Ctrl-C or a kernel's Stop cancels it.

    Raises:
        RuntimeError: called on the loop thread itself, where it would wait forever.
    """
    if threading.current_thread() is LoopThread.get().thread:
        coro.close()
        raise RuntimeError("A blocking call on dipeo_nb's own event loop would never return; use the async form.")
    future = submit(coro)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def run_on_loop(coro: Coroutine[Any, Any, T]) -> T:
    """Await *coro* on the library's loop from any other loop, e.g. a notebook cell's.

    The 0.2 s ticker lets a kernel's Stop through to an idle `await` (ipykernel#881).
    """
    if threading.current_thread() is LoopThread.get().thread:
        return await coro
    return await wait_for_future(submit(coro))


class OnLibraryLoop:
    """An object whose asynchronous methods run on the library's loop, wherever they are awaited; all else is the object's own."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if inspect.iscoroutinefunction(value):
            return lambda *args, **named: run_on_loop(value(*args, **named))
        if inspect.isasyncgenfunction(value):
            return lambda *args, **named: iterate_on_loop(value(*args, **named))
        return value

    def __call__(self, *args: Any, **named: Any) -> Any:
        return OnLibraryLoop(self._of(*args, **named))

    def __repr__(self) -> str:
        return repr(self._of)


async def wait_for_future(future: concurrent.futures.Future[T]) -> T:
    """Await a future of the library's loop from any other loop; cancelling the wait cancels the work."""
    waiter = asyncio.ensure_future(asyncio.wrap_future(future))
    try:
        while not waiter.done():
            await asyncio.wait({waiter}, timeout=TICK_S)
        return waiter.result()
    except asyncio.CancelledError:
        future.cancel()
        raise


def iterate_sync(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an async iterator, blocking. One task of the library's loop owns the iterator from its first item to its
    closing; leaving early cancels it and waits until it is closed."""
    pipe: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()

    async def pump() -> None:
        try:
            async for item in items:
                pipe.put((item,))
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
            pipe.put(None)

    future = submit(pump())
    try:
        while (item := pipe.get()) is not None:
            yield item[0]
        future.result()
    finally:
        if not future.done():
            future.cancel()
            while pipe.get() is not None:
                continue


async def iterate_on_loop(items: AsyncIterator[T]) -> AsyncGenerator[T]:
    """The items of an async iterator that lives on the library's loop, on any other loop; as `iterate_sync` otherwise."""
    if threading.current_thread() is LoopThread.get().thread:
        async with closing_iterator(items) as own:
            async for item in own:
                yield item
        return
    pipe = _Pipe[T]()
    begun = complete = False

    async def pump() -> None:
        nonlocal begun, complete
        begun = True
        try:
            async with closing_iterator(items) as own:
                async for item in own:
                    pipe.put((item,))
            complete = True
        finally:
            pipe.put(None)

    future = submit(pump())
    try:
        while (item := await pipe.get()) is not None:
            yield item[0]
        if not complete:
            await asyncio.wrap_future(future)
    finally:
        if not complete and not future.done():
            future.cancel()
            if begun:  # leave when the iterator is closed, as it would be on its own loop
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        while await pipe.get() is not None:
                            pass


class _Pipe(Generic[T]):
    """Items from the library's loop to the running one. That loop is woken once for all items of a step of the library's loop, as
    waking it costs more than an item; at least once in `BURST` items."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: collections.deque[tuple[T] | None] = collections.deque()
        self._unannounced = 0
        self._waking = False
        self._waiter: asyncio.Future[None] | None = None
        self._in_a_row = 0

    def put(self, item: tuple[T] | None) -> None:
        """Add an item, on the library's loop; None is the end."""
        self._items.append(item)
        self._unannounced += 1
        if item is None or self._unannounced >= BURST:
            self._announce()
        elif self._unannounced == 1:
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        if self._unannounced and not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the other loop is closed and has no waiters
                self._loop.call_soon_threadsafe(self._wake)
        self._unannounced = 0

    def _wake(self) -> None:
        self._waking = False  # before the items are looked at, so that none that comes later is missed
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> tuple[T] | None:
        """The next item, on the running loop; others there have their turn at least once in `BURST` items."""
        self._in_a_row += 1
        if self._in_a_row >= BURST:
            self._in_a_row = 0
            await asyncio.sleep(0)
        while not self._items:
            self._in_a_row = 0
            self._waiter = self._loop.create_future()
            # The ticks let a kernel's Stop through, as in `wait_for_future`.
            await asyncio.wait({self._waiter}, timeout=TICK_S)
        return self._items.popleft()


_before_exit: list[Callable[[], None]] = []
_after_shutdown: list[Callable[[], None]] = []


def before_exit(look: Callable[[], None]) -> None:
    """Have something called when the process ends, while everything on the loop still runs."""
    _before_exit.append(look)


def after_shutdown(close: Callable[[], None]) -> None:
    """Have something called whenever the loop thread has been closed."""
    _after_shutdown.append(close)


def shut_down() -> None:
    """Close the loop thread if there is one. Called at exit; owners of threads call it before they end them."""
    while _before_exit:
        _before_exit.pop()()
    current = LoopThread._current
    if current is not None:
        current.close()
    for close in _after_shutdown:
        close()


# As thread pools do: before the `atexit` functions, among which are finalisers that close databases. What still runs is to
# record its end first. Pools registered themselves when they were imported, and end after us.
getattr(threading, "_register_atexit", atexit.register)(shut_down)

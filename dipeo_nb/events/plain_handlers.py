"""Plain handlers of users, called in a thread: one that blocks holds no event loop.

One thread calls all of them, those of higher priority first, each with its events in order. It is handed what was published in one
step of the event loop at once, and what is published within the next milliseconds together, as waking a thread takes longer than most
handlers do. A handler that does not catch up within
`PATIENCE_S` keeps the thread until it has; nobody waits for it any more, and the others go on in a new thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dipeo_nb.domain.events import Event

_LOG = logging.getLogger(__name__)
PATIENCE_S = 1.0
"""Seconds that publishers wait for a handler."""
PAUSE_S = 0.005
"""Seconds between two times that a thread is woken: both threads need the interpreter, and passing it to and fro takes long."""
CROWDED = 1000
"""Events that wait for a handler from which on publishers wait until it has caught up."""
_REST_S = 10.0
"""Seconds after which a thread with nothing to do ends."""


@dataclass(slots=True, eq=False)
class Inbox:
    """Events that wait for one handler."""

    rank: tuple[int, int]
    """Those of lower rank are served first."""
    call: Callable[[Sequence[Event]], None]
    """Calls the handler with each event; raises nothing."""
    batches: deque[Sequence[Event]] = field(default_factory=deque[Sequence[Event]])
    unhandled: int = 0
    """Events that wait or are being handled."""
    dropped: int = 0
    late: bool = False
    """Whether a thread calls this handler alone, and nobody waits for it."""
    in_turn: bool = False
    """Whether it is among those that are to be served."""

    @property
    def waiting(self) -> int:
        """Events that wait."""
        return sum(map(len, self.batches))


class _Worker:
    """A thread that calls handlers; its attributes are those of `PlainHandlers`, under its lock."""

    def __init__(self, work: Callable[[_Worker], None]) -> None:
        self.orders: queue.SimpleQueue[contextvars.Context | None] = queue.SimpleQueue()
        """One for each time that it is to look for events; handlers are called in this context. None: it is to end."""
        self.serving: Inbox | None = None
        self.began = 0.0
        """When it began to serve it, on the monotonic clock."""
        self.thread = threading.Thread(target=work, args=(self,), name="dipeo-event-handlers", daemon=True)
        self.thread.start()


class PlainHandlers:
    """Calls handlers in threads. `put`, `caught_up` and `crowded` are for event loops.

    Args:
        limit: events that wait for a late handler at most; beyond that the oldest are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._new: deque[tuple[Inbox, Sequence[Event]]] = deque()
        """What was published since `_wake` was last called."""
        self._news = 0
        """Events in it."""
        self._due: set[Inbox] = set()
        """Those with unhandled events."""
        self._turns: list[tuple[tuple[int, int], Inbox]] = []
        """A heap, by rank, of those that are to be served: there may be a thousand. One that has become late, or has no events any more,
        is passed over."""
        self.crowded = False
        """Whether so many events wait for a handler that publishers should wait, too."""
        self._worker: _Worker | None = None
        """The thread that serves all that are not late."""
        self._waking: asyncio.AbstractEventLoop | None = None
        """The event loop that is about to call `_wake`."""
        self._woken = 0.0
        """When `_wake` was last called, on the monotonic clock."""
        self._waiters: list[tuple[bool, asyncio.Future[None]]] = []
        """Each with whether it waits for late ones, too."""
        self._watch: asyncio.TimerHandle | None = None

    def put(self, inbox: Inbox, events: Sequence[Event]) -> asyncio.AbstractEventLoop:
        """Have a handler called with events, after earlier ones. Return the loop on which this is."""
        self._new.append((inbox, events))
        self._news += len(events)
        if self._news >= CROWDED:
            self.crowded = True
        loop = asyncio.get_running_loop()
        if self._waking is not loop:
            self._waking = loop
            loop.call_soon(self._wake_in_time)
        return loop

    def clear(self, inbox: Inbox) -> None:
        """Drop what waits for a handler."""
        with self._lock:
            inbox.unhandled -= inbox.waiting
            inbox.batches.clear()
            self._settle(inbox)

    def end(self) -> None:
        """Let the thread end when it has nothing to do; another begins with the next event."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.orders.put(None)

    async def caught_up(self, *, late: bool) -> None:
        """Wait until all events have been handled.

        Args:
            late: also by handlers that are late, however long that takes; else for `PATIENCE_S` at most, as others may go on publishing.
        """
        waiter = late, asyncio.get_running_loop().create_future()
        end = time.monotonic() + PATIENCE_S
        self._wake()
        while True:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                if not self._behind(late) or (not late and time.monotonic() >= end):
                    self.crowded = False
                    return
                waiter = late, asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
            await asyncio.wait({waiter[1]}, timeout=PATIENCE_S)
            self._look()
            self._wake()

    # On an event loop.

    def _wake_in_time(self) -> None:
        """Have the thread look for events, at once if it has not done so just now."""
        pause = self._woken + PAUSE_S - time.monotonic()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        """Have the thread look for events."""
        self._waking = None
        self._woken = time.monotonic()
        with self._lock:
            self._news = 0
            new, together = self._new, dict[Inbox, list[Event]]()
            while new:
                inbox, events = new.popleft()
                if (before := together.get(inbox)) is None:
                    together[inbox] = list(events)
                else:
                    before += events
            for inbox, events in together.items():
                inbox.batches.append(events)
                inbox.unhandled += len(events)
                self._limit_late(inbox)
                if not inbox.late and not inbox.in_turn:
                    inbox.in_turn = True
                    heapq.heappush(self._turns, (inbox.rank, inbox))
            if not self._turns:
                return
            worker = self._worker
            if worker is not None and not worker.thread.is_alive():  # as in a process that was forked
                if worker.serving is not None:
                    worker.serving.unhandled = worker.serving.waiting
                worker = None
            if worker is None:
                worker = self._worker = _Worker(self._work)
            if worker.serving is None and worker.orders.empty():
                worker.orders.put(contextvars.copy_context())
        if self._watch is None or self._watch.when() + PATIENCE_S < time.monotonic():
            self._watch = asyncio.get_running_loop().call_later(PATIENCE_S, self._look_again)

    def _look_again(self) -> None:
        self._watch = None
        self._look()
        self._wake()

    def _look(self) -> None:
        """Let a handler that has had its time keep its thread, and serve the others in a new one."""
        with self._lock:
            worker = self._worker
            if worker is None or worker.serving is None or time.monotonic() - worker.began < PATIENCE_S:
                return
            worker.serving.late = True
            self._worker = None
            self._announce()
        _LOG.warning("An event handler takes longer than %g s; runs no longer wait for it", PATIENCE_S)
        self._wake()

    # In a thread.

    def _work(self, worker: _Worker) -> None:
        while True:
            try:
                context = worker.orders.get(timeout=_REST_S)
            except queue.Empty:
                with self._lock:
                    if worker.orders.empty():
                        if self._worker is worker:
                            self._worker = None
                        return
                continue
            if context is not None:
                context.run(self._serve, worker)
            with self._lock:
                if self._worker is not worker:
                    return

    def _serve(self, worker: _Worker) -> None:
        """Call handlers until there is nothing to do."""
        while True:
            with self._lock:
                inbox = self._next(worker)
                if inbox is None:
                    return
                batches, inbox.batches = inbox.batches, deque()
                worker.began = time.monotonic()
            try:
                for events in batches:
                    inbox.call(events)
            finally:
                with self._lock:
                    inbox.unhandled -= sum(map(len, batches))
                    self._settle(inbox)

    def _next(self, worker: _Worker) -> Inbox | None:
        """Choose whom to serve."""
        own = worker.serving
        if own is not None and own.late:
            if own.batches:
                return own
            own.late = False
            worker.serving = None
            self._announce()
            return None
        worker.serving = None
        while self._turns and worker.serving is None:
            _, inbox = heapq.heappop(self._turns)
            inbox.in_turn = False
            if inbox.batches and not inbox.late:
                worker.serving = inbox
        return worker.serving

    # With the lock held.

    def _limit_late(self, inbox: Inbox) -> None:
        """Drop the oldest events beyond the limit, of a handler that nobody waits for."""
        self._due.add(inbox)
        if inbox.late:
            while (excess := inbox.unhandled - self._limit) > 0 and inbox.batches:
                oldest = inbox.batches.popleft()
                if len(oldest) > excess:
                    inbox.batches.appendleft(oldest[excess:])
                dropped = min(len(oldest), excess)
                inbox.unhandled -= dropped
                inbox.dropped += dropped
        elif inbox.unhandled >= CROWDED:
            self.crowded = True

    def _settle(self, inbox: Inbox) -> None:
        if not inbox.unhandled:
            self._due.discard(inbox)
            self._announce()

    def _behind(self, late: bool) -> bool:
        return any(late or not inbox.late for inbox in self._due)

    def _announce(self) -> None:
        """Tell those who wait for what has come true."""
        for waiter in [one for one in self._waiters if not self._behind(one[0])]:
            self._waiters.remove(waiter)
            loop = waiter[1].get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(functools.partial(_finish, waiter[1]))


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

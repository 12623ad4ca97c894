"""Event bus within one process."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any

from dipeo_nb.common import function_loop, user_code
from dipeo_nb.common.aio import DONE, on_loop
from dipeo_nb.common.loop import on_library_loop
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.ports import EventBus, EventHandler, Overflow, Subscription
from dipeo_nb.errors import EventBusError
from dipeo_nb.events.plain_handlers import Inbox, PlainHandlers

_LOG = logging.getLogger(__name__)
CLEANUP_S = 5.0
"""Seconds that `cleanup` waits for a handler that does not return."""
TOGETHER = 100
"""Events that are handed to users' code at a time, outside the event loop."""
_EVENTS = frozenset([Event])
_RANK = {EventPriority.CRITICAL: 0, EventPriority.HIGH: 1, EventPriority.NORMAL: 2, EventPriority.LOW: 3}


_HANDLING: ContextVar[_Subscriber | None] = ContextVar("dipeo_event_handler", default=None)
"""The subscriber whose async handler is running."""


class _Queue:
    """Events that wait for one async handler: first in, first out; the oldest of the lowest priority is dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.loop: asyncio.AbstractEventLoop | None = None
        """Loop of the handler's task; waiting from elsewhere happens there (`on_loop`)."""
        self.unfinished = 0
        self.closed = False
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._of_rank: tuple[deque[int], ...] = tuple(deque[int]() for _ in _RANK)
        self._numbers = itertools.count()
        self._filled = asyncio.Event()
        self.roomy = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._events)

    def takes(self, count: int) -> bool:
        """Whether there is room for *count* more; a batch larger than the queue fits an empty one."""
        return not self._events or len(self._events) + count <= self.limit

    def waiting(self, most: int) -> list[Event]:
        """Return the waiting events in the order of `get`."""
        found: list[Event] = []
        while self._events and len(found) < most:
            found.append(self._taken())
        return found

    def put(self, event: Event) -> None:
        number = next(self._numbers)
        self._events[number] = event
        self._of_rank[_RANK[event.priority]].append(number)
        self.unfinished += 1
        self._filled.set()
        self.idle.clear()

    def drop(self) -> None:
        lowest = next(rank for rank in reversed(self._of_rank) if rank)
        del self._events[lowest.popleft()]
        self.done()

    async def get(self) -> Event:
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        return self._taken()

    def _taken(self) -> Event:
        _, event = self._events.popitem(last=False)
        self._of_rank[_RANK[event.priority]].popleft()
        self.roomy.set()
        return event

    async def until_roomy(self, count: int) -> None:
        while not self.closed and not self.takes(count):
            self.roomy.clear()
            await self.roomy.wait()

    async def until_idle(self) -> None:
        await self.idle.wait()

    def done(self, count: int = 1) -> None:
        self.unfinished -= count
        if not self.unfinished:
            self.idle.set()

    def close(self) -> None:
        """Stop waiting."""
        self.closed = True
        self._events.clear()
        self.roomy.set()
        self.idle.set()


@dataclass(slots=True, eq=False)
class _Subscriber:
    id: int
    handler: EventHandler
    types: frozenset[EventType] | None
    run_id: str | None
    where: Callable[[Event], bool] | None
    priority: EventPriority
    overflow: Overflow
    on_error: Callable[[Exception], None] | None
    queue: _Queue | None
    apart: bool
    """Whether the subscriber's functions are called outside the publishing event loop."""
    inbox: Inbox | None = None
    """Of a plain handler that is called *apart*."""
    gone: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    """The publishing loop; set when *apart*."""
    task: asyncio.Task[None] | None = None
    reports: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])
    """Pending calls of *on_error*, when *apart*."""
    delivered: int = 0
    dropped: int = 0
    failed: int = 0

    def fits(self, event: Event) -> bool:
        """Whether an event has the run and a type that the subscriber selected."""
        return (self.run_id is None or event.run_id == self.run_id) and (self.types is None or event.type in self.types)

    def chooses(self, event: Event) -> bool:
        """Return the result of the subscriber's predicate; False when it fails."""
        if self.where is None:
            return True
        try:
            with user_code.contained():
                return user_code.plain_bool(self.where(event))
        except Exception as error:  # noqa: BLE001 - as with a handler
            self.fail(error, event)
            return False

    def chosen(self, events: Sequence[Event]) -> list[bool]:
        """Return the result of `chooses` for each event."""
        return [self.chooses(event) for event in events]

    def call(self, events: Sequence[Event]) -> None:
        """Call a plain handler with each event that the predicate chooses; raises nothing."""
        handler, where, left = self.handler, self.where, iter(events)
        while True:
            event = None
            try:
                for event in left:
                    if self.gone:
                        return
                    if where is None or self.chooses(event):
                        handler(event)
                        self.delivered += 1
            except BaseException as error:  # noqa: BLE001 - reported by `fail`
                assert event is not None
                self.fail(user_code.as_failure(error), event)
            else:
                return

    def leave(self) -> None:
        """Stop delivery. A handler that unsubscribes itself finishes its call."""
        if self.queue is not None:
            self.queue.close()
        if self.task is not None and _HANDLING.get() is not self:
            self.task.cancel()

    def fail(self, error: Exception, event: Event) -> None:
        """Count and report an error: a subscriber must not stop the run it watches."""
        self.failed += 1
        _LOG.error("An event handler failed on %s #%d", event.type, event.seq, exc_info=error)
        self.report(error)

    def report(self, error: Exception) -> None:
        """Call *on_error*, or have it called outside the event loop."""
        if self.on_error is None:
            return
        if self.apart and self.loop is not None:
            if _running_loop() is self.loop:
                self._report(error)
            elif not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self._report, error)
            return
        try:
            with user_code.contained():
                self.on_error(error)
        except Exception:  # noqa: BLE001 - as with a handler
            _LOG.exception("An event handler's on_error failed")

    def _report(self, error: Exception) -> None:
        task = asyncio.get_running_loop().create_task(self._reported(error))
        self.reports.add(task)
        task.add_done_callback(self.reports.discard)

    async def _reported(self, error: Exception) -> None:
        assert self.on_error is not None
        try:
            await user_code.call(self.on_error, error)
        except Exception:  # noqa: BLE001 - as with a handler
            _LOG.exception("An event handler's on_error failed")


class InMemoryEventBus(EventBus):
    """`EventBus` within the process.

    Args:
        max_queue_size: maximum events waiting for one async handler; default for subscriptions.
        overflow: behaviour beyond that; default for subscriptions.
        apart: whether handlers other than this package's own are called outside the publishing event loop, so that they cannot block
            it: async ones on the loop of user functions, synchronous ones in a thread, one after the other; likewise predicates and
            *on_error*. Publishers wait for synchronous ones, up to a second, at the end of a run and when many events wait. Such a
            handler cannot share asyncio primitives with that loop, and events waiting for an async one count before its predicate
            has been called.
    """

    def __init__(self, max_queue_size: int = 10_000, *, overflow: Overflow = "drop_oldest", apart: bool = False) -> None:
        self._limit = max_queue_size
        self._overflow: Overflow = overflow
        self._apart = apart
        self._subscribers: list[_Subscriber] = []
        self._blocking: list[_Subscriber] = []
        """Those for whose queues publishers wait."""
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._published = 0
        self._plain = PlainHandlers(max_queue_size)
        """Calls users' plain handlers outside the event loop."""

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        subscribers = self._subscribers
        if not await self._drained():
            _LOG.warning("An event handler has not returned for %g s; no longer waiting for it", CLEANUP_S)
        for subscriber in subscribers:
            self.unsubscribe(Subscription(subscriber.id))
        self._plain.end()
        left = [task for s in subscribers for task in (s.task, *s.reports) if task is not None]
        await asyncio.gather(*(on_loop(task.get_loop(), functools.partial(_ended, task)) for task in left))

    async def _drained(self) -> bool:
        """Drain; return False when there is no progress for a while."""
        draining = asyncio.ensure_future(self.drain())
        try:
            handled = -1
            while not draining.done() and handled != (handled := sum(s.delivered + s.failed for s in self._subscribers)):
                await asyncio.wait({draining}, timeout=CLEANUP_S)
            return draining.done()
        finally:
            draining.cancel()

    def publish_batch(self, events: Sequence[Event]) -> CoroutineType[Any, Any, None]:
        if set(map(type, events)) != _EVENTS:
            check_events(events)
        if self._blocking:
            return self._publish_in_turn(events)
        self._deliver(events)
        if self._plain.crowded or (events and events[-1][1] in FINAL_EVENTS):
            return self._plain.caught_up(late=False)
        return DONE

    async def _publish_in_turn(self, events: Sequence[Event]) -> None:
        # Deliver nothing until all subscribers have room; from then on nothing can interrupt.
        while (full := self._full(events)) is not None:
            queue, count = full
            await on_loop(queue.loop, functools.partial(queue.until_roomy, count))
        self._deliver(events)
        if self._plain.crowded or (events and events[-1][1] in FINAL_EVENTS):
            await self._plain.caught_up(late=False)

    def _deliver(self, events: Sequence[Event]) -> None:
        for subscriber in self._subscribers:
            fitting = events
            if subscriber.run_id is not None or subscriber.types is not None:
                fitting = [event for event in events if subscriber.fits(event)]
            if not fitting:
                continue
            if subscriber.inbox is not None:
                subscriber.loop = self._plain.put(subscriber.inbox, fitting)
            elif subscriber.queue is not None:
                if subscriber.apart:
                    subscriber.loop = asyncio.get_running_loop()
                wanted = fitting if subscriber.apart else [event for event in fitting if subscriber.chooses(event)]
                self._enqueue(subscriber, subscriber.queue, wanted)
            else:
                subscriber.call(fitting)
        self._published += len(events)

    def subscribe(
        self,
        handler: EventHandler,
        *,
        types: Iterable[EventType] | None = None,
        run_id: str | None = None,
        where: Callable[[Event], bool] | None = None,
        priority: EventPriority = EventPriority.NORMAL,
        max_queue_size: int | None = None,
        overflow: Overflow | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> Subscription:
        if where is not None and user_code.is_async(where):
            raise EventBusError(
                "where= is an async function; whether an event is wanted has to be known at once.",
                hint="Write it with `def`, or let the handler decide.",
                cause="invalid",
            )
        subscriber = _Subscriber(
            id=next(self._ids),
            handler=handler,
            types=frozenset(types) if types is not None else None,
            run_id=run_id,
            where=where,
            priority=priority,
            overflow=overflow or self._overflow,
            on_error=on_error,
            queue=_Queue(max_queue_size or self._limit) if user_code.is_async(handler) else None,
            apart=self._apart and not _is_ours(handler),
        )
        if subscriber.apart and subscriber.queue is None:
            subscriber.inbox = Inbox((_RANK[priority], subscriber.id), subscriber.call)
        with self._lock:
            # A new list, so that handlers may subscribe and unsubscribe during delivery.
            self._set([*self._subscribers, subscriber])
        return Subscription(subscriber.id)

    def _set(self, subscribers: Iterable[_Subscriber]) -> None:
        self._subscribers = sorted(subscribers, key=lambda s: (_RANK[s.priority], s.id))
        self._blocking = [s for s in self._subscribers if s.queue is not None and s.overflow == "block"]

    def unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            leaving = [s for s in self._subscribers if s.id == subscription.id]
            self._set(s for s in self._subscribers if s.id != subscription.id)
        for subscriber in leaving:
            subscriber.gone = True
            if subscriber.inbox is not None:
                self._plain.clear(subscriber.inbox)
            loop = subscriber.task.get_loop() if subscriber.task is not None else None
            if loop is None or loop is _running_loop():
                subscriber.leave()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(subscriber.leave)

    async def drain(self) -> None:
        for subscriber in self._subscribers:
            if subscriber.queue is not None:
                await on_loop(subscriber.queue.loop, subscriber.queue.until_idle)
        await self._plain.caught_up(late=True)
        for task in [task for subscriber in self._subscribers for task in subscriber.reports]:
            await on_loop(task.get_loop(), functools.partial(asyncio.wait, {task}))

    def stats(self) -> dict[str, Any]:
        return {
            "published": self._published,
            "subscribers": [
                {
                    "id": s.id,
                    "priority": str(s.priority),
                    "delivered": s.delivered,
                    "dropped": s.dropped if s.inbox is None else s.inbox.dropped,
                    "failed": s.failed,
                    "waiting": len(s.queue) if s.queue is not None else s.inbox.waiting if s.inbox is not None else 0,
                }
                for s in self._subscribers
            ],
        }

    def _full(self, events: Sequence[Event]) -> tuple[_Queue, int] | None:
        """Return the queue of a subscriber that the publisher waits for, and the number of events to put."""
        for subscriber in self._blocking:
            queue = subscriber.queue
            if queue is None or queue.takes(len(events)):
                continue
            fitting = [event for event in events if subscriber.fits(event)]
            count = len(fitting)
            if not queue.takes(count) and not subscriber.apart:
                count = sum(subscriber.chooses(event) for event in fitting)
            if not queue.takes(count):
                return queue, count
        return None

    def _enqueue(self, subscriber: _Subscriber, queue: _Queue, events: Sequence[Event]) -> None:
        if queue.loop is not None and queue.loop is not _running_loop() and queue.loop.is_running():
            queue.loop.call_soon_threadsafe(self._enqueue, subscriber, queue, events)
            return
        if subscriber.overflow == "error" and not queue.takes(len(events)):
            self.unsubscribe(Subscription(subscriber.id))
            error = EventBusError(
                f"An event handler is {len(queue) or len(events)} events behind; its subscription has ended.",
                hint="Subscribe again and catch up from the run store, or use a larger queue (max_queue_size).",
                cause="overflow",
            )
            _LOG.error("%s", error)
            subscriber.report(error)
            return
        if subscriber.task is None:
            queue.loop = asyncio.get_running_loop()
            subscriber.task = queue.loop.create_task(self._serve(subscriber, queue))
        for event in events:
            queue.put(event)
            if subscriber.overflow == "drop_oldest" and len(queue) > queue.limit:
                queue.drop()
                subscriber.dropped += 1
                if subscriber.dropped == 1:
                    _LOG.warning("An event handler is %d events behind; the oldest are dropped", queue.limit)

    async def _serve(self, subscriber: _Subscriber, queue: _Queue) -> None:
        # Going to another loop or thread takes longer than most handlers do, so events go there together; not many when few may wait.
        most = min(TOGETHER, max(queue.limit // 10, 1)) if subscriber.apart else 1
        while not queue.closed:
            events = [await queue.get(), *queue.waiting(most - 1)]
            taken = len(events)
            if subscriber.apart and subscriber.where is not None:
                chosen = await user_code.in_thread(subscriber.chosen, events)
                events = [event for event, wanted in zip(events, chosen, strict=True) if wanted]
            pending = deque(events)
            handle = functools.partial(_handle, subscriber, pending)
            while pending and not subscriber.gone:
                try:
                    await (function_loop.run(handle) if self._apart and on_library_loop() else handle())
                except Exception as error:  # noqa: BLE001 - the task there was cancelled by the handler's own doing
                    subscriber.fail(error, pending.popleft())
            queue.done(taken)


async def _handle(subscriber: _Subscriber, pending: deque[Event]) -> None:
    """Call an async handler with each event, and take it off."""
    _HANDLING.set(subscriber)
    while pending and not subscriber.gone:
        event = pending[0]
        try:
            await user_code.awaited(_handled(subscriber, event))
        except Exception as error:  # noqa: BLE001 - reported by `fail`
            subscriber.fail(error, event)
        else:
            subscriber.delivered += 1
        pending.popleft()


async def _handled(subscriber: _Subscriber, event: Event) -> None:
    result = subscriber.handler(event)
    if result is not None:
        await result


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _is_ours(handler: EventHandler) -> bool:
    """Whether a handler belongs to this package and so does not block."""
    return str(getattr(handler, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # no loop runs in this thread
        return None


def check_events(events: Sequence[Event]) -> None:
    """Raise EventBusError (`invalid`) when one of them is not an event."""
    for event in events:
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - who calls may not be typed
            raise EventBusError(
                f"A {type(event).__name__} is not an event; nothing was published.",
                hint="Publish dipeo_nb.domain.events.Event objects.",
                cause="invalid",
            )

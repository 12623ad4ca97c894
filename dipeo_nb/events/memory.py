"""The event bus of one process."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from dipeo_nb.common import user_code
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventHandler, Overflow, Subscription
from dipeo_nb.errors import EventBusError

_LOG = logging.getLogger(__name__)
_RANK = {EventPriority.CRITICAL: 0, EventPriority.HIGH: 1, EventPriority.NORMAL: 2, EventPriority.LOW: 3}


class _Queue:
    """Events that wait for one async handler: first in, first out; what is dropped is the oldest of the lowest priority."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
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
        """Whether *count* more fit; a batch that is larger than the queue fits an empty one."""
        return not self._events or len(self._events) + count <= self.limit

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
        _, event = self._events.popitem(last=False)
        self._of_rank[_RANK[event.priority]].popleft()
        self.roomy.set()
        return event

    def done(self) -> None:
        self.unfinished -= 1
        if not self.unfinished:
            self.idle.set()

    def close(self) -> None:
        """Nothing is waited for any more."""
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
    task: asyncio.Task[None] | None = None
    delivered: int = 0
    dropped: int = 0
    failed: int = 0

    def wants(self, event: Event) -> bool:
        if self.run_id is not None and event.run_id != self.run_id:
            return False
        if self.types is not None and event.type not in self.types:
            return False
        if self.where is None:
            return True
        try:
            with user_code.contained():
                return self.where(event)
        except Exception as error:  # noqa: BLE001 - as with a handler
            self.fail(error, event)
            return False

    def fail(self, error: Exception, event: Event) -> None:
        """A subscriber must not stop the run it watches."""
        self.failed += 1
        _LOG.error("An event handler failed on %s #%d", event.type, event.seq, exc_info=error)
        self.tell(error)

    def tell(self, error: Exception) -> None:
        if self.on_error is not None:
            try:
                with user_code.contained():
                    self.on_error(error)
            except Exception:  # noqa: BLE001 - as with a handler
                _LOG.exception("An event handler's on_error failed")


class InMemoryEventBus:
    """`EventBus` within the process.

    Args:
        max_queue_size: events that may wait for one async handler, unless its subscription says otherwise.
        overflow: what happens then, unless its subscription says otherwise.
    """

    def __init__(self, max_queue_size: int = 10_000, *, overflow: Overflow = "drop_oldest") -> None:
        self._limit = max_queue_size
        self._overflow: Overflow = overflow
        self._subscribers: list[_Subscriber] = []
        self._ids = itertools.count(1)
        self._published = 0

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        await self.drain()
        for subscriber in self._subscribers:
            self.unsubscribe(Subscription(subscriber.id))
            if subscriber.task is not None:
                await asyncio.gather(subscriber.task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cleanup()

    async def publish(self, event: Event) -> None:
        await self.publish_batch((event,))

    async def publish_batch(self, events: Sequence[Event]) -> None:
        check_events(events)
        if self._subscribers:
            # Nothing is handed out before everybody can take everything; from there on nothing can interrupt.
            while (full := self._full(events)) is not None:
                full.roomy.clear()
                await full.roomy.wait()
            for subscriber in tuple(self._subscribers):
                wanted = [event for event in events if subscriber.wants(event)]
                if subscriber.queue is None:
                    self._call(subscriber, wanted)
                elif wanted:
                    self._enqueue(subscriber, subscriber.queue, wanted)
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
        is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async
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
            queue=_Queue(max_queue_size or self._limit) if is_async else None,
        )
        # A new list, so that a handler may subscribe and unsubscribe while events go round.
        self._subscribers = sorted([*self._subscribers, subscriber], key=lambda s: (_RANK[s.priority], s.id))
        return Subscription(subscriber.id)

    def unsubscribe(self, subscription: Subscription) -> None:
        for subscriber in self._subscribers:
            if subscriber.id == subscription.id and subscriber.queue is not None:
                subscriber.queue.close()
                # A handler that leaves finishes what it is doing.
                if subscriber.task is not None and subscriber.task is not _current_task():
                    subscriber.task.cancel()
        self._subscribers = [s for s in self._subscribers if s.id != subscription.id]

    async def drain(self) -> None:
        for subscriber in self._subscribers:
            if subscriber.queue is not None:
                await subscriber.queue.idle.wait()

    def stats(self) -> dict[str, Any]:
        return {
            "published": self._published,
            "subscribers": [
                {
                    "id": s.id,
                    "priority": str(s.priority),
                    "delivered": s.delivered,
                    "dropped": s.dropped,
                    "failed": s.failed,
                    "waiting": len(s.queue) if s.queue is not None else 0,
                }
                for s in self._subscribers
            ],
        }

    def _full(self, events: Sequence[Event]) -> _Queue | None:
        """The queue of a subscriber whom the publisher waits for."""
        for subscriber in self._subscribers:
            queue = subscriber.queue
            if queue is None or subscriber.overflow != "block" or queue.takes(len(events)):
                continue
            if not queue.takes(sum(subscriber.wants(event) for event in events)):
                return queue
        return None

    def _call(self, subscriber: _Subscriber, events: Sequence[Event]) -> None:
        for event in events:
            try:
                with user_code.contained():
                    subscriber.handler(event)
            except Exception as error:  # noqa: BLE001 - told by `fail`
                subscriber.fail(error, event)
            else:
                subscriber.delivered += 1

    def _enqueue(self, subscriber: _Subscriber, queue: _Queue, events: Sequence[Event]) -> None:
        if subscriber.overflow == "error" and not queue.takes(len(events)):
            self.unsubscribe(Subscription(subscriber.id))
            error = EventBusError(
                f"An event handler is {len(queue) or len(events)} events behind; its subscription has ended.",
                hint="Subscribe again and catch up from the run store, or give it a larger queue (max_queue_size).",
                cause="overflow",
            )
            _LOG.error("%s", error)
            subscriber.tell(error)
            return
        if subscriber.task is None:
            subscriber.task = asyncio.get_running_loop().create_task(self._serve(subscriber, queue))
        for event in events:
            queue.put(event)
            if subscriber.overflow == "drop_oldest" and len(queue) > queue.limit:
                queue.drop()
                subscriber.dropped += 1
                if subscriber.dropped == 1:
                    _LOG.warning("An event handler is %d events behind; the oldest are dropped", queue.limit)

    async def _serve(self, subscriber: _Subscriber, queue: _Queue) -> None:
        while not queue.closed:
            event = await queue.get()
            try:
                with user_code.contained():
                    result = subscriber.handler(event)
                if result is not None:
                    await user_code.awaited(result)
            except Exception as error:  # noqa: BLE001 - told by `fail`
                subscriber.fail(error, event)
            else:
                subscriber.delivered += 1
            finally:
                queue.done()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def check_events(events: Sequence[Event]) -> None:
    """Raises EventBusError (`invalid`) when one of them is no event."""
    for event in events:
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - who calls may not be typed
            raise EventBusError(
                f"A {type(event).__name__} is no event; nothing was published.",
                hint="Publish dipeo_nb.domain.events.Event objects.",
                cause="invalid",
            )

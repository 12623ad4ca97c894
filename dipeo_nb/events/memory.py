"""The event bus of one process."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventHandler, Subscription

_LOG = logging.getLogger(__name__)
_RANK = {EventPriority.CRITICAL: 0, EventPriority.HIGH: 1, EventPriority.NORMAL: 2, EventPriority.LOW: 3}


@dataclass(slots=True)
class _Subscriber:
    id: int
    handler: EventHandler
    types: frozenset[EventType] | None
    run_id: str | None
    priority: EventPriority
    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    queue: asyncio.Queue[Event] | None = None
    task: asyncio.Task[None] | None = None

    def wants(self, event: Event) -> bool:
        return (self.run_id is None or event.run_id == self.run_id) and (self.types is None or event.type in self.types)


class InMemoryEventBus:
    """`EventBus` within the process. Lives on the library's loop thread.

    A plain handler is called at once, in order of priority. An async handler has a queue and a task of its own, so a slow
    one delays nobody; its events stay in order.

    Args:
        max_queue_size: events that wait for one async handler. What then happens is `overflow`: `drop_oldest` drops and
            counts (the store has every event, so a reader can catch up from it), `error` unsubscribes the handler.
    """

    def __init__(
        self, max_queue_size: int = 10_000, *, overflow: Literal["drop_oldest", "error"] = "drop_oldest"
    ) -> None:
        self._limit = max_queue_size
        self._overflow = overflow
        self._subscribers: list[_Subscriber] = []
        self._ids = itertools.count(1)
        self._published = 0

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        await self.drain()
        for subscriber in self._subscribers:
            if subscriber.task is not None:
                subscriber.task.cancel()
                await asyncio.gather(subscriber.task, return_exceptions=True)
        self._subscribers = []

    def publish(self, events: Sequence[Event]) -> None:
        self._published += len(events)
        if not self._subscribers:
            return
        for subscriber in tuple(self._subscribers):
            for event in events:
                if subscriber.wants(event):
                    self._deliver(subscriber, event)

    def subscribe(
        self,
        handler: EventHandler,
        *,
        types: Iterable[EventType] | None = None,
        run_id: str | None = None,
        priority: EventPriority = EventPriority.NORMAL,
    ) -> Subscription:
        subscriber = _Subscriber(
            next(self._ids), handler, frozenset(types) if types is not None else None, run_id, priority
        )
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
            subscriber.queue = asyncio.Queue()
        # A new list, so that a handler may subscribe and unsubscribe while events go round.
        self._subscribers = sorted([*self._subscribers, subscriber], key=lambda s: (_RANK[s.priority], s.id))
        return Subscription(subscriber.id)

    def unsubscribe(self, subscription: Subscription) -> None:
        for subscriber in self._subscribers:
            if subscriber.id == subscription.id and subscriber.task is not None:
                subscriber.task.cancel()
        self._subscribers = [s for s in self._subscribers if s.id != subscription.id]

    async def drain(self) -> None:
        for subscriber in self._subscribers:
            if subscriber.queue is not None:
                await subscriber.queue.join()

    def stats(self) -> dict[str, Any]:
        """published, and per subscriber: priority, delivered, dropped, failed, waiting."""
        return {
            "published": self._published,
            "subscribers": [
                {
                    "id": s.id,
                    "priority": str(s.priority),
                    "delivered": s.delivered,
                    "dropped": s.dropped,
                    "failed": s.failed,
                    "waiting": s.queue.qsize() if s.queue is not None else 0,
                }
                for s in self._subscribers
            ],
        }

    def _deliver(self, subscriber: _Subscriber, event: Event) -> None:
        if subscriber.queue is None:
            try:
                subscriber.handler(event)
            except Exception:  # noqa: BLE001 - a subscriber must not stop the run it watches
                subscriber.failed += 1
                _LOG.exception("An event handler failed on %s #%d", event.type, event.seq)
            else:
                subscriber.delivered += 1
            return
        if subscriber.task is None:
            subscriber.task = asyncio.get_running_loop().create_task(self._serve(subscriber, subscriber.queue))
        if subscriber.queue.qsize() >= self._limit:
            if self._overflow == "error":
                _LOG.error("An event handler is %d events behind and is unsubscribed", self._limit)
                self.unsubscribe(Subscription(subscriber.id))
                return
            subscriber.queue.get_nowait()
            subscriber.queue.task_done()
            subscriber.dropped += 1
            if subscriber.dropped == 1:
                _LOG.warning("An event handler is %d events behind; the oldest are dropped", self._limit)
        subscriber.queue.put_nowait(event)

    async def _serve(self, subscriber: _Subscriber, queue: asyncio.Queue[Event]) -> None:
        while True:
            event = await queue.get()
            try:
                result = subscriber.handler(event)
                if result is not None:
                    await result
            except Exception:  # noqa: BLE001 - a subscriber must not stop the run it watches
                subscriber.failed += 1
                _LOG.exception("An event handler failed on %s #%d", event.type, event.seq)
            else:
                subscriber.delivered += 1
            finally:
                queue.task_done()

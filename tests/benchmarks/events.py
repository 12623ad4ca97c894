"""The event bus against what one would otherwise write.

100,000 events to three subscribers, each of whom must see all of them in order. Peers: a loop that calls the handlers, one
`asyncio.Queue` and one stream of anyio for each handler.

Usage: python -m tests.benchmarks.events [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.events.redis import RedisEventBus
from dipeo_nb.execution.router import MessageRouter
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from tests.benchmarks.harness import OURS, Goal, Row, Run, main
from tests.support.servers import RedisProcess

COUNT = 100_000
BATCH = 100
"""Events published at once where they are published in batches; the engine publishes what a step of the run brings."""


def events(count: int, run_id: str = "r") -> list[Event]:
    first = Event(1, EventType.EXECUTION_STARTED, run_id, 1.0, None, {})
    last = Event(count, EventType.EXECUTION_COMPLETED, run_id, 1.0, None, {"status": "completed"})
    between = [Event(n, EventType.NODE_OUTPUT, run_id, 1.0, "n", {"text": "word "}) for n in range(2, count)]
    return [first, *between, last]


class Seen:
    """A subscriber that insists on order."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, event: Event) -> None:
        assert event.seq == self.last + 1
        self.last = event.seq

    async def later(self, event: Event) -> None:
        self(event)


def complete(subscribers: list[Seen], count: int) -> None:
    assert [s.last for s in subscribers] == [count] * 3
    for subscriber in subscribers:
        subscriber.last = 0


def _ours(*, later: bool, batch: int) -> Callable[[AsyncExitStack, int], Awaitable[Run]]:
    async def make(stack: AsyncExitStack, count: int) -> Run:
        bus = await stack.enter_async_context(InMemoryEventBus())
        told, subscribers = events(count), [Seen() for _ in range(3)]
        for subscriber in subscribers:
            bus.subscribe(subscriber.later if later else subscriber, overflow="block", max_queue_size=1000)

        async def run() -> None:
            if batch == 1:
                for event in told:
                    await bus.publish(event)
            else:
                for start in range(0, count, batch):
                    await bus.publish_batch(told[start : start + batch])
            await bus.drain()
            complete(subscribers, count)

        return run

    return make


async def bare_calls(stack: AsyncExitStack, count: int) -> Run:
    told, subscribers = events(count), [Seen() for _ in range(3)]

    async def run() -> None:
        for event in told:
            for subscriber in subscribers:
                subscriber(event)
        complete(subscribers, count)

    return run


async def bare_queues(stack: AsyncExitStack, count: int) -> Run:
    told, subscribers = events(count), [Seen() for _ in range(3)]

    async def serve(queue: asyncio.Queue[Event | None], subscriber: Seen) -> None:
        while (event := await queue.get()) is not None:
            await subscriber.later(event)

    async def run() -> None:
        queues = [asyncio.Queue[Event | None](1000) for _ in subscribers]
        async with asyncio.TaskGroup() as group:
            for queue, subscriber in zip(queues, subscribers, strict=True):
                group.create_task(serve(queue, subscriber))
            for event in (*told, None):
                for queue in queues:
                    await queue.put(event)
        complete(subscribers, count)

    return run


async def anyio_streams(stack: AsyncExitStack, count: int) -> Run:
    told, subscribers = events(count), [Seen() for _ in range(3)]

    async def serve(stream: Any, subscriber: Seen) -> None:
        async with stream:
            async for event in stream:
                await subscriber.later(event)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            senders: list[Any] = []
            for subscriber in subscribers:
                sender, receiver = anyio.create_memory_object_stream[Event](1000)
                senders.append(sender)
                group.start_soon(serve, receiver, subscriber)
            for event in told:
                for sender in senders:
                    await sender.send(event)
            for sender in senders:
                sender.close()
        complete(subscribers, count)

    return run


def _router(*, durable: bool) -> Callable[[AsyncExitStack, int], Awaitable[Run]]:
    async def make(stack: AsyncExitStack, count: int) -> Run:
        store: RunStore = InMemoryRunStore()
        if durable:
            store = SqliteRunStore(Path(stack.enter_context(TemporaryDirectory())) / "runs.db")
        await store.initialize()
        stack.push_async_callback(store.cleanup)
        bus = await stack.enter_async_context(InMemoryEventBus())
        router = await stack.enter_async_context(MessageRouter(store, bus))
        subscribers = [Seen() for _ in range(3)]
        number = 0

        async def follow(run_id: str, subscriber: Seen) -> None:
            async with aclosing(router.events(run_id)) as stream:
                async for event in stream:
                    subscriber(event)

        async def run() -> None:
            nonlocal number
            number += 1
            told = events(count, f"run {number}")
            async with asyncio.TaskGroup() as group:
                for subscriber in subscribers:
                    group.create_task(follow(f"run {number}", subscriber))
                for start in range(0, count, BATCH):
                    batch = told[start : start + BATCH]
                    await store.append(batch)
                    await bus.publish_batch(batch)
            complete(subscribers, count)
            await store.delete(f"run {number}")

        return run

    return make


async def redis(stack: AsyncExitStack, count: int) -> Run:
    """From one connection through the server to another one."""
    folder = Path(stack.enter_context(TemporaryDirectory()))
    server = stack.enter_context(RedisProcess(folder / "redis", "--save", ""))
    sender = await stack.enter_async_context(RedisEventBus(server.url, kept=2 * count))
    receiver = await stack.enter_async_context(RedisEventBus(server.url, kept=2 * count))
    subscribers = [Seen() for _ in range(3)]
    for subscriber in subscribers:
        receiver.subscribe(subscriber)
    number = 0

    async def run() -> None:
        nonlocal number
        number += 1
        told = events(count, f"run {number}")
        for start in range(0, count, BATCH):
            await sender.publish_batch(told[start : start + BATCH])
        async with asyncio.timeout(120):
            while any(subscriber.last < count for subscriber in subscribers):
                await asyncio.sleep(0.005)
        complete(subscribers, count)

    return run


async def redis_py(stack: AsyncExitStack, count: int) -> Run:
    """The same JSON by redis-py itself: a pipelined XADD for each batch, XREAD on another connection."""
    from redis.asyncio import Redis

    folder = Path(stack.enter_context(TemporaryDirectory()))
    server = stack.enter_context(RedisProcess(folder / "redis", "--save", ""))
    sender = await stack.enter_async_context(Redis.from_url(server.url))
    receiver = await stack.enter_async_context(Redis.from_url(server.url))
    number = 0

    async def run() -> None:
        nonlocal number
        number += 1
        stream, subscribers = f"run {number}", [Seen() for _ in range(3)]
        told = events(count, stream)

        async def read() -> None:
            last: Any = "0"
            while subscribers[0].last < count:
                for _, entries in await receiver.xread({stream: last}, count=BATCH, block=1000):
                    for identity, fields in entries:
                        last = identity
                        for subscriber in subscribers:
                            subscriber(Event(*json.loads(fields[b"event"])))

        reading = asyncio.create_task(read())
        for start in range(0, count, BATCH):
            async with sender.pipeline(transaction=False) as pipe:
                for event in told[start : start + BATCH]:
                    pipe.xadd(stream, {"event": json.dumps(event)}, maxlen=2 * count, approximate=True)
                await pipe.execute()
        await reading
        complete(subscribers, count)

    return run


ROWS = [
    Row(
        "three plain handlers, event by event", COUNT, "event",
        {OURS: _ours(later=False, batch=1), "bare calls": bare_calls},
    ),
    Row(
        "three plain handlers, in batches of 100", COUNT, "event",
        {OURS: _ours(later=False, batch=BATCH), "bare calls": bare_calls},
    ),
    Row(
        "three async handlers, event by event", COUNT, "event",
        {OURS: _ours(later=True, batch=1), "asyncio.Queue": bare_queues, "anyio streams": anyio_streams},
    ),
    Row(
        "three async handlers, in batches of 100", COUNT, "event",
        {OURS: _ours(later=True, batch=BATCH), "asyncio.Queue": bare_queues, "anyio streams": anyio_streams},
        Goal(within={"asyncio.Queue": 1.0}),
    ),
    Row("three followers of the router, store in memory", COUNT, "event", {OURS: _router(durable=False)}),
    Row("three followers of the router, SQLite", COUNT, "event", {OURS: _router(durable=True)}),
    Row(
        "through Redis to three plain handlers, wall time", COUNT, "event", {OURS: redis, "redis-py": redis_py},
        Goal(within={"redis-py": 1 / 0.7}), clock=time.perf_counter,
    ),
]  # fmt: skip
GROUP = "events"


if __name__ == "__main__":
    main(GROUP, ROWS, "The event bus against what one would otherwise write.")

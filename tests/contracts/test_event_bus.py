"""What every event bus promises (`domain.ports.EventBus`)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventPriority as P
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventBus, Subscription
from dipeo_nb.events.memory import InMemoryEventBus


@pytest.fixture(params=["memory"])
def bus(request: pytest.FixtureRequest):
    made: EventBus = InMemoryEventBus(max_queue_size=100)
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())


def event(seq: int, run: str = "r", kind: T = T.NODE_STARTED) -> Event:
    return Event(seq, kind, run, 0.0, None, {})


def publish(bus: EventBus, *events: Event) -> None:
    async def go() -> None:
        bus.publish(events)
        await bus.drain()

    run_sync(go())


def test_it_is_the_port(bus: EventBus):
    """Every method of the port is there."""
    assert isinstance(bus, EventBus)


def test_each_event_once_and_in_order(bus: EventBus):
    """Plain and async handlers each see every event once, in order."""
    plain: list[int] = []
    later: list[int] = []

    async def slow(e: Event) -> None:
        await asyncio.sleep(0.001)
        later.append(e.seq)

    bus.subscribe(lambda e: plain.append(e.seq))
    bus.subscribe(slow)
    publish(bus, *(event(n) for n in range(1, 21)))
    assert plain == later == list(range(1, 21))


def test_filters(bus: EventBus):
    """Types and run select; `exec_1` does not match `exec_10`."""
    got: list[tuple[str, int]] = []
    bus.subscribe(lambda e: got.append((e.run_id, e.seq)), types=[T.NODE_ERROR], run_id="exec_1")
    publish(bus, event(1, "exec_1", T.NODE_ERROR), event(2, "exec_10", T.NODE_ERROR), event(3, "exec_1"))
    assert got == [("exec_1", 1)]


def test_priorities(bus: EventBus):
    """Critical is served before high, before normal, before low, whoever subscribed first."""
    order: list[P] = []
    for priority in (P.LOW, P.CRITICAL, P.NORMAL, P.HIGH):
        bus.subscribe(lambda e, p=priority: order.append(p), priority=priority)
    publish(bus, event(1))
    assert order == [P.CRITICAL, P.HIGH, P.NORMAL, P.LOW]


def test_a_failing_handler_is_isolated_and_logged(bus: EventBus, caplog: pytest.LogCaptureFixture):
    """A handler that raises disturbs nobody, stays subscribed, and is logged."""
    got: list[int] = []

    def bad(e: Event) -> None:
        raise ValueError("no")

    bus.subscribe(bad, priority=P.HIGH)
    bus.subscribe(lambda e: got.append(e.seq))
    with caplog.at_level(logging.ERROR):
        publish(bus, event(1), event(2))
    assert got == [1, 2]
    assert len(caplog.records) == 2


def test_unsubscribing(bus: EventBus):
    """After unsubscribe nothing comes; unknown subscriptions are ignored; a handler may leave while it is served."""
    got: list[int] = []

    def once(e: Event) -> None:
        got.append(e.seq)
        bus.unsubscribe(subscription)

    subscription = bus.subscribe(once)
    bus.unsubscribe(Subscription(10_000))
    publish(bus, event(1))
    publish(bus, event(2))
    assert got == [1]


def test_a_slow_handler_drops_the_oldest_and_says_so(caplog: pytest.LogCaptureFixture):
    """With a full queue the oldest events go, are counted, and a warning is logged once; others see everything."""
    bus = InMemoryEventBus(max_queue_size=5)
    slow: list[int] = []
    fast: list[int] = []

    async def handler(e: Event) -> None:
        slow.append(e.seq)

    async def go() -> None:
        bus.subscribe(handler)
        bus.subscribe(lambda e: fast.append(e.seq))
        bus.publish([event(n) for n in range(1, 21)])
        await bus.drain()

    with caplog.at_level(logging.WARNING):
        run_sync(go())
    assert fast == list(range(1, 21))
    assert slow == list(range(16, 21))
    assert bus.stats()["subscribers"][0]["dropped"] == 15
    assert len(caplog.records) == 1
    run_sync(bus.cleanup())


def test_overflow_error_unsubscribes():
    """With overflow="error" a handler that falls behind is unsubscribed."""
    bus = InMemoryEventBus(max_queue_size=2, overflow="error")

    async def handler(e: Event) -> None:
        await asyncio.sleep(10)

    async def go() -> int:
        bus.subscribe(handler)
        bus.publish([event(n) for n in range(1, 10)])
        return len(bus.stats()["subscribers"])

    assert run_sync(go()) == 0
    run_sync(bus.cleanup())


def test_cleanup_delivers_what_was_published():
    """cleanup waits for handlers, and may be called twice."""
    bus = InMemoryEventBus()
    got: list[int] = []

    async def handler(e: Event) -> None:
        await asyncio.sleep(0.001)
        got.append(e.seq)

    async def go() -> None:
        bus.subscribe(handler)
        bus.publish([event(n) for n in range(1, 6)])
        await bus.cleanup()
        await bus.cleanup()

    run_sync(go())
    assert got == [1, 2, 3, 4, 5]

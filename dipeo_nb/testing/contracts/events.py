"""What every event bus promises."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from dipeo_nb.domain.enums import EventPriority as P
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventBus, Subscription
from dipeo_nb.errors import EventBusError
from dipeo_nb.testing.contracts.promises import Contract, promise, refusal, same, that


def event(seq: int, run: str = "r", kind: T = T.NODE_STARTED, **payload: Any) -> Event:
    """An event of the suite's."""
    return Event(seq, kind, run, 1000.0 + seq, None, payload)


def events(*seqs: int) -> list[Event]:
    return [event(seq) for seq in seqs]


class _Slow:
    """An async handler that waits until it is released."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

    async def __call__(self, one: Event) -> None:
        self.begun.set()
        await self.let.wait()
        self.got.append(one.seq)


class EventBusContract(Contract):
    """The promises of `EventBus`."""

    port: ClassVar[type] = EventBus

    @promise
    async def test_each_event_once_and_in_order(self, bus: EventBus) -> None:
        """Plain and async handlers each see every event once, in order, one by one and in batches."""
        plain: list[int] = []
        later: list[int] = []

        async def slow(one: Event) -> None:
            await asyncio.sleep(0.001)
            later.append(one.seq)

        bus.subscribe(lambda one: plain.append(one.seq))
        bus.subscribe(slow)
        await bus.publish(event(1))
        await bus.publish_batch(events(*range(2, 20)))
        await bus.publish(event(20))
        await bus.publish_batch([])
        await bus.drain()
        same(plain, list(range(1, 21)), "what a plain handler got")
        same(later, list(range(1, 21)), "what an async handler got")

    @promise
    async def test_an_event_arrives_as_it_was(self, bus: EventBus) -> None:
        """Every field of every type of event comes unchanged."""
        sent = [event(n, kind=kind, text="שלום\n😀", n=1.5, deep={"a": [1, None, True]}) for n, kind in enumerate(T, 1)]
        got: list[Event] = []
        bus.subscribe(got.append)
        await bus.publish_batch(sent)
        await bus.drain()
        same(got, sent, "the events")

    @promise
    async def test_filters(self, bus: EventBus) -> None:
        """Types, run and a predicate select; `exec_1` does not match `exec_10`."""
        got: list[tuple[str, int]] = []
        odd: list[int] = []
        bus.subscribe(lambda one: got.append((one.run_id, one.seq)), types=[T.NODE_ERROR], run_id="exec_1")
        bus.subscribe(lambda one: odd.append(one.seq), where=lambda one: one.seq % 2 == 1)
        await bus.publish_batch([event(1, "exec_1", T.NODE_ERROR), event(2, "exec_10", T.NODE_ERROR), event(3, "exec_1")])
        await bus.drain()
        same(got, [("exec_1", 1)], "the errors of exec_1")
        same(odd, [1, 3], "the events that a predicate chose")

    @promise
    async def test_priorities(self, bus: EventBus) -> None:
        """Critical is served before high, before normal, before low, whichever subscribed first."""
        order: list[P] = []
        for priority in (P.LOW, P.CRITICAL, P.NORMAL, P.HIGH):
            bus.subscribe(lambda one, p=priority: order.append(p), priority=priority)
        await bus.publish(event(1))
        await bus.drain()
        same(order, [P.CRITICAL, P.HIGH, P.NORMAL, P.LOW], "the order in which handlers were called")

    @promise
    async def test_all_of_a_batch_or_nothing(self, bus: EventBus) -> None:
        """A batch with something that is not an event is refused before anybody gets any of it."""
        got: list[int] = []
        bus.subscribe(lambda one: got.append(one.seq))
        broken: Any = [event(1), "no event", event(3)]
        with refusal("publishing what is not an event", EventBusError, cause="invalid"):
            await bus.publish_batch(broken)
        await bus.drain()
        same(got, [], "what arrived of a batch that was refused")
        same(bus.stats()["published"], 0, "the number of events published")

    @promise
    async def test_a_failing_handler_is_isolated_and_told(self, bus: EventBus) -> None:
        """A handler or predicate that raises disturbs nobody, stays subscribed, is counted, and on_error hears of it."""
        got: list[int] = []
        errors: list[str] = []

        def bad(one: Event) -> None:
            raise ValueError(f"no {one.seq}")

        async def bad_later(one: Event) -> None:
            raise ValueError(f"never {one.seq}")

        def choosy(one: Event) -> bool:
            raise KeyError("where")

        def hear(error: Exception) -> None:
            errors.append(f"{error}")
            raise RuntimeError("also this must not matter")

        bus.subscribe(bad, priority=P.HIGH, on_error=hear)
        bus.subscribe(bad_later, on_error=hear)
        bus.subscribe(got.append, where=choosy, on_error=hear)  # pyright: ignore[reportArgumentType]
        bus.subscribe(lambda one: got.append(one.seq))
        await bus.publish_batch(events(1, 2))
        await bus.drain()
        same(got, [1, 2], "what the others got")
        same(sorted(errors), ["'where'", "'where'", "never 1", "never 2", "no 1", "no 2"], "what on_error received")
        same(sorted(s["failed"] for s in bus.stats()["subscribers"]), [0, 2, 2, 2], "the counts of failures")

    @promise
    async def test_unsubscribing(self, bus: EventBus) -> None:
        """Nothing comes after it, unknown ones are ignored, and a handler may leave while it is served."""
        got: list[int] = []
        later: list[int] = []

        def once(one: Event) -> None:
            got.append(one.seq)
            bus.unsubscribe(first)

        async def once_later(one: Event) -> None:
            bus.unsubscribe(second)
            await asyncio.sleep(0)
            later.append(one.seq)

        first, second = bus.subscribe(once), bus.subscribe(once_later)
        bus.unsubscribe(Subscription(10_000))
        await bus.publish(event(1))
        await bus.drain()
        await bus.publish(event(2))
        await bus.drain()
        await asyncio.sleep(0.01)
        same(got, [1], "what a plain handler got that left")
        same(later, [1], "what an async handler got that left, and finished")
        same(bus.stats()["subscribers"], [], "the subscribers left")

    @promise
    async def test_drop_oldest(self, bus: EventBus) -> None:
        """A full queue loses the oldest of the lowest priority, counts them, and nobody waits; others see everything."""
        slow = _Slow()
        fast: list[int] = []
        bus.subscribe(slow, max_queue_size=3, overflow="drop_oldest")
        bus.subscribe(lambda one: fast.append(one.seq))
        kinds = [
            T.NODE_STARTED,
            T.NODE_ERROR,
            T.NODE_OUTPUT,
            T.NODE_STARTED,
            T.EXECUTION_ERROR,
            T.NODE_OUTPUT,
            T.NODE_ERROR,
        ]
        await bus.publish_batch([event(n, kind=kind) for n, kind in enumerate(kinds, 1)])
        slow.let.set()
        await bus.drain()
        same(fast, [1, 2, 3, 4, 5, 6, 7], "what a fast handler got")
        same(slow.got, [2, 5, 7], "what was kept for the slow one: the errors")
        same(sorted(s["dropped"] for s in bus.stats()["subscribers"]), [0, 4], "the counts of what was dropped")

    @promise
    async def test_block(self, bus: EventBus) -> None:
        """The publisher waits for room; nothing is lost; who gives up waiting has published nothing, to nobody."""
        slow = _Slow()
        fast: list[int] = []
        bus.subscribe(slow, max_queue_size=2, overflow="block")
        bus.subscribe(lambda one: fast.append(one.seq))
        await bus.publish(event(1))
        await slow.begun.wait()
        await bus.publish_batch(events(2, 3))
        waiting = asyncio.ensure_future(bus.publish_batch(events(4, 5)))
        given_up = asyncio.ensure_future(bus.publish(event(99)))
        await asyncio.sleep(0.02)
        that(not waiting.done(), "publishing does not wait for a subscriber that says 'block'")
        same(fast, [1, 2, 3], "what anybody got of a batch that still waits")
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        slow.let.set()
        await waiting
        await bus.publish_batch(events(*range(6, 20)))
        await bus.drain()
        same(slow.got, list(range(1, 20)), "what the slow handler got, a batch larger than its queue among it")
        same(fast, list(range(1, 20)), "what the fast one got")

    @promise
    async def test_block_ends_with_the_subscription(self, bus: EventBus) -> None:
        """A publisher does not wait for somebody who has left."""
        slow = _Slow()
        subscription = bus.subscribe(slow, max_queue_size=1, overflow="block")
        await bus.publish(event(1))
        await slow.begun.wait()
        await bus.publish(event(2))
        waiting = asyncio.ensure_future(bus.publish(event(3)))
        await asyncio.sleep(0.01)
        bus.unsubscribe(subscription)
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(bus.drain(), 5)
        same(slow.got, [], "what a handler got that was cut off in its first event")

    @promise
    async def test_overflow_error(self, bus: EventBus) -> None:
        """With `error` a subscription that falls behind ends, and its on_error is called; the publisher and the others notice nothing."""
        slow = _Slow()
        errors: list[Exception] = []
        fast: list[int] = []
        bus.subscribe(slow, max_queue_size=2, overflow="error", on_error=errors.append)
        bus.subscribe(lambda one: fast.append(one.seq))
        await bus.publish(event(1))
        await slow.begun.wait()
        for seq in range(2, 10):
            await bus.publish(event(seq))
        await bus.drain()
        same(fast, list(range(1, 10)), "what a fast handler got")
        that(
            len(errors) == 1 and isinstance(errors[0], EventBusError),
            f"on_error received {errors}; promised is one EventBusError",
        )
        same(len(bus.stats()["subscribers"]), 1, "the number of subscribers left")

    @promise
    async def test_cleanup_hands_out_what_was_published(self, bus: EventBus) -> None:
        """It waits for handlers, may be called twice; the bus may be opened again."""
        got: list[int] = []

        async def handler(one: Event) -> None:
            await asyncio.sleep(0.001)
            got.append(one.seq)

        async with bus:
            bus.subscribe(handler)
            await bus.publish_batch(events(1, 2, 3))
        await bus.cleanup()
        same(got, [1, 2, 3], "what was handed out before the end")
        async with bus:
            bus.subscribe(handler)
            await bus.publish(event(4))
        same(got, [1, 2, 3, 4], "what a bus that was opened again handed out")

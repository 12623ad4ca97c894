"""The contract of event buses (`dipeo_nb.testing.contracts.events`) on every one we have."""

from __future__ import annotations

import logging
import uuid

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.events.redis import RedisEventBus
from dipeo_nb.testing.contracts import EventBusContract


class TestInMemory(EventBusContract):
    make = InMemoryEventBus


class TestRedis(EventBusContract):
    @pytest.fixture(autouse=True)
    def adapter(self, redis_server: str) -> None:
        self.make = lambda: RedisEventBus(redis_server, prefix=uuid.uuid4().hex)


def test_losses_and_failures_are_logged(caplog: pytest.LogCaptureFixture):
    """One line for a handler that falls behind, one for each failure."""

    async def slow(event: Event) -> None:
        raise ValueError("no")

    async def go() -> None:
        async with InMemoryEventBus(max_queue_size=2) as bus:
            bus.subscribe(slow)
            await bus.publish_batch([Event(n, T.NODE_STARTED, "r", 0.0, None, {}) for n in range(1, 8)])

    with caplog.at_level(logging.WARNING):
        run_sync(go())
    assert [r.levelname for r in caplog.records] == ["WARNING", "ERROR", "ERROR"]

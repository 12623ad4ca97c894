"""SingleFlightCache under cancellation, loops that go away, odd sizes and odd factories: every caller comes to an end."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from dipeo_nb.common import SingleFlightCache
from dipeo_nb.common import cache as module
from tests.support.wire_openai import run

PATIENCE_S = 20.0
"""Seconds after which a caller counts as stuck; none comes near them."""


class Factory:
    """Counts its calls, and how many of them went on at once."""

    def __init__(self, work: Any = None) -> None:
        self.calls = self.at_work = self.most = 0
        self.work = work

    async def __call__(self) -> int:
        self.calls += 1
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        number = self.calls
        try:
            if self.work is not None:
                await self.work(number)
            return number
        finally:
            self.at_work -= 1


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


def test_a_factory_that_meets_a_cancellation_is_called_once():
    """Something that the factory awaits was cancelled: all callers get that, as a plain await gives it; nothing is repeated."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            if number == 1:
                gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                gone.cancel()
                await gone

        factory = Factory(work)
        callers = (cache.get_or_create("k", factory) for _ in range(3))
        results = await soon(asyncio.gather(*callers, return_exceptions=True))
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        assert factory.calls == 1
        assert await soon(cache.get_or_create("k", factory)) == 2

    run(go())


def test_a_factory_that_cancels_itself_ends():
    """Its caller is cancelled; the work is not begun over and over."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()

        async def work(number: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        factory = Factory(work)
        with pytest.raises(asyncio.CancelledError):
            await soon(cache.get_or_create("k", factory))
        assert factory.calls == 1

    run(go())


@pytest.mark.parametrize("ttl", [None, 10.0, 0.0])
def test_a_cache_of_size_0_keeps_nothing(ttl: float | None):
    """Callers at the same time still share one call."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache(ttl, maxsize=0)

        async def work(number: int) -> None:
            await asyncio.sleep(0.01)

        factory = Factory(work)
        assert await soon(asyncio.gather(*(cache.get_or_create("k", factory) for _ in range(3)))) == [1, 1, 1]
        assert await soon(cache.get_or_create("k", factory)) == 2
        assert len(cache) == 0

    run(go())
    for size in (-1, None, "8", 1.5):
        with pytest.raises(ValueError, match=r"maxsize is .*an integer >= 0"):
            SingleFlightCache(maxsize=size)  # type: ignore[arg-type]


def test_an_error_while_keeping_the_value_reaches_the_callers():
    """A clock that fails is an error of the call, not a caller that waits for ever."""
    broken = False

    def timer() -> float:
        if broken:
            raise OSError("no clock")
        return 0.0

    async def go() -> None:
        nonlocal broken
        cache: SingleFlightCache[int] = SingleFlightCache(10, timer=timer)

        async def work(number: int) -> None:
            nonlocal broken
            await asyncio.sleep(0)
            broken = True

        with pytest.raises(OSError, match="no clock"):
            await soon(cache.get_or_create("k", Factory(work)))
        broken = False
        assert await soon(cache.get_or_create("k", Factory())) == 1

    run(go())


def test_clearing_during_the_work_keeps_nothing_stale():
    """What was begun before `clear` reaches those who wait for it; the next call makes it anew."""

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache()

        async def work(number: int) -> None:
            await asyncio.sleep(0.01)

        factory = Factory(work)
        first = asyncio.create_task(cache.get_or_create("k", factory))
        await asyncio.sleep(0)
        cache.clear("k")
        assert await soon(first) == 1
        assert await soon(cache.get_or_create("k", factory)) == 2

    run(go())


@pytest.mark.parametrize("close", [True, False], ids=["closed", "stopped"])
def test_a_loop_that_goes_away_with_the_work_pending(monkeypatch: pytest.MonkeyPatch, close: bool):
    """A waiter elsewhere takes over; a new caller begins at once when the loop is closed."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    cache: SingleFlightCache[int] = SingleFlightCache()

    async def work(number: int) -> None:
        if number == 1:
            await asyncio.sleep(3600)

    factory = Factory(work)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(cache.get_or_create("k", factory))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert factory.calls == 1
    waiter = threading.Thread(target=lambda: results.append(asyncio.run(soon(cache.get_or_create("k", factory)))))
    results: list[int] = []
    if close:
        loop.close()
        assert run(soon(cache.get_or_create("k", factory))) == 2
    waiter.start()
    waiter.join(PATIENCE_S)
    assert results == [2]
    if not close:
        leader.cancel()
        loop.run_until_complete(asyncio.gather(leader, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
    else:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # it is meant to be destroyed
    assert run(soon(cache.get_or_create("k", factory))) == 2


def test_a_loop_with_eager_tasks():
    """The factory may run at once, and may ask the cache for another key."""
    eager: Any = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("not here: eager tasks came with Python 3.12")

    async def go() -> None:
        asyncio.get_running_loop().set_task_factory(eager)
        cache: SingleFlightCache[int] = SingleFlightCache()
        inner = Factory()

        async def outer() -> int:
            return 10 + await cache.get_or_create("inner", inner)

        assert await soon(cache.get_or_create("outer", outer)) == 11

    asyncio.run(go())


@pytest.mark.parametrize("seed", range(20))
def test_random_callers_and_cancellations(seed: int):
    """Callers of few keys that come, are cancelled and fail at random: each ends, with a value its factory made or with the
    factory's error, unless it was itself cancelled; no key is made twice at once; nothing is left behind."""
    chance = random.Random(seed)

    async def go() -> None:
        cache: SingleFlightCache[int] = SingleFlightCache(maxsize=chance.choice([0, 1, 8]))

        async def work(number: int) -> None:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                raise OSError("factory")
            if chance.random() < 0.1:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    return  # a factory that does not let itself be cancelled

        factories = {key: Factory(work) for key in "abc"}
        tasks: list[asyncio.Task[int]] = []
        cancelled: set[asyncio.Task[int]] = set()
        for _ in range(300):
            if chance.random() < 0.6:
                key = chance.choice("abc")
                call = cache.get_or_create(key, factories[key], chance.random() < 0.7)
                tasks.append(asyncio.create_task(call))
            waiting = [task for task in tasks if not task.done()]
            if waiting and chance.random() < 0.4:
                gone = chance.choice(waiting)
                gone.cancel()
                cancelled.add(gone)
            if chance.random() < 0.1:
                cache.clear(chance.choice([None, "a"]))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        results = await soon(asyncio.gather(*tasks, return_exceptions=True))
        for task, result in zip(tasks, results, strict=True):
            if isinstance(result, asyncio.CancelledError):
                assert task in cancelled
            else:
                assert isinstance(result, (int, OSError))
        for _ in range(10):
            await asyncio.sleep(0)
        assert max(factory.most for factory in factories.values()) == 1
        assert cache._flights == {}

    run(go())

"""Iterators that live on the library's loop, read on another one: each item once and in order, errors, others' turns, leaving early."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from dipeo_nb.common.loop import BURST, LoopThread, iterate_on_loop, submit
from tests.support.waiting import until

MANY = 40 * BURST


async def numbers(
    pauses_after: int, closed: list[str], error: Exception | None = None, *, many: int = MANY
) -> AsyncIterator[int]:
    """*many* numbers, in bursts of *pauses_after*; notes the thread that it is closed on."""
    try:
        for n in range(many):
            if n % pauses_after == 0:
                await asyncio.sleep(0)
            yield n
        if error is not None:
            raise error
    finally:
        await asyncio.sleep(0)
        closed.append(threading.current_thread().name)


@pytest.mark.parametrize("pauses_after", [1, 7, BURST, MANY])
@pytest.mark.parametrize("slow_reader", [False, True], ids=["fast", "slow"])
def test_every_item_comes_once_and_in_order(pauses_after: int, slow_reader: bool):
    """However items come, and however they are read; the iterator is closed where it lives."""
    closed: list[str] = []

    async def read() -> list[int]:
        found: list[int] = []
        async for n in iterate_on_loop(numbers(pauses_after, closed)):
            found.append(n)
            if slow_reader and n % 50 == 0:
                await asyncio.sleep(0.001)
        return found

    assert asyncio.run(read()) == list(range(MANY))
    assert closed == [LoopThread.get().thread.name]


def test_many_readers_at_once():
    """Readers of one loop, each with an iterator of its own, mix nothing up."""

    async def read(pauses_after: int) -> list[int]:
        return [n async for n in iterate_on_loop(numbers(pauses_after, []))]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(read(n) for n in range(1, 9)))

    assert asyncio.run(all_of_them()) == [list(range(MANY))] * 8


def test_an_error_comes_after_the_items():
    """What came before the error is not lost."""
    found: list[int] = []

    async def read() -> None:
        async for n in iterate_on_loop(numbers(BURST, [], ValueError("broken"))):
            found.append(n)  # noqa: PERF401 - a comprehension would lose what came before the error

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(read())
    assert found == list(range(MANY))


def test_others_have_their_turn():
    """A burst does not hold up what else runs on the reader's loop."""

    async def read() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(other())
        async for _ in iterate_on_loop(numbers(MANY, [])):
            pass
        task.cancel()
        return turns

    assert asyncio.run(read()) >= MANY // BURST - 1


def test_leaving_early_waits_for_the_closing():
    """A reader who leaves in the middle of a burst goes on when the iterator is closed."""
    closed: list[str] = []

    async def read() -> list[str]:
        # So many that it never ends of itself: its own closing would be what is cut off then.
        events = iterate_on_loop(numbers(BURST, closed, many=sys.maxsize))
        async for n in events:
            if n == 3:
                break
        await events.aclose()
        return list(closed)

    assert asyncio.run(read()) == [LoopThread.get().thread.name]


@pytest.mark.parametrize("moment", ["before it is handed over", "when it was just handed over", "when it is at work"])
def test_an_interrupt_while_work_is_handed_over(moment: str, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C is what the caller gets, and the work ends: nobody could stop it any more."""
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            began.set()
            await asyncio.sleep(600)
        finally:
            ended.set()

    real = asyncio.run_coroutine_threadsafe

    def interrupted(coro: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[Any]:
        if not moment.startswith("before"):
            real(coro, loop)
        if moment.endswith("at work"):
            assert began.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    coro = work()
    with pytest.raises(KeyboardInterrupt):
        submit(coro)
    monkeypatch.undo()
    asyncio.run(until(lambda: inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED))
    assert ended.is_set() or not began.is_set()

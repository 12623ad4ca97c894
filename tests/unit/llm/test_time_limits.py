"""Time limits of streams, by their edges: what counts as waiting, and whose cancellation it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, StreamEvent
from dipeo_nb.errors import LLMTimeoutError
from dipeo_nb.llm.streaming import TimeLimits

REQUEST = LLMRequest("openai", "m", (ChatMessage("user", "Hi."),))
LONG = 30.0
"""Seconds that no test waits for."""


async def pieces(steps: Sequence[float | Exception | None], closed: list[bool]) -> AsyncIterator[StreamEvent]:
    """A piece for None; seconds are waited for, errors raised."""
    try:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if step is None:
                yield StreamEvent("text", "a")
            else:
                await asyncio.sleep(step)
    finally:
        closed.append(True)


async def read(steps: Sequence[float | Exception | None], total: float, idle: float, *, reads_for: float = 0.0) -> int:
    """How many pieces came. The stream is closed and the task not cancelled, whatever the end is."""
    closed: list[bool] = []
    count = 0
    try:
        async for _ in TimeLimits(total, idle).guard(pieces(steps, closed), REQUEST):
            count += 1
            await asyncio.sleep(reads_for)
    finally:
        assert closed == [True]
    return count


@pytest.mark.parametrize(
    ("steps", "total", "idle", "said"),
    [
        ([LONG], 0.05, LONG, "no complete answer within 0.05 s"),
        ([LONG], 0.05, 0.01, "no complete answer within 0.05 s"),  # the first piece has all the time
        ([None, LONG], LONG, 0.05, "silence for 0.05 s"),
        ([None] * 1000 + [LONG], LONG, 0.05, "silence for 0.05 s"),  # after a burst, too
        ([None, *[0.02, None] * 3, LONG], LONG, 0.1, "silence for 0.1 s"),  # the limit has moved along
        ([None, *[0.02, None] * 50], 0.1, LONG, "no complete answer within 0.1 s"),
        ([None, LONG], 0.05, LONG, "no complete answer within 0.05 s"),
    ],
)
def test_limits_that_are_passed(steps: list[float | None], total: float, idle: float, said: str):
    """Each says which one it was, and leaves the task as it was."""

    async def go() -> None:
        with pytest.raises(LLMTimeoutError, match=said):
            await read(steps, total, idle)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    asyncio.run(go())


def test_the_readers_time_is_no_silence():
    """A reader may take longer than the idle limit over each piece."""
    assert asyncio.run(read([None, None, None], LONG, 0.02, reads_for=0.05)) == 3


def test_pieces_within_the_limit_add_up_to_more():
    """The idle limit counts from piece to piece."""
    assert asyncio.run(read([None, *[0.03, None] * 10], LONG, 0.25)) == 11


def test_a_clients_own_timeout_is_not_ours():
    """An error of a client that happens to be a TimeoutError stays one."""
    with pytest.raises(TimeoutError, match="theirs"):
        asyncio.run(read([None, TimeoutError("theirs")], LONG, LONG))


def test_a_cancellation_from_outside_stays_one():
    """Stop is no limit that was passed."""

    async def go() -> None:
        task = asyncio.create_task(read([None, LONG], LONG, LONG))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def test_an_outer_limit_is_passed_as_such():
    """A shorter limit around the whole read is a TimeoutError of its own."""

    async def go() -> None:
        async with asyncio.timeout(0.05):
            await read([None, LONG], LONG, LONG)

    with pytest.raises(TimeoutError):
        asyncio.run(go())


def test_a_client_that_makes_an_error_of_the_cancellation():
    """What it raises is passed on, and the task can be used again."""
    ends: list[bool] = []

    async def stubborn() -> AsyncIterator[StreamEvent]:
        yield StreamEvent("text", "a")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            ends.append(True)
            raise ValueError("made of it") from None

    async def go() -> None:
        with pytest.raises(ValueError, match="made of it"):
            async for _ in TimeLimits(LONG, 0.02).guard(stubborn(), REQUEST):
                pass
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)

    asyncio.run(go())
    assert ends == [True]

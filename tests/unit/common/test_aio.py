"""A coroutine whose work is done is one like any other."""

from __future__ import annotations

import asyncio

import pytest

from dipeo_nb.common.aio import DONE, begun
from dipeo_nb.common.loop import run_sync


def test_done_is_awaited_in_every_way_and_any_number_of_times():
    async def go() -> None:
        await DONE
        await asyncio.create_task(DONE)
        assert await asyncio.gather(DONE, DONE) == [None, None]
        await asyncio.wait_for(DONE, 1)

    run_sync(go())
    assert run_sync(DONE) is None
    asyncio.run(DONE)
    DONE.close()


def test_work_that_need_not_wait_is_done_when_it_is_begun():
    steps: list[int] = []

    async def work(*, waits: bool) -> None:
        steps.append(1)
        if waits:
            await asyncio.sleep(0)
        steps.append(2)

    async def go() -> None:
        assert begun(work(waits=False)) is DONE
        assert steps == [1, 2]
        rest = begun(work(waits=True))
        assert rest is not DONE
        assert steps == [1, 2, 1]
        await rest
        assert steps == [1, 2, 1, 2]

    run_sync(go())


def test_an_error_of_work_is_raised_where_it_happens():
    async def work(*, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("no")

    async def go() -> None:
        with pytest.raises(ValueError, match="no"):
            begun(work(waits=False))
        rest = begun(work(waits=True))
        with pytest.raises(ValueError, match="no"):
            await rest

    run_sync(go())

"""When streamed text is committed."""

from __future__ import annotations

import asyncio
import gc
import weakref

from dipeo_nb.common.loop import run_sync
from dipeo_nb.execution.delta_ticks import PER_RUN_S, DeltaTicks, ticks_of


def test_all_runs_have_one_moment():
    """Those that add themselves later come along; one that is discarded does not."""
    called: list[int] = []
    commits = [lambda n=n: called.append(n) for n in range(4)]

    async def go() -> None:
        ticks = DeltaTicks(0.02)
        ticks.add(commits[0])
        await asyncio.sleep(0.005)
        for commit in (*commits[1:], commits[0]):
            ticks.add(commit)
        ticks.discard(commits[2])
        assert called == []
        await asyncio.sleep(0.05)

    run_sync(go())
    assert called == [0, 1, 3]


def test_what_is_added_at_a_moment_has_its_turn_at_the_next():
    called: list[float] = []

    async def go() -> None:
        loop = asyncio.get_running_loop()
        ticks = DeltaTicks(0.01)

        def commit() -> None:
            called.append(loop.time())
            if len(called) < 3:
                ticks.add(commit)

        ticks.add(commit)
        await asyncio.sleep(0.1)

    run_sync(go())
    assert len(called) == 3
    assert called[-1] - called[0] >= 0.02


def test_with_many_runs_the_moments_are_further_apart():
    moments: list[float] = []

    async def go() -> None:
        loop = asyncio.get_running_loop()
        ticks = DeltaTicks(0.001)
        for _ in range(2):
            for _ in range(100):
                ticks.add(lambda: moments.append(loop.time()))
            await asyncio.sleep(0.2)
            moments.append(-1)
        begin = loop.time()
        ticks.add(lambda: moments.append(loop.time() - begin))
        await asyncio.sleep(0.2)

    run_sync(go())
    assert len(moments) == 203
    assert moments[-1] >= 100 * PER_RUN_S


def test_intervals_have_their_own():
    async def go() -> None:
        assert ticks_of(0.1) is ticks_of(0.1)
        assert ticks_of(0.1) is not ticks_of(0.2)

    run_sync(go())


def test_a_loop_that_is_gone_is_forgotten():
    """Nothing of an event loop is kept when it was closed, also not by what was to come."""
    loop = asyncio.new_event_loop()
    left = weakref.ref(loop)

    async def go() -> None:
        ticks_of(60.0).add(lambda: None)

    loop.run_until_complete(go())
    loop.close()
    del loop
    gc.collect()
    assert left() is None

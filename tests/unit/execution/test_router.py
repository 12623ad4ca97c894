"""`MessageRouter`: everybody gets every event of a run once and in order, and nobody is held up by anybody."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.router import MessageRouter
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from tests.support.examples import examples
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]


def event(seq: int, kind: T = T.NODE_STARTED, run: str = "r") -> Event:
    return Event(seq, T.EXECUTION_STARTED if seq == 1 else kind, run, 1000.0 + seq, None, {})


class Stage:
    """A store, a bus, a router, and a run that is told by hand."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.store = store or InMemoryRunStore()
        self.bus = InMemoryEventBus()
        self.router = MessageRouter(self.store, self.bus, **(dict[str, Any](idle_s=0.05, begin_s=30) | options))
        self._seq: dict[str, int] = {}

    async def tell(self, count: int = 1, *, run: str = "r", last: bool = False, heard: bool = True) -> None:
        """Events of a run, first to the store, then to the bus, as the engine does.

        Args:
            last: the last one ends the run.
            heard: False: the bus loses them.
        """
        first = self._seq.get(run, 0) + 1
        self._seq[run] = first + count - 1
        events = [event(seq, run=run) for seq in range(first, first + count)]
        if last:
            events[-1] = events[-1]._replace(type=T.EXECUTION_COMPLETED, payload={"status": "completed"})
        await self.store.append(events)
        if heard:
            await self.bus.publish_batch(events)

    def nothing_left(self) -> None:
        assert self.router.stats()["followers"] == 0
        assert self.bus.stats()["subscribers"] == []


@asynccontextmanager
async def stage(store: Any = None, **options: Any) -> AsyncIterator[Stage]:
    made = Stage(store, **options)
    await made.store.initialize()
    try:
        async with made.router:
            yield made
        made.nothing_left()
    finally:
        await made.store.cleanup()


def seqs(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def test_three_connections_one_slow_one_failing(caplog: pytest.LogCaptureFixture):
    """Row S77: the same sequence for all that work; the failing one is removed, and told why; nobody waits for anybody."""
    fast: list[int] = []
    slow: list[int] = []
    seen_by_failing: list[int] = []
    told: list[Exception] = []
    let = asyncio.Event()

    async def slowly(one: Event) -> None:
        await let.wait()
        await asyncio.sleep(0)
        slow.append(one.seq)

    def failing(one: Event) -> None:
        seen_by_failing.append(one.seq)
        if one.seq > 10:
            raise ConnectionError("gone")

    async def go() -> None:
        async with stage() as s:
            await s.router.register_connection("fast", lambda one: fast.append(one.seq))
            await s.router.register_connection("slow", slowly)
            await s.router.register_connection("failing", failing, on_removed=told.append)
            for name in ("fast", "slow", "failing"):
                await s.router.subscribe_connection_to_execution(name, "r")
            for n in range(1000):
                await s.tell(last=n == 999)
                await asyncio.sleep(0)
            await until(lambda: len(fast) == 1000)
            assert slow == [], "the fast one did not wait for the slow one"
            let.set()
            await until(lambda: len(slow) == 1000 and bool(told))
            stats = s.router.stats()
            assert set(stats["connections"]) == {"fast", "slow"}
            assert stats["removed"] == 1
            with pytest.raises(UserError, match="no connection 'failing'"):
                await s.router.subscribe_connection_to_execution("failing", "r")

    with caplog.at_level(logging.WARNING):
        run_sync(go())
    assert fast == slow == seqs(1, 1000)
    assert seen_by_failing == [*seqs(1, 10), 11, 11, 11], "an event that could not be delivered is tried again"
    assert isinstance(told[0], ConnectionError)
    assert sum("failing is removed" in record.getMessage() for record in caplog.records) == 1


@examples(60)
@given(
    st.lists(st.tuples(st.integers(2, 12), st.booleans()), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 7),
    st.integers(0, 2**32),
)
def test_from_any_event_at_any_time(
    told: list[tuple[int, bool]], followers: list[tuple[int, int, bool]], queue: int, seed: int
):
    """Whenever they come, from whatever event on, fast or slow, whatever the bus loses: no gap, nothing twice."""
    total = sum(count for count, _ in told)
    chance = random.Random(seed)

    async def follow(s: Stage, begin: int, after: int, slow: bool) -> list[int]:
        for _ in range(begin):
            await asyncio.sleep(0)
        got: list[int] = []
        async with aclosing(s.router.events("r", after=after)) as events:
            async for one in events:
                got.append(one.seq)
                for _ in range(chance.randint(0, 5) if slow else 0):
                    await asyncio.sleep(0)
        return got

    async def go() -> list[list[int]]:
        async with stage(queue_size=queue, idle_s=0.005) as s:
            tasks = [asyncio.ensure_future(follow(s, begin, min(after, total - 1), slow)) for begin, after, slow in followers]
            for n, (count, heard) in enumerate(told):
                await s.tell(count, last=n == len(told) - 1, heard=heard)
                for _ in range(chance.randint(0, 3)):
                    await asyncio.sleep(0)
            return await asyncio.gather(*tasks)

    for got, (_, after, _) in zip(run_sync(go()), followers, strict=True):
        assert got == seqs(min(after, total - 1) + 1, total)


def test_who_does_not_read_costs_nothing():
    """Row S85: 20,000 events past one that stopped reading: at most 100 are held for it, and later it gets them all."""
    got: list[int] = []
    most = 0

    async def go() -> None:
        nonlocal most
        async with stage() as s, aclosing(s.router.events("r")) as events:
            await s.tell()
            got.append((await anext(events)).seq)
            for n in range(200):
                await s.tell(100, last=n == 199)
                most = max(most, s.router.stats()["waiting"])
            got.extend([one.seq async for one in events])

    run_sync(go())
    assert 0 < most <= 100
    assert got == seqs(1, 20_001)


def test_a_delivery_that_is_late_is_tried_again(caplog: pytest.LogCaptureFixture):
    """As one that raises; when it works again nothing is missing, and the count begins anew."""
    got: list[int] = []
    tries: Counter[int] = Counter()

    async def handler(one: Event) -> None:
        tries[one.seq] += 1
        if one.seq in (2, 5) and tries[one.seq] < 3:
            await asyncio.sleep(60)
        got.append(one.seq)

    async def go() -> None:
        async with stage(timeout=0.01) as s:
            await s.router.register_connection("c", handler)
            await s.router.subscribe_connection_to_execution("c", "r")
            await s.tell(8, last=True)
            await until(lambda: len(got) == 8)
            health = s.router.stats()["connections"]["c"]
            assert (health["delivered"], health["failed_in_a_row"], health["healthy"]) == (8, 0, True)
            assert health["failed"] == 4
            assert health["latency_ms"] >= 0
            assert health["idle_s"] < 30

    run_sync(go())
    assert got == seqs(1, 8)


def test_health_before_and_after():
    """Row S84: what a connection did is counted; where it is in a run is known; afterwards nothing of it is left."""

    async def go() -> None:
        async with stage() as s:
            await s.router.register_connection("c", lambda one: None)
            assert s.router.stats()["connections"]["c"] | {"idle_s": 0} == {
                "delivered": 0, "failed": 0, "failed_in_a_row": 0, "latency_ms": None, "idle_s": 0, "healthy": True,
                "following": {},
            }  # fmt: skip
            await s.router.subscribe_connection_to_execution("c", "r", after=2)
            await s.tell(5)
            await until(lambda: s.router.stats()["connections"]["c"]["following"] == {"r": 5})
            assert s.router.stats()["connections"]["c"]["delivered"] == 3
            await s.tell(last=True)
            await until(lambda: s.router.stats()["connections"]["c"]["following"] == {})
            s.nothing_left()
            await s.router.unregister_connection("c")
            await s.router.unregister_connection("c")
            assert s.router.stats() == {"removed": 0, "followers": 0, "waiting": 0, "connections": {}}

    run_sync(go())


def test_following_twice_and_several_runs():
    """Following again disturbs nothing; runs do not mix; one can be left while the other goes on; `r1` is not `r10`."""
    got: list[tuple[str, int]] = []

    async def go() -> None:
        async with stage() as s:
            await s.router.register_connection("c", lambda one: got.append((one.run_id, one.seq)))
            for run in ("r1", "r10", "r1"):
                await s.router.subscribe_connection_to_execution("c", run)
            for _ in range(5):
                await s.tell(run="r1")
                await s.tell(run="r10")
                await s.tell(run="other")
            await until(lambda: len(got) == 10)
            await s.router.unsubscribe_connection_from_execution("c", "r1")
            await s.router.unsubscribe_connection_from_execution("c", "nothing")
            await s.tell(run="r1")
            await s.tell(run="r10", last=True)
            await until(lambda: ("r10", 6) in got)

    run_sync(go())
    assert [seq for run, seq in got if run == "r1"] == seqs(1, 5)
    assert [seq for run, seq in got if run == "r10"] == seqs(1, 6)
    assert {run for run, _ in got} == {"r1", "r10"}


def test_a_handler_that_leaves():
    """Out of its own handler, and while it is called: nothing comes afterwards."""
    got: list[int] = []
    late: list[int] = []
    begun = asyncio.Event()

    async def go() -> None:
        async with stage() as s:

            async def once(one: Event) -> None:
                got.append(one.seq)
                await s.router.unregister_connection("once")

            async def stuck(one: Event) -> None:
                begun.set()
                await asyncio.sleep(60)
                late.append(one.seq)

            await s.router.register_connection("once", once)
            await s.router.register_connection("stuck", stuck)
            for name in ("once", "stuck"):
                await s.router.subscribe_connection_to_execution(name, "r")
            await s.tell(5)
            await begun.wait()
            await s.router.unregister_connection("stuck")
            await until(lambda: bool(got))
            await s.tell(5)
            await asyncio.sleep(0.05)
            s.nothing_left()

    run_sync(go())
    assert got == [1]
    assert late == []


def test_names_are_taken_once():
    async def go() -> None:
        async with stage() as s:
            await s.router.register_connection("c", print)
            with pytest.raises(UserError, match="already") as error:
                await s.router.register_connection("c", print)
            assert error.value.hint

    run_sync(go())


def test_a_run_that_never_begins_and_one_that_begins_late():
    async def follow(s: Stage, run: str) -> list[int]:
        async with aclosing(s.router.events(run)) as events:
            return [one.seq async for one in events]

    async def go() -> tuple[list[int], list[int]]:
        async with stage(begin_s=0.1) as s:
            nobody = await follow(s, "nobody")
        async with stage() as s:
            late = asyncio.ensure_future(follow(s, "r"))
            await asyncio.sleep(0.1)
            await s.tell(3, last=True, heard=False)
            return nobody, await late

    assert run_sync(go()) == ([], [1, 2, 3])


def test_a_run_that_fails_and_is_taken_up_again():
    """A follower that is still reading follows into the resumed run; one that comes later sees both parts."""
    got: list[int] = []

    async def go() -> None:
        async with stage() as s:
            await s.tell(3)
            failed = event(4)._replace(type=T.EXECUTION_ERROR, payload={"status": "failed"})
            async with aclosing(s.router.events("r")) as events:
                got.append((await anext(events)).seq)
                await s.store.append([failed])
                await s.bus.publish(failed)
                await s.store.claim("r", owned=True)
                more = [event(5), event(6)._replace(type=T.EXECUTION_COMPLETED, payload={"status": "completed"})]
                await s.store.append(more)
                await s.bus.publish_batch(more)
                got.extend([one.seq async for one in events])
            async with aclosing(s.router.events("r")) as events:
                assert [one.seq async for one in events] == seqs(1, 6)

    run_sync(go())
    assert got == seqs(1, 6)


def test_what_the_store_could_not_keep_comes_from_the_bus():
    """A full disk: the run goes on unrecorded, and who watches it still sees it."""
    got: list[int] = []

    async def go() -> None:
        async with stage() as s:
            await s.tell(3)
            async with aclosing(s.router.events("r")) as events:
                got.append((await anext(events)).seq)
                await s.bus.publish_batch([event(5), event(6)])  # 4 is lost for good
                await s.bus.publish(event(7)._replace(type=T.EXECUTION_COMPLETED))
                got.extend([one.seq async for one in events])

    run_sync(go())
    assert got == [1, 2, 3, 5, 6, 7]


def test_a_store_that_cannot_be_read(caplog: pytest.LogCaptureFixture):
    """Who loops gets the error; a connection is removed and told."""
    told: list[Exception] = []

    class Broken(InMemoryRunStore):
        async def events(self, *args: Any, **options: Any) -> list[Event]:
            raise StorageError("The disk is gone.", hint="Look for it.", cause="unavailable")

    async def go() -> None:
        async with stage(Broken()) as s:
            with pytest.raises(StorageError, match="disk is gone"):
                async with aclosing(s.router.events("r")) as events:
                    await anext(events)
            await s.router.register_connection("c", print, on_removed=told.append)
            await s.router.subscribe_connection_to_execution("c", "r")
            await until(lambda: bool(told))

    run_sync(go())
    assert isinstance(told[0], StorageError)


def test_a_store_that_is_away_for_a_moment():
    """A connection goes on where it was."""
    got: list[int] = []
    fails = iter([False, True, True, False, True, True, False])

    class Shaky(InMemoryRunStore):
        async def events(self, *args: Any, **options: Any) -> list[Event]:
            if next(fails, False):
                raise StorageError("The server is away.", hint="Wait.", cause="unavailable")
            return await super().events(*args, **options)

    async def go() -> None:
        async with stage(Shaky(), queue_size=3) as s:
            await s.tell(8, last=True, heard=False)
            await s.router.register_connection("c", lambda one: got.append(one.seq))
            await s.router.subscribe_connection_to_execution("c", "r")
            await until(lambda: len(got) == 8)

    run_sync(go())
    assert got == seqs(1, 8)


OTHER = """
import asyncio, sys
from tests.unit.execution.test_router import Stage
from dipeo_nb.execution.state.sqlite import SqliteRunStore

async def main():
    s = Stage(SqliteRunStore(sys.argv[1]))
    await s.store.initialize()
    for n in range(50):
        await s.tell(2)
        await asyncio.sleep(0.002)
    print("told", flush=True)
    if sys.argv[2] == "ends":
        await s.tell(last=True)
        await s.store.cleanup()
    else:
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_run_of_another_process(how: str, tmp_path: Path):
    """One store, no bus in common: it is followed all the same, to its end or to that of its process."""
    path = tmp_path / "runs.db"

    async def go() -> list[int]:
        async with stage(SqliteRunStore(path), begin_s=30) as s:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OTHER, str(path), how, cwd=ROOT, stdout=subprocess.PIPE
            )
            try:
                got: list[int] = []
                async with aclosing(s.router.events("r")) as events:
                    async for one in events:
                        got.append(one.seq)
                        if one.seq == 100 and how == "is killed":
                            process.kill()
                return got
            finally:
                if process.returncode is None and how == "is killed":
                    process.kill()
                await process.communicate()

    assert run_sync(go()) == seqs(1, 101 if how == "ends" else 100)


def test_a_real_run_live_and_again():
    """The router of a session: what a connection sees live is what it sees later, and what the store has."""
    live: list[tuple[int, str]] = []
    again: list[tuple[int, str]] = []
    session = dp.Session()
    router = session.runtime.router
    diagram = """
version: light
nodes:
  - {label: Start, type: start, position: {x: 0, y: 0}, props: {custom_data: {n: 1}}}
  - {label: End, type: endpoint, position: {x: 400, y: 0}}
connections:
  - {from: Start, to: End}
"""
    with session.runtime:
        run = session.start(diagram)
        run_sync(router.register_connection("live", lambda one: live.append((one.seq, str(one.type)))))
        run_sync(router.subscribe_connection_to_execution("live", run.id))
        run.wait()
        run_sync(router.register_connection("later", lambda one: again.append((one.seq, str(one.type)))))
        run_sync(router.subscribe_connection_to_execution("later", run.id))
        run_sync(until(lambda: router.stats()["followers"] == 0))
        kept = [(one.seq, str(one.type)) for one in run.events]
    assert live == again == kept

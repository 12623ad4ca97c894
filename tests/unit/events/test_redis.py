"""The event bus on a real Redis server: several processes, outages, members that die; what all buses promise is in `contracts`."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.container import build
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import ConfigurationError, EventBusError
from dipeo_nb.events import redis
from dipeo_nb.events.redis import RedisEventBus
from tests.support.servers import RedisProcess, free_ports
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
DIAGRAM = """
version: light
nodes:
  - {label: Start, type: start, position: {x: 0, y: 0}, props: {custom_data: {n: 1}}}
  - {label: Double, type: code_job, position: {x: 200, y: 0}, props: {language: python, code: "result = 2 * n"}}
  - {label: End, type: endpoint, position: {x: 400, y: 0}}
connections:
  - {from: Start, to: Double, content_type: object}
  - {from: Double, to: End}
"""


def event(seq: int, run: str = "r", **payload: Any) -> Event:
    return Event(seq, T.NODE_STARTED, run, 1000.0 + seq, None, payload)


def events(*seqs: int) -> list[Event]:
    return [event(seq) for seq in seqs]


class Script:
    """A program that runs beside the test, tells how far it is, and waits for a word where it asks for one."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    async def tells(self, what: str) -> None:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 60)
        assert line.strip() == what

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    async def ends(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), 60)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


PUBLISHER = """
import asyncio, sys
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.events.redis import RedisEventBus

async def main():
    url, prefix = sys.argv[1:]
    async with RedisEventBus(url, prefix=prefix) as bus:
        for seq in range(1, 3001):
            await bus.publish(Event(seq, EventType.NODE_OUTPUT, "r", 1.0, "n", {"text": "x" * 50}))
            if seq % 10 == 0:
                await asyncio.sleep(0.001)
            if seq in (1000, 2000):
                print(seq, flush=True)
                await asyncio.to_thread(sys.stdin.readline)
        assert await bus.flush(40), bus.stats()

asyncio.run(main())
"""


def test_redis_is_killed_while_one_process_publishes_and_another_follows(mortal_redis: RedisProcess):
    """The server is killed twice between two processes: all of 3,000 events arrive, each once and in order, at every kind of
    subscriber; the publisher never waits."""
    prefix = uuid.uuid4().hex
    live: list[int] = []
    read: list[int] = []
    shared: list[int] = []

    async def slow(one: Event) -> None:
        await asyncio.sleep(0)
        shared.append(one.seq)

    async def go() -> None:
        async with RedisEventBus(mortal_redis.url, prefix=prefix) as bus:
            bus.subscribe(lambda one: live.append(one.seq))
            bus.subscribe(lambda one: read.append(one.seq), after="0")
            bus.subscribe(slow, group="workers", after="0")
            with Script(PUBLISHER, mortal_redis.url, prefix) as publisher:
                await publisher.tells("1000")
                mortal_redis.kill()
                publisher.go_on()
                await publisher.tells("2000")  # published into nothing
                await until(lambda: not bus.stats()["connected"])
                await asyncio.to_thread(mortal_redis.start)
                publisher.go_on()
                await until(lambda: len(live) > 1500)
                mortal_redis.kill()
                await asyncio.to_thread(mortal_redis.start)
                assert await publisher.ends() == 0
            await until(lambda: min(len(live), len(read), len(shared)) >= 3000)
            await asyncio.sleep(0.2)  # for what might come twice
            stats = bus.stats()
            assert (stats["connected"], stats["lost"], stats["unsent"]) == (True, 0, 0)

    run_sync(go())
    expected = list(range(1, 3001))
    assert live == expected
    assert read == expected
    assert shared == expected


def test_two_that_publish_see_each_other_and_themselves_once(redis_server: str):
    prefix = uuid.uuid4().hex
    got: dict[str, list[tuple[str, int]]] = {"a": [], "b": []}

    async def go() -> None:
        async with RedisEventBus(redis_server, prefix=prefix) as a, RedisEventBus(redis_server, prefix=prefix) as b:
            a.subscribe(lambda one: got["a"].append((one.run_id, one.seq)))
            b.subscribe(lambda one: got["b"].append((one.run_id, one.seq)))
            for seq in range(1, 101):
                await a.publish(event(seq, "of a"))
                await b.publish_batch([event(seq, "of b")])
            await until(lambda: len(got["a"]) >= 200 and len(got["b"]) >= 200)

    run_sync(go())
    for seen in got.values():
        assert Counter(seen) == Counter((run, seq) for run in ("of a", "of b") for seq in range(1, 101))
        for run in ("of a", "of b"):
            assert [seq for of, seq in seen if of == run] == list(range(1, 101)), "each run in its order"


def test_a_bus_is_used_from_two_loops(redis_server: str):
    """A cell of a notebook publishes to, reads from and flushes a bus that the library's loop has opened."""
    bus = RedisEventBus(redis_server, prefix=f"test-{uuid.uuid4().hex}")
    seen: list[int] = []
    followed: list[int] = []

    async def follow(event: Event) -> None:
        followed.append(event.seq)

    async def publish(*seqs: int) -> None:
        for seq in seqs:
            await bus.publish(event(seq))

    async def cell() -> None:
        async with asyncio.timeout(60):
            bus.subscribe(follow, after="0")
            await publish(3, 4)
            assert await bus.flush()
            await bus.drain()
            assert seen == [1, 2, 3, 4]
            while followed != [1, 2, 3, 4]:
                await asyncio.sleep(0.01)

    run_sync(bus.initialize())
    try:
        bus.subscribe(lambda event: seen.append(event.seq))
        run_sync(publish(1, 2))
        asyncio.run(cell())
    finally:
        run_sync(bus.cleanup())


def test_every_type_comes_through_the_server_as_it_was(redis_server: str):
    """Row S82: text of any script, numbers, nested values, no node."""
    sent = [
        Event(
            n,
            kind,
            "r",
            1000.5 + n,
            "n" if n % 2 else None,
            {"t": "שלום\n😀\x00", "n": 0.1, "deep": {"a": [1, None, True]}},
        )
        for n, kind in enumerate(T, 1)
    ]
    got: list[Event] = []

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as a, RedisEventBus(redis_server, prefix=prefix) as b:
            b.subscribe(got.append)
            await a.publish_batch(sent)
            await until(lambda: len(got) >= len(sent))

    run_sync(go())
    assert got == sent


def test_buses_with_another_prefix_do_not_meet(redis_server: str):
    got: list[int] = []

    async def go() -> None:
        mine, other = uuid.uuid4().hex, uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=mine) as a, RedisEventBus(redis_server, prefix=other) as b:
            b.subscribe(lambda one: got.append(one.seq))
            b.subscribe(lambda one: got.append(one.seq), after="0")
            await a.publish(event(1))
            await a.flush(10)
            await asyncio.sleep(0.1)

    run_sync(go())
    assert got == []


def test_what_was_sent_before_is_not_sent_again(redis_server: str):
    """A publisher that died before it heard that the server had its events sends them again: the server knows them."""
    got: list[int] = []

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as first:
            await first.publish_batch(events(1, 2, 3))
        async with RedisEventBus(redis_server, prefix=prefix) as second:
            second.subscribe(lambda one: got.append(one.seq), after="0")
            await second.publish_batch(events(2, 3, 4, 5))
            await until(lambda: len(got) >= 5)
            await asyncio.sleep(0.05)

    run_sync(go())
    assert got == [1, 2, 3, 4, 5]


def test_reading_from_a_place_in_the_stream(redis_server: str):
    """Everything, and from an id on; filters hold; what comes later follows without a gap."""
    got: dict[str, list[int]] = {"all": [], "later": [], "odd": [], "new": []}

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as writer:
            await writer.publish_batch(events(*range(1, 501)))
            assert await writer.flush(10)
            await until(lambda: writer.stats()["position"] != "0-0")
            async with RedisEventBus(redis_server, prefix=prefix) as bus:
                place = bus.position
                await writer.publish_batch(events(*range(501, 1001)))
                bus.subscribe(lambda one: got["all"].append(one.seq), after="0")
                bus.subscribe(lambda one: got["later"].append(one.seq), after=place)
                bus.subscribe(lambda one: got["odd"].append(one.seq), after="0-0", where=lambda one: one.seq % 2 == 1)
                await until(lambda: len(got["all"]) >= 1000)
                left = bus.subscribe(lambda one: got["new"].append(one.seq), after=bus.position)
                await writer.publish_batch(events(*range(1001, 1101)))
                await until(lambda: min(len(got["all"]) - 500, len(got["later"]), len(got["odd"]) + 50) >= 600)
                await until(lambda: len(got["new"]) >= 100)
                bus.unsubscribe(left)
                await writer.publish(event(2000))
                await until(lambda: got["all"][-1] == 2000)

    run_sync(go())
    assert got["all"] == [*range(1, 1101), 2000]
    assert got["later"] == [*range(501, 1101), 2000]
    assert got["odd"] == list(range(1, 1101, 2))
    assert got["new"] == list(range(1001, 1101)), "nothing after unsubscribing"


def test_members_of_a_group_share_the_events(redis_server: str):
    """Each event goes to one of them; a group keeps its place while nobody is there; one that comes from nowhere begins now."""
    got: dict[str, list[int]] = {"a": [], "b": [], "c": [], "others": []}

    def into(name: str) -> Callable[[Event], Any]:
        async def handler(one: Event) -> None:
            await asyncio.sleep(0.001)
            got[name].append(one.seq)

        return handler

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as writer:
            async with RedisEventBus(redis_server, prefix=prefix) as a, RedisEventBus(redis_server, prefix=prefix) as b:
                a.subscribe(into("a"), group="g", after="0")
                b.subscribe(into("b"), group="g", after="0")
                b.subscribe(into("others"), group="others", after="0")
                await writer.publish_batch(events(*range(1, 301)))
                await until(lambda: len(got["a"]) + len(got["b"]) >= 300 and len(got["others"]) >= 300)
            await writer.publish_batch(events(*range(301, 401)))
            async with RedisEventBus(redis_server, prefix=prefix) as c:
                c.subscribe(into("c"), group="g")
                await until(lambda: len(got["c"]) >= 100)
                stats = c.stats()["subscribers"][0]
                assert (stats["delivered"], stats["failed"]) == (100, 0)

    run_sync(go())
    assert sorted(got["a"] + got["b"]) == list(range(1, 301))
    assert got["a"], "the first member had nothing to do"
    assert got["b"], "the second member had nothing to do"
    assert got["others"] == list(range(1, 301))
    assert got["c"] == list(range(301, 401))


MEMBER = """
import asyncio, sys
from dipeo_nb.events.redis import RedisEventBus

async def main():
    url, prefix = sys.argv[1:]
    async def handler(event):
        print(event.seq, flush=True)
        if event.seq == 3:
            await asyncio.sleep(3600)
    async with RedisEventBus(url, prefix=prefix) as bus:
        bus.subscribe(handler, group="g", after="0")
        await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_what_a_dead_member_had_goes_to_another(redis_server: str, monkeypatch: pytest.MonkeyPatch):
    """Killed in the handler of the third: the first two are done, the third and what waited behind it go to another member."""
    monkeypatch.setattr(redis, "IDLE_S", 0.6)
    got: list[int] = []

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as bus:
            await bus.publish_batch(events(*range(1, 11)))
            with Script(MEMBER, redis_server, prefix) as member:
                for seq in ("1", "2", "3"):
                    await member.tells(seq)
                member.process.kill()
                await member.ends()
            bus.subscribe(lambda one: got.append(one.seq), group="g")
            await bus.publish(event(11))
            await until(lambda: len(got) >= 9)

    run_sync(go())
    assert sorted(got) == list(range(3, 12))


def test_a_slow_member_keeps_what_it_works_on(redis_server: str, monkeypatch: pytest.MonkeyPatch):
    """A handler may take longer than the time after which members count as gone."""
    monkeypatch.setattr(redis, "IDLE_S", 1.0)
    got: list[tuple[str, int]] = []

    async def slow(one: Event) -> None:
        await asyncio.sleep(2.5)
        got.append(("slow", one.seq))

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with RedisEventBus(redis_server, prefix=prefix) as a, RedisEventBus(redis_server, prefix=prefix) as b:
            a.subscribe(slow, group="g", after="0")
            await a.publish(event(1))
            await asyncio.sleep(0.1)
            b.subscribe(lambda one: got.append(("other", one.seq)), group="g")
            await until(lambda: bool(got))
            await asyncio.sleep(0.5)

    run_sync(go())
    assert got == [("slow", 1)]


def test_a_handler_that_raises_is_done_with_the_event(redis_server: str):
    """As with every subscriber: counted, told, and the next event comes."""
    got: list[int] = []
    told: list[str] = []

    def handler(one: Event) -> None:
        got.append(one.seq)
        if one.seq == 1:
            raise ValueError("not this one")

    async def go() -> None:
        async with RedisEventBus(redis_server, prefix=uuid.uuid4().hex) as bus:
            bus.subscribe(handler, group="g", after="0", on_error=lambda error: told.append(str(error)))
            await bus.publish_batch(events(1, 2))
            await until(lambda: len(got) >= 2)
            await until(lambda: bus.stats()["subscribers"][0]["delivered"] == 1)
            assert bus.stats()["subscribers"][0]["failed"] == 1

    run_sync(go())
    assert got == [1, 2]
    assert told == ["not this one"]


# Servers that are not there.


def refused(bus: RedisEventBus) -> EventBusError:
    try:
        with pytest.raises(EventBusError) as error:
            run_sync(bus.initialize())
    finally:
        run_sync(bus.cleanup())
    assert error.value.hint
    return error.value


def test_a_server_that_is_not_there():
    (port,) = free_ports(1)
    error = refused(RedisEventBus(f"redis://ann:hunter2@127.0.0.1:{port}/3"))
    assert error.facts["cause"] == "unavailable"
    assert f"redis://127.0.0.1:{port}/3" in str(error)
    assert "DIPEO_EVENT_BUS" in str(error)
    assert "hunter2" not in f"{error} {error!r} {error.facts}"


def test_a_wrong_password(redis_server: str):
    error = refused(RedisEventBus(redis_server.replace("//", "//ann:hunter2@")))
    assert error.facts["cause"] == "permission"
    assert "hunter2" not in f"{error} {error!r} {error.facts}"


def test_no_place_in_the_stream():
    with pytest.raises(EventBusError, match="'yesterday' is not the id"):
        RedisEventBus().subscribe(print, after="yesterday")


def test_no_bus():
    with pytest.raises(ConfigurationError, match="'kafka://x' is not an event bus") as error:
        build(Settings(event_bus="kafka://x"))
    assert error.value.hint
    assert "redis://host:6379/0" in error.value.hint


def test_a_server_that_stays_away_costs_the_oldest(mortal_redis: RedisProcess, caplog: pytest.LogCaptureFixture):
    """Memory is bounded: what is dropped is counted and logged once; the rest arrives when the server is back."""
    here: list[int] = []
    there: list[int] = []

    async def go() -> None:
        prefix = uuid.uuid4().hex
        async with (
            RedisEventBus(mortal_redis.url, prefix=prefix, max_waiting=100) as bus,
            RedisEventBus(mortal_redis.url, prefix=prefix) as other,
        ):
            bus.subscribe(lambda one: here.append(one.seq))
            other.subscribe(lambda one: there.append(one.seq))
            mortal_redis.kill()
            for seq in range(1, 1001):
                await bus.publish(event(seq))
            assert not await bus.flush(0.01)
            stats = bus.stats()
            assert (stats["unsent"], stats["lost"], stats["published"]) == (100, 900, 1000)
            await asyncio.to_thread(mortal_redis.start)
            await until(lambda: len(there) >= 100)

    with caplog.at_level(logging.WARNING):
        run_sync(go())
    assert here == list(range(1, 1001)), "subscribers of the process do not need the server"
    assert there == list(range(901, 1001))
    assert sum("the oldest are dropped" in record.getMessage() for record in caplog.records) == 1


def test_what_cannot_be_passed_on_at_the_end_is_said(mortal_redis: RedisProcess, caplog: pytest.LogCaptureFixture,
                                                     monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr(redis, "FLUSH_S", 0.1)

    async def go() -> None:
        async with RedisEventBus(mortal_redis.url) as bus:
            mortal_redis.kill()
            await bus.publish_batch(events(1, 2))

    with caplog.at_level(logging.WARNING):
        run_sync(go())
    assert any("did not take the last 2 events" in record.getMessage() for record in caplog.records)


# Runs.


def test_a_run_does_not_need_the_server(mortal_redis: RedisProcess):
    """The server is killed before the run: it completes, its own subscribers see all of it, and others later do."""
    (prefix, seen, later) = (uuid.uuid4().hex, list[Event](), list[Event]())
    bus = RedisEventBus(mortal_redis.url, prefix=prefix)
    session = dp.Session(bus=bus)
    with session.runtime:
        bus.subscribe(seen.append)
        mortal_redis.kill()
        run = session.run(DIAGRAM, trust=True)
        assert run.status == "completed"
        kept = run.events
        assert bus.stats()["unsent"] == len(kept)
        mortal_redis.start()
        assert run_sync(bus.flush(40))

    async def read() -> None:
        async with RedisEventBus(mortal_redis.url, prefix=prefix) as other:
            other.subscribe(later.append, after="0")
            await until(lambda: len(later) >= len(kept))

    run_sync(read())
    assert [(one.seq, one.type) for one in seen] == [(one.seq, one.type) for one in kept]
    assert later == kept


RUNNER = """
import sys
import dipeo_nb as dp

for n in range(3):
    run = dp.run(sys.argv[1], trust=True)
    assert run.status == "completed", run
    print(run.id, flush=True)
"""


def test_runs_of_one_process_are_followed_in_another(redis_server: str, tmp_path: Path):
    """With nothing but the setting; and what is followed is what the store has."""
    seen: list[Event] = []
    environment = os.environ | {"DIPEO_EVENT_BUS": redis_server}

    async def go() -> Sequence[str]:
        async with RedisEventBus(redis_server) as bus:
            bus.subscribe(seen.append)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", RUNNER, DIAGRAM, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0
            ids = out.decode().split()
            await until(lambda: sum(one.type == T.EXECUTION_COMPLETED for one in seen) >= 3)
            return ids

    ids = run_sync(go())
    assert len(ids) == 3
    for run_id in ids:
        assert [one for one in seen if one.run_id == run_id] == list(dp.open_run(run_id).events)

"""Many runs at once, and long ones."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dipeo_nb.config import Settings, get_settings
from dipeo_nb.container import run_store
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import ConditionNode, EndpointNode, StartNode
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import scripted
from tests.support.graph_dsl import Note
from tests.support.graphs import plan_of


def test_a_thousand_runs_at_once(tmp_path: Path):
    """In one process, on one store: all complete, each with its own whole log."""
    plan = plan_of({"s": StartNode(), "a": Note(), "b": Note(), "e": EndpointNode()}, ["s -> a", "a -> b", "b -> e"])

    async def go() -> None:
        store = SqliteRunStore(tmp_path / "runs.db")
        async with Runtime(get_settings(), llm=scripted(), store=store) as runtime:
            executions = [runtime.execution(Prepared.own(plan, runtime.services)) for _ in range(1000)]
            await asyncio.gather(*(runtime.run(e) for e in executions))
            assert {str(e.state.status) for e in executions} == {Status.COMPLETED}
            assert {e.result() for e in executions} == {"b1"}
            assert {r.events for r in await store.runs(limit=2000)} == {10}
            assert len(await store.runs(limit=2000, status=Status.COMPLETED)) == 1000

    asyncio.run(go())


def test_a_hundred_thousand_events_to_three_subscribers():
    """One by one, to handlers of which one is slow at times: each sees all of them in order, and memory stays flat."""
    count = 100_000
    process = psutil.Process()

    class Seen:
        def __init__(self) -> None:
            self.last = 0

        async def __call__(self, event: Event) -> None:
            assert event.seq == self.last + 1
            self.last = event.seq
            if event.seq % 10_000 == 0:
                await asyncio.sleep(0.001)

    async def go() -> int:
        subscribers = [Seen() for _ in range(3)]
        sizes: list[int] = []
        async with InMemoryEventBus() as bus:
            for subscriber in subscribers:
                bus.subscribe(subscriber, overflow="block", max_queue_size=1000)
            for seq in range(1, count + 1):
                await bus.publish(Event(seq, EventType.NODE_OUTPUT, "r", 1.0, "n", {"text": f"word {seq} "}))
                if seq in (20_000, count):
                    gc.collect()
                    sizes.append(process.memory_info().rss)
            await bus.drain()
            assert all(s["failed"] == s["dropped"] == s["waiting"] == 0 for s in bus.stats()["subscribers"])
        assert [subscriber.last for subscriber in subscribers] == [count] * 3
        return sizes[1] - sizes[0]

    assert asyncio.run(go()) < 8 * 1024 * 1024


MANY = """
import asyncio, sys
from dipeo_nb.config import Settings
from dipeo_nb.container import run_store
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.domain.nodes import EndpointNode, StartNode
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of
from tests.support.graph_dsl import Note

async def main(place):
    settings = Settings(state_store_path=place)
    plan = plan_of({"s": StartNode(), "a": Note(), "b": Note(), "e": EndpointNode()}, ["s -> a", "a -> b", "b -> e"])
    async with Runtime(settings, llm=scripted()) as runtime:
        for _ in range(10):
            executions = [runtime.execution(Prepared.own(plan, runtime.services)) for _ in range(100)]
            await asyncio.gather(*(runtime.run(e) for e in executions))
            assert all(e.result() == "b1" for e in executions)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_processes_with_a_thousand_runs_each(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    """On one store, at the same time: every run completes, and its log is whole."""
    place = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgres_server").schema()
    processes = [subprocess.Popen([sys.executable, "-c", MANY, place], cwd=Path(__file__).parents[2]) for _ in range(2)]
    try:
        assert [process.wait(600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    async def go() -> None:
        store = run_store(Settings(state_store_path=place))
        await store.initialize()
        try:
            rows = await store.runs(limit=5000)
            assert len(rows) == 2000
            assert {(row.status, row.events) for row in rows} == {("completed", 10)}
            for row in rows[::100]:
                assert [event.seq for event in await store.events(row.run_id)] == list(range(1, 11))
        finally:
            await store.cleanup()

    asyncio.run(go())


@pytest.mark.slow
def test_ten_thousand_rounds(tmp_path: Path):
    """A loop of 10,000 rounds needs no more memory in its last 8,000 rounds than the machinery itself moves; nothing is kept
    that no edge can still ask for."""
    nodes = {
        "s": StartNode(),
        "a": Note(),
        "more": ConditionNode(expression="x >= 10000", expose_index_as="x"),
        "e": EndpointNode(),
    }
    plan = plan_of(nodes, ["s -> a", "a -> more", "more[condfalse] -> a", "more[condtrue] -> e"])
    process = psutil.Process()
    sizes: dict[int, int] = {}

    async def go() -> None:
        settings = get_settings()
        async with Runtime(settings, llm=scripted(), store=SqliteRunStore(tmp_path / "runs.db")) as runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services), max_iterations=20_000)

            def measure(event: object) -> None:
                rounds = execution.progress.completed_runs(plan.nodes[1])
                for wanted in (2000, 10_000):  # events come in batches, later than the rounds that they are of
                    if rounds >= wanted and wanted not in sizes:
                        gc.collect()
                        sizes[wanted] = process.memory_info().rss

            runtime.services.bus.subscribe(measure)
            await runtime.run(execution)
            assert execution.state.status == Status.COMPLETED
            assert execution.progress.completed_runs(plan.nodes[1]) == 10_001
            assert max(len(kept) for kept in execution.progress.outputs.values()) <= 17

    asyncio.run(go())
    assert sizes[10_000] - sizes[2000] < 8 * 1024 * 1024, f"{(sizes[10_000] - sizes[2000]) / 1e6:.1f} MB more"

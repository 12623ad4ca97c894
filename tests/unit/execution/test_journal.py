"""The record of a run while things go wrong: stores and buses that fail, values without an encoding, stops at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dipeo_nb import cli
from dipeo_nb.common.aio import DONE, uncancelled
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.nodes import (
    ConditionNode,
    EndpointNode,
    NodeMeta,
    NodeSpec,
    StartNode,
    UserResponseNode,
)
from dipeo_nb.domain.ports import Question, RunStore
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution import publisher
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.recovery import recovered
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.postgres import PostgresRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.security.gate import Gate
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of
from tests.support.node_types import registered
from tests.support.servers import PostgresProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Give(NodeSpec):
    META: ClassVar = NodeMeta("journal_give", NodeCategory.COMPUTE, "Gives what the test says")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(NodeSpec):
    META: ClassVar = NodeMeta("journal_chat", NodeCategory.COMPUTE, "Writes to the record in all ways, for a moment")


GIVEN: dict[str, Any] = {}
"""Label → what such a node gives."""
RETURNED: list[tuple[str, int]] = []
"""Runs of `journal_chat` nodes that came to their end."""


async def give(context: NodeContext) -> Output:
    await asyncio.sleep(0)
    return Output(GIVEN.get(context.node.label, context.node.label))


async def chat(context: NodeContext) -> Output:
    execution, node = context.execution, context.node
    for piece in range(3):
        execution.emit_delta(node, {"kind": "text", "text": f"{piece} ", "run": context.run})
        await asyncio.sleep(0.0005)
    await execution.record(node, {"kind": "progress", "text": "now", "run": context.run})
    with suppress(Exception):
        await execution.ask(node, "well?", timeout=0.001, default="yes")
    RETURNED.append((node.label, context.run))
    return Output({"x": context.run})


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered((Give, give), (Chat, chat)):
        yield


def of(execution: Execution, kind: T) -> list[Event]:
    return [event for event in run_sync(execution.services.store.events(execution.run_id)) if event.type is kind]


def run(plan: Any, store: RunStore, **options: Any) -> Execution:
    async def go() -> Execution:
        async with Runtime(Settings(), llm=scripted(), store=store, **options) as runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            with suppress(StorageError):
                await execution.run()
            return execution

    return run_sync(go())


CHAIN = plan_of({"s": StartNode(), "a": Give(), "b": Give(), "e": EndpointNode()}, ["s -> a", "a -> b", "b -> e"])


# Stores and buses that fail.


class Failing(InMemoryRunStore):
    """Its n-th append fails, and so many after it."""

    def __init__(self, error: Exception, n: int, times: int) -> None:
        super().__init__()
        self.error, self.bad, self.count = error, range(n, n + times), 0

    async def append(self, events: Sequence[Event]) -> None:
        self.count += 1
        if self.count in self.bad:
            raise self.error
        await super().append(events)


ERRORS = [
    RuntimeError("lost"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"),
    OSError(5, "I/O"),
    StorageError("no", cause="failed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("n", range(1, 6))
def test_a_store_that_fails_for_a_moment_ends_the_run_with_a_whole_record(error: Exception, n: int):
    """Whatever it raises: the run has failed, and everything up to its end is recorded, what had finished above all."""
    execution = run(CHAIN, Failing(error, n, 1))
    events = run_sync(execution.services.store.events(execution.run_id))
    assert execution.state.finished
    assert execution.state.status == "failed"
    assert isinstance(execution.error, StorageError)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[-1].type is T.EXECUTION_ERROR
    assert events[-1].payload["error"]["type"] == "StorageError"
    assert execution.state.events == len(events)


@pytest.mark.parametrize("n", range(1, 6))
def test_a_store_that_fails_for_good_leaves_a_failed_run(n: int):
    """Nothing can be recorded any more; the state says so, and is never left running."""
    execution = run(CHAIN, Failing(RuntimeError("lost"), n, 1000))
    assert execution.state.finished
    assert execution.state.status == "failed"
    assert "lost" in str(execution.state.error)
    assert execution.state.events == len(run_sync(execution.services.store.events(execution.run_id)))


def test_a_bus_that_fails_does_not_fail_the_run():
    """The events are stored; who watches can catch up."""

    class Deaf(InMemoryEventBus):
        async def publish_batch(self, events: Sequence[Event]) -> None:
            raise RuntimeError("nobody there")

    execution = run(CHAIN, InMemoryRunStore(), bus=Deaf())
    assert execution.state.status == "completed"


@pytest.mark.parametrize("how", ["stop", "timeout"])
@pytest.mark.parametrize("room", [1, 2, 4, 100])
def test_a_subscriber_that_takes_no_events_does_not_keep_a_run_from_ending(
    room: int, how: str, monkeypatch: pytest.MonkeyPatch
):
    """A subscriber that holds publishers up holds them at the start, in the middle or at the end of a run, until the run is stopped
    or meets its time limit; its record is whole."""
    monkeypatch.setattr(publisher, "HURRIED_S", 0.02)

    async def go() -> Execution:
        bus = InMemoryEventBus()

        async def never(event: Event) -> None:
            await asyncio.Event().wait()

        subscription = bus.subscribe(never, max_queue_size=room, overflow="block")
        async with Runtime(Settings(), llm=scripted(), store=InMemoryRunStore(), bus=bus) as runtime:
            limit = 0.1 if how == "timeout" else None
            execution = runtime.execution(Prepared.own(CHAIN, runtime.services), timeout=limit)
            going = asyncio.create_task(execution.run())
            await asyncio.sleep(0.05)
            if how == "stop":
                execution.stop()
            await asyncio.wait_for(going, 20)
            bus.unsubscribe(subscription)
            return execution

    execution = run_sync(go())
    events = run_sync(execution.services.store.events(execution.run_id))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.type in FINAL_EVENTS for e in events] == [False] * (len(events) - 1) + [True]
    assert execution.state.finished
    if room < 4:
        assert execution.state.status == ("aborted" if how == "stop" else "failed")


def test_a_run_that_failed_with_its_store_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Resumed, it completes; what was recorded does not run again."""
    diagram = {
        "version": "light",
        "nodes": [
            {"label": x, "type": t}
            for x, t in (("S", "start"), ("A", "journal_give"), ("B", "journal_give"), ("E", "endpoint"))
        ],
        "connections": [{"from": a, "to": b} for a, b in ("SA", "AB", "BE")],
    }
    append, count = SqliteRunStore.append, 0

    async def fails_once(self: SqliteRunStore, events: Sequence[Event]) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("lost")
        await append(self, events)

    monkeypatch.setattr(SqliteRunStore, "append", fails_once)
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(diagram, view=False)
        assert run.wait(20)
        assert run.status == "failed"
        assert dp.runs()[0].status == "failed"
        again = dp.resume(run, view=False)
        again.result(20)
        assert again.status == "completed"
        assert [n.runs for n in again.state.nodes.values()] == [1, 1, 1, 1]


def test_run_json_tells_what_the_store_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """The id of the run, that it failed, and why; not that it is a defect."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.light.yaml").write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: E, type: endpoint}\nconnections:\n- {from: S, to: E}\n"
    )
    append = SqliteRunStore.append

    async def failing(self: SqliteRunStore, events: Sequence[Event]) -> None:
        if events[-1].seq > 1:
            raise RuntimeError("lost")
        await append(self, events)

    monkeypatch.setattr(SqliteRunStore, "append", failing)
    code = cli.main(["run", "d", "--json", "--quiet"])
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert code == 1
    assert told["run_id"].startswith("exec_")
    assert told["status"] == "failed"
    assert told["error"]["type"] == "StorageError"
    assert "lost" in told["error"]["message"]
    assert "defect" not in err


# Values that cannot be recorded.


@pytest.mark.parametrize("on_error", ["fail", "continue"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_an_output_that_cannot_be_recorded_is_the_failure_of_its_node(tmp_path: Path, on_error: str, store: str):
    """At its node, with the node's name; `on_error: continue` goes on; resumed, the node runs again."""
    plan = plan_of(
        {"s": StartNode(), "a": Give(), "b": Give(on_error=on_error), "e": EndpointNode()}, ["s -> a", "a -> b", "b -> e"]
    )
    GIVEN["b"] = {"deep": [object()]}
    runs: RunStore = InMemoryRunStore() if store == "memory" else SqliteRunStore(tmp_path / "r.db")

    async def go() -> None:
        async with Runtime(Settings(base_dir=tmp_path), llm=scripted(), store=runs) as runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            state = await execution.run()
            error = state.nodes[plan.nodes[2].id].error
            assert error is not None
            assert error["node"] == "b"
            assert "object" in error["message"]
            assert error["hint"]
            events = await runs.events(execution.run_id)
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            if on_error == "continue":
                assert state.status == "completed"
                return
            assert state.status == "failed"
            assert state.error is not None
            assert state.error["node"] == "b"
            del GIVEN["b"]
            await runs.claim(execution.run_id, owned=True)
            found = recovered(plan, events, variables={}, max_visits=100)
            again = Execution(plan, Gate.open(runtime.services), execution.options, recovered=found)
            state = await again.run()
            assert state.status == "completed"
            assert state.outputs == {"e": "b"}

    run_sync(go())
    GIVEN.clear()


def test_inputs_that_cannot_be_recorded_are_refused_before_the_run():
    """Nothing runs, and nothing is recorded."""

    async def go() -> None:
        store = InMemoryRunStore()
        async with Runtime(Settings(), llm=scripted(), store=store) as runtime:
            with pytest.raises(ValidationError, match="input bad"):
                runtime.execution(Prepared.own(CHAIN, runtime.services), variables={"fine": 1, "bad": object()})
            assert await store.runs() == []

    run_sync(go())


def test_a_record_begins_with_what_the_run_was_given():
    """The inputs, for whoever resumes, forks or compares it."""

    async def go() -> None:
        store = InMemoryRunStore()
        async with Runtime(Settings(), llm=scripted(), store=store) as runtime:
            execution = runtime.execution(Prepared.own(CHAIN, runtime.services), variables={"topic": "cats", "n": [1, 2]})
            await execution.run()
            assert (await store.events(execution.run_id))[0].payload["variables"] == {"topic": "cats", "n": [1, 2]}

    run_sync(go())


HALVES = ["a \ud83d", "\ude00 b", "\ud83d", "", "\ude01", " c"]


def test_characters_that_were_cut_in_two_are_whole_again():
    """A model's pieces may end within an emoji; half of one at the end of the text stays a half."""

    async def halves(context: NodeContext) -> Output:
        for piece in [*HALVES, "\ud83d"]:
            context.execution.emit_delta(context.node, {"kind": "text", "text": piece, "run": 1})
            await asyncio.sleep(0)
        context.execution.emit_log(context.node, "INFO", "half \ud83d")
        return Output("done")

    with registered((Give, halves)):
        execution = run(plan_of({"s": StartNode(), "a": Give(), "e": EndpointNode()}, ["s -> a", "a -> e"]), InMemoryRunStore())
    assert execution.state.status == "completed"
    pieces = [e.payload["text"] for e in of(execution, T.NODE_OUTPUT)]
    assert "".join(pieces) == "a \U0001f600 b\U0001f601 c\\ud83d"
    assert all(event.payload["message"] == "half \\ud83d" for event in of(execution, T.EXECUTION_LOG))


# Stops at any moment. There are few of them here; for 1,000 in all: DIPEO_STOPS=250 pytest tests/unit/execution/test_journal.py -k stops

STOPS = int(os.environ.get("DIPEO_STOPS", "0"))
"""Stops of each test; 0: as many as the test says."""


def plan_of_talkers(width: int) -> Any:
    nodes: dict[str, NodeSpec] = {"s": StartNode()}
    arrows: list[str] = []
    for i in range(width):
        nodes |= {
            f"a{i}": Chat(timeout=0.02 if i == 0 else None, on_error="continue"),
            f"c{i}": ConditionNode(expression="False"),
        }
        arrows += [f"s -> a{i}", f"a{i} -> c{i}", f"c{i}[condfalse] -> a{i}"]
    # Somebody who is asked and often answers late.
    nodes |= {"q": UserResponseNode(prompt="?", timeout=0.004, default="late"), "cq": ConditionNode(expression="False")}
    arrows += ["s -> q", "q -> cq", "cq[condfalse] -> q"]
    return plan_of(nodes, arrows)


class Sometimes:
    """Answers after a while, which may be too late."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def ask(self, question: Question) -> tuple[str, str]:
        await asyncio.sleep(self._rng.random() * 0.008)
        return "in time", "user"


async def stopped(make: Callable[[], RunStore], runs: int, seed: int, pause: float = 0.02) -> None:
    """Run, stop or run out of time at a random moment; every record is whole."""
    rng = random.Random(seed)
    async with Runtime(Settings(), llm=scripted(), store=make()) as runtime:
        store, plan = runtime.services.store, plan_of_talkers(3)
        shown: list[int] = []
        runtime.services.bus.subscribe(lambda e: shown.append(e.seq))
        for _ in range(STOPS or runs):
            shown.clear()
            RETURNED.clear()
            how = rng.choice(("stop", "timeout", "cancel"))
            at = rng.random() * pause
            execution = runtime.execution(
                Prepared.own(plan, runtime.services),
                max_iterations=10**6,
                timeout=at if how == "timeout" else 60.0,
                interaction=Sometimes(rng),
            )
            task = asyncio.ensure_future(execution.run())
            await asyncio.sleep(at)
            if how == "stop":
                execution.stop()
                if rng.random() < 0.5:
                    execution.stop()
            elif how == "cancel":
                task.cancel()
            async with asyncio.timeout(40):
                await asyncio.gather(task, return_exceptions=True)
            assert execution.state.status == ("failed" if how == "timeout" else "aborted"), (how, execution.state.error)
            events = await store.events(execution.run_id)
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            assert [e.seq for e in events if e.type in FINAL_EVENTS] == [len(events)]
            assert execution.state.events == len(events)
            row = await store.run(execution.run_id)
            assert row is not None
            assert row.status == execution.state.status
            assert shown == [e.seq for e in events]
            done = {(e.payload["label"], e.payload["run"]) for e in events if e.type is T.NODE_COMPLETED}
            assert {place for place in RETURNED if place[0] != "a0"} <= done  # a0 may have run out of time just then


class Slow(InMemoryRunStore):
    """Takes its time before and after it stores."""

    async def append(self, events: Sequence[Event]) -> None:
        await asyncio.sleep(0.001)
        await super().append(events)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("store", "at_once"), [(InMemoryRunStore, True), (Slow, False)])
def test_a_commit_is_done_at_once_when_nobody_has_to_be_waited_for(store: Callable[[], RunStore], at_once: bool):
    """Stored and shown when `commit` returns; else when what it returns was awaited, and the next commit has its turn behind it."""
    shown: list[int] = []

    async def go() -> None:
        async with Runtime(Settings(), llm=scripted(), store=store()) as runtime:
            services = runtime.services
            await services.store.initialize()
            services.bus.subscribe(lambda event: shown.append(event.seq))
            execution = runtime.execution(Prepared.own(CHAIN, services))
            note, commit = execution.journal.note, execution.journal.commit
            note(T.EXECUTION_STARTED, None, {"diagram": "d"})
            first = commit()
            assert (first is DONE) == at_once
            assert len(await services.store.events(execution.run_id)) == execution.state.events == at_once
            note(T.NODE_STARTED, "s", {"label": "s", "node_type": "start", "run": 1, "inputs": {}})
            await asyncio.gather(first, commit())
            assert execution.state.events == 2
            await services.bus.drain()

    run_sync(go())
    assert shown == [1, 2]


def test_what_is_stored_while_somebody_reads_the_state_is_in_it_later(monkeypatch: pytest.MonkeyPatch):
    """A reader in another thread applies what is stored and not shown; the run goes on storing meanwhile."""
    inner = RunState.apply_all

    async def go() -> RunState:
        async with Runtime(Settings(), llm=scripted(), store=InMemoryRunStore()) as runtime:
            await runtime.services.store.initialize()
            execution = runtime.execution(Prepared.own(CHAIN, runtime.services))
            journal = execution.journal

            def store(text: str) -> None:
                journal.note(T.RUN_NOTE, None, {"first": 1, "last": 1, "text": text})
                assert journal.commit(show_later=True) is DONE

            journal.note(T.EXECUTION_STARTED, None, {"diagram": "d"})
            await journal.commit()
            store("one")

            def apply_all(state: RunState, events: Iterable[Event]) -> None:
                inner(state, events)
                if len(state.notes) == 1:
                    store("two")

            monkeypatch.setattr(RunState, "apply_all", apply_all)
            assert [note["text"] for note in execution.state.notes] == ["one"]
            assert [note["text"] for note in execution.state.notes] == ["one", "two"]
            store("three")
            await journal.publish()
            return execution.state

    assert [note["text"] for note in run_sync(go()).notes] == ["one", "two", "three"]


def test_stops_at_any_moment_of_a_commit_in_memory():
    """A store that is slow, stopped 60 times."""
    run_sync(stopped(Slow, 60, seed=1))


def test_stops_with_a_file_of_its_own(tmp_path: Path):
    """SQLite, 30 times."""
    run_sync(stopped(lambda: SqliteRunStore(tmp_path / "r.db"), 30, seed=5))


@pytest.mark.timeout(1200 + 3 * STOPS)
def test_stops_while_another_process_writes(tmp_path: Path):
    """The write lock of the SQLite file is held by somebody else half of the time."""
    path = tmp_path / "r.db"
    over = threading.Event()

    def hold() -> None:
        rng = random.Random(2)
        other = sqlite3.connect(path, isolation_level=None, timeout=30)
        while not over.is_set():
            other.execute("BEGIN IMMEDIATE")
            time.sleep(0.02 + rng.random() * 0.06)
            other.execute("COMMIT")
            time.sleep(0.01 + rng.random() * 0.03)
        other.close()

    store = SqliteRunStore(path)
    run_sync(store.initialize())
    holder = threading.Thread(target=hold)
    holder.start()
    try:
        run_sync(stopped(lambda: store, 20, seed=3, pause=0.2))
    finally:
        over.set()
        holder.join()


@pytest.mark.timeout(1200 + 3 * STOPS)
def test_stops_at_any_moment_on_a_server(postgres_server: PostgresProcess):
    """PostgreSQL, stopped 30 times."""
    url = postgres_server.schema()
    run_sync(stopped(lambda: PostgresRunStore(url), 30, seed=4, pause=0.1))


def test_a_cancelled_wait_lets_the_work_end():
    """What `uncancelled` awaits is done before the cancellation comes out; how often it came does not matter."""

    async def go() -> None:
        done: list[str] = []

        async def work(fail: bool) -> str:
            await asyncio.sleep(0.01)
            done.append("work")
            if fail:
                raise ValueError("broken")
            return "value"

        assert await uncancelled(work(False)) == "value"
        with pytest.raises(ValueError, match="broken"):
            await uncancelled(work(True))
        for fail in (False, True):
            task = asyncio.ensure_future(uncancelled(work(fail)))
            for _ in range(3):
                await asyncio.sleep(0.001)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert done == ["work"] * 4
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await uncancelled(work(False))
        assert len(done) == 5

    run_sync(go())

"""What the loop of the engine must keep however fast it is: the limit of parallel nodes, numbers without gaps where nodes that end at
once and nodes that take time are mixed, no secret in the names of arrows and nodes, and no log line of those who watch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import ConditionNode, NodeMeta, NodeSpec, StartNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of
from tests.support.node_types import registered

SECRET = "correct-horse-battery-staple"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce(NodeSpec):
    META: ClassVar = NodeMeta("test_at_once", NodeCategory.COMPUTE, "Ends at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakesTime(NodeSpec):
    META: ClassVar = NodeMeta("test_takes_time", NodeCategory.COMPUTE, "Waits a little")


@pytest.fixture(autouse=True)
def nodes() -> Iterator[None]:
    def at_once(context: NodeContext) -> Output:
        logging.getLogger("mine").warning("at work in %s", context.node.label)
        if context.run == 1 and context.node.spec.retries and context.attempt == 1:
            raise ValueError("the first time")
        return Output({"x": context.run})

    async def takes_time(context: NodeContext) -> Output:
        for _ in range(len(context.node.label) % 4):
            await asyncio.sleep(0)
        return at_once(context)

    with registered((AtOnce, at_once), (TakesTime, takes_time)):
        yield


def run(
    plan: Plan, store: Any = None, *, watch: Callable[[Event], Any] = lambda _: None, parallelism: int = 20
) -> tuple[list[Event], list[Event]]:
    """Events as stored, and as a subscriber got them."""
    seen: list[Event] = []

    async def go() -> list[Event]:
        settings = get_settings().model_copy(update={"execution_parallelism": parallelism})
        async with Runtime(settings, llm=scripted(), store=store or InMemoryRunStore()) as runtime:
            runtime.services.bus.subscribe(watch)
            runtime.services.bus.subscribe(seen.append)
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            state = await execution.run()
            assert state.status == "completed", state.error
            await runtime.services.bus.drain()
            return await runtime.services.store.events(execution.run_id)

    return run_sync(go()), seen


def mixed(seed: int) -> Plan:
    """Layers of nodes of both kinds, some tried again, and a loop behind them."""
    draw = random.Random(seed)
    nodes: dict[str, NodeSpec] = {"start": StartNode()}
    layers, arrows = [["start"]], list[str]()
    for depth in range(draw.randint(1, 4)):
        names = [f"{'abcd'[depth]}{n}" + "x" * draw.randint(0, 3) for n in range(draw.randint(1, 6))]
        for name in names:
            kind = draw.choice([AtOnce, TakesTime])
            nodes[name] = kind(retries=draw.choice([0, 0, 1]), retry_delay=0.0)
            for before in draw.sample(layers[-1], draw.randint(1, len(layers[-1]))):
                arrows.append(f"{before} -> {name} : {before}")
        layers.append(names)
    nodes |= {"turn": draw.choice([AtOnce, TakesTime])(), "often": TakesTime(), "enough": ConditionNode(expression="x >= 4")}
    arrows += [f"{name} -> turn : {name}" for name in layers[-1]]
    arrows += ["turn -> often", "often -> enough", "enough[condfalse] -> turn"]
    return plan_of(nodes, arrows)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_numbers_have_no_gap_where_both_kinds_of_nodes_are_mixed(seed: int, durable: bool, tmp_path: Path):
    """Each run of a node starts before it ends, in the store and for those who watch."""
    events, seen = run(mixed(seed), SqliteRunStore(tmp_path / "runs.db") if durable else None)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.seq for event in seen] == [event.seq for event in events]
    ended = [(e.node_id, e.payload["run"]) for e in events if e.type is T.NODE_COMPLETED]
    assert len(ended) == len(set(ended))
    begun = {(e.node_id, e.payload["run"]): e.seq for e in reversed(events) if e.type is T.NODE_STARTED}
    assert all(begun[e.node_id, e.payload["run"]] < e.seq for e in events if e.type is T.NODE_COMPLETED)
    assert {run for node, run in ended if node == "enough"} == {1, 2, 3, 4}


@pytest.mark.parametrize("parallelism", [1, 3])
def test_no_more_nodes_are_at_work_than_may_be(parallelism: int):
    """By the log, of nodes that take time and nodes that end at once, side by side."""
    names = [f"n{i}" + "x" * (i % 4) for i in range(24)]
    nodes: dict[str, NodeSpec] = {
        "start": StartNode(),
        **{name: (TakesTime if i % 3 else AtOnce)() for i, name in enumerate(names)},
    }
    events, _ = run(plan_of(nodes, [f"start -> {name}" for name in names]), parallelism=parallelism)
    at_work, most = set[str | None](), 0
    for event in events:
        if event.type is T.NODE_STARTED:
            at_work.add(event.node_id)
            most = max(most, len(at_work))
        elif event.type is T.NODE_COMPLETED:
            at_work.discard(event.node_id)
    assert most == parallelism
    assert len([event for event in events if event.type is T.NODE_COMPLETED]) == 25


@pytest.mark.parametrize("kind", [AtOnce, TakesTime])
def test_names_of_arrows_and_nodes_that_hold_a_secret_are_redacted(kind: type[NodeSpec], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redactor, "known", redactor.known)  # as before, afterwards
    redactor.add(SECRET)
    nodes: dict[str, NodeSpec] = {"start": StartNode(), f"ask {SECRET}": kind(), "end": kind()}
    events, seen = run(plan_of(nodes, [f"start -> ask {SECRET} : of {SECRET}", f"ask {SECRET} -> end : {SECRET}"]))
    assert len([e for e in events if e.type is T.NODE_COMPLETED]) == 3
    for event in [*events, *seen]:
        assert SECRET not in repr(dict(event.payload))


async def _later(event: Event) -> None:
    logging.getLogger("mine").warning("an async handler saw %s", event.type)


def _plain(event: Event) -> None:
    logging.getLogger("mine").warning("a plain handler saw %s", event.type)


def _ours(event: Event) -> None:
    logging.getLogger("mine").warning("a handler of the package saw %s", event.type)


_ours.__module__ = "dipeo_nb.notebook.view"


@pytest.mark.parametrize("watch", [_later, _plain, _ours])
def test_log_lines_of_those_who_watch_are_not_those_of_the_run(watch: Callable[[Event], Any]):
    """While those of nodes are."""
    events, _ = run(mixed(1), watch=watch)
    lines = [event.payload["message"] for event in events if event.type is T.EXECUTION_LOG]
    assert any(line.startswith("at work in") for line in lines)
    assert not any("handler" in line for line in lines)

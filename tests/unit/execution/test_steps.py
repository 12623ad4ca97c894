"""When the start of a node is stored: before its work can have any effect, and no sooner than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.diagram.document import Diagram, load_text
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import ConditionNode, NodeMeta, NodeSpec, StartNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import StorageError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution import steps
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.handlers import condition
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of
from tests.support.node_types import registered


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(NodeSpec):
    META: ClassVar = NodeMeta("steps_act", NodeCategory.COMPUTE, "Has an effect")


class Noting(InMemoryRunStore):
    """Notes what it is given at a time, and takes a while for it where it is told to."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.commits: list[list[tuple[T, str | None]]] = []

    async def append(self, events: Sequence[Event]) -> None:
        if self.seconds is not None:
            await asyncio.sleep(self.seconds)
        await super().append(events)
        self.commits.append([(event.type, event.node_id) for event in events])

    def has(self, *what: tuple[T, str]) -> bool:
        stored = [one for commit in self.commits for one in commit]
        return all(one in stored for one in what)


LOOP = plan_of(
    {"s": StartNode(), "act": Act(), "enough": ConditionNode(expression="x >= 3"), "last": Act()},
    ["s -> act", "act -> enough", "enough[condfalse] -> act", "enough[condtrue] -> last"],
)
DECIDES = load_text(
    """version: light
persons:
  Ada: {service: openai, model: gpt-4o}
nodes:
- {label: Start, type: start}
- {label: Good, type: condition, props: {condition_type: llm_decision, person: Ada, judge_by: "Good?"}}
- {label: Yes, type: endpoint}
- {label: No, type: endpoint}
connections:
- {from: Start, to: Good}
- {from: Good_condtrue, to: "Yes"}
- {from: Good_condfalse, to: "No"}
""",
)
GOOD = next(node.id for node in DECIDES.compile().nodes if node.label == "Good")


def run(given_plan: Plan | Diagram, store: Noting, act: Any = None, **given: Any) -> Execution:
    async def go() -> Execution:
        async with Runtime(Settings(), llm=given.pop("llm", scripted()), store=store, bus=given.pop("bus", None)) as runtime:
            if isinstance(given_plan, Plan):
                execution = runtime.execution(Prepared.own(given_plan, runtime.services))
            else:
                execution = runtime.execution(runtime.prepare(given_plan))
            if (while_ := given.pop("meanwhile", None)) is not None:
                await asyncio.gather(execution.run(), while_(execution))
            else:
                await execution.run()
            return execution

    with registered((Act, act)):
        return run_sync(go())


@pytest.mark.parametrize("seconds", [None, 0, 0.001])
def test_a_start_is_stored_before_work_with_effects(seconds: float | None):
    """Of every run of the node, also where the store has to be waited for."""
    store = Noting(seconds)
    acted: list[int] = []

    def act(context: NodeContext) -> Output:
        assert sum(one == (T.NODE_STARTED, context.node.id) for commit in store.commits for one in commit) == context.run
        acted.append(context.run)
        return Output({"x": context.run})

    assert run(LOOP, store, act).state.status == "completed"
    assert acted == [1, 2, 3, 1]


def test_a_condition_takes_no_commit_of_its_own():
    store = Noting()
    run(LOOP, store, lambda context: Output({"x": context.run}))
    assert [[kind for kind, _ in commit] for commit in store.commits[2:4]] == [
        [T.NODE_COMPLETED, T.NODE_STARTED, T.NODE_COMPLETED, T.NODE_STARTED]
    ] * 2
    assert all((T.NODE_STARTED, "enough") not in commit or (T.NODE_COMPLETED, "enough") in commit for commit in store.commits)


def test_what_took_time_is_stored_before_a_condition_looks_at_it(monkeypatch: pytest.MonkeyPatch):
    """An answer that was paid for is not lost when the process ends meanwhile."""
    store = Noting()
    stored: list[bool] = []

    async def act(context: NodeContext) -> Output:
        await asyncio.sleep(0)
        return Output({"x": context.run})

    holds = condition.holds

    def noted(*given: Any) -> Any:
        stored.append(sum((T.NODE_COMPLETED, "act") in commit for commit in store.commits) == len(stored) + 1)
        return holds(*given)

    monkeypatch.setattr(condition, "holds", noted)
    assert run(LOOP, store, act).state.status == "completed"
    assert stored == [True] * 3


def test_conditions_alone_are_stored_as_they_go(monkeypatch: pytest.MonkeyPatch):
    """A loop without anything else does not keep its events to itself until it ends."""
    monkeypatch.setattr(steps, "MOST_DEFERRED", 10)
    plan = plan_of(
        {"s": StartNode(), "a": ConditionNode(expression="True"), "b": ConditionNode(expression="True")},
        ["s -> a", "a[condtrue] -> b", "b[condtrue] -> a"],
    )
    store = Noting()
    assert run(plan, store).state.status == "failed"  # the loop is endless
    assert len(store.commits) > 10
    assert max(map(len, store.commits)) <= 12


@pytest.mark.parametrize("seconds", [None, 0.001])
def test_a_decision_is_stored_as_begun_before_the_model_is_asked(seconds: float | None):
    store = Noting(seconds)
    asked: list[bool] = []

    def answer(request: Any) -> str:
        asked.append(store.has((T.NODE_STARTED, GOOD)))
        return '{"decision": true}'

    execution = run(DECIDES, store, llm=scripted(answer))
    assert execution.state.status == "completed"
    assert asked == [True]


def test_a_slow_expression_is_stored_as_begun_before_it_is_evaluated(monkeypatch: pytest.MonkeyPatch):
    store = Noting()
    seen: list[bool] = []
    awaited = condition._awaited

    async def noted(*given: Any) -> Output:
        seen.append(store.has((T.NODE_STARTED, "slow")))
        return await awaited(*given)

    monkeypatch.setattr(condition, "_awaited", noted)
    plan = plan_of(
        {
            "s": StartNode(),
            "slow": ConditionNode(expression="sum([n * m for n in range(300) for m in range(300)]) > 0"),
            "act": Act(),
        },
        ["s -> slow", "slow[condtrue] -> act"],
    )
    assert run(plan, store, lambda context: Output(1)).state.status == "completed"
    assert seen == [True]


def test_nothing_begins_when_the_run_is_stopped_while_its_start_is_stored():
    store = Noting(0.05)
    asked: list[Any] = []

    async def stop(execution: Execution) -> None:
        while not any(kind is T.EXECUTION_STARTED for commit in store.commits for kind, _ in commit):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        execution.stop()

    execution = run(DECIDES, store, llm=scripted(lambda request: asked.append(request) or "yes"), meanwhile=stop)
    assert execution.state.status == "aborted"
    assert not asked
    assert store.has((T.NODE_STARTED, GOOD))


class Heard(InMemoryEventBus):
    """Notes what is published, and takes a while for it where it is told to."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.events: list[Event] = []
        self.batches = 0

    def publish_batch(self, events: Sequence[Event]) -> Any:
        self.batches += 1
        if self.seconds is not None:
            return self._slowly(events)
        self.events += events
        return super().publish_batch(events)

    async def _slowly(self, events: Sequence[Event]) -> None:
        await asyncio.sleep(self.seconds or 0)
        self.events += events
        await super().publish_batch(events)


CHAIN = plan_of(
    {"s": StartNode(), **{f"n{n}": Act() for n in range(200)}},
    [f"{'n' + str(n - 1) if n else 's'} -> n{n}" for n in range(200)],
)


@pytest.mark.parametrize("seconds", [None, 0.0001])
@pytest.mark.parametrize("heard_s", [None, 0, 0.0001])
def test_what_is_stored_is_published_before_others_get_their_turn(seconds: float | None, heard_s: float | None):
    """Every event once and in order; and whoever gets a turn on the event loop finds published what is stored."""
    store, bus, turns = Noting(seconds), Heard(heard_s), list[int]()

    async def look(execution: Execution) -> None:
        while not execution.state.finished:
            await asyncio.sleep(0)
            if seconds is None and heard_s is None:
                turns.append(sum(map(len, store.commits)) - len(bus.events))

    execution = run(CHAIN, store, lambda context: Output(1), bus=bus, meanwhile=look)
    assert execution.state.status == "completed"
    assert [event.seq for event in bus.events] == list(range(1, sum(map(len, store.commits)) + 1))
    assert set(turns) <= {0}
    if seconds is None and heard_s is None:
        assert len(turns) > 2
        assert bus.batches < len(store.commits) / 10


def test_slow_work_is_seen_as_it_goes():
    """Nodes that are done at once, and yet take long: who watches does not wait for 64 of them."""
    bus, missing = Heard(), list[int]()

    def act(context: NodeContext) -> Output:
        time.sleep(2 * steps.TURN_S)
        missing.append(context.execution.journal.seq - len(bus.events))
        return Output(1)

    run(CHAIN, Noting(), act, bus=bus)
    assert len(missing) == 200
    assert max(missing) <= 6


@pytest.mark.parametrize("n", [1, 2, 30, 90])
def test_what_is_stored_is_published_when_the_store_then_refuses(n: int):
    class Full(Noting):
        async def append(self, events: Sequence[Event]) -> None:
            if len(self.commits) == n:
                raise StorageError("No.", operation="append")
            await super().append(events)

    store, bus = Full(), Heard()
    with pytest.raises(StorageError):
        run(CHAIN, store, lambda context: Output(1), bus=bus)
    assert [event.seq for event in bus.events] == list(range(1, sum(map(len, store.commits)) + 1))

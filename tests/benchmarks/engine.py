"""The engine against its peers, on nodes that do nothing.

Usage: python -m tests.benchmarks.engine [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import operator
import tempfile
import time
import uuid
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypedDict

from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.nodes import ConditionNode, NodeMeta, NodeSpec, StartNode, register_node_spec
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.runtime import Prepared, Runtime
from tests.benchmarks.harness import OURS, Goal, Number, Row, Run, cpu, langgraph_chain, main
from tests.support.graphs import plan_of

# Ours.


@dataclass(frozen=True, slots=True, kw_only=True)
class Noop(NodeSpec):
    META: ClassVar = NodeMeta("bench_noop", NodeCategory.COMPUTE, "Counts its runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep(NodeSpec):
    META: ClassVar = NodeMeta("bench_sleep", NodeCategory.COMPUTE, "Sleeps 10 ms")


def noop(context: NodeContext) -> Output:
    return Output({"x": context.run})


async def sleep(context: NodeContext) -> Output:
    await asyncio.sleep(0.01)
    return Output({"x": context.run})


for node_spec, handler in ((Noop, noop), (Sleep, sleep)):
    register_node_spec(node_spec)
    handlers.register(node_spec.META.type, handler)


def loop_plan(rounds: int) -> Plan:
    nodes: dict[str, NodeSpec] = {
        "start": StartNode(),
        "a": Noop(),
        "b": Noop(),
        "enough": ConditionNode(expression=f"x >= {rounds}"),
        "end": Noop(),
    }
    arrows = ["start -> a", "a -> b", "b -> enough", "enough[condfalse] -> a", "enough[condtrue] -> end"]
    return plan_of(nodes, arrows)


def chain_plan(length: int) -> Plan:
    nodes: dict[str, NodeSpec] = {"start": StartNode(), **{f"n{i}": Noop() for i in range(length)}}
    names = list(nodes)
    return plan_of(nodes, [f"{a} -> {b}" for a, b in pairwise(names)])


def fan_plan(width: int, spec: NodeSpec) -> Plan:
    nodes: dict[str, NodeSpec] = {"start": StartNode(), **{f"n{i}": spec for i in range(width)}, "join": Noop()}
    arrows = [f"start -> n{i}" for i in range(width)] + [f"n{i} -> join : in{i}" for i in range(width)]
    return plan_of(nodes, arrows)


async def ours(stack: AsyncExitStack, plan: Plan, expected_runs: int, *, durable: bool = False) -> Run:
    """Runs *plan* with a subscriber that sees every event; checks that as many nodes ran as should."""
    store: RunStore = InMemoryRunStore()
    if durable:
        store = SqliteRunStore(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "runs.db")
    settings = get_settings().model_copy(update={"execution_parallelism": 10_000})
    runtime = await stack.enter_async_context(Runtime(settings, store=store))
    seen = [0]

    def count(event: object) -> None:
        seen[0] += 1

    runtime.services.bus.subscribe(count)

    async def run() -> None:
        seen[0] = 0
        execution = runtime.execution(Prepared.own(plan, runtime.services), max_iterations=10**9)
        state = await execution.run()
        await runtime.services.bus.drain()
        assert state.status == "completed", state.error
        assert sum(n.runs for n in state.nodes.values()) == expected_runs
        assert seen[0] == state.events >= 2 * expected_runs
        if not durable:
            await runtime.services.store.delete(execution.run_id)  # memory is not what is measured here

    return run


async def our_loop(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, loop_plan(n), 3 * n + 2)


async def short_loop(stack: AsyncExitStack, n: int) -> Run:
    """What *n* rounds would take at the pace of 1,000."""
    run = await our_loop(stack, 1000)

    async def scaled() -> float:
        begin = cpu()
        await run()
        return (cpu() - begin) * n / 1000

    return scaled


async def our_durable_loop(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, loop_plan(n), 3 * n + 2, durable=True)


async def our_chain(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, chain_plan(n), n + 1)


async def our_fan(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, fan_plan(n, Noop()), n + 2)


async def our_sleeping_fan(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, fan_plan(n, Sleep()), n + 2)


# Peers. Each in the leanest form its documentation shows.


class Numbers(TypedDict):
    x: Annotated[list[int], operator.add]


def _langgraph_loop(n: int) -> Any:
    from langgraph.graph import END, START, StateGraph

    async def a(state: Number) -> dict[str, int]:
        return {"x": state["x"] + 1}

    async def b(state: Number) -> dict[str, int]:
        return {}

    graph = StateGraph(Number)
    graph.add_node("a", a)
    graph.add_node("b", b)
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    graph.add_conditional_edges("b", lambda s: "a" if s["x"] < n else END)
    return graph


async def langgraph_loop(stack: AsyncExitStack, n: int) -> Run:
    compiled = _langgraph_loop(n).compile()
    return lambda: compiled.ainvoke({"x": 0}, {"recursion_limit": 3 * n + 10})


async def langgraph_streamed_loop(stack: AsyncExitStack, n: int) -> Run:
    compiled = _langgraph_loop(n).compile()

    async def run() -> None:
        async for _ in compiled.astream({"x": 0}, {"recursion_limit": 3 * n + 10}, stream_mode=["updates", "tasks"]):
            pass

    return run


async def langgraph_durable_loop(stack: AsyncExitStack, n: int) -> Run:
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    connection = await stack.enter_async_context(aiosqlite.connect(Path(folder) / "checkpoints.db"))
    compiled = _langgraph_loop(n).compile(checkpointer=AsyncSqliteSaver(connection))

    def run() -> Awaitable[Any]:
        config = {"recursion_limit": 3 * n + 10, "configurable": {"thread_id": str(uuid.uuid4())}}
        return compiled.ainvoke({"x": 0}, config, durability="sync")

    return run


def _langgraph_fan(n: int, seconds: float) -> Run:
    from langgraph.graph import END, START, StateGraph

    async def branch(state: Numbers) -> dict[str, list[int]]:
        if seconds:
            await asyncio.sleep(seconds)
        return {"x": [1]}

    async def join(state: Numbers) -> dict[str, list[int]]:
        return {}

    graph = StateGraph(Numbers)
    graph.add_node("join", join)
    for i in range(n):
        graph.add_node(f"n{i}", branch)
        graph.add_edge(START, f"n{i}")
        graph.add_edge(f"n{i}", "join")
    graph.add_edge("join", END)
    compiled = graph.compile()
    return lambda: compiled.ainvoke({"x": []})


async def langgraph_fan(stack: AsyncExitStack, n: int) -> Run:
    return _langgraph_fan(n, 0)


async def langgraph_sleeping_fan(stack: AsyncExitStack, n: int) -> Run:
    return _langgraph_fan(n, 0.01)


def _burr_loop(n: int, hooks: Sequence[Any] = ()) -> Run:
    from burr.core import ApplicationBuilder, State, action, default, expr

    @action(reads=["x"], writes=["x"])
    async def a(state: State) -> State:
        return state.update(x=state["x"] + 1)

    @action(reads=["x"], writes=[])
    async def b(state: State) -> State:
        return state

    @action(reads=["x"], writes=[])
    async def end(state: State) -> State:
        return state

    async def run() -> None:
        builder = ApplicationBuilder().with_actions(a=a, b=b, end=end).with_state(x=0).with_entrypoint("a")
        builder = builder.with_transitions(("a", "b", default), ("b", "a", expr(f"x<{n}")), ("b", "end", default))
        await builder.with_hooks(*hooks).build().arun(halt_after=["end"])

    return run


async def burr_loop(stack: AsyncExitStack, n: int) -> Run:
    return _burr_loop(n)


async def burr_hooked_loop(stack: AsyncExitStack, n: int) -> Run:
    """Each step is seen before and after, as a subscriber of ours sees it."""
    from burr.lifecycle import PostRunStepHookAsync, PreRunStepHookAsync

    class Hook(PreRunStepHookAsync, PostRunStepHookAsync):
        seen = 0

        async def pre_run_step(self, **given: Any) -> None:
            self.seen += 1

        async def post_run_step(self, **given: Any) -> None:
            self.seen += 1

    return _burr_loop(n, [Hook()])


async def bare_loop(stack: AsyncExitStack, n: int) -> Run:
    async def a(x: int) -> int:
        return x + 1

    async def b(x: int) -> int:
        return x

    async def run() -> None:
        x = 0
        while x < n:
            x = await b(await a(x))

    return run


async def bare_fan(stack: AsyncExitStack, n: int) -> Run:
    async def branch() -> int:
        return 1

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(n):
                group.create_task(branch())

    return run


async def bare_sleeping_fan(stack: AsyncExitStack, n: int) -> Run:
    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(n):
                group.create_task(asyncio.sleep(0.01))

    return run


LANGGRAPH, BURR, HOOKED = "LangGraph", "Burr (records nothing)", "Burr with hooks"
SHORT = "1,000 rounds"
# Goals are ratios of what was measured on one machine: a round of the loop in 42 µs where LangGraph took 400, a node of the chain in 16
# where it took 164, a branch in 18 where it took 209, the branches that sleep in 20 ms where it took 44.
ROWS = [
    Row(
        "loop of 2 nodes and a condition, in memory", 1000, "round",
        {OURS: our_loop, LANGGRAPH: langgraph_loop, "LangGraph, streamed": langgraph_streamed_loop, BURR: burr_loop,
         HOOKED: burr_hooked_loop, "bare asyncio": bare_loop},
        Goal(faster={LANGGRAPH: 9.5, BURR: 1.5, HOOKED: 2.8}),
    ),
    Row(
        "the same loop, 50,000 rounds", 50_000, "round", {OURS: our_loop, SHORT: short_loop}, Goal(within={SHORT: 55 / 42}),
    ),
    Row(
        "the same loop, durable: SQLite, a commit per step", 300, "round",
        {OURS: our_durable_loop, "LangGraph, SQLite": langgraph_durable_loop}, Goal(faster={"LangGraph, SQLite": 10.5}),
    ),
    Row("chain of 500", 500, "node", {OURS: our_chain, LANGGRAPH: langgraph_chain}, Goal(faster={LANGGRAPH: 164 / 16})),
    Row(
        "fan-out of 1,000, then join", 1000, "branch",
        {OURS: our_fan, LANGGRAPH: langgraph_fan, "bare TaskGroup": bare_fan}, Goal(faster={LANGGRAPH: 209 / 18}),
    ),
    Row(
        "fan-out of 200 that sleep 10 ms, wall time", 200, "run",
        {OURS: our_sleeping_fan, LANGGRAPH: langgraph_sleeping_fan, "bare TaskGroup": bare_sleeping_fan},
        Goal(faster={LANGGRAPH: 44 / 20}), "ms", time.perf_counter,
    ),
]  # fmt: skip
GROUP = "engine"


if __name__ == "__main__":
    main(GROUP, ROWS, "The engine against its peers.")

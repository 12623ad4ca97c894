"""The engine against its peers, on nodes that do nothing: `make bench`.

Every row runs its contenders in turn, round after round, so that a noisy machine is noisy for all of them alike; the
table shows the median of the rounds (five unless --rounds says otherwise), the fastest, and how many times slower than us
a contender is. Nothing is asserted about time: the exit status is 0 when all of it ran.

Usage: python -m tests.benchmarks.engine [--rounds N] [--only WORD]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import operator
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypedDict

from rich.console import Console
from rich.table import Table

from dipeo_nb.config import get_settings
from dipeo_nb.container import Prepared, Runtime
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.nodes import ConditionNode, NodeMeta, NodeSpec, StartNode, register_node_spec
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.state.memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from tests.graphs import plan_of

Run = Callable[[], Awaitable[Any]]
Make = Callable[[AsyncExitStack, int], Awaitable[Run]]


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


async def our_durable_loop(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, loop_plan(n), 3 * n + 2, durable=True)


async def our_chain(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, chain_plan(n), n + 1)


async def our_fan(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, fan_plan(n, Noop()), n + 2)


async def our_sleeping_fan(stack: AsyncExitStack, n: int) -> Run:
    return await ours(stack, fan_plan(n, Sleep()), n + 2)


# Peers. Each in the leanest form its documentation shows.


class Number(TypedDict):
    x: int


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


async def langgraph_chain(stack: AsyncExitStack, n: int) -> Run:
    from langgraph.graph import END, START, StateGraph

    async def step(state: Number) -> dict[str, int]:
        return {"x": state["x"] + 1}

    graph = StateGraph(Number)
    names = [f"n{i}" for i in range(n)]
    for name in names:
        graph.add_node(name, step)
    for a, b in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(a, b)
    compiled = graph.compile()
    return lambda: compiled.ainvoke({"x": 0}, {"recursion_limit": n + 10})


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


async def burr_loop(stack: AsyncExitStack, n: int) -> Run:
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
        await builder.build().arun(halt_after=["end"])

    return run


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


# The table.

OURS = "dipeo_nb"


@dataclass(frozen=True)
class Row:
    """A shape and who runs it; `per` divides the time: by steps, or by nothing for a whole run."""

    title: str
    n: int
    unit: str
    contenders: dict[str, Make]
    goal: str
    clock: Callable[[], float] = time.perf_counter

    def show(self, seconds: float) -> str:
        return f"{seconds * 1e3:.1f} ms" if self.unit == "run" else f"{seconds / self.n * 1e6:,.1f} µs"


ROWS = [
    Row(
        "loop of 2 nodes and a condition, in memory", 1000, "round",
        {OURS: our_loop, "LangGraph": langgraph_loop, "LangGraph, streamed": langgraph_streamed_loop, "Burr": burr_loop,
         "bare asyncio": bare_loop},
        "≤ 60 µs, ≥ 10× LangGraph, ≥ 2× Burr",
    ),
    Row(
        "the same, ten times as long", 10_000, "round", {OURS: our_loop}, "as above: cost grows linearly",
    ),
    Row(
        "the same, durable: SQLite, a commit per step", 300, "round",
        {OURS: our_durable_loop, "LangGraph": langgraph_durable_loop}, "≤ 450 µs, ≥ 10× LangGraph",
    ),
    Row("chain of 500", 500, "node", {OURS: our_chain, "LangGraph": langgraph_chain}, "≤ 25 µs"),
    Row(
        "fan-out of 1,000, then join", 1000, "branch",
        {OURS: our_fan, "LangGraph": langgraph_fan, "bare TaskGroup": bare_fan}, "≤ 30 µs",
    ),
    Row(
        "fan-out of 200 that sleep 10 ms", 200, "run",
        {OURS: our_sleeping_fan, "LangGraph": langgraph_sleeping_fan, "bare TaskGroup": bare_sleeping_fan}, "≤ 20 ms",
    ),
]  # fmt: skip


async def measure(row: Row, rounds: int) -> dict[str, list[float]]:
    """Seconds per contender and round, interleaved, after one round that does not count."""
    async with AsyncExitStack() as stack:
        runs = {name: await make(stack, row.n) for name, make in row.contenders.items()}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, run in runs.items():
                gc.collect()
                begin = row.clock()
                await run()
                if number:
                    taken[name].append(row.clock() - begin)
        return taken


async def main(rows: list[Row], about: str) -> None:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title holds this word")
    options = parser.parse_args()
    console = Console(width=118)
    for row in rows:
        if options.only not in row.title:
            continue
        taken = await measure(row, options.rounds)
        base = statistics.median(taken[OURS])
        console.print(f"\n[bold]{row.title}[/bold] (goal: {row.goal})")
        table = Table(min_width=80)
        for column in ("", f"median a {row.unit}", "fastest", "against ours"):
            table.add_column(column, justify="right" if column else "left")
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            ratio = "" if name == OURS else f"{middle / base:.2f}×"
            table.add_row(name, row.show(middle), row.show(min(seconds)), ratio)
        console.print(table)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # peers warn about their own dependencies
    asyncio.run(main(ROWS, "The engine against its peers."))

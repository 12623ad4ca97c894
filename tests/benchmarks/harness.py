"""How benchmarks are measured and shown.

A `Row` is one piece of work and those who do it: us, and peers in the leanest form that their documentation shows. The contenders
of a row take turns, round after round, so that a noisy machine is noisy for all of them alike; a first round does not count. What is
shown is the median of the rounds, the fastest round, how many times more a peer takes than we do, and whether the goal is met. Goals
in seconds were set on another machine: a yardstick, which takes its turn in every such row, says how much slower this one is then.
Nothing is asserted about time: a benchmark fails only when the work itself was not done.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table

OURS = "dipeo_nb"
YARDSTICK = "yardstick"
Run = Callable[[], Awaitable[Any]]
"""Does the work once. A float that it returns is what is measured, in seconds (or in the row's unit); else its clock is."""
Make = Callable[[AsyncExitStack, int], Awaitable[Run]]
"""Prepares a contender for work of a size; the stack ends what it opened."""


def cpu() -> float:
    """CPU seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass(frozen=True, slots=True)
class Goal:
    """What our figure of a row should be.

    Args:
        at_most: The figure itself, in the row's unit. A time is one of the machine of the goals; see `yardstick`.
        waits: What of that is waiting, which takes as long on every machine.
        faster: Peer → how many times our figure its own is, at least.
        within: Peer → how many times its figure ours is, at most.
        over: Peer → how much more than its figure ours is, at most, in the row's unit.
    """

    at_most: float | None = None
    waits: float = field(default=0.0, kw_only=True)
    faster: Mapping[str, float] = field(default_factory=dict[str, float])
    within: Mapping[str, float] = field(default_factory=dict[str, float])
    over: Mapping[str, float] = field(default_factory=dict[str, float])

    def text(self, unit: str, slower: float = 1.0) -> str:
        parts = [] if self.at_most is None else [f"≤ {self.at_most:,g} {unit}"]
        if parts and slower != 1:
            parts[0] += f" (here {self.limit(slower):,.3g})"
        parts += [f"{ratio:.4g}× faster than {name}" for name, ratio in self.faster.items()]
        parts += [f"≤ {ratio:.3g}× {name}" for name, ratio in self.within.items()]
        parts += [f"≤ {name} + {more:g} {unit}" for name, more in self.over.items()]
        return ", ".join(parts) or "none"

    def limit(self, slower: float) -> float:
        """`at_most` on a machine that is so much slower."""
        assert self.at_most is not None
        return self.waits + (self.at_most - self.waits) * slower

    def met(self, figures: Mapping[str, float], slower: float = 1.0) -> bool | None:
        """Whether it is met on a machine that is so much slower; None where there is nothing to reach, or a peer that it needs did not run."""
        peers = (*self.faster, *self.within, *self.over)
        if (self.at_most is None and not peers) or any(name not in figures for name in peers):
            return None
        ours = figures[OURS]
        return (
            (self.at_most is None or ours <= self.limit(slower))
            and all(figures[name] >= ratio * ours for name, ratio in self.faster.items())
            and all(ours <= ratio * figures[name] for name, ratio in self.within.items())
            and all(ours <= figures[name] + more for name, more in self.over.items())
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work.

    Args:
        title: What is done.
        n: Size of the work; the time is divided by it unless *per* is "run".
        per: What a figure is for: "round", "node" … or "run".
        contenders: Name → how it is prepared; ours is `OURS`.
        goal: What we should reach, in *unit*.
        unit: "µs", "ms", "s" of what *clock* counts; any other unit is shown as the run returned it.
        clock: `cpu`, or `time.perf_counter` where waiting is what counts.
    """

    title: str
    n: int
    per: str
    contenders: Mapping[str, Make]
    goal: Goal = field(default_factory=Goal)
    unit: str = "µs"
    clock: Callable[[], float] = cpu

    def figure(self, taken: float) -> float:
        scale = {"µs": 1e6, "ms": 1e3}.get(self.unit, 1.0)
        return taken * scale / (1 if self.per == "run" else self.n)


@dataclass(frozen=True, slots=True)
class Result:
    """Medians and fastest rounds of a row, in its unit."""

    group: str
    title: str
    unit: str
    per: str
    median: dict[str, float]
    fastest: dict[str, float]
    goal: str
    met: bool | None
    slower: float = 1.0
    """How many times longer the yardstick took than on the machine of the goals, meanwhile."""


class Number(TypedDict):
    x: int


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


async def yardstick(stack: AsyncExitStack, n: int) -> Run:
    """LangGraph's chain of 500, which took 164 µs of CPU a node on the machine of the goals; gives how many times longer it takes here."""
    run = await langgraph_chain(stack, 500)

    async def timed() -> float:
        begin = time.process_time()
        await run()
        return (time.process_time() - begin) / (500 * 164e-6)

    return timed


async def measure(row: Row, rounds: int) -> dict[str, list[float]]:
    """What each contender took in each round, interleaved, after one round that does not count."""
    async with AsyncExitStack() as stack:
        runs: dict[str, Run] = {}
        for name, make in row.contenders.items():
            try:
                runs[name] = await make(stack, row.n)
            except ImportError as error:  # a peer that is not installed; ours always is
                if name == OURS:
                    raise
                print(f"({name} is left out: {error})")
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, run in runs.items():
                gc.collect()
                begin = row.clock()
                found = await run()
                if number:
                    taken[name].append(found if isinstance(found, float) else row.clock() - begin)
        return taken


async def result_of(group: str, row: Row, rounds: int, measure_with: Make | None = None) -> Result:
    """The measured row.

    Args:
        measure_with: The yardstick.
    """
    timed = row.goal.at_most is not None and row.unit in ("µs", "ms", "s")
    if timed and measure_with is not None:
        row = replace(row, contenders={YARDSTICK: measure_with, **row.contenders})
    taken = await measure(row, rounds)
    slower = statistics.median(taken.pop(YARDSTICK, [1.0]))
    median = {name: row.figure(statistics.median(times)) for name, times in taken.items()}
    fastest = {name: row.figure(min(times)) for name, times in taken.items()}
    goal, met = row.goal.text(row.unit, slower), row.goal.met(median, slower)
    return Result(group, row.title, row.unit, row.per, median, fastest, goal, met, slower)


def table(results: Iterable[Result]) -> Table:
    """One line for each contender of each row."""
    shown = Table(min_width=100)
    for column in ("", "", "median", "fastest", "against ours", "goal", "met?"):
        shown.add_column(column, justify="right" if column in ("median", "fastest", "against ours") else "left")
    for result in results:
        about = f"[bold]{result.group}[/bold]: {result.title}"
        unit = result.unit if result.per == "run" else f"{result.unit}/{result.per}"
        for name, middle in result.median.items():
            ours = name == OURS
            ratio = "" if ours else f"{middle / result.median[OURS]:.2f}×" if result.median[OURS] else "–"
            met = "" if not ours or result.met is None else "yes" if result.met else "[bold]no[/bold]"
            cells = (f"{middle:,.1f} {unit}", f"{result.fastest[name]:,.1f}", ratio, result.goal if ours else "", met)
            shown.add_row(about if ours else "", name, *cells)
        shown.add_section()
    return shown


def save(results: Iterable[Result], path: Path) -> None:
    """As JSON: where it was measured, and one object for each row."""
    where = {"python": platform.python_version(), "machine": platform.machine(), "cpus": str(os.cpu_count() or 1)}
    path.write_text(json.dumps({"where": where, "rows": [asdict(r) for r in results]}, indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[Result]:
    """What `save` wrote."""
    return [Result(**row) for row in json.loads(path.read_text())["rows"]]


def main(group: str, rows: Callable[[AsyncExitStack], Awaitable[Sequence[Row]]] | Sequence[Row], about: str) -> None:
    """Command line of a module of benchmarks.

    Args:
        group: Its short name.
        rows: Its rows, or what makes them with servers that end with the stack.
        about: First line of its help.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender has its turn (5)")
    parser.add_argument("--only", default="", help="rows whose title has this word")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # peers warn about their own dependencies

    async def run() -> list[Result]:
        results: list[Result] = []
        async with AsyncExitStack() as stack:
            for row in rows if not callable(rows) else await rows(stack):
                if options.only not in row.title:
                    continue
                if options.ours:
                    row = Row(row.title, row.n, row.per, {OURS: row.contenders[OURS]}, row.goal, row.unit, row.clock)
                results.append(await result_of(group, row, options.rounds, None if options.ours else yardstick))
                Console(width=160).print(table(results[-1:]))
                if options.json is not None:
                    save(results, options.json)
        return results

    asyncio.run(run())

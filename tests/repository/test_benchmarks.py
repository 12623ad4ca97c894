"""How benchmarks are judged: medians, goals, files. What they measure is measured by `make bench`, and never asserted."""

from __future__ import annotations

import asyncio
import importlib
import io
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import growth
from tests.benchmarks.__main__ import GROUPS
from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, load, measure, result_of, save, table


def taking(*seconds: float) -> Make:
    """A contender whose rounds take this long, the one that does not count first."""

    async def make(stack: AsyncExitStack, n: int) -> Run:
        left = iter((99.0, *seconds))

        async def run() -> float:
            return next(left)

        return run

    return make


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(), None),
        (Goal(10), True),
        (Goal(9.9), False),
        (Goal(faster={"peer": 2}), True),
        (Goal(faster={"peer": 2.1}), False),
        (Goal(within={"peer": 0.5}), True),
        (Goal(within={"peer": 0.4}), False),
        (Goal(over={"peer": -10}), True),
        (Goal(over={"peer": -11}), False),
        (Goal(10, faster={"peer": 3}), False),
        (Goal(10, faster={"not installed": 3}), None),
    ],
)
def test_a_goal(goal: Goal, met: bool | None):
    assert goal.met({OURS: 10.0, "peer": 20.0}) is met


def test_the_median_counts_and_the_first_round_does_not():
    row = Row("work", 4, "step", {OURS: taking(8e-6, 4e-6, 40e-6), "peer": taking(16e-6, 16e-6, 16e-6)}, Goal(2, {"peer": 2}))
    result = asyncio.run(result_of("group", row, 3))
    assert result.median == pytest.approx({OURS: 2.0, "peer": 4.0})
    assert result.fastest[OURS] == pytest.approx(1.0)
    assert (result.met, result.goal) == (True, "≤ 2 µs, 2× faster than peer")


def test_a_goal_in_seconds_is_that_of_another_machine():
    """Where the yardstick takes twice the time, so may we; amounts and ratios stay."""
    row = Row("work", 1, "run", {OURS: taking(0.5), "peer": taking(1.0)}, Goal(300, {"peer": 2}), "ms")
    result = asyncio.run(result_of("group", row, 1, taking(2.0)))
    assert (result.met, result.goal, result.slower) == (True, "≤ 300 ms (here 600), 2× faster than peer", 2.0)
    assert result.median == {OURS: 500.0, "peer": 1000.0}
    assert Goal(8, waits=4).text("s", 2.0) == "≤ 8 s (here 12)"
    assert [Goal(8, waits=4).met({OURS: taken}, 2.0) for taken in (12, 12.1)] == [True, False]
    size = Row("file", 1, "run", {OURS: taking(5.0)}, Goal(4), "MB")
    result = asyncio.run(result_of("group", size, 1, taking(2.0)))
    assert (result.met, result.goal, result.slower) == (False, "≤ 4 MB", 1.0)


def test_a_peer_that_is_not_installed_is_left_out():
    async def missing(stack: AsyncExitStack, n: int) -> Run:
        raise ImportError("no module named 'peer'")

    taken = asyncio.run(measure(Row("work", 1, "run", {OURS: taking(1.0), "peer": missing}), 1))
    assert taken == {OURS: [1.0]}
    with pytest.raises(ImportError):
        asyncio.run(measure(Row("work", 1, "run", {OURS: missing}), 1))


def test_the_work_is_timed_where_it_returns_no_figure():
    async def make(stack: AsyncExitStack, n: int) -> Run:
        return lambda: asyncio.sleep(0)

    clock = iter([1.0, 2.0, 5.0, 8.0])
    taken = asyncio.run(measure(Row("work", 1, "run", {OURS: make}, clock=lambda: next(clock)), 1))
    assert taken == {OURS: [3.0]}


def test_results_are_saved_and_shown(tmp_path: Path):
    row = Row("work", 1, "run", {OURS: taking(0.5), "peer": taking(2.0)}, Goal(400), "ms")
    result = asyncio.run(result_of("group", row, 1))
    save([result], tmp_path / "benchmarks.json")
    assert load(tmp_path / "benchmarks.json") == [result]
    console = Console(width=160, file=io.StringIO())
    console.print(table([result]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "500.0 ms" in shown
    assert "4.00×" in shown
    assert "no" in shown.split("≤ 400 ms")[1]


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_can_be_imported(group: str):
    """Without the peers, which only `make bench` installs."""
    module = importlib.import_module(f"tests.benchmarks.{group}")
    assert group == module.GROUP


def test_the_work_on_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each piece of it comes to its end, on a run that is not long."""
    monkeypatch.setenv("BENCH_EVENTS", "300")
    growth._measured("record", tmp_path)
    with closing(sqlite3.connect(next(tmp_path.rglob("*.db")))) as connection:
        ((run,),) = connection.execute("SELECT run_id FROM runs").fetchall()
    for name in ("open_run", "explain", "metrics", "diff", "resume"):
        assert growth._measured(name, tmp_path, run)["cpu"] > 0, name

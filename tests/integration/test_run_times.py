"""Times of runs: a clock that jumps, the critical path against a plain simulation, replays of runs that paused for long."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.container import build
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import (
    EndpointNode,
    NodeMeta,
    NodeSpec,
    StartNode,
    SubDiagramNode,
)
from dipeo_nb.errors import UserError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.journal import Timeline
from dipeo_nb.execution.metrics import RunMetrics, measure, summarize
from dipeo_nb.execution.recovery import recovered
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.security.gate import Gate
from dipeo_nb.testing import scripted
from tests.support.examples import examples
from tests.support.graphs import plan_of
from tests.support.node_types import registered

# A clock of the test's own: time passes when everybody waits.


class VirtualClock:
    """Monotonic time goes on when the pump finds everybody asleep; the wall clock is off by whatever `jump` says."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.jump = 0.0
        self.ids = itertools.count(1)
        self.sleepers: list[tuple[float, int, asyncio.Event]] = []

    def now(self) -> float:
        return 1_000_000.0 + self.elapsed + self.jump

    def monotonic(self) -> float:
        return 5_000.0 + self.elapsed

    def new_id(self, prefix: str = "") -> str:
        return f"{prefix}{next(self.ids):032x}"

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self.sleepers, (self.elapsed + seconds, next(self.ids), woken))
        await woken.wait()

    async def pump(self, task: asyncio.Future[Any], until: float = math.inf) -> None:
        """Let time pass until the task is done, or it is that late."""
        while True:
            for _ in range(60):  # everybody who can go on does
                await asyncio.sleep(0)
            if task.done():
                return
            if not self.sleepers:  # threads are at work
                await asyncio.sleep(0.001)
                continue
            if self.sleepers[0][0] > until:
                self.elapsed = until
                return
            self.elapsed, _, woken = heapq.heappop(self.sleepers)
            woken.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(NodeSpec):
    META: ClassVar = NodeMeta("times_work", NodeCategory.COMPUTE, "Takes seconds of the virtual clock")
    seconds: float = 1.0
    jump: float | None = None


async def work(context: NodeContext) -> Output:
    clock, spec = context.services.clock, context.node.spec
    assert isinstance(clock, VirtualClock)
    assert isinstance(spec, Work)
    await clock.sleep(spec.seconds / 2)
    if spec.jump is not None:
        clock.jump = spec.jump
    await clock.sleep(spec.seconds / 2)
    return Output("done")


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered((Work, work)):
        yield


def services(clock: VirtualClock, base: Path | None = None) -> Any:
    return build(
        Settings(base_dir=base or Path.cwd()), clock=clock, llm=scripted(), store=InMemoryRunStore(), bus=InMemoryEventBus()
    )


async def ran(
    plan: Any, clock: VirtualClock, *, stop_at: float = math.inf, base: Path | None = None, **options: Any
) -> tuple[Execution, list[Event]]:
    runtime = Runtime(
        Settings(base_dir=base or Path.cwd(), execution_parallelism=options.pop("parallelism", 20)),
        services=services(clock, base),
    )
    async with runtime:
        execution = runtime.execution(Prepared.own(plan, runtime.services), **options)
        task = asyncio.ensure_future(execution.run())
        await clock.pump(task, stop_at)
        if not task.done():
            execution.stop()
        await task
        return execution, await runtime.services.store.events(execution.run_id)


def path(metrics: RunMetrics) -> list[str]:
    return [run.label for run in metrics.critical_path]


DIAMOND: dict[str, NodeSpec] = {
    "S": StartNode(), "A": Work(seconds=0.3), "B": Work(seconds=0.9), "C": Work(seconds=0.4), "J": Work(seconds=0.1), "E": EndpointNode(),
}  # fmt: skip
ARROWS = ["S -> A", "S -> B", "A -> C", "C -> J : c", "B -> J : b", "J -> E"]


# The wall clock.

JUMPS = [-10 * 86400.0, -3600.0, 3600.0, 86400.0 * 365]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set_in_the_middle_of_a_run(jump: float, tmp_path: Path):
    """Times in the record go on, durations are right, and so are the words and a run that began later."""
    (tmp_path / "child.light.yaml").write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: W, type: times_work, seconds: 1}\n"
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: W}\n- {from: W, to: E}\n"
    )
    nodes = {
        "S": StartNode(), "A": Work(seconds=2), "B": Work(seconds=4, jump=jump), "Sub": SubDiagramNode(diagram_name="child"),
        "C": Work(seconds=2), "E": EndpointNode(),
    }  # fmt: skip
    plan = plan_of(nodes, ["S -> A", "A -> B", "B -> Sub", "Sub -> C", "C -> E"])

    async def go() -> None:
        clock = VirtualClock()
        runtime = Runtime(Settings(base_dir=tmp_path), services=services(clock, tmp_path))
        async with runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            task = asyncio.ensure_future(execution.run())
            await clock.pump(task)
            state = await task
            store = runtime.services.store
            events = await store.events(execution.run_id)
            times = [e.occurred_at for e in events]
            assert state.status == "completed"
            assert times == sorted(times)
            assert times[-1] - times[0] == pytest.approx(9.0)
            metrics = measure(events)
            assert metrics.duration_s == pytest.approx(9.0)
            assert {n.label: round(n.working_s, 6) for n in metrics.nodes} == {"S": 0, "A": 2, "B": 4, "Sub": 1, "C": 2, "E": 0}
            assert "'B' took 44% of the time (4.0 s" in " ".join(summarize(metrics))
            rows = await store.runs(nested=True)
            assert len(rows) == 2
            for row in rows:
                assert row.ended_at is not None
                assert row.duration_s == pytest.approx(9.0 if row.parent_run_id is None else 1.0)
                assert times[0] <= row.started_at <= row.ended_at <= times[-1], "a child is within its parent"

    run_sync(go())


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_that_is_resumed_after_the_clock_was_set(jump: float):
    """What comes after comes after, and only the time of work counts."""
    plan = plan_of(
        {"S": StartNode(), "A": Work(seconds=2), "B": Work(seconds=4), "E": EndpointNode()}, ["S -> A", "A -> B", "B -> E"]
    )

    async def go() -> None:
        clock = VirtualClock()
        async with Runtime(Settings(), services=services(clock)) as runtime:
            store = runtime.services.store
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            task = asyncio.ensure_future(execution.run())
            await clock.pump(task, 3.0)
            execution.stop()
            await task
            clock.elapsed, clock.jump = 0.0, jump  # another process, after a restart of the machine
            clock.sleepers.clear()
            await store.claim(execution.run_id, owned=True)
            found = recovered(plan, await store.events(execution.run_id), variables={}, max_visits=100)
            again = Execution(plan, Gate.open(runtime.services), execution.options, recovered=found)
            task = asyncio.ensure_future(again.run())
            await clock.pump(task)
            state = await task
            events = await store.events(execution.run_id)
            times = [e.occurred_at for e in events]
            assert state.status == "completed"
            assert times == sorted(times)
            assert state.duration_s == pytest.approx(7.0)
            metrics = measure(events)
            assert metrics.duration_s == pytest.approx(7.0)
            assert path(metrics) == ["S", "A", "B", "B", "E"]
            assert sum(run.working_s for run in metrics.critical_path) == pytest.approx(7.0)

    run_sync(go())


@given(
    wall=st.floats(0, 2e9), before=st.floats(0, 4e9), monotonic=st.floats(0, 1e7), steps=st.lists(st.floats(0, 1e5), max_size=5)
)
def test_a_timeline_never_goes_back(wall: float, before: float, monotonic: float, steps: list[float]):
    """Nor begins before what it must not be before, whatever the numbers; children take part in it."""

    class Clock:
        elapsed = set_by = 0.0

        def now(self) -> float:
            return wall + self.set_by

        def monotonic(self) -> float:
            return monotonic + self.elapsed

        def new_id(self, prefix: str = "") -> str:
            return prefix

    clock = Clock()
    line = Timeline(clock, not_before=before)
    seen, children = [before, line.now()], list[float]()
    for n, step in enumerate(steps):
        clock.elapsed += step
        clock.set_by -= 1e6 * n
        seen.append(line.now())
        children.append(Timeline(clock, parent=line).now())
    assert seen == sorted(seen)
    assert children == pytest.approx(seen[2:])


# The critical path.


def test_without_a_limit_the_longest_way_counts():
    """Both branches at once: S, B, J."""

    async def go() -> None:
        _, events = await ran(plan_of(DIAMOND, ARROWS), VirtualClock())
        metrics = measure(events)
        assert path(metrics) == ["S", "B", "J", "E"]
        assert metrics.duration_s == pytest.approx(1.0)

    run_sync(go())


def test_with_one_place_everything_is_on_the_path():
    """Each node waits for the one that holds the place."""

    async def go() -> None:
        _, events = await ran(plan_of(DIAMOND, ARROWS), VirtualClock(), parallelism=1)
        metrics = measure(events)
        assert metrics.duration_s == pytest.approx(1.7)
        assert sorted(path(metrics)) == ["A", "B", "C", "E", "J", "S"]
        assert sum(run.working_s for run in metrics.critical_path) == pytest.approx(1.7)
        assert metrics.bottlenecks[0].label == "B"
        assert metrics.bottlenecks[0].share == pytest.approx(0.9 / 1.7)

    run_sync(go())


def test_work_that_was_cut_off_is_on_the_path():
    """The node that was at work all the time is why the run took so long, and not those that had finished."""
    nodes = {**DIAMOND, "B": Work(seconds=50)}

    async def go() -> None:
        _, events = await ran(plan_of(nodes, ARROWS), VirtualClock(), stop_at=1.5)
        metrics = measure(events)
        assert metrics.status == "aborted"
        assert path(metrics) == ["S", "B"]
        assert [(b.label, b.share) for b in metrics.bottlenecks] == [("B", pytest.approx(1.0))]
        assert "'B' took 100% of the time (1.5 s)" in " ".join(summarize(metrics))

    run_sync(go())


def test_a_node_that_fails_the_run_ends_the_path():
    """Its siblings, which are cut off for it, do not."""
    log = Log().start(0, "S").done(0, "S").start(0, "Long", ("S", 1)).start(0, "A", ("S", 1)).done(1, "A")
    log.start(1, "Bad", ("A", 1)).add(3, T.NODE_ERROR, "Bad", label="Bad", run=1, error={}, handled=False)
    assert path(log.end(3, T.EXECUTION_ERROR, status="failed")) == ["S", "A", "Bad"]


def test_what_is_held_back_by_a_loop_waits_for_its_end():
    """It takes an old output of the loop's first round, or one from before the loop, and begins when the loop is over."""
    log = Log().start(0, "S").done(0, "S").start(0, "L", ("S", 1)).done(1, "L")
    for n in (2, 3):
        log.start(n - 1, "L", ("L", n - 1), run=n).done(n, "L", run=n)
    metrics = log.start(3, "After", ("S", 1)).done(4, "After").end(4)
    assert path(metrics) == ["S", "L", "L", "L", "After"]
    assert metrics.waiting_s == 0, "it was not ready and without a place"


def test_a_failed_attempt_counts_when_the_run_is_resumed():
    """It was waited for, and made again."""
    log = Log().start(0, "S").done(0, "S").start(0, "Bad", ("S", 1))
    log.add(3, T.NODE_ERROR, "Bad", label="Bad", run=1, error={}, handled=False).end(3, T.EXECUTION_ERROR, status="failed")
    log.add(50, T.EXECUTION_STARTED, None, resumed=5, options={}).start(50, "Bad", ("S", 1)).done(54, "Bad")
    metrics = log.end(54, worked=7)
    assert [(run.label, run.working_s) for run in metrics.critical_path] == [("S", 0), ("Bad", 3), ("Bad", 4)]
    assert metrics.waiting_s == 0


def test_retries_answers_and_runs_taken_over():
    """A node keeps its place while it tries again; waiting for somebody is no work; what was taken over takes no time."""
    log = Log(parallelism=1).start(0, "S").done(0, "S", reused={"run_id": "x", "seq": 1}).start(0, "Try", ("S", 1))
    log.done(4, "Try", retries=2).start(4, "Ask", ("S", 1)).add(4, T.INTERACTIVE_PROMPT, "Ask", request_id="1")
    metrics = log.add(9, T.INTERACTIVE_RESPONSE, "Ask", request_id="1").done(10, "Ask").end(10)
    assert path(metrics) == ["S", "Try", "Ask"]
    assert [run.working_s for run in metrics.critical_path] == [0, 4, 1]
    assert metrics.asked_s == 5
    assert metrics.reused == 1


def test_an_answer_that_never_came_is_no_work():
    """Of a run that was stopped meanwhile."""
    log = Log().start(0, "Ask").add(1, T.INTERACTIVE_PROMPT, "Ask", request_id="1")
    metrics = log.end(10, T.EXECUTION_ERROR, status="aborted")
    assert (metrics.asked_s, metrics.critical_path[0].working_s) == (9, 1)


class Log:
    """A log written by hand: `at` is seconds since the run began."""

    def __init__(self, parallelism: int = 20) -> None:
        self.events: list[Event] = []
        self.add(0, T.EXECUTION_STARTED, None, diagram="Test", labels={}, options={"parallelism": parallelism})

    def add(self, at: float, of: T, node: str | None, /, **payload: Any) -> Log:
        self.events.append(Event(len(self.events) + 1, of, "r", 1000.0 + at, node, payload))
        return self

    def start(self, at: float, node: str, *inputs: tuple[str, int], run: int = 1) -> Log:
        named = {f"in{n}": list(place) for n, place in enumerate(inputs)}
        return self.add(at, T.NODE_STARTED, node, label=node, run=run, inputs=named)

    def done(self, at: float, node: str, *, run: int = 1, **meta: Any) -> Log:
        return self.add(at, T.NODE_COMPLETED, node, label=node, run=run, status="completed", meta=meta)

    def end(
        self, at: float, of: T = T.EXECUTION_COMPLETED, status: str = "completed", worked: float | None = None
    ) -> RunMetrics:
        total = (at if worked is None else worked) * 1000
        return measure(self.add(at, of, None, status=status, total_duration_ms=total, node_status={}).events)


@dataclass
class Simulation:
    """Runs a graph as the engine does: first ready, first served, when there is a place. No time passes between nodes."""

    inputs: list[list[int]]
    """Of each node, the nodes before it whose output it takes."""
    seconds: list[int]
    places: int
    cut_at: int | None
    pause: int

    def log(self) -> tuple[Log, int]:
        """The log, and the seconds that the run went on."""
        log = Log(self.places)
        queue = deque(n for n, before in enumerate(self.inputs) if not before)
        done: set[int] = set()
        now = shift = 0
        cut_at = self.cut_at
        while True:
            cut, now = self._stretch(log, queue, done, now, shift, cut_at)
            if not cut:
                log.add(
                    now + shift, T.EXECUTION_COMPLETED, None, status="completed", total_duration_ms=now * 1000, node_status={}
                )
                return log, now
            log.add(now + shift, T.EXECUTION_ERROR, None, status="aborted", total_duration_ms=now * 1000, node_status={})
            shift += self.pause
            log.add(now + shift, T.EXECUTION_STARTED, None, resumed=1, options={"parallelism": self.places})
            cut_at = None

    def _stretch(
        self, log: Log, queue: deque[int], done: set[int], now: int, shift: int, cut_at: int | None
    ) -> tuple[bool, int]:
        working: list[tuple[int, int]] = []
        order = list(queue)
        while queue or working:
            while queue and len(working) < self.places:
                node = queue.popleft()
                log.start(now + shift, str(node), *((str(i), 1) for i in self.inputs[node]))
                heapq.heappush(working, (now + self.seconds[node], node))
            end = working[0][0]
            if cut_at is not None and cut_at < end:
                left = {node for _, node in working} | set(queue)
                queue.clear()
                queue.extend(node for node in order if node in left)
                return True, max(now, cut_at)
            now = end
            while working and working[0][0] == now:
                _, node = heapq.heappop(working)
                log.done(now + shift, str(node))
                done.add(node)
                for after, before in enumerate(self.inputs):
                    if node in before and set(before) <= done:
                        queue.append(after)
                        order.append(after)
        return False, now


@st.composite
def simulations(draw: st.DrawFn) -> Simulation:
    size = draw(st.integers(1, 12))
    inputs = [draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)) if n else [] for n in range(size)]
    seconds = draw(st.lists(st.integers(1, 30), min_size=size, max_size=size))
    cut_at = draw(st.none() | st.integers(0, 100))
    return Simulation(inputs, seconds, draw(st.integers(1, 4)), cut_at, draw(st.integers(0, 1000)))


@examples(300)
@given(simulations())
def test_the_critical_path_takes_as_long_as_the_run(simulation: Simulation):
    """Where no time passes between nodes, what was waited for, one after the other, is the whole time of the run; and each step is an
    input, a place that was freed, or the work that was going on when the run was cut off."""
    log, duration = simulation.log()
    metrics = measure(log.events)
    steps = metrics.critical_path
    assert sum(run.working_s for run in steps) == pytest.approx(duration)
    assert metrics.duration_s == duration
    for before, after in itertools.pairwise(steps):
        if before.ended_at is None:
            assert after.started_at == before.end + simulation.pause
            continue
        is_input = (before.node_id, before.run) in after.inputs
        at_work = sum(run.started_at <= before.end - 0.5 < run.end for run in metrics.runs)
        assert after.started_at == before.end
        assert is_input or at_work == simulation.places


# Replays.


def paused(*gaps: float) -> list[Event]:
    log = Log()
    at = 0.0
    for n, gap in enumerate(gaps):
        at += gap
        log.add(at, T.EXECUTION_LOG, None, message=str(n))
    log.add(at, T.EXECUTION_COMPLETED, None, status="completed", total_duration_ms=0, node_status={})
    return log.events


@pytest.mark.parametrize(
    ("gaps", "speed", "max_pause", "times"),
    [
        ((1, 3600, 2), 1, 10, [0, 1, 11, 13, 13]),
        ((1, 3600, 2), 100, 10, [0, 0.01, 10.01, 10.03, 10.03]),
        ((1, -864000, 2), 1, 10, [0, 1, 1, 3, 3]),
        ((1, 3600, 2), 1, math.inf, [0, 1, 3601, 3603, 3603]),
        ((1, 3600, 2), 1, 0, [0, 0, 0, 0, 0]),
        ((1, 3600, 2), math.inf, 10, [0, 0, 0, 0, 0]),
    ],
)
def test_when_a_replay_shows_what(gaps: tuple[float, ...], speed: float, max_pause: float, times: list[float]):
    """Pauses are as long as they were, but no longer than asked; a clock that was set back makes none."""
    replay = Replay(services(VirtualClock()), paused(*gaps), speed=speed, max_pause=max_pause)
    assert replay._times() == pytest.approx(times)


def test_a_night_passes_quickly():
    """A run that waited for ten hours is shown at once when no pause is wanted."""
    replay = Replay(services(VirtualClock()), paused(36_000, 36_000), max_pause=0.01)
    state: RunState = run_sync(replay.run())
    assert state.status == "completed"


@pytest.mark.parametrize("speed", ["10", "fast", 0, -1, math.nan, True, None, [1]])
def test_what_is_no_speed(speed: Any, tmp_path: Path):
    """One clear error, for whatever it is; so too for pauses."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(
            "version: light\nnodes:\n- {label: S, type: start}\n- {label: E, type: endpoint}\nconnections:\n- {from: S, to: E}\n",
            view=False,
        ).run
        with pytest.raises(UserError, match="is not a speed"):
            dp.replay(run, speed=speed, view=False)
        if speed != 0 or isinstance(speed, str):
            with pytest.raises(UserError, match="is not a max_pause"):
                dp.replay(run, max_pause=speed, view=False)
        again = dp.replay(run, speed=2, max_pause=0, view=False)
        assert again.wait(20)
        assert again.status == "completed"

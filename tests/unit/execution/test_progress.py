"""What a run knows is worked out by one code, whether the run goes live or its log is read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.execution.code_state import EMPTY
from dipeo_nb.execution.conversation import ConversationLog
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.progress import RunProgress
from dipeo_nb.execution.recovery import recovered
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from tests.support import graph_dsl as shapes
from tests.support.graph_shapes import SHAPES, Shape


def started(plan: Plan) -> RunProgress:
    progress = RunProgress(plan, variables={"topic": "rain"}, log=ConversationLog(), max_visits=10)
    progress.begin()
    return progress


def worked(progress: RunProgress) -> list[str]:
    """Run it without an engine: each node gives the names of what it got; what ran, in order."""
    ran: list[str] = []
    while progress.finish is None:
        while progress.ticks:
            progress.advance()
        if not progress.ready:
            break
        command, inputs, _ = progress.start()
        node = progress.plan.nodes[command.node]
        ran.append(f"{node.label}{command.run}")
        got = "".join(sorted(f"{a.source_label}{a.run}" for a in inputs.arrived))
        progress.complete(node, command.run, Output(got or "nothing"), EMPTY)
    return ran


def test_it_needs_no_engine() -> None:
    """Nothing of it waits, writes or sleeps."""
    progress = started(shapes.drawn("s > a; a > b; s > c; c > b"))
    assert worked(progress) == ["s1", "a1", "c1", "b1"]
    assert progress.result() == "a1c1"
    assert progress.statuses() == {}
    assert not progress.working


def test_what_fails_is_handed_on_when_it_is_handled() -> None:
    plan = shapes.drawn("s > a; a > b")
    progress = started(plan)
    progress.advance()
    error = {"type": "X", "message": "broken", "node": "a"}
    for handled in (True, False):
        command, inputs, _ = progress.start()
        node = plan.nodes[command.node]
        progress.fail(node, 1, error, progress.seen_by(node, inputs), handled=handled)  # type: ignore[arg-type]
        while progress.ticks:
            progress.advance()
    assert progress.outputs[0][1].body == {"error": "broken", "type": "X"}
    assert not progress.ready
    assert progress.completed_runs(plan.nodes[1]) == 0


@pytest.mark.parametrize("case", SHAPES, ids=[case.name for case in SHAPES])
def test_the_log_leads_to_what_the_engine_knew(case: Shape) -> None:
    """Of every shape: outputs, result, statuses and what is ready, at the end of the run and from the log of it."""
    plan = shapes.drawn(case.arrows)
    decisions = dict(word.split("=") for word in case.decisions.split())

    async def run() -> tuple[RunProgress, Sequence[Event], int]:
        async with Runtime(store=InMemoryRunStore()) as runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            await execution.run()
            return (
                execution.progress,
                await runtime.services.store.events(execution.run_id),
                execution.options.max_iterations,
            )

    with shapes.scripted_handlers(decisions, {}):
        live, events, visits = asyncio.run(run())
    found = recovered(plan, events, variables={}, max_visits=visits).progress
    for progress in (live, found):
        progress.working.clear()  # the log does not say whether they would have gone on
    assert found.outputs == live.outputs
    assert found.result() == live.result()
    assert found.variables == live.variables
    if not case.error:
        assert found.statuses() == live.statuses()
        assert not found.ready

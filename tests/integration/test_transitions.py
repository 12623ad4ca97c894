"""The status of a node changes as the table says, in every log; and every row of the table occurs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.transitions import NODE_TRANSITIONS, Transition
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.recovery import recovered
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from tests.support import graph_dsl as shapes

Change = tuple[str, str, str]
TABLE = {(str(t.before), str(t.event), str(t.after)) for t in NODE_TRANSITIONS}
LINE = re.compile(r"[* ](?P<seq>\d+)(?:-\d+)? (?P<at>\S+) (?P<type>\w+) (?P<node>\S+) (?P<payload>\{.*\})")


def golden_logs() -> Iterator[list[Event]]:
    """Of every golden run, also of those that are resumed or forked."""
    for name in ("runs", "shapes"):
        whole: list[Event] = []
        log: list[Event] = []
        for line in (Path(__file__).parents[1] / f"golden/{name}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("== "):
                whole = log = []
            elif line.startswith("-- resumed after event "):
                log = whole[: next(i for i, e in enumerate([*whole, None]) if e is None or e.seq > int(line.split()[-1]))]
            elif line.startswith("-- "):
                log = []
            elif found := LINE.fullmatch(line):
                payload = json.loads(found["payload"])
                if isinstance(payload.get("text"), list):
                    payload["text"] = "".join(payload["text"])
                node = None if found["node"] == "-" else found["node"]
                log.append(Event(int(found["seq"]), EventType(found["type"]), "r", float(found["at"]), node, payload))
            elif line.startswith("= "):
                yield log


def changes(events: Iterable[Event]) -> Iterator[Change]:
    """What happens to the status of each node; an event about a node is a change also to the same status."""
    state = RunState()
    for event in events:
        before = {node_id: node.status for node_id, node in state.nodes.items()}
        state.apply(event)
        about = (
            event.node_id if event.type in (EventType.NODE_STARTED, EventType.NODE_COMPLETED, EventType.NODE_ERROR) else None
        )
        for node_id, node in state.nodes.items():
            earlier = before.get(node_id, Status.PENDING)
            if earlier != node.status or node_id == about:
                yield str(earlier), str(event.type), str(node.status)


@pytest.fixture(scope="module")
def golden() -> set[Change]:
    logs = list(golden_logs())
    assert len(logs) > 180
    return {change for log in logs for change in changes(log)}


async def begun_twice() -> Sequence[Event]:
    """The log of a run of two nodes that is resumed at its end."""
    plan = shapes.drawn("s > a; s > b")
    async with Runtime(store=InMemoryRunStore()) as runtime:
        prepared = Prepared.own(plan, runtime.services)
        execution = runtime.execution(prepared)
        await execution.run()
        store = runtime.services.store
        events = await store.events(execution.run_id)
        await store.claim(execution.run_id, owned=True)
        found = recovered(plan, events, variables={}, max_visits=10)
        await runtime.execution(prepared, recovered=found).run()
        return await store.events(execution.run_id)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("stop", {("running", "execution_error", "aborted"), ("aborted", "execution_started", "interrupted")}),
        (
            "fail",
            {
                ("running", "node_error", "failed"),
                ("failed", "node_started", "running"),
                ("running", "execution_error", "aborted"),
            },
        ),
    ],
)
def test_runs_that_are_stopped_or_fail(how: str, expected: set[Change], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their nodes change as the table says, also when they are resumed."""
    tried: set[str] = set()

    async def work(context: NodeContext) -> Output:
        if context.node.label in tried:
            return Output("fine")
        tried.add(context.node.label)
        if len(tried) == 2:
            if how == "fail":
                raise NodeExecutionError("Broken.")
            context.execution.stop()  # type: ignore[attr-defined]
        await asyncio.sleep(60)
        raise AssertionError("it is cancelled")

    real = handlers.get
    monkeypatch.setattr(handlers, "get", lambda kind: work if kind == "test_note" else real(kind))
    found = set(changes(asyncio.run(begun_twice())))
    assert found <= TABLE
    assert expected <= found


def test_nothing_else_happens(golden: set[Change]) -> None:
    assert golden - TABLE == set()


def test_every_row_occurs(golden: set[Change]) -> None:
    """In the golden logs, or as below."""
    elsewhere = {
        ("aborted", "execution_started", "interrupted"),  # of a run that was stopped: above
        ("failed", "node_started", "running"),  # above
        ("running", "execution_error", "interrupted"),  # tests/integration/test_interrupts.py ends processes
    }
    assert TABLE - golden == elsewhere


def test_the_table_has_each_change_once() -> None:
    assert len(TABLE) == len(NODE_TRANSITIONS) == 14
    assert all(isinstance(row, Transition) and row.when for row in NODE_TRANSITIONS)

"""Checkpoints: a run that is resumed from one goes on exactly as it would from its whole log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Snapshot
from dipeo_nb.execution import checkpoint, schedule_state, snapshots
from dipeo_nb.execution.recovery import Recovered, recovered
from dipeo_nb.execution.state.memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime, resuming
from dipeo_nb.security.gate import Gate
from dipeo_nb.security.signatures import Signatures
from dipeo_nb.testing import scripted
from tests.golden import virtual_time
from tests.support import graph_dsl
from tests.support.graph_shapes import SHAPES, Shape

SIGNATURES = Signatures(lambda: b"a key")
EVERY_SHAPE = [case for case in SHAPES if "/" not in case.arrows]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every commit."""
    monkeypatch.setattr(snapshots, "EVERY", 0)
    monkeypatch.setattr(snapshots, "CHARACTERS_PER_EVENT", 10**9)


class Keeping(InMemoryRunStore):
    """Keeps every snapshot, as JSON, and gives back the one that the test chooses; what is after `end` is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, int], str] = {}
        self.commits: list[int] = []
        self.chosen = 0
        self.end: int | None = None

    async def append(self, events: Sequence[Event]) -> None:
        self.commits.append(events[-1].seq)
        await super().append(events)

    def attach_snapshot(self, snapshot: Snapshot) -> None:
        self.kept[snapshot.kind, snapshot.seq] = json.dumps([snapshot.version, snapshot.content])

    async def snapshot(self, run_id: str, kind: str) -> Snapshot | None:
        text = self.kept.get((kind, self.chosen))
        return None if text is None else Snapshot(run_id, kind, json.loads(text)[0], self.chosen, json.loads(text)[1])

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return [e for e in await super().events(run_id, after=after, limit=limit) if self.end is None or e.seq <= self.end]


def facts(found: Recovered) -> dict[str, Any]:
    """All that a resumed run goes on with."""
    progress = found.progress
    commands = [schedule_state.command_state(command) for command, _ in progress.ready]
    needed = {(progress.plan.edges[e].source, run) for _, _, _, inputs in commands for e, run, _ in inputs}
    return {
        "scheduler": schedule_state.state_of(progress.scheduler) | {"watchers": None},
        "ready": commands,
        "inputs": [inputs.arrived for _, inputs in progress.ready],
        "needed": {key: progress.outputs[key[0]].get(key[1]) for key in needed},
        "variables": progress.variables,
        "messages": progress.log.messages,
        "begun": progress.begun,
        "attempts": {key: n for key, n in progress.attempts.items() if list(key) in [c[:2] for c in commands]},
        "completed": progress.completed,
        "latest": progress.latest,
        "result": progress.result(),
        "at_limit": progress.at_limit,
        "failed": progress.failed,
        "lost": {key for key in progress.lost if key in needed},
        "finish": progress.finish,
        "worked_ms": progress.worked_ms,
        "notices": found.notices,
        "asked": found.asked,
        "state": found.state,
        "end": (found.seq, found.at, found.run_id),
    }


async def recorded_run(plan: Plan) -> tuple[Keeping, str]:
    store = Keeping()
    async with Runtime(get_settings(), llm=scripted("yes"), store=store) as runtime:
        gate = Gate.open(runtime.services)
        gate.signatures = SIGNATURES
        execution = runtime.execution(Prepared(plan, gate))
        await execution.run()
        return store, execution.run_id


async def compared(store: Keeping, plan: Plan, run_id: str) -> int:
    """Compare, for every end of a log at which it was committed, what each of the last checkpoints before gives."""
    events = await store.events(run_id)
    count = 0
    for end in store.commits[:-1]:
        whole = facts(recovered(plan, events[:end], variables={}, max_visits=100))
        for seq in [commit for commit in store.commits if commit <= end][-3:]:
            store.chosen, store.end = seq, end
            used = (checkpoint.KIND, seq) in store.kept
            check, recovering = await resuming.read_log(store, plan, events[0], SIGNATURES, variables={}, max_visits=100)
            found = facts(recovering.result())
            assert check.holds
            assert found == whole, f"events {seq} and {end}: {[name for name in whole if found[name] != whole[name]]}"
            count += used
        store.end = None
    return count


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: case.name)
def test_any_checkpoint_and_the_events_after_it_are_the_whole_log(case: Shape):
    """Loops, branches, limits, joins; from every commit, to every later one."""
    decisions = dict(word.split("=") for word in case.decisions.split())
    plan = graph_dsl.drawn(case.arrows)

    async def go() -> int:
        store, run_id = await recorded_run(plan)
        return await compared(store, plan, run_id)

    with graph_dsl.scripted_handlers(decisions, {}, seconds=0.125):
        assert virtual_time.run(go()) > 0

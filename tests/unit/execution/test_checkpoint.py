"""Checkpoints: a run that is resumed from one goes on exactly as it would from its whole log."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.diagram.document import Diagram, load_text
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Snapshot
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution import asked, checkpoint, schedule_state, snapshots, steps
from dipeo_nb.execution.recovery import Recovered, recovered
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Prepared, Runtime, resuming
from dipeo_nb.security.gate import Gate
from dipeo_nb.security.signatures import Signatures
from dipeo_nb.testing import scripted
from tests.golden import cases, runs, virtual_time
from tests.support import graph_dsl
from tests.support.graph_shapes import SHAPES, Shape
from tests.support.graphs import START, WORK, plan_of
from tests.support.waiting import wait_until

HERE = cases.HERE
KINDS = (
    "debate.light.yaml", "batch.light.yaml", "failures.light.yaml", "files.light.yaml", "parts.readable.yaml", "persons.light.yaml",
    "requests.light.yaml", "sub_diagrams.light.yaml", "waits.light.yaml", "guide 5", "06_memory 2",
)  # fmt: skip
"""Diagrams of the repository."""
TALK = """version: light
persons:
  Ada: {service: openai, model: gpt-4o}
nodes:
- {label: Start, type: start}
- {label: Ada, type: person_job, props: {person: Ada, default_prompt: "Go on.", max_iteration: 100000}}
- {label: Enough, type: condition, props: {condition_type: custom, expression: "'yes' in default"}}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ada}
- {from: Ada, to: Enough}
- {from: Enough_condfalse, to: Ada}
- {from: Enough_condtrue, to: End}
"""
SIGNATURES = Signatures(lambda: b"a key")


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
        self.read = 0
        self.forged: Event | None = None

    async def append(self, events: Sequence[Event]) -> None:
        self.commits.append(events[-1].seq)
        await super().append(events)

    def attach_snapshot(self, snapshot: Snapshot) -> None:
        self.kept[snapshot.kind, snapshot.seq] = json.dumps([snapshot.version, snapshot.content])

    async def snapshot(self, run_id: str, kind: str) -> Snapshot | None:
        text = self.kept.get((kind, self.chosen))
        return None if text is None else Snapshot(run_id, kind, json.loads(text)[0], self.chosen, json.loads(text)[1])

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        found = [e for e in await super().events(run_id, after=after, limit=limit) if self.end is None or e.seq <= self.end]
        self.read += len(found)
        return [self.forged if self.forged is not None and e.seq == self.forged.seq else e for e in found]


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
def test_any_checkpoint_and_the_events_after_it_are_the_whole_log(case: Shape, monkeypatch: pytest.MonkeyPatch):
    """Loops, branches, limits, joins; from every commit, to every later one."""
    monkeypatch.setattr(steps, "MOST_DEFERRED", 0)  # commits wherever there can be any
    decisions = dict(word.split("=") for word in case.decisions.split())
    plan = graph_dsl.drawn(case.arrows)

    async def go() -> int:
        store, run_id = await recorded_run(plan)
        return await compared(store, plan, run_id)

    with graph_dsl.scripted_handlers(decisions, {}, seconds=0.125):
        assert virtual_time.run(go()) > 0


async def diagram_compared(document: Diagram) -> int:
    store = Keeping()
    async with Runtime(
        get_settings(),
        clock=runs.VirtualClock(asyncio.get_running_loop()),
        store=store,
        bus=InMemoryEventBus(),
        http=runs.Web(),
    ) as runtime:
        prepared = runtime.prepare(document, model=runs.MODEL)
        assert isinstance(prepared.gate, Gate)
        prepared.gate.signatures = SIGNATURES
        execution = runtime.execution(prepared, model=runs.MODEL, max_iterations=100, interaction=runs.Reader())
        await execution.run()
        return await compared(store, prepared.plan, execution.run_id)


@pytest.mark.parametrize("name", KINDS)
def test_diagrams_of_all_kinds(name: str):
    """Conversations, memory, questions, batches, sub-diagrams, errors that a run continues with, files, servers."""
    text = cases.repository()[name]
    with cases.own_folder() as base:
        shutil.copytree(HERE / "diagrams", base, dirs_exist_ok=True)
        assert virtual_time.run(diagram_compared(load_text(text, base_dir=base))) > 0


def test_code_that_shares_variables_has_no_checkpoint():
    """Whose values are made from all of the log."""
    with cases.own_folder() as base:
        assert virtual_time.run(diagram_compared(load_text(cases.repository()["code.light.yaml"], base_dir=base))) == 0


def changed(store: Keeping, seq: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the checkpoint at an event, as whoever can write the store may."""
    version, content = json.loads(store.kept[checkpoint.KIND, seq])
    change(content)
    store.kept[checkpoint.KIND, seq] = json.dumps([version, content])


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another run of a node": lambda content: content["waiting"][0].__setitem__(1, 7),
    "another signature": lambda content: content.update(mac="0" * 64),
    "no signature": lambda content: content.pop("mac"),
    "a signature that is none": lambda content: content.update(mac=3),
    "no time": lambda content: content.pop("at"),
    "another time": lambda content: content.update(at=1.0),
    "no scheduler": lambda content: content.pop("scheduler"),
    "another event for an output": lambda content: content.update(outputs=[[n, run, 1] for n, run, _ in content["outputs"]]),
    "nothing": lambda content: content.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_somebody_changed_is_not_used(change: str):
    """The log is read instead, and tells what it told."""
    assert virtual_time.run(misused(lambda store, seq: changed(store, seq, CHANGES[change])))


def test_a_checkpoint_of_another_event_or_version_is_not_used():
    """Nor one that was moved."""

    def moved(store: Keeping, seq: int) -> None:
        store.kept[checkpoint.KIND, seq] = store.kept[checkpoint.KIND, store.commits[store.commits.index(seq) - 1]]

    def of_another_version(store: Keeping, seq: int) -> None:
        store.kept[checkpoint.KIND, seq] = json.dumps([checkpoint.VERSION + 1, json.loads(store.kept[checkpoint.KIND, seq])[1]])

    def without_state(store: Keeping, seq: int) -> None:
        del store.kept[snapshots.KIND, seq]

    for misuse in (moved, of_another_version, without_state):
        assert virtual_time.run(misused(misuse)), misuse.__name__


async def misused(misuse: Callable[[Keeping, int], None]) -> bool:
    """Whether a run is read as its log tells it although its checkpoint was meddled with, and all of the log for that."""
    plan = graph_dsl.drawn("s > a; a > b; b > c; c > d")
    with graph_dsl.scripted_handlers({}, {}, seconds=0.125):
        store, run_id = await recorded_run(plan)
    seq, end = store.commits[-3], store.commits[-2]
    events = await store.events(run_id)
    misuse(store, seq)
    store.chosen, store.end, store.read = seq, end, 0
    _, recovering = await resuming.read_log(store, plan, events[0], SIGNATURES, variables={}, max_visits=100)
    found = facts(recovering.result())
    return found == facts(recovered(plan, events[:end], variables={}, max_visits=100)) and store.read >= end


@pytest.mark.parametrize("where", ["an output that is named", "an event after it"])
def test_a_log_that_somebody_changed_is_not_this_users(where: str):
    """All of it is looked at, and it is known as changed."""
    plan = graph_dsl.drawn("s > a; a > b; b > c; c > d")

    async def go() -> None:
        with graph_dsl.scripted_handlers({}, {}, seconds=0.125):
            store, run_id = await recorded_run(plan)
        seq = store.chosen = store.commits[-3]
        named = checkpoint.events_named(json.loads(store.kept[checkpoint.KIND, seq])[1])
        log = await store.events(run_id)
        place = named[-1] - 1 if where == "an output that is named" else len(log) - 2
        assert log[place].type is T.NODE_COMPLETED
        store.forged = log[place]._replace(payload={**log[place].payload, "output": "forged"})
        store.read = 0
        check, _ = await resuming.read_log(store, plan, log[0], SIGNATURES, variables={}, max_visits=100)
        assert not check.holds
        assert store.read >= len(log)

    virtual_time.run(go())


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a real file, through sessions, twice; few events are read, and the run ends as it would have."""
    monkeypatch.setattr(snapshots, "EVERY", 50)
    read: list[int] = []
    inner = SqliteRunStore.events

    async def events(self: SqliteRunStore, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        found = await inner(self, run_id, after=after, limit=limit)
        read.append(len(found))
        return found

    with Session(tmp_path, llm=scripted("no")) as dp:
        run = dp.start(TALK, max_iterations=1000, view=False)
        wait_until(lambda: run.state.events > 300)
        run.stop()
        run.wait(20)
    whole = {event.seq: event for event in run.events}
    for again in range(2):
        file = tmp_path / ".dipeo/runs.db"
        with closing(sqlite3.connect(file)) as connection, connection:  # as if the process had been killed some events before
            ((last,),) = connection.execute("SELECT events FROM runs").fetchall()
            # A row may hold several events, which are stored together or not at all.
            ((cut,),) = connection.execute("SELECT max(seq) - 1 FROM events WHERE seq <= ?", (last - 2,)).fetchall()
            ((point,),) = connection.execute("SELECT seq FROM snapshots WHERE kind = 'progress'").fetchall()
            assert last - point < 120
            connection.execute("DELETE FROM events WHERE seq > ?", (cut,))
            connection.execute("DELETE FROM event_blobs WHERE seq > ?", (cut,))
            connection.execute("DELETE FROM snapshots WHERE seq > ?", (cut,))
            connection.execute(
                "UPDATE runs SET status = 'running', ended_at = NULL, pid = 1, process_start = 'gone', events = ?", (cut,)
            )
        with Session(tmp_path, llm=scripted("no")) as dp, monkeypatch.context() as patch:
            patch.setattr(SqliteRunStore, "events", events)
            read.clear()
            resumed = dp.resume(run.id, view=False)
            assert sum(read) < last
            wait_until(lambda run=resumed, end=last + 100: run.state.events > end)
            resumed.stop()
            resumed.wait(20)
        found = list(resumed.events)
        assert [e.seq for e in found] == list(range(1, len(found) + 1))
        assert all(whole[e.seq] == e for e in found if e.seq <= cut)
        whole = {event.seq: event for event in found}
        assert resumed.state == RunState.fold(found)
        assert resumed.state.resumed == again + 1
        runs_of = [e.payload["run"] for e in found if e.type is T.NODE_COMPLETED and e.payload["label"] == "Ada"]
        assert runs_of == list(range(1, len(runs_of) + 1)), "no run of a node is lost, and none is made twice"
        ids = [message["id"] for message in resumed.state.conversation]
        assert len(set(ids)) == len(ids)


def test_open_questions_are_found_by_their_place(monkeypatch: pytest.MonkeyPatch):
    """A batch whose items all ask: each question and each answer is looked at, not all that wait with it."""
    looked: list[object] = []
    monkeypatch.setattr(
        asked, "place_of", lambda payload: looked.append(payload) or (payload["node_id"], tuple(payload["path"]))
    )
    places = checkpoint.LogPlaces(plan_of({"S": START, "A": WORK}, ["S -> A"]))
    for n in range(200):
        payload = {"prompt": "?", "request_id": f"A:{n}", "path": [f"A[{n}]", "Ask"]}
        places.take(Event(n + 1, T.INTERACTIVE_PROMPT, "r", 1.0, "A", payload))
    again = {"prompt": "?", "request_id": "A:again", "path": ["A[7]", "Ask"]}  # it was not answered in time
    places.take(Event(201, T.INTERACTIVE_PROMPT, "r", 1.0, "A", again))
    assert list(places.prompts) == list(places.asked.found) == [f"A:{n}" for n in range(200) if n != 7] + ["A:again"]
    for n in range(199):
        answer = {"request_id": f"A:{n}", "answer": "x", "source": "user"}
        places.take(Event(202 + n, T.INTERACTIVE_RESPONSE, "r", 1.0, "A", answer))
    assert places.prompts == {"A:199": 200, "A:again": 201}
    assert len(looked) <= 400
    places.take(Event(500, T.NODE_ERROR, "r", 1.0, "A", {"run": 1, "error": {}}))
    assert not places.prompts

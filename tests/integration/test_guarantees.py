"""The promises about runs, each with the test that earns it; those that no other file has are here."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb as dp
from dipeo_nb.common.loop import LoopThread, run_sync
from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import EndpointNode, StartNode
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.run_display import RunDisplay
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import SlowClient, scripted
from tests.support.examples import examples
from tests.support.graph_dsl import Note
from tests.support.graphs import plan_of

TESTS = Path(__file__).parents[1]
GUARANTEES = {
    "1. Every event shown was first written": [
        "integration/test_guarantees.py::test_nothing_is_shown_that_was_not_written",
        "unit/execution/test_engine.py::test_events_are_gap_free_and_written_first",
    ],
    "2. Order is total per run": ["integration/test_guarantees.py::test_numbers_have_no_gap_whatever_happens_when"],
    "3. kill -9 at any write loses at most the node in flight": ["integration/test_resume.py::test_killed_at_every_commit"],
    "4. No node that is recorded as finished runs again": ["integration/test_resume.py::test_killed_three_times"],
    "5. A node in flight is declared, not guessed": [
        "integration/test_crash.py::test_kill_9_in_the_middle_of_a_run",
        "integration/test_resume.py::test_a_stopped_run_goes_on",
    ],
    "6. Result and event commit together": [
        "unit/execution/state/test_sqlite.py::test_nothing_acknowledged_is_lost_by_kill_9",
        "unit/execution/state/test_postgres.py::test_kill_9_loses_nothing_acknowledged",
    ],
    "7. Old runs open forever": ["integration/test_golden_runs.py::test_every_released_schema_opens"],
    "8. A second kernel on the same store is safe": ["integration/test_scale.py::test_two_processes_with_a_thousand_runs_each"],
    "9. Disk full and read-only: one clear error, and a run that still finishes": [
        "integration/test_resume.py::test_a_full_disk_leaves_the_run_in_memory",
        "integration/test_disk.py::test_a_full_disk",
        "integration/test_disk.py::test_a_disk_that_may_only_be_read",
    ],
    "10. Recorded runs replay byte for byte": ["integration/test_replay.py::test_a_replay_is_the_run_again"],
    "11. Cancel leaves no orphan": ["integration/test_guarantees.py::test_a_stop_leaves_no_orphan"],
    "12. No egress": ["integration/test_guarantees.py::test_processes_of_tests_and_notebooks_stay_on_this_machine"],
}


@pytest.mark.parametrize("promise", GUARANTEES)
def test_each_promise_has_its_test(promise: str):
    """A renamed test does not leave a promise behind."""
    for name in GUARANTEES[promise]:
        file, _, function = name.partition("::")
        tree = ast.parse((TESTS / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


# 1.

TALK = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: Hi.}
- {label: Work, type: code_job, language: python, code: result = 1}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: Work}
- {from: Work, to: End}
"""


class Failing(InMemoryRunStore):
    """Refuses the append number *last*, and all after it."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last
        self.stored = 0

    async def append(self, events: Sequence[Event]) -> None:
        self.left -= 1
        if self.left < 0:
            raise StorageError("The store is broken.", hint="Mend it.", operation="append", cause="failed")
        await asyncio.sleep(0.002)  # whoever shows too early has time for it
        await super().append(events)
        self.stored = events[-1].seq


@pytest.mark.parametrize("last", range(1, 9))
def test_nothing_is_shown_that_was_not_written(last: int):
    """The store fails at its n-th write: neither the bus, nor the run's state, nor the widget has anything newer than the log."""
    store = Failing(last)
    told: list[tuple[int, int]] = []
    session = dp.Session(llm=scripted("one two three"), store=store)
    with session.runtime:
        bus = session.runtime.services.bus
        bus.subscribe(lambda event: told.append((event.seq, store.stored)))
        run = session.start(TALK, trust=True, view=False)
        display = RunDisplay(session.runtime, run.recorded_state, dp.load(TALK).model, read=run._pages, finished=lambda: False)
        feed = display._new_feed(live=True)
        subscription = bus.subscribe(feed.see, run_id=run.id)
        run.wait(30)
        shown = (feed.part(1_000_000) or {}).get("last", 0)
        bus.unsubscribe(subscription)
        if store.left < 0:
            assert run.status != "completed"
            with pytest.raises(dp.DipeoError, match="store is broken"):
                run.result()
        else:
            assert run.status == "completed"
        kept = run_sync(store.events(run.id))
    assert all(seq <= stored for seq, stored in told)
    assert [seq for seq, _ in told] == [event.seq for event in kept]
    assert run.state.events == len(kept)
    assert shown <= len(kept)


# 2.


@examples(40)
@given(st.data())
def test_numbers_have_no_gap_whatever_happens_when(data: st.DataObject):
    """Nodes side by side, which say something and log at random moments: the store has 1, 2, 3 …, the bus tells them in that order, and
    each node begins before it speaks and speaks before it ends."""
    width = data.draw(st.integers(1, 6))
    pauses = data.draw(st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=width, max_size=width))
    names = [f"n{i}" for i in range(width)]
    plan = plan_of(
        {"s": StartNode(), **{name: Note() for name in names}, "e": EndpointNode()},
        [f"s -> {name}" for name in names] + [f"{name} -> e : {name}" for name in names],
    )

    async def go() -> tuple[list[Event], list[int]]:
        store, heard = InMemoryRunStore(), list[int]()
        async with Runtime(get_settings(), llm=scripted(), store=store) as runtime:
            runtime.services.bus.subscribe(lambda event: heard.append(event.seq))
            execution = runtime.execution(Prepared.own(plan, runtime.services))

            async def speak(index: int) -> None:
                node = plan.nodes[index + 1]
                for pause in pauses[index]:
                    for _ in range(pause):
                        await asyncio.sleep(0)
                    execution.emit_log(node, "INFO", "x")
                    execution.emit_delta(node, {"kind": "progress", "data": {"n": pause}})

            talking = asyncio.gather(*(speak(n) for n in range(width)))
            await execution.run()
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            return await store.events(execution.run_id), heard

    events, heard = run_sync(go())
    assert [event.seq for event in events] == list(range(1, len(events) + 1)) == heard
    assert events[0].type is T.EXECUTION_STARTED
    assert events[-1].type is T.EXECUTION_COMPLETED
    for node in {event.node_id for event in events if event.node_id}:
        kinds = [event.type for event in events if event.node_id == node]
        assert kinds.index(T.NODE_STARTED) < kinds.index(T.NODE_COMPLETED)


# 11.

BUSY = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: Hi.}
- {label: Work, type: code_job, language: python, timeout: 100, code: "import subprocess; subprocess.run(['sleep', '60'])"}
- {label: Shell, type: code_job, language: bash, timeout: 100, code: sleep 60}
- {label: Wait, type: hook, hook_type: http, config: {subscribe_to: {event_name: never, timeout: 100}}}
- {label: Inside, type: sub_diagram, diagram_name: inner}
- {label: Ask, type: user_response, prompt: "?", timeout: 100}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Start, to: Work}
- {from: Start, to: Shell}
- {from: Start, to: Wait}
- {from: Start, to: Inside}
- {from: Start, to: Ask}
- {from: Say, to: End}
"""
INNER = """
version: light
nodes:
- {label: Start, type: start}
- {label: Work, type: code_job, language: python, timeout: 100, code: "import time; time.sleep(60)"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Work}
- {from: Work, to: End}
"""


def test_a_stop_leaves_no_orphan(tmp_path: Path):
    """A run that calls a model, runs code with children of its own, a shell, a sub-diagram, waits for an event and for an answer is
    stopped: no task, no process, no socket and no open file of it is left."""
    (tmp_path / "inner.light.yaml").write_text(INNER)
    me = psutil.Process()
    llm = SlowClient("word " * 1000, delay=0.05)

    def things() -> set[str]:
        async def tasks() -> set[str]:
            return {f"task {task.get_name()}" for task in asyncio.all_tasks() if task is not asyncio.current_task()}

        files = {f"file {f.path}" for f in me.open_files() if str(tmp_path) in f.path and ".dipeo" not in f.path}
        sockets = {f"socket {one.laddr} {one.raddr}" for one in me.net_connections()}
        alive = (p for p in me.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE)
        return {f"process {p.pid}" for p in alive} | sockets | files | run_sync(tasks())

    def processes() -> int:
        return sum(thing.startswith("process") for thing in things() - before)

    with dp.Session(tmp_path, llm=llm) as session:
        run_sync(session.runtime.initialize())
        before = things()
        run = session.start(BUSY, trust=True, view=False)
        deadline = time.monotonic() + 30
        at_work = {"Say", "Work", "Shell", "Wait", "Inside", "Ask"}
        while {run.state.label(i) for i, n in run.state.nodes.items() if n.status == "running"} != at_work or processes() < 4:
            assert time.monotonic() < deadline, run.nodes
            time.sleep(0.02)
        run.stop()
        assert run.wait(30)
        assert run.status == "aborted"
        deadline = time.monotonic() + 30
        while left := things() - before:  # a killed process takes a moment to be gone
            assert time.monotonic() < deadline, left
            time.sleep(0.02)
        assert llm.cancelled == 1
        assert LoopThread.get().thread.is_alive()


# 12.


def test_processes_of_tests_and_notebooks_stay_on_this_machine():
    """Neither a connection nor the look-up of a name leaves it, from any process that a test or a notebook starts."""
    code = """
import socket
for attempt in (lambda: socket.create_connection(("192.0.2.1", 9), 1), lambda: socket.getaddrinfo("example.com", 80)):
    try:
        attempt()
    except RuntimeError as error:
        print(type(error).__name__)
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
    print("loopback")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["NetworkError", "NetworkError", "loopback"]
    conftest = (TESTS.parent / "notebooks" / "conftest.py").read_text()
    assert "PYTHONPATH" in conftest

"""Runs that are cut off and go on (execution/recovery.py): what had finished is not done again, what was at work is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import ProviderError, RunError, StorageError, UserError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import FailingClient, SlowClient, scripted
from tests.support import durable_run

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: this system cannot fork")


def killed(base: Path, *words: str) -> list[tuple[str, str, str, int]]:
    """(number, run id, killed or status, commits) of processes that were to die; see `durable_run`."""
    command = [sys.executable, "-m", "tests.support.durable_run", str(base), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=Path(__file__).parents[2])
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(number, run_id, how, int(commits)) for number, run_id, how, commits in rows]


def finished(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """What a log tells of finished runs of nodes, in order; without times, ids of runs and attempts."""
    return [
        (
            e.payload["label"],
            e.payload["run"],
            e.payload.get("status"),
            json.dumps(without_ids(e.payload.get("output"))),
        )
        for e in events
        if e.type is EventType.NODE_COMPLETED
    ]


def without_ids(value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in ("bytes",)} if isinstance(value, dict) else value


def told(state: RunState) -> dict[str, Any]:
    """A run's final state; without times."""
    return {
        "status": state.status,
        "outputs": state.outputs,
        "nodes": {state.label(i): (str(n.status), n.runs, without_ids(n.output)) for i, n in state.nodes.items()},
        "conversation": [(m["id"], m["from_person_id"], m["content"]) for m in state.conversation],
        "order": [state.label(i) for i in state.order],
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Any, ...]], dict[str, Any], list[Any]]:
    """(log, final state, file of side effects) of a run that nothing disturbs."""
    base = tmp_path_factory.mktemp("whole")
    durable_run.prepare(base)
    with durable_run.session(base) as dp:
        run = dp.run("main.light.yaml", view=False)
        return finished(run.events), told(run.run.state), json.loads((base / "effects.json").read_text())


@needs_fork
@pytest.mark.slow
def test_killed_at_every_commit(tmp_path: Path, uninterrupted: Any):
    """A process that dies right after any commit of a run with a loop, a batch of sub-diagrams, a shared one and persons:
    resumed in another process, log and state in the end are those of the run that nothing disturbed, and no node that was
    recorded as finished ran again."""
    log, state, effects = uninterrupted
    ((_, _, how, commits),) = killed(make(tmp_path / "count"), "100000")
    assert how == "completed"
    for number in range(1, commits + 1):
        base = make(tmp_path / str(number))
        ((_, run_id, how, _),) = killed(base, str(number))
        if how != "killed":
            continue  # commits of streamed text depend on the clock: this one came to its end before
        store = SqliteRunStore(base / ".dipeo" / "runs.db")
        with durable_run.session(base, store) as dp:
            if dp.open_run(run_id).status == Status.COMPLETED:
                continue  # the last commit was the end
            assert dp.open_run(run_id).status == Status.INTERRUPTED, number
            run = dp.resume(run_id, view=False)
            run.result(timeout=600)
            assert finished(run.events) == log, number
            assert told(RunState.fold(run.events)) == told(run.state) == state, number
            assert [e.seq for e in run.events] == list(range(1, len(run.events) + 1))
            once(run.events, [log for child in children(dp, run.state) for log in (child.events,)])
        # Only what was at work when the process died can have been done twice.
        written = Counter(map(str, json.loads((base / "effects.json").read_text())))
        assert set(written) == set(map(str, effects))
        assert sum(written.values()) <= len(effects) + 1, number


def make(base: Path) -> Path:
    base.mkdir()
    durable_run.prepare(base)
    return base


def children(dp: Session, state: RunState) -> list[Any]:
    return [dp.open_run(child) for node in state.nodes.values() for child in node.children]


def once(*logs: Any) -> None:
    """Every run of every node finished exactly once, in the run and in its children."""
    for log in (logs[0], *logs[1]):
        runs = Counter(
            (e.node_id, e.payload["run"])
            for e in log
            if e.type is EventType.NODE_COMPLETED and e.payload["status"] == Status.COMPLETED
        )
        assert set(runs.values()) <= {1}


@needs_fork
def test_killed_three_times(tmp_path: Path, uninterrupted: Any):
    """Cut off, resumed and cut off again, three times: finished nodes still ran once, and the end is the same."""
    log, state, _ = uninterrupted
    base = make(tmp_path / "three")
    ((_, run_id, how, _),) = killed(base, "6")
    assert how == "killed"
    for number in ("7", "9"):
        ((_, again, how, _),) = killed(base, f"{number}:{run_id}")
        assert (again, how) == (run_id, "killed")
    with durable_run.session(base) as dp:
        run = dp.resume(run_id, view=False)
        run.result(timeout=600)
        assert run.state.resumed == 3
        assert finished(run.events) == log
        assert told(run.state) == state
        once(run.events, [c.events for c in children(dp, run.state)])
        starts = [e for e in run.events if e.type is EventType.EXECUTION_STARTED]
        assert "resumed" not in starts[0].payload
        assert all(e.payload["resumed"] == e.seq - 1 for e in starts[1:])


CHAIN = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: First, type: person_job, person: Ada, default_prompt: "one {{word}}"}
- {label: Second, type: person_job, person: Ada, default_prompt: "two {{default}}", memorize_to: the important things}
- {label: End, type: endpoint}
connections:
- {from: Start, to: First}
- {from: First, to: Second}
- {from: Second, to: End}
"""


def test_a_failed_run_goes_on_at_the_node_that_failed(tmp_path: Path):
    """After the cause is mended, finished nodes stay as they are: one call more, not all of them."""
    llm = FailingClient(times=1)
    llm._script = {"First": ["said"], "Second": [RunError("no"), "done"], "*": [{"message_ids": []}]}
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(CHAIN, word="w", view=False)
        with pytest.raises(RunError):
            run.result()
        before = len(llm.requests)
        again = run.resume(view=False)
        assert again.result().outputs == {"End": "done"}
        assert again.id == run.id
        assert [r.context["node"] for r in llm.requests[before:]] == ["Second", "Second"]
        assert again.state.nodes["node_1"].runs == 1
        assert [m["content"] for m in again.conversation] == ["one w", "said", "two said", "done"]


def test_a_stopped_run_goes_on(tmp_path: Path):
    """Stop is no end: what was at work runs anew, and what it had paid for before stays spent."""
    llm = SlowClient(
        {
            "First": "a b",
            "Second": [{"message_ids": []}, "one two three four five six seven", {"message_ids": []}, "done"],
        },
        delay=0.05,
    )
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(CHAIN, word="w", view=False)
        while not any(e.node_id == "node_2" and e.payload.get("kind") == "text" for e in run.events):
            run.wait(0.02)
        run.stop()
        run.wait(10)
        assert run.status == Status.ABORTED
        paid = RunState.fold(run.events)
        again = dp.resume(run.id, view=False)
        result = again.result(timeout=30)
        assert result.outputs == {"End": "done"}
        attempts = [e.payload.get("attempt") for e in again.events if e.type is EventType.NODE_STARTED]
        assert attempts == [None, None, None, 2, None]
        kinds = [e.payload["kind"] for e in again.events if e.type is EventType.NODE_OUTPUT and e.node_id == "node_2"]
        assert "usage" in kinds  # the selection before the answer that was cut off
        calls = again.state.persons["Ada"].calls if "Ada" in again.state.persons else 0
        assert calls == 4  # First; the selection that was paid in vain; selection and answer of the second try
        assert paid.nodes["node_2"].status == Status.ABORTED


def test_secrets_are_given_again(tmp_path: Path):
    """Inputs that held a secret are not recorded; the run says which it needs and goes on with them."""
    llm = FailingClient(times=1, answer="fine")
    secret = "sk-canaryOfResume0123456789"
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(CHAIN, word=secret, view=False)
        with pytest.raises(ProviderError, match="fails on purpose"):
            run.result()
        with pytest.raises(UserError, match="secrets, which are not recorded: word"):
            dp.resume(run.id, view=False)
        assert dp.resume(run.id, word=secret, view=False).result().outputs == {"End": "fine"}
        assert llm.requests[-3].messages[-1].content == f"one {secret}"
    assert secret not in (tmp_path / ".dipeo" / "runs.db").read_bytes().decode("latin-1")


def test_what_cannot_be_resumed_says_why(tmp_path: Path):
    """Unknown, complete, and still going on: one clear error each, and nothing is changed."""
    with Session(tmp_path, llm=SlowClient("a b c d e f g h i j", delay=0.05)) as dp:
        with pytest.raises(UserError, match="There is no run"):
            dp.resume("exec_nothing", view=False)
        run = dp.start(CHAIN, word="w", view=False)
        while run.state.events < 2:
            run.wait(0.01)
        with pytest.raises(StorageError, match="is still running"):
            dp.resume(run.id, view=False)
        run.result(timeout=30)
        with pytest.raises(UserError, match="is complete"):
            run.resume(view=False)


def test_another_process_has_it(tmp_path: Path):
    """A run of a living process is not taken from it."""
    script = f"""
import sys
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import SlowClient
dp = Session({str(tmp_path)!r}, llm=SlowClient("a b c d", delay=5))
run = dp.start({CHAIN!r}, word="w", view=False)
while run.state.events < 4: run.wait(0.01)
print(run.id, flush=True)
sys.stdin.readline()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        run_id = process.stdout.readline().strip()
        with Session(tmp_path, llm=scripted("mine")) as dp:
            with pytest.raises(StorageError, match="is still running"):
                dp.resume(run_id, view=False)
            process.kill()
            process.wait()
            assert dp.open_run(run_id).status == Status.INTERRUPTED
            assert dp.resume(run_id, view=False).result(timeout=30).outputs == {"End": "mine"}
    finally:
        process.kill()
        process.communicate()


def test_variables_and_memory_come_back(tmp_path: Path):
    """Globals of start and conditions, variables of code jobs, the conversation: the rest of the run sees them as before."""
    diagram = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start, custom_data: {topic: cats}}
- {label: Code, type: code_job, code: "kept = [1, 2]\\nreturn 'x'"}
- {label: If, type: condition, expression: "True", expose_index_as: round}
- {label: Say, type: person_job, person: Ada, default_prompt: "about {{topic}} {{round}}"}
- {label: Gate, type: code_job, code: "import pathlib\\nif not pathlib.Path('open').exists():\\n    raise ValueError('shut')\\nreturn f'{kept} {topic} {round}'"}
- {label: Last, type: person_job, person: Ada, default_prompt: "{{default}}"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Code}
- {from: Code, to: If}
- {from: If_condtrue, to: Say}
- {from: Say, to: Gate, content_type: conversation_state, label: talk}
- {from: Gate, to: Last}
- {from: Last, to: End}
"""
    llm = scripted(["first", "last"])
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(diagram, view=False)
        with pytest.raises(RunError, match="shut"):
            run.result()
        (tmp_path / "open").write_text("")
        assert run.resume(view=False).result().outputs == {"End": "last"}
    heard = [m.content for m in llm.requests[-1].messages]
    assert heard == ["about cats 0", "first", "[1, 2] cats 0"]


def test_retries_are_told_and_counted(tmp_path: Path):
    """A node with `retries` is tried again; the log says why, the node's state how often."""
    diagram = CHAIN.replace('default_prompt: "one {{word}}"', 'default_prompt: "one {{word}}", retries: 2, retry_delay: 0.01')
    with Session(tmp_path, llm=FailingClient(times=2, answer="fine")) as dp:
        run = dp.run(diagram, word="w", view=False)
        assert run.run.state.nodes["node_1"].retries == 2
        logs = [e.payload for e in run.events if e.type is EventType.EXECUTION_LOG]
        assert [p["extra_fields"]["retry"] for p in logs if "retry" in p["extra_fields"]] == [1, 2]
        assert "Trying again" in logs[0]["message"]
    with Session(tmp_path, llm=FailingClient()) as dp, pytest.raises(ProviderError, match="fails on purpose"):
        dp.run(diagram, word="w", view=False)


def test_a_full_disk_leaves_the_run_in_memory(tmp_path: Path):
    """Promise 9: one clear line, and the run ends as it would have; its events are all there to look at."""

    class Full(SqliteRunStore):
        async def append(self, events: Sequence[Event]) -> None:
            if events[-1].seq > 3:
                raise StorageError("The disk is full.", hint="Free some.", operation="append", cause="disk_full")
            await super().append(events)

    with Session(tmp_path, llm=scripted("fine"), store=Full(tmp_path / "runs.db")) as dp:
        run = dp.run(CHAIN, word="w", view=False)
        assert run.outputs == {"End": "fine"}
        events = run.events
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert events[-1].type is EventType.EXECUTION_COMPLETED
        lines = [e.payload["message"] for e in events if e.type is EventType.EXECUTION_LOG]
        assert [line for line in lines if "recorded" in line] == ["The run continues but is not recorded: The disk is full."]


@pytest.mark.parametrize("name", ["fork"])
def test_edit_in_the_past(tmp_path: Path, name: str):
    """A fork takes over what stands before the changed node: only that and what follows runs, and only that costs."""
    llm = scripted({"First": "said", "Second": [{"message_ids": []}, "done", {"message_ids": []}, "other"]})
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(CHAIN, word="w", view=False).run
        before = len(llm.requests)
        fork = run.fork(set={"nodes.Second.default_prompt": "now {{default}}"}, view=False)
        assert fork.result().outputs == {"End": "other"}
        assert [r.context["node"] for r in llm.requests[before:]] == ["Second", "Second"]
        assert fork.id != run.id
        assert fork.state.forked_from == {"run_id": run.id, "node": None, "run": 1}
        assert [fork.node(n).reused for n in ("Start", "First", "Second", "End")] == [True, True, False, False]
        assert [m["content"] for m in fork.conversation] == ["one w", "said", "now said", "other"]
        assert fork.node("First").usage.total is None
        assert run.node("First").usage.total
        # The old run is as it was, and the fork can be forked.
        assert [m["content"] for m in dp.open_run(run.id).conversation][2] == "two said"
        again = fork.fork(at="End", view=False)
        assert again.result().outputs == {"End": "other"}
        assert len(llm.requests) == before + 2


def test_forks_in_a_loop(tmp_path: Path):
    """From the second round on: the first one is taken over."""
    diagram = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: "again", max_iteration: 3}
- {label: Enough, type: condition, condition_type: detect_max_iterations}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: Enough}
- {from: Enough_condfalse, to: Say}
- {from: Enough_condtrue, to: End}
"""
    llm = scripted(["one", "two", "three", "TWO", "THREE"])
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(diagram, view=False).run
        fork = dp.fork(run.id, at="Say", of=2, view=False)
        assert fork.result().outputs == {"End": "THREE"}
        assert [m["content"] for m in fork.conversation if m["from_person_id"] != "system"] == ["one", "TWO", "THREE"]
        assert len(llm.requests) == 5


COUNTING = """
version: light
nodes:
- {label: Start, type: start}
- {label: Before, type: code_job, code: "n = 0; return n"}
- {label: Step, type: code_job, code: "n = n + 1; return n"}
- {label: Enough, type: condition, expression: step >= 5}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Before}
- {from: Before, to: Step, label: before, content_type: object}
- {from: Step, to: Enough, label: step, content_type: object}
- {from: Enough_condfalse, to: Step}
- {from: Enough_condtrue, to: End, content_type: object}
"""


def test_a_fork_that_changes_the_loop_it_begins_in(tmp_path: Path):
    """Its rounds before are taken over as they were; from there on the loop is the changed one."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(COUNTING, view=False).run
        assert run.node("Step").runs == 5
        fork = run.fork(at="Step", of=4, set={"nodes.Enough.expression": "step >= 7"}, view=False)
        fork.result(30)
        assert fork.node("Step").runs == 7
        taken = [(e.payload["label"], e.payload["run"]) for e in fork.events if "reused" in e.payload.get("meta", {})]
        rounds = [(label, n) for n in (1, 2, 3) for label in ("Step", "Enough")]
        assert taken == [("Start", 1), ("Before", 1), *rounds]


def test_a_fork_in_a_loop_whose_beginning_is_changed_is_refused(tmp_path: Path):
    """The rounds that it would take over depend on the change; nothing is dropped without a word."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(COUNTING, view=False).run
        with pytest.raises(UserError, match=r"Run 4 of 'Step' depends on 'Before', which is changed"):
            run.fork(at="Step", of=4, set={"nodes.Before.code": "n = 1; return n"}, view=False)
        with pytest.raises(UserError, match=r"Run 4 of 'Step' depends on 'Start'"):
            run.fork(at="Step", of=4, inputs={"x": 1}, view=False)
        fork = run.fork(at="Step", set={"nodes.Before.code": "n = 1; return n"}, view=False)
        fork.result(30)
        assert fork.node("Step").runs == 4


def test_what_cannot_be_forked_says_why(tmp_path: Path):
    """No difference, no such node, no such run of it."""
    with Session(tmp_path, llm=scripted("fine")) as dp:
        run = dp.run(CHAIN, word="w", view=False).run
        with pytest.raises(UserError, match="Nothing would be different"):
            run.fork(view=False)
        with pytest.raises(UserError, match=r"no node 'Frist'.*Did you mean 'First'"):
            run.fork(at="Frist", view=False)
        with pytest.raises(UserError, match="has no run 2"):
            run.fork(at="First", of=2, view=False)
        assert run.fork(inputs={"word": "other"}, view=False).result().run.conversation[0]["content"] == "one other"

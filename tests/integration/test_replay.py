"""Recorded runs: shown again, compared, written to files."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import RunAbortedError, RunError, UserError
from dipeo_nb.execution.run_diff import words
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

TALK = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: "About {{topic}}.", max_iteration: 3}
- {label: More, type: condition, condition_type: detect_max_iterations}
- {label: Work, type: code_job, code: "print('hi'); result = topic.upper()"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: More}
- {from: More_condfalse, to: Say}
- {from: More_condtrue, to: Work}
- {from: Work, to: End}
"""


class Unused:
    """A service that nobody may use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a replay used {name}")


@pytest.fixture
def dp(tmp_path: Path):
    (tmp_path / "talk.light.yaml").write_text(TALK)
    with Session(tmp_path, llm=scripted({"*": ["one two three", "two", "three"]})) as session:
        yield session


def test_a_replay_is_the_run_again(dp: Session):
    """The same events in the same order, byte for byte, with no call and nothing recorded."""
    run = dp.run("talk", topic="cats", view=False).run
    services = dp.runtime.services
    dp.runtime.services = replace(dp.runtime.services, llm=Unused(), code=Unused(), files=Unused(), db=Unused())  # type: ignore[arg-type]
    again = dp.replay(run, speed=float("inf"), view=False)
    result = again.result(20)
    dp.runtime.services = services
    assert json.dumps([e.to_wire() for e in again.events]) == json.dumps([e.to_wire() for e in run.events])
    assert (result.outputs, result.usage, str(again.status)) == (run.outputs, run.usage, "completed")
    assert again.nodes == run.nodes
    assert len(dp.runs()) == 1


def test_readers_of_a_replay_see_every_event(dp: Session):
    """`async for` gets each once, in order, as of a live run."""
    run = dp.run("talk", topic="cats", view=False).run

    async def follow() -> list[int]:
        return [event.seq async for event in dp.replay(run.id, speed=1000, view=False)]

    assert asyncio.run(follow()) == [e.seq for e in run.events]


def test_speed(dp: Session, tmp_path: Path):
    """Speed 1 takes the time that the run took, 10 a tenth of it, within the time of a tick."""
    slow = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Work", "type": "code_job", "props": {"code": "import time; time.sleep(0.4)"}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [{"from": "Start", "to": "Work"}, {"from": "Work", "to": "End"}],
    }
    run = dp.run(slow, view=False).run
    took: dict[float, float] = {}
    for speed in (1.0, 10.0):
        loop = asyncio.new_event_loop()
        began = loop.time()
        dp.replay(run, speed=speed, view=False).result(30)
        took[speed] = loop.time() - began
        loop.close()
    assert took[1.0] >= 0.4
    assert took[10.0] < took[1.0]


def test_failed_and_stopped(dp: Session):
    """A replay of a failed run fails in the same way; a replay that is stopped says so."""
    with pytest.raises(RunError) as caught:
        dp.run("talk", view=False)
    failed = dp.runs()[0]
    assert failed.status == "failed"
    with pytest.raises(type(caught.value), match="topic"):
        dp.replay(failed.run_id, speed=float("inf"), view=False).result(20)
    run = dp.run("talk", topic="cats", view=False).run
    slow = dp.replay(run, speed=1e-6, view=False)
    while not slow.state.events:
        pass
    slow.stop()
    with pytest.raises(RunAbortedError, match="replay was stopped"):
        slow.result(20)


@pytest.mark.parametrize(
    ("run_id", "speed", "says"),
    [("nothing", 1.0, "no run 'nothing'"), ("exec", 0.0, "not a speed"), ("exec", -1.0, "not a speed")],
)
def test_bad_replays(dp: Session, run_id: str, speed: float, says: str):
    """One error with the next action."""
    with pytest.raises(UserError, match=says):
        dp.replay(run_id, speed=speed)


def test_difference(dp: Session):
    """Inputs, fields of the diagram, outputs and nodes that came or went; two equal runs have none."""
    first = dp.run("talk", topic="cats", view=False).run
    second = dp.run("talk", topic="cats", view=False).run
    assert dp.diff(first, second).changed == ()
    changed = dp.load("talk").set("nodes.Work.code", "result = topic.lower()").set("nodes.Say.max_iteration", 2)
    third = dp.run(changed, topic="Dogs & <b>", view=False).run
    found = dp.diff(first.id, third)
    assert found.facts.inputs == (("topic", "cats", "Dogs & <b>"),)
    by_label = {node.label: node for node in found.facts.nodes}
    assert by_label["Say"].fields == (("max_iteration", 3, 2),)
    assert by_label["Say"].runs == (3, 2)
    assert by_label["Work"].change == "edited"
    assert by_label["End"].change == "different"
    assert by_label["End"].output == ("CATS", "dogs & <b>")
    shown = found._repr_html_()
    assert "<del" in shown
    assert "<b>" not in shown
    assert "Work: edited" in repr(found)
    other = (
        dp.load("talk")
        .text.replace("label: Work", "label: Job")
        .replace("to: Work", "to: Job")
        .replace("from: Work", "from: Job")
    )
    fourth = dp.run(other, topic="cats", view=False).run
    assert {n.label: n.change for n in dp.diff(first, fourth).changed} == {"Work": "removed", "Job": "added"}


def test_words():
    """What went and what came, word by word."""
    assert words("a b c", "a x c d") == [(" ", "a "), ("-", "b"), ("+", "x"), (" ", " c"), ("+", " d")]
    assert words("same", "same") == [(" ", "same")]
    assert words("", "new") == [("+", "new")]


def command(base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", "dipeo_nb", *words, "--base-dir", str(base)]
    return subprocess.run(done, capture_output=True, text=True, timeout=120, check=False)


def test_commands(dp: Session, tmp_path: Path):
    """`replay`, `diff`, `export` and `resume` in a terminal."""
    run = dp.run("talk", topic="cats", view=False).run
    other = dp.run("talk", topic="dogs", view=False).run
    dp.close()
    done = command(tmp_path, "replay", run.id, "--speed", "1000", "--json")
    assert (done.returncode, json.loads(done.stdout)["outputs"]) == (0, {"End": "CATS"})
    done = command(tmp_path, "diff", run.id, other.id)
    assert done.returncode == 1
    assert 'input topic: "cats" → "dogs"' in done.stdout
    assert command(tmp_path, "diff", run.id, run.id).returncode == 0
    for name in ("run.jsonl", "run.json"):
        assert command(tmp_path, "export", run.id, "-o", str(tmp_path / name)).returncode == 0
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["metadata"]["seq"] for line in lines] == [e.seq for e in run.events]
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "completed"
    done = command(tmp_path, "export", run.id, "-o", str(tmp_path / "run.doc"))
    assert (done.returncode, "not written as '.doc'" in done.stderr) == (2, True)
    done = command(tmp_path, "resume", run.id)
    assert done.returncode == 2
    assert "complete" in done.stderr


def test_resume_in_a_terminal(dp: Session, tmp_path: Path):
    """A failed run goes on once its cause is gone."""
    text = TALK.replace("result = topic.upper()", "result = open('note.txt').read()")
    with pytest.raises(RunError):
        dp.run(text, topic="cats", view=False)
    failed = dp.runs()[0]
    dp.close()
    (tmp_path / "note.txt").write_text("noted")
    done = command(tmp_path, "resume", failed.run_id, "--quiet")
    assert (done.returncode, done.stdout.strip()) == (0, "noted")

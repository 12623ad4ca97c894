"""Which model answers in a fork: what the call names, else what the forked run had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.cli import main
from dipeo_nb.errors import UserError
from dipeo_nb.notebook.run import RunResult
from dipeo_nb.notebook.session import Session

DIAGRAM = """
version: light
persons:
  Critic: {service: echo, model: "5"}
  Judge: {service: echo, model: "7"}
nodes:
- {label: Start, type: start}
- {label: Review, type: person_job, person: Critic, default_prompt: "Review it."}
- {label: Score, type: person_job, person: Judge, default_prompt: "Score {{review}}"}
- {label: Fail, type: code_job, code: "if fail: raise ValueError(1)\\nreturn score"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Review}
- {from: Review, to: Score, label: review}
- {from: Score, to: Fail, label: score}
- {from: Fail, to: End}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as opened:
        yield opened


def models(run: Any) -> dict[str, str]:
    """Node → the model that answered."""
    return {label: run.node(label).meta["model"] for label in ("Review", "Score")}


def base(session: Session, **options: Any) -> RunResult:
    return session.run(DIAGRAM, inputs={"fail": 0}, **options)


def test_what_set_names_wins_over_an_inherited_model(session: Session):
    """The run moved both persons; the fork gives one of them a model by name, and only that one's node runs again."""
    forked = session.fork(base(session, model="echo:1"), set={"persons.Judge.model": "9"}).result()
    assert models(forked) == {"Review": "1", "Score": "9"}
    assert forked.node("Review").reused


def test_the_model_of_the_diagram_may_be_named_again(session: Session):
    """The value is the one that the diagram has, but not the one that answered."""
    forked = session.fork(base(session, model="echo:1"), set={"persons.Judge.model": "7"}).result()
    assert models(forked) == {"Review": "1", "Score": "7"}


def test_a_fork_of_a_fork_keeps_the_persons_own_model(session: Session):
    """So does one that goes on after it was cut off; an explicit model moves all again."""
    first = session.fork(base(session, model="echo:1"), set={"persons.Judge.model": "9"}).result()
    again = session.fork(first, at="Review").result()
    assert models(again) == {"Review": "1", "Score": "9"}
    moved = session.fork(first, model="echo:2").result()
    assert models(moved) == {"Review": "2", "Score": "2"}
    both = session.fork(first, model="echo:2", set={"persons.Critic.model": "4"}).result()
    assert models(both) == {"Review": "4", "Score": "2"}


@pytest.mark.parametrize("by", ["session", "command line"])
def test_a_resumed_fork_keeps_the_persons_own_model(session: Session, by: str, tmp_path: Path, capsys: Any):
    """The record of the run says whom its model does not move."""
    run = session.fork(base(session, model="echo:1"), set={"persons.Judge.model": "9"}, inputs={"fail": 1})
    with pytest.raises(Exception, match="ValueError"):
        run.result()
    forked = session.fork(run, at="Fail", inputs={"fail": 1})
    with pytest.raises(Exception, match="ValueError"):
        forked.result()
    document = "nodes.Fail.code"
    fixed = session.fork(forked, set={document: "return score", "nodes.Score.default_prompt": "Again {{review}}"})
    assert models(fixed.result()) == {"Review": "1", "Score": "9"}
    if by == "session":
        with pytest.raises(Exception, match="ValueError"):
            session.resume(forked).result()
    else:
        assert main(["resume", forked.id, "--base-dir", str(tmp_path)]) == 1
    assert session.open_run(forked.id).events[-1].payload["status"] == "failed"
    assert {e.payload["options"]["own_models"][0] for e in session.open_run(forked.id).events if "options" in e.payload} == set(
        fixed.events[0].payload["options"]["own_models"]
    )


def test_a_model_that_changes_nothing_is_nothing_new(session: Session):
    """The same model as before is no reason to run again."""
    with pytest.raises(UserError, match="Nothing would be different"):
        session.fork(base(session, model="echo:1"), model="echo:1")
    with pytest.raises(UserError, match="There is no"):
        session.fork(base(session), set={"persons.Juge.model": "9"})


def test_a_model_moves_sub_diagrams_too(session: Session, tmp_path: Path):
    """A node that runs another diagram is done again when the run's model is another."""
    (tmp_path / "inner.light.yaml").write_text(DIAGRAM.replace("if fail: raise ValueError(1)\\n", ""))
    outer = """
version: light
nodes:
- {label: Start, type: start}
- {label: Inner, type: sub_diagram, diagram_name: inner}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Inner}
- {from: Inner, to: End}
"""
    first = session.run(outer, model="echo:1")
    second = session.fork(first, model="echo:2").result()
    child = session.runs(parent=second.id)[0]
    assert models(session.open_run(child)) == {"Review": "2", "Score": "2"}

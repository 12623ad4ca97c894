"""One node of a recorded run runs again by itself, with what it was given then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.errors import RunError, UnknownNodeError, UserError
from dipeo_nb.notebook.session import Session

TALK = """\
version: light
name: Talk
persons:
  Ann: {service: echo, system_prompt: You are Ann.}
nodes:
- {label: S, type: start, custom_data: {topic: cats}}
- {label: First, type: person_job, person: Ann, default_prompt: "About {{topic}} for {{reader}}."}
- {label: Second, type: person_job, person: Ann, memorize_to: GOLDFISH, default_prompt: "Shorten {{draft}} on {{topic}}"}
- {label: Count, type: code_job, language: python, code: "return {'n': len(text), 'open': open('x', 'w').name}"}
- {label: Shown, type: template_job, template_content: "{{n}} of {{topic}}"}
- {label: E, type: endpoint}
connections:
- {from: S, to: First}
- {from: First, to: Second, label: draft}
- {from: Second, to: Count, label: text}
- {from: Count, to: Shown, content_type: object}
- {from: Shown, to: E}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as opened:
        yield opened


def test_a_node_gets_what_it_got_then(session: Session) -> None:
    """Labelled inputs, fields of a mapping that arrives, inputs of the run and variables; the prompt is the same, or the other one."""
    run = session.start(TALK, view=False, reader="Bob")
    run.result()
    for label in ("First", "Second", "Shown"):
        again = session.rerun_node(run.id, label, view=False)
        assert again.result().output == run.node(label).output
        assert again.id != run.id
    other = session.rerun_node(run, "Second", set={"default_prompt": "Longer: {{draft}}"}, view=False)
    assert other.result().output == f"[Ann] Longer: {run.node('First').output}"


def test_it_may_do_no_more_than_call_models(session: Session, tmp_path: Path) -> None:
    """Unless its user says so: a run from elsewhere gains nothing by that."""
    run = session.start(TALK, view=False, reader="Bob")
    run.result()
    (tmp_path / "x").unlink()
    with pytest.raises((RunError, UserError)):
        session.rerun_node(run, "Count", view=False).result()
    assert not (tmp_path / "x").exists()
    assert session.rerun_node(run, "Count", trust=None, view=False).result().output == run.node("Count").output


def test_what_cannot_run_alone_says_why(session: Session) -> None:
    run = session.start(TALK, view=False, reader="Bob")
    run.result()
    with pytest.raises(UserError, match="does nothing by itself"):
        session.rerun_node(run, "S", view=False)
    with pytest.raises(UserError, match="has no run 2"):
        session.rerun_node(run, "First", of=2, view=False)
    with pytest.raises(UnknownNodeError):
        session.rerun_node(run, "Frist", view=False)

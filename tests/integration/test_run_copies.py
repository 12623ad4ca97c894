"""A run copied as Python or as a test does the same again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.errors import UnknownNodeError, UserError
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

TALK = r"""
version: light
name: "Talk: \"of\" two"
persons:
  Ann: {service: openai, model: m, system_prompt: "You are 'Ann'."}
nodes:
- {label: S, type: start, custom_data: {topic: cats, n: 3}}
- {label: First, type: person_job, person: Ann, default_prompt: 'About {{topic}} \ QUOTES and "dogs"'}
- {label: Second, type: person_job, person: Ann, default_prompt: "Shorten {{draft}}"}
- {label: Fits, type: condition, condition_type: llm_decision, person: Ann, judge_by: "Is it short?"}
- {label: Ask, type: user_response, prompt: "Send it?", kind: approval}
- {label: E, type: endpoint}
connections:
- {from: S, to: First}
- {from: First, to: Second, label: draft}
- {from: Second, to: Fits}
- {from: "Fits[condtrue]", to: Ask}
- {from: Ask, to: E}
""".replace("QUOTES", '"' * 3)
SCRIPT = {"First": 'a "long" \\ text\nof two lines', "Second": "short", "Fits": '{"decision": true}'}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=scripted(SCRIPT)) as opened:
        yield opened


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_copied_as_a_test_passes_and_can_fail(session: Session, tmp_path: Path) -> None:
    """With the recorded answers the outputs are the same, and no model is called; with another answer they are not."""
    run = session.start(TALK, view=False, topic="dogs", answers={"Ask": ["no: too early"]})
    run.result()
    text = run.as_test()
    (tmp_path / "test_copied.py").write_text(text, encoding="utf-8")
    assert "1 passed" in python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_copied.py")
    (tmp_path / "test_copied.py").write_text(text.replace("no: too early", "yes"), encoding="utf-8")
    with pytest.raises(AssertionError, match="1 failed"):
        python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_copied.py")


def test_a_run_copied_as_python_gives_the_same(tmp_path: Path) -> None:
    short = TALK.replace('"Fits[condtrue]", to: Ask', "Second, to: Ask").replace(
        "- {from: Ask, to: E}", "- {from: Second, to: E}"
    )
    with Session(tmp_path) as plain:
        run = plain.start(short, view=False, model="echo", topic="dogs", answers={"Ask": "yes"})
        run.result()
    (tmp_path / "copied.py").write_text(run.as_python(), encoding="utf-8")
    assert python(tmp_path, "copied.py").strip() == repr(run.outputs)


def test_a_turn_copied_as_python_asks_the_same(session: Session) -> None:
    run = session.start(TALK, view=False, answers={"Ask": "yes"})
    run.result()
    text = run.as_python("Second")
    asked: list[object] = []

    class Asked:
        @staticmethod
        def chat(messages: object, **options: object) -> str:
            asked.append((messages, options))
            return ""

    exec(text.replace("import dipeo_nb as dp", ""), {"dp": Asked, "print": lambda *_: None})
    ((messages, options),) = asked  # type: ignore[misc]
    assert options == {"model": "openai:m", "system": "You are 'Ann'."}
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert messages[-1]["content"] == f"Shorten {SCRIPT['First']}"


def test_what_cannot_be_copied_says_why(session: Session) -> None:
    run = session.start(TALK, view=False, answers={"Ask": "yes"})
    run.result()
    with pytest.raises(UserError, match="asked no model"):
        run.as_python("S")
    with pytest.raises(UserError, match="in its run 7"):
        run.as_python("First", of=7)
    with pytest.raises(UnknownNodeError):
        run.as_python("Frist")


def test_inputs_are_those_of_a_form(session: Session) -> None:
    run = session.start(TALK, view=False, topic="dogs", answers={"Ask": "yes"})
    run.result()
    assert run.inputs == [
        {"name": "topic", "value": "dogs", "default": "cats", "kind": "text"},
        {"name": "n", "value": 3, "default": 3, "kind": "number"},
    ]

"""Remarks on stretches of runs: stored behind the end, and part of nothing that is measured, replayed or resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.errors import RunError, StorageError, UserError, ValidationError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from tests.support.question_process import ASKING
from tests.support.waiting import wait_until

TALK = """\
version: light
name: Talk
persons:
  Ann: {service: echo}
nodes:
- {label: S, type: start}
- {label: First, type: person_job, person: Ann, default_prompt: "Write about cats."}
- {label: Second, type: person_job, person: Ann, default_prompt: "Shorten {{draft}}"}
- {label: E, type: endpoint}
connections:
- {from: S, to: First}
- {from: First, to: Second, label: draft}
- {from: Second, to: E}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=tmp_path)) as made:
        yield made


@pytest.fixture
def run(session: Session) -> Run:
    made = session.start(TALK, view=False)
    made.result()
    return made


def seqs(run: Run, label: str) -> tuple[int, int]:
    """Where a node starts, and the number behind its end."""
    events = [e.seq for e in run.events if e.node_id and run.state.label(e.node_id) == label]
    return events[0], events[-1] + 1


def test_a_note_stands_behind_the_end_and_changes_nothing(session: Session, run: Run) -> None:
    before, metrics, count = run.state, run.metrics, len(run.events)
    session.note(run, (2, 5), "  Here it begins. ")
    session.note(run.id, slice(4, None), "to the end")
    session.note(run, run[3:4], "one event")
    assert [(n["first"], n["last"], n["text"]) for n in run.notes] == [
        (2, 4, "Here it begins."), (4, count + 1, "to the end"), (3, 3, "one event"),
    ]  # fmt: skip
    opened = session.open_run(run.id)
    assert list(opened.notes) == list(run.notes)
    after = opened.state
    assert (after.status, after.ended_at, after.duration_s, after.nodes) == (
        before.status, before.ended_at, before.duration_s, before.nodes,
    )  # fmt: skip
    assert opened.metrics == metrics
    assert session.runs()[0].status == "completed"
    assert [note["text"] for note in opened.to_dict()["notes"]] == ["Here it begins.", "to the end", "one event"]
    assert [e.type for e in opened.events[count:]] == [EventType.RUN_NOTE] * 3


def test_a_stretch_is_what_happened_in_it(session: Session, run: Run) -> None:
    """Its events, nodes, tokens and cost; the stretches of a run add up to it."""
    first, behind = seqs(run, "First")
    stretch = run[first:behind]
    assert [event.seq for event in stretch.events] == list(range(first, behind))
    assert [row["node"] for row in stretch.nodes if row["runs"]] == ["First"]
    whole, rest = run[:], run[behind:]
    assert whole.usage.total == run.usage.total
    assert (run[1:first].usage.total or 0) + (stretch.usage.total or 0) + (rest.usage.total or 0) == run.usage.total
    stretch.note("the first turn")
    again = session.open_run(run.id)[first:behind]
    assert [note["text"] for note in again.notes] == ["the first turn"]
    assert len(session.open_run(run.id)[1:2].notes) == 0
    assert "the first turn" in again._repr_html_()
    assert "the first turn" in repr(again)
    assert again.to_dict()["events"][0]["metadata"]["seq"] == first


@pytest.mark.parametrize("where", [slice(3, 9), range(3, 9), (3, 9), "3:9", " 3 : 9 "])
def test_a_range_is_written_as_one_likes(run: Run, where: object) -> None:
    stretch = run[where]
    assert (stretch.first, stretch.last) == (3, 8)
    assert run["3:"].last == len(run.events)
    assert (run[":4"].first, run[":4"].last) == (1, 3)


@pytest.mark.parametrize(
    "where", [(5, 2), (2, 2), "5:2", "a:3", "2", (1.5, 2), (True, 3), slice(-3, None), slice(1, 9, 2), 7, None]
)
def test_what_is_no_range_is_refused(run: Run, where: object) -> None:
    with pytest.raises(ValidationError, match="range of events"):
        run.note(where, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(("where", "text"), [((9000, 9001), "x"), ((1, 2), " "), ((1, 2), "x" * 10_001)])
def test_what_cannot_be_noted_is_refused(session: Session, run: Run, where: tuple[int, int], text: str) -> None:
    count = len(run.events)
    with pytest.raises(UserError):
        session.note(run, where, text)
    assert len(session.open_run(run.id).events) == count


def test_a_replay_does_not_wait_for_notes(session: Session, run: Run) -> None:
    session.note(run, (1, 2), "later")
    replayed = session.replay(run.id, speed=float("inf"), view=False)
    replayed.result()
    assert [note["text"] for note in replayed.state.notes] == ["later"]


def test_a_running_run_takes_notes_and_goes_on(session: Session) -> None:
    run = session.start(ASKING, view=False)
    wait_until(lambda: run.question)
    session.note(run, (1, 3), "it asks")
    run.answer("red")
    run.result()
    assert [note["text"] for note in run.notes] == ["it asks"]
    assert RunState.fold(run.events) == run.state


def test_a_failed_run_is_resumed_behind_its_notes(session: Session, tmp_path: Path) -> None:
    diagram = tmp_path / "x.light.yaml"
    diagram.write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: C, type: code_job, language: python, "
        "code: \"open('now').read()\"}\n- {label: E, type: endpoint}\nconnections: [{from: S, to: C}, {from: C, to: E}]\n"
    )
    with pytest.raises(RunError) as caught:
        session.run(str(diagram), view=False, trust=True)
    run_id = str(caught.value.run_id)  # type: ignore[attr-defined]
    session.note(run_id, (1, 3), "no file")
    (tmp_path / "now").write_text("here")
    resumed = session.resume(run_id, view=False)
    resumed.result()
    assert [note["text"] for note in resumed.notes] == ["no file"]
    assert resumed.state.resumed == 1
    replayed = session.replay(run_id, speed=float("inf"), view=False)
    replayed.result()
    assert replayed.state == resumed.state


def test_two_notes_at_the_same_moment_are_both_there(session: Session, run: Run) -> None:
    async def both(run_id: str) -> None:
        await asyncio.gather(*(session.runtime.note(run_id, 1, 2, f"note {n}") for n in range(4)))

    run_sync(both(run.id))
    assert sorted(note["text"] for note in session.open_run(run.id).notes) == [f"note {n}" for n in range(4)]


def test_a_run_that_was_cut_off_says_what_to_do(session: Session, run: Run) -> None:
    events = [e._replace(run_id="exec_cut") for e in run.events[:4]]

    async def cut_off() -> str:
        await session.runtime.services.store.append(events)
        return "exec_cut"

    run_id = run_sync(cut_off())
    with pytest.raises(StorageError, match="takes no notes here"):
        session.note(run_id, (1, 2), "x")


def test_the_function_of_the_package_is_the_same() -> None:
    assert dp.note.__doc__ == Session.note.__doc__

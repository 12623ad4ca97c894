"""What two runs have otherwise: model, inputs, persons, arrows, nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.cli import main
from dipeo_nb.execution import run_diff
from dipeo_nb.execution.run_diff import cost_in_words
from dipeo_nb.notebook.session import Session
from tests.support.waiting import wait_until

DIAGRAM = """
version: light
metadata: {name: Letter}
persons:
  Anna: {service: echo, model: "1", system_prompt: Be brief.}
nodes:
- {label: Start, type: start, custom_data: {topic: cats}}
- {label: Writer, type: person_job, person: Anna, default_prompt: "About {{topic}}."}
- {label: Letter, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: Letter, content_type: raw_text}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as opened:
        yield opened


CHANGES = [
    ("system_prompt: Be brief.", "system_prompt: Be long.", 'person Anna: system_prompt: "Be brief." → "Be long."'),
    ("system_prompt: Be brief.", "temperature: 0.9", "person Anna: temperature: null → 0.9"),
    ('model: "1"', 'model: "2"', 'person Anna: model: "1" → "2"'),
    ("persons:\n", "persons:\n  Bert: {service: echo}\n", "person Bert: added"),
    ("content_type: raw_text", "content_type: object", "arrow Writer → Letter (raw_text): now Writer → Letter (object)"),
    (
        "{from: Writer, to: Letter, content_type: raw_text}",
        "{from: Writer, to: Letter, label: said}",
        "now Writer → Letter ('said'",
    ),
    ("connections:\n", "connections:\n- {from: Start, to: Letter}\n", "arrow Start → Letter (raw_text): added"),
    ("- {from: Writer, to: Letter, content_type: raw_text}\n", "", "arrow Writer → Letter (raw_text): removed"),
    ("About {{topic}}.", "On {{topic}}.", "Writer: edited"),
]


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_every_part_of_the_diagram_is_compared(session: Session, old: str, new: str, expected: str):
    """The cause is named, also where every node gave the same."""
    assert old in DIAGRAM
    runs = session.run(DIAGRAM), session.run(DIAGRAM.replace(old, new))
    found = session.diff(*runs)
    assert expected in str(found)
    assert found.facts.different
    assert len(CHANGES) == 9
    html = found._repr_html_()
    assert "<table>" in html
    back = session.diff(*reversed(runs))
    assert back.facts.different


def test_the_model_that_moved_all_is_compared(session: Session):
    """`model=` of the run, which no field of the diagram shows."""
    found = session.diff(session.run(DIAGRAM), session.run(DIAGRAM, model="echo:7"))
    assert "model: as the diagram says → echo:7" in str(found)
    assert found.facts.different
    edited = session.run(DIAGRAM.replace("About", "On"), model="echo:7")
    assert "answered by: 1 → 7" in str(session.diff(session.run(DIAGRAM), edited))
    assert "answered by 1 → 7" in session.diff(session.run(DIAGRAM), edited)._repr_html_()


def test_runs_that_are_the_same(session: Session):
    """Times and costs are no difference."""
    found = session.diff(session.run(DIAGRAM), session.run(DIAGRAM))
    assert not found.facts.different
    assert str(found).endswith("every node gave the same")


def test_what_never_ran_cost_nothing(session: Session):
    """A run that was stopped before any model was asked has no unknown cost, and nodes without models no tokens."""
    run = session.start(DIAGRAM.replace("type: person_job, person: Anna, default_prompt", "type: user_response, prompt"))
    wait_until(lambda: run.question)
    run.stop()
    run.wait(10)
    text = str(session.diff(run, session.run(DIAGRAM)))
    assert "nothing → no cost" in text
    assert "unknown" not in text
    assert "tokens" not in next(line for line in text.splitlines() if line.startswith("  Letter"))


@pytest.mark.parametrize(("new", "code"), [("Be brief.", 0), ("Be long.", 1)])
def test_the_exit_code_says_whether_something_differs(session: Session, tmp_path: Path, new: str, code: int):
    """Persons count."""
    runs = session.run(DIAGRAM).id, session.run(DIAGRAM.replace("Be brief.", new)).id
    assert main(["diff", *runs, "--base-dir", str(tmp_path)]) == code


@pytest.mark.parametrize(
    ("cost", "tokens", "expected"),
    [
        (None, 0, "unknown cost"),
        (None, 5, "unknown cost"),
        (0.0, 0, "nothing"),
        (0.0, 5, "no cost"),
        (0.5, 0, "$0.5000"),
        (0.5, 5, "$0.5000"),
    ],
)
def test_an_unknown_cost_is_never_nothing(cost: float | None, tokens: int, expected: str):
    """Also where the provider reported no tokens at all."""
    assert cost_in_words(cost, tokens) == expected


def test_changed_arrows_are_paired_by_their_ends():
    """However many arrows changed: each is looked at once. Several between the same ends are paired in order."""
    looked: list[str] = []

    class Ends(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            looked.append(self)
            return str.__eq__(self, other)

    def arrows(how: str, count: int) -> Counter[tuple[str, str]]:
        return Counter({(Ends(f"N{n} → N{n + 1}"), how): 1 for n in range(count)})

    before = arrows(" (a)", 200) + Counter({(Ends("X → Y"), " (1)"): 2, (Ends("X → Y"), " (2)"): 1})
    after = arrows(" (b)", 201) + Counter({(Ends("X → Y"), " (3)"): 2})
    found = list(run_diff.changed_arrows(before, after))
    assert found[:2] == [("N0 → N1 (a)", "N0 → N1 (b)"), ("N1 → N2 (a)", "N1 → N2 (b)")]
    assert found[200:] == [
        ("X → Y (1)", "X → Y (3)"),
        ("X → Y (1)", "X → Y (3)"),
        ("X → Y (2)", None),
        (None, "N200 → N201 (b)"),
    ]
    assert len(looked) <= 10 * 400

"""Two runs as one drawing, more as a table."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dipeo_nb.diagram.difference_drawing import united
from dipeo_nb.diagram.document import load
from dipeo_nb.notebook.differences import Differences, SideBySide
from dipeo_nb.notebook.session import Session

BEFORE = """\
version: light
name: Letter
persons:
  Anna: {service: echo, model: "1"}
nodes:
- {label: Start, type: start, custom_data: {topic: cats}}
- {label: Writer, type: person_job, person: Anna, default_prompt: "About {{topic}}."}
- {label: "Check <b>", type: code_job, language: python, code: "return 1"}
- {label: Letter, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: "Check <b>"}
- {from: "Check <b>", to: Letter}
"""
AFTER = BEFORE.replace('"Check <b>"', "Grade").replace("About", "All about")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as opened:
        yield opened


def drawing(html: str) -> str:
    found = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found
    return base64.b64decode(found[1]).decode()


def statuses(svg: str) -> dict[str, str]:
    """Label → what is drawn of a node, and what its tooltip says."""
    found: dict[str, str] = {}
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if status := group.get("data-status"):
            title = group.findtext("{http://www.w3.org/2000/svg}title") or ""
            assert status in title  # in words, too
            found[re.sub("[\u2066-\u2069]", "", title).partition(",")[0]] = status
    return found


def test_what_is_same_changed_new_and_gone(session: Session) -> None:
    runs = [session.start(text, view=False) for text in (BEFORE, AFTER)]
    for run in runs:
        run.result()
    diff = session.diff(*runs)
    assert isinstance(diff, Differences)
    html = diff._repr_html_()
    assert statuses(drawing(html)) == {
        "Start": "same", "Writer": "changed", "Grade": "new", "Check <b>": "gone", "Letter": "same",
    }  # fmt: skip
    assert "<del" in html
    assert "<ins" in html
    assert "Check <b>" not in html


def test_a_fork_is_drawn_against_its_run(session: Session) -> None:
    run = session.start(BEFORE, view=False)
    run.result()
    forked = session.fork(run, set={"nodes.Writer.default_prompt": "Not about {{topic}}."}, view=False)
    forked.result()
    found = statuses(drawing(session.diff(run, forked)._repr_html_()))
    assert (found["Writer"], found["Start"]) == ("changed", "same")


def test_more_than_two_are_a_table(session: Session) -> None:
    runs = [session.start(BEFORE, view=False, topic=topic) for topic in ("cats", "dogs", "cats")]
    for run in runs:
        run.result()
    table = session.diff(*runs)
    assert isinstance(table, SideBySide)
    row = next(row for row in table._rows() if row[0] == "Writer")
    assert row[2].startswith("≠ ")
    assert row[3] == "= the same"
    assert len(table.facts) == 2
    assert repr(table).count("\n") > 5
    assert "<table>" in table._repr_html_()


def test_a_node_that_is_gone_keeps_its_arrows() -> None:
    """Also where an id means another node now."""
    whole = united(load(BEFORE).model, load(AFTER).model)
    gone = whole.node("Check <b>")
    ends = [(a.source, a.target) for a in whole.arrows if gone.id in (a.source, a.target)]
    assert ends == [(whole.node("Writer").id, gone.id), (gone.id, whole.node("Letter").id)]
    assert len({node.id for node in whole.nodes}) == len(whole.nodes)
    assert united(None, load(AFTER).model) == load(AFTER).model

"""What exporters and viewers make of a notebook that shows everything of ours, executed by a program: the text stays, whatever they remove."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from nbconvert.exporters import HTMLExporter, LatexExporter, MarkdownExporter

from tests.support.github_notebook import chosen, sanitized

ANSWER = "# Tabs\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\n    deep\\n\\nThey cost $5 or $6."
SETUP = f"""
import dipeo_nb as dp
from dipeo_nb.testing import scripted
session = dp.Session(".", llm=scripted({{"Opening": "{ANSWER}", "Reply": "Spaces are **exact**."}}))
TALK = '''
version: light
metadata: {{name: Debate <b>}}
persons:
  Ada: {{service: openai, model: gpt-6-luna, system_prompt: You are for tabs.}}
nodes:
- {{label: Start, type: start}}
- {{label: Opening, type: person_job, person: Ada, default_prompt: "Open the debate."}}
- {{label: Reply, type: person_job, person: Ada, default_prompt: "Reply."}}
- {{label: Tabs, type: endpoint}}
- {{label: Spaces, type: endpoint}}
connections:
- {{from: Start, to: Opening}}
- {{from: Opening, to: Reply}}
- {{from: Opening, to: Tabs}}
- {{from: Reply, to: Spaces}}
'''
ASKS = '''
version: light
nodes:
- {{label: Start, type: start}}
- {{label: Who, type: user_response, prompt: "Who?"}}
- {{label: End, type: endpoint}}
connections:
- {{from: Start, to: Who}}
- {{from: Who, to: End}}
'''
"""
CELLS = {
    "diagram": ("dp.load(TALK)", "5 nodes, 4 arrows"),
    "run": ("run = session.start(TALK)\nrun", "They cost $5 or $6."),
    "result": ("result = run.result()\nresult", "Spaces are exact."),
    "findings": ("dp.load(TALK.replace('person_job', 'persn_job'))", "Did you mean 'person_job'?"),
    "failure": ("session.run(TALK.replace('Open the debate.', '{{1 / 0}}'))", "division by zero"),
    "opened": ("session.open_run(run.id)", "You are for tabs."),
    "history": ("session.runs()", "✗ failed"),
    "live history": ("session.runs().live()", "✗ failed"),
    "difference": ("session.diff(run, session.run(TALK.replace('Reply.', 'Answer.'), view=False).run)", "ReplyAnswer."),
    "conversation": ("run.conversation", "Open the debate."),
    "nodes": ("run.nodes", "Opening"),
    "outputs": ("run.outputs", "They cost $5 or $6."),
    "events": ("run.events", "node_completed"),
    "stretch": ("run[1:9]", "events 1 to 8"),
    "explanation": ("run.explain()", "Opening"),
    "question": ("session.run(ASKS)", "answers={'Who': '…'}"),
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in (SETUP, *(code for code, _ in CELLS.values()))]
    )
    folder = tmp_path_factory.mktemp("exported")
    nbclient.NotebookClient(made, timeout=120, allow_errors=True, resources={"metadata": {"path": str(folder)}}).execute()
    assert made.cells[0].outputs == []
    return made


def shown(notebook: Any, cell: str) -> list[dict[str, str]]:
    """The bundles of a cell."""
    return [dict(o.data) for o in notebook.cells[1 + list(CELLS).index(cell)].outputs if "data" in o]


def words(html: str) -> str:
    """What can be read of HTML, with the words for pictures."""
    return unescape(re.sub(r"<[^<>]*>", "", re.sub(r'<img [^>]*?alt="([^"]*)"[^>]*>', r"\1", html)))


@pytest.mark.parametrize("cell", CELLS)
def test_github_leaves_what_matters(notebook: Any, cell: str) -> None:
    """Text and pictures with words for them; no code of pictures, styles or scripts as text, and no place where something is missing."""
    (data,) = shown(notebook, cell)
    assert chosen(data) == "text/html"
    html = data["text/html"]
    left = sanitized(html)
    assert CELLS[cell][1] in words(left)
    assert words(left) == words(html)
    assert not re.search(r"<(svg|style|script|button|input|select)\b|\son\w+=", html)
    assert not re.search(r"[{;]\s*(fill|stroke|color)\s*:", words(left))
    for picture in re.findall(r"<img [^>]*>", left):
        assert re.search(r'alt="[^"]{10,}"', picture)
        assert 'src="data:image/' in picture


def test_a_program_leaves_no_widget(notebook: Any) -> None:
    """Neither in outputs nor as a state: it would be dead for ever, and exporters prefer it to what can be read."""
    assert "widgets" not in notebook.metadata
    assert not [kind for cell in CELLS for data in shown(notebook, cell) for kind in data if "widget" in kind]


@pytest.mark.parametrize("template", ["lab", "classic", "basic"])
def test_a_page(notebook: Any, template: str) -> None:
    html, _ = HTMLExporter(template_name=template).from_notebook_node(notebook)
    text = words(re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL))
    assert [cell for cell, (_, said) in CELLS.items() if said not in text] == []


def test_markdown(notebook: Any) -> None:
    """HTML blocks end at an empty line: there is none in ours."""
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    assert [cell for cell, (_, said) in CELLS.items() if said not in words(text)] == []
    for cell in CELLS:
        for data in shown(notebook, cell):
            assert "\n\n" not in data["text/html"]


def test_latex_needs_no_other_program(notebook: Any) -> None:
    """A diagram and a run are pictures there, and nothing else that would have to be converted."""
    # For Markdown, as everywhere in LaTeX, nbconvert needs pandoc.
    cells = [cell for cell in notebook.cells if not any("text/markdown" in o.get("data", ()) for o in cell.outputs)]
    text, resources = LatexExporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    assert text.count("\\adjustimage") == len(resources["outputs"]) >= 4
    assert all(name.endswith(".png") for name in resources["outputs"])


RECORDED = (
    f"import os\n{SETUP}",
    "with dp.recording('tape', mode=os.environ['TAPE']):\n    run = session.start(TALK)\n    run.wait()",
    "run",
    "run.result()",
    "run.conversation",
    "with dp.recording('tape', mode=os.environ['TAPE']):\n    session.run(TALK)",
)


def test_two_executions_with_recordings_leave_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of every output: no id, no time, no order that differs."""

    def outputs(mode: str) -> list[Any]:
        monkeypatch.setenv("TAPE", mode)
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in RECORDED])
        nbclient.NotebookClient(made, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [[dict(o) for o in cell.outputs] for cell in made.cells]

    called, first, second = outputs("record"), outputs("replay"), outputs("replay")
    assert sum(map(len, first)) == 4
    assert first == second != called

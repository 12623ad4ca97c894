"""What a run looks like in a notebook: its static face, in pages and where a program executes the notebook."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from dipeo_nb.diagram.document import load
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.row_diagrams import HOSTILE_NAME

EVIL = "<script>alert('x')</script>"


class Story:
    """A run told event by event, without an engine."""

    def __init__(self) -> None:
        self.diagram = load(HOSTILE_NAME).model
        self.ids = {n.label: n.id for n in self.diagram.nodes}
        self.state = RunState.fresh("exec_1", "Two <b>nodes</b>", {n.id: n.label for n in self.diagram.nodes})
        self.events: list[Event] = []
        self.began = time.time()

    def tell(self, kind: EventType, node: str | None = None, /, **payload: Any) -> Event:
        event = Event(len(self.events) + 1, kind, "exec_1", self.began, node and self.ids[node], payload)
        self.events.append(event)
        self.state.apply(event)
        return event

    def start(self) -> None:
        labels = {n.id: n.label for n in self.diagram.nodes}
        self.tell(EventType.EXECUTION_STARTED, diagram="Two <b>nodes</b>", labels=labels, model="local")

    def node(self, label: str, output: Any, **meta: Any) -> None:
        self.tell(EventType.NODE_STARTED, label, run=1)
        kind = "endpoint" if label == "End" else "x"
        self.tell(EventType.NODE_COMPLETED, label, run=1, output=output, meta=meta, duration_ms=1500, node_type=kind)

    def say(self, label: str, text: str) -> None:
        self.tell(EventType.NODE_OUTPUT, label, kind="text", text=text, is_partial=True)

    def finish(self) -> None:
        self.tell(EventType.EXECUTION_COMPLETED, status="completed", total_duration_ms=2500)


@pytest.fixture
def story() -> Story:
    return Story()


# The static form.


class Outline(HTMLParser):
    """Tags, attributes and text of a fragment; fails on tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def told(story: Story) -> RunState:
    story.start()
    story.node("Start", "")
    message = {"from_person_id": "Anna", "to_person_id": "system", "content": EVIL}
    story.node("Writer", EVIL, usage={"input": 1, "output": 2}, cost_usd=None, messages=[message])
    story.node("End", {"a": [1, EVIL]})
    story.finish()
    return story.state


def test_bundle_has_html_png_and_text(story: Story):
    """Three steps down: HTML with the drawing as an image, a PNG, lines of text; each tells the whole run."""
    data = static_view.bundle(told(story), story.diagram)
    assert set(data) == {"text/html", "image/png", "text/plain"}
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert "completed, 2.5 s, 3 tokens, cost unknown" in data["text/html"]
    assert "completed, 2.5 s, 3 tokens, cost unknown" in data["text/plain"]
    assert "Writer" in data["text/plain"]
    (image,) = [attributes for tag, attributes in Outline(data["text/html"]).tags if tag == "img"]
    assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
    assert image["alt"] == "Diagram Two <b>nodes</b>, completed"


def test_static_html_is_escaped_semantic_and_without_script(story: Story):
    """Texts of diagram and model are text; only plain tags are used, so that sanitisers leave them."""
    outline = Outline(static_view.html(told(story), story.diagram))
    allowed = {"section", "p", "strong", "img", "h4", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "small", "em", "br", "pre", "code"}  # fmt: skip
    assert {tag for tag, _ in outline.tags} <= allowed
    assert not [a for _, attributes in outline.tags for a in attributes if a.startswith("on")]
    assert outline.text.count(EVIL) >= 3


def test_a_failure_is_shown_with_place_hint_and_traceback(story: Story):
    """The error says its kind, node, message and what to do."""
    story.start()
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    error = {"type": "CodeError", "message": "It <broke>.", "node": "Writer", "hint": "Mend it.", "traceback": "line 1"}
    story.tell(EventType.EXECUTION_ERROR, status="failed", error=error, total_duration_ms=10)
    text = Outline(static_view.html(story.state, story.diagram)).text
    assert "CodeError in Writer: It <broke>.Mend it.line 1" in text
    assert "CodeError: It <broke>. Mend it." in static_view.plain(story.state, story.diagram)


def test_values_and_tables_are_cut(story: Story):
    """A saved notebook stays small whatever a run said; what is left out is counted."""
    assert len(static_view.shown("x" * 10_000)) == static_view.CELL_LIMIT
    table = static_view.table(("n",), ([n] for n in range(1000)))
    assert table.count("<tr>") == static_view.ROW_LIMIT + 1
    assert "… and 800 more rows" in table
    assert static_view.shown("a\ud800b") == "a\\ud800b"
    assert static_view.shown({"é": object}).startswith('{\n  "é": "<type')


def test_money_is_never_guessed():
    """Unknown prices are said to be unknown; nothing costs nothing only when that is known."""
    assert [static_view.money(c) for c in (None, 0.0, 0.00123, 12.3)] == [
        "cost unknown",
        "no cost",
        "$0.0012",
        "$12.30",
    ]


def test_a_stored_run_draws_itself_from_its_record(tmp_path: Path):
    """Without the diagram's file: the picture comes from what the run recorded."""
    with Session(tmp_path, llm=scripted("ok")) as session:
        result = session.run(HOSTILE_NAME)
        opened = session.open_run(result.id)
    data = opened._repr_mimebundle_()
    assert "image/png" in data
    assert "Writer" in data["text/plain"]


# In a kernel without a page (nbclient, nbmake).

SETUP = f'''
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
session = dp.Session(llm=SlowClient("one two three", delay=0.02))
D = """{HOSTILE_NAME}"""
'''


def executed(folder: Path, *cells: str, allow_errors: bool = False) -> list[Any]:
    """The outputs of each cell after the first, run by nbclient."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (SETUP, *cells)])
    client = nbclient.NotebookClient(
        notebook, timeout=60, allow_errors=allow_errors, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells[1:]]


def test_a_run_that_ends_between_two_cells_leaves_its_static_form(tmp_path: Path):
    """nbclient takes no messages then; the end of the next cell brings the picture."""
    between = """
import threading, time
from dipeo_nb.notebook import run_display
shell, ready = get_ipython(), threading.Event()
real = run_display.RunDisplay._draw
async def later(self, *args, **options):
    import asyncio
    await asyncio.to_thread(ready.wait)  # until the cell has been idle for a while
    await real(self, *args, **options)
run_display.RunDisplay._draw = later
run = session.start(D)
def end(*_):
    shell.events.unregister("post_run_cell", end)
    threading.Timer(0.5, ready.set).start()
shell.events.register("post_run_cell", end)
run
"""
    folder, after = tmp_path, "import time"

    class Slow(nbclient.NotebookClient):
        async def async_execute_cell(self, cell: Any, cell_index: int, *args: Any, **options: Any) -> Any:
            if cell.source == after:  # nothing is read meanwhile, as behind the last message of a cell
                await asyncio.sleep(3)
            return await super().async_execute_cell(cell, cell_index, *args, **options)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (SETUP, between, after)])
    Slow(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    (frozen,) = [o for o in notebook.cells[1].outputs if o.output_type == "display_data"]
    assert set(frozen.data) == {"text/html", "image/png", "text/plain"}
    assert ", completed" in frozen.data["text/html"]


def test_a_run_leaves_its_static_form(tmp_path: Path):
    """The output of a started run and of a blocking one hold the static bundle, and nothing is shown twice."""
    started, awaited, blocking, alone, quiet, _ = executed(
        tmp_path,
        "run = session.start(D)\nrun",
        "result = await run\nresult",
        "other = session.run(D)\nother.output",
        "session.run(D)",
        "session.run(D, view=False).output",
        # On a busy machine a cell waits no longer than STOP_GRACE_S for the last picture, which comes later then.
        "import concurrent.futures\nconcurrent.futures.wait([*run._displays, *other.run._displays])\nimport time\ntime.sleep(2)",
    )
    for outputs in (started, blocking, alone):
        (face,) = [o for o in outputs if o.output_type == "display_data"]
        assert set(face.data) == {"text/html", "image/png", "text/plain"}
        assert ", completed" in face.data["text/html"]
        assert "dipeo-of" not in face.data["text/html"]
    assert awaited[0].data["text/plain"].startswith("RunResult(")
    assert "<img" not in awaited[0].data["text/html"]
    assert blocking[-1].data["text/plain"] == "'one two three'"
    assert len(alone) == 1
    assert "End = one two three" in alone[0].data["text/plain"]
    assert [o.output_type for o in quiet] == ["execute_result"]


LARGE = f"""version: light
persons:
  Anna: {{{{service: openai, model: m}}}}
nodes:
- {{{{label: Start, type: start}}}}
{chr(10).join(f"- {{{{label: Writer {n}, type: person_job, person: Anna, default_prompt: Write.}}}}" for n in range(18))}
- {{{{label: End, type: endpoint}}}}
connections:
- {{{{from: Start, to: Writer 0}}}}
{chr(10).join(f"- {{{{from: Writer {n}, to: Writer {n + 1}}}}}" for n in range(17))}
- {{{{from: Writer 17, to: End}}}}
""".replace("{{", "{").replace("}}", "}")


def test_a_notebook_that_a_program_executes_is_small_and_readable(tmp_path: Path):
    """No state of a widget that nothing shows, no address of an object, no "…" without more; 120 KB for a run of twenty nodes."""
    large = f'L = """{LARGE}"""\nlong = dp.Session(llm=SlowClient("A paragraph of the answer. " * 40, delay=0))'
    cells = [large, "long.run(L)", "session.chat('Say it.')", "run = session.start(D)\nrun", "await run"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (SETUP, *cells)])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "widgets" not in notebook.metadata
    _, _, run, chat, *_ = notebook.cells
    assert len(nbformat.writes(nbformat.v4.new_notebook(cells=[run]))) < 120_000
    assert [o.data["text/plain"].partition("\n")[0] for o in chat.outputs] == ["one two three"]
    for cell in notebook.cells:
        for output in cell.outputs:
            assert "object at 0x" not in output.data["text/plain"]
            assert output.data["text/plain"].strip(" …")


def test_two_executions_with_recordings_leave_the_same_outputs(tmp_path: Path):
    """Ids and seconds are left out where answers of models are recorded ones and nobody is there."""
    setup = f'''import os; os.environ["DIPEO_LLM_MODE"] = "@"
import dipeo_nb as dp
D = """{HOSTILE_NAME}"""'''
    kept: list[str] = []
    for mode in ("record", "replay", "replay"):
        cells = (
            setup.replace("@", mode),
            "dp.run(D, model='echo')",
            "run = dp.start(D, model='echo')\nrun",
            "await run",
            "dp.chat('x', model='echo', display=False).text",
        )
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
        kept.append(json.dumps([cell.outputs for cell in notebook.cells[1:]]))
    assert kept[1] == kept[2]
    assert "completed" in kept[1]


def test_errors_in_a_cell_are_short(tmp_path: Path):
    """An error of ours shows the cell's line, the message and the hint, not our frames."""
    (outputs,) = executed(tmp_path, "x = 1\ndp.load('nowhere.yaml')", allow_errors=True)
    (error,) = outputs
    assert error.ename == "DiagramNotFoundError"
    lines = "\n".join(error.traceback)
    assert lines.startswith("line 2: dp.load('nowhere.yaml')")
    assert "There is no diagram 'nowhere.yaml'." in lines
    assert "site-packages" not in lines
    assert "document.py" not in lines


def test_a_question_without_anybody_fails_at_once(tmp_path: Path):
    """nbclient has no input: `run` and `await` of a run that asks end with the hint, instead of waiting."""
    asking = HOSTILE_NAME.replace("type: person_job, person: Anna, default_prompt: Write.", "type: user_response, prompt: Who?")
    first, second = executed(tmp_path, f'E = """{asking}"""\nsession.run(E)', "await session.start(E)", allow_errors=True)
    for outputs in (first, second):
        assert "answers={'Writer': '…'}" in "\n".join(outputs[-1].traceback)

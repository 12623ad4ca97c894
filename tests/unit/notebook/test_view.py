"""What a run looks like: the live widget and what it sends, and the static form that stays."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping
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
from dipeo_nb.notebook import view as live
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

EVIL = "<script>alert('x')</script>"
DIAGRAM = """
version: light
metadata: {name: "Two <b>nodes</b>"}
persons:
  Anna: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Writer, type: person_job, person: Anna, default_prompt: Write.}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: End}
"""


class Story:
    """A run told event by event, without an engine."""

    def __init__(self) -> None:
        self.diagram = load(DIAGRAM).model
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


class Page:
    """Stands for the browser: what the view would send it, and a way to send messages back."""

    def __init__(self, story: Story, elsewhere: Callable[[], bool] = lambda: False) -> None:
        self.stopped = 0
        self.answers: list[tuple[str, str]] = []
        self.display = live.LiveDisplay(
            story.state, story.diagram, stop=self._stop, answer=lambda *a: self.answers.append(a), elsewhere=elsewhere
        )
        self.updates: list[str] = []
        self.display.view.observe(lambda change: self.updates.append(change["name"]), ["run", "text", "log", "svg"])

    def _stop(self) -> None:
        self.stopped += 1

    def send(self, **message: Any) -> None:
        self.display.view._handle_custom_msg(message, [])

    def look(self) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
        self.updates.clear()
        self.display._next_log = 0.0
        self.display._update()
        view = self.display.view
        return view.run, view.text, view.log


@pytest.fixture
def page(story: Story) -> Iterator[Page]:
    opened = Page(story)
    yield opened
    opened.display.view.close()


# The live view.


def test_nodes_status_and_spending_follow_the_events(story: Story, page: Page):
    """What the page gets is the fold of the log: status, node states, tokens and money, model."""
    run, _, _ = page.look()
    assert run["status"] == "pending"
    story.start()
    story.node("Start", "")
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    run, _, _ = page.look()
    assert run["status"] == "running"
    assert run["model"] == "local"
    assert run["spent"] == ""
    assert {label: run["nodes"][story.ids[label]] for label in story.ids} == {
        "Start": ["completed", 1],
        "Writer": ["running", 0],
        "End": ["pending", 0],
    }
    usage = {"input": 10, "output": 5}
    story.tell(EventType.NODE_COMPLETED, "Writer", run=1, output="ok", meta={"usage": usage, "cost_usd": 0.5}, duration_ms=1)
    assert page.look()[0]["spent"] == "15 tokens · $0.5000"


def test_a_node_that_says_nothing_tells_how_far_it_is(story: Story, page: Page):
    """Where a sub-diagram is, one line for each of its nodes, the last word on each; gone when the node has its output."""
    story.start()
    story.node("Start", "go")
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    for text, node in (("Think …", "n1"), ("Think ✓", "n1"), ("Check …", "n2")):
        data = {"run_id": "exec_2", "node": node}
        story.tell(EventType.NODE_OUTPUT, "Writer", kind="progress", text=text, data=data, is_partial=True)
    assert page.look()[1]["text"] == "Think ✓\nCheck …"
    for n in range(3):
        story.tell(EventType.NODE_OUTPUT, "Writer", kind="progress", text=f"{n} of 3", data={"done": n, "of": 3})
    assert page.look()[1]["text"] == "Think ✓\nCheck …\n2 of 3"
    story.tell(EventType.NODE_COMPLETED, "Writer", run=1, output="done", meta={}, duration_ms=1)
    assert page.look()[1]["text"] == "done"


def test_the_text_follows_the_node_at_work_until_one_is_chosen(story: Story, page: Page):
    """The running node that speaks is shown; a chosen one stays; choosing none follows again; unknown ones are ignored."""
    story.start()
    story.node("Start", "go")
    assert page.look()[1]["text"] == "go"
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    story.say("Writer", "Once upon")
    assert page.look()[1] == {"node": story.ids["Writer"], "label": "Writer", "chosen": False, "text": "Once upon"}
    page.send(type="select", node=story.ids["Start"])
    assert page.look()[1]["label"] == "Start"
    page.send(type="select", node="no such node")
    page.send(type="select", node=None)
    assert page.look()[1]["label"] == "Writer"


def test_an_error_is_shown_with_the_text_so_far(story: Story, page: Page):
    """A failed node shows what it had said, the message and the hint."""
    story.start()
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    story.say("Writer", "Half a sen")
    story.tell(EventType.NODE_ERROR, "Writer", run=1, error={"message": "It broke.", "hint": "Mend it."}, duration_ms=1)
    assert page.look()[1]["text"] == "Half a sen\nIt broke.\nMend it."


def test_nothing_new_sends_nothing(story: Story, page: Page):
    """An unchanged state costs no message but the clock's, once a second."""
    story.start()
    page.look()
    for _ in range(5):
        page.look()
        assert [u for u in page.updates if u != "run"] == []


def test_texts_and_lists_are_cut(story: Story, page: Page):
    """A long text is sent as its end, and the last events only; the totals are whole. Tokens are not listed."""
    story.start()
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    story.say("Writer", "x" * 90_000 + "end")
    for number in range(700):
        story.tell(EventType.EXECUTION_LOG, message=f"line {number}")
    for event in story.events:
        page.display.see(event)
    for event in story.events[:50]:  # a reader that subscribed before it read may see events twice
        page.display.see(event)
    _, text, log = page.look()
    assert len(text["text"]) == live.TEXT_LIMIT
    assert text["text"].endswith("end")
    assert log["total"] == 702
    assert len(log["rows"]) == live.LOG_ROWS
    assert log["rows"][-1][2:] == ["execution log", "", "line 699"]
    assert [row[0] for row in log["rows"]] == sorted(row[0] for row in log["rows"])


def test_commands_of_the_page(story: Story, page: Page):
    """Stop and answers arrive; anything else is ignored."""
    page.send(type="stop")
    page.send(type="answer", id="q1", text="Ada")
    for strange in ({"type": "answer", "id": 1, "text": None}, {"type": "eval", "code": "1"}, {}):
        page.send(**strange)
    assert page.stopped == 1
    assert page.answers == [("q1", "Ada")]


def test_a_question_is_in_the_run_until_it_is_answered(story: Story):
    """Prompt, default and deadline go to the page, and whether a waiting cell asks already."""
    waits = [False]
    page = Page(story, elsewhere=lambda: waits[0])
    story.start()
    story.tell(EventType.INTERACTIVE_PROMPT, "Writer", request_id="q1", prompt=EVIL, label="Writer", default="no", timeout=60)
    question = page.look()[0]["question"]
    assert question == {
        "id": "q1", "label": "Writer", "prompt": EVIL, "default": "no", "deadline": story.began + 60, "elsewhere": False,
    }  # fmt: skip
    waits[0] = True
    assert page.look()[0]["question"]["elsewhere"] is True
    story.tell(EventType.INTERACTIVE_RESPONSE, "Writer", request_id="q1", answer="yes", source="user")
    assert page.look()[0]["question"] is None
    page.display.view.close()


def test_updates_are_coalesced(story: Story, page: Page, monkeypatch: pytest.MonkeyPatch):
    """However many tokens come, the page gets at most 30 updates a second."""
    story.start()
    story.tell(EventType.NODE_STARTED, "Writer", run=1)
    frozen: list[bool] = []

    async def freeze() -> None:
        frozen.append(True)

    monkeypatch.setattr(page.display, "_freeze", freeze)

    async def run() -> None:
        following = asyncio.create_task(page.display.follow(lambda: story.state.finished))
        for _ in range(500):
            story.say("Writer", "token ")
            await asyncio.sleep(0.001)
        story.finish()
        await following

    began = time.monotonic()
    asyncio.run(run())
    assert 1 <= page.updates.count("text") <= 30 * (time.monotonic() - began) + 2
    assert page.display.view.text["text"] == "token " * 500
    assert page.display.view.run["status"] == "completed"
    assert frozen


def test_the_drawing_is_live_and_escaped(story: Story, page: Page):
    """The markup sent to the page has a group per node for the script to change, and no markup of the diagram's."""
    svg = page.display.view.svg
    assert all(f'data-node="{i}"' in svg for i in story.ids.values())
    assert "<b>" not in svg
    assert "<script" not in svg


def test_page_files_load_nothing():
    """Script and style are files of the package and name no address; the script sets text, markup only from the drawing."""
    folder = Path(live.__file__).parent / "static"
    script, style = (folder / "live.js").read_text(), (folder / "live.css").read_text()
    for text in (script, style, live.LIVE_CSS):
        assert not re.search(r"https?:|//cdn|@import|url\(", text)
    assert re.findall(r"\w+\.(?:innerHTML|outerHTML)[^;]*", script) == ['drawing.innerHTML = model.get("svg")']
    assert "insertAdjacentHTML" not in script
    assert "save_changes" not in script, "commands go by message, never by trait"


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
    allowed = {"section", "p", "strong", "img", "h4", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "small", "em", "br", "pre"}  # fmt: skip
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
        result = session.run(DIAGRAM)
        opened = session.open_run(result.id)
    data = opened._repr_mimebundle_()
    assert "image/png" in data
    assert "Writer" in data["text/plain"]


# In a kernel without a page (nbclient, nbmake).

SETUP = f'''
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
session = dp.Session(llm=SlowClient("one two three", delay=0.02))
D = """{DIAGRAM}"""
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
from dipeo_nb.notebook import kernel, view
shell, ready = get_ipython(), threading.Event()
real = view.LiveDisplay._freeze
async def later(self):
    import asyncio
    await asyncio.to_thread(ready.wait)  # until the cell has been idle for a while
    await real(self)
view.LiveDisplay._freeze = later
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


def test_a_live_view_freezes_to_the_static_form(tmp_path: Path):
    """After the end the output holds the static bundle and no widget, both for a started run and for a blocking one."""
    started, awaited, blocking, quiet, _ = executed(
        tmp_path,
        "run = session.start(D)\nrun",
        "result = await run\nresult",
        "other = session.run(D)\nother.output",
        "session.run(D, view=False).output",
        # On a busy machine a cell waits no longer than STOP_GRACE_S for the last picture, which comes later then.
        "import concurrent.futures\nconcurrent.futures.wait([*run._displays, *other.run._displays])\nimport time\ntime.sleep(2)",
    )
    for outputs in (started, blocking):
        (frozen,) = [o for o in outputs if o.output_type == "display_data"]
        assert set(frozen.data) == {"text/html", "image/png", "text/plain"}
        assert ", completed" in frozen.data["text/html"]
    assert awaited[0].data["text/plain"].startswith("RunResult(")
    assert "<img" not in awaited[0].data["text/html"]
    assert blocking[-1].data["text/plain"] == "'one two three'"
    assert [o.output_type for o in quiet] == ["execute_result"]


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
    asking = DIAGRAM.replace("type: person_job, person: Anna, default_prompt: Write.", "type: user_response, prompt: Who?")
    first, second = executed(tmp_path, f'E = """{asking}"""\nsession.run(E)', "await session.start(E)", allow_errors=True)
    for outputs in (first, second):
        assert "answers={'Writer': '…'}" in "\n".join(outputs[-1].traceback)

"""The quickstart and the live view as a user sees them: JupyterLab, Chromium, the embedded model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.browser.lab import Lab, Notebook

pytestmark = [pytest.mark.browser]
QUICKSTART = Path(__file__).parents[2] / "notebooks" / "00_quickstart.ipynb"
ERRORS = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'
"""Tracebacks, and whatever was written to stderr."""
_numbers = count()

SLOW = '''
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
session = dp.Session(llm=SlowClient("the quick brown fox jumps over the lazy dog " * 2000, delay=0.05))
diagram = dp.load("""
version: light
metadata: {name: A fox}
nodes:
- {label: Start, type: start}
- {label: Writer, type: person_job, person: Anna, default_prompt: Write.}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: End}
persons:
  Anna: {service: openai, model: m}
""")
'''
LIVE = "run = session.start(diagram)\nrun"
QUESTION = '''
import dipeo_nb as dp
diagram = dp.load("""
version: light
nodes:
- {label: Start, type: start}
- {label: name, type: user_response, prompt: "What is <b>your</b> name?"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: name}
- {from: name, to: End}
""")
'''


class Desk:
    """Opens notebooks and closes them again, with their kernels."""

    def __init__(self, lab: Lab, page: Page) -> None:
        self._lab = lab
        self._page = page
        self._open: list[Notebook] = []

    def cells(self, *sources: str) -> Notebook:
        """A notebook of code cells."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        name = f"test{next(_numbers)}.ipynb"
        nbformat.write(notebook, self._lab.root / name)
        return self.file(name)

    def file(self, name: str) -> Notebook:
        notebook = self._lab.open(self._page, name)
        self._open.append(notebook)
        return notebook

    def close(self) -> None:
        for notebook in self._open:
            notebook.shut_down()


@pytest.fixture
def desk(lab: Lab, page: Page) -> Iterator[Desk]:
    opened = Desk(lab, page)
    yield opened
    opened.close()


def live_view(notebook: Notebook, cell: int = 1) -> Locator:
    """The live view of a cell, as soon as its Writer is at work."""
    view = notebook.cell(cell).locator(".dp-run")
    expect(view.locator('.dp-node[data-status="running"] .dp-label')).to_have_text("Writer")
    return view


def ended(notebook: Notebook, cell: int, status: str) -> Locator:
    """A view whose run has ended; the notebook holds the end, too."""
    view = notebook.cell(cell).locator(".dp-run")
    expect(view.locator(".dp-pill")).to_have_text(status)
    expect(notebook.cell(cell).locator(".dipeo-final")).to_be_attached()
    return view


def no_text_leaves_its_box(view: Locator) -> None:
    """Every text of a node stands within the outline of its node (two pixels of tolerance)."""
    out = view.evaluate("""view => [...view.querySelectorAll('.dp-node')].flatMap(node => {
      const box = node.querySelector('.dp-box').getBoundingClientRect();
      return [...node.querySelectorAll('.dp-label, .dp-sub')].filter(text => {
        const t = text.getBoundingClientRect(); return t.width && (t.right > box.right + 2 || t.left < box.left - 2); }).map(t => t.textContent); })""")
    assert out == []


@pytest.mark.model
def test_quickstart(lab: Lab, desk: Desk, page: Page, shots: Path):
    """Run All: nodes change and tokens appear while it runs; every cell ends well; pictures stay, in both themes."""
    shutil.copy(QUICKSTART, lab.root / "quickstart.ipynb")
    cells = json.loads(QUICKSTART.read_text())["cells"]
    at = next(i for i, c in enumerate(cells) if "run = dp.start(" in "".join(c["source"]))
    notebook = desk.file("quickstart.ipynb")
    notebook.start_all()
    view = notebook.cell(at).locator(".dp-run")
    expect(view.locator('.dp-node[data-status="completed"]').first).to_be_visible()
    expect(view.locator(".dp-body")).not_to_be_empty()
    view.scroll_into_view_if_needed()
    no_text_leaves_its_box(view)
    page.screenshot(path=shots / "quickstart-live.png")
    notebook.wait()
    expect(page.locator(ERRORS)).to_have_count(0)
    for theme in ("light", "dark"):
        notebook.theme(theme)
        ended(notebook, at, "done").scroll_into_view_if_needed()
        page.screenshot(path=shots / f"quickstart-{theme}.png")
    notebook.theme("light")


def test_live_view_streams_and_stops(desk: Desk, page: Page, shots: Path):
    """While it runs: nodes change, tokens appear, the clock goes, in both themes; Stop stops it, and the picture stays."""
    notebook = desk.cells(SLOW, LIVE)
    notebook.start_all()
    view = live_view(notebook)
    expect(view.locator(".dp-body")).to_contain_text("quick brown fox")
    expect(view.locator(".dp-pill")).to_have_text("running")
    expect(view.locator(".dp-slot").first).to_contain_text(" s")
    for theme in ("dark", "light"):
        notebook.theme(theme)
        page.screenshot(path=shots / f"live-{theme}.png")
    before = len(view.locator(".dp-body").inner_text())
    page.wait_for_function("n => document.querySelector('.dp-body').textContent.length > n", arg=before)
    view.get_by_role("button", name="Stop").click()
    ended(notebook, 1, "stopped")
    expect(view.locator(".dp-notice")).to_contain_text("dp.resume")
    page.screenshot(path=shots / "stopped.png")


def test_stop_works_while_the_cell_blocks(desk: Desk):
    """`dp.run` blocks its cell; the Stop button of its view ends it all the same."""
    code = "try:\n    session.run(diagram)\nexcept dp.RunError as error:\n    print('ended:', type(error).__name__)"
    notebook = desk.cells(SLOW, code)
    notebook.start_all()
    live_view(notebook).get_by_role("button", name="Stop").click()
    expect(notebook.cell(1)).to_contain_text("ended: RunAbortedError")


@pytest.mark.parametrize("wait", ["await run", "run.result()"])
def test_interrupting_the_kernel_stops_the_run(desk: Desk, wait: str):
    """Lab's own stop button, while a cell waits for the run, aborts the run; the next cell works."""
    notebook = desk.cells(SLOW, LIVE, wait)
    notebook.start_all()
    live_view(notebook)
    notebook.wait_busy(2)
    notebook.interrupt()
    ended(notebook, 1, "stopped")
    expect(notebook.cell(2).locator(ERRORS)).to_be_visible()


def test_keys_of_a_view_stay_in_it(desk: Desk, page: Page):
    """Keys do not reach the notebook's own commands; the focus is where it was when the run has ended."""
    notebook = desk.cells(SLOW, LIVE)
    notebook.start_all()
    view = live_view(notebook)
    tab = view.get_by_role("tab", name="Prompt")
    tab.click()
    for key in ("c", "d", "d"):  # copies and deletes the cell when it reaches Lab
        page.keyboard.press(key)
    expect(view).to_be_visible()
    page.evaluate("() => { window.before = document.activeElement; }")
    view.get_by_role("button", name="Stop").evaluate("button => button.click()")
    ended(notebook, 1, "stopped")
    assert page.evaluate("() => document.activeElement === window.before && window.before.isConnected")


def test_a_second_view_of_a_running_run_is_right_at_once(desk: Desk):
    """A view opened late shows what has happened so far, and both end."""
    notebook = desk.cells(SLOW, LIVE, "import time; time.sleep(1)", "run", "time.sleep(1)", "run.stop()")
    notebook.start_all()
    late = notebook.cell(3).locator(".dp-run")
    expect(late.locator(".dp-body")).to_contain_text("the quick brown fox jumps over the lazy dog")
    expect(late.locator(".dp-slot").first).not_to_have_text("0 s")
    ended(notebook, 1, "stopped")
    ended(notebook, 3, "stopped")


def test_a_question_is_a_form_in_the_view(desk: Desk, page: Page, shots: Path):
    """A user_response node of a live run asks in the view; the answer typed there goes on in the run. Markup is text."""
    notebook = desk.cells(QUESTION + "run = dp.start(diagram)\nrun")
    notebook.start_all()
    view = notebook.cell(0).locator(".dp-run")
    expect(view.locator(".dp-question")).to_contain_text("What is <b>your</b> name?")
    expect(view.locator(".dp-left")).to_contain_text("left, then it fails")
    page.screenshot(path=shots / "question.png")
    box = view.get_by_role("textbox", name="Answer")
    box.click()
    page.keyboard.type("Ada x")
    page.keyboard.press("Enter")
    expect(notebook.cell(0).locator(".dipeo-covered")).to_contain_text("Ada x")
    ended(notebook, 0, "done")


@pytest.mark.parametrize("wait", ["dp.run(diagram)", "await dp.arun(diagram)"])
def test_a_waiting_cell_asks_where_it_is_heard(desk: Desk, wait: str):
    """In the form of the view when its clicks get through to the busy kernel, else in the notebook's own input box, as it says."""
    notebook = desk.cells(QUESTION + f"result = {wait}\nprint('got', result.output)")
    notebook.start_all()
    view, box = notebook.cell(0).locator(".dp-run"), notebook.cell(0).locator(".jp-Stdin-input")
    field = view.get_by_role("textbox", name="Answer")
    expect(box.or_(field).first).to_be_visible()
    try:
        if field.is_visible():
            field.fill("Bob", timeout=10_000)
            field.press("Enter", timeout=10_000)
    except PlaywrightTimeoutError:  # a page that is too slow to be heard gives way to the box
        expect(box).to_be_visible()
    if box.is_visible():
        # A page that is heard late takes the question over from the box.
        expect(view.locator(".dp-question", has_text="elsewhere").or_(field).first).to_be_visible()
        place = field if field.is_visible() else box
        place.fill("Bob")
        place.press("Enter")
    expect(notebook.cell(0)).to_contain_text("got Bob")


@pytest.mark.parametrize("end", ["stop", "deadline"])
@pytest.mark.parametrize("wait", ["dp.run(diagram)", "await dp.arun(diagram)"])
def test_the_end_of_a_question_releases_the_waiting_cell(desk: Desk, wait: str, end: str):
    """Stop in the view and the question's own deadline end the cell that waits for an answer, and the next cell runs; no input box
    stays."""
    source = QUESTION.replace('name?"}', 'name?", timeout: 4}') if end == "deadline" else QUESTION
    code = f"try:\n    {wait}\nexcept dp.DipeoError as error:\n    print('ended:', type(error).__name__)"
    notebook = desk.cells(source + code, "print('next', 6 * 7)")
    notebook.start_all()
    cell = notebook.cell(0)
    view, box = cell.locator(".dp-run"), cell.locator(".jp-Stdin-input")
    if end == "stop":
        expect(box.or_(view.locator(".dp-left", has_text="left, then it fails"))).to_be_visible()
        view.get_by_role("button", name="Stop").click()
    expect(cell).to_contain_text(f"ended: {'RunAbortedError' if end == 'stop' else 'NodeTimeoutError'}")
    expect(notebook.cell(1)).to_contain_text("next 42")
    expect(box).to_be_hidden()


def test_no_input_box_outlives_its_question(desk: Desk, page: Page, shots: Path):
    """Without a view a cell asks in the notebook's own input boxes. One whose question is over goes, with a word why, whoever ended
    it; the next question of the cell gets its answer; what is typed meanwhile is no command of the notebook."""
    timed = (
        QUESTION.replace('name?"}', 'name?", timeout: 2}')
        + """
for _ in range(2):
    try:
        dp.run(diagram, view=False)
    except dp.DipeoError as error:
        print('ended:', type(error).__name__)
print('got', dp.run(diagram.set('nodes.name.prompt', 'Which city?').set('nodes.name.timeout', 300), view=False).output)
"""
    )
    stopped = """
import threading
run = dp.start(diagram.set('nodes.name.timeout', 300), view=False)
threading.Timer(1.5, run.stop).start()
try:
    run.result()
except dp.RunError:
    print(run.status)
"""
    notebook = desk.cells(timed, stopped, "dp.run(diagram.set('nodes.name.timeout', 300), view=False)")
    notebook.start_all()
    boxes, over = page.locator(".jp-Stdin-input:visible"), "name?” no longer needs an answer"
    first, second, third = (notebook.cell(n) for n in range(3))
    expect(boxes).to_have_count(1)
    boxes.click()
    page.keyboard.type("x")
    expect(first).to_contain_text(over)
    page.keyboard.type("xdd")  # cuts and deletes cells when it reaches Lab
    city = first.locator(".jp-OutputArea-stdin-item:visible", has_text="Which city?")
    expect(city).to_be_visible()
    expect(first.get_by_text(over)).to_have_count(2)
    expect(boxes).to_have_count(1)
    page.screenshot(path=shots / "question-over.png")
    city.locator("input").fill("Rome")
    city.locator("input").press("Enter")
    expect(first).to_contain_text("got Rome")
    expect(second).to_contain_text("aborted")
    expect(second.get_by_text(over)).to_have_count(1)
    expect(boxes).to_have_count(1)
    notebook.interrupt()
    expect(third.get_by_text(over)).to_have_count(1)
    expect(boxes).to_have_count(0)
    assert page.locator(".jp-Notebook .jp-Cell").count() == 3

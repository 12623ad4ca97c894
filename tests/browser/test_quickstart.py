"""The quickstart and the live view as a user sees them: JupyterLab, Chromium, the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
QUICKSTART = Path(__file__).parents[2] / "notebooks" / "00_quickstart.ipynb"


def write(folder: Path, *cells: str) -> str:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c) for c in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, folder / "test.ipynb")
    return "test.ipynb"


SLOW = '''
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
session = dp.Session(llm=SlowClient("the quick brown fox jumps over the lazy dog " * 20, delay=0.05))
diagram = dp.load("""
version: light
nodes:
- {label: Start, type: start, position: {x: 0, y: 0}}
- {label: Writer, type: person_job, position: {x: 260, y: 0}, person: Anna, default_prompt: Write.}
- {label: End, type: endpoint, position: {x: 520, y: 0}}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: End}
persons:
  Anna: {service: openai, model: m}
""")
'''


@pytest.mark.model
@pytest.mark.parametrize("lab", ["JupyterLab Light", "JupyterLab Dark"], indirect=True, ids=["light", "dark"])
def test_quickstart(lab: Lab, page: Page, shots: Path, request: pytest.FixtureRequest):
    """The whole notebook runs, its run turns into a picture with completed nodes, and nothing is an error."""
    shutil.copy(QUICKSTART, lab.root / "quickstart.ipynb")
    theme = request.node.callspec.id
    notebook = lab.open(page, "quickstart.ipynb")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(theme == "light").lower())
    notebook.run_all()
    expect(page.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
    cells = json.loads(QUICKSTART.read_text())["cells"]
    at = next(i for i, c in enumerate(cells) if "run = dp.start(" in "".join(c["source"]))
    view = notebook.cell(at)
    expect(view.locator("img[alt^='Diagram A short debate, completed']")).to_be_visible(timeout=60_000)
    view.scroll_into_view_if_needed()
    page.screenshot(path=shots / f"quickstart-{theme}.png")
    notebook.cell(at - 2).scroll_into_view_if_needed()
    page.screenshot(path=shots / f"drawing-{theme}.png")
    notebook.shut_down()


@pytest.mark.parametrize("lab", ["JupyterLab Light", "JupyterLab Dark"], indirect=True, ids=["light", "dark"])
def test_live_view_streams_and_stops(lab: Lab, page: Page, shots: Path, request: pytest.FixtureRequest):
    """While it runs: nodes change, tokens appear, the clock goes; Stop stops it, and the picture stays."""
    notebook = lab.open(page, write(lab.root, SLOW, "run = session.start(diagram)\nrun"))
    notebook.start_all()
    view = notebook.cell(1).locator(".dipeo-view")
    expect(view.locator('.node[data-status="running"] .label')).to_have_text("Writer", timeout=60_000)
    expect(view.locator(".dipeo-text")).to_contain_text("quick brown fox")
    expect(view.locator(".dipeo-status")).to_contain_text("running")
    page.screenshot(path=shots / f"live-{request.node.callspec.id}.png")
    view.get_by_role("button", name="Stop").click()
    frozen = notebook.cell(1).locator("img[alt$=', aborted']")
    expect(frozen).to_be_visible(timeout=10_000)
    expect(notebook.output(1)).to_contain_text("stopped by the user")
    page.screenshot(path=shots / f"stopped-{request.node.callspec.id}.png")
    notebook.shut_down()


def test_stop_works_while_the_cell_blocks(lab: Lab, page: Page):
    """`dp.run` blocks its cell; the Stop button of its view ends it all the same."""
    code = "try:\n    session.run(diagram)\nexcept dp.RunError as error:\n    print('ended:', type(error).__name__)"
    notebook = lab.open(page, write(lab.root, SLOW, code))
    notebook.start_all()
    view = notebook.cell(1).locator(".dipeo-view")
    expect(view.locator('.node[data-status="running"] .label')).to_have_text("Writer", timeout=60_000)
    view.get_by_role("button", name="Stop").click()
    expect(notebook.cell(1)).to_contain_text("ended: RunAbortedError", timeout=10_000)
    notebook.shut_down()


def test_selecting_a_node_by_click_and_keyboard(lab: Lab, page: Page):
    """A click or Enter selects the node whose text is shown; keys do not reach the notebook's own commands."""
    notebook = lab.open(page, write(lab.root, SLOW, "run = session.start(diagram)\nrun"))
    notebook.start_all()
    view = notebook.cell(1).locator(".dipeo-view")
    writer = view.locator(".node", has_text="Writer")
    expect(writer).to_have_attribute("aria-pressed", "true", timeout=60_000)
    start = view.locator(".node", has_text="Start")
    start.click()
    expect(start).to_have_attribute("aria-pressed", "true")
    start.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(writer).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("x")
    expect(notebook.cell(1).locator(".dipeo-view")).to_be_visible()
    view.get_by_role("button", name="Stop").click()
    expect(notebook.cell(1).locator("img[alt$=', aborted']")).to_be_visible(timeout=10_000)
    notebook.shut_down()


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
run = dp.start(diagram)
run
'''


def test_a_question_is_a_form_in_the_view(lab: Lab, page: Page, shots: Path):
    """A user_response node of a live run asks in the view; the answer typed there goes on in the run. Markup is text."""
    notebook = lab.open(page, write(lab.root, QUESTION))
    notebook.start_all()
    view = notebook.cell(0).locator(".dipeo-view")
    expect(view.locator(".dipeo-prompt")).to_have_text("What is <b>your</b> name?", timeout=60_000)
    page.screenshot(path=shots / "question.png")
    view.get_by_role("textbox", name="Your answer").fill("Ada x")
    view.get_by_role("button", name="Send").click()
    expect(notebook.output(0)).to_contain_text("Ada x", timeout=10_000)
    expect(notebook.cell(0).locator("img[alt$=', completed']")).to_be_visible()
    notebook.shut_down()


def test_a_blocking_run_asks_with_input(lab: Lab, page: Page):
    """`dp.run` asks in the notebook's own input box."""
    code = QUESTION.replace("run = dp.start(diagram)\nrun", "print('got', dp.run(diagram).output)")
    notebook = lab.open(page, write(lab.root, code))
    notebook.start_all()
    box = notebook.cell(0).locator(".jp-Stdin-input")
    expect(box).to_be_visible(timeout=60_000)
    box.fill("Bob")
    box.press("Enter")
    expect(notebook.cell(0)).to_contain_text("got Bob", timeout=10_000)
    notebook.shut_down()

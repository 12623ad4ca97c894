"""From looking to doing, in JupyterLab: from the view of a run another one is made, noted, copied and compared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import Lab, Notebook
from tests.support.axe import violations
from tests.support.row_diagrams import ASKING_LETTER

pytestmark = [pytest.mark.browser]
_numbers = count()
SETUP = '''
import dipeo_nb as dp
diagram = dp.load("""
version: light
metadata: {name: Letter}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start, custom_data: {topic: tea}}
- {label: Write, type: person_job, person: Ada, default_prompt: "About {{topic}}."}
- {label: Check, type: person_job, person: Ada, default_prompt: "Check {{default}}"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Write}
- {from: Write, to: Check}
- {from: Check, to: End}
""")
'''


@pytest.fixture
def letter(lab: Lab, page: Page) -> Iterator[Notebook]:
    """A notebook whose second cell shows a run that has ended."""
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(s.strip())
            for s in (SETUP, "run = dp.start(diagram)\nrun", "[r.diagram for r in dp.runs()], run.notes")
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    name = f"orders{next(_numbers)}.ipynb"
    nbformat.write(notebook, lab.root / name)
    opened = lab.open(page, name)
    opened.run_cell(0)
    opened.run_cell(1)
    expect(opened.cell(1).locator(".dp-pill")).to_have_text("done")
    yield opened
    opened.shut_down()


def views(notebook: Notebook) -> Locator:
    return notebook.cell(1).locator(".dp-run:visible")


def test_a_prompt_is_edited_and_only_what_depends_on_it_runs_again(letter: Notebook, page: Page, shots: Path) -> None:
    """With the keyboard alone; the new run stands below, has the focus, and is there again when the page is loaded once more."""
    first = views(letter).nth(0)
    first.locator(".dp-node").filter(has_text="Check").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("f")
    page.keyboard.press("Control+a")
    page.keyboard.type("Praise {{default}}")
    page.screenshot(path=shots / "orders-edit.png")
    page.keyboard.press("Control+Enter")
    below = views(letter).nth(1)
    expect(below.locator(".dp-pill")).to_have_text("done")
    expect(below.locator(".dp-body")).to_have_text("[Ada] Praise [Ada] About tea.")
    expect(below.locator(".dp-body")).to_be_focused()
    below.locator(".dp-node").filter(has_text="Write").click()
    expect(below.locator(".dp-foot")).to_contain_text("taken over")
    page.screenshot(path=shots / "orders-fork.png")
    letter.save()
    page.reload(wait_until="domcontentloaded")
    expect(page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".dp-run:visible")).to_have_count(2)


def test_a_node_alone_again_with_other_inputs_a_note_and_a_comparison(letter: Notebook, page: Page, shots: Path) -> None:
    first = views(letter).nth(0)
    first.locator(".dp-node").filter(has_text="Write").click()
    page.keyboard.press("n")
    page.keyboard.type("Too short.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(first.locator(".dp-flag")).to_have_attribute("title", "Too short.")
    expect(first.get_by_role("dialog")).to_have_count(0)
    first.locator(".dp-body").focus()
    page.keyboard.press("y")
    expect(first.get_by_role("dialog", name="As Python")).to_contain_text("dp.chat(")
    page.keyboard.press("Escape")
    expect(first.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("x")
    expect(views(letter).nth(1).locator(".dp-name")).to_have_text("Letter: Write")
    expect(views(letter).nth(1).locator(".dp-pill")).to_have_text("done")
    first.locator(".dp-body").focus()
    page.keyboard.press("r")
    form = first.get_by_role("dialog", name="Run again")
    form.get_by_label("topic").fill("coffee")
    page.screenshot(path=shots / "orders-again.png")
    page.keyboard.press("Enter")
    third = views(letter).nth(2)
    expect(third.locator(".dp-pill")).to_have_text("done")
    third.locator(".dp-body").focus()
    page.keyboard.press("v")
    page.screenshot(path=shots / "orders-others.png")
    page.keyboard.press("Tab")
    third.get_by_role("dialog", name="Compare with").get_by_role("button").filter(has_text="Too short.").click()
    shown = letter.cell(1).locator(".dp-comparison")
    expect(shown.locator(".dp-compared [aria-pressed=true]")).to_contain_text("changed")
    expect(shown.locator("ins").first).to_contain_text("coffee")
    page.screenshot(path=shots / "orders-compared.png")
    page.keyboard.press("Escape")
    expect(shown).to_have_count(0)
    expect(views(letter)).to_have_count(3)
    letter.run_cell(2)
    expect(letter.output(2)).to_contain_text("Too short.")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_that_axe_knows_is_wrong(letter: Notebook, page: Page, shots: Path, theme: str) -> None:
    letter.theme(theme)
    first = views(letter).nth(0)
    first.locator(".dp-node").filter(has_text="Write").click()
    assert violations(page, ".dipeo-host") == []
    for key in ("f", "Escape", "r", "Escape", "v", "Escape", "n", "Escape", "y", "Escape", "?", "Escape"):
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        if key != "Escape":
            page.screenshot(path=shots / f"orders-{key.replace('?', 'keys')}-{theme}.png")
            assert violations(page, ".dipeo-host") == [], key
    letter.theme("light")


def test_a_failure_is_told_once(lab: Lab, page: Page, shots: Path) -> None:
    """The view says why; the exception beside it is one line. Without a view in the cell it has all of it."""
    failing = SETUP.replace(
        'type: person_job, person: Ada, default_prompt: "Check {{default}}"', 'type: code_job, language: python, code: "1 / 0"'
    )
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(s.strip())
            for s in (failing, "dp.run(diagram)", "run = dp.start(diagram); run.wait()", "run.result()")
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    name = f"orders{next(_numbers)}.ipynb"
    nbformat.write(notebook, lab.root / name)
    opened = lab.open(page, name)
    for cell in range(4):
        opened.run_cell(cell)
    error = opened.cell(1).locator('[data-mime-type="application/vnd.jupyter.stderr"]')
    expect(opened.cell(1).locator(".dp-notice")).to_contain_text("Check failed.")
    expect(opened.cell(1).locator(".dp-problem")).to_contain_text("ZeroDivisionError")
    assert len(error.inner_text().strip().splitlines()) == 1, error.inner_text()
    assert "Its view says why." in error.inner_text()
    page.screenshot(path=shots / "failed-once.png")
    expect(opened.cell(3).locator('[data-mime-type="application/vnd.jupyter.stderr"]')).to_contain_text("ZeroDivisionError")
    opened.shut_down()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_runs_open_in_the_history(lab: Lab, page: Page, shots: Path, theme: str) -> None:
    """Each in its own view, the one that is going on, too; another is made from there, two are compared; the table stays where it is."""
    asking = f'going = dp.start(dp.load("""{ASKING_LETTER}"""), view=False)'
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(s.strip())
            for s in (
                f"{SETUP}\ndp.runs(limit=1000).delete()",
                f"dp.start(diagram, view=False, topic='coffee').wait()\ndp.start(diagram, view=False).wait()\n{asking}",
                "dp.runs().live()",
                "going.wait(); going.status",
            )
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    name = f"orders{next(_numbers)}.ipynb"
    nbformat.write(notebook, lab.root / name)
    opened = lab.open(page, name)
    opened.theme(theme)
    for cell in range(3):
        opened.run_cell(cell)
    cell = opened.cell(2)
    rows = cell.locator(".dp-history tbody tr")
    expect(rows.nth(2)).to_be_visible()
    rows.nth(0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    views = cell.locator(".dp-opened .dp-run[data-status]:visible")
    expect(views.nth(0).locator(".dp-asked")).to_contain_text("Good?")
    rows.nth(1).locator("td").nth(3).dblclick()
    expect(views.nth(1).locator(".dp-pill")).to_have_text("done")
    expect(cell.locator(".dp-history")).to_be_visible()
    page.screenshot(path=shots / f"history-{theme}.png", full_page=True)
    views.nth(0).get_by_role("textbox").fill("yes")
    page.keyboard.press("Enter")
    expect(views.nth(0).locator(".dp-pill")).to_have_text("done")
    views.nth(1).locator(".dp-node").filter(has_text="Check").click()
    views.nth(1).locator(".dp-body").focus()
    page.keyboard.press("Home")
    expect(views.nth(1).locator(".dp-where")).to_contain_text("0.0 /")
    page.keyboard.press("End")
    page.keyboard.press("x")
    expect(views.nth(2).locator(".dp-name")).to_have_text("Letter: Check")
    expect(views.nth(2).locator(".dp-pill")).to_have_text("done")
    assert violations(page, ".dp-history") == []
    cell.get_by_role("button", name="Close Letter").first.click()
    expect(views).to_have_count(1)  # with what was made from it
    for box in (cell.get_by_role("checkbox").nth(n) for n in (-1, -2)):
        box.check()
    cell.get_by_role("button", name="Compare").click()
    expect(cell.locator(".dp-comparison")).to_contain_text("topic coffee →")
    page.screenshot(path=shots / f"history-compared-{theme}.png", full_page=True)
    page.keyboard.press("Escape")
    expect(cell.locator(".dp-comparison")).to_have_count(0)
    cell.get_by_role("button", name="Delete 2 runs").click()
    cell.get_by_role("button", name="Delete 2 runs for good?").click()
    expect(cell.get_by_role("checkbox", name="Letter, ")).to_have_count(0)
    opened.run_cell(3)
    expect(opened.output(3)).to_contain_text("completed")
    opened.theme("light")
    opened.shut_down()

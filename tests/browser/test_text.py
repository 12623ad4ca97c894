"""What models say and what tables show, in a real JupyterLab: dollars are dollars, mathematics is mathematics, nothing is live."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.browser.lab import Lab, Notebook

pytestmark = [pytest.mark.browser]
_numbers = count()
SAID = (
    r"The basic plan costs $5 a month and the big one $10; run `echo $HOME and $PATH`, df$x + df$y, US$5. "
    r"Inline \(x^2\) and $y_1$, displayed \[ \frac{a}{b} \] and \x1b[31mred\x1b[0m. " + "w" * 400
)
SETUP = f"""
import dipeo_nb as dp
from dipeo_nb.testing import scripted
said = {SAID!r}.replace("\\\\x1b", "\\x1b")
session = dp.Session(llm=scripted(said))
D = '''
version: light
metadata: {{name: Prices}}
persons: {{Clerk: {{service: openai, model: m}}}}
nodes:
- {{label: Start, type: start, custom_data: {{topic: "$5 and $10"}}}}
- {{label: Price, type: person_job, person: Clerk, default_prompt: "Is {{{{topic}}}} right?"}}
- {{label: Out, type: endpoint}}
connections:
- {{from: Start, to: Price}}
- {{from: Price, to: Out}}
'''
result = session.run(D, view=False)
other = session.run(D.replace("right", "wrong"), view=False)
"""
BROKEN = "session.load(D + '- {from: Price, to: The $5 one and the $10 one}')"
TABLES = (
    BROKEN,
    "result", "result.run", "result.nodes", "result.outputs", "result.conversation", "session.diff(result, other)", "session.runs()",
    "result.explain()", "result.events", "session.llm('openai:m').batch(['$1 or $2?'])",
)  # fmt: skip
WORDS = """
version: light
metadata: {{name: Words}}
persons: {{Clerk: {{service: openai, model: m}}}}
nodes:
- {{label: Start, type: start}}
- {{label: Say, type: person_job, person: Clerk, default_prompt: {prompt}}}
- {{label: Out, type: endpoint}}
connections:
- {{from: Start, to: Say}}
- {{from: Say, to: Out}}
"""
CHAT = "answer = session.chat('How much?')"


@pytest.fixture
def notebook(lab: Lab, page: Page) -> Iterator[Notebook]:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (SETUP, *TABLES, CHAT)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    name = f"text{next(_numbers)}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lab.root / name)
    opened = lab.open(page, name)
    opened.start_all()
    opened.wait()
    yield opened
    opened.shut_down()


def test_dollars_in_tables_and_answers(notebook: Notebook, page: Page, shots: Path):
    """No table holds mathematics; an answer holds that which was written as such, and its prices as text. A word of 400 letters
    makes nothing wider than the page."""
    chat = notebook.output(len(TABLES) + 1).first
    expect(chat.locator("mjx-container")).to_have_count(3)
    expect(chat).to_contain_text(
        "The basic plan costs $5 a month and the big one $10; run echo $HOME and $PATH, df$x + df$y, US$5."
    )
    expect(chat).to_contain_text("and red.")
    for number, what in enumerate(TABLES, 1):
        output = notebook.output(number).last
        output.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        expect(output.locator("mjx-container"), what).to_have_count(0)
        if what == BROKEN:
            expect(output).to_contain_text("The $5 one and the $10 one")
        if what in ("result", "result.run", "result.nodes", "result.outputs", "result.conversation"):
            expect(output, what).to_contain_text("costs $5 a month and the big one $10")
        overflow = output.evaluate("one => one.scrollWidth - one.clientWidth")
        assert overflow <= 1, f"{what} is {overflow} px too wide"
    for theme in ("dark", "light"):
        notebook.theme(theme)
        for number in (3, 7, 8, len(TABLES) + 1):
            notebook.output(number).last.scroll_into_view_if_needed()
            page.wait_for_timeout(200)
            page.screenshot(path=shots / f"text-{number}-{theme}.png")


def test_no_answer_makes_the_static_face_wider(page: Page, tmp_path: Path) -> None:
    """Long words end at the edge, and what cannot be broken, such as a line of code or a table, scrolls: also without the styles of Lab."""
    word = "w" * 400
    said = f"{word}\n\n`{word}`\n\n```\n{word} {word}\n```\n\n| {word} | b |\n|---|---|\n| {word} | plain words |\n\n- {word}\n\n> {word}"
    with Session(tmp_path, llm=scripted(said)) as session:
        html = session.run(WORDS.format(prompt=word), view=False).run._repr_mimebundle_()["text/html"]
    page.set_viewport_size({"width": 600, "height": 600})
    page.set_content(f"<!doctype html><div id='out' style='width:500px;overflow-x:auto'>{html}</div>")
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    expect(page.get_by_text("plain words").first).to_be_visible()
    assert page.locator("#out").evaluate("one => one.scrollWidth - one.clientWidth") <= 1

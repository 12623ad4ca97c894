"""Views live where they stand: in a cell, an Output widget, callbacks, a second tab, after a reload, without their kernel."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, WebSocket, expect

from tests.browser.lab import Lab, Notebook

pytestmark = [pytest.mark.browser]
_numbers = count()
SETUP = '''
import dipeo_nb as dp, ipywidgets as W
from dipeo_nb.testing import SlowClient
slow = dp.Session(llm=SlowClient("the quick brown fox jumps over the lazy dog " * WORDS, delay=0.05))
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
SHORT, LONG = SETUP.replace("WORDS", "8"), SETUP.replace("WORDS", "60")
ENDLESS = SETUP.replace("WORDS", "2000")  # for tests that end it themselves
FOUR = (
    SETUP.replace("WORDS", "60").replace("delay=0.05", "delay=0.002").partition("diagram =")[0]
    + '''
diagram = dp.load("""
version: light
metadata: {name: Four at once}
nodes:
- {label: Start, type: start}
- {label: One, type: person_job, person: Anna, default_prompt: Write.}
- {label: Two, type: person_job, person: Anna, default_prompt: Write.}
- {label: Three, type: person_job, person: Anna, default_prompt: Write.}
- {label: Four, type: person_job, person: Anna, default_prompt: Write.}
- {label: End, type: endpoint}
connections:
- {from: Start, to: One}
- {from: Start, to: Two}
- {from: Start, to: Three}
- {from: Start, to: Four}
- {from: One, to: End}
- {from: Two, to: End}
- {from: Three, to: End}
- {from: Four, to: End}
persons:
  Anna: {service: openai, model: m}
""")
'''
)


class Desk:
    """Opens notebooks of given cells, and ends their kernels."""

    def __init__(self, lab: Lab, page: Page) -> None:
        self.lab = lab
        self.page = page
        self.name = ""
        self.opened: list[Notebook] = []

    def cells(self, *sources: str) -> Notebook:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        self.name = f"views{next(_numbers)}.ipynb"
        nbformat.write(notebook, self.lab.root / self.name)
        self.opened.append(self.lab.open(self.page, self.name))
        return self.opened[-1]

    def saved(self, cell: int) -> list[dict[str, dict[str, str]]]:
        """The outputs of a cell in the file."""
        outputs = json.loads((self.lab.root / self.name).read_text())["cells"][cell]["outputs"]
        return [{"data": {kind: "".join(data) for kind, data in output.get("data", {}).items()}} for output in outputs]

    def reload(self) -> Notebook:
        """Load the page again, as F5 does."""
        self.page.reload(wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        return Notebook(self.page)


@pytest.fixture
def desk(lab: Lab, page: Page) -> Iterator[Desk]:
    made = Desk(lab, page)
    yield made
    for notebook in made.opened:
        notebook.shut_down()


def test_a_view_stays_wherever_it_stands(desk: Desk, page: Page, shots: Path):
    """In a cell, an Output widget, `interact` and the callback of a button a view has the end, and nothing stands there twice."""
    notebook = desk.cells(
        SHORT,
        "slow.run(diagram)",
        "out = W.Output()\ndisplay(out)\nwith out:\n    run = slow.start(diagram)\n    run.show()",
        "W.interact_manual(lambda n: slow.run(diagram) and None, n=(1, 3));",
        "button, box = W.Button(description='Go'), W.Output()\n@box.capture()\ndef go(_):\n    slow.run(diagram)\n"
        "button.on_click(go)\ndisplay(button, box)",
    )
    notebook.start_all()
    notebook.wait()
    notebook.cell(3).get_by_role("button", name="Run Interact").click()
    notebook.cell(4).get_by_role("button", name="Go").click()
    for cell in range(1, 5):
        view = notebook.cell(cell).locator(".dp-run")
        expect(view).to_have_count(1)
        expect(view.locator(".dp-pill")).to_have_text("done")
        expect(view.locator(".dp-body")).to_contain_text("lazy dog")
        expect(notebook.cell(cell).locator("table:visible")).to_have_count(0)
    page.screenshot(path=shots / "views-everywhere.png")
    notebook.save()
    (saved,) = desk.saved(1)
    assert set(saved["data"]) == {"text/html", "image/png", "text/plain"}
    assert "dipeo-final" in saved["data"]["text/html"]
    assert len(json.dumps(saved)) < 120_000


def test_a_view_comes_back_after_a_reload_and_stands_in_a_second_tab(desk: Desk, page: Page):
    """Both see the rest and the end; the notebook that a page saves which was loaded meanwhile holds the end, too."""
    notebook = desk.cells(ENDLESS, "run = slow.start(diagram)\nrun", "run.wait()")
    notebook.run_cell(0)
    notebook.run_cell(1)
    expect(notebook.cell(1).locator(".dp-pill")).to_have_text("running")
    notebook.save()
    other = page.context.new_page()
    second = desk.lab.visit(other, desk.name)
    notebook = desk.reload()
    for each in (notebook, second):
        view = each.cell(1).locator(".dp-run")
        expect(view.locator(".dp-pill")).to_have_text("running")
        expect(view.locator(".dp-body")).to_contain_text("the quick brown fox")
    notebook.cell(1).get_by_role("button", name="Stop").click()
    for each in (notebook, second):
        expect(each.cell(1).locator(".dp-pill")).to_have_text("stopped")
        expect(each.cell(1).locator(".dp-body")).to_contain_text("the quick brown fox")
        expect(each.cell(1).locator(".dipeo-final")).to_be_attached()
    other.close()
    notebook.save()
    (saved,) = desk.saved(1)
    assert "aborted" in saved["data"]["text/plain"]
    assert "the quick brown fox" in saved["data"]["text/html"], "what it had said when it was stopped"


def test_without_its_kernel_a_view_says_so(desk: Desk, page: Page, shots: Path):
    """The kernel is killed: the view says it, offers nothing that cannot work and names the command; so does the file, opened again."""
    notebook = desk.cells(ENDLESS, "run = slow.start(diagram)\nrun\n", "import os; os.kill(os.getpid(), 9)")
    notebook.run_cell(0)
    notebook.run_cell(1)
    view = notebook.cell(1).locator(".dp-run")
    expect(view.locator(".dp-body")).to_contain_text("the quick brown fox")
    page.wait_for_timeout(11_000)  # what a notebook holds of a run that goes on is brought up to date every ten seconds
    notebook.start_cell(2)
    expect(view.locator(".dp-pill")).to_have_text("kernel gone")
    expect(view.locator(".dp-notice")).to_contain_text(re.compile(r"The kernel is gone.*dp\.resume\(.exec_\w+"))
    expect(view.get_by_role("button", name="Stop")).to_be_disabled()
    expect(view.locator(".dp-body")).to_contain_text("the quick brown fox")
    page.locator(".jp-Dialog button").last.click()
    page.screenshot(path=shots / "kernel-gone.png")
    notebook.save()
    (saved,) = desk.saved(1)
    assert re.search(r"dp\.resume\('exec_\w+'\)", saved["data"]["text/html"])
    again = desk.lab.open(page.context.new_page(), desk.name)
    shown = again.output(1)
    expect(shown).to_contain_text("A fox: running")
    expect(shown).to_contain_text("the quick brown fox")
    expect(shown).to_contain_text("dp.resume('exec_")
    assert "not found" not in shown.inner_text()
    again.page.screenshot(path=shots / "reopened.png")
    again.page.close()


def test_the_history_is_live_over_rows_that_need_no_kernel(desk: Desk, page: Page, shots: Path):
    """Sorted and searched in the page, also after a reload; the file has the newest rows, and says nothing of a missing widget."""
    notebook = desk.cells(SHORT, "slow.run(diagram, view=False)\ntable = slow.runs().live()\ntable", "1")
    notebook.start_all()
    notebook.wait()
    live = notebook.cell(1).locator(".dp-history")
    expect(live).to_have_count(1)
    expect(live.locator("tbody tr")).not_to_have_count(0)
    expect(notebook.cell(1).locator("table")).to_have_count(1)
    expect(live.locator("td", has_text="A fox").first).to_have_css("text-align", "start")  # not as in Lab's own tables
    page.screenshot(path=shots / "history.png")
    notebook.save()
    (saved,) = desk.saved(1)
    assert set(saved["data"]) == {"text/html", "text/plain"}
    assert "completed" in saved["data"]["text/html"]
    notebook = desk.reload()
    live = notebook.cell(1).locator(".dp-history")
    live.get_by_label("Search runs").fill("nothing is called so")
    expect(live.get_by_role("status")).to_have_text("No runs")
    desk.opened[-1].shut_down()
    again = desk.lab.visit(page.context.new_page(), desk.name)
    expect(again.output(1)).to_contain_text("completed")
    assert "not found" not in again.output(1).inner_text()
    again.page.close()


def test_an_answer_stands_where_it_was_asked_for(desk: Desk, page: Page):
    """A chat in an Output widget streams and stays; one whose page is loaded again goes on, and ends as Markdown."""
    notebook = desk.cells(
        LONG, "out = W.Output()\ndisplay(out)\nwith out:\n    dp.chat('Hello **you**', model='echo')",
        "import asyncio\ntask = asyncio.create_task(slow.achat('x'))",
    )  # fmt: skip
    notebook.run_cell(0)
    notebook.run_cell(1)
    expect(notebook.cell(1).locator(".dp-chat")).to_contain_text("[echo] Hello you")
    expect(notebook.cell(1).locator(".dp-chat strong")).to_have_text("you")
    expect(notebook.cell(1).locator(".dp-chat-foot")).to_contain_text("no cost")
    notebook.run_cell(2)
    expect(notebook.cell(2).locator(".dp-chat")).to_contain_text("the quick brown fox")
    notebook.save()
    notebook = desk.reload()
    expect(notebook.cell(2).locator(".dp-chat")).to_contain_text("the quick brown fox")
    expect(notebook.cell(2).locator(".jp-RenderedMarkdown small")).to_contain_text("no cost")
    expect(notebook.cell(2).locator(".dp-chat:visible")).to_have_count(0)
    notebook.save()
    (saved,) = desk.saved(2)
    assert set(saved["data"]) == {"text/markdown", "text/plain"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_many_runs_at_once(desk: Desk, page: Page, shots: Path, theme: str):
    """Ten runs: six views and a table, all within one budget of messages and bytes; every one of them ends."""
    notebook = desk.cells(FOUR, "import asyncio\nawait asyncio.gather(*[slow.arun(diagram) for _ in range(10)]);")
    frames: list[tuple[float, int]] = []

    def listen(socket: WebSocket) -> None:
        socket.on(
            "framereceived",
            lambda frame: frames.append((time.monotonic(), len(frame))) if b"comm_msg" in _bytes(frame) else None,
        )

    page.on("websocket", listen)
    desk.page.reload(wait_until="domcontentloaded")
    notebook = Notebook(page)
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    notebook.theme(theme)
    notebook.start_all()
    expect(notebook.cell(1).locator(".dp-runs tbody tr")).to_have_count(4)
    expect(notebook.cell(1).locator(".dipeo-host .dp-bar")).to_have_count(6)
    page.wait_for_timeout(3000)
    page.screenshot(path=shots / f"many-{theme}.png")
    notebook.wait()
    expect(notebook.cell(1).locator(".dp-runs caption")).to_have_text("4 runs, all ended")
    for n in range(6):
        expect(notebook.cell(1).locator(".dp-pill").nth(n)).to_have_text("done")
    # Frames may arrive in a bunch; the budget of each second is tested where they are sent.
    lasted = frames[-1][0] - frames[0][0]
    assert len(frames) <= 40 * lasted
    assert sum(size for _, size in frames) <= 300_000 * (lasted + 2)
    notebook.theme("light")


def test_ten_views_a_reload_a_second_tab_and_a_restart(desk: Desk, page: Page):
    """Ten runs go on; the page is loaded again and a second tab opened in the middle: both have all of them. Then the kernel is restarted:
    no view shows as running any more what has gone."""
    notebook = desk.cells(ENDLESS, "runs = [slow.start(diagram) for _ in range(10)]\nfor run in runs: run.show()")
    notebook.run_cell(0)
    notebook.run_cell(1)
    expect(notebook.cell(1).locator(".dp-runs tbody tr")).to_have_count(4)
    notebook.save()
    other = page.context.new_page()
    second = desk.lab.visit(other, desk.name)
    notebook = desk.reload()
    for each in (notebook, second):
        expect(each.cell(1).locator(".dipeo-host .dp-bar")).to_have_count(6)
        expect(each.cell(1).locator(".dp-runs tbody tr")).to_have_count(4)
        for n in range(6):
            expect(each.cell(1).locator(".dp-pill").nth(n)).to_have_text("running")
            expect(each.cell(1).locator(".dp-body").nth(n)).to_contain_text("the quick brown fox")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    for each in (notebook, second):
        for n in range(6):
            expect(each.cell(1).locator(".dp-pill").nth(n)).to_have_text("kernel gone")
        expect(each.cell(1).locator(".dp-runs caption")).to_contain_text("The kernel is gone")
    other.close()


def _bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_four_streams_at_once(desk: Desk, page: Page, shots: Path, theme: str):
    """Four nodes write 500 words a second each; the view follows, and has all of it at the end."""
    slow = FOUR.replace("* 60", "* 600").replace("SlowClient(", "(model := SlowClient(").replace("delay=0.002", "delay=2)")
    notebook = desk.cells(slow, "run = slow.start(diagram)\nrun", "model.delay = 0.002\n(await run).output")
    notebook.theme(theme)
    notebook.run_cell(0)
    notebook.run_cell(1)
    view = notebook.cell(1).locator(".dp-run")
    expect(view.locator('.dp-node[data-status="running"]')).to_have_count(4)
    notebook.start_cell(2)  # only now do they write so fast: they shall not have ended before the page is ready
    page.wait_for_timeout(3500)
    page.screenshot(path=shots / f"four-{theme}.png")
    expect(view.locator(".dp-pill")).to_have_text("done")
    expect(view.locator('.dp-node[data-status="completed"]')).to_have_count(6)
    page.screenshot(path=shots / f"four-done-{theme}.png")
    notebook.theme("light")

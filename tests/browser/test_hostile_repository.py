"""A hostile repository in a real JupyterLab: its notebook is opened, its diagrams are looked at and run. Nothing leaves or runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, Notebook
from tests.support.hostile_repository import HIDDEN_NAME, Repository, hostile_repository

pytestmark = [pytest.mark.browser]
CELLS = (
    "import dipeo_nb as dp\nlooks = dp.load('looks.light.yaml')\nlooks",
    "looks.mermaid()[:0] or looks.check()[:0] or [d.name for d in map(dp.load, ('code.light.yaml', HIDDEN_NAME))]",
    "dp.runs()",
    "dp.run('prompts.light.yaml')",
    "dp.run('looks.light.yaml', model='echo')",
    "run = dp.open_run(RUN_ID)\nrun",
    "dp.run('code.light.yaml')",
    "run.resume()",
    "dp.start('server.light.yaml')",
    "try:\n    dp.run('hook.light.yaml')\nexcept dp.TrustError as error:\n    caught = error\ncaught",
)
"""What a careful user does after cloning; RUN_ID is the run that came along."""
PANELS = (6, 7, 8, 9)
"""Cells whose diagram is refused with a panel."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with hostile_repository(tmp_path) as made:
        yield made


@pytest.fixture
def desk(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """JupyterLab in the clone, for a user with a key and a home; afterwards nothing has happened."""
    for name in [name for name in os.environ if name.startswith("DIPEO_") and name != "DIPEO_CACHE_DIR"]:
        monkeypatch.delenv(name)
    before = repository.snapshot()
    place = repository.outside.parent
    started = Lab(
        repository.folder,
        {"XDG_CONFIG_HOME": str(place / "config"), "DIPEO_DATA_DIR": str(place / "mine"), "DIPEO_KEYS_STORE": "file"},
    )
    try:
        yield started
    finally:
        started.close()
    assert repository.ran == []
    assert repository.canary.heard == []
    assert repository.snapshot() == before


def broken(page: Page) -> Any:
    """How often a script of the repository ran in the page."""
    return page.evaluate("() => window.broken || 0")


def test_its_notebook_is_opened(desk: Lab, page: Page, shots: Path) -> None:
    """Stored outputs and stored widgets of somebody else: no script of them runs."""
    desk.open(page, "results.ipynb")
    page.wait_for_timeout(3000)
    page.screenshot(path=shots / "hostile-stored.png")
    assert broken(page) == 0


def test_its_diagrams_are_looked_at_and_run(desk: Lab, repository: Repository, page: Page, shots: Path) -> None:
    """Prompts only: they run, and no script of theirs does. What wants more is a panel with the list and the lines to copy, in
    light and dark, and no question."""
    sources = [cell.replace("RUN_ID", repr(repository.run_id)).replace("HIDDEN_NAME", repr(HIDDEN_NAME)) for cell in CELLS]
    name = "mine.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources], metadata=metadata),
        repository.folder / name,
    )
    notebook: Notebook = desk.open(page, name)
    for number in range(len(CELLS)):
        notebook.run_cell(number)
    expect(page.locator(".jp-Stdin-input")).to_have_count(0)
    assert broken(page) == 0
    for number in PANELS:
        panel = notebook.output(number).locator("section[role=alert]")
        expect(panel).to_have_count(1)
        expect(panel).to_contain_text('trust="')
    expect(notebook.output(6).locator("section[role=alert]")).to_contain_text(f'dp.trust("{repository.folder}")')
    expect(notebook.output(3).last).to_contain_text("done")
    for theme in ("dark", "light"):
        notebook.theme(theme)
        for number in (6, 7):
            notebook.output(number).first.scroll_into_view_if_needed()
            page.wait_for_timeout(300)
            page.screenshot(path=shots / f"hostile-{number}-{theme}.png")
            overflow = notebook.output(number).first.evaluate("one => one.scrollWidth - one.clientWidth")
            assert overflow <= 1
    notebook.shut_down()

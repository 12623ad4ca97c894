"""What a run's view orders, in a page of its own, with nothing that axe-core finds wrong, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from tests.support.axe import violations
from tests.support.run_view import REFUSED, golden, of_start, replies, show

pytestmark = pytest.mark.browser


@pytest.fixture
def open_run(page: Page) -> Any:
    def opened(theme: str = "light", width: int = 900) -> None:
        events = golden("debate.light.yaml")
        show(page, of_start(events, live=False), events, theme=theme, width=width, height=700)
        page.evaluate("(replies) => { window.replies = replies; }", replies())
        page.locator("[data-node='node_1']").click()
        page.locator(".dp-body").focus()

    return opened


STATES = {
    "edit": ("f",), "again": ("r",), "others": ("v",), "compared": ("v", "Enter"), "python": ("y",), "note": ("n",), "keys": ("?",),
    "refused": ("x",), "menu": (), "node-menu": (),
}  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [480, 760, 1600])
def test_axe_finds_nothing_wrong_and_nothing_is_cut_off(page: Page, open_run: Any, shots: Path, width: int, theme: str) -> None:
    for state, keys in STATES.items():
        open_run(theme, width)
        page.evaluate("(refused) => { window.replies.alone = refused; }", REFUSED)
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(60)
        if state.endswith("menu"):
            page.locator(".dp-panel-head summary" if state == "node-menu" else ".dp-bar summary").click()
        page.wait_for_timeout(250)  # colours that change softly
        page.screenshot(path=shots / f"orders-{state}-{width}-{theme}.png")
        assert violations(page, "main") == [], state
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state


def test_what_is_refused_is_shown_and_can_be_allowed(page: Page, open_run: Any) -> None:
    """The list of what it wants, and a button that says yes to exactly that; texts of it are never markup."""
    open_run()
    page.evaluate(
        "(refused) => { window.replies.alone = refused; }", {**REFUSED, "listing": ["<img src=x onerror='window.hacked=1'>"]}
    )
    page.keyboard.press("x")
    notice = page.locator(".dp-notice")
    expect(notice).to_contain_text("It runs code that you have not approved.")
    expect(notice.locator("li")).to_have_text("<img src=x onerror='window.hacked=1'>")
    page.evaluate("() => { window.replies.alone = { shows: 'v2' }; }")
    notice.get_by_role("button", name="Allow exactly this").click()
    expect(notice).to_be_hidden()
    expect(page.locator(".dp-toast")).to_have_text("A new run begins below.")
    assert page.evaluate("sent.at(-1)") == {"what": "alone", "node": "node_1", "of": 2, "trust": "abc-123"}
    assert page.evaluate("window.hacked") is None


def test_what_cannot_be_ordered_is_not_offered(page: Page) -> None:
    """In a saved file, of a run that goes on, and when the kernel has gone."""
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False, can=[]), events)
    page.locator("[data-node='node_1']").click()
    expect(page.locator(".dp-panel-head .dp-menu")).to_be_hidden()
    page.locator(".dp-body").focus()
    for key in "fxynrv":
        page.keyboard.press(key)
    assert page.evaluate("sent") == []
    show(page, of_start(events, live=True), events[:20])
    page.locator("[data-node='node_1']").click()
    expect(page.locator(".dp-panel-head .dp-menu")).to_be_visible()
    page.evaluate("view.gone()")
    expect(page.locator(".dp-panel-head .dp-menu")).to_be_hidden()

"""What a run's view orders, in a page of its own: by keyboard alone, with nothing that axe-core finds wrong, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.execution.run_comparison import comparison
from dipeo_nb.execution.run_state import RunState
from tests.support.axe import violations
from tests.support.run_view import golden, of_start, show

pytestmark = pytest.mark.browser
REFUSED = {
    "error": "It runs code that you have not approved.",
    "listing": ["Runs Python in 'Mark'", "Reads data/*.csv"],
    "pin": "abc-123",
}


def replies() -> dict[str, Any]:
    """What a kernel would answer, of a real run and a made-up history."""
    before = golden("debate.light.yaml")
    said = [
        event._replace(payload={**event.payload, "output": "Something else entirely."}) if event.type == "node_completed" and event.seq > 30 else event
        for event in before
    ]  # fmt: skip
    row = {"run_id": "exec_77777777", "short_id": "77777777", "diagram": "Debate", "status": "completed", "duration_s": 3.2, "cost_usd": 0.012, "model": "gpt-5", "inputs": "topic=tabs", "note": ""}  # fmt: skip
    return {
        "inputs": {
            "model": None,
            "inputs": [
                {"name": "topic", "value": "tabs or spaces", "default": None, "kind": "text"},
                {"name": "rounds", "value": 3, "default": 3, "kind": "number"},
                {"name": "loud", "value": False, "default": False, "kind": "boolean"},
                {"name": "style", "value": {"tone": "dry"}, "default": None, "kind": "json"},
            ],
        },
        "runs": {"runs": [row, {**row, "run_id": "exec_8", "short_id": "8", "status": "failed", "note": "Too long from here on, and it repeats itself again and again."}]},
        "compare": comparison(RunState.fold(before), RunState.fold(said)),
        "copy": {"text": '"""As run exec_1 did."""\n\nimport dipeo_nb as dp\n\nprint("hello")\n'},
    }  # fmt: skip


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


def test_every_order_with_the_keyboard_alone(page: Page, open_run: Any) -> None:
    """Each is given, and what it needs is filled in, without a pointer; keys in a sheet do nothing behind it."""
    open_run()
    page.keyboard.press("f")
    page.keyboard.press("Control+a")
    page.keyboard.type("Praise it.")
    page.keyboard.press("Control+Enter")
    page.locator(".dp-body").focus()
    page.keyboard.press("x")
    page.keyboard.press("y")
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("import dipeo_nb")
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    expect(page.locator(".dp-live")).to_have_attribute("aria-pressed", "true")  # the j did not move the cursor
    page.keyboard.press("n")
    page.keyboard.type("See here.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(sheet).to_have_count(0)
    page.keyboard.press("r")
    expect(sheet.get_by_label("topic")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("coffee")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type('{"tone": ')
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(sheet.get_by_role("alert")).to_have_text("style is not valid JSON.")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type('"wet"}')
    page.keyboard.press("Tab")
    page.keyboard.type("gpt-5")
    page.keyboard.press("Enter")
    expect(sheet).to_have_count(0)
    page.keyboard.press("v")
    expect(sheet.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".dp-comparison").get_by_role("heading", level=2)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Back to the run")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".dp-comparison")).to_have_count(0)
    expect(page.locator(".dp-body")).to_be_focused()  # where `v` was pressed
    page.locator(".dp-bar summary").focus()
    page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(sheet).to_contain_text("import dipeo_nb")
    page.keyboard.press("Escape")
    node = {"node": "node_1", "of": 2}
    assert page.evaluate("sent") == [
        {"what": "fork", **node, "prompt": "Praise it."},
        {"what": "alone", **node},
        {"what": "copy", "as": "python", **node},
        page.evaluate("sent[3]"),
        {"what": "inputs"},
        {"what": "again", "inputs": {"topic": "coffee", "loud": True, "style": {"tone": "wet"}}, "model": "gpt-5"},
        {"what": "runs"},
        {"what": "compare", "run": "exec_77777777"},
        {"what": "copy", "as": "test"},
    ]
    assert page.evaluate("sent[3]")["text"] == "See here."


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

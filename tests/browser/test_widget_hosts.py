"""The widget in front ends other than JupyterLab: they import its script as a text, and put each widget into a place of its own."""

from __future__ import annotations

import asyncio
import queue
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.notebook.session import Session
from tests.support.row_diagrams import ASKS

pytestmark = pytest.mark.browser
HOST = """async ([esm, css, state, closed]) => {
    const heard = {}, place = document.body.appendChild(document.createElement("div"));
    const root = closed ? place.attachShadow({ mode: "open" }) : place, el = root.appendChild(document.createElement("div"));
    root.appendChild(document.createElement("style")).textContent = css;
    const model = {
        get: (name) => state[name], set() {}, save_changes() {},
        on: (event, take) => { (heard[event] ??= []).push(take); }, off() {},
        send: (message) => { say(message); },
    };
    window.hosts = [...(window.hosts ?? []), (message) => { for (const take of heard["msg:custom"]) take(message); }];
    const { default: widget } = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
    await widget.initialize({ model });
    await widget.render({ model, el });
}"""

FOCUSED = """() => {
    let at = document.activeElement;
    while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
    return at.closest(".dp-run")?.className ?? at.tagName;
}"""


@pytest.mark.parametrize("closed", [False, True], ids=["colab", "marimo"])
def test_a_run_is_followed_and_answered(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    """The script comes from a Blob; marimo closes the place off from the page, so that nothing in it can be found from outside."""
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    page.goto("about:blank")
    with Session(tmp_path) as session:
        run = session.start(ASKS)
        opened = session.runtime.initialize

        async def slowly() -> None:
            await asyncio.sleep(2 * (not closed))
            await opened()

        monkeypatch.setattr(
            session.runtime, "initialize", slowly
        )  # a slow disk: the page asks before there is something to show
        widget = run._display_()
        widget.send = lambda content, buffers=None: told.put(content)
        page.expose_function("say", lambda message: widget._handle_custom_msg(message, []))
        state = {"token": widget.token, "shows": widget.shows}
        page.evaluate(HOST, [widget._esm, widget._css, state, closed])

        def pills(texts: list[str]) -> None:
            until = time.monotonic() + 60
            while page.locator(".dp-pill").all_inner_texts() != texts:
                assert time.monotonic() < until, page.locator(".dp-pill").all_inner_texts()
                if told.empty():
                    page.wait_for_timeout(20)  # what the page says is only heard within a call of Playwright
                else:
                    page.evaluate("message => hosts.forEach((take) => take(message))", told.get())

        pills(["waits for you"])
        page.locator(".dp-question input").fill("Ada")
        page.keyboard.press("Enter")
        pills(["done"])
        assert run.result().output == "Ada"
        assert run._display_() is widget
        expect(page.locator(".dp-run")).to_have_css("border-radius", "8px")
        assert page.evaluate(FOCUSED).startswith("dp-"), "the field is gone, the focus stays in the view"
        tabs = page.locator("[role=tab]:visible")
        tabs.first.focus()
        page.keyboard.press("ArrowRight")
        expect(tabs.nth(1)).to_be_focused()
        expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
        for kind, seen in (("dropped", []), ("again", ["done"])):  # a kernel keeps some runs; one may be displayed once more
            told.put({"type": kind, "id": widget.shows})
            pills(seen)


def test_without_a_view_it_is_static(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        run = session.start(ASKS, view=False, answers={"Name": "Ada"})
        run.result()
        assert "Asks" in run._display_()._repr_html_()

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

from dipeo_nb.domain.diagram import DomainDiagram, DomainNode
from dipeo_nb.execution import run_page
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


def told(page: Page, *messages: dict[str, Any]) -> None:
    page.evaluate("messages => { for (const message of messages) for (const take of hosts) take(message); }", list(messages))


def asked_of(page: Page, said: list[Any], count: int) -> dict[str, Any]:
    """The last of so many questions of the page."""
    until = time.monotonic() + 60
    while len(said) < count:
        assert time.monotonic() < until, said
        page.wait_for_timeout(20)
    assert len(said) == count, said
    return said[-1]


def test_answers_that_are_lost_late_or_double(page: Page) -> None:
    """A page asks again from where something is missing, also for an end that it has not heard of; nothing stands in its view twice."""
    said: list[Any] = []
    page.goto("about:blank")
    page.expose_function("say", lambda message: said.append(message))
    page.evaluate(HOST, [run_page.script("widget.js"), run_page.styles(), {"token": "t", "shows": "v1"}, False])
    question = asked_of(page, said, 1)
    assert (question["type"], question["seq"]) == ("since", 0)
    diagram = DomainDiagram((DomainNode("a", "person_job", "Say"),), ())
    reply = {"type": "reply", "id": "v1", "to": question["page"]}
    head = {"kind": "run", **run_page.head_of("exec_1", diagram, live=True, can=["since"])}

    def words(first: int, last: int) -> list[Any]:
        text = "".join(f"w{n} " for n in range(first, last + 1))
        return [
            last,
            "node_output",
            1001.0,
            "a",
            {"kind": "text", "text": text, "is_partial": True, "pieces": last - first + 1},
        ]

    begun = [
        [1, "execution_started", 1000.0, None, {"diagram": "D", "labels": {"a": "Say"}}],
        [2, "node_started", 1000.0, "a", {"run": 1, "inputs": {}}],
    ]
    done = {**reply, "done": True, "live": True, "now": 1.0}
    told(
        page,
        {**reply, "done": False, "head": head, "after": 0, "last": 2, "rows": begun},
        {**reply, "done": False, "after": 4, "last": 6, "rows": [words(5, 6)]},  # the part before this one was lost
        {**done, "after": 6, "last": 6},
    )
    assert asked_of(page, said, 2)["seq"] == 2
    told(
        page,
        {**reply, "done": False, "after": 2, "last": 4, "rows": [words(3, 4)]},
        {**reply, "done": False, "after": 2, "last": 5, "rows": [words(3, 5)]},  # of an answer to a question before
        {**reply, "done": False, "after": 4, "last": 6, "rows": [words(5, 6)]},
        {**done, "after": 6, "last": 6},
    )
    expect(page.locator(".dp-body")).to_have_text("w3 w4 w5 w6")
    told(page, {"type": "tick", "parts": [], "now": {"v1": 2.0, "v2": 1.0}})
    told(page, {"type": "tick", "parts": [], "now": {"v2": 2.0}})  # that v1 has ended was lost
    assert asked_of(page, said, 3)["seq"] == 6
    end = [7, "execution_completed", 1003.0, None, {"status": "completed", "outputs": {}}]
    told(page, {**reply, "done": False, "after": 6, "last": 7, "rows": [end]}, {**done, "after": 7, "last": 7, "live": False})
    expect(page.locator(".dp-pill")).to_have_text("done")
    told(page, {"type": "tick", "parts": [], "now": {"v2": 3.0}})
    page.wait_for_timeout(100)
    assert len(said) == 3


def test_a_kernel_that_is_silent_is_asked_whether_it_is_there(page: Page) -> None:
    """It may have been away, with all that it said meanwhile, and have nothing more to say."""
    said: list[Any] = []
    page.clock.install()
    page.goto("about:blank")
    page.expose_function("say", lambda message: said.append(message))
    page.evaluate(HOST, [run_page.script("widget.js"), run_page.styles(), {"token": "t", "shows": "v1"}, False])
    question = asked_of(page, said, 1)
    diagram = DomainDiagram((DomainNode("a", "person_job", "Say"),), ())
    head = {"kind": "run", **run_page.head_of("exec_1", diagram, live=True, can=["since"])}
    begun = [1, "execution_started", 1000.0, None, {"diagram": "D", "labels": {"a": "Say"}}]
    reply = {"type": "reply", "id": "v1", "to": question["page"], "done": True, "now": 1.0}
    told(page, {**reply, "head": head, "after": 0, "last": 1, "rows": [begun], "live": True})
    expect(page.locator(".dp-pill")).to_have_text("running")
    page.clock.run_for(8_000)
    expect(page.locator(".dp-pill")).to_have_attribute("data-state", "gone")
    assert asked_of(page, said, 2)["seq"] == 1
    end = [2, "execution_completed", 1003.0, None, {"status": "completed", "outputs": {}}]
    told(page, {**reply, "after": 1, "last": 2, "rows": [end], "live": False})
    expect(page.locator(".dp-pill")).to_have_text("done")


def test_two_tables_of_one_history(page: Page) -> None:
    """As in two tabs: both get every answer, and each takes its own; what was not answered is asked for again."""
    said: list[Any] = []
    page.goto("about:blank")
    page.expose_function("say", lambda message: said.append(message))
    for _ in range(2):
        page.evaluate(HOST, [run_page.script("history_widget.js"), run_page.styles(), {"token": "t"}, False])
    asked_of(page, said, 2)
    row = {"run_id": "exec_1", "short_id": "1", "diagram": "Mine", "status": "completed", "started_at": 1000.0}
    told(page, {"id": said[1]["id"], "total": 1, "runs": [row]})
    expect(page.get_by_role("button", name="Mine")).to_have_count(1)
    told(page, {"id": said[0]["id"], "error": "The database is locked."})
    expect(page.get_by_role("alert").filter(has_text="locked")).to_have_count(1)
    told(page, {"id": asked_of(page, said, 3)["id"], "total": 1, "runs": [row]})
    expect(page.get_by_role("button", name="Mine")).to_have_count(2)
    expect(page.get_by_role("alert").filter(has_text="locked")).to_have_count(0)


def test_without_a_view_it_is_static(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        run = session.start(ASKS, view=False, answers={"Name": "Ada"})
        run.result()
        assert "Asks" in run._display_()._repr_html_()

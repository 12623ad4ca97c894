"""A script for the keyboard alone that does all that the view of a run can do: no pointer, and never a lost focus."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from tests.support.keyboard import Keyboard
from tests.support.run_view import CAN, REFUSED, golden, of_start, push, replies, show

pytestmark = pytest.mark.browser
RUN = "exec_0123456789abcdef"
FIRST_TURN, SECOND_TURN = (4, 19), (38, 68)
"""The events with which the two runs of Sunny in the debate begin and end."""


def test_every_action_with_the_keyboard_alone(page: Page) -> None:
    """The replayed run and all that is ordered of it, a run that goes on and asks, a batch of sub-diagrams, a large diagram."""
    keys = Keyboard(page)
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False), events)
    page.evaluate("(replies) => { window.replies = replies; }", replies())
    page.evaluate(
        "() => { window.leaked = []; document.addEventListener('keydown', (e) => e.ctrlKey || /Tab|Shift/.test(e.key) || leaked.push(e.key)); }"
    )
    _the_drawing(page, keys)
    _the_panel(page, keys)
    _the_moment(page, keys, len(events))
    _the_log(page, keys)
    _orders(page, keys)
    _comparison(page, keys)
    _sheet_and_menu(page, keys)
    _note_on_a_range(page, keys, events)
    assert page.evaluate("leaked") == []  # the notebook's own keys stay out of it
    _questions(page, keys)
    _stopped(page, keys, events)
    _sub_diagrams(page, keys, events)
    _large_diagram(page, keys)


def _sent(page: Page) -> list[dict[str, Any]]:
    """What the view has asked for since it was asked last."""
    return page.evaluate("() => sent.splice(0)")


def _at(page: Page, seq: int, of: int) -> None:
    expect(page.locator(".dp-run:visible .dp-seq")).to_have_text(f"event {seq} of {of}")


def _moved(page: Page, keys: Keyboard, *pressed: str) -> None:
    """Each of the keys shows another part of the drawing, or another size of it."""
    drawing = page.locator(".dp-run:visible .dp-drawing")
    for key in pressed:
        before = drawing.get_attribute("viewBox") or ""
        keys.press(key)
        expect(drawing).not_to_have_attribute("viewBox", before)


def _the_drawing(page: Page, keys: Keyboard) -> None:
    """From the start of the page: between nodes, zoomed, moved, shown whole; a node is chosen."""
    keys.to(r"^Editor .*done")
    keys.to("^Sunny ", "ArrowUp", most=1)
    keys.press("Enter")
    expect(page.locator(".dp-who")).to_have_text("Sunny")
    expect(page.locator(".dp-follow")).to_be_visible()
    whole = page.locator(".dp-drawing")
    keys.press("0")
    fitted = whole.get_attribute("viewBox") or ""
    _moved(page, keys, "+", "+", "-", "Shift+ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft", "Shift+ArrowRight")
    keys.to("Zoom out")
    _moved(page, keys, "Enter", "Shift+ArrowRight")
    keys.to("Show all of it")
    keys.press("Enter")
    expect(whole).to_have_attribute("viewBox", fitted)
    keys.to("Zoom in")
    _moved(page, keys, "Space")
    for _ in range(4):
        keys.press("+")
    for _ in range(12):
        keys.press("Shift+ArrowRight")  # so far that Sunny is out of sight
    keys.press("g")
    assert keys.focus.name.startswith("Sunny ")  # and in sight again, or `press` would have failed


def _the_panel(page: Page, keys: Keyboard) -> None:
    """Runs of a node in a loop, two of them side by side, and each tab with what can be done there."""
    which, words = page.locator(".dp-pager .dp-num"), page.locator(".dp-words :is(ins, del)")
    keys.to("^Earlier run")
    keys.press("Enter")
    expect(which).to_have_text("run 1 of 2")
    keys.press("]")
    expect(which).to_have_text("run 2 of 2")
    keys.to("^Compare with the run before")
    keys.press("Space")
    expect(words.first).to_be_visible()
    keys.press("d")
    expect(words).to_have_count(0)
    keys.press("d")
    keys.press("[")
    expect(which).to_have_text("run 1 of 2")
    keys.press("]", "d")

    keys.to("^Answer")
    for name in ("Prompt", "Memory", "Inputs", "Calls", "Log", "Answer"):
        keys.press("ArrowRight")
        assert keys.focus.name.startswith(name)
        assert keys.focus.role == "tab"
        expect(page.get_by_role("tab", selected=True)).to_contain_text(name)
    keys.press("End")
    expect(page.get_by_role("tab", selected=True)).to_contain_text("Log")
    keys.press("Home")
    for key, name in zip("pmicoa", ("Prompt", "Memory", "Inputs", "Calls", "Log", "Answer"), strict=True):
        keys.press(key)
        assert keys.focus.name.startswith(name)
        expect(page.get_by_role("tab", selected=True)).to_contain_text(name)

    keys.press("p")
    keys.to("^Edit and run from here")
    keys.press("Enter")
    assert keys.focus.role == "textbox"
    keys.press("Escape")
    keys.press("c")
    keys.to("model")  # what a call took, folded and unfolded
    keys.press("Enter")
    expect(page.locator(".dp-call[open]")).to_have_count(0)
    keys.press("Enter")
    expect(page.locator(".dp-call[open]")).to_have_count(1)
    keys.press("o")
    keys.to("Sunny starts")
    keys.press("Enter")
    _at(page, SECOND_TURN[0], 154)
    keys.press("l", "i")
    keys.to("^Said enough")
    keys.press("Enter")
    expect(page.locator(".dp-who")).to_have_text("Said enough?")
    keys.press("Escape")
    expect(page.locator(".dp-follow")).to_be_hidden()


def _the_moment(page: Page, keys: Keyboard, last: int) -> None:
    """The timeline is scrubbed, the run is played at each speed and stopped, and the end is followed again."""
    end = page.locator(".dp-live")
    keys.to("^Moment of the run")
    assert keys.focus.role == "slider"
    keys.press("ArrowLeft", "ArrowDown")
    _at(page, last - 2, last)
    keys.press("PageDown")
    _at(page, last - 12, last)
    keys.press("ArrowRight", "ArrowUp", "PageUp", "End")
    expect(end).to_have_attribute("aria-pressed", "true")
    keys.press("Home")
    _at(page, 0, last)
    keys.to("^Next event")
    keys.press("Enter", "Space")
    _at(page, 2, last)
    keys.press("Shift+Tab")
    keys.to("^Event before", "Shift+Tab")
    keys.press("Enter")
    _at(page, 1, last)
    keys.to("^Play")
    keys.press("Enter")
    assert keys.focus.name.startswith("Pause")
    expect(page.locator(".dp-seq")).not_to_have_text(f"event 1 of {last}")
    keys.press("Enter")
    assert keys.focus.name.startswith("Play")
    where = page.locator(".dp-where").inner_text()
    page.wait_for_timeout(300)
    expect(page.locator(".dp-where")).to_have_text(where)
    for speed in ("1 times", "10 times", "100 times"):
        keys.to(f"^{speed}")
        keys.press("Space")
        expect(page.get_by_role("button", name=re.compile(f"^{speed}"))).to_have_attribute("aria-pressed", "true")
    for key, speed in ("1", "1×"), ("2", "10×"), ("3", "100×"):
        keys.press(key)
        expect(page.locator(".dp-rate[aria-pressed=true]")).to_have_text(speed)
    keys.press("k")
    expect(end).to_have_attribute("aria-pressed", "true")  # played to the end
    keys.press("j", "j", ";")
    _at(page, last - 1, last)
    keys.to("^END")
    keys.press("Enter")
    expect(end).to_have_attribute("aria-pressed", "true")
    keys.press("Home", "t")
    assert keys.focus.role == "slider"
    keys.press("l")


def _the_log(page: Page, keys: Keyboard) -> None:
    """Found by kind, node and text; from row to row, an event's payload is opened, and the view goes to another one."""
    found, rows = page.locator(".dp-filters [role=status]"), page.locator(".dp-what")
    keys.press("e")
    keys.to("^Log", "Tab")
    keys.press("Enter")
    expect(page.locator(".dp-log[open]")).to_have_count(0)
    keys.press("Enter")
    keys.to("^Kind of event")
    keys.press("ArrowDown", "ArrowDown")
    expect(page.locator(".dp-filters select").first).to_have_value("node_output")
    expect(found).to_have_text(re.compile("event"))
    keys.press("Home")
    keys.to("^Node")
    keys.press("ArrowDown", "ArrowDown")
    expect(rows.filter(has_not_text="Sunny")).to_have_count(0)
    expect(rows.filter(has_text="Sunny").first).to_be_visible()
    keys.press("Home")
    expect(found).to_be_empty()
    keys.to("^Events")
    keys.press("e", "/")
    assert keys.focus.role == "searchbox"
    keys.type("grumpy")
    expect(found).to_have_text(re.compile(r"^[1-9]\d* event"))
    keys.press("Control+a", "Delete")
    keys.to("^Events")
    keys.press("Home")
    keys.press("ArrowDown", "ArrowDown")
    assert "Topic done" in keys.focus.name
    keys.press("Enter")
    expect(page.locator(".dp-payload")).to_contain_text('"status": "completed"')
    keys.to("^Payload")
    keys.press("Shift+Tab")
    keys.press("End")
    assert "Run done" in keys.focus.name
    keys.press("Home", "ArrowDown", "ArrowDown")
    keys.press("Enter")
    expect(page.locator(".dp-payload")).to_be_hidden()
    keys.press("PageDown", "PageUp", "ArrowDown", "ArrowLeft")
    assert keys.focus.name == "Event 4: go there"
    keys.press("Enter")
    _at(page, 4, 154)
    keys.press("ArrowRight", "ArrowUp")
    assert "Topic done" in keys.focus.name
    keys.press("e")  # closed with the focus inside
    expect(page.locator(".dp-log[open]")).to_have_count(0)
    keys.press("l")


def _orders(page: Page, keys: Keyboard) -> None:
    """From looking to doing: by shortcut, and by the menu of the node. Keys in a sheet do nothing behind it."""
    sheet, node = page.get_by_role("dialog"), {"node": "node_1", "of": 2}
    _sent(page)
    keys.press("g")
    keys.to("^Sunny ", "ArrowUp", most=1)
    keys.press("Space", "f")
    keys.type("Praise it.", instead=True)
    keys.press("Control+Enter", "x", "y")
    expect(sheet).to_contain_text("import dipeo_nb")
    keys.press("j", "Escape")
    expect(sheet).to_have_count(0)
    expect(page.locator(".dp-live")).to_have_attribute("aria-pressed", "true")  # the j did not move the moment
    copied = {"what": "copy", "as": "python", **node}
    assert _sent(page) == [{"what": "fork", **node, "prompt": "Praise it."}, {"what": "alone", **node}, copied]

    keys.press("p")
    keys.to("^Edit and run from here")
    keys.press("Enter")
    keys.type("Shorter.", instead=True)
    keys.press("Tab")
    assert keys.focus.name == "Run from here"
    keys.press("Enter")
    assert _sent(page) == [{"what": "fork", **node, "prompt": "Shorter."}]

    for steps, order in (2, {"what": "fork", **node}), (3, {"what": "alone", **node}), (4, copied):
        keys.press("g")
        keys.to("^What can be done with this node")
        keys.press("Enter", *["ArrowDown"] * steps, "Enter")
        if order is copied:
            assert keys.focus.name == "Copy"
            keys.press("Enter")
            expect(sheet.get_by_role("status")).to_have_text("Copied.")
            keys.press("Escape")
        assert keys.focus.name == "What can be done with this node"
        assert _sent(page) == [order]
    keys.press("Enter", "ArrowDown", "Enter")
    assert keys.focus.role == "textbox"  # of its prompt
    keys.press("Escape")

    page.evaluate("(refused) => { window.replies.alone = refused; }", REFUSED)
    keys.press("x")
    keys.to("^Allow exactly this", "Shift+Tab")
    page.evaluate("() => { delete window.replies.alone; }")
    keys.press("Enter")
    expect(page.locator(".dp-notice")).to_be_hidden()
    assert _sent(page) == [{"what": "alone", **node}, {"what": "alone", **node, "trust": REFUSED["pin"]}]
    keys.press("Escape")


def _comparison(page: Page, keys: Keyboard) -> None:
    """Another run is chosen, its nodes are looked at, and the view is where it was."""
    compared = page.locator(".dp-comparison")
    keys.press("t", "v")
    keys.press("Tab", "Shift+Tab", "Enter")
    expect(compared.get_by_role("heading", level=2)).to_be_focused()
    keys.to("Grump changed")
    keys.press("Enter")
    expect(compared.locator(".dp-who")).to_have_text("Grump")
    expect(compared.locator(".dp-body :is(ins, del)").first).to_be_visible()
    keys.to("^Back to the run", "Shift+Tab")
    keys.press("Enter")
    expect(compared).to_have_count(0)
    assert keys.focus.name == "Moment of the run"  # where `v` was pressed
    assert _sent(page) == [{"what": "runs"}, {"what": "compare", "run": "exec_77777777"}]
    keys.press("v", "Enter")
    expect(compared).to_have_count(1)
    keys.press("Escape")
    expect(compared).to_have_count(0)
    assert keys.look().name == "Moment of the run"
    _sent(page)


def _sheet_and_menu(page: Page, keys: Keyboard) -> None:
    """The keys are listed; the menu's entries, what is copied being what is pasted; the run is begun again with other inputs."""
    sheet, quiet = page.get_by_role("dialog"), page.locator(".dp-quiet select")
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    keys.to("^A screen reader is told of", "Shift+Tab")
    keys.press("End")
    expect(quiet).to_have_value("all")
    keys.press("Escape")
    assert keys.focus.name == "Moment of the run"
    keys.to("^Menu$|^More$", "Shift+Tab")
    entries = page.locator(".dp-bar .dp-item:visible")
    keys.press("Enter")
    names = [name.split("\n")[0] for name in entries.all_inner_texts()]
    keys.press("ArrowUp", "Escape")
    expect(entries).to_have_count(0)

    def choose(entry: str) -> None:
        keys.press("Enter", *["ArrowDown"] * (next(i for i, name in enumerate(names) if name.startswith(entry)) + 1))
        assert keys.focus.name.startswith(entry)
        keys.press("Enter")

    for entry, text in ("Copy the id", RUN), ("Copy dp.open_run", f'dp.open_run("{RUN}")'):
        choose(entry)
        expect(page.locator(".dp-toast")).to_have_text("Copied.")
        choose("Write a note")
        assert keys.focus.role == "textbox"
        keys.press("Control+v")
        expect(sheet.locator("textarea")).to_have_value(text)
        keys.press("Escape")
    for entry in "Copy as Python", "Copy as a test":
        choose(entry)
        expect(sheet).to_contain_text("import dipeo_nb")
        keys.press("Escape")
    choose("Keys")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    keys.press("Shift+Tab", "Home", "Escape")
    choose("Compare with another run")
    keys.to("^Close$")
    keys.press("Enter")
    assert _sent(page) == [{"what": "copy", "as": "python"}, {"what": "copy", "as": "test"}, {"what": "runs"}]

    choose("Run again")
    expect(sheet.get_by_label("topic")).to_be_focused()
    keys.type("coffee", instead=True)
    keys.press("Tab", "Tab", "Space", "Tab")
    keys.type('{"tone": ', instead=True)
    keys.press("Tab", "Tab")
    keys.press("Enter")
    expect(sheet.get_by_role("alert")).to_have_text("style is not valid JSON.")
    keys.to("^style", "Shift+Tab")
    keys.press("Control+End")
    keys.type('"wet"}')
    keys.press("Tab")
    keys.type("gpt-5")
    keys.press("Enter")
    expect(sheet).to_have_count(0)
    inputs = {"topic": "coffee", "loud": True, "style": {"tone": "wet"}}
    assert _sent(page) == [{"what": "inputs"}, {"what": "again", "inputs": inputs, "model": "gpt-5"}]


def _note_on_a_range(page: Page, keys: Keyboard, events: list[Event]) -> None:
    """Written on a stretch of the run; on the timeline it leads there."""
    first, last = FIRST_TURN
    keys.press("n")
    keys.type("See here.")
    keys.to("^Last event", "Shift+Tab")
    keys.type(str(last), instead=True)
    keys.press("Shift+Tab")
    keys.type(str(last + 1), instead=True)
    keys.to("^Keep it")
    keys.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The first event must not be behind the last.")
    keys.to("^First event", "Shift+Tab")
    keys.type(str(first), instead=True)
    keys.to("^Keep it")
    keys.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    written = {"first": first, "last": last, "text": "See here."}
    assert _sent(page) == [{"what": "note", **written}]
    push(page, [Event(len(events) + 1, EventType.RUN_NOTE, RUN, 1000 + len(events) / 10, None, written)])
    keys.to("^Note: See here.")
    keys.press("Enter")
    _at(page, last, len(events) + 1)
    keys.press("l")


def _asked(seq: int, node: str = "a", **form: Any) -> Event:
    asked = {"prompt": f"Question {seq}?", "timeout": None, "default": None, "request_id": f"q{seq}", "label": "Ask"}
    return Event(seq, EventType.INTERACTIVE_PROMPT, RUN, 1000 + seq / 10, node, {**asked, **form})


def _questions(page: Page, keys: Keyboard) -> None:
    """Each kind is reached from wherever the focus is, and answered; what was begun can be left. Then two at once."""
    diagram = DomainDiagram((DomainNode("a", "user_response", "Ask"), DomainNode("b", "user_response", "Also")), ())
    begun = [
        Event(1, EventType.EXECUTION_STARTED, RUN, 1000.1, None, {"labels": {"a": "Ask", "b": "Also"}, "diagram": "D"}),
        *(Event(2 + i, EventType.NODE_STARTED, RUN, 1000.2, node, {"run": 1, "inputs": {}}) for i, node in enumerate("ab")),
    ]
    show(page, run_page.head_of(RUN, diagram, live=True, can=CAN), begun)
    strip = page.locator(".dp-question")
    keys.to("^Stop")
    seq = 3

    def answered(form: dict[str, Any], answer: str, *steps: str | tuple[str]) -> None:
        """Steps: keys; in a tuple, a text that is typed."""
        nonlocal seq
        seq += 1
        was = keys.focus
        push(page, [_asked(seq, **form)], now=seq / 10)
        assert keys.look() == was  # a question never takes the focus
        keys.press("q")
        for step in steps:
            if isinstance(step, tuple):
                keys.type(step[0], instead=True)
            else:
                keys.press(step)
        assert _sent(page) == [{"type": "answer", "id": f"q{seq}", "text": answer}]
        expect(strip).to_be_hidden()
        asked, seq = seq, seq + 1
        push(page, [Event(seq, EventType.INTERACTIVE_RESPONSE, RUN, 1000 + seq / 10, "a", {"request_id": f"q{asked}", "answer": answer, "source": "user"})])  # fmt: skip

    approval = {"kind": "approval", "tool": "send", "arguments": {"to": "all"}}
    answered({}, "Tuesday", ("Tuesday",), "Enter")
    answered({}, "Monday", ("Monday",), "Tab", "Space")
    answered({"kind": "multiline"}, "a\nb", ("a",), "Enter", *["b", "Control+Enter"])
    answered({"kind": "choice", "choices": ["tea", "coffee"]}, "coffee", "Tab", "Enter")
    answered({"kind": "choice", "choices": [str(i) for i in range(9)]}, "7", "7", "Tab", "Enter")
    answered({"kind": "approval"}, "approve", "Enter")
    answered({"kind": "approval"}, "reject: too dear", "Tab", "Enter", ("too dear",), "Enter")
    answered(approval, '{"to": "Ann"}', "Tab", "Enter", "Escape", "Tab", "Enter", ('{"to": "Ann"}',), "Tab", "Enter")

    push(page, [_asked(seq + 1), _asked(seq + 2, "b", kind="approval")])
    keys.press("q")
    keys.to("^Next question", "Shift+Tab")
    keys.press("Enter")
    expect(page.locator(".dp-asked")).to_have_text(f"Question {seq + 2}?")
    keys.to("^Approve")
    push(page, [Event(seq + 3, EventType.INTERACTIVE_RESPONSE, RUN, 1002, "b", {"request_id": f"q{seq + 2}", "answer": "approve", "source": "user"})])  # fmt: skip
    expect(page.locator(".dp-asked")).to_have_text(
        f"Question {seq + 1}?"
    )  # answered elsewhere while the focus was on its button
    keys.press("q")
    keys.type("me")
    keys.press("Enter")
    assert _sent(page) == [{"type": "answer", "id": f"q{seq + 1}", "text": "me"}]


def _stopped(page: Page, keys: Keyboard, events: list[Event]) -> None:
    """A run that goes on is paused, followed and stopped; who listens to it chooses what is said."""
    show(page, of_start(events, live=True), events[:12])
    spoken = page.locator("[role=log] p")
    keys.to("^More$")
    keys.press("?")
    keys.to("^A screen reader is told of", "Shift+Tab")
    keys.press("ArrowDown")
    keys.press("Escape")
    heard = spoken.count()
    keys.press("c")
    keys.to(" model|model ")
    keys.press("Enter")
    expect(page.locator(".dp-call[open]")).to_have_count(0)
    told = page.locator(".dp-call .dp-end").inner_text()
    expect(page.locator(".dp-call .dp-end")).not_to_have_text(
        told
    )  # it is made anew as time goes on: still folded, still in focus
    expect(page.locator(".dp-call[open]")).to_have_count(0)
    assert keys.look().role == "DisclosureTriangle"
    keys.press("o")
    keys.to("Sunny starts")
    push(page, events[12:18])
    assert "Sunny starts" in keys.look().name
    push(page, events[18:20])
    expect(spoken).to_have_count(heard)  # neither ends nor beginnings
    keys.press("j")
    expect(page.locator(".dp-live")).to_have_attribute("aria-pressed", "false")
    keys.to("^LIVE$")
    keys.press("Space")
    expect(page.locator(".dp-live")).to_have_attribute("aria-pressed", "true")
    keys.to("^Stop", "Shift+Tab")
    keys.press("Enter")
    assert _sent(page) == [{"type": "stop"}]
    push(
        page,
        [
            Event(
                21,
                EventType.EXECUTION_ERROR,
                RUN,
                1002.1,
                None,
                {"status": "aborted", "error": {"type": "Stopped", "message": "Stopped."}},
            )
        ],
    )
    page.evaluate("view.ended()")
    expect(page.locator(".dp-pill")).to_have_text("stopped")
    assert spoken.count() == heard + 1
    keys.look()
    keys.to("^More$", "Shift+Tab")
    keys.press("Enter")
    keys.to("^Copy dp.resume", "ArrowDown")
    keys.press("Enter")
    expect(page.locator(".dp-toast")).to_have_text("Copied.")


def _sub_diagrams(page: Page, keys: Keyboard, inside: list[Event]) -> None:
    """Opened in place, from one item of the batch to the next, and back to the outer run; from the drawing and from the panel."""
    diagram = DomainDiagram((DomainNode("s", "sub_diagram", "Each"),), ())
    events = [
        Event(1, EventType.EXECUTION_STARTED, RUN, 1000.1, None, {"labels": {"s": "Each"}, "diagram": "Outer"}),
        Event(2, EventType.NODE_STARTED, RUN, 1000.2, "s", {"run": 1, "inputs": {}}),
        *(Event(3 + i, EventType.NODE_OUTPUT, RUN, 1001 + i, "s", {"kind": "run", "text": "", "run": 1, "data": {"run_id": f"exec_{i}", "index": i, "diagram": "Debate"}}) for i in range(3)),
    ]  # fmt: skip
    show(page, run_page.head_of(RUN, diagram, live=True, can=CAN), events)
    child = {"head": of_start(inside, live=False), "events": list(run_page.rows(inside))}
    page.evaluate("(child) => { window.replies = { child }; }", child)
    crumb, place = page.locator(".dp-crumb"), page.locator(".dp-crumb .dp-num")
    keys.to("^Each ")
    keys.press("Enter")
    expect(place).to_have_text("1 of 3")
    keys.press("p")
    expect(page.get_by_role("tab", selected=True)).to_contain_text("Prompt")
    keys.to("^Next item", "Shift+Tab")
    keys.press("Enter")
    expect(place).to_have_text("2 of 3")
    assert keys.look().name == "Next item"
    keys.press("Enter")
    expect(place).to_have_text("3 of 3")
    keys.to("^Item before", "Shift+Tab")
    keys.press("Enter")
    expect(place).to_have_text("2 of 3")
    assert [order["run"] for order in _sent(page)] == ["exec_0", "exec_1", "exec_2", "exec_1"]
    keys.to("^Each$", "Shift+Tab")
    keys.press("Enter")
    expect(crumb).to_have_count(0)
    assert keys.focus.name.startswith("Each ")
    keys.to("^3 ?Debate")
    keys.press("Enter")
    expect(place).to_have_text("3 of 3")
    keys.press("Escape")
    expect(crumb).to_have_count(0)
    assert keys.look().name.startswith("Each ")


def _large_diagram(page: Page, keys: Keyboard) -> None:
    """Surveyed whole, zoomed until it can be read, and read to its end."""
    nodes = tuple(DomainNode(f"n{i}", "db", f"Step number {i}") for i in range(120))
    diagram = DomainDiagram(nodes, tuple(DomainArrow(f"a{i}", f"n{i}", f"n{i + 1}") for i in range(119)))
    show(page, run_page.head_of(RUN, diagram, live=False))
    push(
        page,
        [Event(1, EventType.EXECUTION_STARTED, RUN, 1000, None, {"labels": {n.id: n.label for n in nodes}, "diagram": "D"})],
    )
    overview = page.locator(".dp-drawing-pane[data-overview]")
    expect(page.locator(".dp-map")).to_be_visible()
    expect(overview).to_have_count(1)
    keys.to("^Step number 0")
    keys.press(*["+"] * 8)
    expect(overview).to_have_count(0)
    _moved(page, keys, "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    _moved(page, keys, "Shift+ArrowRight", "Shift+ArrowLeft")
    keys.press("0")
    expect(overview).to_have_count(1)

"""The view of a run with what nobody plans for: endless words, right-to-left labels, large diagrams and answers, many questions, a page zoomed four times."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from tests.support.axe import violations
from tests.support.run_view import CAN, push, show

pytestmark = pytest.mark.browser
LABELS = {
    "x" * 200: "W" * 300,
    "b": "عنوان طويل جدا للعقدة الثانية في الرسم",
    "c": "👩‍👩‍👧‍👦🎉 family 🏳️‍🌈 of emoji 🧑🏽‍💻",
    "d": "a_very_long_identifier_without_any_space_" * 6,
    "e": "e",
}
K = EventType


def event(seq: int, kind: EventType, node: str | None, /, **payload: Any) -> Event:
    return Event(seq, kind, "run", 1000 + seq / 10, node, payload)


def chain(labels: dict[str, str], kind: str = "person_job") -> DomainDiagram:
    ids = list(labels)
    arrows = [DomainArrow(f"a{n}", a, b, label="🙂 بيانات" if n == 0 else None) for n, (a, b) in enumerate(pairwise(ids))]  # fmt: skip
    return DomainDiagram(tuple(DomainNode(i, kind, label) for i, label in labels.items()), tuple(arrows))


def begun(labels: dict[str, str], name: str = "D") -> list[Event]:
    return [event(1, K.EXECUTION_STARTED, None, labels=labels, diagram=name, variables={})]


OUTSIDE = """() => { const view = document.querySelector('.dp-run').getBoundingClientRect();
  return [...document.querySelectorAll('.dp-run *')].filter((el) => { const box = el.getBoundingClientRect();
    return box.width && (box.right > view.right + 1 || box.left < view.left - 1) && !el.closest('svg, .dp-body, .dp-rows, .dp-tabs, .dp-sr, .dp-timeline'); })
  .map((el) => `${el.tagName}.${el.className}`); }"""
"""What stands beyond the sides of the view, without what is scrolled on purpose."""


@pytest.mark.parametrize(("width", "theme"), [(900, "light"), (320, "dark"), (1600, "light")])
def test_words_without_an_end_and_from_right_to_left(page: Page, shots: Any, width: int, theme: str) -> None:
    """Every part keeps within the view; 320 px are 1,280 zoomed to 400 %."""
    rows = begun(LABELS, "N" * 300)
    for i, label in LABELS.items():
        rows.append(event(len(rows) + 1, K.NODE_STARTED, i, run=1, inputs={}))
        rows.append(event(len(rows) + 1, K.NODE_OUTPUT, i, kind="text", text=f"{label} " * 5, run=1))
        if i != "e":
            meta = {"model": "m" * 200, "usage": {"input": 10**9, "output": 10**8}, "cost_usd": 12345.678}
            rows.append(event(len(rows) + 1, K.NODE_COMPLETED, i, run=1, output=label * 3, duration_ms=200, meta=meta))
    asked = {"prompt": "Q" * 2000, "request_id": "q", "timeout": 60, "default": None, "label": "L" * 300, "kind": "choice"}
    rows.append(event(len(rows) + 1, K.INTERACTIVE_PROMPT, "e", **asked, choices=["C" * 300, "عربي", "👍"]))
    head = run_page.head_of("exec_" + "f" * 60, chain(LABELS), name="N" * 300, model="m" * 200, live=True, can=CAN)
    show(page, head, (), width=width, theme=theme, height=800)
    push(page, rows, now=3.0)
    expect(page.locator(".dp-question")).to_be_visible()
    page.screenshot(path=shots / f"extreme-labels-{width}-{theme}.png")
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page, "main") == []


def test_a_diagram_of_two_hundred_nodes_is_seen_and_surveyed(page: Page, shots: Any) -> None:
    """Its overview has all of it; the node that works is in sight, large enough to be told from others."""
    labels = {f"n{i}": f"Step number {i}" for i in range(200)}
    nodes = tuple(DomainNode(i, "db", label) for i, label in labels.items())
    tree = DomainDiagram(nodes, tuple(DomainArrow(f"a{n}", f"n{n // 3}", f"n{n}") for n in range(1, 200)))
    show(page, run_page.head_of("exec_1", tree, live=True), (), width=900)
    push(page, [*begun(labels), event(2, K.NODE_STARTED, "n150", run=1, inputs={})], now=0.5)
    page.wait_for_timeout(200)
    page.screenshot(path=shots / "extreme-nodes.png")
    stage, node = page.locator(".dp-stage").bounding_box(), page.locator("[data-node='n150'] .dp-box").bounding_box()
    assert stage is not None
    assert node is not None
    assert stage["y"] - 1 <= node["y"] <= stage["y"] + stage["height"] - node["height"] + 1
    assert node["width"] > 20
    drawing = page.evaluate(
        "document.querySelector('.dp-drawing').getBBox().height / document.querySelector('.dp-drawing').getBBox().width"
    )
    size = page.evaluate("(({ width, height }) => ({ width, height }))(document.querySelector('.dp-map'))")
    assert size["height"] <= 110
    assert size["width"] <= 132
    assert drawing > 1.5
    assert size["height"] > size["width"], "its overview is as tall as it is"


def test_an_answer_of_a_megabyte_comes_bit_by_bit(page: Page) -> None:
    """No draw makes all of it; in the end it is there, and there is no second copy of any part."""
    part = "The **quick** brown `fox` jumps. " * 12 + "\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    times = 1_000_000 // len(part)
    rows = [*begun({"a": "Writer"}), event(2, K.NODE_STARTED, "a", run=1, inputs={})]
    rows += [event(3 + n, K.NODE_OUTPUT, "a", kind="text", text=part, run=1) for n in range(times)]
    rows.append(event(len(rows) + 1, K.NODE_COMPLETED, "a", run=1, output="x", duration_ms=100))
    show(page, run_page.head_of("exec_1", chain({"a": "Writer"}), live=True))
    page.evaluate("""() => { window.grown = []; new MutationObserver(() => grown.push(document.querySelector('.dp-md')?.childElementCount ?? 0))
      .observe(document.querySelector('.dp-body'), { childList: true, subtree: true }); }""")
    push(page, rows, now=20.0)
    page.wait_for_function("(n) => document.querySelector('.dp-md').childElementCount === n", arg=3 * times)
    grown = page.evaluate("grown")
    assert max(b - a for a, b in zip([0, *grown], grown, strict=False)) <= 200
    assert page.locator(".dp-md table").count() == times


def test_a_hundred_questions_at_once(page: Page, shots: Any) -> None:
    labels = {f"n{i}": f"Ask {i}" for i in range(100)}
    rows = begun(labels)
    for i in labels:
        rows.append(event(len(rows) + 1, K.NODE_STARTED, i, run=1, inputs={}))
        rows.append(event(len(rows) + 1, K.INTERACTIVE_PROMPT, i, prompt=f"Question {i}?", request_id=i, timeout=None, default=None, label=labels[i]))  # fmt: skip
    diagram = DomainDiagram(tuple(DomainNode(i, "user_response", label) for i, label in labels.items()), ())
    show(page, run_page.head_of("exec_1", diagram, live=True, can=["answer"]))
    push(page, rows, now=20.0)
    for n in range(3):
        expect(page.locator(".dp-asked")).to_contain_text(f"Question n{n}?")
        expect(page.locator(".dp-who")).to_have_text(f"Ask {n}")
        page.locator(".dp-question input").fill("yes")
        page.keyboard.press("Enter")
        push(page, [event(len(rows) + 1 + n, K.INTERACTIVE_RESPONSE, f"n{n}", request_id=f"n{n}", answer="yes", source="user")])
    page.screenshot(path=shots / "extreme-questions.png")
    assert [one["id"] for one in page.evaluate("sent")] == ["n0", "n1", "n2"]


def test_a_clock_that_jumps_never_runs_backwards(page: Page) -> None:
    """Events of a machine whose clock was set back and forth: the axis goes on, and each event can be reached."""
    times = [5000, 4990, 4980, 9000, 4970, 2]
    rows = [*begun({"a": "Writer", "b": "Critic"}), event(2, K.NODE_STARTED, "a", run=1, inputs={}), event(3, K.NODE_OUTPUT, "a", kind="text", text="hello", run=1),
            event(4, K.NODE_COMPLETED, "a", run=1, output="x", duration_ms=-50, meta={}), event(5, K.NODE_STARTED, "b", run=1, inputs={}), event(6, K.NODE_OUTPUT, "b", kind="text", text="later", run=1)]  # fmt: skip
    rows = [one._replace(occurred_at=at) for one, at in zip(rows, times, strict=True)]
    show(page, run_page.head_of("exec_1", chain({"a": "Writer", "b": "Critic"}), live=False), rows)
    page.locator(".dp-cursor").focus()
    page.keyboard.press("Home")
    seen = []
    for seq in range(1, 7):
        page.keyboard.press("ArrowRight")
        expect(page.locator(".dp-seq")).to_have_text(f"event {seq} of 6")
        seen.append(float(page.locator(".dp-cursor").get_attribute("aria-valuenow") or "nan"))
    assert seen == sorted(seen)
    assert "NaN" not in page.locator(".dp-run").inner_text()


def test_the_tree_that_a_screen_reader_has_tells_the_whole_story(page: Page) -> None:
    """Fifty rounds of two persons: who they are, how it stands, which round is shown, what was said, sent and remembered, and what each event was."""
    labels = {"a": "Writer", "b": "Critic"}
    rows = begun(labels, "Rounds")
    for n in range(1, 51):
        for i in labels:
            rows.append(event(len(rows) + 1, K.NODE_STARTED, i, run=n, inputs={}))
            rows.append(event(len(rows) + 1, K.NODE_OUTPUT, i, kind="prompt", text=f"Ask {i}{n}", data={"person_id": i}, run=n))
            rows.append(event(len(rows) + 1, K.NODE_OUTPUT, i, kind="text", text=f"Said {i}{n}", run=n))
            rows.append(event(len(rows) + 1, K.NODE_COMPLETED, i, run=n, output=f"Said {i}{n}", duration_ms=100, meta={"usage": {"input": 5, "output": 2}, "cost_usd": 0.001}))  # fmt: skip
    rows.append(event(len(rows) + 1, K.NODE_STARTED, "a", run=51, inputs={}))
    rows.append(event(len(rows) + 1, K.NODE_ERROR, "a", run=51, error={"type": "Overload", "message": "too many requests"}))
    rows.append(event(len(rows) + 1, K.EXECUTION_ERROR, None, status="failed", error={"message": "too many requests"}))
    show(page, run_page.head_of("exec_1", chain(labels), name="Rounds", live=False, can=CAN), rows)
    page.keyboard.press("Tab")
    tree = page.locator(".dp-run").aria_snapshot()
    for part in (
        "Run of Rounds",
        "failed",
        "Writer",
        "Critic",
        "×50",
        "too many requests",
        "Overload",
        "run 51 of 51",
        "Moment of the run",
        "700 tok",
        "$0.100",
    ):
        assert part in tree, (part, tree)
    page.locator(".dp-body").focus()
    page.keyboard.press("[")
    expect(page.locator(".dp-body")).to_contain_text("Said a50")
    assert "run 50 of 51" in page.locator(".dp-panel").aria_snapshot()
    page.keyboard.press("p")
    expect(page.locator(".dp-body")).to_contain_text("Ask a50")
    assert "Ask a50" in page.locator(".dp-panel").aria_snapshot()
    page.keyboard.press("/")
    page.keyboard.type("said b7")
    expect(page.locator(".dp-filters [role=status]")).to_contain_text("2 events")
    listed = page.locator(".dp-log").aria_snapshot()
    assert "Critic done (run 7)" in listed
    assert violations(page, "main") == []

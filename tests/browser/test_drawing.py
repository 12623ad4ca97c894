"""The drawing of the live view in a page of its own: sizes, zoom, map and moving about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.drawing_style import LIVE_CSS
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.notebook import view

STATIC = Path(view.__file__).parent / "static"
MODEL = """{
const handlers = {};
window.sent = [];
window.model = { get: (name) => state[name], send: (message) => sent.push(message),
  on: (event, handler) => { handlers[event] = handler; }, off: () => {} };
window.change = (name, value) => { state[name] = value; handlers[`change:${name}`](); };
}"""
SIZES = """() => [...document.querySelectorAll('.dp-drawing text')].filter(t => t.textContent && getComputedStyle(t).display !== 'none'
  && getComputedStyle(t).visibility !== 'hidden' && !t.closest('.dp-runs'))
  .map(t => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a)"""


def chain(count: int) -> DomainDiagram:
    """A chain of nodes, every fifth of which goes back to the one before."""
    nodes = tuple(DomainNode(f"n{i}", "condition" if i % 5 == 4 else "db", f"Step number {i}") for i in range(count))
    arrows = [DomainArrow(f"a{i}", f"n{i}", f"n{i + 1}", label="topic" if i % 3 else None) for i in range(count - 1)]
    arrows += [DomainArrow(f"b{i}", f"n{i}", f"n{i - 1}", "condfalse") for i in range(4, count, 5)]
    return DomainDiagram(nodes, tuple(arrows))


def show(page: Page, diagram: DomainDiagram, width: int, theme: str = "light") -> None:
    """The live view of a run in a cell of this width, in a theme of Lab."""
    nodes = {
        n.id: ["completed" if i < 3 else "running" if i == 3 else "pending", int(i < 3)] for i, n in enumerate(diagram.nodes)
    }
    run = {
        "name": "Demo",
        "model": "",
        "status": "completed",
        "elapsed": 2.5,
        "spent": "",
        "nodes": nodes,
        "question": None,
    }
    state = {"svg": draw(diagram, live=True), "run": run, "text": {"node": None, "label": "", "chosen": False, "text": ""}, "log": {"total": 0, "rows": []}}  # fmt: skip
    script = (STATIC / "live.js").read_text(encoding="utf-8").replace("export default", "window.live =")
    colours = "--jp-layout-color0:#111;--jp-layout-color1:#1a1a1a;--jp-content-font-color1:#eee;--jp-content-font-color2:#bbb;--jp-border-color2:#444"  # fmt: skip
    style = f"body{{margin:8px;{colours if theme == 'dark' else ''};background:var(--jp-layout-color1,#fff)}}"
    page.set_viewport_size({"width": width + 16, "height": 900})
    page.set_content(
        f"<style>{style}{(STATIC / 'live.css').read_text(encoding='utf-8')}{LIVE_CSS}</style>"
        f'<body data-jp-theme-light="{str(theme == "light").lower()}"><div id="cell"></div></body>'
    )
    page.add_script_tag(content=f"window.state = {json.dumps(state)};{MODEL}")
    page.add_script_tag(content=script, type="module")
    page.wait_for_function("() => window.live")
    page.evaluate("() => { window.live.render({ model, el: document.getElementById('cell') }); sent.length = 0; }")  # its hello
    page.wait_for_timeout(50)


@pytest.mark.parametrize("width", [700, 820, 964])
def test_text_can_be_read_in_every_cell(page: Page, shots: Path, width: int) -> None:
    """Forty nodes: no text below 11 pixels from 820 on; below, the labels keep 11, by scrolling if need be."""
    show(page, chain(40), width)
    sizes = page.evaluate(SIZES)
    assert len(sizes) > 80
    assert min(sizes) >= (10.9 if width >= 820 else 9.2)
    assert max(sizes) >= 10.99
    expect(page.locator(".dipeo-zooms")).to_be_hidden()
    for theme in ("light", "dark"):
        show(page, chain(40), width, theme)
        page.screenshot(path=shots / f"drawing-{width}-{theme}.png")


def test_badges_stand_on_their_boxes(page: Page) -> None:
    """State and number of runs stand at the upper right corner of their node, and clear of every arrow's label."""
    show(page, chain(12), 820)
    out = page.evaluate("""() => [...document.querySelectorAll('.dp-node[data-status="completed"]')].flatMap(node => {
      const box = node.querySelector('.dp-box').getBoundingClientRect();
      return [node.querySelector('.dp-badge circle'), node.querySelector('.dp-runs rect')].filter(badge => {
        const b = badge.getBoundingClientRect();
        const tags = [...document.querySelectorAll('.dp-tag')].map(t => t.getBoundingClientRect());
        return b.right > box.right + 2 || b.left < box.left || Math.abs((b.top + b.bottom) / 2 - box.top) > 2
          || tags.some(t => t.left < b.right && b.left < t.right && t.top < b.bottom && b.top < t.bottom); }); }).length""")
    assert out == 0
    assert page.locator('.dp-node[data-status="completed"] .dp-badge').count() == 3


def test_a_large_drawing_is_a_map_to_zoom_into(page: Page, shots: Path) -> None:
    """Beyond forty nodes all is shown at first, without text; a click, the buttons, the wheel and the keys zoom."""
    show(page, chain(300), 964)
    pane, stage = page.locator(".dipeo-drawing"), page.locator(".dipeo-stage")
    assert pane.evaluate("p => p.scrollWidth <= p.clientWidth + 1 && p.scrollHeight <= p.clientHeight + 1")
    assert page.evaluate(SIZES) == []
    expect(page.locator(".dipeo-map")).to_be_hidden()
    page.screenshot(path=shots / "overview.png")
    page.locator('.dp-node[data-node="n150"] .dp-box').click()
    assert page.evaluate("sent.at(-1)") == {"type": "select", "node": "n150"}
    assert min(page.evaluate(SIZES)) >= 10.9
    shown = page.locator('.dp-node[data-node="n150"]').bounding_box()
    around = pane.bounding_box()
    assert shown
    assert around
    assert around["x"] <= shown["x"] <= around["x"] + around["width"] - shown["width"]
    assert around["y"] <= shown["y"] <= around["y"] + around["height"] - shown["height"]
    expect(page.locator(".dipeo-map")).to_be_visible()
    page.wait_for_timeout(50)
    page.screenshot(path=shots / "zoomed.png")
    zoom_in = page.get_by_role("button", name="Zoom in")
    zoom_in.click()
    assert min(page.evaluate(SIZES)) >= 14
    page.get_by_role("button", name="Actual size").click()
    assert abs(min(page.evaluate(SIZES)) - 11) < 0.1
    page.get_by_role("button", name="Show all").click()
    assert page.evaluate(SIZES) == []
    assert stage.get_attribute("data-partly") is None
    page.locator('.dp-node[data-node="n0"]').focus()
    for _ in range(12):
        page.keyboard.press("+")
    assert max(page.evaluate(SIZES)) >= 25
    page.keyboard.press("0")
    assert page.evaluate(SIZES) == []


def test_a_drawing_is_moved_by_the_mouse_and_the_map(page: Page) -> None:
    """Dragging moves what is seen and selects nothing; a click on the map goes there."""
    show(page, chain(120), 820)
    pane = page.locator(".dipeo-drawing")
    page.get_by_role("button", name="Actual size").click()
    place = pane.bounding_box()
    assert place
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    before = pane.evaluate("p => [p.scrollLeft, p.scrollTop]")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 80, steps=4)
    page.mouse.up()
    after = pane.evaluate("p => [p.scrollLeft, p.scrollTop]")
    assert [round(b - a) for a, b in zip(before, after, strict=True)] == [60, 80]
    assert page.evaluate("sent.length") == 0
    page.locator(".dipeo-map").click(position={"x": 2, "y": 2})
    assert pane.evaluate("p => p.scrollLeft < 5 && p.scrollTop < 5")


def test_a_drawing_follows_the_width_of_its_page(page: Page) -> None:
    """A cell that becomes narrower makes an overview smaller, and scrolls a small drawing rather than shrinking its text."""
    show(page, chain(200), 964)
    pane = page.locator(".dipeo-drawing")
    page.set_viewport_size({"width": 600, "height": 900})
    page.wait_for_timeout(100)
    assert pane.evaluate("p => p.scrollWidth <= p.clientWidth + 1")
    show(page, chain(8), 400)
    assert max(page.evaluate(SIZES)) >= 10.9
    assert pane.evaluate("p => p.scrollWidth > p.clientWidth")

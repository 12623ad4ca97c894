"""HTML around a drawing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from dipeo_nb.diagram.drawing import draw, overview
from dipeo_nb.diagram.html import figure, findings, page
from dipeo_nb.diagram.layout import place
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Severity

MODEL = DomainDiagram(
    (DomainNode("a", "start", "Start"), DomainNode("b", "person_job", "<script>alert(1)</script>")),
    (DomainArrow("x", "a", "b"),),
)
FINDING = Diagnostic(Severity.ERROR, "unknown-person", "Person '<i>' is not known.", "Did you mean 'I'?", "d.yaml", 3, 5)


class Tags(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_stands_alone() -> None:
    """No script, no address, no style attribute; its policy allows exactly the styles it has."""
    html = page("debate", draw(MODEL), [FINDING], sections=[("Outputs", "text")])
    found = Tags(html)
    assert "script" not in found.tags
    assert not [a for a in found.attributes if a[0] in ("src", "href", "style") or a[0].startswith("on")]
    assert re.findall(r"https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]
    policy = next(value for name, value in found.attributes if name == "content" and value and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for style in re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_a_page_shows_title_drawing_findings_and_sections() -> None:
    """Heading, drawing, findings with place and remedy, then sections of text or rows."""
    found = Tags(
        page(
            "my <b> diagram",
            draw(MODEL),
            [FINDING],
            sections=[("Log", "one\n  two"), ("Nodes", [("node", "runs"), ("A & B", 3)]), ("None", [])],
            subtitle="run 1",
        )
    )
    assert found.tags.count("svg") == 1
    assert found.tags.count("h2") == 3
    assert found.tags.count("td") == 2
    for words in ("my <b> diagram", "run 1", "d.yaml:3:5", "Person '<i>' is not known.", "Did you mean", "one\n  two", "A & B"):
        assert words in found.text
    assert "prefers-color-scheme" in page("x", draw(MODEL))


@pytest.mark.parametrize("text", ["</style><script>x</script>", "\x00\x1b", "\ud800", "]]>", "</title>", '"onx="'])
def test_hostile_text_stays_text(text: str) -> None:
    """No title, finding or section can break out of its place."""
    finding = Diagnostic(Severity.WARNING, "x", text, text, text, 1, 1, text)
    html = page(text, draw(MODEL), [finding], sections=[(text, text), (text, [(text,), (text,)])], subtitle=text)
    found = Tags(html)
    assert "script" not in found.tags
    assert "onx" not in [a for a, _ in found.attributes]
    assert "\x00" not in html
    html.encode("utf-8")


def test_a_figure_is_an_image_with_words() -> None:
    """SVG or PNG as a data address, with alternative text, never wider than the page."""
    svg = draw(MODEL)
    fragment = figure(svg, 'Diagram "x" <b>')
    assert Tags(fragment).tags == ["img"]
    attributes = dict(Tags(fragment).attributes)
    assert attributes["alt"] == 'Diagram "x" <b>'
    assert "max-width:100%" in (attributes["style"] or "")
    kind, data = (attributes["src"] or "").split(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(data).decode() == svg
    assert 'src="data:image/png;base64,iVBO' in figure(b"\x89PNG\r\n", "x", width=200)


def test_a_large_drawing_stands_below_its_overview() -> None:
    """All of it at the width of the page, then at its own size in a pane; on a page of its own boxes lead to boxes."""
    nodes = tuple(DomainNode(f"n{i}", "db", f"<Node> {i}") for i in range(60))
    model = DomainDiagram(nodes, tuple(DomainArrow(f"a{i}", f"n{i}", f"n{i + 1}") for i in range(59)))
    svg, small = draw(model), overview(model, place(model))
    assert small is not None
    fragment = Tags(figure(svg, "Large", overview=small))
    assert fragment.tags == ["img", "details", "summary", "div", "img"]
    first, pane, second = (value or "" for name, value in fragment.attributes if name == "style")
    assert "max-width:100%" in first
    assert "overflow:auto" in pane
    assert "max-width:none" in second
    html = page("Large", svg, overview=small)
    attributes = Tags(html).attributes
    targets = [value for name, value in attributes if name == "id"]
    assert len(set(targets)) == 60
    assert [f"#{target}" for target in targets] == [value for name, value in attributes if name == "href"]
    for style in re.findall(r"<style>([^<]*)</style>", html):
        assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in html
    assert not [value for name, value in attributes if name == "style"]


def test_findings_are_a_list_and_bounded() -> None:
    """Nothing for none; a hundred at most, with a count of the rest."""
    assert findings([]) == ""
    html = findings([FINDING] * 130)
    assert Tags(html).tags.count("li") == 101
    assert "and 30 more" in html
    assert "<i>" not in html

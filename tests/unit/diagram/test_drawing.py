"""The SVG drawing, the live drawing, and the tree of text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.drawing_shapes import ICON_UNKNOWN
from dipeo_nb.diagram.labels import NodeLook
from dipeo_nb.diagram.text_tree import text_tree
from dipeo_nb.domain.diagram import (
    DiagramMetadata,
    DomainArrow,
    DomainDiagram,
    DomainNode,
    DomainPerson,
    LLMConfig,
)
from dipeo_nb.domain.enums import NodeType, Status
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import ValidationError
from tests.support.examples import examples

SVG = "{http://www.w3.org/2000/svg}"

DEBATE = DomainDiagram(
    (
        DomainNode("node_0", "start", "Start"),
        DomainNode("node_1", "person_job", "Optimist", data={"person": "person_Optimist"}),
        DomainNode("node_2", "condition", "Check", data={"condition_type": "detect_max_iterations"}),
        DomainNode("node_3", "endpoint", "Save", data={"file_name": "files/results/out.txt"}),
    ),
    (
        DomainArrow("arrow_0", "node_0", "node_1", target_handle="first", label="topic"),
        DomainArrow("arrow_1", "node_1", "node_2", content_type="conversation_state"),
        DomainArrow("arrow_2", "node_2", "node_1", "condfalse"),
        DomainArrow("arrow_3", "node_2", "node_3", "condtrue"),
    ),
    (DomainPerson("person_Optimist", "Optimist", LLMConfig("openai", "gpt-5-nano-2025-08-07")),),
    DiagramMetadata(name="debate"),
)


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_drawing_shows_labels_models_branches_and_names() -> None:
    """Label, what a node works with, handles of a condition and arrow labels can be read."""
    shown = texts(draw(DEBATE))
    for words in ("Start", "Optimist", "gpt-5-nano", "all runs used?", "→ results/out.txt", "true", "false", "topic"):
        assert words in shown


def test_a_drawing_is_self_contained() -> None:
    """No id, script, link, font or address: nothing to load and nothing to clash with on a page."""
    for svg in (draw(DEBATE), draw(DEBATE, live=True, status={})):
        assert not re.search(r"\sid=|<script|href|url\(|@import|@font-face", svg)
        assert re.findall(r"https?://[^\"' ]+", svg) == ["http://www.w3.org/2000/svg"]


def test_a_drawing_says_what_it_shows() -> None:
    """Screen readers get a role, a name, a description, and a title for every node and arrow."""
    root = ElementTree.fromstring(draw(DEBATE, status={"node_1": NodeLook(Status.RUNNING, 2)}))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Diagram debate: 4 nodes, 4 arrows, 1 person; 1 running."
    assert root.findtext(f"{SVG}title") == "debate"
    assert "Check → Optimist" in (root.findtext(f"{SVG}desc") or "")
    titles = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g") if g.get("data-node") or g.get("data-arrow")]
    assert "Optimist, person job, running, 2 runs" in titles
    assert "Start → Optimist · topic · into first" in titles


def test_every_status_has_a_glyph_of_its_own() -> None:
    """State is told by shape and by word, not by colour alone."""
    glyphs, words = set(), set()
    for status in Status:
        root = ElementTree.fromstring(draw(DEBATE, status={"node_1": NodeLook(status, 3)}))
        node = next(g for g in root.iter(f"{SVG}g") if g.get("data-node") == "node_1")
        assert node.get("data-status") == status
        badge = next(g for g in node.iter(f"{SVG}g") if (g.get("class") or "").endswith("badge"))
        glyphs.add(next(badge.iter(f"{SVG}path")).get("d"))
        words.add(labels.status_look(status))
        assert "×3" in [t.text for t in node.iter(f"{SVG}text")]
    assert len(glyphs) == len(words) == len(Status)


def test_without_status_there_are_no_badges() -> None:
    """A plain drawing shows no progress; with a mapping, nodes left out of it are pending."""
    assert "badge" not in draw(DEBATE).split("</style>")[1]
    assert draw(DEBATE, status={}).count('data-status="pending"') == 4


def test_a_note_replaces_the_second_line() -> None:
    """What a run has to say of a node stands under its label, cut to the box."""
    shown = texts(draw(DEBATE, status={"node_1": NodeLook(Status.FAILED, 0, "No key for openai " * 20)}))
    assert any(t.startswith("No key") and t.endswith("…") for t in shown)
    assert "gpt-5-nano" not in shown


@pytest.mark.parametrize("kind", [*NodeType, "a_type_of_tomorrow"])
def test_every_node_type_is_drawn(kind: str) -> None:
    """Each type has an icon and a category; an unknown one is drawn as such."""
    svg = draw(DomainDiagram((DomainNode("n", kind, "A label"),)))
    category = NODE_SPECS[kind].META.category.value if kind in NODE_SPECS else "unknown"
    assert re.search(rf'class="(\w+-)node \1c-{category}"', svg)
    assert (f'd="{ICON_UNKNOWN}"' in svg) is (kind not in set(NodeType)), "an icon of its own: ICONS"
    assert "A label" in texts(svg)


def test_themes() -> None:
    """Light and dark are fixed; auto carries both, each on a ground of its own."""
    light, dark, auto = draw(DEBATE, theme="light"), draw(DEBATE, theme="dark"), draw(DEBATE, theme="auto")
    assert "prefers-color-scheme" in auto
    assert "prefers-color-scheme" not in light + dark
    assert "#15181d" in dark
    assert "#15181d" not in light
    with pytest.raises(ValidationError, match="not a theme"):
        draw(DEBATE, theme="pink")  # pyright: ignore[reportArgumentType]


def test_contrast() -> None:
    """Text and lines keep the contrast that WCAG asks for (4.5 for text, 3 for lines and glyphs), in both themes."""
    from dipeo_nb.diagram import drawing_style

    def light_of(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        high, low = sorted((light_of(a), light_of(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for colours in (drawing_style._LIGHT, drawing_style._DARK):
        for name in ("text", "muted", "yes", "no"):
            assert contrast(colours[name], colours["card"]) >= 4.5, name
            assert contrast(colours[name], colours["box"]) >= 4.5, name
        for name in ("line", "loop", *Status):
            assert contrast(colours[str(name)], colours["card"]) >= 3, name
        for name in Status:
            assert contrast(colours[str(name)], colours["on"]) >= 3, name
        for name in labels.CATEGORIES:
            assert contrast(colours[name], colours["box"]) >= 3, name


def test_width() -> None:
    """A given width scales the drawing; a width below one is refused."""
    svg = draw(DEBATE, width=300)
    size = re.search(r'viewBox="0 0 (\d+) (\d+)" width="(\d+)" height="(\d+)"', svg)
    assert size
    wide, high, width, height = map(int, size.groups())
    assert width == 300
    assert abs(height - high * 300 / wide) <= 1
    with pytest.raises(ValidationError):
        draw(DEBATE, width=0)


def test_style_sheets_of_two_drawings_do_not_meet() -> None:
    """Class names of different drawings differ; every rule of a drawing names its own class."""
    first, second = draw(DEBATE, theme="light"), draw(DEBATE, theme="dark")
    prefixes = {re.search(r'class="(\w+-)drawing"', svg).group(1) for svg in (first, second)}  # type: ignore[union-attr]
    assert len(prefixes) == 2
    for svg in (first, second):
        prefix = re.search(r'class="(\w+-)drawing"', svg).group(1)  # type: ignore[union-attr]
        style = re.search(r"<style>(.*?)</style>", svg).group(1)  # type: ignore[union-attr]
        for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style):
            assert all(part.strip().startswith(f".{prefix}") for part in rule.split(",")), rule


def test_the_same_diagram_gives_the_same_drawing() -> None:
    """Drawings are reproducible byte for byte."""
    assert draw(DEBATE) == draw(DEBATE)


def test_the_live_drawing_has_names_and_no_colours() -> None:
    """Nodes can be found and flipped by attribute; colours come from the page's style sheet."""
    svg = draw(DEBATE, live=True)
    root = ElementTree.fromstring(svg)
    assert root.get("class") == "dp-drawing"
    assert "<style" not in svg
    assert not re.search("#[0-9a-f]{6}", svg)
    nodes = {g.get("data-node"): g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("dp-node")}
    assert set(nodes) == {"node_0", "node_1", "node_2", "node_3"}
    for node in nodes.values():
        assert (node.get("data-status"), node.get("data-runs")) == ("", "0")
        assert (node.get("role"), node.get("tabindex")) == ("button", "0")
        classes = " ".join(e.get("class", "") for e in node.iter())
        assert all(f"dp-g-{status}" in classes for status in Status)
    arrow = next(g for g in root.iter(f"{SVG}g") if g.get("data-arrow") == "arrow_2")
    assert (arrow.get("data-source"), arrow.get("data-target")) == ("node_2", "node_1")


# ----------------------------------------------------------------------------------------------------- hostile text

HOSTILE = [
    "x" * 10_000,
    "<script>alert(1)</script>",
    "]]> & \"quotes\" 'single' <!-- --> &amp;",
    "nul\x00 tab\t\nnew\x1b[31mline",
    "שלום עולם – مرحبا",
    "\u202eevil\u2066override",
    "lone \ud800 surrogate \uffff",
    "👩‍👩‍👧‍👦 family 🚀" * 9,
    "../../etc/passwd",
    "   ",
    "",
    "' onload='alert(1)",
]


def hostile(text: str) -> DomainDiagram:
    return DomainDiagram(
        (
            DomainNode(text or "id", "person_job", text, data={"person": text}),
            DomainNode("b", text or "t", text, data={"file": text}),
            DomainNode("c", "condition", text, data={"expression": text}),
        ),
        (DomainArrow(text or "a", "b", text or "id", text or "h", text or "h", text, text), DomainArrow("z", "b", "b")),
        (DomainPerson(text, text, LLMConfig(text, text)),),
        DiagramMetadata(name=text),
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("live", [False, True])
def test_hostile_text_is_drawn_as_text(text: str, live: bool) -> None:
    """Whatever an author writes is escaped, cleaned and cut; it never becomes markup, and the file stays small."""
    svg = draw(hostile(text), live=live, status={text or "id": NodeLook(text, 1, text)})
    root = ElementTree.fromstring(svg)
    allowed = {"svg", "title", "desc", "style", "g", "rect", "path", "text", "circle"}
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= allowed
    assert not any(name.startswith("on") for e in root.iter() for name in e.attrib)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff\uffff]", svg)
    assert len(svg) < 60_000
    svg.encode("utf-8")


@examples(200)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_makes_a_valid_drawing(text: str) -> None:
    """The SVG can be parsed as XML and encoded, for every text there is."""
    svg = draw(hostile(text))
    ElementTree.fromstring(svg)
    svg.encode("utf-8")


@given(st.text(st.characters(exclude_categories=()), max_size=400), st.integers(10, 300))
def test_clean_is_idempotent_and_bounded(text: str, limit: int) -> None:
    """Cleaning twice is cleaning once, and the limit holds."""
    once = labels.clean(text, limit)
    assert len(once) <= limit
    assert labels.clean(once, limit) == once


def test_labels_are_cut_between_letters_that_belong_together() -> None:
    """A joined emoji or an accented letter is kept whole or left out."""
    assert labels.cut_at("ab👩‍👩‍👧c", 5) == "ab…"
    assert labels.cut_at("e\u0301e\u0301e\u0301", 4) == "e\u0301…"


def test_right_to_left_text_is_isolated_in_sentences() -> None:
    """A Hebrew label does not turn the words round that stand beside it."""
    model = DomainDiagram((DomainNode("n", "start", "שלום"),))
    assert "\u2068שלום\u2069, start" in draw(model)
    assert "\u2068שלום\u2069" in text_tree(model)


@given(st.text(max_size=200), st.floats(20, 300))
def test_fitted_text_fits(text: str, width: float) -> None:
    """No line is wider than its room."""
    for line in labels.wrap(labels.clean(text), width, 13, bold=True):
        assert labels.measure(line, 13, bold=True) <= width or line == "…"


# ------------------------------------------------------------------------------------------------------------- text


def test_the_text_tree_shows_flow_branches_and_progress() -> None:
    """Nodes in flow order, with branches, labels, glyphs and counts; a node met again is only named."""
    status = {"node_0": NodeLook(Status.COMPLETED, 1), "node_1": NodeLook(Status.RUNNING, 2, "41 tokens")}
    assert text_tree(DEBATE, status).splitlines() == [
        "✓ Start ×1",
        "[topic] → ▶ Optimist ×2 · 41 tokens",
        "→ ○ Check · all runs used?",
        "├─ [false] → ▶ Optimist ×2 ↩",
        "└─ [true] → ○ Save · → results/out.txt",
    ]


def test_the_text_tree_holds_its_width_and_every_node() -> None:
    """A deep chain of branches with long labels stays within the width, every node on a line of its own."""
    nodes = tuple(DomainNode(f"n{i}", "condition", f"A rather long label of node {i:03} " * 3) for i in range(120))
    arrows = tuple(
        DomainArrow(f"a{i}{h}", f"n{i}", f"n{i + step}", h, label="some_variable_name")
        for i in range(118)
        for h, step in (("condtrue", 1), ("condfalse", 2))
    )
    lines = text_tree(DomainDiagram(nodes, arrows)).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("↩" not in line for line in lines) >= 120 - 1


def test_the_text_tree_of_nothing() -> None:
    """An empty diagram says so."""
    assert text_tree(DomainDiagram()) == "(no nodes)"

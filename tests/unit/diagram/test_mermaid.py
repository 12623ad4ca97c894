"""Mermaid text: valid whatever the labels say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.labels import NodeLook
from dipeo_nb.diagram.mermaid import to_mermaid
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.nodes import NODE_SPECS

LINE = re.compile(
    r"flowchart LR"
    r"|    n\d+(\(\[|\{\{|\[\(|\[\[|\[/|\()\"(?:[\w ,.:?!/=+\-()]|#\d+;|<br/>|[^\x00-\x7f])*\"(\]\)|\}\}|\)\]|\]\]|/\]|\))"
    r"|    n\d+ -->(\|\"(?:[\w ,.:?!/=+\-()]|#\d+;|[^\x00-\x7f])*\"\|)? n\d+"
    r"|    classDef \w+ [\w#:,\- ]+"
    r"|    class n\d+(,n\d+)* \w+"
)


def one(label: str, kind: str = "person_job") -> DomainDiagram:
    return DomainDiagram(
        (DomainNode("x", kind, label), DomainNode("end", "db", label)), (DomainArrow("a", "x", "end", label=label),)
    )


def test_nodes_arrows_and_branches() -> None:
    """Shapes by type, names of our own, words on arrows."""
    model = DomainDiagram(
        (DomainNode("s", "start", "Start"), DomainNode("c", "condition", "Check", data={"expression": "a > 10"})),
        (DomainArrow("1", "s", "c", label="topic"), DomainArrow("2", "c", "s", "condfalse"), DomainArrow("3", "c", "gone")),
    )
    assert to_mermaid(model).splitlines() == [
        "flowchart LR",
        '    n0(["Start"])',
        '    n1{{"Check<br/>a #62; 10"}}',
        '    n0 -->|"topic"| n1',
        '    n1 -->|"false"| n0',
    ]


def test_status_is_told_by_glyph_count_and_class() -> None:
    """Every state has its class, its glyph and its count in the text."""
    text = to_mermaid(one("Judge"), {"x": NodeLook(Status.COMPLETED, 3, "12 tokens")})
    assert '"✓ Judge ×3<br/>12 tokens"' in text
    assert "    class n0 completed" in text
    assert "    class n1 pending" in text
    for status in Status:
        assert f"    classDef {status} " in to_mermaid(one("x"), {"x": NodeLook(status)})


@pytest.mark.parametrize(
    "label",
    [
        "end",
        'say "hi"',
        "a]b)c}d",
        "`code`",
        "two\nlines",
        "<b>bold</b>",
        "#35;",
        "1. list",
        "- list",
        "%% c",
        "a|b",
        "",
        "subgraph x",
        "x" * 10_000,
    ],
)
def test_labels_are_only_text(label: str) -> None:
    """Quotes, brackets, backticks, keywords, markup and line breaks do not reach Mermaid as such."""
    lines = to_mermaid(one(label)).splitlines()
    assert len(lines) == 4
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert max(map(len, lines)) < 1000


@given(st.text(st.characters(exclude_categories=()), max_size=80), st.sampled_from([*NODE_SPECS, "unknown"]))
def test_any_label_gives_lines_of_the_grammar(label: str, kind: str) -> None:
    """Each line is one of the five kinds this module writes, for every text there is."""
    text = to_mermaid(one(label, kind), {"x": NodeLook("running", 1, label)})
    assert text.endswith("\n")
    assert all(LINE.fullmatch(line) for line in text[:-1].split("\n")), text
    text.encode("utf-8")


def test_labels_do_not_begin_a_list() -> None:
    """Mermaid would refuse `1. step` as a Markdown list; its dot is encoded."""
    assert '"1#46; step' in to_mermaid(one("1. step"))
    assert '"#45; step' in to_mermaid(one("- step"))


def test_labels_are_no_formulas_and_no_icons() -> None:
    """Mermaid would draw `$$x$$` as a formula and `fa:fa-car` as an icon; the signs are kept apart."""
    text = to_mermaid(one("$$x$$ fa:fa-car fab:fa-x"))
    assert "$$" not in text.replace("#36;", "$")
    assert "fa:fa" not in text.replace("#58;", ":")
    assert "fab:fa" not in text


def test_an_empty_diagram() -> None:
    """No nodes: the header alone, which Mermaid takes."""
    assert to_mermaid(DomainDiagram()) == "flowchart LR\n"

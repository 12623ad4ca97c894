"""The values of a template are found again in the text that it gave."""

from __future__ import annotations

from typing import Any

import pytest

from dipeo_nb.diagram.printed_values import printed_values
from dipeo_nb.diagram.templates import SimpleTemplateProcessor

NAMES: dict[str, Any] = {"a": "one", "b": {"c": [2, 3]}, "xs": ["x", "y"], "none": None}


def found(template: str, **names: Any) -> list[tuple[str, str, str]]:
    """Tag, name and the text at the place that is told, of each value."""
    names = {**NAMES, **names}
    text = SimpleTemplateProcessor().process(template, names).content
    return [(tag, name, text[start:end]) for tag, name, start, end in printed_values(template, names, text)]


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("no tags", []),
        ("say {{a}}!", [("a", "a", "one")]),
        ("{{a}}{{a}} {{b.c[1]}}", [("a", "a", "one"), ("a", "a", "one"), ("b.c[1]", "b", "3")]),
        ("{{ a | upper }}", [("a", "a", "ONE")]),
        ("{{#each xs}}<{{this}}>{{/each}}", [("this", "this", "x"), ("this", "this", "y")]),
        ("{{missing}}{{none}}", []),
        ("{% filter upper %}{{a}}{% endfilter %}", []),
        ("{% set y %}{{a}}{% endset %}{{y}}", [("y", "y", "one")]),
    ],
)
def test_values_are_where_they_are_said_to_be(template: str, values: list[tuple[str, str, str]]) -> None:
    """A text that a statement changes after its tags have printed has no known places."""
    assert found(template) == values


def test_a_value_that_looks_like_a_mark_is_text() -> None:
    assert found("{{a}}", a="\ue000ab:0\ue001 x") == [("a", "a", "\ue000ab:0\ue001 x")]


def test_no_more_are_listed_than_can_be_looked_at() -> None:
    assert len(found("{{a}}" * 400)) == 200

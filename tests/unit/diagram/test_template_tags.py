"""The scanner of template tags: what it finds, and that nothing makes it slow."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.template_names import check
from dipeo_nb.diagram.template_tags import tags
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.errors import TemplateError
from tests.support.examples import examples

REFERENCE = re.compile(
    r"(?P<comment>\{\{[~-]?!--.*?--[~-]?\}\}|\{\{[~-]?!.*?\}\}|\{#.*?#\})"
    r"|\{%(?P<raw>[-+]?\s*raw\s*-?%\}(?P<rawtext>.*?)\{%[-+]?\s*endraw\s*-?)%\}"
    r"|\{\{\{(?P<triple>[^{}]*)\}\}\}"
    r"|\{\{(?P<double>(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\{[^{}]*\}|[^{}])*?)\}\}"
    r"|\{%(?P<statement>(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|(?!%\}).)*?)%\}",
    re.DOTALL,
)
"""What a tag is, as an expression that tries everything."""
PIECES = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{",
    "}",
    "%",
    '"',
    "'",
    "\\",
    "\n",
    "!",
    "!--",
    "--",
    "~",
    "-",
    "a",
    " ",
    "raw",
    "endraw",
]


def _expected(template: str) -> list[tuple[str, int, int, str]]:
    found: list[tuple[str, int, int, str]] = []
    for match in REFERENCE.finditer(template):
        kind = next(k for k in ("comment", "raw", "triple", "double", "statement") if match[k] is not None)
        inner = match["rawtext"] if kind == "raw" else match[kind]
        found.append((kind, match.start(), match.end(), "" if kind == "comment" else inner))
    return found


@examples(1_500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_finds_what_the_expression_finds(template: str) -> None:
    """The same tags at the same places, for texts short enough to try everything."""
    found = [(t.kind, t.start, t.end, "" if t.kind == "comment" else t.inner) for t in tags(template)]
    assert found == _expected(template)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ it's }} and that's", "{{ it's }} and that's"),
        ("{{ '}}' }}", "}}"),
        ("{% set x = '%}' %}{{ x }}", "%}"),
        ("{{ {'a': 1}['a'] }}", "1"),
        ('{{"name": "x"}', '{{"name": "x"}'),
        ("{# it's #}x", "x"),
    ],
)
def test_quotes(template: str, text: str) -> None:
    """Quotes hide a closing; where they would swallow it they are ordinary characters."""
    assert SimpleTemplateProcessor().process_simple(template, {}) == text


UNITS = [
    "''", '""', "{% '", '{% "', "{{", "{{{", "{%", "{#", "{{!", "{{!--", "{{~!--", "{% raw %}", "{% raw", "{{a}", "{{'", '{{"', "{{ \"'",
    "{{'\\", "{% \\'", "{{{'", "{{ {", "{{{}", "{{#if a", "{{ x ", "{%  ", "{{#each a as ", "{{ a as |",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("opening", ["", "{{ ", "{% ", "{{#each "])
@pytest.mark.parametrize("closing", ["", *(pytest.param(end, marks=pytest.mark.slow) for end in ("}", "}}", "%}"))])
def test_nothing_is_slow(unit: str, opening: str, closing: str) -> None:
    """Long runs of what begins a tag and does not end it are text, or one clear error, at once."""
    template = opening + unit * (20_000 // len(unit)) + closing
    with contextlib.suppress(TemplateError):
        check(template)


def test_a_prompt_with_a_brace_too_many() -> None:
    """What a person writes by mistake is text."""
    fields = ", ".join(f'"field{n}": "..."' for n in range(40))
    prompt = "{{" + fields + "}\nBe brief."
    assert SimpleTemplateProcessor().process_simple(prompt, {}) == prompt

"""Large texts are worked on in steps: the values and the texts are those of one step."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from pydantic_core import to_json

from dipeo_nb.common import stepwise_json
from dipeo_nb.errors import ValidationError
from dipeo_nb.storage import structured_text
from dipeo_nb.storage.json_db import lines

LEAVES: list[Any] = [
    None, True, False, 0, -(10**20), 0.1, 1e30, "", "x" * 90, 'é\n"\\\t\u2028😀' * 9, " , ] } ", "  ",
]  # fmt: skip

NAMES = ["", "é", 'k"', "\\"]


def made(source: random.Random, levels: int) -> Any:
    kind = source.random()
    if levels <= 0 or kind < 0.4:
        return source.choice(LEAVES)
    count = source.choice([0, 1, 2, 9, 30])
    if kind < 0.7:
        return [made(source, levels - 1) for _ in range(count)]
    return {f"{source.choice(NAMES)}{n}": made(source, levels - 1) for n in range(count)}


@pytest.mark.parametrize("seed", range(60))
def test_json_in_steps_is_json(seed: int, monkeypatch: pytest.MonkeyPatch):
    """Written in steps it is the text of one step, and read in steps the value that was written."""
    source = random.Random(seed)
    monkeypatch.setattr(stepwise_json, "VALUES", source.choice([2, 7, 30]))
    monkeypatch.setattr(stepwise_json, "WINDOW", source.choice([1, 5, 60]))
    value = made(source, 4)
    text = stepwise_json.dumps(value)
    assert text == to_json(value, indent=2).decode()
    assert stepwise_json.loads(text) == value
    assert stepwise_json.loads(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["[1, 2", '{"a": }', "[01]", "[1]x", '["\x01"]', "[" * 5000])
def test_large_json_that_is_none_says_where(text: str, monkeypatch: pytest.MonkeyPatch):
    """The error of a large text is that of a small one."""

    def error() -> str:
        with pytest.raises(ValidationError) as caught:
            structured_text.json_value(text, "x.json")
        return str(caught.value)

    small = error()
    monkeypatch.setattr(stepwise_json, "LARGE", 0)
    assert error() == small


YAML = [
    "- a: 1\n  b: &x [1, 2]\n- *x\n- 2020-01-01\n- !!binary aGk=\n- {1: 2, <<: {q: 3}}\n", "a: b\n", "", "# c\n", "- &a [*a]\n",
    "a: [1\n", "--- 1\n--- 2\n", "!!foo 1", "[" * 300, "a: |\n  x\n  y\n", "{a: *b}", f"{'[' * 190}{']' * 190}",
]  # fmt: skip


@pytest.mark.parametrize("text", YAML)
def test_yaml_in_steps_is_yaml(text: str, monkeypatch: pytest.MonkeyPatch):
    """The same values, and the same errors."""

    def read() -> Any:
        try:
            return structured_text.yaml_value(text, "x.yaml")
        except ValidationError as error:
            return str(error)[:35]  # the two composers name an unknown alias, or do not

    at_once = read()
    monkeypatch.setattr(structured_text, "QUICK", -1)
    assert read() == at_once


@pytest.mark.parametrize("text", ["", "a", "a\n", "a\r\nb\rc\n\nd\u2028e\x0bf\r\n", "\r\r\r", "\n\n\r\n\r\n", "ab\rcd\r\n" * 9])
@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_lines_in_steps_are_lines(text: str, at_once: int, monkeypatch: pytest.MonkeyPatch):
    """No end of a line is cut in two."""
    whole = lines.lines_of(text)
    monkeypatch.setattr(lines, "LINES_AT_ONCE", at_once)
    assert lines.lines_of(text) == whole
    assert "".join(whole) == text

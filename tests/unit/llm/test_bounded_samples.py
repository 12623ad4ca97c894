"""Schemas of diagrams that would take the echo model for ever, or all of the memory: an answer or one error, and the loop goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.providers import echo
from dipeo_nb.llm.samples import is_risky, sample
from dipeo_nb.llm.samples.limits import MOST, ImpossibleError
from dipeo_nb.llm.samples.patterns import matching
from tests.support.wire_openai import run


def laughs(key: str, levels: int = 20) -> dict[str, Any]:
    """Definitions that each name the next one twice."""
    rules = {f"d{n}": {key: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**rules, f"d{levels}": {"type": "string"}}}


def nested(levels: int = 10, items: int = 1000) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "minItems": items, "items": schema}
    return schema


BOMBS: dict[str, dict[str, Any]] = {
    "repeats of repeats": {"type": "string", "pattern": "^(((a{1000}){1000}){1000}){1000}$"},
    "doubling references": {"type": "string", "pattern": "(a)" + "".join(f"(\\{n}\\{n})" for n in range(1, 60))},
    "long text": {"type": "string", "minLength": 10**10},
    "long text of a pattern": {"type": "string", "pattern": "a", "minLength": 10**10},
    "many items": {"type": "array", "minItems": 10**10},
    "many unlike items": {"type": "array", "minItems": 10**6, "uniqueItems": True, "items": {"type": "integer"}},
    "many fields": {"type": "object", "minProperties": 10**9},
    "lists of lists": nested(),
    "definitions that double": laughs("allOf"),
    "choices that double": laughs("oneOf"),
    "backtracking of a check": {"type": "string", "pattern": "^(a|aa)+$", "minLength": 60, "not": {"pattern": "^(a+)+b"}},
    "backtracking of names": {"type": "object", "required": ["a" * 60 + "!"], "patternProperties": {"^(a+)+$": {"type": "string"}}},
}  # fmt: skip


def asked(schema: dict[str, Any]) -> LLMRequest:
    return LLMRequest("echo", "echo", (ChatMessage("user", "x"),), response_format=schema)


ENDED_BY_TIME = {"choices that double", "backtracking of a check", "backtracking of names"}
"""Nothing else ends their checks."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in ENDED_BY_TIME else []) for case in BOMBS]
)
def test_bombs(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is not held up meanwhile."""
    if case in ENDED_BY_TIME:
        monkeypatch.setattr(echo, "MAKE_S", 1.0)

    async def go() -> tuple[str, int]:
        turns, over, said = 0, False, ""

        async def turn() -> None:
            nonlocal turns
            while not over:
                await asyncio.sleep(0.001)
                turns += 1

        turning = asyncio.create_task(turn())
        try:
            async for _ in echo.EchoClient().stream(asked(BOMBS[case])):
                pass
        except UnsupportedError as error:
            said = str(error)
        over = True
        await turning
        return said, turns

    said, turns = run(go())
    assert not said or "cannot make up an answer" in said
    assert turns


@pytest.mark.parametrize("case", ["repeats of repeats", "doubling references"])
def test_patterns_are_bounded_by_steps(case: str) -> None:
    """Also where nothing ends a process."""
    with pytest.raises(ImpossibleError, match="more than"):
        matching(BOMBS[case]["pattern"], None)


@pytest.mark.parametrize("case", ["long text", "many items", "many fields", "lists of lists"])
def test_values_are_bounded_by_steps(case: str) -> None:
    with pytest.raises(ImpossibleError):
        sample(BOMBS[case])


def test_what_is_large_and_honest_is_made() -> None:
    """Within the limit nothing changes."""
    assert len(sample({"type": "string", "minLength": MOST // 2})) == MOST // 2
    assert len(sample({"type": "array", "minItems": 1000, "items": {"type": "string"}})) == 1000
    assert not is_risky({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
    assert is_risky({"items": [{"properties": {"a": {"pattern": "x"}}}]})

"""Forms of MCP servers: what is asked, and what the answers become."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dipeo_nb.integrations.mcp_forms import filled_in


def fill(answers: list[str | None], required: tuple[str, ...] = (), **fields: Any) -> tuple[Any, list[str]]:
    asked: list[str] = []

    async def ask(question: str) -> str | None:
        asked.append(question)
        return answers[len(asked) - 1]

    params = SimpleNamespace(message="Order?", requested_schema={"properties": fields, "required": required})
    return asyncio.run(filled_in("shop", params, ask)), asked


TITLED = [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]


@pytest.mark.parametrize(
    ("field", "answer", "value", "hint"),
    [
        ({"type": "string"}, " tea ", "tea", ""),
        ({"type": "string", "default": "tea"}, "", "tea", " (empty: tea)"),
        ({"type": "integer", "default": 3}, "", 3, " (empty: 3)"),
        ({"type": "integer"}, "12", 12, ""),
        ({"type": "integer"}, "many", "many", ""),
        ({"type": "number"}, "2.5", 2.5, ""),
        ({"type": "boolean"}, "YES", True, " (yes, no)"),
        ({"type": "boolean", "default": False}, "", False, " (yes, no; empty: no)"),
        ({"enum": ["a", "b"]}, "B", "b", " (a, b)"),
        ({"enum": ["a", "b"]}, "c", "c", " (a, b)"),
        ({"enum": ["a", "b"], "enumNames": ["One", "Two"]}, "two", "b", " (One, Two)"),
        ({"enum": ["a", "b"], "enumNames": ["One"]}, "a", "a", " (a, b)"),
        ({"type": "string", "oneOf": TITLED, "default": "l"}, "small", "s", " (Small, Large; empty: Large)"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "b, A,", ["b", "a"], " (a, b; several with commas between them)"),
        ({"type": "array", "items": {"anyOf": TITLED}, "default": ["s"]}, "", ["s"],
         " (Small, Large; several with commas between them; empty: Small)"),
    ],
)  # fmt: skip
def test_a_field(field: dict[str, Any], answer: str, value: Any, hint: str):
    assert fill([answer], required=("size",), size=field) == ({"size": value}, [f"shop: Order?{hint}"])


def test_a_form():
    """An optional field that is left empty is left out; a question that is not answered ends the form."""
    fields = {"name": {"type": "string", "title": "Your name"}, "note": {"type": "string", "description": "A note"}}
    assert fill(["Ada", ""], ("name",), **fields) == ({"name": "Ada"}, ["shop: Order? Your name", "shop: Order? A note"])
    assert fill(["", "x"], ("name",), **fields)[0] == {"name": "", "note": "x"}
    assert fill(["Ada", None], ("name",), **fields)[0] is None

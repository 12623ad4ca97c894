"""Questions of runs as forms of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

types = pytest.importorskip("mcp_types", reason="not here: the extra mcp")
from dipeo_nb.server import mcp_questions  # noqa: E402
from dipeo_nb.server.diagram_tools import Asked  # noqa: E402


@pytest.mark.parametrize(
    ("kind", "default", "choices", "field"),
    [
        ("string", None, (), {"type": "string"}),
        ("string", "John Doe", (), {"type": "string", "default": "John Doe"}),
        ("integer", "30", (), {"type": "integer", "default": 30}),
        ("number", "95.5", (), {"type": "number", "default": 95.5}),
        ("boolean", "yes", (), {"type": "boolean", "default": True}),
        ("email", "a@b.de", (), {"type": "string", "format": "email", "default": "a@b.de"}),
        ("url", None, (), {"type": "string", "format": "uri"}),
        ("string", "b", ("a", "b"), {"type": "string", "enum": ["a", "b"], "default": "b"}),
        ("integer", "many", (), {"type": "integer"}),  # a client would refuse such a default
        ("string", "c", ("a", "b"), {"type": "string", "enum": ["a", "b"]}),
    ],
)
def test_fields(kind: str, default: str | None, choices: tuple[str, ...], field: dict[str, Any]):
    asked = Asked("exec_1", "q", "Size", "Which?", default, kind, 3, choices)
    schema = mcp_questions.schema(asked)
    assert schema == {"type": "object", "properties": {"answer": {"title": "Size", **field}}, "required": ["answer"]}
    assert mcp_questions.form(asked).message == "Which?"


@pytest.mark.parametrize(
    ("action", "content", "text"),
    [
        ("accept", {"answer": "tea"}, "tea"),
        ("accept", {"answer": True}, "yes"),
        ("accept", {"answer": False}, "no"),
        ("accept", {"answer": 2.5}, "2.5"),
        ("accept", {"answer": "a", "other": "b"}, "a"),
        ("accept", {"name": "Alice"}, "Alice"),
        ("accept", {"name": "Alice", "age": 3}, None),
        ("accept", {}, None),
        ("accept", None, None),
        ("decline", {"answer": "tea"}, None),
        ("cancel", None, None),
    ],
)
def test_answers(action: Any, content: Any, text: str | None):
    assert mcp_questions.answer(types.ElicitResult(action=action, content=content)) == text

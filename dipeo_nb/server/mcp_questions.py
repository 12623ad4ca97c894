"""Questions of runs as elicitations of the Model Context Protocol: the form that a client shows, and the answer in what it returns."""

from __future__ import annotations

from typing import Any

import mcp_types as types

from dipeo_nb.execution.handlers.user_response import value_of, wrong
from dipeo_nb.server.diagram_tools import Asked

FIELD = "answer"
_FORMATS = {"email": "email", "url": "uri"}


def form(asked: Asked) -> types.ElicitRequestFormParams:
    """What the client shows."""
    return types.ElicitRequestFormParams(message=asked.prompt, requested_schema=schema(asked))


def schema(asked: Asked) -> dict[str, Any]:
    """The schema of a form of one field."""
    field: dict[str, Any] = {
        "type": asked.kind if asked.kind in ("number", "integer", "boolean") else "string",
        "title": asked.label,
    }
    default: Any = asked.default
    if asked.choices:
        field["enum"] = list(asked.choices)
        default = default if default in asked.choices else None
    elif default is not None:
        default = value_of(default, asked.kind) if wrong(default, asked.kind) is None else None
    if asked.kind in _FORMATS:
        field["format"] = _FORMATS[asked.kind]
    if default is not None:
        field["default"] = default
    return {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}


def answer(response: types.ElicitResult) -> str | None:
    """The answer; None when the user gave none. Of a client that names the field otherwise, its only value."""
    content = response.content or {}
    if response.action != "accept" or (FIELD not in content and len(content) != 1):
        return None
    value = content.get(FIELD, next(iter(content.values())))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def needed() -> dict[str, Any]:
    """The data of the error for a client that cannot be asked."""
    capabilities = types.ClientCapabilities(elicitation=types.ElicitationCapability())
    return types.MissingRequiredClientCapabilityErrorData(required_capabilities=capabilities).model_dump(
        by_alias=True, mode="json", exclude_none=True
    )

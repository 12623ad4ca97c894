"""Forms that an MCP server asks to be filled in (elicitation): each field is a question, and each answer the value that its schema wants."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.values import json_text
from dipeo_nb.integrations.provider_port import Ask


async def filled_in(server: str, params: Any, ask: Ask) -> dict[str, Any] | None:
    """The user's answers to the fields of a form; None when a question is not answered.

    An empty answer means the field's default, and where there is none that an optional field is left out.
    """
    schema = getattr(params, "requested_schema", None)
    if schema is None:  # an address to open
        answer = await ask(f"{server}: {params.message} {getattr(params, 'url', '')} (yes when it is done)")
        return {} if answer is not None and _yes(answer) else None
    fields: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    content: dict[str, Any] = {}
    for name, field in fields.items():
        answer = await ask(f"{server}: {params.message}{_about(name, field, alone=len(fields) == 1)}")
        if answer is None:
            return None
        if answer.strip() or (name in schema.get("required", ()) and "default" not in field):
            content[name] = _value(answer.strip(), field)
        elif "default" in field:
            content[name] = field["default"]
    return content


def _about(name: str, field: Mapping[str, Any], *, alone: bool) -> str:
    """What a question says of its field."""
    words = [] if alone and not field.get("description") else [str(field.get("description") or field.get("title") or name)]
    hints = ", ".join(title for title, _ in _choices(field))
    if field.get("type") == "array":
        hints += "; several with commas between them"
    if (default := field.get("default")) is not None:
        hints += f"{'; ' if hints else ''}empty: {_shown(default, field)}"
    return "".join(f" {word}" for word in [*words, *([f"({hints})"] if hints else [])])


def _choices(field: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(what the user sees, value) of each choice; the protocol has five ways to list them."""
    listing: Mapping[str, Any] = field.get("items", {}) if field.get("type") == "array" else field
    titled = listing.get("oneOf") or listing.get("anyOf")
    if titled:
        return [(str(one.get("title", one["const"])), one["const"]) for one in titled if "const" in one]
    values = list(listing.get("enum", ()))
    names = listing.get("enumNames", ())
    if not values and field.get("type") == "boolean":
        return [("yes", True), ("no", False)]
    return [(str(title), value) for title, value in zip(names if len(names) == len(values) else values, values, strict=True)]


def _shown(value: Any, field: Mapping[str, Any]) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(one, field) for one in value)
    return next(
        (title for title, one in _choices(field) if one == value), value if isinstance(value, str) else json_text(value)
    )


def _value(answer: str, field: Mapping[str, Any]) -> Any:
    """What an answer means; the server refuses what does not fit."""
    kind = field.get("type", "string")
    if kind == "array":
        return [_chosen(part.strip(), field) for part in answer.split(",") if part.strip()]
    if kind == "boolean":
        return _yes(answer)
    if kind in ("integer", "number"):
        with contextlib.suppress(ValueError):
            return int(answer) if kind == "integer" else float(answer)
    return _chosen(answer, field)


def _chosen(answer: str, field: Mapping[str, Any]) -> Any:
    """The choice with that title or value; else the answer itself."""
    word = answer.casefold()
    return next((value for title, value in _choices(field) if word in (title.casefold(), str(value).casefold())), answer)


def _yes(answer: str) -> bool:
    return answer.strip().lower() in ("y", "yes", "true", "ok", "1", "allow")

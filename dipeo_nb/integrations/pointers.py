"""JSON pointers (RFC 6901) into answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__bool__": lambda self: False})()
"""Stands for a value that is not there."""


def at(value: Any, pointer: str) -> Any:
    """The value at a pointer, or `ABSENT`."""
    if not pointer:
        return value
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(step, ABSENT)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        elif isinstance(value, (list, tuple)) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]  # pyright: ignore[reportUnknownVariableType]
        else:
            return ABSENT
        if value is ABSENT:
            return ABSENT
    return value  # pyright: ignore[reportUnknownVariableType]


def text_at(value: Any, pointer: str | None, limit: int = 500) -> str | None:
    """The text at a pointer, shortened; None when there is none."""
    if pointer is None:
        return None
    found = at(value, pointer)
    if found is ABSENT or found is None or found == "":
        return None
    return str(found)[:limit]

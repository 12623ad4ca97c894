"""Diagrams: reading, writing, compiling, drawing. Public names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.diagram.detect import find
    from dipeo_nb.diagram.document import Diagram, from_model, load, load_text
    from dipeo_nb.diagram.schema import light_schema

_HOMES = {
    "Diagram": "document",
    "find": "detect",
    "from_model": "document",
    "light_schema": "schema",
    "load": "document",
    "load_text": "document",
}

__all__ = ["Diagram", "find", "from_model", "light_schema", "load", "load_text"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"dipeo_nb.diagram.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'dipeo_nb.diagram' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Diagrams: reading, writing, compiling, drawing. Public names are loaded on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy

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

__getattr__: Callable[[str], Any] = lazy.attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

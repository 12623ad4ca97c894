"""Distribution of events that are already stored."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.events.memory import InMemoryEventBus

_HOMES = {
    "InMemoryEventBus": "memory",
}
"""Name → module that has it; loaded on first use."""

__all__ = ["InMemoryEventBus"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb.events' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dipeo_nb.events.{_HOMES[name]}"), name)

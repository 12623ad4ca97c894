"""API keys: where they come from, and how they are shown (never whole)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.security.keys import APIKeyService, EnvironmentAPIKeyService

_HOMES = {
    "APIKeyService": "keys",
    "EnvironmentAPIKeyService": "keys",
}
"""Name → module that has it; loaded on first use."""

__all__ = ["APIKeyService", "EnvironmentAPIKeyService"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb.security' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dipeo_nb.security.{_HOMES[name]}"), name)

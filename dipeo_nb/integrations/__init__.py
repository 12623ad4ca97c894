"""Adapters to web services."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.integrations.providers import BaseProvider, IntegratedApiService

_HOMES = {
    "BaseProvider": "providers",
    "IntegratedApiService": "providers",
}
"""Name → module that has it; loaded on first use."""

__all__ = ["BaseProvider", "IntegratedApiService"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb.integrations' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dipeo_nb.integrations.{_HOMES[name]}"), name)

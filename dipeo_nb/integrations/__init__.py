"""Adapters to web services."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.integrations.providers import BaseProvider, IntegratedApiService

__all__ = ["BaseProvider", "IntegratedApiService"]

__getattr__: Callable[[str], Any] = lazy.attributes(
    __name__, {"BaseProvider": "providers", "IntegratedApiService": "providers"}
)

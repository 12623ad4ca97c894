"""Adapters to web services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.integrations.providers import BaseProvider, IntegratedApiService

__all__ = ["BaseProvider", "IntegratedApiService"]

__getattr__ = lazy.attributes(__name__, {"BaseProvider": "providers", "IntegratedApiService": "providers"})

"""Distribution of stored events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.events.in_memory import InMemoryEventBus

__all__ = ["InMemoryEventBus"]

__getattr__: Callable[[str], Any] = lazy.attributes(__name__, {"InMemoryEventBus": "in_memory"})

"""API keys, trust in diagrams, and the gate of a run.

Secrets are taken out of texts in `common.redaction`; which gate a run gets is decided in `runtime.gates`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.security.keys import APIKeyService, EnvironmentAPIKeyService

__all__ = ["APIKeyService", "EnvironmentAPIKeyService"]

__getattr__: Callable[[str], Any] = lazy.attributes(__name__, {"APIKeyService": "keys", "EnvironmentAPIKeyService": "keys"})

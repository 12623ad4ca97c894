"""Deprecated: this is `dipeo_nb.security.keys` now. Kept for imports of old."""

import warnings

from dipeo_nb.security.keys import APIKeyService, EnvironmentAPIKeyService

warnings.warn(
    "dipeo_nb.shared.keys is deprecated; import APIKeyService and EnvironmentAPIKeyService from dipeo_nb.security.keys.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["APIKeyService", "EnvironmentAPIKeyService"]

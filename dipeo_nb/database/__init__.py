"""Deprecated: this is `dipeo_nb.storage.json_db` now. Kept for imports of old."""

import warnings

from dipeo_nb.storage.json_db import DBOperationsDomainService

warnings.warn(
    "dipeo_nb.database is deprecated; import DBOperationsDomainService from dipeo_nb.storage.json_db.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["DBOperationsDomainService"]

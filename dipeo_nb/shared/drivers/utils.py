"""Deprecated: this is `dipeo_nb.common` now. Kept for imports of old."""

import warnings

from dipeo_nb.common import AsyncFileLock, CacheFileLock, FileLock, SingleFlightCache, get_cache_lock_manager

warnings.warn(
    "dipeo_nb.shared.drivers.utils is deprecated; import caches and locks from dipeo_nb.common.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["AsyncFileLock", "CacheFileLock", "FileLock", "SingleFlightCache", "get_cache_lock_manager"]

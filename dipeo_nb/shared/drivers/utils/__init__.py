"""Deprecated: this is `dipeo_nb.common` now. Kept for imports of old."""

import warnings

from dipeo_nb.common import AsyncFileLock, CacheFileLock, FileLock, SingleFlightCache, get_cache_lock_manager
from dipeo_nb.common.moved import MovedModules

warnings.warn(
    "dipeo_nb.shared.drivers.utils is deprecated; import caches and locks from dipeo_nb.common.",
    DeprecationWarning,
    stacklevel=2,
)
MovedModules(__name__, {"cache": "dipeo_nb.common.cache", "locks": "dipeo_nb.common.locks"}).install()

__all__ = ["AsyncFileLock", "CacheFileLock", "FileLock", "SingleFlightCache", "get_cache_lock_manager"]

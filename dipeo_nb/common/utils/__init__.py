"""Deprecated: these modules are in `dipeo_nb.common` now. Kept for imports of old."""

from dipeo_nb.common.moved import MovedModules, moved_names

MovedModules(__name__, {"cache": "dipeo_nb.common.cache", "locks": "dipeo_nb.common.locks"}).install()
__getattr__ = moved_names(
    __name__, dict.fromkeys(["AsyncFileLock", "CacheFileLock", "FileLock", "SingleFlightCache"], "dipeo_nb.common")
)

"""Utilities that are independent of diagrams: the event loop's thread, caches, locks, atomic writes, confined paths."""

from dipeo_nb.common import imports

imports.guard()  # before anything else is looked for

from typing import TYPE_CHECKING  # noqa: E402

from dipeo_nb.common import lazy  # noqa: E402

if TYPE_CHECKING:
    from dipeo_nb.common.cache import SingleFlightCache
    from dipeo_nb.common.locks import AsyncFileLock, CacheFileLock, FileLock, get_cache_lock_manager

_HOMES = {
    "AsyncFileLock": "locks",
    "CacheFileLock": "locks",
    "FileLock": "locks",
    "SingleFlightCache": "cache",
    "get_cache_lock_manager": "locks",
}
"""Name → module that has it; loaded on first use, so that the loop's thread does not bring locks along."""

__all__ = ["AsyncFileLock", "CacheFileLock", "FileLock", "SingleFlightCache", "get_cache_lock_manager"]

__getattr__ = lazy.attributes(__name__, _HOMES)

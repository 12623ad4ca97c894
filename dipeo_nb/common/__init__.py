"""Utilities that know nothing of diagrams: the event loop's thread, caches, locks, atomic writes, confined paths."""

from dipeo_nb.common import imports

imports.guard()  # before anything else is looked for

import importlib  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb.common' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dipeo_nb.common.{_HOMES[name]}"), name)

"""Remembers what steps have built, by the content that they were built from."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cachetools import TLRUCache

TTL_S = 24 * 3600.0
"""Seconds that an entry is kept."""
MAX_BYTES = 100_000_000
"""Of all entries; the one that was unused for longest goes first."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was made or cleared."""

    entries: int
    size: int
    """Bytes."""
    hits: int
    misses: int
    expired: int


class _Entry(NamedTuple):
    ttl: float
    data: bytes


class IRCache:
    """Entries by key, in memory, for any number of threads. Values come back as copies.

    Nothing is read from a folder: what a repository brings along never takes the place of what its sources say.

    Args:
        ttl: seconds that an entry is kept.
        max_bytes: of all entries.
        now: the clock, in seconds.
    """

    def __init__(self, ttl: float = TTL_S, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._entries: TLRUCache[str, _Entry] = TLRUCache(
            max_bytes, ttu=lambda _, entry, at: at + entry.ttl, timer=now, getsizeof=lambda entry: len(entry.data)
        )
        self._lock = threading.Lock()
        self._hits = self._misses = self._expired = 0

    def get(self, key: str) -> Any:
        """A copy of the value; None: there is none, or it is too old."""
        with self._lock:
            self._expire()
            found = self._entries.get(key)
            self._hits, self._misses = self._hits + (found is not None), self._misses + (found is None)
        return None if found is None else pickle.loads(found.data)[0]  # our own bytes, from this process

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value for *ttl* seconds; None: those of the cache."""
        entry = _Entry(self._ttl if ttl is None else ttl, pickle.dumps((value,)))
        with self._lock:
            self._entries.pop(key, None)
            if len(entry.data) <= self._entries.maxsize:
                self._entries[key] = entry

    def invalidate(self, key: str) -> None:
        """Forget one entry."""
        with self._lock:
            self._entries.pop(key, None)

    def clear_expired(self) -> int:
        """Forget what is too old; returns how many entries."""
        with self._lock:
            return self._expire()

    def clear(self) -> None:
        """Forget everything, the counts included."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = self._expired = 0

    def get_stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(len(self._entries), int(self._entries.currsize), self._hits, self._misses, self._expired)

    def _expire(self) -> int:
        old = len(self._entries.expire())
        self._expired += old
        return old

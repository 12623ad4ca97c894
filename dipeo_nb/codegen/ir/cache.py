"""Remembers what steps have built, by the content that they were built from."""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
        self._max = max_bytes
        self._now = now
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._size = self._hits = self._misses = self._expired = 0

    def get(self, key: str) -> Any:
        """A copy of the value; None: there is none, or it is too old."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0] <= self._now():
                self._drop(key)
                self._expired += 1
                found = None
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
        return pickle.loads(found[1])[0]  # our own bytes, from this process

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value for *ttl* seconds; None: those of the cache."""
        kept = pickle.dumps((value,))
        with self._lock:
            self._drop(key)
            if len(kept) > self._max:
                return
            self._entries[key] = (self._now() + (self._ttl if ttl is None else ttl), kept)
            self._size += len(kept)
            while self._size > self._max:
                self._drop(next(iter(self._entries)))

    def invalidate(self, key: str) -> None:
        """Forget one entry."""
        with self._lock:
            self._drop(key)

    def clear_expired(self) -> int:
        """Forget what is too old; returns how many entries."""
        with self._lock:
            old = [key for key, (end, _) in self._entries.items() if end <= self._now()]
            for key in old:
                self._drop(key)
            self._expired += len(old)
            return len(old)

    def clear(self) -> None:
        """Forget everything, the counts included."""
        with self._lock:
            self._entries.clear()
            self._size = self._hits = self._misses = self._expired = 0

    def get_stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(len(self._entries), self._size, self._hits, self._misses, self._expired)

    def _drop(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._size -= len(found[1])

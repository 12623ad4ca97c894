"""Cache of a service."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cachetools import TTLCache

from dipeo_nb.mixins.base import Mixin

F = TypeVar("F", bound=Callable[..., Any])

CACHE_SIZE = 1024
"""Maximum values in a service's cache."""
CACHE_TTL_S = 300.0
"""Default lifetime in seconds."""
_MISSING = object()


class CachingMixin(Mixin):
    """Values cached in memory for a time; a cached None is a value.

    Args:
        ttl: seconds, by keyword or as first argument (`cache_ttl` is an alias); default: 300.
    """

    def __init__(self, *args: Any, ttl: float | None = None, cache_ttl: float | None = None, **options: Any) -> None:
        if args and isinstance(args[0], (int, float)) and not isinstance(args[0], bool):
            ttl, args = args[0] if ttl is None else ttl, args[1:]
        given = ttl if cache_ttl is None else cache_ttl
        if given is not None and given != self.__dict__.get("_cache_ttl"):
            self.__dict__["_cache_ttl"] = given
            self.__dict__.pop("_cache", None)  # its values would expire by the old time
        super().__init__(*args, **options)

    cache_timer = staticmethod(time.monotonic)

    def cache_get(self, key: Any, default: Any = None) -> Any:
        """Return the cached value, or *default*."""
        state = self._cache_state()
        value = state["values"].get(key, _MISSING)
        state["misses" if value is _MISSING else "hits"] += 1
        return default if value is _MISSING else value

    def cache_set(self, key: Any, value: Any) -> None:
        self._cache_state()["values"][key] = value

    def cache_invalidate(self, key: Any = None) -> None:
        """Remove one value, or all of them (None)."""
        values = self._cache_state()["values"]
        if key is None:
            values.clear()
        else:
            values.pop(key, None)

    def cache_stats(self) -> dict[str, Any]:
        """Return size, hits, misses and ttl (seconds)."""
        state = self._cache_state()
        state["values"].expire()
        return {
            "size": len(state["values"]), "hits": state["hits"], "misses": state["misses"], "ttl": state["values"].ttl
        }  # fmt: skip

    def get_cached(self, key: Any, default: Any = None) -> Any:
        """Alias of `cache_get` for compatibility with DiPeO."""
        return self.cache_get(key, default)

    def set_cached(self, key: Any, value: Any) -> None:
        """Alias of `cache_set` for compatibility with DiPeO."""
        self.cache_set(key, value)

    def _cache_state(self) -> dict[str, Any]:
        if "_cache" not in self.__dict__:
            timer: Callable[[], float] = type(self).cache_timer
            values: TTLCache[Any, Any] = TTLCache(CACHE_SIZE, self.__dict__.get("_cache_ttl", CACHE_TTL_S), timer)
            self.__dict__["_cache"] = {"values": values, "hits": 0, "misses": 0}
        return self.__dict__["_cache"]


def with_cache(key: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Decorate a method of a service with CachingMixin: cache its result by method and arguments.

    Args:
        key: computes the key from the arguments; default: the arguments themselves, with their types (1 is not True); lists,
            mappings and sets by their content.
    """

    def decorate(method: F) -> F:
        def key_of(*args: Any, **options: Any) -> Any:
            return method.__qualname__, _frozen(key(*args, **options) if key else (args, sorted(options.items())))

        @functools.wraps(method)
        async def asynchronous(self: CachingMixin, *args: Any, **options: Any) -> Any:
            name = key_of(*args, **options)
            value = self.cache_get(name, _MISSING)
            if value is _MISSING:
                value = await method(self, *args, **options)
                self.cache_set(name, value)
            return value

        @functools.wraps(method)
        def synchronous(self: CachingMixin, *args: Any, **options: Any) -> Any:
            name = key_of(*args, **options)
            value = self.cache_get(name, _MISSING)
            if value is _MISSING:
                value = method(self, *args, **options)
                self.cache_set(name, value)
            return value

        return asynchronous if inspect.iscoroutinefunction(method) else synchronous  # type: ignore[return-value]

    return decorate


def _frozen(value: Any) -> Any:
    """Return a hashable form of a value: containers by content, everything with its type."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(_frozen(item) for item in value)
    if kind is dict:
        return kind, tuple((_frozen(name), _frozen(item)) for name, item in value.items())
    if kind in (set, frozenset):
        return kind, frozenset(_frozen(item) for item in value)
    return kind, value

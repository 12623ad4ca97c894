"""Services that are opened on first use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

_LIFECYCLE = frozenset({"initialize", "cleanup"})


class OpenOnUse:
    """Stands for a service, and opens it before the first of its async methods does anything.

    It has the class, the attributes and the methods of the service. What is used while it is open is the service's own;
    plain methods are never waited for, so they are used as they are.

    Args:
        service: the service it is a proxy for.
        is_open: whether it has been opened.
        open: opens it, once however often it is called.
    """

    __slots__ = ("__weakref__", "_is_open", "_open", "_service")

    def __init__(self, service: Any, is_open: Callable[[], bool], open: Callable[[], Awaitable[None]]) -> None:
        for name, value in (("_service", service), ("_is_open", is_open), ("_open", open)):
            object.__setattr__(self, name, value)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._service)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._service, name)
        if self._is_open() or name in _LIFECYCLE or isinstance(value, type) or not callable(value):
            return value

        @functools.wraps(value)
        def opening(*args: Any, **options: Any) -> Any:
            result = value(*args, **options)  # of an async method: nothing has happened yet
            if inspect.isawaitable(result):
                return self._awaited(result)
            return self._iterated(result) if isinstance(result, AsyncIterator) else result

        return opening

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        try:
            await self._open()
        except BaseException:
            if inspect.iscoroutine(result):
                result.close()  # it is not waited for any more
            raise
        return await result

    async def _iterated(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        await self._open()
        async for item in items:
            yield item

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._service, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._service, name)

    def __repr__(self) -> str:
        return repr(self._service)


def service_of(service: Any) -> Any:
    """The service itself, where it is behind a proxy."""
    return object.__getattribute__(service, "_service") if isinstance(service, OpenOnUse) else service


async def call_lifecycle(service: Any, name: str) -> None:
    """Call a lifecycle method (`initialize`, `cleanup`) that a service may have, plain or async."""
    result = getattr(service, name, lambda: None)()
    if inspect.isawaitable(result):
        await result

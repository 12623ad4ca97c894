"""Initialization of services, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from dipeo_nb.common.cache import SingleFlightCache
from dipeo_nb.errors import ConfigurationError
from dipeo_nb.mixins.base import Mixin

F = TypeVar("F", bound=Callable[..., Any])


class _Done:
    """Result of a synchronous `initialize`, which has run but may be awaited as well."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield  # makes this a generator


async def _finished(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def _is_initializing(service: Any) -> bool:
    """Whether the calling task or thread is initializing the service."""
    return service.__dict__.get("_initializing") in (threading.get_ident(), _task()) and not service.is_initialized


def _task() -> object:
    try:
        return asyncio.current_task() or _task
    except RuntimeError:  # no event loop runs here
        return _task


def _once(initialize: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(initialize):

        @functools.wraps(initialize)
        def plain(self: Any, *args: Any, **options: Any) -> _Done:
            if self.is_initialized:
                return _Done()
            if _is_initializing(self):
                initialize(self, *args, **options)  # super().initialize() of a subclass
                return _Done()
            with self.__dict__.setdefault("_gate", threading.Lock()):
                if not self.is_initialized:
                    with _initializing(self, threading.get_ident()):
                        initialize(self, *args, **options)
            return _Done()

        return _tracking(plain)

    @functools.wraps(initialize)
    async def once(self: Any, *args: Any, **options: Any) -> None:
        if self.is_initialized:
            return
        if _is_initializing(self):
            await initialize(self, *args, **options)  # super().initialize() of a subclass
            return

        async def work() -> None:
            if not self.is_initialized:
                with _initializing(self, asyncio.current_task()):
                    await initialize(self, *args, **options)

        flights: SingleFlightCache[None] = self.__dict__.setdefault("_flights", SingleFlightCache(maxsize=0))
        await flights.get_or_create("initialize", work)

    return _tracking(once)


@contextlib.contextmanager
def _initializing(service: Any, who: object) -> Iterator[None]:
    service.__dict__["_initializing"] = who
    try:
        yield
        service.__dict__["_initialized"] = True
    finally:
        service.__dict__["_initializing"] = None
        if service.is_initialized:
            for gate in ("_gate", "_flights"):  # locks cannot be copied or pickled, but the service may be
                service.__dict__.pop(gate, None)


def _then_closed(cleanup: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap *cleanup* so that the service may be initialized again afterwards, even if it fails."""
    if not inspect.iscoroutinefunction(cleanup):

        @functools.wraps(cleanup)
        def plain(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return cleanup(self, *args, **options)
            finally:
                self.__dict__["_initialized"] = False

        return _tracking(plain)

    @functools.wraps(cleanup)
    async def closed(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return await cleanup(self, *args, **options)
        finally:
            self.__dict__["_initialized"] = False

    return _tracking(closed)


def _tracking(method: Any) -> Any:
    method._tracks = True
    return method


class InitializationMixin(Mixin):
    """Runs `initialize` once, however many tasks, threads and event loops call it; after a failure or `cleanup` it may run again.

    Both may be synchronous or async methods, of the service itself or of another base class.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, wrapped in (("initialize", _once), ("cleanup", _then_closed)):
            method = getattr(cls, name, None)
            if method is not None and not hasattr(method, "_tracks"):
                setattr(cls, name, wrapped(method))

    @property
    def is_initialized(self) -> bool:
        return bool(self.__dict__.get("_initialized"))

    @_once
    async def initialize(self) -> None:
        """Prepare the service for its first use; to be overridden."""
        following: Any = getattr(super(), "initialize", None)
        if following is not None:
            await _finished(following())

    async def ensure_initialized(self) -> None:
        """Initialize unless this was done, or the caller is doing it."""
        if not self.is_initialized and not _is_initializing(self):
            await _finished(self.initialize())


def require_initialized(method: F) -> F:
    """Decorate a method of a service with InitializationMixin: raise unless it is initialized.

    Raises:
        ConfigurationError: from the decorated method.
    """

    def check(service: InitializationMixin) -> None:
        if not service.is_initialized:
            raise ConfigurationError(f"{type(service).__name__} is not initialized.", hint="First: await service.initialize().")

    @functools.wraps(method)
    async def asynchronous(self: Any, *args: Any, **options: Any) -> Any:
        check(self)
        return await method(self, *args, **options)

    @functools.wraps(method)
    def synchronous(self: Any, *args: Any, **options: Any) -> Any:
        check(self)
        return method(self, *args, **options)

    return asynchronous if inspect.iscoroutinefunction(method) else synchronous  # type: ignore[return-value]

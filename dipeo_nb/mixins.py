"""Five optional mixins for services: logging, validation, configuration, caching, initialisation (infra-spec §13).

Each works whether its `__init__` is called through `super().__init__()`, on its own (`CachingMixin.__init__(self, ttl=300)`, in
any order and any number of times) or not at all: what it keeps is made when it is first needed, and only what is given
replaces what was there. Two mixins with a public name in common cannot be combined; that fails when the class is made, not
when it is used. `mixins_of(service)` lists what a service is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cachetools import TTLCache
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.common.cache import SingleFlightCache
from dipeo_nb.common.operations import first_told
from dipeo_nb.common.scrub import logger
from dipeo_nb.errors import ConfigurationError, ValidationError

F = TypeVar("F", bound=Callable[..., Any])
CACHE_SIZE = 1024
"""Values that a service's cache keeps at most."""
CACHE_TTL_S = 300.0
"""Seconds that they are kept, unless the service says otherwise."""
_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Names that a log record has itself."""


_LIFECYCLE = frozenset({"initialize", "cleanup"})
"""Names that a base class beside the mixins may have: `InitializationMixin` works with them."""


class _Mixin:
    """Base of the mixins: sees to it that they do not clash."""

    mixin_names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if _Mixin in cls.__bases__:
            cls.mixin_names = frozenset(n for n in vars(cls) if not n.startswith("_") and n != "mixin_names")
            return
        seen: dict[str, type] = {}
        for mixin in mixins_of(cls):
            for name in mixin.mixin_names:
                if name in seen:
                    raise TypeError(
                        f"{cls.__name__} mixes {seen[name].__name__} and {mixin.__name__}, which both have '{name}'. "
                        "Use one of them, or rename."
                    )
                seen[name] = mixin
        for base in cls.__mro__[1:]:
            if issubclass(base, _Mixin) or base is object or getattr(base, "_is_protocol", False):
                continue
            for name in sorted(seen.keys() & vars(base).keys() - vars(cls).keys() - _LIFECYCLE):
                raise TypeError(
                    f"{cls.__name__} mixes {seen[name].__name__} and {base.__name__}, which both have '{name}'. "
                    f"Say in {cls.__name__} which of them is meant, or rename."
                )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


def mixins_of(service: object) -> tuple[type[_Mixin], ...]:
    """The mixins of a service or its class, in the order in which they are looked at."""
    cls = service if isinstance(service, type) else type(service)
    return tuple(c for c in cls.__mro__ if _Mixin in c.__bases__)


class LoggingMixin(_Mixin):
    """Structured log lines under `<module>.<class>`; what a line carries is in its `extra`."""

    @property
    def logger(self) -> logging.Logger:
        return logger(f"{type(self).__module__}.{type(self).__qualname__}")

    def log_debug(self, message: str, **extra: Any) -> None:
        self._log(logging.DEBUG, message, extra)

    def log_info(self, message: str, **extra: Any) -> None:
        self._log(logging.INFO, message, extra)

    def log_warning(self, message: str, **extra: Any) -> None:
        self._log(logging.WARNING, message, extra)

    def log_error(self, message: str, **extra: Any) -> None:
        self._log(logging.ERROR, message, extra)

    def _log(self, level: int, message: str, extra: dict[str, Any]) -> None:
        """`log_info("…", extra={…})` and `log_info("…", key=value)` mean the same; reserved names get a `_`."""
        nested = extra.pop("extra", None)
        problem = extra.pop("exc_info", None)
        fields = {**(nested if isinstance(nested, Mapping) else {}), **extra}
        safe = {f"{k}_" if k in _RESERVED else k: v for k, v in fields.items()}
        self.logger.log(level, message, extra=safe, exc_info=problem, stacklevel=3)


def log_operation(name: str | None = None) -> Callable[[F], F]:
    """Decorator for methods of a service with LoggingMixin: debug when it is done, with its milliseconds; error when it fails.

    Args:
        name: what the log calls it; default: the method's name.
    """

    def decorate(method: F) -> F:
        label = name or method.__name__

        def done(service: LoggingMixin, started: float) -> None:
            service.log_debug(
                f"{label} done", operation=label, duration_ms=round((time.perf_counter() - started) * 1e3, 3)
            )

        def failed(service: LoggingMixin, started: float, error: BaseException) -> None:
            if not first_told(error):
                return  # by the adapter that failed
            took = round((time.perf_counter() - started) * 1e3, 3)
            service.log_error(f"{label} failed: {error}", operation=label, duration_ms=took, error=type(error).__name__)

        @functools.wraps(method)
        async def asynchronous(self: LoggingMixin, *args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                result = await method(self, *args, **options)
            except Exception as error:
                failed(self, started, error)
                raise
            done(self, started)
            return result

        @functools.wraps(method)
        def synchronous(self: LoggingMixin, *args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                result = method(self, *args, **options)
            except Exception as error:
                failed(self, started, error)
                raise
            done(self, started)
            return result

        return asynchronous if inspect.iscoroutinefunction(method) else synchronous  # type: ignore[return-value]

    return decorate


class ValidationMixin(_Mixin):
    """Checks that raise one clear ValidationError."""

    def validate_required_fields(self, data: Mapping[str, Any], fields: Iterable[str]) -> None:
        """Raises when a field is missing or None; all of them are named."""
        missing = [f for f in fields if data.get(f) is None]
        if missing:
            raise ValidationError(
                f"Missing: {', '.join(missing)}.", hint=f"There are: {', '.join(map(str, data)) or 'none'}."
            )

    def validate_field(self, data: Mapping[str, Any], field: str, kind: Any = Any) -> bool:
        """Whether *data* has *field*, not None and of that type (generics such as `list[int]` too)."""
        return data.get(field) is not None and _fits(data[field], kind)

    def validate_type(self, value: Any, kind: Any, name: str = "value") -> Any:
        """The value; raises when it is of another type. A bool is no int."""
        if not _fits(value, kind):
            wanted = getattr(kind, "__name__", str(kind)) if not getattr(kind, "__args__", None) else str(kind)
            raise ValidationError(f"{name} is {type(value).__name__}, not {wanted}.", hint=f"Give a {wanted}.")
        return value

    def validate_enum(self, value: Any, allowed: Collection[Any], name: str = "value") -> Any:
        """The value; raises when it is none of *allowed* (an Enum class or a collection)."""
        choices = [getattr(a, "value", a) for a in allowed]
        if getattr(value, "value", value) not in choices:
            raise ValidationError(f"{name} is {value!r}.", hint=f"Choose one of: {', '.join(map(str, choices))}.")
        return value

    def validate_file_path(
        self, path: str | os.PathLike[str], allowed_base: str | os.PathLike[str] | None = None
    ) -> Path:
        """The absolute path; raises when it is empty, or outside *allowed_base* once links are followed."""
        if not str(path).strip() or "\0" in str(path):
            raise ValidationError(f"{str(path)!r} is no path.", hint="Give the path of a file.")
        if allowed_base is None:
            return Path(path).resolve()
        base = Path(allowed_base).resolve()
        full = (base / path).resolve()
        if not full.is_relative_to(base):
            raise ValidationError(f"{path} is outside {base}.", hint="Give a path within it.")
        return full


def _fits(value: Any, kind: Any) -> bool:
    if kind is int and isinstance(value, bool):
        return False
    if isinstance(kind, tuple):
        return any(_fits(value, one) for one in kind)
    if isinstance(kind, type) and not getattr(kind, "__args__", None):
        return isinstance(value, kind)
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except PydanticValidationError:
        return False
    return True


class ConfigurationMixin(_Mixin):
    """A configuration of nested mappings, read and changed by dotted names.

    Args:
        config: the mapping, by name or first; it is copied.
    """

    def __init__(self, *args: Any, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        if args and (args[0] is None or isinstance(args[0], Mapping)):
            given: Mapping[str, Any] | None = args[0]
            config, args = given if config is None else config, args[1:]
        if config is not None:
            self.config = config
        super().__init__(*args, **options)

    @property
    def config(self) -> dict[str, Any]:
        return self.__dict__.setdefault("_configuration", {})

    @config.setter
    def config(self, value: Mapping[str, Any] | None) -> None:
        self.__dict__["_configuration"] = _copied(value or {})

    def get_config_value(self, name: str, default: Any = None) -> Any:
        """The value under a dotted name (`llm.timeout`); *default* where there is none. False, 0 and "" are values."""
        return self.safe_get_nested(self.config, name, default)

    def set_config_value(self, name: str, value: Any) -> None:
        """Set the value under a dotted name, making what lies between.

        Raises:
            ConfigurationError: something on the way is no mapping.
        """
        *path, last = name.split(".")
        at = self.config
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigurationError(f"'{name}' cannot be set: '{part}' is {at!r}.", hint="Choose another name.")
        at[last] = value

    def safe_get_nested(self, data: Mapping[str, Any], name: str, default: Any = None) -> Any:
        at: Any = data
        for part in name.split("."):
            if not isinstance(at, Mapping) or part not in at:
                return default
            at = at[part]
        return at


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in value.items()}


_MISSING = object()


class CachingMixin(_Mixin):
    """Values kept in memory for a time; a None that was kept is a value.

    Args:
        ttl: seconds, by name or first (`cache_ttl` means the same); 300 when never given.
    """

    def __init__(self, *args: Any, ttl: float | None = None, cache_ttl: float | None = None, **options: Any) -> None:
        if args and isinstance(args[0], (int, float)) and not isinstance(args[0], bool):
            ttl, args = args[0] if ttl is None else ttl, args[1:]
        given = ttl if cache_ttl is None else cache_ttl
        if given is not None and given != self.__dict__.get("_cache_ttl"):
            self.__dict__["_cache_ttl"] = given
            self.__dict__.pop("_cache", None)  # its values would leave by the old time
        super().__init__(*args, **options)

    cache_timer = staticmethod(time.monotonic)

    def cache_get(self, key: Any, default: Any = None) -> Any:
        """The kept value, or *default*."""
        state = self._cache_state()
        value = state["values"].get(key, _MISSING)
        state["misses" if value is _MISSING else "hits"] += 1
        return default if value is _MISSING else value

    def cache_set(self, key: Any, value: Any) -> None:
        self._cache_state()["values"][key] = value

    def cache_invalidate(self, key: Any = None) -> None:
        """Forget one value, or all of them (None)."""
        values = self._cache_state()["values"]
        if key is None:
            values.clear()
        else:
            values.pop(key, None)

    def cache_stats(self) -> dict[str, Any]:
        """size, hits, misses, ttl (seconds)."""
        state = self._cache_state()
        state["values"].expire()
        return {
            "size": len(state["values"]), "hits": state["hits"], "misses": state["misses"], "ttl": state["values"].ttl
        }  # fmt: skip

    def get_cached(self, key: Any, default: Any = None) -> Any:
        """The seed's name for `cache_get`."""
        return self.cache_get(key, default)

    def set_cached(self, key: Any, value: Any) -> None:
        """The seed's name for `cache_set`."""
        self.cache_set(key, value)

    def _cache_state(self) -> dict[str, Any]:
        if "_cache" not in self.__dict__:
            timer: Callable[[], float] = type(self).cache_timer
            values: TTLCache[Any, Any] = TTLCache(CACHE_SIZE, self.__dict__.get("_cache_ttl", CACHE_TTL_S), timer)
            self.__dict__["_cache"] = {"values": values, "hits": 0, "misses": 0}
        return self.__dict__["_cache"]


def with_cache(key: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Decorator for methods of a service with CachingMixin: the result is kept, by the method and its arguments.

    Args:
        key: makes the key out of the arguments; default: the arguments themselves, with their types (1 is not True); lists,
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
    """A value as part of a key: containers by their content, everything with its type."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(_frozen(item) for item in value)
    if kind is dict:
        return kind, tuple((_frozen(name), _frozen(item)) for name, item in value.items())
    if kind in (set, frozenset):
        return kind, frozenset(_frozen(item) for item in value)
    return kind, value


class _Done:
    """What a plain `initialize` gives back: it has run, and may be awaited all the same."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield  # makes it a generator


async def _finished(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def _is_initializing(service: Any) -> bool:
    """Whether the task or thread that asks is in the middle of initialising the service."""
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
            for gate in ("_gate", "_flights"):  # locks cannot be copied or pickled, the service perhaps can
                service.__dict__.pop(gate, None)


def _then_closed(cleanup: Callable[..., Any]) -> Callable[..., Any]:
    """*cleanup*, after which the service may be initialised again, also when it failed."""
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


class InitializationMixin(_Mixin):
    """`initialize` runs once, however often and from however many tasks, threads and event loops it is called; after a failure
    and after `cleanup` it may run again.

    Both may be plain or async methods, of the service itself or of a base class beside this one.
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
        """What a service does before its first use; override it."""
        following: Any = getattr(super(), "initialize", None)
        if following is not None:
            await _finished(following())

    async def ensure_initialized(self) -> None:
        """Initialise unless that was done, or is just being done by the caller."""
        if not self.is_initialized and not _is_initializing(self):
            await _finished(self.initialize())


def require_initialized(method: F) -> F:
    """Decorator for methods of a service with InitializationMixin: refuses to work before `initialize`.

    Raises:
        ConfigurationError: from the decorated method.
    """

    def check(service: InitializationMixin) -> None:
        if not service.is_initialized:
            raise ConfigurationError(
                f"{type(service).__name__} is not initialized.", hint="First: await service.initialize()."
            )

    @functools.wraps(method)
    async def asynchronous(self: Any, *args: Any, **options: Any) -> Any:
        check(self)
        return await method(self, *args, **options)

    @functools.wraps(method)
    def synchronous(self: Any, *args: Any, **options: Any) -> Any:
        check(self)
        return method(self, *args, **options)

    return asynchronous if inspect.iscoroutinefunction(method) else synchronous  # type: ignore[return-value]

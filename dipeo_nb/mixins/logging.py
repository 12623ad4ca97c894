"""Structured log lines of a service."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dipeo_nb.common.operation_log import mark_logged
from dipeo_nb.common.redaction import logger
from dipeo_nb.mixins.base import Mixin

F = TypeVar("F", bound=Callable[..., Any])

_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of log records."""


class LoggingMixin(Mixin):
    """Structured log records under `<module>.<class>`, with their fields in `extra`."""

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
    """Decorate a method of a service with LoggingMixin: log its duration at debug level, or its error.

    Args:
        name: name in the log; default: the method's name.
    """

    def decorate(method: F) -> F:
        label = name or method.__name__

        def done(service: LoggingMixin, started: float) -> None:
            service.log_debug(f"{label} done", operation=label, duration_ms=round((time.perf_counter() - started) * 1e3, 3))

        def failed(service: LoggingMixin, started: float, error: BaseException) -> None:
            if not mark_logged(error):
                return  # logged by the adapter that failed
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

"""The log of what adapters do: one debug line for what worked, one error line for what failed."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from types import CoroutineType
from typing import Any, TypeVar

from dipeo_nb.common.redaction import logger
from dipeo_nb.errors import DipeoError

C = TypeVar("C", bound=type)
ANSWERS = frozenset({"not_found", "exists", "refused", "unsupported"})
"""Causes of errors that answer a question (`get` of what is not there): the asked has not failed."""


def logged(*operations: str, **parts: str) -> Callable[[C], C]:
    """Class decorator: the named methods (plain and async) write one line each under the logger of the class.

    A plain method that returns a coroutine leaves the line to that one: to a method among *parts*, each with its operation.

    Debug when it worked, with `operation` and `duration_ms`; error when it failed; debug when the error is an answer (see
    `ANSWERS`). An error that passes through several adapters is logged by the innermost only.
    """

    def decorate(cls: C) -> C:
        log = logger(f"{cls.__module__}.{cls.__qualname__}")

        def report(operation: str, started: float, error: BaseException | None) -> None:
            if error is None and not log.isEnabledFor(logging.DEBUG):
                return
            facts = {"operation": operation, "duration_ms": round((time.perf_counter() - started) * 1e3, 3)}
            if error is None:
                log.debug("%s done", operation, extra=facts)
            elif isinstance(error, DipeoError) and error.facts.get("cause") in ANSWERS:
                log.debug("%s: %s", operation, error.message, extra={**facts, "error": error.code})
            elif isinstance(error, Exception) and mark_logged(error):
                code = error.code if isinstance(error, DipeoError) else type(error).__name__
                log.error("%s failed: %s", operation, error, extra={**facts, "error": code})

        for method, operation in (*((name, name) for name in operations), *parts.items()):
            setattr(cls, method, _logging(inspect.getattr_static(cls, method), operation, report))
        return cls

    return decorate


def mark_logged(error: BaseException) -> bool:
    """Mark an error as logged; whether neither it nor its cause was logged before."""
    before = any(getattr(e, "_logged", False) for e in (error, error.__cause__) if e is not None)
    vars(error)["_logged"] = True
    return not before


def _logging(method: Any, name: str, report: Callable[[str, float, BaseException | None], None]) -> Any:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awaited(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                result = await method(*args, **options)
            except BaseException as error:
                report(name, started, error)
                raise
            report(name, started, None)
            return result

        return awaited

    @functools.wraps(method)
    def called(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            result = method(*args, **options)
        except BaseException as error:
            report(name, started, error)
            raise
        if not isinstance(result, CoroutineType):
            report(name, started, None)
        return result

    return called

"""The current day and time, for everything that depends on it; tests and `models check --on` set another day."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime

_said: ContextVar[date | None] = ContextVar("dipeo_nb_today", default=None)


def today() -> date:
    """The date, in UTC."""
    return _said.get() or datetime.now(UTC).date()


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@contextmanager
def on(day: date) -> Generator[None]:
    """Take *day* for today within the block: in this thread, and in the tasks and library calls that begin within it."""
    before = _said.set(day)
    try:
        yield
    finally:
        _said.reset(before)

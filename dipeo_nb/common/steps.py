"""Progress of long work in steps: the work reports each step to the caller that has asked for reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str, int, int], None]
"""(name of the step, its number from 1, how many there are). Called in the thread of the work."""
_reports: ContextVar[Report | None] = ContextVar("dipeo_steps", default=None)


@contextmanager
def reported_to(report: Report) -> Iterator[None]:
    """Pass the steps of the work in here on, that of its threads (`asyncio.to_thread`) included."""
    token = _reports.set(report)
    try:
        yield
    finally:
        _reports.reset(token)


def begun(name: str, number: int, of: int) -> None:
    """A step begins. Costs nothing when nobody has asked."""
    report = _reports.get()
    if report is not None:
        report(name, number, of)

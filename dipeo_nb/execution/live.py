"""The executions that live in this process: one run has one engine, whichever session, server or parent started it.

A run is entered when somebody takes it over or when its execution begins, and leaves with the end of the execution; one that was
taken over and never began is forgotten with the object that stands for it. What other processes do is the run store's to know.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dipeo_nb.common.open_on_use import service_of
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import StorageError


class _Key(NamedTuple):
    store: object
    run_id: str


_lock = threading.Lock()
_holders: weakref.WeakValueDictionary[_Key, Any] = weakref.WeakValueDictionary()
"""Who has a run: an execution, or what somebody took over in order to make one."""


def _key(store: RunStore, run_id: str) -> _Key:
    # The same record opened twice is one record; two records in memory are two, also with equal ids.
    return _Key(getattr(store, "place", None) or id(service_of(store)), run_id)


def enter(store: RunStore, run_id: str, holder: Any, *, instead_of: Any = None, operation: str = "claim") -> None:
    """Take a run for *holder*.

    Args:
        instead_of: who may have it already, and hands it over.
        operation: what for, in the error.

    Raises:
        StorageError: `going_on`, it lives here already.
    """
    key = _key(store, run_id)
    with _lock:
        current = _holders.get(key)
        if current is not None and current is not holder and current is not instead_of:
            raise going_on(run_id, current, operation=operation)
        _holders[key] = holder


def leave(store: RunStore, run_id: str, holder: Any) -> None:
    """Give a run back, unless it has another owner by now."""
    key = _key(store, run_id)
    with _lock:
        if _holders.get(key) is holder:
            del _holders[key]


class _Reservation:
    """Holds runs that nobody may take over for a while."""


@contextmanager
def reserved(store: RunStore, run_ids: Iterable[str], operation: str) -> Iterator[None]:
    """Keep everybody in this process from taking these runs over meanwhile.

    Raises:
        StorageError: `going_on`, one of them lives here.
    """
    reservation = _Reservation()
    taken: list[str] = []
    try:
        for run_id in run_ids:
            enter(store, run_id, reservation, operation=operation)
            taken.append(run_id)
        yield
    finally:
        for run_id in taken:
            leave(store, run_id, reservation)


def holder(store: RunStore, run_id: str) -> Any:
    """Who has a run in this process; None: nobody."""
    with _lock:
        return _holders.get(_key(store, run_id))


def going_on(run_id: str, current: Any, *, operation: str = "claim") -> StorageError:
    """The error of somebody who wants a run that lives in this process."""
    parent = getattr(getattr(current, "options", None), "parent_run_id", None)
    part = f" as a part of run {parent}" if parent else ""
    return StorageError(
        f"Run {run_id} is still running in this process (process {os.getpid()}){part}.",
        hint=f"Wait for it, or stop it: dp.open_run('{parent or run_id}').stop().",
        operation=operation,
        run_id=run_id,
        cause="going_on",
    )


def _after_fork() -> None:
    """No execution crosses a fork: its thread does not."""
    global _lock
    _lock = threading.Lock()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""Python's logging inside a run: what the code of a node logs, and libraries it calls, becomes `execution_log` events of the run.

Levels are the user's: what a logger drops is not recorded. What this library logs about itself is not part of any run, and what
those log who watch a run is not either, or each event would make another one.
"""

from __future__ import annotations

import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.execution.code_worker import LOG_LIMIT, log_payload

_OURS = __name__.partition(".")[0]


Sink = Callable[[PlanNode, Mapping[str, Any]], None]
"""Takes what code of a node has logged, as the payload of an `execution_log` event. Any thread."""


class Place(NamedTuple):
    """Where code is at work."""

    sink: Sink
    node: PlanNode


NOWHERE = object()
_PLACE: ContextVar[Any] = ContextVar("dipeo_run_log_place", default=None)
"""A `Place`, NOWHERE (those who watch runs), or None: not known."""


enter: Callable[[Place | object], Token[Any]] = _PLACE.set
"""From here on in this context, and in tasks and `asyncio.to_thread` of it, this is where code is at work."""
leave: Callable[[Token[Any]], None] = _PLACE.reset


def node_at_work() -> PlanNode | None:
    """The node whose work this is; None when that is not known."""
    place = _PLACE.get()
    return place.node if isinstance(place, Place) else None


class _Call(NamedTuple):
    place: Place
    before: weakref.WeakSet[threading.Thread]
    """Threads that were there before it."""


_calls: list[_Call] = []


@contextmanager
def calling(sink: Sink, node: PlanNode) -> Iterator[None]:
    """Threads that begin in the meantime count as those of the node, as far as they can be distinguished from those of other calls: until
    Python 3.14 a thread does not know where it was started."""
    call = _Call(Place(sink, node), weakref.WeakSet(threading.enumerate()))
    _calls.append(call)
    try:
        yield
    finally:
        _calls.remove(call)


class _Recorder(logging.Handler):
    """Records; it is at no logger, see `listening`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            place = _PLACE.get()
            if place is None:
                place = _of_thread()
            if isinstance(place, Place) and record.name.partition(".")[0] != _OURS:
                place.sink(place.node, log_payload(record, _json))
        except Exception:  # noqa: BLE001 - a logging call never fails
            self.handleError(record)


_RECORDER = _Recorder()
_lock = threading.Lock()
_going = 0
_call_handlers: Any = None
"""Python's own."""


@contextmanager
def listening() -> Iterator[None]:
    """While a run is going on.

    Records are met where loggers hand them to their handlers, as Sentry's integration does it: a handler at the root logger would
    make `logging.basicConfig` do nothing, and take the place of `logging.lastResort`.
    """
    global _going, _call_handlers
    with _lock:
        _going += 1
        if _call_handlers is None:
            _call_handlers = logging.Logger.callHandlers
            logging.Logger.callHandlers = _met
    try:
        yield
    finally:
        with _lock:
            _going -= 1


def _met(self: logging.Logger, record: logging.LogRecord) -> None:
    if _going:
        _RECORDER.handle(record)
    _call_handlers(self, record)


def _of_thread() -> Place | None:
    thread = threading.current_thread()
    places = [call.place for call in _calls if thread not in call.before]
    return places[0] if len(places) == 1 else None


def _json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:LOG_LIMIT]

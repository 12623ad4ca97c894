"""Limits on the work of one evaluation of a template or an expression, metered while it runs.

Everything that takes time or makes something is counted: rounds of loops and calls as *rounds*; characters and elements that are
made, read or compared as *size*. An evaluation that is `quick` may use little and raises `NotQuickError` when it needs more, so that
it can be done again where it can be killed; otherwise the limits are what any evaluation may cost, and `TooLargeError` ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

from dipeo_nb.diagram.values import TooLargeError

MAX_ROUNDS = 1_000_000
"""Rounds of all loops, and calls, of one evaluation."""
MAX_WORK = 100_000_000
"""Characters and elements that one evaluation may go through."""
ELEMENT = 8
"""Cost of an element, in characters."""
QUICK_ROUNDS = 5_000
QUICK_WORK = 2_000_000


class NotQuickError(Exception):
    """The evaluation takes more than a quick one may."""


class Meter:
    """The account of one evaluation."""

    __slots__ = ("_quick", "rounds", "size")

    def __init__(self, *, quick: bool = False) -> None:
        self._quick = quick
        self.rounds = QUICK_ROUNDS if quick else MAX_ROUNDS
        """That are left."""
        self.size = QUICK_WORK if quick else MAX_WORK
        """That is left."""

    def turn(self, rounds: int = 1) -> None:
        """Charge rounds of loops, or calls."""
        self.rounds -= rounds
        if self.rounds < 0:
            if self._quick:
                raise NotQuickError
            raise TooLargeError(f"the loops and calls take more than {MAX_ROUNDS:,} rounds")

    def spend(self, size: int) -> None:
        """Charge characters and elements."""
        self.size -= size
        if self.size < 0:
            if self._quick:
                raise NotQuickError
            raise TooLargeError(f"it goes through more than {MAX_WORK:,} characters and elements")

    def weigh(self, value: Any, factor: int = 1) -> None:
        """Charge everything that is in a value, shared parts each time they occur."""
        kind = type(value)
        if kind is str:
            self.size -= len(value) * factor
            if self.size < 0:
                self.spend(0)
        elif kind not in ATOMS:
            self.spend(_weight(value, {}, [self.size + 1]) * factor)


ATOMS = frozenset([int, float, bool, type(None)])
"""Types of values that take no time."""
_METER: ContextVar[Meter | None] = ContextVar("dipeo_meter", default=None)
_QUICK: ContextVar[bool] = ContextVar("dipeo_quick", default=False)
_TOO_MUCH = 1 << 60
_OPEN = -1
"""Stands for the weight of a container that is being weighed."""


def meter() -> Meter:
    """The meter of the current evaluation; outside of one, a new meter."""
    return _METER.get() or new_meter()


def new_meter() -> Meter:
    """An account for one evaluation."""
    return Meter(quick=_QUICK.get())


class metered:
    """An evaluation with an account of its own; within another one, with that one's."""

    __slots__ = ("_token",)

    def __enter__(self) -> Meter:
        account = _METER.get()
        self._token: Token[Meter | None] | None = None
        if account is None:
            account = new_meter()
            self._token = _METER.set(account)
        return account

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _METER.reset(self._token)


class quick:
    """Evaluations in here are quick, or raise NotQuickError."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _QUICK.set(True)

    def __exit__(self, *_: object) -> None:
        _QUICK.reset(self._token)


def is_quick() -> bool:
    """Whether evaluations are to be quick here."""
    return _QUICK.get()


def _weight(value: Any, known: dict[int, int], left: list[int]) -> int:
    """Characters and elements in a value.

    Args:
        known: weights of the containers that were met.
        left: how many values may still be looked at; when there are no more, what remains weighs nothing, as the sum is above
            what its reader has.
    """
    kind = type(value)
    if kind is str:
        return len(value) + 1
    if kind is not list and kind is not dict:
        if isinstance(value, str):  # a text view
            behind = getattr(value, "__dipeo_value__", None)
            return len(value) + 1 + (0 if behind is None or isinstance(behind, str) else _weight(behind, known, left))
        if isinstance(value, (bytes, bytearray)):
            return len(value) + 1
        if isinstance(value, range):
            return ELEMENT * (1 + len(value))
        if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return 1
    before = known.get(id(value))
    if before == _OPEN:
        raise TooLargeError("a value contains itself")
    if before is not None:
        return before
    items: Any = value
    left[0] -= len(items)
    if left[0] < 0:
        return _TOO_MUCH
    known[id(value)] = _OPEN
    total = ELEMENT * (1 + len(items))
    mapping = kind is dict or (kind is not list and isinstance(value, Mapping))
    for item in items:
        if type(item) is str:
            total += len(item)
        elif type(item) not in ATOMS:
            total += _weight(item, known, left)
    if mapping:
        for item in items.values():
            if type(item) is str:
                total += len(item)
            elif type(item) not in ATOMS:
                total += _weight(item, known, left)
    known[id(value)] = total
    return total

"""The state of one evaluation: names, variables, and what has been spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipeo_nb.diagram.expressions.values import MAX_STEPS
from dipeo_nb.diagram.metering import ATOMS, Meter
from dipeo_nb.diagram.values import MAX_SIZE, TooLargeError, plain


class Scope:
    """State of one evaluation: the names, the variables of comprehensions, the steps and sizes spent."""

    __slots__ = ("account", "free", "locals", "names", "outer", "size", "steps", "unknown")

    def __init__(self, free: frozenset[str], names: Mapping[str, Any], account: Meter) -> None:
        self.free: frozenset[str] = free
        """Names that the expression uses."""
        self.names: Mapping[str, Any] = names
        self.locals: dict[str, Any] = {}
        self.outer: Scope | None = None
        """The one that counts for this one. (None and not itself: a cycle would leave the scope, and all that its names reach, to the
        garbage collector.)"""
        self.account: Meter = account
        self.steps: int = 0
        self.size: int = 0
        self.unknown: dict[str, str] = {}
        """Names and paths that were used and do not exist → the message about them."""

    def inner(self) -> Scope:
        """A scope for a comprehension or lambda: own variables, common account."""
        scope = object.__new__(Scope)
        scope.free = self.free
        scope.names = self.names
        scope.locals = dict(self.locals)
        scope.outer = self.outer or self
        scope.account = self.account
        scope.steps = scope.size = 0
        scope.unknown = self.unknown
        return scope

    def step(self) -> None:
        """Charge one step; raises TooLargeError when there are too many."""
        root = self.outer or self
        root.steps += 1
        self.account.rounds -= 1
        if self.account.rounds < 0:
            self.account.turn(0)
        if root.steps > MAX_STEPS:
            raise TooLargeError(f"it takes more than {MAX_STEPS:,} steps")

    def grown(self, value: Any) -> Any:
        """Charge the size of a value just made to the account; the value itself."""
        if isinstance(value, (str, list, tuple, dict, set, frozenset)):
            self.account.weigh(value)
            root = self.outer or self
            root.size += len(value)
            if root.size > MAX_SIZE:
                raise TooLargeError(f"it makes more than {MAX_SIZE:,} characters and elements")
        return value

    def used(self, *values: Any, factor: int = 1) -> None:
        """Charge the work of going through values."""
        account = self.account
        for value in values:
            if type(value) is str:
                account.size -= len(value) * factor
            elif type(value) not in ATOMS:
                account.weigh(plain(value), factor)
        if account.size < 0:
            account.spend(0)

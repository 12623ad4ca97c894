"""Events from outside that a run waits for: `run.signal("approved", by="Ada")` (hook nodes, start nodes with a trigger)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from dipeo_nb.errors import NodeTimeoutError

KEPT = 1000
"""Events kept for a node that does not wait yet; the oldest leave."""


class Signal(NamedTuple):
    """One event from outside."""

    name: str
    payload: Mapping[str, Any]

    def matches(self, name: str, filters: Mapping[str, Any]) -> bool:
        """Whether it has that name, and every value of *filters* at its path (`user.name`)."""
        return self.name == name and all(_at(self.payload, path) == value for path, value in filters.items())


class Signals:
    """The events of one run and of the sub-diagrams in it. Lives on the library's loop.

    All that wait for an event get it; one for which nobody waits is kept for the first that will.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Mapping[str, Any], asyncio.Future[Signal]]] = []
        self._kept: deque[Signal] = deque(maxlen=KEPT)

    def deliver(self, signal: Signal) -> None:
        """Hand an event to all that wait for it."""
        taken = False
        for name, filters, future in self._waiting:
            if not future.done() and signal.matches(name, filters):
                future.set_result(signal)
                taken = True
        if not taken:
            self._kept.append(signal)

    async def wait(self, name: str, filters: Mapping[str, Any]) -> Signal:
        """The next event that fits; the caller limits the time."""
        for signal in self._kept:
            if signal.matches(name, filters):
                self._kept.remove(signal)
                return signal
        future: asyncio.Future[Signal] = asyncio.get_running_loop().create_future()
        entry = (name, filters, future)
        self._waiting.append(entry)
        try:
            return await future
        finally:
            self._waiting.remove(entry)

    async def within(self, timeout: float, name: str, filters: Mapping[str, Any], *, node: str) -> Signal:
        """As `wait`, for the node of that label.

        Raises:
            NodeTimeoutError: there is none within *timeout* seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self.wait(name, filters)
        except TimeoutError:
            raise NodeTimeoutError(
                f"The event '{name}' did not come within {timeout:g} s.",
                hint=f'Send it: run.signal("{name}", …), or give the node a longer timeout.',
                node=node,
            ) from None


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value

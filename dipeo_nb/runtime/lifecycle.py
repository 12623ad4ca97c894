"""Opens and closes the services of a runtime, each once, those first that others need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dipeo_nb.common.open_on_use import OpenOnUse, call_lifecycle
from dipeo_nb.domain.ports import Services

_OPENING = (
    "store", "bus", "clock", "keys", "files", "db", "http", "templates", "code", "blobs", "artifacts", "conversations",
    "persons", "integrations", "typescript", "ir", "llm",
)  # fmt: skip
"""Services in the order in which they are opened: before those that use them."""


class Part(NamedTuple):
    """A service with a lifecycle."""

    service: Any
    at_once: bool
    """Whether it is opened with the runtime; otherwise it opens itself when it is first used."""


class ServiceLifecycle:
    """The services of one runtime, from opening to closing.

    Args:
        services: all of them.
        given: names of those that the caller made.
        borrowed: names of those that belong to another runtime: they are neither opened nor closed here.
    """

    def __init__(self, services: Services, *, given: Collection[str], borrowed: Collection[str]) -> None:
        self._services = services
        self._given = frozenset(given)
        self._parts = _parts(services, given, borrowed)
        self._opened: list[Part] = []

    def opened_on_use(self, is_open: Callable[[], bool], open: Callable[[], Awaitable[None]]) -> Services:
        """The services, of which those that were given, or work with a given one, open the runtime on their first use.

        Args:
            is_open: whether the runtime is open.
            open: opens the runtime, once however often it is called.
        """
        services = self._services
        own = {id(getattr(services, name)) for name in ("store", "bus") if name not in self._given}  # they open themselves
        given = {id(part.service) for part in self._parts if part.at_once} - own
        given |= {id(getattr(services, name)) for name in self._given}
        stand_ins: dict[int, OpenOnUse] = {}

        def stand_in(service: Any) -> Any:
            if id(service) not in given or not hasattr(service, "initialize"):
                return service
            return stand_ins.setdefault(id(service), OpenOnUse(service, is_open, open))

        return replace(services, **{name: stand_in(getattr(services, name)) for name in _OPENING})

    async def open(self) -> None:
        """Open the run store, the bus and every service that was given. A failure leaves nothing half-open."""
        opened: list[Part] = []
        try:
            for part in self._parts:
                if part.at_once:
                    await call_lifecycle(part.service, "initialize")
                    opened.append(part)
        except BaseException as error:
            await close(opened, error)
            raise
        self._opened = opened

    def to_close(self) -> list[Part]:
        """The services to close now: those that were opened, and each that opens itself, as it may have been used. Call it once."""
        opened, self._opened = self._opened, []
        return [part for part in self._parts if part in opened or not part.at_once]


async def close(parts: Sequence[Part], error: BaseException | None) -> BaseException | None:
    """Close services, the last one first.

    Args:
        error: one that occurred before.

    Returns:
        *error*, or else the first one that occurred here, with the later ones as its notes.
    """
    for part in reversed(parts):
        try:
            await call_lifecycle(part.service, "cleanup")
        except BaseException as further:  # noqa: BLE001 - returned; the others are to be closed all the same
            if error is None:
                error = further
            else:
                error.add_note(f"Closing {type(part.service).__name__} failed, too: {further!r}")
    return error


def _parts(services: Services, given: Collection[str], borrowed: Collection[str]) -> list[Part]:
    """The services of a runtime in the order of opening, each once, also when one object is several of them."""
    parts: dict[int, Part] = {}
    for name in _OPENING:
        service: Any = getattr(services, name)
        if service is None or name in borrowed:
            continue
        at_once = name in given or name in ("store", "bus")
        if name == "artifacts" and getattr(service, "blobs", None) is services.blobs:
            # It opens and closes its blob store itself.
            below = parts.pop(id(services.blobs), None)
            at_once = at_once or (below is not None and below.at_once)
        parts.setdefault(id(service), Part(service, at_once))
    return list(parts.values())

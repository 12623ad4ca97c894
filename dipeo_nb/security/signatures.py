"""Signatures of run records: a run may only be resumed from what a process of this user has written.

Each event that a resume or a fork reads data from (start, outputs, objects of code, errors, ends) carries a MAC over itself, its
position in the log and its run. So a record that was written or changed by others is not mistaken for the user's own: its objects
are never recreated, and its values never reach a diagram that may do more than a guest.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dipeo_nb.common.values import plain_value
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError

MAC = "mac"
"""Key of the signature in a payload."""
_UNSIGNED = frozenset({EventType.NODE_WAITING, EventType.NODE_STARTED, EventType.EXECUTION_LOG, EventType.RUN_NOTE})
"""Events that no data is read from."""
_KINDS = frozenset({"run", "item", "usage"})
"""Kinds of output that are read; the others are text for people."""
_ENCODER = json.JSONEncoder(sort_keys=True, default=plain_value, separators=(",", ":"))


class Signatures:
    """Signs events and verifies them.

    Args:
        key: returns the secret; called once, when needed. Raises StorageError when it cannot be stored: then nothing is
            signed, and no signature is valid.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._make = key
        self._empty: hmac.HMAC | None = None
        """The MAC of nothing, with the secret."""

    def of(self, event: Event) -> str | None:
        """Return the signature of an event; None if it needs none, or there is no secret."""
        if not _counts(event):
            return None
        payload = {name: value for name, value in event.payload.items() if name != MAC}
        return self.mark([event.run_id, event.seq, event.type, event.node_id, payload])

    def mark(self, value: Any) -> str | None:
        """Return a MAC over a JSON value; None if it is not JSON, or there is no secret."""
        try:
            if self._empty is None:
                self._empty = hmac.new(self._make(), digestmod="sha256")
            mac = self._empty.copy()  # in half the time of a new one
            mac.update(_ENCODER.encode(value).encode())
            return mac.hexdigest()
        except (StorageError, TypeError, ValueError, RecursionError):  # a payload that is not JSON is refused when it is stored
            return None

    def hold(self, events: Iterable[Event]) -> bool:
        """Whether all relevant events are signed and unchanged."""
        return all(map(self.holds, events))

    def holds(self, event: Event) -> bool:
        """Whether the event is signed and unchanged, or not relevant."""
        if not _counts(event):
            return True
        expected, found = self.of(event), event.payload.get(MAC)
        return expected is not None and isinstance(found, str) and hmac.compare_digest(expected.encode(), found.encode())


def signed(event: Event, mac: str | None) -> Event:
    """Return the event with its signature."""
    return event if mac is None else Event(*event[:5], {**event.payload, MAC: mac})


def holds_objects(events: Iterable[Event]) -> str:
    """Return the names of variables that the code of a run has set to objects, which only code can recreate."""
    return named_objects({name for event in events for name in objects_of(event)})


def objects_of(event: Event) -> set[str]:
    """Return the names of variables that the event holds objects of."""
    meta: Any = event.payload.get("meta")
    code: Any = meta.get("code") if isinstance(meta, Mapping) else None
    if not isinstance(code, Mapping):
        return set()
    return {str(name) for part in ("objects", "definitions") for name in code.get(part) or ()}


def named_objects(names: Iterable[str]) -> str:
    """Return some of these names as text."""
    return ", ".join(sorted(names)[:5])


def _counts(event: Event) -> bool:
    if event.type is EventType.NODE_OUTPUT:
        return event.output_kind in _KINDS
    return event.type not in _UNSIGNED

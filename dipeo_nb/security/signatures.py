"""Signatures of the records of runs: what a run goes on from must be what this user's process has written.

Each event that a resume or a fork takes something from (its beginning, outputs, objects of code, errors, ends) carries a MAC over
itself, its place in the log and its run. So a record that somebody else wrote, or changed, is not taken for the user's own:
objects in it are never made again, and its values never reach a diagram that may do more than a guest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dipeo_nb.common.values import plain_value
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError

MAC = "mac"
"""Entry of a payload that holds the signature."""
_UNSIGNED = frozenset({EventType.NODE_STARTED, EventType.EXECUTION_LOG})
"""Events that nothing is taken from."""
_KINDS = frozenset({"run", "item", "usage"})
"""Kinds of output that are taken up; the others are text for people."""


class Signatures:
    """Signs events, and tells whether they are as they were signed.

    Args:
        key: gives the secret; called once, when it is needed. Raises StorageError when there is no place for one: then nothing is
            signed, and no signature holds.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._make = key
        self._key: bytes | None = None

    def of(self, event: Event) -> str | None:
        """The signature that an event is to carry; None for one that needs none, or when there is no secret."""
        if not _counts(event):
            return None
        payload = {name: value for name, value in event.payload.items() if name != MAC}
        return self.mark([event.run_id, event.seq, event.type, event.node_id, payload])

    def mark(self, value: Any) -> str | None:
        """A MAC over a JSON value; None when it has no form, or there is no secret."""
        try:
            if self._key is None:
                self._key = self._make()
            text = json.dumps(value, sort_keys=True, default=plain_value, separators=(",", ":")).encode()
            return hmac.digest(self._key, text, hashlib.sha256).hex()
        except (StorageError, TypeError, ValueError, RecursionError):  # a payload without a form is refused where it is stored
            return None

    def hold(self, events: Iterable[Event]) -> bool:
        """Whether all that counts of these events is signed, and unchanged."""
        return all(self._holds(event) for event in events if _counts(event))

    def _holds(self, event: Event) -> bool:
        expected, found = self.of(event), event.payload.get(MAC)
        return expected is not None and isinstance(found, str) and hmac.compare_digest(expected.encode(), found.encode())


def signed(event: Event, mac: str | None) -> Event:
    """The event with its signature."""
    return event if mac is None else event._replace(payload={**event.payload, MAC: mac})


def holds_objects(events: Iterable[Event]) -> str:
    """Names of variables that the code of a run has set to objects, which only code makes anew; empty when there are none."""
    names: set[str] = set()
    for event in events:
        meta: Any = event.payload.get("meta")
        code: Any = meta.get("code") if isinstance(meta, Mapping) else None
        for part in ("objects", "definitions") if isinstance(code, Mapping) else ():
            names |= set(map(str, code.get(part) or ()))
    return ", ".join(sorted(names)[:5])


def _counts(event: Event) -> bool:
    if event.type is EventType.NODE_OUTPUT:
        return event.payload.get("kind") in _KINDS
    return event.type not in _UNSIGNED

"""What of the streamed texts of two records is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipeo_nb.domain.events import Event


def without_text(one: Event) -> Event:
    """An event but for its streamed text."""
    return one._replace(payload={name: value for name, value in one.payload.items() if name not in ("text", "pieces")})


def texts_of(events: Sequence[Event], first: int, last: int) -> dict[Any, str]:
    """The streamed texts of some events, by node and kind."""
    found: dict[Any, str] = {}
    for one in events:
        if first <= one.seq <= last and "text" in one.payload:
            name = one.node_id, one.payload["kind"]
            found[name] = found.get(name, "") + one.payload["text"]
    return found

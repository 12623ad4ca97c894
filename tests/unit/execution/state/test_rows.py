"""Events as rows: what stands in one row is each event again."""

from __future__ import annotations

from typing import Any

import pytest

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.rows import PACK, batch_of, compressed, events_of

SHARED: list[dict[str, Any]] = [
    {"kind": "text", "text": "a", "run": 1, "is_partial": True},
    {"kind": "text", "text": "b", "run": 1, "is_partial": True},
    {"kind": "text", "text": "c", "run": True, "is_partial": 1},
    {"kind": "text", "text": "c", "run": 1.0, "is_partial": True},
    {"kind": "text", "text": "c", "run": -0.0},
    {"kind": "text", "text": "c", "run": 0.0},
    {"text": "d", "kind": "text", "is_partial": True, "run": 1},
    {"kind": "text", "text": "e", "run": 1, "data": [1, True]},
    {"kind": "text", "text": "f", "run": 1, "data": [True, 1]},
    {"kind": "text", "text": "", "run": 1, "restart": True},
    {"kind": "reasoning", "text": "g", "run": 1, "call_id": None},
]


@pytest.mark.parametrize("repeated", [1, 3])
@pytest.mark.parametrize("nodes", [["n"], ["n", "m", None]])
def test_pieces_of_text_that_share_a_row_come_back_exactly(repeated: int, nodes: list[str | None]):
    """Also where their payloads are equal and yet not the same, as 1 and True, or in the order of their fields."""
    payloads = [payload for payload in SHARED for _ in range(repeated)]
    events = [
        Event(n, EventType.NODE_OUTPUT, "r", n / 3, nodes[n % len(nodes)], payload) for n, payload in enumerate(payloads, 5)
    ]
    rows = [(seq, kind, "r", at, node, compressed(text)) for seq, kind, at, node, text in batch_of(events).events]
    assert [row[1] for row in rows] == [PACK]
    assert repr([tuple(event) for event in events_of(rows)]) == repr([tuple(event) for event in events])

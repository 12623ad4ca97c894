"""What the run stores in databases have in common: rows of events, and which runs a listing asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dipeo_nb.common.json_values import decode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event

_TYPES = {str(t): t for t in EventType}


def events_of(rows: Iterable[tuple[Any, ...]]) -> list[Event]:
    """Rows of seq, type, run_id, occurred_at, node_id, payload (JSON) as events."""
    return [Event(seq, _TYPES[kind], run, at, node, decode(payload)) for seq, kind, run, at, node, payload in rows]


def chosen(mark: str, *, parent: str | None, nested: bool, **columns: str | None) -> tuple[str, list[str]]:
    """The condition of `RunStore.runs` in SQL ("" for none), and its values.

    Args:
        mark: stands for a value: `?` or `%s`.
        columns: column → value that it must have; None: any.
    """
    named = {name: value for name, value in {**columns, "parent_run_id": parent}.items() if value is not None}
    conditions = [f"{name} = {mark}" for name in named]
    if parent is None and not nested:
        conditions.append("parent_run_id IS NULL")
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), list(named.values())

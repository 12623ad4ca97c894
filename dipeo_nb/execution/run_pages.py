"""The run history in pages: sorted, filtered and searched without the records of the runs that are not shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.run_list import models, recorded_states, short_id
from dipeo_nb.execution.run_state import RunState

Column = Literal["started", "duration", "diagram", "status", "events"]
LISTED = 1_000_000
"""Runs that are sorted and counted, at most."""
PAGE = 200
"""Runs of one page, at most."""
LONGEST = 200
"""Characters of a text that is searched for."""
_KEYS: Mapping[str, Callable[[RunSummary], Any]] = {
    "started": lambda row: row.started_at,
    "duration": lambda row: row.duration_s if row.duration_s is not None else float("inf"),
    "diagram": lambda row: row.diagram.casefold(),
    "status": lambda row: row.status,
    "events": lambda row: row.events,
}


class RunQuery(NamedTuple):
    """Which runs, and which of them."""

    text: str = ""
    """That their name, id, inputs, outputs, answers or notes have."""
    status: str | None = None
    diagram: str | None = None
    sort: Column = "started"
    descending: bool = True
    offset: int = 0
    limit: int = 50

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunQuery:
        """A query from values of a page.

        Raises:
            ValidationError: there is no such column, or a number is none.
        """
        sort = given.get("sort") or "started"
        if sort not in get_args(Column):
            raise ValidationError(f"Runs cannot be sorted by {sort!r:.40}.", hint=f"By: {', '.join(get_args(Column))}.")
        try:
            offset, limit = max(int(given.get("offset") or 0), 0), min(max(int(given.get("limit") or 50), 1), PAGE)
        except (TypeError, ValueError):
            raise ValidationError("`offset` or `limit` is not an integer.", hint="Use ?offset=0&limit=50.") from None
        texts = {name: str(given[name]) if given.get(name) else None for name in ("status", "diagram")}
        descending = given.get("descending", True) not in (False, "", "0", "false")
        text = str(given.get("text") or "")[:LONGEST]
        return cls(text, texts["status"], texts["diagram"], cast(Column, sort), descending, offset, limit)


class RunPage(NamedTuple):
    total: int
    """Runs that match."""
    runs: Sequence[RunSummary]
    """Those of the page."""


async def page_of_runs(store: RunStore, query: RunQuery) -> RunPage:
    """The page of a query; runs of sub-diagrams are left out."""
    rows = await store.runs(limit=LISTED, status=query.status, diagram=query.diagram)
    if text := query.text.strip():
        search = getattr(store, "holding", None)  # a store that does not inherit the port may lack it
        holding = set[str]() if search is None else await search(text)
        low = text.casefold()
        rows = [r for r in rows if r.run_id in holding or low in r.diagram.casefold() or low in r.run_id]
    if query.sort != "started" or not query.descending:
        rows.sort(key=_KEYS[query.sort], reverse=query.descending)
    return RunPage(len(rows), rows[query.offset : query.offset + query.limit])


async def run_facts(store: RunStore, rows: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """What a table shows of runs, as JSON values."""
    return [_facts(row, state) for row, state in zip(rows, await recorded_states(store, rows), strict=True)]


def _facts(row: RunSummary, state: RunState | None) -> dict[str, Any]:
    facts = {
        **row._asdict(),
        "short_id": short_id(row.run_id),
        "duration_s": row.duration_s,
        "diagram": clean(row.diagram, 120),
    }
    if state is None:
        return {**facts, "tokens": None, "cost_usd": None, "model": None, "inputs": "", "note": ""}
    inputs = ", ".join(
        f"{name}={value if isinstance(value, str) else json_text(value)}" for name, value in state.variables.items()
    )
    return {
        **facts,
        "tokens": state.usage.total,
        "cost_usd": state.cost_usd,
        "model": clean(models(state), 60),
        "inputs": clean(inputs, 160),
        "note": clean(state.notes[-1]["text"], 160) if state.notes else "",
    }

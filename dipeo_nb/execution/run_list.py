"""How recorded runs are listed for people: short ids, relative times, and what the runs have spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from dipeo_nb.common.text import money
from dipeo_nb.diagram.labels import clean, status_look
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import FINAL_EVENTS_FROM, recorded_state, snapshot_state

EVENTS_READ = 20_000
"""Events of the newest runs that are read for their models, tokens and costs; older runs show none."""
SHORT_ID = 8
"""Characters of an id shown, where they tell the runs apart."""
PREFIX = "exec_"
"""What every id begins with."""


class Listed(NamedTuple):
    """One run as texts; those of what is not known are empty."""

    run: str
    """Its short id."""
    diagram: str
    status: str
    started: str
    at: str
    """The time of its start."""
    took: str
    model: str
    tokens: str
    cost: str
    events: str


def listed(rows: Sequence[RunSummary], states: Sequence[RunState | None], now: float) -> list[Listed]:
    """Runs as people read them.

    Args:
        states: of the same runs, as far as they were read.
    """
    width = short_length(row.run_id for row in rows)
    return [_listed(row, state, width, now) for row, state in zip(rows, states, strict=True)]


async def recorded_states(store: RunStore, rows: Sequence[RunSummary]) -> list[RunState | None]:
    """What is recorded of runs, for as many of them as can be read at once; None for the others. Of a run with a snapshot, only
    the events after that are read."""
    left, found = EVENTS_READ, list[RunState | None]()
    for row in rows:
        begun = await snapshot_state(store, row.run_id) if row.events >= FINAL_EVENTS_FROM else RunState()
        left -= row.events - begun.events
        found.append(await recorded_state(store, row.run_id, begun) if left >= 0 else None)
    return found


def short_length(ids: Iterable[str]) -> int:
    """Characters of ids, without their `PREFIX`, that tell them apart; `SHORT_ID` at least."""
    bare = [i.removeprefix(PREFIX) for i in ids]
    return next(n for n in range(SHORT_ID, 1000) if len({i[:n] for i in bare}) == len(set(bare)))


def short_id(run_id: str, length: int = SHORT_ID) -> str:
    return run_id.removeprefix(PREFIX)[:length]


def models(state: RunState) -> str:
    """The model that the run moved its persons to, else those that answered."""
    answered = dict.fromkeys(model for n in state.nodes.values() if (model := n.meta.get("model")))
    return state.model or ", ".join(answered)


def ago(then: float, now: float) -> str:
    """How long it is since then: `just now`, `5 min ago`, `yesterday`, a date."""
    seconds = now - then
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if 0 <= seconds < limit:
            return "just now" if seconds < 5 else f"{seconds // unit:.0f} {name} ago"
    at = datetime.fromtimestamp(then).astimezone()
    if 0 <= seconds < 2 * 86_400 and (datetime.fromtimestamp(now).astimezone().date() - at.date()).days == 1:
        return "yesterday"
    return f"{seconds // 86_400:.0f} days ago" if 0 <= seconds < 7 * 86_400 else f"{at:%Y-%m-%d}"


def _listed(row: RunSummary, state: RunState | None, width: int, now: float) -> Listed:
    look = status_look(row.status)
    tokens = None if state is None else state.usage.total
    booked = state is not None and (tokens is not None or not state.cost_complete)
    cost = "" if state is None or not booked else "unknown" if state.cost_usd is None else money(state.cost_usd)
    return Listed(
        run=short_id(row.run_id, width),
        diagram=clean(row.diagram, 60),
        status=f"{look.glyph} {clean(row.status, 40)}",
        started=ago(row.started_at, now),
        at=f"{datetime.fromtimestamp(row.started_at).astimezone():%Y-%m-%d %H:%M:%S %Z}",
        took="" if row.duration_s is None else f"{row.duration_s:.1f} s",
        model="" if state is None else clean(models(state), 40),
        tokens="" if tokens is None else f"{tokens:,}",
        cost=cost,
        events=str(row.events),
    )

"""Finds runs by what a person types."""

from __future__ import annotations

import sys
import time

from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import UserError
from dipeo_nb.execution.run_list import PREFIX, ago, short_id, short_length


async def run_named(store: RunStore, run_id: str) -> RunSummary:
    """The row of a run, by its id or an unambiguous prefix of it.

    Raises:
        UserError: no run, or several, with that id.
    """
    if (row := await store.run(run_id)) is not None:
        return row
    rows = await store.runs(limit=sys.maxsize, nested=True)
    found = [r for r in rows if run_id and r.run_id.removeprefix(PREFIX).startswith(run_id.removeprefix(PREFIX))]
    if not found:
        raise UserError(f"There is no run '{clean(run_id, 80)}'.", hint="See dp.runs(), or `dipeo-nb runs`.")
    if len(found) > 1:
        length = short_length(r.run_id for r in found)
        names = [f"{short_id(r.run_id, length)} ({clean(r.diagram, 40)}, {ago(r.started_at, time.time())})" for r in found[:5]]
        more = " …" if len(found) > len(names) else ""
        raise UserError(
            f"{len(found)} runs begin with '{clean(run_id, 80)}': {', '.join(names)}{more}.",
            hint="Write more of the id; see dp.runs() (dipeo-nb runs).",
        )
    return found[0]

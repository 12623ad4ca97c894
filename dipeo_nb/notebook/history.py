"""The history of runs as a table that people can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, SupportsIndex, overload

from dipeo_nb.common.visible import displayed
from dipeo_nb.diagram.labels import clean, status_look
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.errors import UserError
from dipeo_nb.execution.fold import RunState
from dipeo_nb.execution.metrics import money
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.static_view import Figure, Titled
from dipeo_nb.notebook.tables import dataframe, text_table

EVENTS_READ = 20_000
"""Events of the newest runs that are read for their tokens and costs; older runs show none."""
SHORT_ID = 8
"""Characters of an id shown, where they tell the runs apart."""

Reader = Callable[[Sequence[RunSummary]], Sequence[RunState | None]]
Deleter = Callable[[Sequence[RunSummary]], list[str]]
_HEAD = ("run", "diagram", "status", "started", "took", "model", "tokens", "cost", "events")
_KINDS = {
    "run_id": str, "diagram": str, "status": str, "duration_s": float, "model": str, "tokens": int, "cost_usd": float,
    "events": int, "parent_run_id": str,
}  # fmt: skip


class Runs(list[RunSummary]):
    """Rows of the run history, newest first; shown as a table. `dp.open_run` takes a row, and the short ids that are shown.

    Args:
        read: gives what is recorded of runs, for their models, tokens and costs.
        delete: forgets runs, and gives the ids of those that are gone.
    """

    def __init__(
        self, rows: Iterable[RunSummary] = (), read: Reader | None = None, delete: Deleter | None = None
    ) -> None:
        super().__init__(rows)
        self._read, self._delete = read, delete

    def delete(self) -> list[str]:
        """Forget these runs, with those of their sub-diagrams: `dp.runs(status="failed").delete()`; their ids.

        Raises:
            StorageError: one of them still goes on; nothing was deleted.
            UserError: the rows come from elsewhere.
        """
        if self._delete is None:
            raise UserError("These rows belong to no session.", hint="Delete rows of dp.runs(…).")
        return self._delete(self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> RunSummary: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Runs(found, self._read, self._delete) if isinstance(index, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Runs, (list(self),)  # elsewhere the records are not at hand

    def to_dataframe(self) -> Any:
        """One row per run as a pandas DataFrame, with times in UTC.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        rows = [
            {
                "run_id": row.run_id,
                "diagram": row.diagram,
                "status": row.status,
                "started_at": datetime.fromtimestamp(row.started_at, UTC),
                "duration_s": row.duration_s,
                "model": None if state is None else models(state),
                "tokens": None if state is None else state.usage.total,
                "cost_usd": None if state is None else state.cost_usd,
                "events": row.events,
                "parent_run_id": row.parent_run_id,
            }
            for row, state in zip(self, self._states(), strict=True)
        ]
        return dataframe(rows, _KINDS)

    def _states(self) -> Sequence[RunState | None]:
        return self._read(self) if self._read is not None else [None] * len(self)

    def _rows(self) -> list[tuple[Any, ...]]:
        shown = self[: static_view.ROW_LIMIT]
        states = [*shown._states(), *[None] * (len(self) - len(shown))]
        width = _telling(row.run_id for row in self)
        now = time.time()
        return [_row(row, state, width, now) for row, state in zip(self, states, strict=True)]

    @displayed
    def _repr_html_(self) -> str:
        return static_view.table(_HEAD, self._rows()) if self else static_view.note("no runs")

    @displayed
    def __repr__(self) -> str:
        # Text has no tooltips, so it has the whole id, which is what one copies, at the end.
        rows = [(*row[1:], summary.run_id) for row, summary in zip(self._rows(), self, strict=True)]
        return text_table((*_HEAD[1:], _HEAD[0]), rows) if self else "no runs"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def models(state: RunState) -> str:
    """The model that the run moved its persons to, else those that answered."""
    answered = dict.fromkeys(str(n.meta["model"]) for n in state.nodes.values() if n.meta.get("model"))
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


def _telling(ids: Iterable[str]) -> int:
    """Characters of the ids that tell them apart, `SHORT_ID` at least."""
    bare = [i.removeprefix("exec_") for i in ids]
    return next(n for n in range(SHORT_ID, 1000) if len({i[:n] for i in bare}) == len(set(bare)))


def _row(row: RunSummary, state: RunState | None, width: int, now: float) -> tuple[Any, ...]:
    look = status_look(row.status)
    at = datetime.fromtimestamp(row.started_at).astimezone()
    total = None if state is None else state.usage.total
    return (
        Titled(row.run_id.removeprefix("exec_")[:width], row.run_id),
        clean(row.diagram, 60),
        f"{look.glyph} {clean(row.status, 40)}",
        Titled(ago(row.started_at, now), f"{at:%Y-%m-%d %H:%M:%S %Z}"),
        None if row.duration_s is None else Figure(f"{row.duration_s:.1f} s"),
        "" if state is None else clean(models(state), 40),
        None if total is None else Figure(f"{total:,}"),
        None if state is None or total is None else Figure("unknown" if state.cost_usd is None else money(state.cost_usd)),
        row.events,
    )

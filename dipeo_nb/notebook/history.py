"""The history of runs as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, SupportsIndex, overload

from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.text import displayed
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.errors import UserError
from dipeo_nb.execution.run_list import listed, models
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.static_view import Figure, Titled
from dipeo_nb.notebook.tables import dataframe, text_table

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
        read: returns the recorded states of runs, for their models, tokens and costs.
        delete: deletes runs, and returns the ids of those that were deleted.
        live: returns the widget of the whole history.
    """

    def __init__(
        self,
        rows: Iterable[RunSummary] = (),
        read: Reader | None = None,
        delete: Deleter | None = None,
        live: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(rows)
        self._read, self._delete, self._live = read, delete, live

    @checked_call
    def delete(self) -> list[str]:
        """Delete these runs and those of their sub-diagrams, and return their ids: `dp.runs(status="failed").delete()`.

        Raises:
            StorageError: one of them is still running; nothing was deleted.
            UserError: the rows do not belong to a session.
        """
        if self._delete is None:
            raise UserError("These rows do not belong to a session.", hint="Delete rows of dp.runs(…).")
        return self._delete(self)

    @checked_call
    def live(self) -> Any:
        """The whole history as a live table, which is sorted, filtered and searched; runs can be opened, compared and deleted in it.

        Raises:
            UserError: the rows do not belong to a session.
        """
        if self._live is None:
            raise UserError("These rows do not belong to a session.", hint="Use dp.runs().live().")
        return self._live()

    @overload
    def __getitem__(self, index: SupportsIndex) -> RunSummary: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Runs(found, self._read, self._delete, self._live) if isinstance(index, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Runs, (list(self),)  # another process does not have the records

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
        return [
            (
                Titled(row.run, summary.run_id), row.diagram, row.status, Titled(row.started, row.at), Figure(row.took),
                row.model, Figure(row.tokens), Figure(row.cost), summary.events,
            )
            for summary, row in zip(self, listed(self, states, time.time()), strict=True)
        ]  # fmt: skip

    @displayed
    def _repr_html_(self) -> str:
        return static_view.table(_HEAD, self._rows()) if self else static_view.note("no runs")

    @displayed
    def __repr__(self) -> str:
        # Text has no tooltips, so it has the complete id, for copying, at the end.
        rows = [(*row[1:], summary.run_id) for row, summary in zip(self._rows(), self, strict=True)]
        return text_table((*_HEAD[1:], _HEAD[0]), rows) if self else "no runs"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

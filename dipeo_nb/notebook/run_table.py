"""Many runs at once as one table: a view for each would be more than anyone can watch, and more than a page can draw."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from dipeo_nb.common.text import money
from dipeo_nb.diagram.labels import clean, status_look
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import kernel, static_view, view
from dipeo_nb.notebook.saved_output import SavedOutput

VIEWS = 6
"""Runs that are going on and have a view of their own, at most."""
PAUSE_S = 0.5
"""Seconds between two states of the table."""
HEAD = ("run", "diagram", "status", "seconds", "tokens", "cost")


class TableRow(NamedTuple):
    """A run in a table."""

    state: RunState
    finished: Callable[[], bool]
    began: float
    """When it was shown, in seconds since the epoch."""


class RunTable:
    """The runs of one cell that came when there were `VIEWS` views already. On the loop thread, but for `show` and `add`."""

    def __init__(self, cell: str | None) -> None:
        self.cell = cell
        self.id = view.views().new_id()
        self.live = True
        self.last = 0
        self._rows: list[TableRow] = []
        self._told: list[list[Any]] = []
        self._next = 0.0
        self._began = time.monotonic()
        self._output = SavedOutput(self.face())

    def add(self, row: TableRow) -> None:
        self._rows.append(row)

    @property
    def ended(self) -> bool:
        """Whether all its runs have ended."""
        return bool(self._rows) and all(row.finished() for row in self._rows)

    def face(self) -> dict[str, Any]:
        """What a notebook holds of the table."""
        rows = [_cells(row) for row in self._rows]
        html = static_view.table(HEAD, rows)
        text = "\n".join("  ".join(map(str, cells)) for cells in rows)
        return {"text/html": view.views().mark(self.id, html, final=self.ended), "text/plain": text}

    def draw(self) -> None:
        """Bring what the notebook holds up to date."""
        self._output.update(self.face(), final=True)

    def head(self) -> Mapping[str, Any]:
        return {"kind": "table", "columns": HEAD}

    def part(self, room: int) -> dict[str, Any] | None:
        if not self.live or time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + PAUSE_S
        rows = self._cells()
        if self.ended:
            self.live = False
        elif rows == self._told:
            return None
        self._told = rows
        self.last += 1
        return {"after": 0, "last": self.last, "fresh": rows, "live": self.live}

    def now(self) -> float:
        return time.monotonic() - self._began

    async def given(self, after: int) -> AsyncIterator[dict[str, Any]]:
        yield {"after": 0, "last": self.last, "fresh": self._cells()}

    async def asked(self, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message.get("type") == "face" and not self.live:
            return {"type": "face", "data": self.face(), "metadata": {}}
        return None

    def _cells(self) -> list[list[Any]]:
        return [[str(row.state.status), *map(str, _cells(row))] for row in self._rows]


def _cells(row: TableRow) -> tuple[Any, ...]:
    state = row.state
    total = state.usage.total
    seconds = state.duration_s if row.finished() else time.time() - row.began
    return (
        static_view.Titled(state.run_id.removeprefix("exec_")[:8], state.run_id),
        clean(state.diagram, 60),
        status_look(str(state.status)).word,
        static_view.Figure(f"{seconds:.1f}"),
        "" if total is None else static_view.Figure(f"{total:,}"),
        "" if total is None else static_view.Figure(money(state.cost_usd)),
    )


_tables: dict[str | None, RunTable] = {}
_viewed: list[Callable[[], bool]] = []
"""For each run that has a view of its own: whether it has ended."""


def has_room() -> bool:
    """Whether another run may have a view of its own."""
    _viewed[:] = [ended for ended in _viewed if not ended()]
    return len(_viewed) < VIEWS


def count(finished: Callable[[], bool]) -> None:
    """Count a run that has a view of its own."""
    _viewed.append(finished)


def table_here() -> RunTable:
    """The table of the cell that is being executed; it is displayed when it is new. In the main thread."""
    cell = kernel.execution()
    table = _tables.get(cell)
    if table is None or not table.live:
        _tables.clear()  # those of earlier cells are in their outputs
        table = _tables[cell] = RunTable(cell)
    return table

"""Lists of rows for notebooks: a table in a cell, aligned text in a terminal, a DataFrame for more."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, SupportsIndex, overload

from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.common.text import did_you_mean, displayed
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import MissingDependencyError, UnknownNodeError
from dipeo_nb.notebook import static_view

TEXT_ROWS = 40
"""Rows of a table in text form."""
TEXT_CELL = 60
"""Characters of one cell there."""

_DTYPES = {int: "Int64", float: "Float64", bool: "boolean", str: "string"}


class Row(dict[str, Any]):
    """A mapping with a display of limited size, however large its values are."""

    @displayed
    def __repr__(self) -> str:
        return short_repr(dict(self), 2_000)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # IPython would write all values


class Table(list[Mapping[str, Any]]):
    """Rows with the same keys; shown as a table, and a DataFrame by `to_dataframe()`."""

    kinds: Mapping[str, type] = {}
    """Column → int, float, bool or str, for columns whose values are of that type or None: the column then has the same type in
    every DataFrame, whatever is missing."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = (), kinds: Mapping[str, type] | None = None) -> None:
        super().__init__(map(Row, rows))
        if kinds is not None:
            self.kinds = kinds

    @overload
    def __getitem__(self, index: SupportsIndex) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Table(found, self.kinds) if isinstance(index, slice) else found

    def to_dataframe(self) -> Any:
        """The rows as a pandas DataFrame, with nullable columns.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return dataframe(self, self.kinds)

    @displayed
    def _repr_html_(self) -> str:
        if not self:
            return static_view.note("nothing")
        return static_view.table(*self._cells())

    @displayed
    def __repr__(self) -> str:
        return text_table(*self._cells()) if self else "nothing"

    def _cells(self) -> tuple[list[str], list[list[Any]]]:
        head = list(self[0])
        return head, [[row.get(name) for name in head] for row in self]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # IPython would write a list


class Outputs(Row):
    """Endpoint label → value; shown as a table."""

    def __missing__(self, label: Any) -> Any:
        known = [clean(own, 60) for own in islice(self, 20)]
        hint = did_you_mean(label, known, f"Those reached: {', '.join(known) or 'none'}.")
        raise UnknownNodeError(f"There is no output {short_repr(label, 80)}.", hint=hint)

    @displayed
    def _repr_html_(self) -> str:
        return static_view.table(("endpoint", "value"), self.items()) if self else static_view.note("no outputs")


class Events(list[Event]):
    """Events of a run; shown as a table, in which the pieces of a text that follow each other are one row. Each is an `Event`, with its
    whole payload."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Events(found) if isinstance(index, slice) else found

    _head = ("seq", "type", "node", "payload")

    def _rows(self) -> _EventRows:
        return _EventRows(self)

    @displayed
    def _repr_html_(self) -> str:
        return static_view.table(self._head, self._rows()) if self else static_view.note("no events")

    @displayed
    def __repr__(self) -> str:
        return text_table(self._head, self._rows()) if self else "no events"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


class _EventRows(Sequence[tuple[Any, ...]]):
    """The rows of events; each is made when it is asked for, since a table shows the first ones of perhaps a million."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._begins = [0]
        """Place of the first event of each row, and of the end."""
        for _, group in groupby(events, _piece):
            self._begins.append(self._begins[-1] + sum(1 for _ in group))

    def __len__(self) -> int:
        return len(self._begins) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: Any) -> Any:
        at = range(len(self))[index]
        return self._row(at) if isinstance(at, int) else [self._row(one) for one in at]

    def _row(self, at: int) -> tuple[Any, ...]:
        events = list.__getitem__(self._events, slice(self._begins[at], self._begins[at + 1]))
        first, last = events[0], events[-1]
        seq, payload = first.seq, dict(first.payload)
        if first is not last:
            seq, payload["text"] = static_view.Figure(f"{seq}–{last.seq}"), "".join(e.payload["text"] for e in events)
            payload["pieces"] = sum(e.payload.get("pieces", 1) for e in events)
        return seq, str(first.type), first.node_id or "", short_repr(payload, 300)


def _piece(event: Event) -> tuple[Any, ...]:
    """The same for pieces of one text, and for nothing else."""
    p = event.payload
    if event.type is not EventType.NODE_OUTPUT or p.get("is_partial") is not True or not isinstance(p.get("text"), str):
        return (event.seq,)
    return event.node_id, *(item for item in p.items() if item[0] not in ("text", "pieces"))


def dataframe(rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, type]) -> Any:
    """Rows as a DataFrame whose columns have the given kinds.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas  # pyright: ignore[reportMissingImports,reportMissingModuleSource]
    except ImportError as error:
        raise MissingDependencyError(
            "A DataFrame needs the package 'pandas', which is not installed.",
            hint="Run: pip install pandas (the extra dipeo-nb[pandas] brings it). Or use the rows as they are, such as run.nodes.",
            package="pandas",
            extra="pandas",
        ) from error
    found = list(rows)
    frame = pandas.DataFrame(found, columns=None if found else list(kinds))
    return frame.astype({name: _DTYPES[kind] for name, kind in kinds.items() if name in frame})


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns of text, numbers to the right; long values are cut, and the number of omitted rows is shown."""
    shown = [[_cell(value) for value in row] for row in rows[:TEXT_ROWS]]
    right = static_view.numeric(rows[:TEXT_ROWS], len(head))
    widths = [max(map(_width, column)) for column in zip(head, *shown, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            " " * (width - _width(cell)) + cell if i in right else cell + " " * (width - _width(cell))
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    more = len(rows) - TEXT_ROWS
    return "\n".join([line(list(head)), *map(line, shown), *([f"… and {more} more rows"] if more > 0 else [])])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = static_view.shown(value, 4 * TEXT_CELL) if not isinstance(value, float) else f"{value:.6g}"
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CELL else f"{line[: TEXT_CELL - 1]}…"


def _width(text: str) -> int:
    """Number of columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

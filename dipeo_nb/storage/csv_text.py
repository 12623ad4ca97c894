"""CSV text: rows to values, values to rows, and rows appended in the style of the file."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from dipeo_nb.common.cancellable import check
from dipeo_nb.errors import StorageError, ValidationError

DELIMITERS = (",", ";", "\t", "|")
"""Possible delimiters, the most likely first."""
SAMPLE = 65_536
"""Characters that are examined to detect the delimiter and the quoting."""
_QUOTING = (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL)
_LIMIT = threading.Lock()


class _Record(NamedTuple):
    cells: list[str]
    raw: str
    """Its text, without the line end."""
    end: str


class _Table(NamedTuple):
    """A parsed CSV text."""

    records: list[_Record]
    delimiter: str
    gap: str
    """A blank after each delimiter, or nothing."""
    quoting: int
    newline: str

    @property
    def header(self) -> list[str]:
        cells = self.records[0].cells
        return [cell.strip(" ") or cell for cell in cells] if self.gap else cells

    def line(self, cells: Iterable[Any]) -> str:
        return _line(cells, self.delimiter, self.gap, self.quoting)


def rows_of(text: str, path: str) -> list[dict[str, str]]:
    """Return the rows as mappings by the names in the first row.

    Raises:
        ValidationError: it cannot be read as CSV.
    """
    try:
        with _any_size(text):
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiters(text)[0])
            rows: list[dict[str, str]] = []
            for row in reader:
                check()
                rows.append({k: v for k, v in row.items() if k is not None})  # pyright: ignore[reportUnnecessaryComparison]
            return rows
    except csv.Error as error:
        raise _not_csv(path, error) from None


def text_of(rows: Any, path: str) -> str:
    """Serialize a list of mappings with a header; a list of lists, or of values, without one."""
    rows = rows if isinstance(rows, list) else [rows]
    names: list[Any] = []
    if all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [names, *([row.get(name) for name in names] for row in rows)]
    else:
        cells = [row if isinstance(row, (list, tuple)) else [row] for row in rows]
    lines = [_line([_cell(value, path) for value in row], ",", "", csv.QUOTE_MINIMAL) for row in cells if row]
    return "".join(f"{line}\n" for line in lines)


def refuse_uneven(text: str, path: str) -> None:
    """Raise ValidationError for a text that cannot be restored from its rows as mappings."""
    table = _taken_apart(text, _delimiters(text)[0], path)
    width = len(table.header)
    if len(set(table.header)) < width or any(len(record.cells) != width for record in table.records):
        raise ValidationError(
            f"'{path}' has lines of other lengths than its header, or a name twice; an update would lose some of it.",
            hint="Correct the file, or write it whole.",
        )


def appended(text: str, value: Any, path: str) -> tuple[str, int]:
    """A text with another row: all that was there as it was, and a line with the file's own delimiter, quoting, order of
    columns and end of line. A mapping with new names adds columns: every line gets their empty cells.

    Args:
        value: a mapping by the names of the header, a list of as many cells as it has, several of them, or CSV text.

    Returns:
        The text, and the number of its rows below the header (of all rows where there is no header).

    Raises:
        ValidationError: the row does not fit, or the text is not CSV; nothing is guessed.
    """
    if not text.strip("\r\n"):
        return (value if isinstance(value, str) else text_of(value, path)), _count(value)
    if not value and isinstance(value, (Mapping, list, tuple)):
        raise _does_not_fit(path, "the row has no cells", "Provide a mapping or a list of cells.")
    several = isinstance(value, (list, tuple)) and all(isinstance(v, (Mapping, list, tuple)) for v in value)
    values: list[Any] = list(value) if several else [value]  # pyright: ignore[reportUnknownArgumentType]
    tables = [_taken_apart(text, delimiter, path) for delimiter in _delimiters(text)]
    suited = [table for table in tables if all(_suits(table, one) for one in values)] or tables
    if len(suited) > 1:
        between = " or ".join(repr(table.delimiter) for table in suited)
        raise _does_not_fit(path, f"its columns may be separated by {between}", "Write the whole file.")
    table = suited[0]
    new = list(dict.fromkeys(n for v in values if isinstance(v, Mapping) for n in _names(v) if n not in table.header))
    if new:
        text = _widened(text, table, values, new, path)
        table = _taken_apart(text, table.delimiter, path)
    lines = [line for one in values for line in _lines(table, one, path)]
    if not text.endswith(("\n", "\r")):
        text += table.newline
    return text + "".join(f"{line}{table.newline}" for line in lines), len(table.records) - 1 + len(lines)


def _names(row: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in row]


def _suits(table: _Table, value: Any) -> bool:
    """Whether a row fits this table."""
    if isinstance(value, Mapping):
        return set(_names(value)) <= set(table.header)  # pyright: ignore[reportUnknownArgumentType]
    width = len(table.header)
    if isinstance(value, str) and width > 1:
        try:
            return all(len(record.cells) == width for record in _records(value, table.delimiter))
        except csv.Error:
            return False
    return width == (len(value) if isinstance(value, (list, tuple)) else 1)  # pyright: ignore[reportUnknownArgumentType]


def _lines(table: _Table, value: Any, path: str) -> list[str]:
    width = len(table.records[0].cells)
    if isinstance(value, Mapping):
        if len(set(table.header)) < width:
            raise _does_not_fit(path, "two columns have the same name", "Provide a list of cells.")
        row = {str(name): _cell(cell, path) for name, cell in value.items()}  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        return [_checked(table, [row.get(name, "") for name in table.header], path)]
    if isinstance(value, str) and width > 1:
        return _verbatim(table, value, path)
    cells = [_cell(cell, path) for cell in (value if isinstance(value, (list, tuple)) else [value])]  # pyright: ignore[reportUnknownVariableType]
    if len(cells) != width:
        raise _does_not_fit(path, f"it has {len(cells)} cells, and the file {width} columns", "Provide a cell for each.")
    return [_checked(table, cells, path)]


def _checked(table: _Table, cells: list[Any], path: str) -> str:
    """Return the line of these cells if parsing it restores them."""
    line = table.line(cells)
    wanted = [str(cell) if n == 0 else f"{table.gap}{cell}" for n, cell in enumerate(cells)]
    try:
        read = [record.cells for record in _records(line, table.delimiter)]
    except csv.Error:
        read = []
    if read != [wanted]:
        raise _does_not_fit(path, "the way it is written cannot hold these cells", "Remove the blanks after delimiters.")
    return line


def _verbatim(table: _Table, text: str, path: str) -> list[str]:
    """Return lines of CSV text unchanged if they fit this file."""
    try:
        records = _records(text, table.delimiter)
    except csv.Error as error:
        raise _does_not_fit(path, f"it is not CSV ({error})", "Provide a mapping or a list of cells.") from None
    width = len(table.records[0].cells)
    if not records or any(len(record.cells) != width for record in records):
        raise _does_not_fit(path, f"it is text of other than {width} columns", "Provide a mapping or a list of cells.")
    return [record.raw for record in records]


def _widened(text: str, table: _Table, values: list[Any], new: list[str], path: str) -> str:
    """Return the text with additional empty columns."""
    names = ", ".join(repr(name) for name in new)
    known = {name for value in values if isinstance(value, Mapping) for name in _names(value)}
    width = len(table.records[0].cells)
    if not known & set(table.header):
        header = ", ".join(table.header)
        raise _does_not_fit(path, f"none of its names is a column of the file ({header})", "Name the columns of the file.")
    if any(len(record.cells) != width for record in table.records):
        raise _does_not_fit(
            path, f"a column {names} cannot be added, as the lines of the file differ in length", "Leave it out."
        )
    more = table.line(new)
    empty = f"{table.delimiter}{table.gap}" + table.line([""] * len(new) if len(new) > 1 else [])
    head, *rows = table.records
    above = text[: len(text) - sum(len(record.raw) + len(record.end) for record in table.records)]
    first = f"{above}{head.raw}{table.delimiter}{table.gap}{more}{head.end}"
    return first + "".join(f"{row.raw}{empty}{row.end}" for row in rows)


def _taken_apart(text: str, delimiter: str, path: str) -> _Table:
    if text.startswith("sep="):
        raise _does_not_fit(path, "its first line ('sep=') is for one program only", "Remove that line.")
    try:
        records = _records(text, delimiter)
    except csv.Error as error:
        raise _not_csv(path, error) from None
    head, *rows = records
    spaced = len(head.cells) > 1 and all(cell.startswith(" ") and cell.strip() for cell in head.cells[1:])
    gap = " " if spaced else ""
    sample = [head, *rows[-20:]]

    def fitting(quoting: int) -> int:
        return sum(_line(map(_number_or_text, r.cells), delimiter, "", quoting) == r.raw for r in sample)

    quoting = max(_QUOTING, key=fitting)  # the first of several that fit equally
    end = next((record.end for record in reversed(records) if record.end), "\n")
    return _Table(records, delimiter, gap, quoting, "\r\n" if end.startswith("\r\n") else end[0])


def _records(text: str, delimiter: str) -> list[_Record]:
    """Return the records that are not empty lines; strict: raises csv.Error for malformed CSV."""
    lines: list[str] = []
    for line in io.StringIO(text, newline=""):  # list() would block the event loop
        check()
        lines.append(line)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    found: list[_Record] = []
    begin = 0
    with _any_size(text):
        for cells in reader:
            check()
            whole = "".join(lines[begin : reader.line_num])
            begin = reader.line_num
            raw = whole.rstrip("\r\n")
            if cells:
                found.append(_Record(cells, raw, whole[len(raw) :]))
            elif found:  # an empty line stays with the record before it
                last = found[-1]
                found[-1] = last._replace(end=last.end + whole)
    return found


def _delimiters(text: str) -> list[str]:
    """Return the delimiters that split all lines of the sample into the same number of cells, more than one."""
    sample = text[:SAMPLE]
    found: list[str] = []
    for delimiter in DELIMITERS:
        try:
            with _any_size(sample):
                rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            continue
        if len(sample) < len(text):
            rows = rows[:-1] or rows  # the last one may be cut
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            found.append(delimiter)
    return found or [","]


class _any_size:
    """Let the csv module read cells of any size; its limit is global to the process."""

    def __init__(self, text: str) -> None:
        self._size = len(text)
        self._before: int | None = None

    def __enter__(self) -> None:
        if self._size > csv.field_size_limit():
            _LIMIT.acquire()
            self._before = csv.field_size_limit(self._size)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            csv.field_size_limit(self._before)
            _LIMIT.release()


def _number_or_text(cell: str) -> Any:
    try:
        number = float(cell)
    except ValueError:
        return cell
    return _Written(number, cell)


class _Written(float):
    """A number that is written unchanged."""

    _text: str

    def __new__(cls, number: float, text: str) -> _Written:
        made = super().__new__(cls, number)
        made._text = text
        return made

    def __repr__(self) -> str:
        return self._text

    __str__ = __repr__


def _line(cells: Iterable[Any], delimiter: str, gap: str, quoting: int) -> str:
    check()
    out = [_written(cell, delimiter, quoting) for cell in cells]
    return f"{delimiter}{gap}".join(out) or ('""' if out else "")  # an empty line would be no row


def _written(cell: Any, delimiter: str, quoting: int) -> str:
    if quoting == csv.QUOTE_ALL or (quoting == csv.QUOTE_NONNUMERIC and isinstance(cell, str)):
        return '"' + str(cell).replace('"', '""') + '"'
    text = "" if cell is None else str(cell)
    if any(c in text for c in (delimiter, '"', "\r", "\n")):
        return '"' + text.replace('"', '""') + '"'
    return text


def _cell(value: Any, path: str) -> Any:
    """Convert a value to a cell: numbers and texts unchanged, None empty, structure as JSON.

    Raises:
        StorageError: `not_csv`: a cell cannot represent it.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (str, int, float)):
        return "" if value is None else value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    try:
        if isinstance(value, (list, tuple, Mapping)):
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise StorageError(
        f"Cannot write '{path}': a cell cannot hold {type(value).__name__}.", hint="Provide text or a number.",
        operation="write", path=path, cause="not_csv",
    )  # fmt: skip


def _count(value: Any) -> int:
    if isinstance(value, str):
        return max(0, len(_records(value, _delimiters(value)[0])) - 1)
    return len(value) if isinstance(value, list) else 1  # pyright: ignore[reportUnknownArgumentType]


def _does_not_fit(path: str, why: str, hint: str) -> ValidationError:
    return ValidationError(f"Cannot append to '{path}': {why}.", hint=hint)


def _not_csv(path: str, error: csv.Error) -> ValidationError:
    return ValidationError(f"'{path}' is not CSV: {error}.", hint="Correct the file, or set format: text.")

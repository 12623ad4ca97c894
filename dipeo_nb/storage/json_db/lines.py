"""Lines of text, and ranges of lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.cancellable import check
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.errors import ValidationError

LINES_AT_ONCE = 200_000
"""Minimum characters that are searched for lines at once."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    """Split a text into lines with their ends, as editors do: only \\n, \\r\\n and \\r end a line."""
    found: list[str] = []
    begin = 0
    while begin < len(text):  # in parts: the search holds the GIL, and so blocks the event loop
        check()
        end = text.find("\n", begin + LINES_AT_ONCE) + 1 or len(text)
        found += _LINE.findall(text, begin, end)
        begin = end
    return found


def select_lines(text: str, lines: Any) -> str:
    """Return the lines of 1-based inclusive ranges, each once, in the requested order."""
    content = lines_of(text)
    free = list(range(len(content) + 2))  # for a line already taken: a later line, where the search continues

    def next_free(n: int) -> int:
        while free[n] != n:
            free[n] = n = free[free[n]]
        return n

    wanted: list[str] = []
    for first, last in line_ranges(lines, len(content)):
        check()
        n = next_free(min(first, len(content) + 1))
        while n <= min(last, len(content)):
            wanted.append(content[n - 1])
            free[n] = n + 1
            n = next_free(n + 1)
    return "".join(wanted)


def line_ranges(lines: Any, total: int) -> list[tuple[int, int]]:
    """Parse ranges of lines into (first, last): `5`, `5.0`, `"1:120"`, `":9"`, `"5,10:20"`, `[1, 2]`, `(10, 20)`, {start, end}, {from, to}, nested.

    Raises:
        ValidationError: anything else, or a range that starts at 0 or is descending.
    """
    try:
        if isinstance(lines, Mapping):
            if not lines or not lines.keys() <= {"start", "from", "end", "to"}:
                raise ValueError("other names")
            ranges = [_range(lines.get("start", lines.get("from")), lines.get("end", lines.get("to")), total)]
        elif isinstance(lines, tuple) and len(lines) == 2:
            ranges = [(_whole(lines[0]), _whole(lines[1]))]
        elif isinstance(lines, (list, tuple)):
            return [r for part in lines for r in line_ranges(part, total)]
        elif isinstance(lines, str) and "," in lines:
            return [r for part in lines.split(",") for r in line_ranges(part.strip(), total)]
        elif isinstance(lines, str) and ":" in lines:
            first, _, last = lines.partition(":")
            ranges = [_range(first or None, last or None, total)]
        else:
            ranges = [(_whole(lines), _whole(lines))]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValidationError(
            f"{short_repr(lines)} is not a line range.", hint="Write 5, 1:120, '5,10:20' or {start: 1, end: 20}."
        ) from None
    if any(a < 1 or b < a for a, b in ranges):
        raise ValidationError(f"{short_repr(lines)} is not a line range.", hint="Lines count from 1, and ranges go upwards.")
    return ranges


def _range(first: Any, last: Any, total: int) -> tuple[int, int]:
    """Return the range between two ends; None is the first or the last line (empty when *first* is after it)."""
    start = 1 if first is None else _whole(first)
    return start, max(start, total) if last is None else _whole(last)


def _whole(value: Any) -> int:
    number = float(value) if not isinstance(value, bool) else float("nan")
    if number != int(number):
        raise ValueError(value)
    return int(number)

"""Lines of texts, and ranges of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.cancellable import check
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.errors import ValidationError

LINES_AT_ONCE = 200_000
"""Characters that are searched for lines at once, at least."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends, as editors count them: \\n, \\r\\n and \\r end one, nothing else does."""
    found: list[str] = []
    begin = 0
    while begin < len(text):  # in parts: the search holds the interpreter, and with it the event loop
        check()
        end = text.find("\n", begin + LINES_AT_ONCE) + 1 or len(text)
        found += _LINE.findall(text, begin, end)
        begin = end
    return found


def select_lines(text: str, lines: Any) -> str:
    """The lines of 1-based inclusive ranges, each once, in the order they are asked for."""
    content = lines_of(text)
    free = list(range(len(content) + 2))  # of a line that is taken already: one further on, where the search goes on

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
    """(first, last) of each range in: `5`, `5.0`, `"1:120"`, `":9"`, `"5,10:20"`, `[1, 2]`, `(10, 20)`, {start, end}, {from, to}, nested.

    Raises:
        ValidationError: something else, or a range that counts from 0 or goes downwards.
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
    """The range between two ends, either of which may be None: the first line, the last one (none when *first* is after it)."""
    start = 1 if first is None else _whole(first)
    return start, max(start, total) if last is None else _whole(last)


def _whole(value: Any) -> int:
    number = float(value) if not isinstance(value, bool) else float("nan")
    if number != int(number):
        raise ValueError(value)
    return int(number)

"""Where in a rendered text the values of its template stand."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from dipeo_nb.diagram.metering import NotQuickError, quick
from dipeo_nb.diagram.template_program import Record, translate
from dipeo_nb.errors import TemplateError

MOST = 200
"""Values of one text that are listed."""
_OPEN, _CLOSE = "\ue000", "\ue001"
"""Characters for private use: with a token between them, a mark that no value holds."""


class PrintedValue(NamedTuple):
    """A tag that printed something."""

    tag: str
    """What it prints: a name, or a path into its value."""
    name: str
    """The name that it begins with; empty for a tag that begins with none."""
    start: int
    end: int


def printed_values(template: str, names: Mapping[str, Any], text: str) -> list[PrintedValue]:
    """The values that *template* printed into *text*, in order.

    Nothing when that is not known: the template does something with what its tags print, or takes long.
    """
    if "{" not in template:
        return []
    program = translate(template)
    token = secrets.token_hex(8)
    tags: list[str] = []

    def place(value: str) -> str:
        tags.append(record.printing)
        return f"{_OPEN}{token}:{len(tags) - 1}{_CLOSE}{value}{_OPEN}{token}{_CLOSE}"

    record = Record(program, names, False, place)
    try:
        with quick():
            marked = program.render(names, record)
    except (NotQuickError, TemplateError):
        return []
    found, plain = _without_marks(marked, token, tags)
    return found[:MOST] if plain == text else []


def _without_marks(marked: str, token: str, tags: list[str]) -> tuple[list[PrintedValue], str]:
    """The outermost values, and the text."""
    found: list[PrintedValue] = []
    parts: list[str] = []
    opened: list[tuple[int, int]] = []
    at = length = 0
    for mark in re.finditer(f"{_OPEN}{token}(?::(\\d+))?{_CLOSE}", marked):
        parts.append(marked[at : mark.start()])
        length += mark.start() - at
        at = mark.end()
        if mark[1] is not None:
            opened.append((int(mark[1]), length))
        elif opened:
            number, start = opened.pop()
            if not opened and length > start:
                head = re.match(r"\s*+([^\W\d]\w*+)", tags[number])
                found.append(PrintedValue(tags[number], head[1] if head else "", start, length))
    parts.append(marked[at:])
    return found, "".join(parts)

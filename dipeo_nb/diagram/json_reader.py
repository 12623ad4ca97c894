"""JSON text as plain data, and the positions of its values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dipeo_nb.diagram.format_errors import MAX_DEPTH, format_error, too_deep
from dipeo_nb.diagram.spans import SourceSpan, SpanTree


def check_characters(text: str, file: str | None, *, placed: bool = True) -> None:
    """Raises DiagramFormatError for text with half of a surrogate pair; *placed*: with its line and column."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        before = text[: exc.start]
        raise format_error(
            f"The text holds half of a surrogate pair (U+{ord(text[exc.start]):04X}), which is not a character.",
            "Remove it.",
            file,
            (before.count("\n") + 1, exc.start - before.rfind("\n")) if placed else None,
        ) from None


def json_value(text: str, file: str | None) -> tuple[Any, bool]:
    """The value of a JSON text, and whether a mapping holds a key twice.

    Raises:
        json.JSONDecodeError: it is not JSON.
        DiagramFormatError: nested too deep, a number that JSON does not have, half a character.
    """
    duplicates = False

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicates
        made = dict(pairs)
        duplicates = duplicates or len(made) != len(pairs)
        return made

    def refuse_constant(name: str) -> Any:
        raise format_error(f"'{name}' is not a JSON number.", "Write a number, or null.", file)

    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_constant=refuse_constant)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise too_deep(file) from None
    except ValueError as exc:  # an integer of thousands of digits
        raise format_error(f"A number cannot be read: {exc}.", "Write a smaller number, or quote it.", file) from None
    _check_depth(value, 0, file)
    if "\\ud" in text or "\\uD" in text:  # only an escape can bring half a character in
        check_characters(json.dumps(value, ensure_ascii=False), file, placed=False)
    return value, duplicates


def _check_depth(value: Any, depth: int, file: str | None) -> None:
    if depth > MAX_DEPTH:
        raise too_deep(file)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        if isinstance(item, (dict, list)):
            _check_depth(item, depth + 1, file)


_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s,:{}\[\]"]+')


def json_spans(text: str) -> tuple[SourceSpan | None, list[SourceSpan]]:
    """The positions of a JSON text that `json_value` can read, and the keys that a mapping holds again."""
    places = SpanTree()
    for line, column, start, token in _json_tokens(text):
        span = SourceSpan(line, column, start)
        if token in ("{", "["):
            places.open(span)
        elif token in ("}", "]"):
            places.close(start + 1, token == "}")
        else:
            span.text = json.loads(token, strict=False) if token[0] == '"' else token.removeprefix("\ufeff")
            span.end = start + len(token)
            places.add(span)
    return places.root, places.duplicates


def _json_tokens(text: str) -> Iterator[tuple[int, int, int, str]]:
    line, line_start = 1, 0
    last = 0
    for match in _JSON_TOKEN.finditer(text, len(text) - len(text.removeprefix("\ufeff"))):
        start = match.start()
        breaks = text.count("\n", last, start)
        if breaks:
            line += breaks
            line_start = text.rindex("\n", last, start) + 1
        last = start
        yield line, start - line_start + 1, start, match[0]

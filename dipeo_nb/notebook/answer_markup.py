"""Pieces of Markdown that the display of an answer is made of; the text of models in them is inert."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from dipeo_nb.diagram.labels import clean
from dipeo_nb.notebook.safe_markdown import literal

LINE_LIMIT = 120
"""Characters of a tool's arguments, and of its result, in the line that reports it."""
ROWS = 200
"""Rows of a structured answer shown."""
_IMAGE = re.compile(r"image/[\w.+-]+")
_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


def small(*lines: str) -> str:
    """Lines that are less prominent than the answer."""
    return f'<small style="opacity:.7">{"<br>".join(map(literal, lines))}</small>'


def tool_line(name: str, arguments: Mapping[str, Any], result: str | None = None, *, is_error: bool = False) -> str:
    """A call of a tool in one line.

    Args:
        result: what the model was given; None while there is none.
    """
    given = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in arguments.items())
    call = f"🔧 {name}({one_line(given)})"
    if result is None:
        return call
    return f"{call} {'failed:' if is_error else '→'} {one_line(result)}"


def table(value: Any) -> str:
    """A structured answer as a table: fields and values, or rows of a list."""
    value = to_jsonable_python(value)
    if isinstance(value, Mapping):
        head, rows = ("field", "value"), list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        records = [row for row in value if isinstance(row, Mapping)]
        if records and len(records) == len(value):
            names = list(dict.fromkeys(name for row in records for name in row))
            head, rows = tuple(names), [tuple(row.get(name, "") for name in names) for row in records]
        else:
            head, rows = ("", "value"), list(enumerate(value, 1))
    else:
        return literal(_cell(value))
    lines = ["| " + " | ".join(literal(str(name)) for name in head) + " |", "|" + " :--- |" * len(head)]
    lines += ["| " + " | ".join(_in_cell(cell) for cell in row) + " |" for row in rows[:ROWS]]
    more = "\n\n" + small(f"… and {len(rows) - ROWS} more rows") if len(rows) > ROWS else ""
    return "\n".join(lines) + more


def _in_cell(value: Any) -> str:
    return "<br>".join(literal(line) for line in _cell(value).split("\n"))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def tool_outputs(outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Images and sources that built-in tools returned."""
    images = [
        f"![image](data:{o['media_type']};base64,{_BASE64.sub('', str(o['data']))})"
        for o in outputs
        if o.get("type") == "image" and o.get("data") and _IMAGE.fullmatch(str(o.get("media_type")))
    ]
    links = dict.fromkeys(
        (str(o["url"]), str(o.get("title") or o["url"]))
        for o in outputs
        if o.get("type") == "citation" and str(o.get("url", "")).startswith(("https://", "http://"))
    )
    sources = "\n".join(f"{n}. [{literal(one_line(title))}](<{_address(url)}>)" for n, (url, title) in enumerate(links, 1))
    return [*images, *([sources] if sources else [])]


def _address(url: str) -> str:
    return "".join(c if c not in "<>\\\"'`" and c.isprintable() and not c.isspace() else f"%{ord(c):02X}" for c in url)


def sendable(data: Mapping[str, str]) -> dict[str, str]:
    """Replace lone surrogates, which cannot be sent to the page."""
    return {kind: text.encode("utf-8", "replace").decode() for kind, text in data.items()}


def one_line(text: str) -> str:
    """The text on one line of `LINE_LIMIT` characters at most."""
    return clean(text, LINE_LIMIT)


def tail(text: str, limit: int) -> str:
    """The end of a text, of *limit* characters at most."""
    return text if len(text) <= limit else "…" + text[-limit + 1 :]

"""Conversion between the text of files and values."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from dipeo_nb.errors import ValidationError
from dipeo_nb.storage import csv_text
from dipeo_nb.storage.json_db.lines import lines_of
from dipeo_nb.storage.json_db.request import FORMATS
from dipeo_nb.storage.structured_text import json_line, json_text, json_value, yaml_text, yaml_value


def guessed(path: str, text: str) -> str:
    """Return the format of a file by its suffix; text that looks like JSON is tried as JSON."""
    form = FORMATS.get(PurePosixPath(path).suffix.lower(), "text")
    return "json-if-it-is" if form in ("text", "jsonl") and text.lstrip()[:1] in ("{", "[") else form


def parse(text: str, form: str, path: str) -> Any:
    """Parse content by format: json and yaml to values, csv to a list of rows, anything else stays text.

    Raises:
        ValidationError: a .json or .yaml file is invalid; the message has the position.
    """
    match form:
        case "json" | "json-if-it-is" | "jsonl":
            try:
                return json_value(text, path)
            except ValidationError:
                if form != "json" or is_text(path):
                    return text
                raise
        case "yaml":
            return yaml_value(text, path)
        case "csv":
            return csv_text.rows_of(text, path)
        case _:
            return text


def serialized(value: Any, form: str, path: str) -> str:
    """Return the file's text: strings unchanged for text formats, structure as JSON, YAML or CSV by the format.

    Raises:
        StorageError: `not_json` or `not_csv`: the format cannot represent the value; the message has the position in it.
    """
    if form == "yaml":
        return value if isinstance(value, str) else yaml_text(value, path)
    if form == "csv":
        return value if isinstance(value, str) else csv_text.text_of(value, path)
    if form == "jsonl":
        items: list[Any] = value if isinstance(value, list) else [value]
        return value if isinstance(value, str) else "".join(f"{json_line(item, path)}\n" for item in items)
    if form == "json" and not is_text(path):
        return json_text(value, path) + "\n"
    return as_text(value, path)


def as_text(value: Any, path: str) -> str:
    """Convert to text: strings unchanged, None empty, everything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json_text(value, path)


def is_text(path: str) -> bool:
    """Whether a file is text by its name, which may contain JSON."""
    return PurePosixPath(path).suffix.lower() not in ("", ".json")


def counted(content: Any) -> dict[str, Any]:
    return {"items_count": len(content)} if isinstance(content, (list, dict)) else {}  # pyright: ignore[reportUnknownArgumentType]


def with_line(text: str, line: str, *, whole: bool = False) -> str:
    """Append a line (*whole*: or several, with their ends) to a text, using its own kind of line ends."""
    newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    return text + ("" if text.endswith(("\n", "\r")) else newline) + (line.replace("\n", newline) if whole else line)


def json_lines(value: Any, path: str) -> str:
    """Convert a value to a line of JSON; text that already consists of JSON lists and mappings stays unchanged."""
    if isinstance(value, str):
        lines = [line.rstrip("\r\n") for line in lines_of(value) if line.strip()]
        if lines and all(line.lstrip()[0] in "[{" and _is_json(line, path) for line in lines):
            return "".join(f"{line}\n" for line in lines)
    return f"{json_line(value, path)}\n"


def _is_json(text: str, path: str) -> bool:
    try:
        json_value(text, path)
    except ValidationError:
        return False
    return True

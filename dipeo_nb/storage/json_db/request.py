"""What an operation on a database works with."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dipeo_nb.errors import ValidationError

FORMATS = {
    ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".xml": "xml", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
"""Suffix → format; every other suffix is text."""
SUFFIXES = {"yaml": ".yaml", "csv": ".csv", "text": ".txt", "xml": ".xml"}
"""Format → suffix of a name that has none; `.json` for the others."""
FOLDER = "dbs"
"""Where databases are that are named without a folder."""


class DBRequest(NamedTuple):
    """What an operation works with."""

    path: str
    value: Any
    keys: list[str]
    lines: Any
    format: str | None
    worked_out: tuple[str, Any] = ("", None)
    """(text, what was worked out of it elsewhere), of a long text."""

    def of_long(self, text: str, function: str, *arguments: Any) -> Any:
        """What a function makes of a long text. Raises LongYamlError where that is not worked out yet."""
        if self.worked_out[0] != text:
            raise LongYamlError(text, function, arguments)
        return self.worked_out[1]

    @property
    def form(self) -> str:
        """json, jsonl (a value of JSON in each line), yaml, csv, xml or text."""
        named = FORMATS.get(PurePosixPath(self.path).suffix.lower(), "text")
        return named if named == "jsonl" and self.format == "json" else self.format or named


class LongYamlError(Exception):
    """A YAML text with which something takes long: *function* (`module:name`), called with it and *arguments*."""

    def __init__(self, text: str, function: str, arguments: tuple[Any, ...]) -> None:
        super().__init__("the YAML is long")
        self.text = text
        self.function = function
        self.arguments = arguments


def path_of(name: str, format: str | None = None, *, reading: bool = False) -> str:
    """The path that a name of a database means.

    Raises:
        ValidationError: it is blank.
    """
    name = str(name).strip()
    if not name:
        raise ValidationError("The database has no name.", hint="Name a file.")
    path = name if "/" in name or "." in name else f"{FOLDER}/{name}"
    if not PurePosixPath(path).suffix and not path.endswith(".") and not (reading and "/" in name):
        path += SUFFIXES.get(format or "", ".json")
    return path

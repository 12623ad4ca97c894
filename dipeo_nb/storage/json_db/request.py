"""Requests of database operations."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dipeo_nb.errors import ValidationError

FORMATS = {
    ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".xml": "xml", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
"""Suffix → format; all other suffixes are text."""
SUFFIXES = {"yaml": ".yaml", "csv": ".csv", "text": ".txt", "xml": ".xml"}
"""Format → suffix added to names without one; `.json` for other formats."""
FOLDER = "dbs"
"""Folder of databases that are named without a folder."""


class DBRequest(NamedTuple):
    """A request of an operation."""

    path: str
    value: Any
    keys: list[str]
    lines: Any
    format: str | None
    worked_out: tuple[str, Any] = ("", None)
    """(text, result computed elsewhere), for a long text."""

    def of_long(self, text: str, function: str, *arguments: Any) -> Any:
        """Return a function's result for a long text. Raises LongYamlError if it has not been computed yet."""
        if self.worked_out[0] != text:
            raise LongYamlError(text, function, arguments)
        return self.worked_out[1]

    @property
    def form(self) -> str:
        """json, jsonl (a value of JSON in each line), yaml, csv, xml or text."""
        named = FORMATS.get(PurePosixPath(self.path).suffix.lower(), "text")
        return named if named == "jsonl" and self.format == "json" else self.format or named


class LongYamlError(Exception):
    """A YAML text that takes long to process by *function* (`module:name`), called with it and *arguments*."""

    def __init__(self, text: str, function: str, arguments: tuple[Any, ...]) -> None:
        super().__init__("the YAML is long")
        self.text = text
        self.function = function
        self.arguments = arguments


def path_of(name: str, format: str | None = None, *, reading: bool = False) -> str:
    """Return the path of a database name.

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

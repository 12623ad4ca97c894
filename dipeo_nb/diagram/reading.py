"""Context of a format's reader: the top mapping, its positions in the text, and the findings so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.text import shorten
from dipeo_nb.diagram.format_errors import format_error
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity
from dipeo_nb.errors import DiagramFormatError


class ReadContext:
    """Context of a format's reader: the top mapping, its positions, and the findings so far."""

    def __init__(self, value: Mapping[str, Any], source: SourceMap) -> None:
        self.value = value
        self.source = source
        self.found: list[Diagnostic] = []

    def inform(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that is as it should be, and good to know."""
        self._add(Severity.INFO, code, message, at, more)

    def warn(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that does not keep the diagram from running."""
        self._add(Severity.WARNING, code, message, at, more)

    def error(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that forbids running the diagram."""
        self._add(Severity.ERROR, code, message, at, more)

    def refuse(self, message: str, *at: str | int, hint: str) -> DiagramFormatError:
        """The error for a document whose main parts cannot be read at all."""
        return format_error(message, hint, self.source.file, self._nearest_place(at))

    def _add(self, severity: Severity, code: str, message: str, at: DocumentPath, more: dict[str, Any]) -> None:
        line, column = self._nearest_place(at) or (None, None)
        self.found.append(Diagnostic(severity, code, message, file=self.source.file, line=line, column=column, **more))

    def _nearest_place(self, path: DocumentPath) -> tuple[int, int] | None:
        for end in range(len(path), 0, -1):
            if place := self.source.place(*path[:end]):
                return place
        return None


def as_text(value: Any, reading: ReadContext, *at: str | int) -> str | None:
    """A scalar as the author wrote it (`No`, `007`, `1.0`), stripped; None for null, lists and mappings."""
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, (list, dict)):
        return None
    written = reading.source.written(*at)
    return (written if written is not None else str(value)).strip()


def list_items(reading: ReadContext, key: str, what: str) -> list[tuple[DocumentPath, dict[str, Any]]]:
    """The mappings of a list, with their paths; stray other items are reported and left out.

    Raises:
        DiagramFormatError: the value is neither a list nor empty.
    """
    value = reading.value.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        kind = "a mapping" if isinstance(value, dict) else f"'{shorten(value, 30)}'"
        raise reading.refuse(f"'{key}' is a list of {what}, not {kind}.", key, hint="Begin each item with '- '.")
    found: list[tuple[DocumentPath, dict[str, Any]]] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            found.append(((key, index), item))
        else:
            stray_item(reading, key, index, item)
    return found


def stray_item(reading: ReadContext, key: str, index: int, item: Any) -> None:
    """Report a list item that is not what the list holds."""
    said = "An empty item" if item is None else f"'{shorten(item)}'"
    reading.warn("stray-item", f"{said} in '{key}' is ignored.", key, index, hint="Remove the '-', or write the item's fields.")

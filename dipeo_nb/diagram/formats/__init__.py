"""The file formats. Each is a pair of functions: `read(ReadContext) -> DomainDiagram`, `write(DomainDiagram) -> str`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dipeo_nb.common.text import shorten
from dipeo_nb.diagram import node_fields
from dipeo_nb.diagram.formats import executable, light, native, readable
from dipeo_nb.diagram.reading import ReadContext
from dipeo_nb.diagram.source import Document
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.vocabulary import spellings
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import Severity


@dataclass(frozen=True, slots=True)
class Format:
    """A file format."""

    name: str
    suffix: str
    """Of files of this format, e.g. `.light.yaml`."""
    read: Callable[[ReadContext], DomainDiagram]
    write: Callable[[DomainDiagram], str]


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("light", ".light.yaml", light.read, light.write),
        Format("native", ".native.json", native.read, native.write),
        Format("readable", ".readable.yaml", readable.read, readable.write),
        Format("executable", ".executable.json", executable.read, executable.write),
    )
}


def read(document: Document, format: str) -> tuple[DomainDiagram, tuple[Diagnostic, ...]]:
    """The diagram in a document, and the findings of its reader.

    Raises:
        DiagramFormatError: the main parts have a shape that cannot be read.
    """
    source = document.source
    reading = ReadContext(document.value, source)
    source.spellings = spellings()
    if document.duplicates:
        for key, line, column in source.duplicates():
            reading.found.append(
                Diagnostic(
                    Severity.WARNING,
                    "duplicate-key",
                    f"'{shorten(key)}' appears twice in one mapping; the last value is used.",
                    "Remove one of the two.",
                    source.file,
                    line,
                    column,
                )
            )
    model = FORMATS[format].read(reading)
    return model, tuple(reading.found)


def silent_reading() -> ReadContext:
    """A reading of nothing, for using the readers' helpers on values that come from code."""
    return ReadContext({}, SourceMap())


def write(model: DomainDiagram, format: str) -> str:
    """The diagram as text; labels are made unique where they are not."""
    return FORMATS[format].write(_with_unique_labels(model))


def native_data(model: DomainDiagram) -> dict[str, Any]:
    """The diagram as plain data in native form, as reading what `write` gives would; in a third of the time."""
    return json.loads(json.dumps(native.wire_form(_with_unique_labels(model))))


def _with_unique_labels(model: DomainDiagram) -> DomainDiagram:
    return replace(model, nodes=tuple(node_fields.unique_labels(model.nodes, silent_reading(), lambda _: ())))

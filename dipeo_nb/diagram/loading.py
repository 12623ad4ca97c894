"""Finds and reads diagrams: files, names, texts and plain data become a `ParsedDiagram`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.common.paths import from_home
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import detect, formats
from dipeo_nb.diagram.credentials import credentials_of
from dipeo_nb.diagram.formats import yaml_text
from dipeo_nb.diagram.parsed import ParsedDiagram
from dipeo_nb.diagram.source import parse
from dipeo_nb.diagram.source_files import read_file, size_limit, text_of
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.errors import DiagramNotFoundError, ValidationError

DEEPEST = 10
"""Diagrams within diagrams."""


def load(
    source: str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None, base_dir: Path | None = None
) -> ParsedDiagram:
    """Find and parse a diagram; arguments and errors are those of `document.load`."""
    if isinstance(source, Mapping):
        return _load_data(source, format, base_dir)
    if isinstance(source, os.PathLike):
        return _load_file(Path(source), format, base_dir)
    if not isinstance(source, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError(
            f"A diagram is loaded from a path, a text or a mapping, not from {type(source).__name__}.",
            hint="Use from_model() for a DomainDiagram.",
        )
    if "\n" in source or source.lstrip("\ufeff \t").startswith("{") or not source.strip():
        return load_text(source, format=format, base_dir=base_dir)
    root = base_dir or get_settings().base_dir
    for candidate in (from_home(source), root / source):
        if _exists(candidate):
            return _load_file(candidate, format, base_dir)
    if os.path.isabs(source) or ".." in Path(source).parts or source.startswith("~"):
        raise DiagramNotFoundError(f"There is no file '{shorten(source, 200)}'.", hint="Check the path.", path=source)
    return load_named(source, root, format=format)


def load_named(name: str, base_dir: Path, *, beside: Path | None = None, format: str | None = None) -> ParsedDiagram:
    """Find and parse a diagram below a folder; arguments and errors are those of `document.load_named`."""
    limit = size_limit()
    found = detect.opened(name, base_dir, beside=beside, format=format, limit=limit)
    text = text_of(found.data, str(found.path), limit)
    return load_text(text, format=format, path=found.path, base_dir=base_dir)


def load_text(
    text: str, *, format: str | None = None, path: str | os.PathLike[str] | None = None, base_dir: Path | None = None
) -> ParsedDiagram:
    """Parse a diagram; arguments and errors are those of `document.load_text`."""
    given = detect.check_format(format) if format else None
    location = Path(path) if path is not None else None
    document = parse(text, str(location) if location else None)
    detected = given if given and isinstance(document.value, Mapping) else None
    name = detected or detect.detect(document.value, location, document.source.file)
    model, found = formats.read(document, name)
    redactor.add(*credentials_of(model))  # from here on no display, record or message shows them
    return ParsedDiagram(model, name, text, location, document.source, found, base_dir)


def load_nested(spec: SubDiagramNode, name: str, *, source_path: str | None, base_dir: Path) -> ParsedDiagram:
    """The diagram that a sub_diagram node means: inline, else looked up next to the file of its own diagram and below the base
    directory.

    Args:
        name: its `diagram_name`, with its variables filled in.
        source_path: the file of the diagram that the node is part of.

    Raises:
        DiagramError: there is none, or it cannot be read.
    """
    if spec.diagram_data:
        return load(spec.diagram_data, format=spec.diagram_format, base_dir=base_dir)
    form = str(spec.diagram_format) if spec.diagram_format else None
    beside = Path(source_path).parent if source_path else None
    return load_named(name, base_dir, beside=beside, format=form)


def _load_file(path: Path, format: str | None, base_dir: Path | None) -> ParsedDiagram:
    return load_text(read_file(path), format=format, path=path, base_dir=base_dir)


def _load_data(data: Mapping[str, Any], format: str | None, base_dir: Path | None) -> ParsedDiagram:
    plain = plain_data(data)
    name = (detect.check_format(format) if format else None) or detect.detect(plain)
    # Through text, so that places and `set` work as for a file.
    text = (
        json.dumps(plain, ensure_ascii=False, indent=2)
        if formats.FORMATS[name].suffix.endswith(".json")
        else yaml_text.dump(plain)
    )
    return load_text(text, format=name, base_dir=base_dir)


def plain_data(value: Any) -> Any:
    """A deep copy in plain data; dates become ISO text, enum members their values."""

    def convert(item: Any) -> Any:
        if isinstance(item, Mapping):
            return dict(item)
        if isinstance(item, (set, frozenset)):
            return sorted(item, key=str)
        if hasattr(item, "isoformat"):
            return item.isoformat()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        raise TypeError(f"{type(item).__name__} is not plain data")

    try:
        return json.loads(json.dumps(value, default=convert, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValidationError(
            f"The value is not plain data: {shorten(exc, 200)}.",
            hint="Use texts, numbers, booleans, lists and mappings with text keys.",
        ) from exc


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a zero byte: no path then
        return False

"""Reads the text of a diagram, YAML or JSON, as plain data whose positions in the text are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from dipeo_nb.common.moved import moved_names
from dipeo_nb.diagram.format_errors import format_error
from dipeo_nb.diagram.json_reader import check_characters, json_value
from dipeo_nb.diagram.source_files import MAX_BYTES
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.yaml_reader import yaml_value


class Document(NamedTuple):
    """A text as plain data (mappings with text keys, lists, text, numbers, booleans, None)."""

    value: Any
    source: SourceMap
    json: bool
    """Whether the text is JSON (else YAML)."""
    duplicates: bool
    """Whether some mapping holds a key twice (the last one counts)."""


def parse(text: str, file: str | None = None) -> Document:
    """Read a YAML or JSON text.

    Raises:
        DiagramFormatError: empty, too long, neither YAML nor JSON, nested too deep, cyclic or exploding aliases.
    """
    if len(text) > MAX_BYTES:
        raise format_error(
            f"The text has {len(text):,} characters; a diagram has at most {MAX_BYTES:,}.",
            "Move data into files of its own and read them with a db node.",
            file,
        )
    if "\x00" in text:
        raise format_error("The text is binary (it holds a zero byte).", "Provide YAML or JSON text.", file)
    check_characters(text, file)
    body = text.removeprefix("\ufeff")
    if not body.strip():
        raise format_error("The diagram is empty.", "Write at least 'version: light' and some nodes.", file)
    must_be_json = bool(file) and file.lower().endswith(".json")
    if must_be_json or body.lstrip()[0] == "{":
        try:
            value, duplicates = json_value(body, file)
            return Document(value, SourceMap(text, file, json=True), True, duplicates)
        except json.JSONDecodeError as exc:
            if must_be_json:
                raise format_error(
                    f"This is not valid JSON: {exc.msg[:1].lower()}{exc.msg[1:]}.",
                    "Check quotes, commas and brackets around this place.",
                    file,
                    (exc.lineno, exc.colno),
                ) from None
            # Otherwise it may be YAML in flow style, `{nodes: [...]}`.
    value, duplicates = yaml_value(body, file)
    return Document(value, SourceMap(text, file), False, duplicates)


if not TYPE_CHECKING:  # until 0.2
    __getattr__ = moved_names(
        __name__,
        {
            "DocumentPath": "dipeo_nb.diagram.spans",
            "Reading": "dipeo_nb.diagram.reading:ReadContext",
            "Spot": "dipeo_nb.diagram.spans:SourceSpan",
            "decode": "dipeo_nb.diagram.source_files",
            "read_file": "dipeo_nb.diagram.source_files",
            "size_limit": "dipeo_nb.diagram.source_files",
            "text_of": "dipeo_nb.diagram.source_files",
        },
    )

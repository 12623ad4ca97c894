"""Errors of texts that are not a diagram; their messages begin with the position, `file:line:column: `."""

from __future__ import annotations

from dipeo_nb.errors import DiagramFormatError

MAX_DEPTH = 100
"""Levels of nesting."""


def format_error(message: str, hint: str, file: str | None = None, place: tuple[int, int] | None = None) -> DiagramFormatError:
    """A `DiagramFormatError` whose message starts with the place, `file:line:column: `."""
    line, column = place or (None, None)
    where = ":".join(str(p) for p in (file, line, column) if p is not None)
    return DiagramFormatError(f"{where}: {message}" if where else message, hint=hint, file=file, line=line, column=column)


def too_deep(file: str | None, place: tuple[int, int] | None = None) -> DiagramFormatError:
    """The error for data beyond `MAX_DEPTH`."""
    return format_error(f"The text is nested deeper than {MAX_DEPTH} levels.", "Flatten the data.", file, place)

"""Diagram files as text: size, encoding, and one clear error when a file cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from dipeo_nb.config import get_settings
from dipeo_nb.diagram.format_errors import format_error
from dipeo_nb.errors import DiagramFormatError, DiagramNotFoundError

MAX_BYTES = 10 * 1024 * 1024
"""Largest diagram that is read; the largest real one known is 60 KB."""


def read_file(path: Path) -> str:
    """The text of a diagram file, line ends and byte order mark untouched.

    Raises:
        DiagramNotFoundError: there is no such file.
        DiagramFormatError: a folder, a device, unreadable, larger than 10 MB, binary, or not UTF-8.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise format_error("This is a folder, not a diagram file.", "Name a file inside it.", name)
        if not path.exists():
            raise DiagramNotFoundError(f"There is no file '{name}'.", hint="Check the path.", path=name)
        if not path.is_file():
            raise format_error("This is not a regular file.", "Copy its contents into a file first.", name)
        limit = size_limit()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise format_error(f"The file cannot be read: {reason}.", "Check its name and permissions.", name[:200]) from exc
    if size > limit:
        raise too_large(name, f"{size:,}", limit)
    return text_of(data, name, limit)


def size_limit() -> int:
    """Bytes of a diagram's file at most."""
    return min(MAX_BYTES, get_settings().max_file_size)


def text_of(data: bytes, file: str, limit: int) -> str:
    """The text of a file of which at most one byte more than *limit* was read. Raises DiagramFormatError."""
    if len(data) > limit:
        raise too_large(file, f"more than {limit:,}", limit)
    return decode(data, file)


def too_large(file: str, size: str, limit: int) -> DiagramFormatError:
    """The error for a file of *size* bytes, where *limit* are allowed."""
    return format_error(
        f"The file has {size} bytes; a diagram has at most {limit:,}.",
        "Move data into files of its own and read them with a db node.",
        file,
    )


_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def decode(data: bytes, file: str | None = None) -> str:
    """Bytes as UTF-8 text.

    Raises:
        DiagramFormatError: another encoding (named when it has a byte order mark), or binary data.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise format_error(f"The file is encoded as {encoding}; diagrams are UTF-8.", "Save it as UTF-8.", file)
    if b"\x00" in data:
        raise format_error(
            f"The file is binary (a zero byte at offset {data.index(0):,}).", "Name a YAML or JSON diagram.", file
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = data[: exc.start]
        place = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise format_error(
            f"The file is not UTF-8 (byte 0x{data[exc.start]:02x} at offset {exc.start:,}).",
            "Save it as UTF-8.",
            file,
            place,
        ) from exc

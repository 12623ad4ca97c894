"""Text of files, and MIME types by name."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from dipeo_nb.errors import StorageError


def decoded(data: bytes, path: str | Path) -> str:
    """Decode UTF-8 without its BOM; the error for anything else has the position of the first invalid byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "binary" if b"\0" in data[:1024] else "another encoding"
        raise StorageError(
            f"Cannot read '{path}' as text: byte {error.start} (line {line}) is not UTF-8; it looks like {guess}.",
            hint="Save it as UTF-8.",
            operation="read",
            path=str(path),
            cause="encoding",
        ) from error


def encoded(text: str, path: str | Path) -> bytes:
    """Encode as UTF-8; lone surrogates are an error rather than lost characters."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StorageError(
            f"Cannot write '{path}': character {error.start} is not valid Unicode.",
            hint="Remove it from the text.",
            operation="write",
            path=str(path),
            cause="encoding",
        ) from error


def mime_type(path: Path) -> str | None:
    """Return the MIME type by the ending of the name, or None."""
    return mimetypes.guess_type(path.name)[0]

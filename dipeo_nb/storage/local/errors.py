"""Errors of file systems, on the disk and in memory."""

from __future__ import annotations

from pathlib import Path

from dipeo_nb.errors import StorageError


def already_a_file(operation: str, path: str | Path) -> StorageError:
    """Return the error for a name that is taken."""
    return StorageError(
        f"Cannot {operation} '{path}': there is a file or folder of that name already.", hint="Choose another name.",
        operation=operation, path=str(path), cause="exists",
    )  # fmt: skip


def not_empty(path: str | Path) -> StorageError:
    """Return the error for removing a folder that is not empty."""
    return StorageError(
        f"Cannot rmdir '{path}': it is not empty.", hint="Remove what is in it, or use recursive=True.",
        operation="rmdir", path=str(path), cause="not_empty",
    )  # fmt: skip


def too_large(operation: str, path: str | Path, limit: int) -> StorageError:
    """Return the error for a file over the size limit."""
    return StorageError(
        f"Cannot {operation} '{path}': it is larger than {limit:,} bytes.",
        hint="Raise DIPEO_MAX_FILE_SIZE, or split it.",
        operation=operation,
        path=str(path),
        cause="too_large",
    )

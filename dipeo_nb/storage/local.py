"""Files on the local disk, below one base directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.paths import confine, refused
from dipeo_nb.domain.ports import FileInfo
from dipeo_nb.errors import StorageError

MAX_FILE_SIZE = 50 * 1024 * 1024
"""Bytes read or written at once (50 MB)."""
CAUSES = {
    errno.ENOENT: ("not_found", "There is no such file.", "Check the name, or create it."),
    errno.EISDIR: ("is_directory", "It is a folder.", "Name a file."),
    errno.EACCES: ("permission", "It may not be accessed.", "Change its permissions."),
    errno.EPERM: ("permission", "It may not be accessed.", "Change its permissions."),
    errno.ENOSPC: ("disk_full", "The disk is full.", "Free some space; the old content is untouched."),
    errno.EDQUOT: ("disk_full", "The quota is used up.", "Free some space; the old content is untouched."),
    errno.EFBIG: ("too_large", "The file would be too large.", "Write less; the old content is untouched."),
    errno.EROFS: ("read_only", "The file system is read-only.", "Use another base directory."),
    errno.EEXIST: ("not_a_directory", "A part of the path is a file.", "Choose another path."),
    errno.ENOTDIR: ("not_a_directory", "A part of the path is a file.", "Choose another path."),
}


class LocalFileSystemAdapter:
    """`FileSystemPort` over a folder.

    Args:
        base_path: the folder all names are relative to, and that none may leave.
        max_file_size: bytes that are read or written at most.
    """

    def __init__(self, base_path: str | Path | None = None, *, max_file_size: int = MAX_FILE_SIZE) -> None:
        self._base = Path(base_path if base_path is not None else Path.cwd()).resolve()
        self._limit = max_file_size

    @property
    def base_path(self) -> Path:
        return self._base

    def resolve(self, path: str | Path) -> Path:
        return confine(self._base, path)

    def read_bytes(self, path: str | Path) -> bytes:
        target = self.resolve(path)
        try:
            with target.open("rb") as file:
                # One byte more than allowed shows a file that grew, or never ends, without reading it whole.
                data = file.read(self._limit + 1)
        except OSError as error:
            raise failed("read", path, error) from error
        if len(data) > self._limit:
            raise too_large("read", path, self._limit)
        return data

    def read_text(self, path: str | Path) -> str:
        return decoded(self.read_bytes(path), path)

    def write_bytes(self, path: str | Path, data: bytes) -> int:
        target = self.resolve(path)
        if len(data) > self._limit:
            raise too_large("write", path, self._limit)
        if target == self._base or target.is_dir():
            raise failed("write", path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            return write_atomic(target, data)
        except OSError as error:
            raise failed("write", path, error) from error

    def write_text(self, path: str | Path, text: str) -> int:
        return self.write_bytes(path, encoded(text, path))

    def exists(self, path: str | Path) -> bool:
        return self.resolve(path).exists()

    def stat(self, path: str | Path) -> FileInfo:
        target = self.resolve(path)
        try:
            info = target.stat()
        except OSError as error:
            raise failed("stat", path, error) from error
        return FileInfo(target, info.st_size, info.st_mtime, target.is_dir())

    def glob(self, pattern: str) -> list[Path]:
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts or "\0" in pattern:
            raise refused(pattern, "a pattern must be relative and stay below the base directory")
        found: list[Path] = []
        for match in self._base.glob(pattern):
            relative = match.relative_to(self._base)
            if match.is_file() and match.resolve().is_relative_to(self._base):
                found.append(relative)
        return sorted(found)

    def remove(self, path: str | Path) -> None:
        target = self.resolve(path)
        try:
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            target.unlink()
        except OSError as error:
            raise failed("remove", path, error) from error


def failed(operation: str, path: str | Path, error: OSError) -> StorageError:
    """The system's error as ours: which file, why, what to do."""
    unknown = ("failed", f"{error.strerror or error}.", "Check the file and its folder.")
    cause, message, hint = CAUSES.get(error.errno or 0, unknown)
    return StorageError(
        f"Cannot {operation} '{path}': {message}", hint=hint, operation=operation, path=str(path), cause=cause
    )


def too_large(operation: str, path: str | Path, limit: int) -> StorageError:
    """The error of a file over the size limit."""
    return StorageError(
        f"Cannot {operation} '{path}': it is larger than {limit:,} bytes.",
        hint="Raise DIPEO_MAX_FILE_SIZE, or split it.",
        operation=operation,
        path=str(path),
        cause="too_large",
    )


def decoded(data: bytes, path: str | Path) -> str:
    """UTF-8 text without its BOM; the error of anything else says where it stops being text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        guess = (
            "UTF-16"
            if data[:2] in (b"\xff\xfe", b"\xfe\xff")
            else "binary"
            if b"\0" in data[:1024]
            else "another encoding"
        )
        raise StorageError(
            f"Cannot read '{path}' as text: byte {error.start} (line {line}) is not UTF-8; it looks like {guess}.",
            hint="Save it as UTF-8.",
            operation="read",
            path=str(path),
            cause="encoding",
        ) from error


def encoded(text: str, path: str | Path) -> bytes:
    """UTF-8; lone surrogates are an error, not lost characters."""
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

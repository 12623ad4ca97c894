"""Files, and files as databases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable


class FileInfo(NamedTuple):
    """Metadata of a file."""

    path: Path
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""
    is_dir: bool = False
    created: float | None = None
    """Seconds since the epoch; None if unknown."""
    mime_type: str | None = None
    """By the ending of the name; None for folders and unknown endings."""


@runtime_checkable
class FileSystemPort(Protocol):
    """Files below one base directory. Every path is confined: one outside raises StorageError before anything happens.

    Synchronous, like the files of the standard library; the engine calls it in a worker thread.
    """

    @property
    @abstractmethod
    def base_path(self) -> Path: ...

    @abstractmethod
    def resolve(self, path: str | Path) -> Path:
        """Return the confined absolute path.

        Raises:
            StorageError: absolute elsewhere, `..` or a symbolic link that leads out, NUL, empty, reserved or overlong
                name, not a regular file.
        """
        ...

    @abstractmethod
    def read_bytes(self, path: str | Path) -> bytes:
        """Raises StorageError: missing (`cause='not_found'`), a directory, not readable, above the size limit."""
        ...

    @abstractmethod
    def read_text(self, path: str | Path) -> str:
        """UTF-8 (a BOM is dropped). Raises like `read_bytes`, and when the bytes are not UTF-8."""
        ...

    @abstractmethod
    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        """Write atomically (old or new content, never a mix), creating parent folders. Return the size in bytes.

        Args:
            create_only: only if the name does not exist; of several writers, also in other processes, one succeeds.

        Raises StorageError: disk full, read-only, above the size limit, `exists` (create_only).
        """
        ...

    @abstractmethod
    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        """Like `write_bytes`, as UTF-8."""
        ...

    @abstractmethod
    def exists(self, path: str | Path) -> bool: ...

    @abstractmethod
    def stat(self, path: str | Path) -> FileInfo:
        """Raises StorageError when missing."""
        ...

    @abstractmethod
    def glob(self, pattern: str) -> list[Path]:
        """Return the files matching *pattern* (`*`, `?`, `[…]`, `**`), confined, sorted, relative to the base."""
        ...

    @abstractmethod
    def remove(self, path: str | Path) -> None:
        """Raises StorageError when missing or a directory."""
        ...

    @abstractmethod
    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        """Open a file like Python's `open`: r, w, x, a, with b and +. Written data appears as a whole on close; a
        `with` block that ends with an error changes nothing.

        Raises StorageError: like `read_bytes` and `write_bytes`; `unsupported` for other modes.
        """
        ...

    @abstractmethod
    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        """Raises StorageError: `exists`, `not_found` (without *parents*), `not_a_directory`."""
        ...

    @abstractmethod
    def listdir(self, path: str | Path = ".") -> list[Path]:
        """Return the files and folders in a folder, sorted, relative to the base. Raises StorageError: `not_found`, `not_a_directory`."""
        ...

    @abstractmethod
    def rename(self, source: str | Path, target: str | Path) -> None:
        """Move a file or folder; a file replaces an existing file atomically.

        Raises StorageError: `not_found`, `exists` (the target is a folder, or a file while the source is a folder).
        """
        ...

    @abstractmethod
    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        """Raises StorageError: `not_found`, `not_a_directory`, `not_empty` (without *recursive*)."""
        ...

    @abstractmethod
    def copy(self, source: str | Path, target: str | Path) -> None:
        """Copy a file, replacing an existing one. Raises StorageError like `read_bytes` and `write_bytes`."""
        ...

    @abstractmethod
    def size(self, path: str | Path) -> int:
        """Return the size of a file in bytes. Raises StorageError: `not_found`, `is_directory`."""
        ...


@runtime_checkable
class DBOperationsPort(Protocol):
    """Files as a small database; see `storage.json_db`."""

    @abstractmethod
    async def execute_operation(
        self,
        db_name: str,
        operation: str,
        value: Any = None,
        keys: str | Iterable[str] | None = None,
        lines: Any = None,
        *,
        format: str | None = None,
    ) -> dict[str, Any]:
        """Execute one operation on one file; return `{"value": …, "metadata": {…}}`.

        Raises:
            ValidationError: an unknown operation, a value or keys that do not fit, content that does not match its format.
            StorageError: no such file (`not_found`), a bad path, too large, not readable.
        """
        ...

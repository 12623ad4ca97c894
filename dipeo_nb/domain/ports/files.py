"""Files, and files as databases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable


class FileInfo(NamedTuple):
    """What a file system knows about a file."""

    path: Path
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""
    is_dir: bool = False
    created: float | None = None
    """Seconds since the epoch; None where that is not known."""
    mime_type: str | None = None
    """By the ending of the name; None for folders and endings that say nothing."""


@runtime_checkable
class FileSystemPort(Protocol):
    """Files below one base directory. Every path is confined: outside it is a StorageError before anything happens.

    Synchronous, like the files of the standard library; the engine calls it through a worker thread.
    """

    @property
    @abstractmethod
    def base_path(self) -> Path: ...

    @abstractmethod
    def resolve(self, path: str | Path) -> Path:
        """The confined absolute path.

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
        """UTF-8 (a BOM is dropped). Raises as `read_bytes`, and when the bytes are not UTF-8."""
        ...

    @abstractmethod
    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        """Write atomically (old or new content, never a mix), making parent folders. Returns the size in bytes.

        Args:
            create_only: only where there is nothing of that name; of several writers, also in other processes, one succeeds.

        Raises StorageError: disk full, read-only, above the size limit, `exists` (create_only).
        """
        ...

    @abstractmethod
    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        """As `write_bytes`, UTF-8."""
        ...

    @abstractmethod
    def exists(self, path: str | Path) -> bool: ...

    @abstractmethod
    def stat(self, path: str | Path) -> FileInfo:
        """Raises StorageError when missing."""
        ...

    @abstractmethod
    def glob(self, pattern: str) -> list[Path]:
        """Files matching *pattern* (`*`, `?`, `[…]`, `**`), confined, sorted, relative to the base."""
        ...

    @abstractmethod
    def remove(self, path: str | Path) -> None:
        """Raises StorageError when missing or a directory."""
        ...

    @abstractmethod
    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        """A file as Python's `open` gives it: r, w, x, a, with b and +. What is written appears at the close, as a whole; a
        `with` block that ends in an error changes nothing.

        Raises StorageError: as `read_bytes` and `write_bytes`; `unsupported` for other modes.
        """
        ...

    @abstractmethod
    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        """Raises StorageError: `exists`, `not_found` (without *parents*), `not_a_directory`."""
        ...

    @abstractmethod
    def listdir(self, path: str | Path = ".") -> list[Path]:
        """Files and folders in a folder, sorted, relative to the base. Raises StorageError: `not_found`, `not_a_directory`."""
        ...

    @abstractmethod
    def rename(self, source: str | Path, target: str | Path) -> None:
        """Move a file or folder; a file takes the place of a file that is there, in one step.

        Raises StorageError: `not_found`, `exists` (a folder is there, or a file where a folder is to go).
        """
        ...

    @abstractmethod
    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        """Raises StorageError: `not_found`, `not_a_directory`, `not_empty` (without *recursive*)."""
        ...

    @abstractmethod
    def copy(self, source: str | Path, target: str | Path) -> None:
        """Copy a file, in place of one that is there. Raises StorageError as `read_bytes` and `write_bytes`."""
        ...

    @abstractmethod
    def size(self, path: str | Path) -> int:
        """Bytes of a file. Raises StorageError: `not_found`, `is_directory`."""
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
        """`{"value": …, "metadata": {…}}` of one operation on one file.

        Raises:
            ValidationError: an unknown operation, a value or keys that do not fit, content that is not of its format.
            StorageError: no such file (`not_found`), a bad path, too large, not readable.
        """
        ...

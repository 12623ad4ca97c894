"""Files on the local disk, below one base directory."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.paths import path_parts
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root
from dipeo_nb.config import Settings
from dipeo_nb.domain.ports import FileInfo
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.local.errors import already_a_file, not_empty, too_large
from dipeo_nb.storage.local.text import decoded, encoded, mime_type
from dipeo_nb.storage.opening import open_file
from dipeo_nb.storage.patterns import PathPattern, States

MAX_FILE_SIZE = 50 * 1024 * 1024
"""Default size limit in bytes (50 MB)."""


@logged("read_bytes", "write_bytes", "stat", "glob", "remove")
class LocalFileSystemAdapter:
    """`FileSystemPort` over a folder.

    Args:
        base_path: folder that all names are relative to and must stay in; default: the current one.
        max_file_size: maximum bytes of a file.
        suffixes: allowed endings of names (`.json`), in lower case; None: all.
        protected: protected paths; default: names that are protected everywhere. A `Root` has its own.
    """

    def __init__(
        self,
        base_path: str | Path | Root | None = None,
        *,
        max_file_size: int = MAX_FILE_SIZE,
        suffixes: Collection[str] | None = None,
        protected: ProtectedPlaces | None = None,
    ) -> None:
        if not isinstance(base_path, Root):
            base_path = Root(base_path or Path.cwd(), protected=protected or ProtectedPlaces())
        self._root = base_path
        self._limit = max_file_size
        self._suffixes = suffixes

    @classmethod
    def of(cls, settings: Settings) -> LocalFileSystemAdapter:
        """Return the files of the base directory, without those of the package itself."""
        protected = ProtectedPlaces(settings.own_places, settings.open_places)
        return cls(settings.base_dir, max_file_size=settings.max_file_size, protected=protected)

    def restricted(self, check: Callable[[str, bool], str | None]) -> LocalFileSystemAdapter:
        """Return these files with a further restriction.

        Args:
            check: returns the reason why a file may not be used, or None; called with its path below the base, after links,
                and whether it will be written.
        """
        return type(self)(self._root.restricted(check), max_file_size=self._limit, suffixes=self._suffixes)

    @property
    def base_path(self) -> Path:
        return self._root.path

    def resolve(self, path: str | Path) -> Path:
        with _failing("resolve", path):
            return self._root.locate(self._allowed(path))

    def read_bytes(self, path: str | Path) -> bytes:
        with _failing("read", path):
            data = self._root.read(self._allowed(path), self._limit)
        if len(data) > self._limit:
            raise too_large("read", path, self._limit)
        return data

    def read_text(self, path: str | Path) -> str:
        return decoded(self.read_bytes(path), path)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        with _failing("write", path):
            if len(data) > self._limit:
                self._root.locate(self._allowed(path), writing=True)  # a refused path is reported first
                raise too_large("write", path, self._limit)
            return self._root.write(self._allowed(path), data, create_only=create_only)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, encoded(text, path), create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        with _failing("stat", path):
            return self._root.exists(self._allowed(path))

    def stat(self, path: str | Path) -> FileInfo:
        with _failing("stat", path):
            target, info = self._root.look(self._allowed(path))
        is_dir = stat.S_ISDIR(info.st_mode)
        created = getattr(info, "st_birthtime", None)  # not available on every system
        return FileInfo(target, info.st_size, info.st_mtime, is_dir, created, None if is_dir else mime_type(target))

    def glob(self, pattern: str) -> list[Path]:
        wanted = PathPattern(pattern)
        folder = PurePosixPath(*wanted.folder)
        with _failing("list", pattern):
            self._root.locate(folder)  # a named folder is refused rather than skipped
            return sorted(self._matches(wanted, folder, wanted.first))

    def _matches(self, pattern: PathPattern, folder: PurePosixPath, states: States) -> Iterator[Path]:
        """Yield the matching files below a folder; links to folders are followed by named components, not by `**`."""
        try:
            entries = self._root.listdir(folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        for entry in entries:
            path = folder / entry.name
            is_dir = entry.is_dir or (entry.is_link and self._is_dir(path) is True)
            after = pattern.step(states, entry.name, any_folders=not (entry.is_link and is_dir))
            if is_dir and pattern.goes_on(after):
                yield from self._matches(pattern, path, after)
            elif pattern.is_whole(after) and self._is_dir(path) is False:
                yield Path(path)

    def _is_dir(self, path: PurePosixPath) -> bool | None:
        """Whether a path is a folder; None when it does not exist or may not be used."""
        try:
            return stat.S_ISDIR(self._root.look(path)[1].st_mode)
        except (OSError, StorageError):
            return None

    def remove(self, path: str | Path) -> None:
        with _failing("remove", path):
            self._root.unlink(self._allowed(path))

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        return open_file(self, path, mode, encoding)

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        with _failing("mkdir", path):
            self._root.mkdir(path, parents=parents, exist_ok=exist_ok)

    def listdir(self, path: str | Path = ".") -> list[Path]:
        with _failing("list", path):
            place = self._root.look(path)[0].relative_to(self.base_path)
            entries = self._root.listdir(path)
        return sorted(place / e.name for e in entries if not e.is_link or self._stays_inside(place / e.name))

    def _stays_inside(self, link: Path) -> bool:
        try:
            self._root.locate(link)
        except (OSError, StorageError):
            return False
        return True

    def rename(self, source: str | Path, target: str | Path) -> None:
        with _failing("rename", source, taken=target):
            self._root.rename(self._allowed(source), self._allowed(target))

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        try:
            self._root.rmdir(path, recursive=recursive)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise not_empty(path) from error
            raise failed("rmdir", path, error) from error

    def copy(self, source: str | Path, target: str | Path) -> None:
        self.write_bytes(target, self.read_bytes(source))

    def size(self, path: str | Path) -> int:
        info = self.stat(path)
        if info.is_dir:
            raise failed("size", path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        return info.size

    def _allowed(self, path: str | Path) -> str | Path:
        """Return the path if its ending is allowed."""
        if self._suffixes is not None:
            path_parts(path, self.base_path, suffixes=self._suffixes)
        return path


@contextlib.contextmanager
def _failing(operation: str, path: str | Path, *, taken: str | Path | None = None) -> Iterator[None]:
    """Convert the system's errors to ours.

    Args:
        taken: the path whose name is taken, if it is another one.
    """
    try:
        yield
    except FileExistsError as error:
        raise already_a_file(operation, taken or path) from error
    except OSError as error:
        raise failed(operation, path, error) from error

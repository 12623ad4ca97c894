"""Files in memory, for tests and for runs that leave no files."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.paths import path_parts, plain_parts, refuse_unportable, refused
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.domain.ports import FileInfo
from dipeo_nb.storage.local.errors import already_a_file, not_empty, too_large
from dipeo_nb.storage.local.files import MAX_FILE_SIZE
from dipeo_nb.storage.local.text import decoded, encoded, mime_type
from dipeo_nb.storage.opening import open_file
from dipeo_nb.storage.patterns import PathPattern


@logged("read_bytes", "write_bytes", "stat", "glob", "remove")
class InMemoryFileSystem:
    """`FileSystemPort` over a mapping; the same names are refused as on disk."""

    def __init__(self, files: dict[str, str | bytes] | None = None, *, max_file_size: int = MAX_FILE_SIZE) -> None:
        self._base = Path("/dipeo-memory")  # no such folder exists: only names matter
        self._protected = ProtectedPlaces()
        self._limit = max_file_size
        self._files: dict[Path, tuple[bytes, float]] = {}
        self._folders: set[Path] = set()
        """Folders that were created."""
        self._lock = threading.Lock()
        for name, content in (files or {}).items():
            self.write_bytes(name, content.encode() if isinstance(content, str) else content)

    @property
    def base_path(self) -> Path:
        return self._base

    def resolve(self, path: str | Path) -> Path:
        return self._resolved(path)

    def _resolved(self, path: str | Path, *, writing: bool = False) -> Path:
        """Return the absolute path. Raises StorageError `refused`."""
        parts = path_parts(path, self._base)
        for part in parts:
            if part != "..":
                self._protected.check_name(part, writing, os.fspath(path))
        target = self._base.joinpath(*plain_parts(parts))
        if target not in self._files:
            refuse_unportable(os.fspath(path))
        return target

    def read_bytes(self, path: str | Path) -> bytes:
        target = self.resolve(path)
        if target not in self._files:
            code = errno.EISDIR if self._is_folder(target) else errno.ENOENT
            raise failed("read", path, OSError(code, os.strerror(code)))
        data = self._files[target][0]
        if len(data) > self._limit:
            raise too_large("read", path, self._limit)
        return data

    def read_text(self, path: str | Path) -> str:
        return decoded(self.read_bytes(path), path)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        target = self._resolved(path, writing=True)
        if len(data) > self._limit:
            raise too_large("write", path, self._limit)
        if target == self._base or self._is_folder(target):
            raise failed("write", path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if any(parent in self._files for parent in target.parents):
            raise failed("write", path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        now = time.time()
        with self._lock:
            if create_only and target in self._files:
                raise already_a_file("write", path)
            self._files[target] = (bytes(data), now)
        return len(data)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, encoded(text, path), create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        target = self.resolve(path)
        return target in self._files or self._is_folder(target)

    def stat(self, path: str | Path) -> FileInfo:
        target = self.resolve(path)
        if target in self._files:
            data, modified = self._files[target]
            return FileInfo(target, len(data), modified, mime_type=mime_type(target))
        if self._is_folder(target):
            return FileInfo(target, 0, 0.0, True)
        raise failed("stat", path, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))

    def glob(self, pattern: str) -> list[Path]:
        wanted = PathPattern(pattern)
        for part in wanted.folder:
            self._protected.check_name(part, False, pattern)
        names = (path.relative_to(self._base) for path in self._files)
        return sorted(name for name in names if wanted.matches(PurePosixPath(name)))

    def remove(self, path: str | Path) -> None:
        target = self._resolved(path, writing=True)
        if target not in self._files:
            code = errno.EISDIR if self._is_folder(target) else errno.ENOENT
            raise failed("remove", path, OSError(code, os.strerror(code)))
        del self._files[target]

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        return open_file(self, path, mode, encoding)

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        target = self._resolved(path, writing=True)
        if target in self._files or (self._is_folder(target) and not exist_ok):
            raise already_a_file("mkdir", path)
        if any(parent in self._files for parent in target.parents):
            raise failed("mkdir", path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        if not parents and not self._is_folder(target.parent):
            raise failed("mkdir", path, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
        self._folders.update(p for p in (target, *target.parents) if p.is_relative_to(self._base))

    def listdir(self, path: str | Path = ".") -> list[Path]:
        target = self.resolve(path)
        if not self._is_folder(target):
            code = errno.ENOTDIR if target in self._files else errno.ENOENT
            raise failed("list", path, OSError(code, os.strerror(code)))
        depth = len(target.parts)
        inside = {p.parts[depth] for p in (*self._files, *self._folders) if p != target and p.is_relative_to(target)}
        return sorted((target / name).relative_to(self._base) for name in inside)

    def rename(self, source: str | Path, target: str | Path) -> None:
        begin, end = self._resolved(source, writing=True), self._resolved(target, writing=True)
        if begin not in self._files and not self._is_folder(begin):
            raise failed("rename", source, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
        if self._is_folder(begin) and (begin == self._base or end.is_relative_to(begin)):
            raise refused(str(source), "a folder cannot be moved into itself")
        if self._is_folder(end) or (end in self._files and self._is_folder(begin)):
            raise already_a_file("rename", target)
        if any(parent in self._files for parent in end.parents):
            raise failed("rename", source, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        with self._lock:
            self._files = {_moved(p, begin, end): kept for p, kept in self._files.items() if p != end or p == begin}
            self._folders = {_moved(p, begin, end) for p in self._folders}

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        target = self.resolve(path)
        if target == self._base:
            raise refused(str(path), "it is the base directory itself")
        if self.listdir(path) and not recursive:
            raise not_empty(path)
        with self._lock:
            self._folders.update(p for p in target.parents if p.is_relative_to(self._base))  # parents remain
            self._files = {p: kept for p, kept in self._files.items() if not p.is_relative_to(target)}
            self._folders = {p for p in self._folders if not p.is_relative_to(target)}

    def copy(self, source: str | Path, target: str | Path) -> None:
        self.write_bytes(target, self.read_bytes(source))

    def size(self, path: str | Path) -> int:
        info = self.stat(path)
        if info.is_dir:
            raise failed("size", path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        return info.size

    def _is_folder(self, target: Path) -> bool:
        return target == self._base or (
            any(p == target or target in p.parents for p in (*self._folders, *self._files)) and (target not in self._files)
        )


def _moved(path: Path, begin: Path, end: Path) -> Path:
    return end / path.relative_to(begin) if path.is_relative_to(begin) else path

"""Files in memory, for tests and for runs that leave nothing behind."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import time
from pathlib import Path, PurePosixPath

from dipeo_nb.common.operations import logged
from dipeo_nb.common.paths import confine, refused
from dipeo_nb.domain.ports import FileInfo
from dipeo_nb.storage.local import MAX_FILE_SIZE, decoded, encoded, failed, too_large


@logged("read_bytes", "write_bytes", "stat", "glob", "remove")
class InMemoryFileSystem:
    """`FileSystemPort` over a mapping; the same names are refused as on disk."""

    def __init__(self, files: dict[str, str | bytes] | None = None, *, max_file_size: int = MAX_FILE_SIZE) -> None:
        # A base that exists nowhere: confinement works on the name alone.
        self._base = Path("/dipeo-memory")
        self._limit = max_file_size
        self._files: dict[Path, tuple[bytes, float]] = {}
        for name, content in (files or {}).items():
            self.write_bytes(name, content.encode() if isinstance(content, str) else content)

    @property
    def base_path(self) -> Path:
        return self._base

    def resolve(self, path: str | Path) -> Path:
        return confine(self._base, path)

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

    def write_bytes(self, path: str | Path, data: bytes) -> int:
        target = self.resolve(path)
        if len(data) > self._limit:
            raise too_large("write", path, self._limit)
        if target == self._base or self._is_folder(target):
            raise failed("write", path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if any(parent in self._files for parent in target.parents):
            raise failed("write", path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        self._files[target] = (bytes(data), time.time())
        return len(data)

    def write_text(self, path: str | Path, text: str) -> int:
        return self.write_bytes(path, encoded(text, path))

    def exists(self, path: str | Path) -> bool:
        target = self.resolve(path)
        return target in self._files or self._is_folder(target)

    def stat(self, path: str | Path) -> FileInfo:
        target = self.resolve(path)
        if target in self._files:
            data, modified = self._files[target]
            return FileInfo(target, len(data), modified)
        if self._is_folder(target):
            return FileInfo(target, 0, 0.0, True)
        raise failed("stat", path, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))

    def glob(self, pattern: str) -> list[Path]:
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts or "\0" in pattern:
            raise refused(pattern, "a pattern must be relative and stay below the base directory")
        wanted = _regex(pattern)
        names = (path.relative_to(self._base) for path in self._files)
        return sorted(name for name in names if wanted.fullmatch(name.as_posix()))

    def remove(self, path: str | Path) -> None:
        target = self.resolve(path)
        if target not in self._files:
            code = errno.EISDIR if self._is_folder(target) else errno.ENOENT
            raise failed("remove", path, OSError(code, os.strerror(code)))
        del self._files[target]

    def _is_folder(self, target: Path) -> bool:
        return target == self._base or any(target in path.parents for path in self._files)


def _regex(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a component, `**` crosses components, as pathlib has it."""
    text = ""
    for i, part in enumerate(parts := PurePosixPath(pattern).parts):
        if part == "**":
            text += "(?:[^/]+/)*"
        else:
            piece = fnmatch.translate(part).removesuffix(r"\Z").removesuffix(r"\z")
            text += piece.replace(".*", "[^/]*").replace("(?s:.)", "[^/]")
            text += "/" if i < len(parts) - 1 else ""
    return re.compile(text)

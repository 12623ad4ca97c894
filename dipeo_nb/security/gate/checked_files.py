"""Files of a run, restricted to what was granted."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.ports import FileInfo, FileSystemPort
from dipeo_nb.security.gate.permissions import Permissions
from dipeo_nb.security.gate.refusals import refusal

DIAGRAM_FILES = (".yaml", ".yml", ".json")
_LOG = logger(__name__)


class CheckedFiles:
    """Files that are selected, or refused, for each use."""

    def __init__(self, gate: Permissions, files: FileSystemPort) -> None:
        self._gate = gate
        self._files = files

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        raise NotImplementedError

    @property
    def base_path(self) -> Path:
        return self._files.base_path

    def resolve(self, path: str | Path) -> Path:
        return self._for(path, False).resolve(path)

    def read_bytes(self, path: str | Path) -> bytes:
        return self._for(path, False).read_bytes(path)

    def read_text(self, path: str | Path) -> str:
        return self._for(path, False).read_text(path)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        return self._for(path, True).write_bytes(path, data, create_only=create_only)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self._for(path, True).write_text(path, text, create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        return self._for(path, False).exists(path)

    def stat(self, path: str | Path) -> FileInfo:
        return self._for(path, False).stat(path)

    def glob(self, pattern: str) -> list[Path]:
        return [path for path in self._files.glob(pattern) if self._visible(path)]

    def remove(self, path: str | Path) -> None:
        self._for(path, True).remove(path)

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        return self._for(path, any(c in mode for c in "wax+")).open(path, mode, encoding)

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        self._for(path, True).mkdir(path, parents, exist_ok)

    def listdir(self, path: str | Path = ".") -> list[Path]:
        return [entry for entry in self._files.listdir(path) if self._visible(entry)]

    def rename(self, source: str | Path, target: str | Path) -> None:
        files = self._for(source, True)
        self._for(target, True)
        files.rename(source, target)

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        self._for(path, True).rmdir(path, recursive)

    def copy(self, source: str | Path, target: str | Path) -> None:
        self.write_bytes(target, self.read_bytes(source))

    def size(self, path: str | Path) -> int:
        return self._for(path, False).size(path)

    def _visible(self, path: Path) -> bool:
        return self._gate.may_use(path.as_posix(), False)


class TrustedFiles(CheckedFiles):
    """The granted files of the base directory, by their paths after links."""

    def __init__(self, gate: Permissions, files: FileSystemPort) -> None:
        super().__init__(gate, files)
        restricted = getattr(files, "restricted", None)
        self._inner: FileSystemPort = files if restricted is None else restricted(self._check)

    def _check(self, path: str, writing: bool) -> str | None:
        if not self._gate.may_use(path, writing):
            raise refusal("write" if writing else "read", path)
        if writing:
            self._gate.written.add(path)
        return None

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        if self._inner is self._files:  # a third-party adapter: only names can be checked
            base = str(self._files.base_path)
            text = str(path).removeprefix(f"{base}/")
            self._check(posixpath.normpath(text), writing)
        return self._inner


class GuestFiles(CheckedFiles):
    """A separate folder for written files, the files that came with the diagram, and what else was allowed."""

    def __init__(self, gate: Permissions, files: FileSystemPort) -> None:
        super().__init__(gate, files)
        self._allowed = TrustedFiles(gate, files)
        self._drafts: FileSystemPort | None = None
        self._said = False

    def _own(self) -> FileSystemPort:
        if self._drafts is None:
            if self._gate.drafts is None:
                raise refusal("write", "files")
            self._drafts = self._gate.drafts()
        return self._drafts

    def _write_own(self) -> FileSystemPort:
        """Return the folder to write into, with one warning."""
        drafts = self._own()
        if not self._said:
            self._said = True
            _LOG.warning(
                "This diagram is not trusted, so its files are written into %s; to have them where it names them, "
                "approve it (--trust, trust=True), or trust its folder (dipeo-nb trust FOLDER).",
                drafts.base_path,
            )
        return drafts

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        gate = self._gate
        name = posixpath.normpath(str(path))
        if name in (".", ""):
            return self._files
        if gate.granted.covers("write" if writing else "read", name):
            return self._allowed
        if writing:
            return self._write_own()
        if name not in self._brought and (gate.granted.covers("write", name) or self._own().exists(path)):
            return self._allowed if gate.granted.covers("write", name) else self._own()
        if name in self._brought:
            return self._allowed
        if self._wrote_like(name):
            return self._own()
        raise refusal("read", name)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        files = self._for(path, True)
        if files is self._allowed and str(path).casefold().endswith(DIAGRAM_FILES):
            self._gate.made(data)  # first: a file that is not recorded could be taken for the user's own
        return files.write_bytes(path, data, create_only=create_only)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, text.encode(), create_only=create_only)

    @property
    def _brought(self) -> Mapping[str, bytes]:
        assert self._gate.closure is not None
        return self._gate.closure.files

    def _wrote_like(self, name: str) -> bool:
        """Whether it may write that file, and so may also find it missing."""
        assert self._gate.closure is not None
        return self._gate.closure.uses.covers("write", name)

    def read_bytes(self, path: str | Path) -> bytes:
        name = posixpath.normpath(str(path))
        if name in self._brought and not (self._drafts is not None and self._drafts.exists(path)):
            return self._brought[name]
        return super().read_bytes(path)

    def read_text(self, path: str | Path) -> str:
        name = posixpath.normpath(str(path))
        if name in self._brought:
            return self.read_bytes(path).decode("utf-8-sig")
        return super().read_text(path)

    def glob(self, pattern: str) -> list[Path]:
        return sorted({*super().glob(pattern), *self._own().glob(pattern)})

"""`FileSystemPort.open`: files as returned by Python's `open`, over a file system that reads and writes whole files."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from dipeo_nb.errors import StorageError

MODES = frozenset(f"{kind}{plus}" for kind in "rwxa" for plus in ("", "+"))


class WholeFiles(Protocol):
    """The part of a file system that `open_file` needs."""

    def exists(self, path: str | Path) -> bool: ...

    def read_bytes(self, path: str | Path) -> bytes: ...

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int: ...


def open_file(files: WholeFiles, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
    """Open a file. Written data appears as a whole on close; a block that ends with an error changes nothing.

    Raises:
        StorageError: `unsupported` (invalid mode), and as `read_bytes` and `write_bytes`; `exists` for the mode x.
    """
    kind = "".join(c for c in mode if c not in "bt")
    if kind not in MODES or ("b" in mode and "t" in mode) or len(set(mode)) < len(mode):
        raise StorageError(
            f"'{mode}' is not a file mode.", hint="Use r, w, x or a, optionally with b for bytes and + for reading and writing.",
            operation="open", path=str(path), cause="unsupported",
        )  # fmt: skip
    there = kind[0] == "r" or (kind[0] == "a" and files.exists(path))
    content = files.read_bytes(path) if there else b""
    if kind == "r":
        raw: _Draft | io.BytesIO = io.BytesIO(content)
    else:
        if kind[0] == "x" and files.exists(path):
            raise StorageError(
                f"Cannot open '{path}': there is a file or folder of that name already.", hint="Choose another name.",
                operation="open", path=str(path), cause="exists",
            )  # fmt: skip
        raw = _Draft(files, path, content, kind[0])
    return raw if "b" in mode else _Text(raw, encoding)


class _Draft(io.BytesIO):
    """Bytes that become a file on close."""

    def __init__(self, files: WholeFiles, path: str | Path, content: bytes, kind: str) -> None:
        super().__init__(content)
        self._files, self._path = files, path
        self._at_end, self._create_only = kind == "a", kind == "x"
        self.changed = kind in "wx"
        if self._at_end:
            self.seek(0, io.SEEK_END)

    def write(self, data: Any, /) -> int:
        if self._at_end:
            self.seek(0, io.SEEK_END)
        self.changed = True
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self.changed = True
        return super().truncate(size)

    def close(self) -> None:
        if self.closed:
            return
        data, changed = self.getvalue(), self.changed
        super().close()
        if changed:
            self._files.write_bytes(self._path, data, create_only=self._create_only)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.changed = False
        self.close()

    def __del__(self) -> None:
        self.changed = False  # collected without close
        super().__del__()  # type: ignore[misc]


class _Text(io.TextIOWrapper):
    """Text over a draft."""

    def __init__(self, raw: io.BytesIO, encoding: str) -> None:
        super().__init__(raw, encoding=encoding)
        self._raw = raw

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and isinstance(self._raw, _Draft):
            self.flush()
            self._raw.changed = False
        self.close()

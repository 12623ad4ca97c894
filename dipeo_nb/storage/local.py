"""Files and blobs on the local disk, below one base directory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import mimetypes
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, unquote

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.operations import logged
from dipeo_nb.common.paths import NAME_LIMIT, confine, refuse_unseen, refused
from dipeo_nb.domain.ports import BlobData, BlobVersion, FileInfo
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.blobs import (
    VERSION_DIGITS,
    already_there,
    beyond_limit,
    checked_key,
    checked_metadata,
    not_found,
    pieces,
    version_of,
)
from dipeo_nb.storage.opening import open_file

R = TypeVar("R")

MAX_FILE_SIZE = 50 * 1024 * 1024
"""Bytes read or written at once (50 MB)."""
DRAFT_LIFE_S = 86400.0
"""Seconds after which an unfinished blob is nobody's any more."""


@logged("read_bytes", "write_bytes", "stat", "glob", "remove")
class LocalFileSystemAdapter:
    """`FileSystemPort` over a folder.

    Args:
        base_path: the folder all names are relative to, and that none may leave.
        max_file_size: bytes that are read or written at most.
        suffixes: endings of names that are allowed (`.json`), in lower case; None: all.
        private: folders that are refused even where they are below the base: the user's own records.
    """

    def __init__(
        self,
        base_path: str | Path | None = None,
        *,
        max_file_size: int = MAX_FILE_SIZE,
        suffixes: Collection[str] | None = None,
        private: Iterable[Path] = (),
    ) -> None:
        self._private = tuple(folder.expanduser().resolve() for folder in private)
        self._base = Path(base_path if base_path is not None else Path.cwd()).resolve()
        self._limit = max_file_size
        self._suffixes = suffixes

    @property
    def base_path(self) -> Path:
        return self._base

    def resolve(self, path: str | Path) -> Path:
        target = confine(self._base, path, suffixes=self._suffixes)
        if any(target.is_relative_to(folder) for folder in self._private):
            raise refused(str(path), "it is where keys are kept private", hint="Use another file.")
        return target

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

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        target = self.resolve(path)
        if len(data) > self._limit:
            raise too_large("write", path, self._limit)
        if target == self._base or target.is_dir():
            raise failed("write", path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed("write", path, error) from error
        try:
            return write_atomic(target, data, create_only=create_only)
        except FileExistsError as error:
            raise already_a_file("write", path) from error
        except OSError as error:
            raise failed("write", path, error) from error

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, encoded(text, path), create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        return self.resolve(path).exists()

    def stat(self, path: str | Path) -> FileInfo:
        target = self.resolve(path)
        try:
            info = target.stat()
        except OSError as error:
            raise failed("stat", path, error) from error
        is_dir = stat.S_ISDIR(info.st_mode)
        created = getattr(info, "st_birthtime", None)  # not on every system
        return FileInfo(target, info.st_size, info.st_mtime, is_dir, created, None if is_dir else mime_type(target))

    def glob(self, pattern: str) -> list[Path]:
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise refused(pattern, "a pattern must be relative and stay below the base directory")
        refuse_unseen(pattern)
        found: list[Path] = []
        for match in self._base.glob(pattern):
            relative = match.relative_to(self._base)
            place = match.resolve()
            hidden = any(place.is_relative_to(folder) for folder in self._private)
            if match.is_file() and place.is_relative_to(self._base) and not hidden:
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

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        return open_file(self, path, mode, encoding)

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        target = self.resolve(path)
        try:
            target.mkdir(parents=parents, exist_ok=exist_ok)
        except FileExistsError as error:
            raise already_a_file("mkdir", path) from error
        except OSError as error:
            raise failed("mkdir", path, error) from error

    def listdir(self, path: str | Path = ".") -> list[Path]:
        target = self.resolve(path)
        try:
            found = [entry.relative_to(self._base) for entry in target.iterdir()]
        except OSError as error:
            raise failed("list", path, error) from error
        return sorted(entry for entry in found if self._is_open(entry))

    def rename(self, source: str | Path, target: str | Path) -> None:
        begin, end = self.resolve(source), self.resolve(target)
        try:
            if begin.is_dir() and (begin == self._base or end.is_relative_to(begin)):
                raise refused(str(source), "a folder cannot be moved into itself")
            info = begin.stat()
            if end.exists() and (end.is_dir() or stat.S_ISDIR(info.st_mode)):
                raise already_a_file("rename", target)
            end.parent.mkdir(parents=True, exist_ok=True)
            os.replace(begin, end)
        except OSError as error:
            raise failed("rename", source, error) from error

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        target = self.resolve(path)
        if target == self._base or any(folder.is_relative_to(target) for folder in self._private):
            raise refused(str(path), "it is the base directory, or holds what is kept private")
        try:
            if recursive and target.is_dir():
                shutil.rmtree(target)
            else:
                target.rmdir()
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

    def _is_open(self, name: Path) -> bool:
        """Whether a name may be used."""
        try:
            self.resolve(name)
        except StorageError:
            return False
        return True


@logged("put", "get", "exists", "delete", "versions", "presign_url")
class LocalBlobAdapter:
    """`BlobStorePort` over a folder: one version for each distinct content.

    A key `a/b` has a folder `objects/a/b@` (`@`, `%` and upper-case letters in keys are percent-encoded, so that keys never
    meet). It holds `<version>.data`, `<version>.json` (facts and metadata) and `current`, the name of the current version,
    which is written last: until then nobody sees the new one.

    Args:
        base_path: the folder, made when needed.
        max_size: bytes of one blob at most; None: as the disk has them.
    """

    def __init__(self, base_path: str | Path, *, max_size: int | None = None) -> None:
        self._base = Path(base_path).resolve()
        self._max_size = max_size
        self._swept = False

    async def initialize(self) -> None:
        """Make the folder; drop what writers that were killed left behind a day ago or earlier (the first `put` does that, too)."""

        def made() -> None:
            self._own("objects").mkdir(parents=True, exist_ok=True)
            self._sweep()

        await self._run("initialize", "", made)

    async def cleanup(self) -> None:
        """Nothing is kept open."""

    async def put(
        self, key: str, data: BlobData, metadata: Mapping[str, str] | None = None, *, create_only: bool = False
    ) -> str:
        folder, notes = self._folder(key), checked_metadata(key, metadata)
        draft, file = await self._run("put", key, self._draft)
        digest, size = hashlib.sha256(), 0
        try:
            async for piece in pieces(data):
                size += len(piece)
                if self._max_size is not None and size > self._max_size:
                    raise beyond_limit(key, self._max_size)
                await self._run("put", key, lambda: (digest.update(piece), file.write(piece)))  # noqa: B023 - awaited
            # Closing writes, too: it belongs to what can fail.
            await self._run("put", key, lambda: (file.flush(), os.fsync(file.fileno()), file.close()))
            facts = {
                "key": key,
                "size": size,
                "sha256": digest.hexdigest(),
                "created": time.time(),
                "metadata": notes,
            }
            return await self._run("put", key, lambda: self._commit(folder, draft, facts, create_only=create_only))
        finally:
            with contextlib.suppress(OSError, ValueError):  # after an error only, which is the one that counts
                file.close()
            draft.unlink(missing_ok=True)

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        folder = self._folder(key)

        def opened() -> BinaryIO:
            for _ in range(3):  # a version may be deleted between the two looks
                name = version or _current(folder)
                if name is None or not _is_version(name):
                    break
                with contextlib.suppress(FileNotFoundError):
                    return cast(BinaryIO, open(folder / f"{name}.data", "rb", opener=_no_link))
            raise not_found(key, version)

        return await self._run("get", key, opened)

    async def exists(self, key: str, version: str | None = None) -> bool:
        folder = self._folder(key)

        def there() -> bool:
            name = version or _current(folder)
            return name is not None and _is_version(name) and (folder / f"{name}.json").exists()

        return await self._run("exists", key, there)

    async def delete(self, key: str, version: str | None = None) -> None:
        folder = self._folder(key)

        def gone() -> None:
            if not folder.is_dir():
                return
            with self._locked(folder):
                left = [v for v in _versions(folder, key) if version is not None and v.version != version]
                # First it is out of sight, then its files go.
                if not left:
                    (folder / "current").unlink(missing_ok=True)
                elif _current(folder) == version:
                    write_atomic(folder / "current", left[0].version.encode())
                kept = {v.version for v in left}
                for file in folder.glob("*.*"):
                    if file.suffix in (".data", ".json") and file.stem not in kept:
                        file.unlink(missing_ok=True)
            self._tidy(folder)

        await self._run("delete", key, gone)

    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        keys = await self._run("list", prefix, lambda: self._keys(prefix))
        for key in keys[: max(0, limit)]:
            yield key

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        folder = self._folder(key)
        return await self._run("versions", key, lambda: _versions(folder, key))

    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """A file URL; it does not expire."""
        if operation != "GET":
            raise StorageError(
                f"Files have no URL for {operation}.", hint="Use put() or delete().",
                operation="presign", path=key, cause="unsupported",
            )  # fmt: skip
        folder = self._folder(key)

        def url() -> str:
            name = _current(folder)
            if name is None:
                raise not_found(key)
            return (folder / f"{name}.data").as_uri()

        return await self._run("presign", key, url)

    def _folder(self, key: str) -> Path:
        """The folder of a key. Raises StorageError `refused`: no key, or a link stands in the way."""
        parts = [_name(part) for part in checked_key(key).split("/")]
        place = Path("objects", *parts[:-1], f"{parts[-1]}@")
        folder = self._base / place
        if (len(parts) > MAX_PARTS or len(os.fsencode(folder)) > MAX_PATH) and not _is_there(folder):
            place = Path("objects", DEEP, f"{hashlib.sha256(key.encode()).hexdigest()}@")
        return self._own(place)

    def _own(self, place: str | Path) -> Path:
        """A folder of this store, which no symbolic link leads elsewhere."""
        folder = self._base / place
        if os.path.realpath(folder) != str(folder):
            raise refused(str(place), "a symbolic link of the store's folder leads elsewhere", hint="Remove the link.")
        return folder

    def _sweep(self) -> None:
        """Drop the drafts of writers that are gone."""
        self._swept = True
        for draft in self._own("drafts").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - draft.lstat().st_mtime > DRAFT_LIFE_S:
                    draft.unlink()

    def _draft(self) -> tuple[Path, BinaryIO]:
        drafts = self._own("drafts")
        drafts.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._sweep()
        handle, name = tempfile.mkstemp(dir=drafts)
        return Path(name), os.fdopen(handle, "wb")

    def _commit(self, folder: Path, draft: Path, facts: dict[str, Any], *, create_only: bool) -> str:
        version = version_of(facts["sha256"])
        with self._locked(folder):
            if create_only and _current(folder) is not None:
                raise already_there(facts["key"])
            for last in (False, False, True):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    os.replace(draft, folder / f"{version}.data")
                    break
                except FileNotFoundError:  # a neighbour's delete has just tidied the empty folder away
                    if last:
                        raise
            write_atomic(folder / f"{version}.json", json.dumps(facts, ensure_ascii=False, indent=1).encode())
            write_atomic(folder / "current", version.encode())
        return version

    def _locked(self, folder: Path) -> FileLock:
        name = hashlib.sha256(str(folder.relative_to(self._base)).encode()).hexdigest()[:4]
        return FileLock(self._own(Path("locks", f"{name}.lock")))

    def _tidy(self, folder: Path) -> None:
        """Remove folders that are empty now, up to the root."""
        root = self._base / "objects"
        with contextlib.suppress(OSError):  # not empty, or somebody else's by now
            while folder != root:
                folder.rmdir()
                folder = folder.parent

    def _keys(self, prefix: str) -> list[str]:
        root = self._own("objects")
        # Only the folder that the prefix leads into is walked, and the one of keys that are too long for folders.
        parent = prefix.rpartition("/")[0]
        if any(part in ("", ".", "..") for part in parent.split("/")) and parent:
            return []
        places = [root]
        if parent:
            places = [self._own(Path("objects", *(_name(part) for part in parent.split("/")))), root / DEEP]
        found: set[str] = set()
        for place in places:
            for folder, _, files in os.walk(place):
                if "current" in files and folder.endswith("@"):
                    key = self._key(Path(folder), root)
                    if key is not None and key.startswith(prefix):
                        found.add(key)
        return sorted(found)

    def _key(self, folder: Path, root: Path) -> str | None:
        """The key of a folder; None when it has just been deleted."""
        name = str(folder.relative_to(root))[:-1]
        if HASHED not in name:
            return unquote(name.replace(os.sep, "/"))
        current = _current(folder)
        facts = None if current is None else _facts(folder / f"{current}.json")
        return None if facts is None else facts["key"]

    async def _run(self, operation: str, key: str, work: Callable[[], R]) -> R:
        """*work* in a worker thread; the system's errors as ours."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise failed(operation, key or self._base, error) from error


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_. ")


def _quoted(part: str) -> str:
    """A part of a key as a file name that is another one for another key, on every file system: capitals are encoded, too."""
    return "".join(c if c in _PLAIN else f"%{ord(c):02X}" if c.isascii() else quote(c, safe="") for c in part)


HASHED = "~"
"""Marks names that are not the key itself; in keys it is encoded."""
DEEP = HASHED
"""The folder of keys that are too long for folders, by their hashes."""
MAX_PARTS = 100
"""Parts of a key that become folders within each other."""
MAX_PATH = 3_900
"""Bytes of a folder's path, so that there is room for the names of its files."""


def _name(part: str) -> str:
    """A part of a key as the name of a folder; a long one is its beginning and its hash."""
    name = _quoted(part)
    if len(name) <= NAME_LIMIT - 1:
        return name
    return f"{name[:120].rpartition('%')[0] or name[:120]}{HASHED}{hashlib.sha256(part.encode()).hexdigest()}"


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # longer than paths can be
        return False


def _no_link(path: str, flags: int) -> int:
    """Opens a file, and nothing that a symbolic link names instead."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _facts(file: Path) -> dict[str, Any] | None:
    """What is kept about a version; None when it has just been deleted.

    Raises:
        StorageError: `corrupt`.
    """
    try:
        with open(file, "rb", opener=_no_link) as opened:
            facts = json.loads(opened.read())
        return {name: facts[name] for name in ("key", "size", "sha256", "created", "metadata")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"The record {file} of a blob is damaged.", hint="Put the blob again, or delete that file.",
            operation="read", path=str(file), cause="corrupt",
        ) from error  # fmt: skip


def _is_version(name: str) -> bool:
    return len(name) == VERSION_DIGITS and all(c in "0123456789abcdef" for c in name)


def _current(folder: Path) -> str | None:
    try:
        with open(folder / "current", "rb", opener=_no_link) as file:
            return file.read(VERSION_DIGITS + 1).decode("ascii", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _versions(folder: Path, key: str) -> list[BlobVersion]:
    current = _current(folder)
    if current is None:
        return []
    found: list[BlobVersion] = []
    for file in folder.glob("*.json"):
        facts = _facts(file)
        if facts is None:
            continue
        version = file.stem
        found.append(
            BlobVersion(
                key, version, facts["size"], facts["created"], version == current, facts["metadata"], facts["sha256"]
            )
        )
    return sorted(found, key=lambda v: (v.current, v.created), reverse=True)


def already_a_file(operation: str, path: str | Path) -> StorageError:
    """The error of a name that is taken."""
    return StorageError(
        f"Cannot {operation} '{path}': there is a file or folder of that name already.", hint="Choose another name.",
        operation=operation, path=str(path), cause="exists",
    )  # fmt: skip


def not_empty(path: str | Path) -> StorageError:
    """The error of a folder that is to be removed and holds something."""
    return StorageError(
        f"Cannot rmdir '{path}': it is not empty.", hint="Remove what is in it, or use recursive=True.",
        operation="rmdir", path=str(path), cause="not_empty",
    )  # fmt: skip


def mime_type(path: Path) -> str | None:
    """What the ending of a name says."""
    return mimetypes.guess_type(path.name)[0]


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

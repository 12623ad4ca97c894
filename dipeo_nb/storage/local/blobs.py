"""Blobs on the local disk, below one base directory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.paths import NAME_LIMIT
from dipeo_nb.common.root import Root
from dipeo_nb.domain.ports import BlobData, BlobVersion
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

R = TypeVar("R")
DRAFT_LIFE_S = 86400.0
"""Seconds after which an unfinished blob counts as abandoned."""
HASHED = "~"
"""Marks names that are not the key itself; encoded in keys."""
DEEP = HASHED
"""Folder for keys that are too long for folders, by hash."""
MAX_PARTS = 100
"""Maximum parts of a key that become nested folders."""
MAX_PATH = 3_900
"""Maximum bytes of a folder's path, which leaves room for the names of its files."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_. ")


@logged("put", "get", "exists", "delete", "versions", "presign_url")
class LocalBlobAdapter:
    """`BlobStorePort` over a folder: one version for each distinct content.

    A key `a/b` has a folder `objects/a/b@` (`@`, `%` and upper-case letters in keys are percent-encoded, so that keys never
    collide). It contains `<version>.data`, `<version>.json` (facts and metadata) and `current`, the name of the current version,
    which is written last: until then the new version is invisible.

    Args:
        base_path: the folder, created when needed.
        max_size: maximum bytes of one blob; None: unlimited.
    """

    def __init__(self, base_path: str | Path | Root, *, max_size: int | None = None) -> None:
        self._root = base_path if isinstance(base_path, Root) else Root(base_path, links=False, private=True)
        self._max_size = max_size
        self._swept = False

    async def initialize(self) -> None:
        """Create the folder; remove drafts of killed writers that are older than a day (the first `put` does that, too)."""

        def made() -> None:
            self._root.mkdir("objects")
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
            # Closing writes, too, and can fail.
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
            with contextlib.suppress(OSError, ValueError):  # only after an earlier error, which is the one to report
                file.close()
            with contextlib.suppress(OSError, StorageError):  # it has been renamed, or the first error counts
                self._root.unlink(draft)

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        folder = self._folder(key)

        def opened() -> BinaryIO:
            for _ in range(3):  # a version may be deleted between the two reads
                name = self._current(folder) if version is None else version
                if name is None or not _is_version(name):
                    break
                with contextlib.suppress(FileNotFoundError):
                    return self._root.open(folder / f"{name}.data")
            raise not_found(key, version)

        return await self._run("get", key, opened)

    async def exists(self, key: str, version: str | None = None) -> bool:
        folder = self._folder(key)

        def there() -> bool:
            name = self._current(folder) if version is None else version
            return name is not None and _is_version(name) and self._root.exists(folder / f"{name}.json")

        return await self._run("exists", key, there)

    async def delete(self, key: str, version: str | None = None) -> None:
        folder = self._folder(key)

        def gone() -> None:
            if not self._root.exists(folder):
                return
            with self._locked(folder):
                left = [v for v in self._versions(folder, key) if version is not None and v.version != version]
                # Hide it first, then remove its files.
                if not left:
                    self._drop(folder / "current")
                elif self._current(folder) == version:
                    self._root.write(folder / "current", left[0].version.encode())
                kept = {v.version for v in left}
                for name in self._names(folder):
                    if name.suffix in (".data", ".json") and name.stem not in kept:
                        self._drop(name)
            self._tidy(folder)

        await self._run("delete", key, gone)

    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        keys = await self._run("list", prefix, lambda: self._keys(prefix))
        for key in keys[: max(0, limit)]:
            yield key

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        folder = self._folder(key)

        def listed() -> list[BlobVersion]:
            if self._current(folder) is None:
                return []
            try:
                with self._locked(folder):  # a version has its record a moment before it is the current one
                    return self._versions(folder, key)
            except (OSError, StorageError):  # where locking fails, nothing can be written either
                return self._versions(folder, key)

        return await self._run("versions", key, listed)

    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """A file URL; it does not expire."""
        if operation != "GET":
            raise StorageError(
                f"Files have no URL for {operation}.", hint="Use put() or delete().",
                operation="presign", path=key, cause="unsupported",
            )  # fmt: skip
        folder = self._folder(key)

        def url() -> str:
            name = self._current(folder)
            if name is None:
                raise not_found(key)
            return self._root.locate(folder / f"{name}.data").as_uri()

        return await self._run("presign", key, url)

    def _folder(self, key: str) -> PurePosixPath:
        """Return the folder of a key. Raises StorageError `refused`."""
        parts = [_name(part) for part in checked_key(key).split("/")]
        folder = PurePosixPath("objects", *parts[:-1], f"{parts[-1]}@")
        is_long = len(parts) > MAX_PARTS or len(os.fsencode(self._root.path / folder)) > MAX_PATH
        if is_long and not self._has(folder):
            return PurePosixPath("objects", DEEP, f"{hashlib.sha256(key.encode()).hexdigest()}@")
        return folder

    def _has(self, folder: PurePosixPath) -> bool:
        try:
            return self._root.exists(folder)
        except StorageError:  # longer than paths can be
            return False

    def _names(self, folder: PurePosixPath) -> list[PurePosixPath]:
        """Return the entries of a folder; none when it does not exist."""
        try:
            return [folder / entry.name for entry in self._root.listdir(folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _drop(self, path: PurePosixPath) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._root.unlink(path)

    def _sweep(self) -> None:
        """Remove abandoned drafts."""
        self._swept = True
        for draft in self._names(PurePosixPath("drafts")):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - self._root.look(draft)[1].st_mtime > DRAFT_LIFE_S:
                    self._root.unlink(draft)

    def _draft(self) -> tuple[PurePosixPath, BinaryIO]:
        if not self._swept:
            self._sweep()
        draft = PurePosixPath("drafts", secrets.token_hex(16))
        return draft, self._root.create(draft)

    def _commit(self, folder: PurePosixPath, draft: PurePosixPath, facts: dict[str, Any], *, create_only: bool) -> str:
        version = version_of(facts["sha256"])
        with self._locked(folder):
            if create_only and self._current(folder) is not None:
                raise already_there(facts["key"])
            for last in (False, False, True):
                try:
                    self._root.rename(draft, folder / f"{version}.data")
                    break
                except FileNotFoundError:  # a concurrent delete has just removed the empty folder
                    if last:
                        raise
            self._root.write(folder / f"{version}.json", json.dumps(facts, ensure_ascii=False, indent=1).encode())
            self._root.write(folder / "current", version.encode())
        return version

    def _locked(self, folder: PurePosixPath) -> FileLock:
        self._root.mkdir("locks")
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:4]
        return FileLock(self._root.path / "locks" / f"{name}.lock", private=True, subject=self._root.path / folder)

    def _tidy(self, folder: PurePosixPath) -> None:
        """Remove folders that have become empty, up to the root."""
        with contextlib.suppress(OSError):  # not empty, or in use again
            while len(folder.parts) > 1:
                self._root.rmdir(folder)
                folder = folder.parent

    def _keys(self, prefix: str) -> list[str]:
        # Walk only the folder of the prefix, and the folder of keys that are too long.
        root = PurePosixPath("objects")
        parent = prefix.rpartition("/")[0]
        if any(part in ("", ".", "..") for part in parent.split("/")) and parent:
            return []
        places = [root.joinpath(*(_name(part) for part in parent.split("/"))), root / DEEP] if parent else [root]
        found = {key for place in places for key in self._keys_below(place)}
        return sorted(key for key in found if key.startswith(prefix))

    def _keys_below(self, place: PurePosixPath) -> Iterator[str]:
        todo = [place]
        while todo:
            folder = todo.pop()
            try:
                entries = self._root.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            todo += [folder / entry.name for entry in entries if entry.is_dir]
            if folder.name.endswith("@") and any(entry.name == "current" for entry in entries):
                key = self._key(folder)
                if key is not None:
                    yield key

    def _key(self, folder: PurePosixPath) -> str | None:
        """Return the key of a folder; None when it has just been deleted."""
        name = folder.relative_to("objects").as_posix()[:-1]
        if HASHED not in name:
            return unquote(name)
        current = self._current(folder)
        facts = None if current is None else self._facts(folder / f"{current}.json")
        return None if facts is None else facts["key"]

    def _current(self, folder: PurePosixPath) -> str | None:
        try:
            return self._root.read(folder / "current", VERSION_DIGITS).decode("ascii", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _facts(self, file: PurePosixPath) -> dict[str, Any] | None:
        """Return the record of a version; None when it has just been deleted.

        Raises:
            StorageError: `corrupt`.
        """
        try:
            facts = json.loads(self._root.read(file))
            return {name: facts[name] for name in ("key", "size", "sha256", "created", "metadata")}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            place = self._root.path / file
            raise StorageError(
                f"The record {place} of a blob is damaged.", hint="Put the blob again, or delete that file.",
                operation="read", path=str(place), cause="corrupt",
            ) from error  # fmt: skip

    def _versions(self, folder: PurePosixPath, key: str) -> list[BlobVersion]:
        current = self._current(folder)
        if current is None:
            return []
        found: list[BlobVersion] = []
        for file in self._names(folder):
            facts = self._facts(file) if file.suffix == ".json" else None
            if facts is None:
                continue
            is_current = file.stem == current
            size, created, notes, checksum = facts["size"], facts["created"], facts["metadata"], facts["sha256"]
            found.append(BlobVersion(key, file.stem, size, created, is_current, notes, checksum))
        return sorted(found, key=lambda v: (v.current, v.created), reverse=True)

    async def _run(self, operation: str, key: str, work: Callable[[], R]) -> R:
        """Run *work* in a worker thread; convert the system's errors to ours."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise failed(operation, key or self._root.path, error) from error


def _quoted(part: str) -> str:
    """Encode a part of a key as a file name that is unique on every file system: capitals are encoded, too."""
    return "".join(c if c in _PLAIN else f"%{ord(c):02X}" if c.isascii() else quote(c, safe="") for c in part)


def _name(part: str) -> str:
    """Return the folder name of a part of a key; a long one becomes its beginning and its hash."""
    name = _quoted(part)
    if len(name) <= NAME_LIMIT - 1:
        return name
    return f"{name[:120].rpartition('%')[0] or name[:120]}{HASHED}{hashlib.sha256(part.encode()).hexdigest()}"


def _is_version(name: str) -> bool:
    return len(name) == VERSION_DIGITS and all(c in "0123456789abcdef" for c in name)

"""Artifacts (models, data sets, reports) in versions, with stages and tags, over any blob store.

| blob | holds |
|---|---|
| `artifacts/data/<name>/@/<random>` | the content of one push |
| `artifacts/versions/<name>/@/<version>` | the record (JSON) that points to that content; writing it makes a push visible |
| `artifacts/stages/<name>/@/<stage>` | the version of the stage |
| `artifacts/tags/<tag>/@/<name>/@/<version>` | the tag, by its existence; contains the push that made it |

Each fact is a separate blob, written as a whole: there is no list that two processes could read, change and write back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import inspect
import json
import shutil
import sys
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.root import Root
from dipeo_nb.domain.ports import Artifact, ArtifactRef, BlobData, BlobStorePort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.blobs import CHUNK, bad_key, checked_key

STAGES = ("dev", "staging", "prod", "latest")
"""Stages that versions can be promoted to."""
_CONCURRENT = 16
"""Records read concurrently."""


@logged("push", "pull", "list_versions", "promote", "tag", "find_by_tag", "get_latest")
class ArtifactStoreAdapter:
    """`ArtifactStorePort` over a blob store.

    Args:
        blobs: the underlying store. It is opened and closed with this store.
    """

    def __init__(self, blobs: BlobStorePort) -> None:
        self._blobs = blobs
        self._temporary: weakref.finalize[Any, Any] | None = None
        self._folder = Path()
        self._making = threading.Lock()

    @property
    def blobs(self) -> BlobStorePort:
        """The underlying blob store."""
        return self._blobs

    async def initialize(self) -> None:
        """Open the blob store."""
        await self._blobs.initialize()

    async def cleanup(self) -> None:
        """Remove the temporary files of `pull` and close the blob store."""
        removal, self._temporary = self._temporary, None
        try:
            if removal is not None:
                await asyncio.to_thread(removal)
        finally:
            await self._blobs.cleanup()

    async def push(self, artifact: Artifact, *, create_only: bool = False) -> ArtifactRef:
        name, version = _checked(artifact.name), _checked(artifact.version)
        tags = _checked_tags(artifact.tags)
        metadata = _plain(artifact)
        key = _version_key(name, version)
        before = await self._record(name, version)
        if before is not None and create_only:
            raise _is_there(name, version)
        data = f"artifacts/data/{name}/@/{uuid.uuid4().hex}"
        marks: dict[str, str] = {}
        try:
            checksum, size = await self._put_data(data, artifact.data)
            record = {
                "name": name, "version": version, "data": data, "size": size, "sha256": checksum,
                "created": time.time(), "metadata": metadata, "tags": tags,
            }  # fmt: skip
            await self._mark(name, version, tags, data, marks)
            await self._put_record(key, record, create_only=before is None)
        except BaseException as error:
            with contextlib.suppress(StorageError):  # the first error is the one to report
                await self._blobs.delete(data)
            if isinstance(error, StorageError) and error.facts.get("cause") == "exists":
                await self._unmark(name, version, marks)
                raise _is_there(name, version) from error
            raise
        if before is not None:
            await self._remove_replaced(key, before, record)
        return _ref(record)

    async def pull(self, ref: ArtifactRef, folder: Path | None = None) -> Path:
        name, version = _checked(ref.name), _checked(ref.version)
        record, source = await self._content(name, version)

        def write() -> Path:
            with source:
                try:
                    if folder is None:
                        root, path = Root(tempfile.mkdtemp(dir=self._own_folder()), private=True), name.rpartition("/")[2]
                    else:
                        root, path = Root(folder), name
                    _copy(source, root, path, record)
                except OSError as error:
                    raise failed("pull", folder or tempfile.gettempdir(), error) from error
            return root.locate(path)

        return await asyncio.to_thread(write)

    @contextlib.asynccontextmanager
    async def pulled(self, ref: ArtifactRef) -> AsyncIterator[Path]:
        """`pull` to a temporary file that is removed after the block."""
        path = await self.pull(ref)
        try:
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, path.parent, ignore_errors=True)

    async def list_versions(self, name: str) -> Sequence[ArtifactRef]:
        prefix = _version_key(_checked(name), "")
        found = [key.removeprefix(prefix) async for key in self._blobs.list(prefix, sys.maxsize)]
        return _newest_first(await self._refs((name, version) for version in found))

    async def promote(self, ref: ArtifactRef, stage: str) -> None:
        if stage not in STAGES:
            raise ValidationError(f"There is no stage '{stage}'.", hint=f"Stages are {', '.join(STAGES)}.")
        name, version = await self._known(ref)
        fact = {"version": version, "at": time.time()}
        await self._blobs.put(_stage_key(name, stage), json.dumps(fact, ensure_ascii=False).encode())

    async def tag(self, ref: ArtifactRef, tags: Iterable[str]) -> None:
        checked = _checked_tags(tags)
        name, version = await self._known(ref)
        for tag in checked:
            await self._blobs.put(_tag_key(tag, name, version), b"")

    async def find_by_tag(self, tag: str) -> Sequence[ArtifactRef]:
        prefix = _tag_key(_checked(tag), "", "").removesuffix("/@/")
        places = [key.removeprefix(prefix).partition("/@/") async for key in self._blobs.list(prefix, sys.maxsize)]
        refs = await self._refs((name, version) for name, _, version in places)
        return sorted(_newest_first(refs), key=lambda ref: ref.name)

    async def get_latest(self, name: str, stage: str | None = None) -> ArtifactRef | None:
        if stage is not None and stage not in STAGES:
            return None
        _checked(name)
        fact = await self._json(_stage_key(name, stage or "latest"))
        record = None if fact is None else await self._record(name, fact["version"])
        promoted = None if record is None else _ref(record)
        if stage not in (None, "latest"):
            return promoted
        newest = next(iter(await self.list_versions(name)), None)
        if newest is None or promoted is None or fact is None or newest.created > fact["at"]:
            return newest
        return promoted

    # Blobs.

    async def _put_data(self, key: str, data: BlobData) -> tuple[str, int]:
        """Store *data*; returns its SHA-256 and size, computed while the bytes pass through."""
        if isinstance(data, (bytes, bytearray, memoryview)):
            content = bytes(data)
            await self._blobs.put(key, content)
            return await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest()), len(content)
        seen = _Seen()
        if isinstance(data, AsyncIterable):
            await self._blobs.put(key, seen.passing(data))
        else:
            await self._blobs.put(key, cast(BinaryIO, _SeenFile(data, seen)))
        return seen.digest.hexdigest(), seen.size

    async def _mark(self, name: str, version: str, tags: Iterable[str], pushed: str, marks: dict[str, str]) -> None:
        """Add tags of a push; *marks* gets the blobs that were put, with their versions, which are this push's own."""
        for tag in tags:
            key = _tag_key(tag, name, version)
            if not await self._blobs.exists(key):
                marks[key] = await self._blobs.put(key, pushed.encode())

    async def _unmark(self, name: str, version: str, marks: dict[str, str]) -> None:
        """Take the tags of a push back that another one was faster than, but for those that the other has, too."""
        record = await self._record(name, version)
        kept = {_tag_key(tag, name, version) for tag in (record or {}).get("tags", ())}
        for key in marks.keys() - kept:
            await self._blobs.delete(key, marks[key])

    async def _put_record(self, key: str, record: dict[str, Any], *, create_only: bool) -> None:
        """Make a push visible. Raises StorageError `exists`: create_only, and another push was faster."""
        text = json.dumps(record, ensure_ascii=False).encode()
        if create_only and self._creates:
            await self._blobs.put(key, text, create_only=True)
        else:
            await self._blobs.put(key, text)

    @functools.cached_property
    def _creates(self) -> bool:
        """Whether the blob store knows `create_only`, which stores of earlier versions of the port do not."""
        return "create_only" in inspect.signature(self._blobs.put).parameters

    async def _remove_replaced(self, key: str, before: dict[str, Any], record: dict[str, Any]) -> None:
        """Drop what the current record of a version has replaced, that of pushes that were made meanwhile, too.

        A blob's version that is listed and not current was current before, so its content is no longer used. In a store
        without versions, each push removes its own content if it has been replaced by then.
        """
        with contextlib.suppress(StorageError):  # the push succeeded; leftovers only take up space
            await self._blobs.delete(before["data"])
            current = await self._json(key)
            if current is not None and current["data"] != record["data"]:
                await self._blobs.delete(record["data"])
            for old in await self._blobs.versions(key):
                if not old.current:
                    replaced = await self._json(key, old.version)
                    if replaced is not None:
                        await self._blobs.delete(replaced["data"])
                    await self._blobs.delete(key, old.version)

    async def _content(self, name: str, version: str) -> tuple[dict[str, Any], BinaryIO]:
        """The record of a version and its open content."""
        missing: set[str] = set()
        while True:
            record = await self._record(name, version)
            if record is None:
                raise _no_version(name, version)
            try:
                return record, await self._blobs.get(record["data"])
            except StorageError as error:
                # Replaced by another push between the two reads; the same content missing twice is lost.
                if error.facts.get("cause") != "not_found" or record["data"] in missing:
                    raise
                missing.add(record["data"])

    async def _known(self, ref: ArtifactRef) -> tuple[str, str]:
        name, version = _checked(ref.name), _checked(ref.version)
        if not await self._blobs.exists(_version_key(name, version)):
            raise _no_version(name, version)
        return name, version

    async def _refs(self, places: Iterable[tuple[str, str]]) -> list[ArtifactRef]:
        records = await gather_limited(lambda place: self._record(*place), places, _CONCURRENT)
        return [_ref(record) for record in records if record is not None]

    async def _record(self, name: str, version: str) -> dict[str, Any] | None:
        return await self._json(_version_key(name, version))

    async def _json(self, key: str, version: str | None = None) -> dict[str, Any] | None:
        try:
            file = await (self._blobs.get(key) if version is None else self._blobs.get(key, version))
        except StorageError as error:
            if error.facts.get("cause") == "not_found":
                return None
            raise
        with file:
            text = await asyncio.to_thread(file.read)
        try:
            return json.loads(text)
        except ValueError as error:
            raise StorageError(
                f"The record '{key}' of the artifact store is damaged.", hint="Push the version again.",
                operation="read", path=key, cause="corrupt",
            ) from error  # fmt: skip

    def _own_folder(self) -> Path:
        with self._making:
            if self._temporary is None:
                self._folder = Path(tempfile.mkdtemp(prefix="dipeo-artifacts-"))
                # Without a call of cleanup, this happens when the store is collected or the interpreter exits.
                self._temporary = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            return self._folder


class _Seen:
    """Digest and size of data as it passes through."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.size += len(piece)

    async def passing(self, source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in source:
            if len(piece) > CHUNK:
                await asyncio.to_thread(self.add, piece)
            else:
                self.add(piece)
            yield piece


class _SeenFile:
    """A file whose digest and size are computed while it is read."""

    def __init__(self, file: BinaryIO, seen: _Seen) -> None:
        if not hasattr(file, "read"):
            raise TypeError(f"an artifact is bytes, a binary file or an async iterator, not {type(file).__name__}")
        self._file = file
        self._seen = seen

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        if not isinstance(piece, bytes):
            raise TypeError("an artifact is read from a file opened in binary mode ('rb')")
        self._seen.add(piece)
        return piece


def _copy(source: BinaryIO, root: Root, path: str, record: dict[str, Any]) -> None:
    """Copy to a file, which appears only if the content matches the record."""
    digest = hashlib.sha256()
    with root.replacing(path) as target:
        while piece := source.read(CHUNK):
            digest.update(piece)
            target.write(piece)
        if digest.hexdigest() != record["sha256"]:
            raise StorageError(
                f"Artifact '{record['name']}', version {record['version']}, is damaged: its checksum is not that of what was pushed.",
                hint="Push the version again.", operation="pull", path=record["data"], cause="corrupt",
            )  # fmt: skip


def _version_key(name: str, version: str) -> str:
    return f"artifacts/versions/{name}/@/{version}"


def _stage_key(name: str, stage: str) -> str:
    return f"artifacts/stages/{name}/@/{stage}"


def _tag_key(tag: str, name: str, version: str) -> str:
    return f"artifacts/tags/{tag}/@/{name}/@/{version}"


def _checked(text: str) -> str:
    """A name, version or tag: a relative path; `@` separates them from each other."""
    checked_key(text)
    if any(part.startswith("@") for part in text.split("/")):
        raise bad_key(text, "a part begins with '@'")
    return text


def _checked_tags(tags: Iterable[str]) -> list[str]:
    if isinstance(tags, str):  # each character would be a tag
        raise ValidationError(f"Tags are a list, not the text '{tags[:120]}'.", hint=f"Write [{tags[:120]!r}].")
    return [_checked(tag) for tag in tags]


def _plain(artifact: Artifact) -> Any:
    try:
        return json.loads(json.dumps(dict(artifact.metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"The metadata of artifact '{artifact.name}' cannot be stored: {error}.", hint="Use JSON values only.",
            operation="push", path=artifact.name, cause="not_json",
        ) from error  # fmt: skip


def _ref(record: dict[str, Any]) -> ArtifactRef:
    name, version = record["name"], record["version"]
    facts = record["size"], record["created"], record["metadata"], record["sha256"]
    return ArtifactRef(name, version, f"artifact:{_in_uri(name)}@{_in_uri(version)}", *facts)


def _in_uri(text: str) -> str:
    """*text* with the separator and the escape character escaped, so that no two artifacts have the same URI."""
    return text.replace("%", "%25").replace("@", "%40")


def _newest_first(refs: list[ArtifactRef]) -> list[ArtifactRef]:
    return sorted(refs, key=lambda ref: (ref.created, ref.version), reverse=True)


def _is_there(name: str, version: str) -> StorageError:
    return StorageError(
        f"There is an artifact '{name}' in version '{version}' already: another push of it came first.",
        hint="Give this one another version; or push again, to replace it.", operation="push", path=name, cause="exists",
    )  # fmt: skip


def _no_version(name: str, version: str) -> StorageError:
    return StorageError(
        f"There is no artifact '{name}' in version '{version}'.", hint="See list_versions().",
        operation="get", path=name, cause="not_found",
    )  # fmt: skip

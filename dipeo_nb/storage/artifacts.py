"""Artifacts (models, data sets, reports) in versions, with stages and tags, over any blob store.

| blob | holds |
|---|---|
| `artifacts/data/<name>/@/<random>` | the content of one push |
| `artifacts/versions/<name>/@/<version>` | the record (JSON) that names that content; writing it is what makes a push seen |
| `artifacts/stages/<name>/@/<stage>` | which version the stage is at |
| `artifacts/tags/<tag>/@/<name>/@/<version>` | nothing: that it is there is the tag |

Each fact is a blob of its own, written whole: there is no list that two processes could read, change and write back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.operations import logged
from dipeo_nb.common.root import Root
from dipeo_nb.domain.ports import Artifact, ArtifactRef, BlobData, BlobStorePort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.blobs import CHUNK, bad_key, checked_key

STAGES = ("dev", "staging", "prod", "latest")
"""What versions can be promoted to."""
_CONCURRENT = 16
"""Records read at once."""


@logged("push", "pull", "list_versions", "promote", "tag", "find_by_tag", "get_latest")
class ArtifactStoreAdapter:
    """`ArtifactStorePort` over a blob store.

    Args:
        blobs: where everything is kept. It is opened and closed with this store.
    """

    def __init__(self, blobs: BlobStorePort) -> None:
        self._blobs = blobs
        self._temporary: weakref.finalize[Any, Any] | None = None
        self._folder = Path()
        self._making = threading.Lock()

    @property
    def blobs(self) -> BlobStorePort:
        """The blob store below."""
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

    async def push(self, artifact: Artifact) -> ArtifactRef:
        name, version = _checked(artifact.name), _checked(artifact.version)
        tags = _checked_tags(artifact.tags)
        metadata = _plain(artifact)
        before = await self._record(name, version)
        data = f"artifacts/data/{name}/@/{uuid.uuid4().hex}"
        try:
            checksum, size = await self._put_data(data, artifact.data)
            record = {
                "name": name, "version": version, "data": data, "size": size, "sha256": checksum,
                "created": time.time(), "metadata": metadata,
            }  # fmt: skip
            await self._mark(name, version, tags)
            await self._blobs.put(_version_key(name, version), json.dumps(record, ensure_ascii=False).encode())
        except BaseException:
            with contextlib.suppress(StorageError):  # the first error is the one that tells
                await self._blobs.delete(data)
            raise
        if before is not None:
            with contextlib.suppress(StorageError):  # pushed it is; what stays behind only takes room
                await self._blobs.delete(before["data"])
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
        """`pull` to a temporary file that is gone after the block."""
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
        await self._mark(*await self._known(ref), checked)

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
        """Store *data*; returns its SHA-256 and size, taken from the bytes as they pass."""
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

    async def _mark(self, name: str, version: str, tags: Iterable[str]) -> None:
        for tag in tags:
            key = _tag_key(tag, name, version)
            if not await self._blobs.exists(key):
                await self._blobs.put(key, b"")

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
                # Replaced by another push between the two looks; the same content missing twice is lost.
                if error.facts.get("cause") != "not_found" or record["data"] in missing:
                    raise
                missing.add(record["data"])

    async def _known(self, ref: ArtifactRef) -> tuple[str, str]:
        name, version = _checked(ref.name), _checked(ref.version)
        if not await self._blobs.exists(_version_key(name, version)):
            raise _no_version(name, version)
        return name, version

    async def _refs(self, places: Iterable[tuple[str, str]]) -> list[ArtifactRef]:
        gate = asyncio.Semaphore(_CONCURRENT)

        async def one(name: str, version: str) -> dict[str, Any] | None:
            async with gate:
                return await self._record(name, version)

        records = await asyncio.gather(*(one(*place) for place in places))
        return [_ref(record) for record in records if record is not None]

    async def _record(self, name: str, version: str) -> dict[str, Any] | None:
        return await self._json(_version_key(name, version))

    async def _json(self, key: str) -> dict[str, Any] | None:
        try:
            file = await self._blobs.get(key)
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
                # Also when nobody calls cleanup: at the end of the store or of the interpreter.
                self._temporary = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            return self._folder


class _Seen:
    """Digest and size of what passed."""

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
    """A file that is looked at as it is read."""

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
    """Copy to a file, which appears only when the content is what the record says."""
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
    if isinstance(tags, str):  # its letters would be the tags
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


def _no_version(name: str, version: str) -> StorageError:
    return StorageError(
        f"There is no artifact '{name}' in version '{version}'.", hint="See list_versions().",
        operation="get", path=name, cause="not_found",
    )  # fmt: skip

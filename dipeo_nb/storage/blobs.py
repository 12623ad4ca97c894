"""Code shared by all blob stores: keys, chunks of data, and a store in memory."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from typing import BinaryIO

from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.paths import path_parts
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.domain.ports import BlobData, BlobVersion
from dipeo_nb.errors import StorageError

CHUNK = 1 << 20
"""Bytes of a chunk."""
VERSION_DIGITS = 32
"""Hex digits of a version: the beginning of the content's SHA-256, so the same content is the same version."""
_PROTECTED = ProtectedPlaces()


def checked_key(key: str) -> str:
    """Return the normalized key.

    Raises:
        StorageError: `refused`: it leaves the store, is not a valid file name, or is protected everywhere.
    """
    text = key.strip("/") if key not in ("/", "") else ""
    if key.startswith("/") or key.endswith("/") or "//" in key or not text:
        raise bad_key(key, "it is empty, absolute, or has an empty part")
    if any(part in (".", "..") for part in key.split("/")):
        raise bad_key(key, "it has a part '.' or '..'")
    for part in path_parts(key):  # the rules of all paths; stores encode characters that file names cannot contain
        _PROTECTED.check_name(part, False, key)
    return key


def bad_key(key: str, why: str) -> StorageError:
    shown = key[:120].encode("utf-8", "replace").decode()
    return StorageError(
        f"The key {shown!r} is refused: {why}.", hint="Use a plain relative name such as models/v1.bin.",
        operation="resolve", path=shown, cause="refused",
    )  # fmt: skip


def not_found(key: str, version: str | None = None) -> StorageError:
    which = f" in version '{version}'" if version is not None else ""
    return StorageError(
        f"There is no blob '{key}'{which}.", hint="List the store to see what is there.",
        operation="get", path=key, cause="not_found",
    )  # fmt: skip


def already_there(key: str) -> StorageError:
    return StorageError(
        f"There is a blob '{key}' already.", hint="Use another key, or allow it to be replaced.",
        operation="put", path=key, cause="exists",
    )  # fmt: skip


def beyond_limit(key: str, limit: int) -> StorageError:
    return StorageError(
        f"'{key}' is larger than {limit:,} bytes.", hint="Raise the store's max_size, or split it.",
        operation="put", path=key, cause="too_large",
    )  # fmt: skip


def checked_metadata(key: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return the metadata of a blob, which must map names to texts in every store.

    Raises:
        StorageError: `not_text`, with the name.
    """
    for name, value in (metadata or {}).items():
        for part in (name, value):
            try:
                str.encode(part)  # rejects other types and lone surrogates
            except (TypeError, UnicodeEncodeError):
                raise StorageError(
                    f"The metadata of the blob '{key}' is not text at {name!a:.60}: {value!a:.60}.",
                    hint="Use texts by name; structured data belongs in the blob itself, or in an artifact's metadata.",
                    operation="put", path=key, cause="not_text",
                ) from None  # fmt: skip
    return dict(metadata or {})


async def pieces(data: BlobData) -> AsyncIterator[bytes]:
    """Yield data in chunks of at most `CHUNK` bytes, small enough not to block the event loop."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        for piece in _cut(data):
            yield piece
    elif isinstance(data, AsyncIterable):
        async for given in data:
            for piece in _cut(given):
                yield piece
    elif hasattr(data, "read"):
        while piece := await asyncio.to_thread(data.read, CHUNK):
            if not isinstance(piece, bytes):
                raise TypeError("a blob is read from a file opened in binary mode ('rb')")
            yield piece
    else:
        raise TypeError(f"a blob is bytes, a binary file or an async iterator of bytes, not {type(data).__name__}")


def _cut(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    if isinstance(data, bytes) and len(data) <= CHUNK:
        yield data
        return
    whole = memoryview(data).cast("B")
    for start in range(0, len(whole), CHUNK):
        yield bytes(whole[start : start + CHUNK])


def version_of(digest: str) -> str:
    return digest[:VERSION_DIGITS]


@logged("put", "get", "exists", "delete", "versions", "presign_url")
class InMemoryBlobAdapter:
    """`BlobStorePort` in memory, for tests."""

    def __init__(self, max_size: int | None = None) -> None:
        self._max_size = max_size
        self._blobs: dict[str, dict[str, tuple[bytes, BlobVersion]]] = {}
        """Key → version → content; the current version is the last one."""

    async def put(
        self, key: str, data: BlobData, metadata: Mapping[str, str] | None = None, *, create_only: bool = False
    ) -> str:
        key, notes = checked_key(key), checked_metadata(key, metadata)
        content, hashed, size = io.BytesIO(), hashlib.sha256(), 0
        async for piece in pieces(data):
            size += len(piece)
            if self._max_size is not None and size > self._max_size:
                raise beyond_limit(key, self._max_size)
            content.write(piece)
            hashed.update(piece)
            if size > CHUNK:  # give other tasks a turn
                await asyncio.sleep(0)
        if create_only and self._blobs.get(key):
            raise already_there(key)
        digest = hashed.hexdigest()
        version = version_of(digest)
        kept = self._blobs.setdefault(key, {})
        kept.pop(version, None)
        facts = BlobVersion(key, version, size, time.time(), True, notes, digest)
        kept[version] = (data if isinstance(data, bytes) else content.getvalue()), facts
        return version

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        kept = self._blobs.get(checked_key(key), {})
        if not kept or (version is not None and version not in kept):
            raise not_found(key, version)
        return io.BytesIO(kept[next(reversed(kept)) if version is None else version][0])

    async def exists(self, key: str, version: str | None = None) -> bool:
        kept = self._blobs.get(checked_key(key), {})
        return bool(kept) and (version is None or version in kept)

    async def delete(self, key: str, version: str | None = None) -> None:
        kept = self._blobs.get(checked_key(key), {})
        if version is not None:
            kept.pop(version, None)
        if version is None or not kept:
            self._blobs.pop(key, None)

    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        for key in sorted(k for k in self._blobs if k.startswith(prefix))[: max(0, limit)]:
            yield key

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        kept = list(self._blobs.get(checked_key(key), {}).values())
        return [facts._replace(current=i == 0) for i, (_, facts) in enumerate(reversed(kept))]

    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        raise StorageError(
            "A store in memory has no URLs.", hint="Use get().", operation="presign", path=key, cause="unsupported"
        )

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close."""

"""Blobs and artifacts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

from dipeo_nb.errors import StorageError

BlobData = bytes | BinaryIO | AsyncIterable[bytes]
"""Bytes, an open binary file (read to its end, not closed), or pieces as they come."""


class BlobVersion(NamedTuple):
    """One version of a blob."""

    key: str
    version: str
    size: int
    """Bytes."""
    created: float
    """Seconds since the epoch."""
    current: bool
    metadata: Mapping[str, str]
    checksum: str | None = None
    """SHA-256 in hex; None where the store does not know it."""


@runtime_checkable
class BlobStorePort(Protocol):
    """Named bytes in versions. Keys are relative paths with `/`; a key may be the beginning of another.

    A put is seen whole or not at all, whatever kills the writer; what was acknowledged stays. Streams go through in bounded
    memory. Keys that leave the store (`..`, absolute, control characters …) are a StorageError with cause `refused`.
    """

    @abstractmethod
    async def put(
        self, key: str, data: BlobData, metadata: Mapping[str, str] | None = None, *, create_only: bool = False
    ) -> str:
        """Store a new current version and return its id.

        Raises:
            StorageError: `exists` (create_only and there is one), `too_large`, `disk_full`, `read_only`, `permission`,
                `unavailable` (a server that cannot be reached).
        """
        ...

    @abstractmethod
    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        """An open binary file, to be closed by the caller. Raises StorageError `not_found`."""
        ...

    @abstractmethod
    async def exists(self, key: str, version: str | None = None) -> bool:
        """Raises StorageError when that cannot be determined (forbidden, unreachable)."""
        ...

    @abstractmethod
    async def delete(self, key: str, version: str | None = None) -> None:
        """Delete one version, or the key with all of them. What is not there is no error."""
        ...

    @abstractmethod
    def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        """Keys that begin with *prefix*, sorted, *limit* at most."""
        ...

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        """Newest first; empty when there is no such key. What is put right now is listed as the current one, or not yet.

        Raises StorageError `unsupported` where the store has no versions; so does this default.
        """
        raise StorageError(
            f"{type(self).__name__} does not list versions.", hint="Use a store with versions.",
            operation="versions", path=key, cause="unsupported",
        )  # fmt: skip

    @abstractmethod
    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """A URL for one operation (GET, PUT, DELETE, HEAD) that works for *expires_in* seconds.

        Raises StorageError `unsupported` for what the store has no URLs for.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something to keep under a name and a version: a model, a data set, a report."""

    name: str
    """May have parts: `models/classifier`."""
    version: str
    data: BlobData
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON values."""
    tags: tuple[str, ...] = ()


class ArtifactRef(NamedTuple):
    """One version of an artifact in a store."""

    name: str
    version: str
    uri: str
    """`artifact:name@version`; `%` and `@` within the two are written `%25` and `%40`."""
    size: int
    """Bytes."""
    created: float
    """Time of the push, in seconds since the epoch."""
    metadata: Mapping[str, Any]
    checksum: str
    """SHA-256 in hex."""


@runtime_checkable
class ArtifactStorePort(Protocol):
    """Artifacts in versions, with stages and tags. Names, versions and tags are relative paths without parts that begin with `@`.

    A push is seen whole or not at all. Nothing here is read, changed and written back: processes that push, promote and tag at
    the same time lose nothing. Every method raises StorageError as the blob store below it does.
    """

    @abstractmethod
    async def push(self, artifact: Artifact, *, create_only: bool = False) -> ArtifactRef:
        """Store a version; one that is there already is replaced, and is then the newest. Its tags are added to those it has.

        Of several pushes that make the same version at the same time, one succeeds.

        Args:
            create_only: a version that is there already is an error.

        Raises:
            StorageError: `exists` (create_only and there is one, or another push made it meanwhile), `refused` (name, version
                or tag), `not_json` (metadata). Nothing of the push is left then.
            ValidationError: the tags are one string, not several.
        """
        ...

    @abstractmethod
    async def pull(self, ref: ArtifactRef, folder: Path | None = None) -> Path:
        """Write the content to a file and return its path.

        Args:
            folder: the file is `folder/name` and appears whole; None: a temporary file, removed by `cleanup`.

        Raises:
            StorageError: `not_found`; `corrupt` when the content is not what was pushed (no file is left).
        """
        ...

    @abstractmethod
    async def list_versions(self, name: str) -> Sequence[ArtifactRef]:
        """Newest first, each once; empty for an unknown name."""
        ...

    @abstractmethod
    async def promote(self, ref: ArtifactRef, stage: str) -> None:
        """Make *ref* the version of a stage: dev, staging, prod or latest.

        Raises:
            ValidationError: another stage.
            StorageError: `not_found`.
        """
        ...

    @abstractmethod
    async def tag(self, ref: ArtifactRef, tags: Iterable[str]) -> None:
        """Add *tags*. Raises StorageError `not_found`, `refused`; ValidationError when they are one string, not several."""
        ...

    @abstractmethod
    async def find_by_tag(self, tag: str) -> Sequence[ArtifactRef]:
        """All versions with exactly that tag, by name, newest first."""
        ...

    @abstractmethod
    async def get_latest(self, name: str, stage: str | None = None) -> ArtifactRef | None:
        """The version of a stage; None when nothing was promoted to it, or there is no such stage or name.

        Without a stage, and for `latest`: the version that was last pushed or promoted to `latest`.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Remove temporary files. Safe to call twice. Default: nothing to close."""

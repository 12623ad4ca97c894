"""Blobs and artifacts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

from dipeo_nb.errors import StorageError

BlobData = bytes | BinaryIO | AsyncIterable[bytes]
"""Bytes, an open binary file (read to its end, not closed), or a stream of chunks."""


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
    """SHA-256 in hex; None if unknown to the store."""


@runtime_checkable
class BlobStorePort(Protocol):
    """Named bytes in versions. Keys are relative paths with `/`; a key may be a prefix of another.

    A put becomes visible as a whole or not at all, even if the writer is killed; acknowledged data is durable. Streams use bounded
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
        """Whether the blob exists. Raises StorageError when this cannot be determined (forbidden, unreachable)."""
        ...

    @abstractmethod
    async def delete(self, key: str, version: str | None = None) -> None:
        """Delete one version, or the key with all of them. A missing blob is not an error."""
        ...

    @abstractmethod
    def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        """Yield the keys that begin with *prefix*, sorted, *limit* at most."""
        ...

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        """Return the versions, newest first; empty when there is no such key. A concurrent put is listed as current, or not yet.

        Raises StorageError `unsupported` where the store has no versions; so does this default.
        """
        raise StorageError(
            f"{type(self).__name__} does not list versions.", hint="Use a store with versions.",
            operation="versions", path=key, cause="unsupported",
        )  # fmt: skip

    @abstractmethod
    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """Return a URL for one operation (GET, PUT, DELETE, HEAD) that is valid for *expires_in* seconds.

        Raises StorageError `unsupported` for operations without URLs in this store.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Data stored under a name and a version: a model, a data set, a report."""

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

    A push becomes visible as a whole or not at all. Nothing is read, changed and written back, so concurrent pushes, promotions and
    tags of several processes are never lost. Every method raises the StorageErrors of the underlying blob store.
    """

    @abstractmethod
    async def push(self, artifact: Artifact, *, create_only: bool = False) -> ArtifactRef:
        """Store a version; an existing one is replaced and becomes the newest. The tags are added to its existing ones.

        Of several concurrent pushes of the same version, one succeeds.

        Args:
            create_only: an existing version is an error.

        Raises:
            StorageError: `exists` (create_only and there is one, or another push made it meanwhile), `refused` (name, version
                or tag), `not_json` (metadata). Nothing of the push remains then.
            ValidationError: the tags are one string, not several.
        """
        ...

    @abstractmethod
    async def pull(self, ref: ArtifactRef, folder: Path | None = None) -> Path:
        """Write the content to a file and return its path.

        Args:
            folder: the file is `folder/name` and appears as a whole; None: a temporary file, removed by `cleanup`.

        Raises:
            StorageError: `not_found`; `corrupt` when the content differs from what was pushed (no file remains).
        """
        ...

    @abstractmethod
    async def list_versions(self, name: str) -> Sequence[ArtifactRef]:
        """Return the versions, newest first, each once; empty for an unknown name."""
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
        """Return all versions with exactly that tag, by name, newest first."""
        ...

    @abstractmethod
    async def get_latest(self, name: str, stage: str | None = None) -> ArtifactRef | None:
        """Return the version of a stage; None when nothing was promoted to it, or there is no such stage or name.

        Without a stage, and for `latest`: the version that was last pushed or promoted to `latest`.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Remove temporary files. Safe to call twice. Default: nothing to close."""

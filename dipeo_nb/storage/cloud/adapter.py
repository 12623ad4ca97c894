"""Blob store over a bucket."""

from __future__ import annotations

import asyncio
import heapq
import io
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, BinaryIO, TypeVar, cast

import stamina
from pydantic import SecretStr

from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.operation_log import logged
from dipeo_nb.domain.ports import BlobData, BlobVersion
from dipeo_nb.errors import ConfigurationError, StorageError
from dipeo_nb.storage.blobs import (
    CHUNK,
    already_there,
    bad_key,
    checked_key,
    checked_metadata,
    not_found,
    pieces,
)
from dipeo_nb.storage.cloud.clients import ATTEMPTS, RETRY_S, Clients, clients_of
from dipeo_nb.storage.cloud.errors import client_error, failure, is_unavailable, translated
from dipeo_nb.storage.cloud.metadata import attributes_of, metadata_of
from dipeo_nb.storage.cloud.parts import PART, chained, counted, parts_of

R = TypeVar("R")
PARTS = 10_000
"""Maximum parts of one upload, as in S3: 78 GiB in all."""
CONCURRENT_PARTS = 3
"""Parts uploaded concurrently; an upload holds about 40 MB."""
LONGEST_URL_S = 604_800
"""Maximum lifetime of a presigned URL in seconds: seven days, as in Signature Version 4."""
_OPERATIONS = ("GET", "PUT", "DELETE", "HEAD")


@logged("put", "get", "exists", "delete", "versions", "presign_url")
class S3Adapter:
    """`BlobStorePort` over a bucket.

    On a bucket with versioning every put creates a version with the store's own id. Without versioning there is one
    version named `null`, as in S3. On Google Cloud Storage and Azure, versions cannot be listed or deleted (StorageError with cause
    `unsupported`).

    Metadata is sent in headers: at most 2 KB in all on S3.
    A writer that is killed during a large upload leaves invisible parts; a lifecycle rule of the bucket
    (`AbortIncompleteMultipartUpload`) removes them.

    Args:
        bucket: its name.
        prefix: put before every key, with a `/` between.
        region: where the bucket is.
        endpoint_url: server other than Amazon's.
        access_key_id: with `secret_access_key`, the credentials; without them they are looked up as in all AWS tools
            (environment, `~/.aws`, the machine's role).
        max_size: maximum bytes of one blob; never more than 10,000 parts of 8 MiB (78 GiB).
        scheme: `s3`, `gs` (Google) or `az` (Azure; the account from AZURE_STORAGE_ACCOUNT_NAME); see `blob_store`.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: SecretStr | str | None = None,
        max_size: int | None = None,
        scheme: str = "s3",
    ) -> None:
        if (access_key_id is None) != (secret_access_key is None):
            raise ConfigurationError("An access key has two parts.", hint="Provide both access_key_id and secret_access_key.")
        self._bucket = bucket
        self._prefix = f"{checked_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        self._region = region
        self._endpoint = endpoint_url
        self._key_id = access_key_id
        self._secret = SecretStr(secret_access_key) if isinstance(secret_access_key, str) else secret_access_key
        self._max_size = min(max_size or PART * PARTS, PART * PARTS)
        self._scheme = scheme
        self._opened: Clients | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"S3Adapter({self.url!r})"

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")

    async def initialize(self) -> None:
        """Open the connection and check the bucket.

        Raises:
            StorageError: `not_found` (no such bucket), `permission`, `unavailable`.
            MissingDependencyError: obstore or boto3 is not installed.
        """
        await self._first_page("", 1)

    async def cleanup(self) -> None:
        """Close the connections."""
        clients, self._opened = self._opened, None
        if clients is not None and clients.boto is not None:
            await asyncio.to_thread(clients.boto.close)

    # Writing.

    async def put(
        self, key: str, data: BlobData, metadata: Mapping[str, str] | None = None, *, create_only: bool = False
    ) -> str:
        path = self._path(key)
        attributes = attributes_of(checked_metadata(key, metadata), dashes=self._scheme != "az")
        if isinstance(data, bytes) and len(data) <= min(PART, self._max_size):
            return await self._put_small(key, path, data, attributes, create_only)
        source = counted(pieces(data), key, self._max_size)
        head: list[bytes] = []
        size = 0
        async for piece in source:
            head.append(piece)
            size += len(piece)
            if size > PART:
                break
        else:
            return await self._put_small(key, path, b"".join(head), attributes, create_only)
        return await self._put_large(key, path, chained(head, source), attributes, create_only)

    async def _put_small(self, key: str, path: str, content: bytes, attributes: dict[str, str], create_only: bool) -> str:
        clients = await self._clients()

        async def put() -> str:
            result = await clients.obstore.put_async(
                clients.once, path, content, attributes=attributes, use_multipart=False,
                mode="create" if create_only else "overwrite",
            )  # fmt: skip
            return result["version"] or "null"

        # If an answer is lost, a retry would find the blob of the first attempt: creating is never retried.
        return await self._call("put", key, put, attempts=1 if create_only else ATTEMPTS)

    async def _put_large(
        self, key: str, path: str, source: AsyncIterator[bytes], attributes: dict[str, str], create_only: bool
    ) -> str:
        clients = await self._clients()
        if create_only:
            return await self._create_large(key, path, source, attributes)

        async def put() -> str:
            result = await clients.obstore.put_async(
                clients.patient, path, source, attributes=attributes, use_multipart=True,
                chunk_size=PART, max_concurrency=CONCURRENT_PARTS,
            )  # fmt: skip
            return result["version"] or "null"

        return await self._call("put", key, put, attempts=1)

    async def _create_large(self, key: str, path: str, source: AsyncIterator[bytes], attributes: dict[str, str]) -> str:
        """Upload in parts and complete only if there is no such blob; obstore would hold all of it in memory.

        The server must ensure that only one of several uploads completes. Amazon's does; SeaweedFS 4.48 accepts two that complete
        in the same millisecond.
        """
        boto = await self._boto("put", f"create blobs of more than {PART:,} bytes only where there is none")
        where = {"Bucket": self._bucket, "Key": path}
        if await self.exists(key):  # the decisive check is made at the end; this one saves the upload
            raise already_there(key)
        upload = await self._thread("put", key, lambda: boto.create_multipart_upload(**where, Metadata=attributes))
        where["UploadId"] = upload["UploadId"]
        try:
            done: list[dict[str, Any]] = []
            async for part in parts_of(source):
                number = len(done) + 1
                sent = await self._thread("put", key, lambda: boto.upload_part(**where, PartNumber=number, Body=part))  # noqa: B023 - called at once
                done.append({"PartNumber": number, "ETag": sent["ETag"]})
            result = await self._thread(
                "put", key,
                lambda: boto.complete_multipart_upload(**where, MultipartUpload={"Parts": done}, IfNoneMatch="*"),
                attempts=1,
            )  # fmt: skip
        except BaseException:
            # Also on cancellation: otherwise the server keeps the parts and charges for them.
            await asyncio.shield(self._thread("put", key, lambda: boto.abort_multipart_upload(**where)))
            raise
        return result.get("VersionId") or "null"

    async def delete(self, key: str, version: str | None = None) -> None:
        path = self._path(key)
        clients = await self._clients()
        boto = clients.boto
        if boto is None:
            if version is not None:
                raise self._unsupported("delete", "delete single versions")

            async def remove() -> None:
                await clients.obstore.delete_async(clients.once, path)

            try:
                await self._call("delete", key, remove)
            except StorageError as error:
                if error.facts.get("cause") != "not_found":
                    raise
        elif version is not None:
            try:
                await self._thread("delete", key, lambda: boto.delete_object(Bucket=self._bucket, Key=path, VersionId=version))
            except StorageError as error:
                if error.facts.get("cause") != "not_found":
                    raise
        else:
            await self._thread("delete", key, lambda: self._delete_all(boto, path))

    def _delete_all(self, boto: Any, path: str) -> None:
        try:
            known = list(self._listed(boto, path, markers=True))
        except client_error() as error:
            if error.response.get("Error", {}).get("Code") != "NotImplemented":
                raise
            known = []  # a store without versions
        # Hide all versions with one marker first, then delete them, and the marker last.
        hidden = boto.delete_object(Bucket=self._bucket, Key=path)
        gone = [v["VersionId"] for v in known if v["VersionId"] != "null" or hidden.get("VersionId")]
        if hidden.get("DeleteMarker") and hidden.get("VersionId"):
            gone.append(hidden["VersionId"])
        for start in range(0, len(gone), 1000):
            objects = [{"Key": path, "VersionId": v} for v in gone[start : start + 1000]]
            answer = boto.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            for problem in answer.get("Errors", ()):
                if problem.get("Code") not in ("NoSuchVersion", "NoSuchKey"):
                    raise failure("delete", path, None, problem.get("Code", ""), problem.get("Message", ""))

    # Reading.

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        """Return the content, in memory up to 8 MiB, else in a temporary file: reading it needs no network access."""
        path = self._path(key)
        clients = await self._clients()

        async def fetch() -> BinaryIO:
            result = await clients.obstore.get_async(clients.patient, path, options=_options(version))
            self._same(result.meta, key, version)
            size = result.meta["size"]
            if size <= PART:
                content = bytes(await result.bytes_async())
                if len(content) != size:
                    raise failure("get", key, None, "", "the answer ended too early")
                return io.BytesIO(content)
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
            try:
                async for piece in result.stream(min_chunk_size=CHUNK):
                    await asyncio.to_thread(file.write, piece)
                if file.tell() != size:
                    raise failure("get", key, None, "", "the answer ended too early")
                file.seek(0)
            except BaseException:
                file.close()
                raise
            return cast(BinaryIO, file)

        return await self._call("get", key, fetch, attempts=1, version=version)

    async def exists(self, key: str, version: str | None = None) -> bool:
        try:
            await self._head(key, version)
        except StorageError as error:
            if error.facts.get("cause") == "not_found":
                return False
            raise
        return True

    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        for path in await self._first_page(self._prefix + prefix, limit):
            yield path.removeprefix(self._prefix)

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        path = self._path(key)
        boto = await self._boto("versions", "list versions")
        found = await self._thread("versions", key, lambda: list(self._listed(boto, path)))

        async def described(row: dict[str, Any]) -> BlobVersion | None:
            try:
                meta, attributes = await self._head(key, row["VersionId"])
            except StorageError as error:
                if error.facts.get("cause") == "not_found":  # deleted between the two requests
                    return None
                raise
            created = cast(datetime, row["LastModified"]).timestamp()
            return BlobVersion(key, row["VersionId"], meta["size"], created, bool(row["IsLatest"]), metadata_of(attributes))

        rows = await gather_limited(described, found, 16)
        return [row for row in rows if row is not None]

    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """See the port.

        Args:
            expires_in: seconds, from 1 to 604,800 (seven days).
        """
        path = self._path(key)
        if operation.upper() not in _OPERATIONS:
            raise StorageError(
                f"There is no URL for {operation!r}.", hint=f"Operations are {', '.join(_OPERATIONS)}.",
                operation="presign", path=key, cause="unsupported",
            )  # fmt: skip
        if not 1 <= expires_in <= LONGEST_URL_S:
            raise StorageError(
                f"A URL cannot be valid for {expires_in} seconds.", hint=f"Choose from 1 to {LONGEST_URL_S:,} (seven days).",
                operation="presign", path=key, cause="unsupported",
            )  # fmt: skip
        clients = await self._clients()

        async def sign() -> str:
            lifetime = timedelta(seconds=expires_in)
            return await clients.obstore.sign_async(clients.once, operation.upper(), path, lifetime)

        return await self._call("presign", key, sign)

    async def _head(self, key: str, version: str | None) -> tuple[Any, dict[str, str]]:
        path = self._path(key)
        clients = await self._clients()

        async def ask() -> tuple[Any, dict[str, str]]:
            result = await clients.obstore.get_async(clients.once, path, options={**_options(version), "head": True})
            self._same(result.meta, key, version)
            return result.meta, dict(result.attributes)

        return await self._call("head", key, ask, version=version)

    def _same(self, meta: Any, key: str, version: str | None) -> None:
        """Check the version of an answer: some servers return the only version they have, whichever is requested."""
        if version is not None and (meta["version"] or "null") != version:
            raise not_found(key, version)

    def _listed(self, boto: Any, path: str, *, markers: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the versions of one object as described by S3, newest first."""
        for page in boto.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=path):
            rows = page.get("Versions", []) + (page.get("DeleteMarkers", []) if markers else [])
            yield from (row for row in rows if row["Key"] == path)
            if self._ordered and any(row["Key"] != path for row in rows):
                return  # the object's own name sorts before all longer ones

    async def _first_page(self, prefix: str, limit: int) -> list[str]:
        """Return the first *limit* paths with that prefix."""
        clients = await self._clients()
        boto = clients.boto
        if boto is not None:

            def search() -> list[str]:
                pages = boto.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
                names = (row["Key"] for page in pages for row in page.get("Contents", ()))
                return _smallest(names, limit, ordered=self._ordered)

            return await self._thread("list", prefix, search)

        async def walk() -> list[str]:
            # obstore lists whole folders only.
            found: list[str] = []
            stream = clients.obstore.list(clients.once, prefix.rpartition("/")[0] or None)
            async for page in stream:
                found += [row["path"] for row in page if row["path"].startswith(prefix)]
                found = _smallest(found, limit, ordered=False)
            return found

        return await self._call("list", prefix, walk)

    # Calling.

    @property
    def _ordered(self) -> bool:
        """Amazon lists in order of names, except in directory buckets; other servers need not."""
        return self._endpoint is None and not self._bucket.endswith("--x-s3")

    def _path(self, key: str) -> str:
        path = self._prefix + checked_key(key)
        if len(path.encode()) > 1024:
            raise bad_key(key, "with the store's prefix it is longer than 1,024 bytes")
        return path

    async def _boto(self, operation: str, what: str) -> Any:
        boto = (await self._clients()).boto
        if boto is None:
            raise self._unsupported(operation, what)
        return boto

    def _unsupported(self, operation: str, what: str) -> StorageError:
        return StorageError(
            f"{self.url} cannot {what}.", hint="Use an S3 bucket or a local folder.",
            operation=operation, path=self.url, cause="unsupported",
        )  # fmt: skip

    async def _clients(self) -> Clients:
        return self._opened or await asyncio.to_thread(self._open)

    def _open(self) -> Clients:
        with self._opening:
            if self._opened is None:
                self._opened = clients_of(self._scheme, self._bucket, self._region, self._endpoint, self._key_id, self._secret)
            return self._opened

    async def _thread(self, operation: str, key: str, work: Callable[[], R], *, attempts: int = ATTEMPTS) -> R:
        return await self._call(operation, key, lambda: asyncio.to_thread(work), attempts=attempts)

    async def _call(
        self,
        operation: str,
        key: str,
        work: Callable[[], Awaitable[R]],
        *,
        attempts: int = ATTEMPTS,
        version: str | None = None,
    ) -> R:
        """Run *work*, with retries while the server is unavailable; convert the libraries' errors to ours."""
        again = stamina.retry_context(on=is_unavailable, attempts=attempts, timeout=RETRY_S, wait_jitter=0.2)
        async for attempt in again:
            with attempt:
                try:
                    return await work()
                except (StorageError, asyncio.CancelledError):
                    raise
                except Exception as error:
                    if (ours := translated(operation, key, error, version)) is None:
                        raise  # an error of the data source, or a bug
                    raise ours from error
        raise AssertionError("unreachable: the last attempt raises")


def _options(version: str | None) -> dict[str, Any]:
    return {} if version is None else {"version": version}


def _smallest(names: Any, limit: int, *, ordered: bool) -> list[str]:
    """Return the first *limit* names in order, without placeholders of folders (made by web consoles)."""
    blobs = (name for name in names if not name.endswith("/"))
    if ordered:
        return [name for name, _ in zip(blobs, range(limit), strict=False)]
    return heapq.nsmallest(limit, blobs)

"""Blobs on object stores: Amazon S3 and what speaks its protocol; Google Cloud Storage and Azure by URL.

Two libraries share the work, neither of which can do all of it: `obstore` moves the data (async, in bounded memory, parts in
parallel, broken downloads resumed where they broke), `boto3` finds credentials as every AWS tool does and lists and deletes
versions (in worker threads, so the loop stays free).

Who repeats what: a call that can be made again as a whole is repeated by `stamina`; a stream only its own library can take up
again, part by part, so there obstore repeats, with the same numbers. Never both.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import io
import json
import re
import tempfile
import threading
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import stamina
from pydantic import SecretStr

from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.operations import logged
from dipeo_nb.domain.ports import BlobData, BlobStorePort, BlobVersion
from dipeo_nb.errors import ConfigurationError, MissingDependencyError, StorageError
from dipeo_nb.storage.blobs import (
    CHUNK,
    InMemoryBlobAdapter,
    already_there,
    bad_key,
    beyond_limit,
    checked_key,
    checked_metadata,
    not_found,
    pieces,
)
from dipeo_nb.storage.local import LocalBlobAdapter

R = TypeVar("R")

PART = 8 << 20
"""Bytes of one part of a multipart upload; what is not larger goes in one request."""
PARTS = 10_000
"""Parts of one upload at most, as S3 has it: 78 GiB in all."""
CONCURRENT_PARTS = 3
"""Parts under way at once, so an upload holds about 40 MB."""
CONNECT_S = 10.0
"""Seconds to reach the server."""
IDLE_S = 60.0
"""Seconds that a server may be silent."""
ATTEMPTS = 4
"""Tries of a call that fails because the server cannot be reached, is overloaded or broken."""
RETRY_S = 45.0
"""Seconds after which no further try begins."""
LONGEST_URL_S = 604_800
"""Seconds a presigned URL can work at most: seven days, as Signature Version 4 has it."""
SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}
"""URL scheme → which kind of store."""
_OPERATIONS = ("GET", "PUT", "DELETE", "HEAD")


@logged("put", "get", "exists", "delete", "versions", "presign_url")
class S3Adapter:
    """`BlobStorePort` over a bucket.

    On a bucket with versioning every put is a version under the store's own id. Without versioning there is one version
    named `null`, as S3 calls it. On Google Cloud Storage and Azure, versions cannot be listed or deleted (StorageError with cause
    `unsupported`).

    Metadata travels in headers: 2 KB in all on S3.
    A writer that is killed in a large upload leaves parts that nobody sees; a lifecycle rule of the bucket
    (`AbortIncompleteMultipartUpload`) removes them.

    Args:
        bucket: its name.
        prefix: put before every key, with a `/` between.
        region: where the bucket is.
        endpoint_url: another server than Amazon's.
        access_key_id: with `secret_access_key`, the credentials; without them they are looked for as all AWS tools do
            (environment, `~/.aws`, the machine's role).
        max_size: bytes of one blob at most; more than 10,000 parts of 8 MiB (78 GiB) are never taken.
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
            raise ConfigurationError("An access key has two halves.", hint="Give access_key_id and secret_access_key.")
        self._bucket = bucket
        self._prefix = f"{checked_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        self._region = region
        self._endpoint = endpoint_url
        self._key_id = access_key_id
        self._secret = SecretStr(secret_access_key) if isinstance(secret_access_key, str) else secret_access_key
        self._max_size = min(max_size or PART * PARTS, PART * PARTS)
        self._scheme = scheme
        self._opened: _Clients | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"S3Adapter({self.url!r})"

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")

    async def initialize(self) -> None:
        """Open the connection and look into the bucket.

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
        attributes = _attributes(checked_metadata(key, metadata), dashes=self._scheme != "az")
        if isinstance(data, bytes) and len(data) <= min(PART, self._max_size):
            return await self._put_small(key, path, data, attributes, create_only)
        source = _counted(pieces(data), key, self._max_size)
        head: list[bytes] = []
        size = 0
        async for piece in source:
            head.append(piece)
            size += len(piece)
            if size > PART:
                break
        else:
            return await self._put_small(key, path, b"".join(head), attributes, create_only)
        return await self._put_large(key, path, _chained(head, source), attributes, create_only)

    async def _put_small(
        self, key: str, path: str, content: bytes, attributes: dict[str, str], create_only: bool
    ) -> str:
        clients = await self._clients()

        async def put() -> str:
            result = await clients.obstore.put_async(
                clients.once, path, content, attributes=attributes, use_multipart=False,
                mode="create" if create_only else "overwrite",
            )  # fmt: skip
            return result["version"] or "null"

        # An answer that was lost would let the second try meet the blob of the first: creating is tried once.
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
        """A multipart upload that ends only if there is no such blob; obstore would hold all of it in memory.

        That only one of several ends is for the server to see to. Amazon's does; SeaweedFS 4.48 lets two through that end in
        the same millisecond.
        """
        boto = await self._boto("put", f"create blobs of more than {PART:,} bytes only where there is none")
        where = {"Bucket": self._bucket, "Key": path}
        if await self.exists(key):  # the answer that counts comes at the end; this one saves the upload
            raise already_there(key)
        upload = await self._thread("put", key, lambda: boto.create_multipart_upload(**where, Metadata=attributes))
        where["UploadId"] = upload["UploadId"]
        try:
            done: list[dict[str, Any]] = []
            async for part in _parts(source):
                number = len(done) + 1
                sent = await self._thread("put", key, lambda: boto.upload_part(**where, PartNumber=number, Body=part))  # noqa: B023 - called at once
                done.append({"PartNumber": number, "ETag": sent["ETag"]})
            result = await self._thread(
                "put", key,
                lambda: boto.complete_multipart_upload(**where, MultipartUpload={"Parts": done}, IfNoneMatch="*"),
                attempts=1,
            )  # fmt: skip
        except BaseException:
            # Also when cancelled: the server would keep the parts, and charge for them.
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
                await self._thread(
                    "delete", key, lambda: boto.delete_object(Bucket=self._bucket, Key=path, VersionId=version)
                )
            except StorageError as error:
                if error.facts.get("cause") != "not_found":
                    raise
        else:
            await self._thread("delete", key, lambda: self._delete_all(boto, path))

    def _delete_all(self, boto: Any, path: str) -> None:
        try:
            known = list(self._listed(boto, path, markers=True))
        except _client_error() as error:
            if error.response.get("Error", {}).get("Code") != "NotImplemented":
                raise
            known = []  # a store without versions
        # First it is out of sight (one marker hides all versions), then they go, and the marker last.
        hidden = boto.delete_object(Bucket=self._bucket, Key=path)
        gone = [v["VersionId"] for v in known if v["VersionId"] != "null" or hidden.get("VersionId")]
        if hidden.get("DeleteMarker") and hidden.get("VersionId"):
            gone.append(hidden["VersionId"])
        for start in range(0, len(gone), 1000):
            objects = [{"Key": path, "VersionId": v} for v in gone[start : start + 1000]]
            answer = boto.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            for problem in answer.get("Errors", ()):
                if problem.get("Code") not in ("NoSuchVersion", "NoSuchKey"):
                    raise _failure("delete", path, None, problem.get("Code", ""), problem.get("Message", ""))

    # Reading.

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        """The content in memory up to 8 MiB, above that in a temporary file: reading it never meets the network."""
        path = self._path(key)
        clients = await self._clients()

        async def fetch() -> BinaryIO:
            result = await clients.obstore.get_async(clients.patient, path, options=_options(version))
            self._same(result.meta, key, version)
            size = result.meta["size"]
            if size <= PART:
                content = bytes(await result.bytes_async())
                if len(content) != size:
                    raise _failure("get", key, None, "", "the answer ended too early")
                return io.BytesIO(content)
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
            try:
                async for piece in result.stream(min_chunk_size=CHUNK):
                    await asyncio.to_thread(file.write, piece)
                if file.tell() != size:
                    raise _failure("get", key, None, "", "the answer ended too early")
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
                if error.facts.get("cause") == "not_found":  # deleted between the two looks
                    return None
                raise
            created = cast(datetime, row["LastModified"]).timestamp()
            return BlobVersion(
                key, row["VersionId"], meta["size"], created, bool(row["IsLatest"]), _metadata(attributes)
            )

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
                f"A URL cannot work for {expires_in} seconds.", hint=f"Choose from 1 to {LONGEST_URL_S:,} (seven days).",
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
        """Some servers answer with the only version there is, whichever is asked for."""
        if version is not None and (meta["version"] or "null") != version:
            raise not_found(key, version)

    def _listed(self, boto: Any, path: str, *, markers: bool = False) -> Iterator[dict[str, Any]]:
        """The versions of one object as S3 describes them, newest first."""
        for page in boto.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=path):
            rows = page.get("Versions", []) + (page.get("DeleteMarkers", []) if markers else [])
            yield from (row for row in rows if row["Key"] == path)
            if self._ordered and any(row["Key"] != path for row in rows):
                return  # the object's own name is the first that begins with it

    async def _first_page(self, prefix: str, limit: int) -> list[str]:
        """The first *limit* paths with that prefix."""
        clients = await self._clients()
        boto = clients.boto
        if boto is not None:

            def search() -> list[str]:
                pages = boto.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
                names = (row["Key"] for page in pages for row in page.get("Contents", ()))
                return _smallest(names, limit, ordered=self._ordered)

            return await self._thread("list", prefix, search)

        async def walk() -> list[str]:
            # obstore takes whole folders only.
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

    async def _clients(self) -> _Clients:
        return self._opened or await asyncio.to_thread(self._open)

    def _open(self) -> _Clients:
        with self._opening:
            if self._opened is None:
                self._opened = _clients_of(
                    self._scheme, self._bucket, self._region, self._endpoint, self._key_id, self._secret
                )
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
        """*work*, again while the server is unavailable; what libraries raise as ours."""
        again = stamina.retry_context(on=_is_unavailable, attempts=attempts, timeout=RETRY_S, wait_jitter=0.2)
        async for attempt in again:
            with attempt:
                try:
                    return await work()
                except (StorageError, asyncio.CancelledError):
                    raise
                except Exception as error:
                    if (ours := _translated(operation, key, error, version)) is None:
                        raise  # the source of the data broke, or a mistake of ours
                    raise ours from error
        raise AssertionError("unreachable: the last attempt raises")


def blob_store(url: str | Path, *, max_size: int | None = None) -> BlobStorePort:
    """The blob store that a URL names.

    | URL | store |
    |---|---|
    | a path, `file:///path` | a folder on this machine |
    | `memory:` | this process only |
    | `s3://bucket/prefix` | S3; `?region=…&endpoint_url=…` for another region or server |
    | `gs://bucket/prefix`, `az://container/prefix` | Google Cloud Storage, Azure (without versions) |

    Args:
        max_size: bytes of one blob at most.

    Raises:
        ConfigurationError: another scheme, no bucket, unknown options, or keys in the URL, where logs would show them.
    """
    text = str(url)
    if isinstance(url, Path) or ("://" not in text and text != "memory:"):
        return LocalBlobAdapter(url, max_size=max_size)
    if text == "memory:":
        return InMemoryBlobAdapter(max_size)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return LocalBlobAdapter(urllib.request.url2pathname(parts.path), max_size=max_size)
    if parts.scheme not in SCHEMES:
        known = "file:///path, memory:, s3://bucket, gs://bucket, az://container"
        raise ConfigurationError(f"There is no blob store for '{parts.scheme}://'.", hint=f"Use a path or {known}.")
    if parts.username or parts.password:
        raise ConfigurationError(
            "A URL of a blob store must not hold keys.", hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead."
        )
    if not parts.hostname:
        raise ConfigurationError(f"'{text}' names no bucket.", hint=f"Write {parts.scheme}://bucket/prefix.")
    options = dict(parse_qsl(parts.query))
    allowed = {"region", "endpoint_url"} if SCHEMES[parts.scheme] == "s3" else set[str]()
    if unknown := sorted(set(options) - allowed):
        names = ", ".join(sorted(allowed)) or "none"
        raise ConfigurationError(f"Unknown option {unknown[0]!r} in '{parts.scheme}://'.", hint=f"It takes: {names}.")
    scheme = SCHEMES[parts.scheme]
    return S3Adapter(parts.netloc, prefix=unquote(parts.path), scheme=scheme, max_size=max_size, **options)


class _Clients(NamedTuple):
    obstore: Any
    """The module."""
    once: Any
    """A store that tries once."""
    patient: Any
    """One that repeats what fails, request by request."""
    boto: Any
    """None for stores that are not S3."""


def _clients_of(
    scheme: str, bucket: str, region: str, endpoint: str | None, key_id: str | None, secret: SecretStr | None
) -> _Clients:
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise MissingDependencyError.for_extra("obstore", extra="s3") from error
    config: dict[str, Any] = {}
    boto = None
    if scheme == "s3":
        boto, credentials = _boto_of(region, endpoint, key_id, secret)
        config = {"region": region, "credential_provider": credentials}
        address = str(boto.meta.endpoint_url)
        if not (urlsplit(address).hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn")):
            config["endpoint"] = endpoint = address  # given here, or in a way that only boto3 knows
    client = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=IDLE_S),
        "timeout": timedelta(days=1),  # of a whole answer; its default of 30 s would cut large ones
        "allow_http": (endpoint or "").startswith("http://"),
    }
    patient = {
        "max_retries": ATTEMPTS - 1,
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        "retry_timeout": timedelta(seconds=RETRY_S),
    }
    make: Any = obstore.store.from_url
    once, again = (
        make(f"{scheme}://{bucket}", client_options=client, retry_config=retry, **config)
        for retry in ({"max_retries": 0}, patient)
    )
    return _Clients(obstore, once, again, boto)


def _boto_of(region: str, endpoint: str | None, key_id: str | None, secret: SecretStr | None) -> tuple[Any, Any]:
    try:
        import boto3
        from botocore.config import Config
        from botocore.session import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise MissingDependencyError.for_extra("boto3", extra="s3") from error
    core = Session()
    core.register_component("data_loader", _api_descriptions(core.get_config_variable("data_path")))
    session = boto3.Session(
        botocore_session=core,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret.get_secret_value() if secret is not None else None,
        region_name=region,
    )
    try:
        # Roles hand out credentials that last ten minutes more at least (botocore.credentials).
        credentials = Boto3CredentialProvider(session, ttl=timedelta(minutes=10))
    except ValueError as error:
        raise StorageError(
            "There are no credentials for S3.", hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure",
            operation="open", path="", cause="permission",
        ) from error  # fmt: skip
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=IDLE_S,
        max_pool_connections=32,
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return session.client("s3", endpoint_url=endpoint, config=config), credentials


@cache
def _api_descriptions(folders: str | None) -> Any:
    """What botocore reads of the services of AWS, once for all stores: reading it takes a tenth of a second."""
    from botocore.loaders import create_loader

    return create_loader(folders)


# Errors.


def _client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, StorageError) and error.facts.get("cause") == "unavailable"


_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")


def _translated(operation: str, key: str, error: Exception, version: str | None) -> StorageError | None:
    """What a library raised as our error; None for what is not the store's."""
    import botocore.exceptions as boto
    from obstore import exceptions as obs

    text = str(error)
    status, code, message = (m.group(1) if (m := r.search(text)) else "" for r in (_STATUS, _CODE, _MESSAGE))
    if isinstance(error, FileNotFoundError) and code not in _NO_BUCKET:
        return not_found(key, version)
    if isinstance(error, (FileNotFoundError, obs.BaseError)):
        if isinstance(error, (obs.AlreadyExistsError, obs.PreconditionError)):
            return already_there(key)
        if isinstance(error, (obs.PermissionDeniedError, obs.UnauthenticatedError)):
            status = status or "403"
        elif isinstance(error, obs.NotSupportedError):
            status = "501"
        elif isinstance(error, FileNotFoundError):
            status = "404"
        if version is not None and status == "400":
            return not_found(key, version)  # no id of a version at all
        summary = text.split("\n", 1)[0].removeprefix("Generic S3 error: ")
        return _failure(operation, key, int(status) if status else None, code, message or summary)
    if isinstance(error, boto.ClientError):
        facts = error.response.get("Error", {})
        status_code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return _failure(operation, key, status_code, facts.get("Code", ""), facts.get("Message", ""))
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return _failure(operation, key, 401, "", text)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError, boto.ResponseStreamingError)):
        return _failure(operation, key, None, "", text)
    if isinstance(error, boto.BotoCoreError):
        return _failure(operation, key, 400, "", text)
    if isinstance(error, OSError) and operation == "get":
        return failed("keep", tempfile.gettempdir(), error)  # no room for what came
    return None


def _failure(operation: str, key: str, status: int | None, code: str, message: str) -> StorageError:
    """The error for a server's answer: HTTP status (None: there was none), S3's code and message."""
    if code in _NO_BUCKET:
        cause, hint = "not_found", "Create the bucket, or check its name and region."
    elif status == 404 or code in ("NoSuchKey", "NoSuchVersion"):
        return not_found(key)
    elif status in (401, 403) or code == "AccessDenied":
        cause, hint = "permission", "Check the access key and what it may do in this bucket."
    elif status in (409, 412):
        return already_there(key)
    elif status == 413 or code in ("EntityTooLarge", "MetadataTooLarge"):
        cause, hint = "too_large", "Store less, or shorter metadata."
    elif status == 501 or code == "NotImplemented":
        cause, hint = "unsupported", "Use a store that can do this."
    elif status == 507:
        cause, hint = "disk_full", "Free some space on the server; the old content is untouched."
    elif status is None or status in (408, 425, 429) or status >= 500:
        cause, hint = "unavailable", "Check that the server runs and can be reached, then try again."
    elif status in (301, 307):
        cause, hint = "failed", "Set the region in which the bucket is."
    else:
        cause, hint = "failed", "Check the request and the server's log."
    what = f" '{key}'" if key else ""
    why = " ".join([code, *message.split()]).strip().rstrip(".") or f"HTTP {status}"
    return StorageError(f"Cannot {operation}{what}: {why}.", hint=hint, operation=operation, path=key, cause=cause)


# Small things.

_REST = "dipeo"
"""Name of the header that carries, as JSON, the metadata that headers of their own could not."""
_PLAIN_VALUE = re.compile(r"[!-~]+( [!-~]+)*")


def _attributes(metadata: Mapping[str, str], *, dashes: bool) -> dict[str, str]:
    """Metadata as headers: names that are plain lower case (with dashes, where the store allows them) and ASCII values have
    headers of their own, for other tools to read; headers forget case, empty values and blanks at the ends of others."""
    name = re.compile(r"[a-z][a-z0-9-]*" if dashes else r"[a-z][a-z0-9]*")
    own = {n: v for n, v in metadata.items() if n != _REST and name.fullmatch(n) and _PLAIN_VALUE.fullmatch(v)}
    rest = {n: v for n, v in metadata.items() if n not in own}
    return own | ({_REST: json.dumps(rest, separators=(",", ":")).replace(" ", "\\u0020")} if rest else {})


def _metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    own = {n: v for n, v in attributes.items() if n == n.lower()}  # the others are standard ones (Content-Type)
    with contextlib.suppress(ValueError):  # somebody else's header of that name stays as it is
        if rest := json.loads(own.get(_REST, "{}")):
            del own[_REST]
            own |= rest
    return own


def _options(version: str | None) -> dict[str, Any]:
    return {} if version is None else {"version": version}


def _smallest(names: Any, limit: int, *, ordered: bool) -> list[str]:
    """The first *limit* names in order, without folders' placeholders (consoles make them)."""
    blobs = (name for name in names if not name.endswith("/"))
    if ordered:
        return [name for name, _ in zip(blobs, range(limit), strict=False)]
    return heapq.nsmallest(limit, blobs)


async def _counted(source: AsyncIterable[bytes], key: str, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in source:
        size += len(piece)
        if size > limit:
            raise beyond_limit(key, limit)
        yield piece


async def _chained(head: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while head:
        piece = head.pop(0)
        for start in range(0, len(piece), PART):
            yield piece[start : start + PART]
    async for piece in rest:
        yield piece


async def _parts(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of any size as parts of `PART` bytes, the last one smaller."""
    waiting = bytearray()
    async for piece in source:
        waiting += piece
        while len(waiting) >= PART:
            yield bytes(waiting[:PART])
            del waiting[:PART]
    if waiting:
        yield bytes(waiting)

"""Blob stores by URL."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dipeo_nb.domain.ports import BlobStorePort
from dipeo_nb.errors import ConfigurationError
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.cloud.adapter import S3Adapter
from dipeo_nb.storage.local.blobs import LocalBlobAdapter

SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}
"""URL scheme → kind of store."""


def blob_store(url: str | Path, *, max_size: int | None = None) -> BlobStorePort:
    """Return the blob store of a URL.

    | URL | store |
    |---|---|
    | a path, `file:///path` | a folder on this machine |
    | `memory:` | this process only |
    | `s3://bucket/prefix` | S3; `?region=…&endpoint_url=…` for another region or server |
    | `gs://bucket/prefix`, `az://container/prefix` | Google Cloud Storage, Azure (without versions) |

    Args:
        max_size: maximum bytes of one blob.

    Raises:
        ConfigurationError: another scheme, no bucket, unknown options, or keys in the URL, which would appear in logs.
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
        raise ConfigurationError(f"'{text}' does not name a bucket.", hint=f"Write {parts.scheme}://bucket/prefix.")
    options = dict(parse_qsl(parts.query))
    allowed = {"region", "endpoint_url"} if SCHEMES[parts.scheme] == "s3" else set[str]()
    if unknown := sorted(set(options) - allowed):
        names = ", ".join(sorted(allowed)) or "none"
        raise ConfigurationError(f"Unknown option {unknown[0]!r} in '{parts.scheme}://'.", hint=f"It takes: {names}.")
    scheme = SCHEMES[parts.scheme]
    return S3Adapter(parts.netloc, prefix=unquote(parts.path), scheme=scheme, max_size=max_size, **options)

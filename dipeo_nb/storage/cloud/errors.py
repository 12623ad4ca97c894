"""Conversion of the libraries' errors to ours."""

from __future__ import annotations

import re
import tempfile
from typing import Any

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.blobs import already_there, not_found

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")


def client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


def is_unavailable(error: Exception) -> bool:
    return isinstance(error, StorageError) and error.facts.get("cause") == "unavailable"


def translated(operation: str, key: str, error: Exception, version: str | None) -> StorageError | None:
    """Convert an error of a library; None if it did not come from the store."""
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
            return not_found(key, version)  # not a valid version id
        summary = text.split("\n", 1)[0].removeprefix("Generic S3 error: ")
        return failure(operation, key, int(status) if status else None, code, message or summary)
    if isinstance(error, boto.ClientError):
        facts = error.response.get("Error", {})
        status_code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return failure(operation, key, status_code, facts.get("Code", ""), facts.get("Message", ""))
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return failure(operation, key, 401, "", text)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError, boto.ResponseStreamingError)):
        return failure(operation, key, None, "", text)
    if isinstance(error, boto.BotoCoreError):
        return failure(operation, key, 400, "", text)
    if isinstance(error, OSError) and operation == "get":
        return failed("keep", tempfile.gettempdir(), error)  # no space for the download
    return None


def failure(operation: str, key: str, status: int | None, code: str, message: str) -> StorageError:
    """Return the error for a server's answer: HTTP status (None: there was none), S3's code and message."""
    if code in _NO_BUCKET:
        cause, hint = "not_found", "Create the bucket, or check its name and region."
    elif status == 404 or code in ("NoSuchKey", "NoSuchVersion"):
        return not_found(key)
    elif status in (401, 403) or code == "AccessDenied":
        cause, hint = "permission", "Check the access key and its permissions for this bucket."
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

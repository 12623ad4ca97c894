"""The SDK: its import, the chunks of an answer, its errors as ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from dipeo_nb.errors import LLMError, MissingDependencyError
from dipeo_nb.llm.core.errors import HTTP_LIBRARIES, ErrorContext, said_by, said_in_stream, status_error


def load_sdk() -> Any:
    try:
        import google.genai.errors
        import google.genai.types
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'google-genai' is not installed.", hint="Run: pip install google-genai"
        ) from error
    return google.genai


opened: ContextVar[list[Any]] = ContextVar("_opened")
"""Where the responses of a call in progress are noted."""


async def chunks_of(client: Any, call: Mapping[str, Any]) -> AsyncGenerator[Any]:
    """The chunks of an answer; closing the iterator closes the connection.

    The SDK leaves that to the garbage collector (its HttpResponse refers to itself), which may be minutes later.
    """
    responses: list[Any] = []
    try:
        async with contextlib.aclosing(await client.aio.models.generate_content_stream(**call)) as chunks:
            while True:
                token = opened.set(responses)
                try:
                    chunk = await anext(chunks, None)
                finally:
                    opened.reset(token)
                if chunk is None:
                    return
                yield chunk
    finally:
        for response in responses:
            await response.aclose()


# Failures.


def is_broken(error: Exception) -> bool:
    """Whether a connection broke."""
    return type(error).__module__.partition(".")[0] in HTTP_LIBRARIES or isinstance(error, OSError)


def vendor_errors(context: ErrorContext) -> Callable[[Any], LLMError | None]:
    """What `translate_errors` needs to know of the SDK."""
    errors = load_sdk().errors

    def vendor(error: Any) -> LLMError | None:
        if isinstance(error, errors.APIError):
            return _refused(error, context)
        return None

    return vendor


HINT = "Check that GOOGLE_BASE_URL speaks the Gemini API."


def _refused(error: Any, context: ErrorContext) -> LLMError:
    """The error of an answer that is one; its details are those of https://google.aip.dev/193."""
    body: Any = error.details if isinstance(error.details, Mapping) else {}
    inner: Any = body.get("error") if isinstance(body.get("error"), Mapping) else body
    found: Any = inner.get("details")
    details = [d for d in found if isinstance(d, Mapping)] if isinstance(found, list) else []
    said = said_by(error.details)[1] or str(error.message or "")
    if not isinstance(error.code, int):
        return said_in_stream(context, str(error.status or ""), said)
    status, code = error.code, str(error.status or "")
    reasons = {d.get("reason") for d in details}
    if status == 400 and "API_KEY_INVALID" in reasons:  # Google's way to say 401
        status = 401
    if status == 429 and any("PerDay" in str(v.get("quotaId")) for d in details for v in d.get("violations") or ()):
        code = "insufficient_quota"  # until tomorrow
    headers = dict(error.response.headers) if hasattr(error.response, "headers") else {}
    return status_error(context, status, said, code=code, headers={**_asked_to_wait(details), **headers})


def _asked_to_wait(details: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`RetryInfo` as the header that it stands for: `"retryDelay": "34.07s"`."""
    for detail in details:
        if delay := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay"))):
            return {"retry-after": delay[1]}
    return {}

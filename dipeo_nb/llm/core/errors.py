"""Providers' failures as errors of ours: one taxonomy, no key in any message."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from pydantic import SecretStr

from dipeo_nb.errors import (
    AuthError,
    ContentFilteredError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
)

HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "h11")
"""Packages whose exceptions mean a broken connection."""
SAID_LIMIT = 500
"""Characters of a provider's own words that are repeated."""


class Caller(NamedTuple):
    """Who calls, for the words of errors."""

    provider: str
    model: str
    secret: SecretStr | None = None
    keyless: bool = False
    """Whether no key was sent because the server is not trusted with one."""
    variable: str = ""
    """The variable that holds the key."""
    base_url_variable: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        return {"provider": self.provider, "model": self.model}

    def harmless(self, text: str) -> str:
        """*text* without the key."""
        value = self.secret.get_secret_value() if self.secret else ""
        return text.replace(value, "…") if value else text

    def cause(self, error: Exception) -> Exception | None:
        """The vendor's error as a cause to show, unless the server repeated the key in it."""
        return error if self.harmless(str(error)) == str(error) else None


def status_error(
    caller: Caller,
    status: int,
    said: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> LLMError:
    """The error of an HTTP status and what the provider said; *code* is its own name for the problem."""
    said = caller.harmless(said).strip()[:SAID_LIMIT] or "no reason given"
    name, low = caller.provider, f"{code} {said}".lower()
    facts: dict[str, Any] = {**caller.facts, "status": status, "request_id": request_id}
    base = caller.base_url_variable
    match status:
        case 401 | 403 if caller.keyless:
            return AuthError(
                f"The server wants a key: {said}",
                hint=f"Keys of the environment go to {name} itself"
                + (f" and to the server of {base} only: set {base} to its address if you trust it" if base else "")
                + ", or run with --model local.",
                **facts,
            )
        case 401 | 403:
            fix = f"Set a valid {caller.variable}" if caller.variable else "Check the key"
            return AuthError(f"{name} refused the key: {said}", hint=f"{fix}, or run with --model local.", **facts)
        case 429 if code in ("insufficient_quota", "billing_hard_limit_reached"):  # waiting does not help
            return ProviderError(f"{name}: {said}", hint="Check plan and billing, or run with --model local.", **facts)
        case 429:
            after = retry_after(headers or {})
            wait = f" It asks to wait {after:g} s." if after is not None else ""
            return RateLimitError(
                f"{name}: too many requests: {said}{wait}",
                hint="Wait, or run fewer nodes at once (DIPEO_EXECUTION_PARALLELISM).",
                retry_after=after,
                **facts,
            )
        case 404:
            server = f" and {base}" if base else ""
            return ProviderError(f"{name}: {said}", hint=f"Check the model's name ('{caller.model}'){server}.", **facts)
    if code == "context_length_exceeded" or any(words in low for words in _TOO_LONG):
        return ContextLengthError(
            f"{name}: {said}", hint="Remember less (at_most), or use a model with a larger context.", **facts
        )
    if any(words in low for words in _FILTERED):
        return ContentFilteredError(f"{name}: {said}", hint="Change the prompt.", **facts)
    hint = "Try again later." if status >= 500 else "Check the request; the message says what is wrong."
    after = retry_after(headers or {})  # 503 and 529 may say when
    return ProviderError(f"{name} answered {status}: {said}", hint=hint, retry_after=after, **facts)


_TOO_LONG = (
    "context length",
    "context window",
    "prompt is too long",
    "context_length",
    "maximum context",
    "input token count",
)
_FILTERED = ("content_filter", "content_policy", "content filter", "content management policy", "safety system")


def broken_connection(caller: Caller, error: BaseException) -> LLMConnectionError:
    """The error of a connection that was never made or broke."""
    where = f" and {caller.base_url_variable}" if caller.base_url_variable else ""
    said = caller.harmless(str(error)).strip().rstrip(".")
    return LLMConnectionError(
        f"{caller.provider} cannot be reached: {said or type(error).__name__}.",
        hint=f"Check the network{where}, or run on the embedded model: --model local.",
        **caller.facts,
    )


def too_slow(caller: Caller) -> LLMTimeoutError:
    return LLMTimeoutError(
        f"{caller.provider} did not answer in time.", hint="Raise DIPEO_LLM_TIMEOUT.", **caller.facts
    )


@contextlib.contextmanager
def translated(caller: Caller, vendor: Callable[[Any], LLMError | None] = lambda _: None) -> Iterator[None]:
    """Errors of SDKs and HTTP libraries as ours.

    Args:
        vendor: knows the SDK's own exceptions; None for those it does not know.
    """
    try:
        yield
    except LLMError:
        raise
    except Exception as error:
        mapped = vendor(error) or _general(caller, error)
        if mapped is None:
            raise
        raise mapped from caller.cause(error)


def _general(caller: Caller, error: Exception) -> LLMError | None:
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        hint = f"Check {caller.base_url_variable}." if caller.base_url_variable else "Try again."
        return ProviderError(f"{caller.provider} sent something that is not JSON.", hint=hint, **caller.facts)
    if package in HTTP_LIBRARIES:
        name = type(error).__name__
        if "Timeout" in name:
            return too_slow(caller)
        if "Connect" in name:
            return broken_connection(caller, error)
        return LLMConnectionError(
            f"The connection to {caller.provider} broke: {name}.", hint="Try again.", **caller.facts
        )
    if isinstance(error, (ConnectionError, OSError)):
        return broken_connection(caller, error)
    return None


def stainless(sdk: Any, caller: Caller) -> Callable[[Any], LLMError | None]:
    """What `translated` needs to know of the SDKs of OpenAI and Anthropic, which are generated alike."""

    def vendor(error: Any) -> LLMError | None:
        if isinstance(error, sdk.APITimeoutError):
            return too_slow(caller)
        if isinstance(error, sdk.APIStatusError):
            body: Any = error.body if isinstance(error.body, Mapping) else {}
            inner: Any = body.get("error") if isinstance(body.get("error"), Mapping) else body
            code = str(getattr(error, "code", None) or inner.get("code") or inner.get("type") or "")
            if error.status_code < 400:  # an error within a stream that had begun well
                return said_in_stream(caller, code, str(inner.get("message") or error.message))
            return status_error(
                caller,
                error.status_code,
                str(inner.get("message") or error.message),
                code=code,
                headers=error.response.headers,
                request_id=error.request_id,
            )
        if isinstance(error, sdk.APIConnectionError):
            return broken_connection(caller, error.__cause__ or error)
        if isinstance(error, sdk.APIError):
            return said_in_stream(caller, str(getattr(error, "code", "") or ""), str(error.message))
        return None

    return vendor


def said_in_stream(caller: Caller, code: str, said: str) -> LLMError:
    """The error of an answer that failed after it had begun; there is no status then, only the provider's *code*."""
    status = {
        "rate_limit_exceeded": 429,
        "rate_limit_error": 429,
        "server_error": 500,
        "api_error": 500,
        "overloaded_error": 529,
        "authentication_error": 401,
        "permission_error": 403,
        "not_found_error": 404,
    }.get(code, 400)
    error = status_error(caller, status, said, code=code)
    if status == 400 and type(error) is ProviderError:
        return ProviderError(f"{caller.provider}: {caller.harmless(said)}", hint="Try again.", **caller.facts)
    return error


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a provider asks to wait, None when it does not.

    `Retry-After` in either of its forms (RFC 9110 §10.2.3) or in milliseconds first; else the latest of the reset headers of
    limits that are used up: `x-ratelimit-reset-*` (OpenAI: durations such as `6m0s`), `anthropic-ratelimit-*-reset` (RFC 3339).
    """
    low = {str(k).lower(): str(v) for k, v in headers.items()}
    now = now or datetime.now(UTC)
    with contextlib.suppress(ValueError, KeyError):
        return max(0.0, float(low["retry-after-ms"]) / 1000)
    value = low.get("retry-after")
    if value is not None:
        with contextlib.suppress(ValueError):
            return max(0.0, float(value))
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    waits: list[float] = []
    for name, value in low.items():
        if name.startswith("x-ratelimit-reset"):
            left, wait = low.get(name.replace("-reset", "-remaining", 1)), _duration(value)
        elif name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
            left, wait = low.get(f"{name.removesuffix('reset')}remaining"), _until(value, now)
        else:
            continue
        if wait is not None and left in (None, "0"):
            waits.append(wait)
    return max(waits, default=None)


def _duration(value: str) -> float | None:
    """Seconds in `1h2m3.5s`, `20ms` or a plain number."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[hms])", value)
    if not parts or "".join(n + u for n, u in parts) != value.strip():
        return None
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[u] for n, u in parts)


def _until(value: str, now: datetime) -> float | None:
    try:
        return max(0.0, (datetime.fromisoformat(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None

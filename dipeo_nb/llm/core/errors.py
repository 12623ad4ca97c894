"""Providers' failures as errors of ours: one taxonomy, no key in any message."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.common import clock, retry
from dipeo_nb.common.moved import renamed
from dipeo_nb.common.values import well_formed
from dipeo_nb.domain.lifecycle import Lifecycle
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
from dipeo_nb.llm.core.refusals import refusal_of

HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "h11", "anyio")
"""Packages whose exceptions mean a broken connection."""
SAID_LIMIT = 500
"""Characters of a provider's own words that are repeated."""


class ForeignAnswerError(Exception):
    """Something came with status 200 that is not an answer of the API: of a proxy, a login, another program. The text says what."""


class ErrorContext(NamedTuple):
    """What the errors of a call may say: provider, model, and the variables that a hint names."""

    provider: str
    model: str
    secret: SecretStr | None = None
    keyless: bool = False
    """Whether no key was sent because the server is not trusted with one."""
    variable: str = ""
    """The variable that holds the key."""
    base_url_variable: str = ""
    lifecycle: Lifecycle | None = None
    """When the model is shut down, and what replaces it."""

    @property
    def facts(self) -> dict[str, Any]:
        return {"provider": self.provider, "model": self.model}

    def harmless(self, text: str) -> str:
        """*text* without the key, as UTF-8 can hold it."""
        value = self.secret.get_secret_value() if self.secret else ""
        return well_formed(text.replace(value, "…") if value else text)

    def cause(self, error: Exception) -> Exception | None:
        """The vendor's error as a cause to show, unless the server repeated the key in it."""
        said = [str(e) for e in (error, *_leaves(error))]
        return error if all(self.harmless(text) == text for text in said) else None


def status_error(
    context: ErrorContext,
    status: int,
    said: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> LLMError:
    """The error of an HTTP status and what the provider said; *code* is its own name for the problem."""
    said = context.harmless(said).strip()[:SAID_LIMIT] or "no reason given"
    if said.startswith("<"):
        said = _PAGE
    name, low = context.provider, f"{code} {said}".lower()
    asked = {str(k).lower(): str(v).lower() for k, v in (headers or {}).items()}.get("x-should-retry")
    retryable = {"true": True, "false": False}.get(asked or "")
    facts: dict[str, Any] = {**context.facts, "status": status, "request_id": request_id, "retryable": retryable}
    base = context.base_url_variable
    if ended := _of_ended_model(context, status, code, said):
        return ProviderError(f"{name}: {said.rstrip('.')}. {ended[0]}", hint=ended[1], **facts)
    filtered = any(words in low for words in _FILTERED)
    refused = refusal_of(
        status, said, provider=name, model=context.model, code=code, keyless=context.keyless, page=said == _PAGE
    )
    if refused is not None and not filtered:
        kind, message, hint = refused
        return kind(message, hint=hint, **facts)
    match status:
        case 301 | 302 | 303 | 307 | 308:
            to = _place({str(k).lower(): str(v) for k, v in (headers or {}).items()}.get("location", ""))
            return ProviderError(
                f"{name}: the server sends its callers elsewhere ({status}){f', to {context.harmless(to)}' if to else ''}; the key does not go along.",
                hint=f"Set {base} to that address, if you trust it." if base else "Check the address of the server.",
                **facts,
            )
        case 403 if filtered:  # a gateway's moderation
            return ContentFilteredError(f"{name}: {said}", hint="Change the prompt.", **facts)
        case 401 | 403 if context.keyless:
            return AuthError(
                f"The server wants a key: {said}",
                hint=f"Keys of the environment go to {name} itself"
                + (f" and to the server of {base} only: set {base} to its address if you trust it" if base else "")
                + ", or run with --model local.",
                **facts,
            )
        case 401 | 403:
            fix = f"Set a valid {context.variable}" if context.variable else "Check the key"
            return AuthError(f"{name} refused the key: {said}", hint=f"{fix}, or run with --model local.", **facts)
        case 400 | 402 | 429 if status == 402 or any(words in low for words in _UNPAID):  # waiting does not help
            return ProviderError(f"{name}: {said}", hint="Check plan and billing, or run with --model local.", **facts)
        case 413:
            return ContextLengthError(f"{name}: {said}", hint=_SHORTER, **facts)
        case 429 if "request too large" in low:  # one request takes more than a minute's limit: waiting does not help
            return ContextLengthError(f"{name}: {said}", hint=_SHORTER, **facts)
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
            return ProviderError(f"{name}: {said}", hint=f"Check the model's name ('{context.model}'){server}.", **facts)
    if _TOO_LONG.search(low):
        return ContextLengthError(f"{name}: {said}", hint=_SHORTER, **facts)
    if filtered:
        return ContentFilteredError(f"{name}: {said}", hint="Change the prompt.", **facts)
    hint = "Try again later." if status >= 500 else "Check the request; the message says what is wrong."
    after = retry_after(headers or {})  # 503 and 529 may say when
    return ProviderError(f"{name} answered {status}: {said}", hint=hint, retry_after=after, **facts)


_GONE = (
    "not found", "not exist", "deprecated", "retired", "shut down", "shutdown", "no longer", "discontinued", "decommissioned",
    "not available", "unavailable", "not_found",
)  # fmt: skip
"""Words of providers for a model that they do not have (any more)."""


def _of_ended_model(context: ErrorContext, status: int, code: str, said: str) -> tuple[str, str] | None:
    """What to say (a sentence, a hint) when a server refuses a model whose end is announced; None when something else is wrong."""
    known = context.lifecycle
    if known is None or known.ends is None or status not in (400, 403, 404, 410):
        return None
    low = f"{code} {said}".lower()
    named = status != 403 and "model" in low and any(word in low for word in _GONE)
    if code != "model_not_found" and not named and not (status in (404, 410) and known.status == "ended"):
        return None
    hint = f"{known.advice[0].upper()}{known.advice[1:]}."
    if known.replacement:
        hint += " `dipeo-nb models check --fix FILE` does that in a file; --model moves one run."
    return f"{known.sentence}.", hint


_SHORTER = "Remember less (at_most), ask for a shorter answer (max_tokens), or use a model with a larger context."
_TOO_LONG = re.compile(
    "context length|context window|context size|context limit|context_length|exceed_context_size|maximum context|prompt is too long|"
    "input is too long|longer than the maximum model length|maximum prompt length|input token count|too many (?:input )?tokens|"
    "model token limit|range of input length|exceeds max length|reduce the length of|string_above_max_length|"
    "request_too_large|request too large|"
    # TGI
    "tokens`? must be <=|`inputs` must have less than"
)
"""How servers say that a request does not fit."""
_UNPAID = (
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error", "credit balance is too low",
    "insufficient credit", "insufficient balance",
)  # fmt: skip
"""How they say that nothing is left to pay with. Google's "current quota" is that of a minute."""
_FILTERED = (
    "content_filter", "content_policy", "content filter", "content management policy", "safety system", "policy_violation", "bio_policy",
    "usage policy", "usage policies", "was flagged",
)  # fmt: skip
"""How they say that its content is not allowed. `invalid_prompt` alone says neither: OpenAI means this by it, gateways any prompt
that is not right."""


def broken_connection(context: ErrorContext, error: BaseException) -> LLMConnectionError:
    """The error of a connection that was never made or broke."""
    where = f" and {context.base_url_variable}" if context.base_url_variable else ""
    said = context.harmless(str(error)).strip().rstrip(".")
    return LLMConnectionError(
        f"{context.provider} cannot be reached: {said or type(error).__name__}.",
        hint=f"Check the network{where}, or run on the embedded model: --model local.",
        **context.facts,
    )


def too_slow(context: ErrorContext) -> LLMTimeoutError:
    return LLMTimeoutError(f"{context.provider} did not answer in time.", hint="Raise DIPEO_LLM_TIMEOUT.", **context.facts)


@contextlib.contextmanager
def translate_errors(context: ErrorContext, vendor: Callable[[Any], LLMError | None] = lambda _: None) -> Iterator[None]:
    """Errors of SDKs and HTTP libraries as ours.

    Args:
        vendor: knows the SDK's own exceptions; None for those it does not know.
    """
    try:
        yield
    except LLMError:
        raise
    except Exception as error:
        mapped = _of_any(context, error, lambda inner: vendor(inner) or _general(context, inner))
        if mapped is None:
            raise
        raise mapped from context.cause(error)


class Progress:
    """How far an answer was understood."""

    begun = False
    """Whether a part of it was: the server speaks the API, and another try may succeed."""


@contextlib.contextmanager
def reading(
    context: ErrorContext, vendor: Callable[[Any], LLMError | None] = lambda _: None, *, hint: str = ""
) -> Iterator[Progress]:
    """`translate_errors`, for code that reads an answer. The SDKs do not check what they pass on, so whatever fails there on a value of
    another type than the API's, or on one that is missing, is an error of the server.

    Args:
        hint: what to check when nothing of the answer was understood.
    """
    progress = Progress()
    try:
        yield progress
    except LLMError:
        raise
    except Exception as error:

        def known(inner: Exception) -> LLMError | None:
            what = _unreadable(inner)
            if what is None and isinstance(inner, (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)):
                what = "an answer of an unknown form"
            unread = unreadable(context, what, hint=hint, begun=progress.begun) if what else None
            return vendor(inner) or unread or _general(context, inner)

        mapped = _of_any(context, error, known)
        if mapped is None:
            raise
        raise mapped from context.cause(error)


def _of_any(context: ErrorContext, error: Exception, known: Callable[[Exception], LLMError | None]) -> LLMError | None:
    """*error* as ours. A group, which only the task groups of SDKs raise, is the first of its errors that is known."""
    if not isinstance(error, ExceptionGroup):
        return known(error)
    inner = _leaves(cast(Exception, error))
    if (ours := next((e for e in inner if isinstance(e, LLMError)), None)) is not None:
        return ours
    return next(filter(None, map(known, inner)), None) or _broke(context, inner[0])


def _leaves(error: Exception) -> list[Exception]:
    """The errors within groups, and within groups in them; *error* itself when it is not a group."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    group = cast("ExceptionGroup[Exception]", error)
    return [leaf for inner in group.exceptions for leaf in _leaves(inner)]


def _broke(context: ErrorContext, error: Exception) -> LLMConnectionError:
    return LLMConnectionError(
        f"The connection to {context.provider} broke: {type(error).__name__}.", hint="Try again.", **context.facts
    )


def unreadable(context: ErrorContext, what: str, *, hint: str = "", begun: bool = False) -> ProviderError:
    """The error of an answer that cannot be used.

    Args:
        what: was sent.
        begun: whether a part of it was understood.
    """
    check = hint or (f"Check {context.base_url_variable}." if context.base_url_variable else "Try again.")
    return ProviderError(
        f"{context.provider} sent {what}.", hint="Try again." if begun else check, retryable=begun or None, **context.facts
    )


def _unreadable(error: Exception) -> str | None:
    """What came, by the error of a parser."""
    if isinstance(error, ForeignAnswerError):
        return f"{error}, not an answer of the API"
    if isinstance(error, (json.JSONDecodeError, UnicodeError)):
        return "something that is not JSON"
    return "JSON that is nested too deeply" if isinstance(error, RecursionError) else None


def _general(context: ErrorContext, error: Exception) -> LLMError | None:
    package = type(error).__module__.partition(".")[0]
    if (what := _unreadable(error)) is not None:
        return unreadable(context, what)
    if package in HTTP_LIBRARIES:
        name = type(error).__name__
        if "Timeout" in name:
            return too_slow(context)
        if "Connect" in name:
            return broken_connection(context, error)
        return _broke(context, error)
    if isinstance(error, (ConnectionError, OSError)):
        return broken_connection(context, error)
    return None


def map_sdk_error(sdk: Any, context: ErrorContext) -> Callable[[Any], LLMError | None]:
    """What `translate_errors` needs to know of the SDKs of OpenAI and Anthropic, which are generated alike."""

    def vendor(error: Any) -> LLMError | None:
        if isinstance(error, sdk.APITimeoutError):
            return too_slow(context)
        if isinstance(error, sdk.APIStatusError):
            code, said = said_by(error.body)
            said = said or _page(error) or str(error.message)
            code = str(getattr(error, "code", None) or code)
            if error.status_code < 300:  # an error within a stream that had begun well
                return said_in_stream(context, code, said)
            return status_error(
                context,
                error.status_code,
                said,
                code=code,
                headers=error.response.headers,
                request_id=error.request_id,
            )
        if isinstance(error, sdk.APIConnectionError):
            cause = error.__cause__ or error
            return _general(context, cause) if isinstance(cause, ForeignAnswerError) else broken_connection(context, cause)
        if isinstance(error, sdk.APIError):
            code, said = said_by(error.body)
            return said_in_stream(context, str(getattr(error, "code", "") or code), said or str(error.message))
        return None

    return vendor


def said_by(body: Any) -> tuple[str, str]:
    """(code, words) of a JSON error, in any of the usual forms: `{"error": {"message": …}}`, `{"error": "…"}`, `{"message": …}`,
    `{"detail": [{"msg": …}]}`; empty where there are none."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return "", "" if body.lstrip().startswith("<") else body
    if isinstance(body, list) and body:
        body = cast("list[Any]", body)[0]
    if not isinstance(body, Mapping):
        return "", ""
    outer = cast("Mapping[str, Any]", body)
    error = outer.get("error")
    inner: Mapping[str, Any] = cast("Mapping[str, Any]", error) if isinstance(error, Mapping) else outer
    metadata = inner.get("metadata")
    kind = cast("Mapping[str, Any]", metadata).get("error_type") if isinstance(metadata, Mapping) else None
    code = inner.get("code") or kind or inner.get("type") or inner.get("status") or ""
    said: Any = error if isinstance(error, str) else inner.get("message") or inner.get("detail") or ""
    if isinstance(said, list):
        parts = cast("list[Any]", said)
        said = "; ".join(str(cast("Mapping[str, Any]", p).get("msg", p)) if isinstance(p, Mapping) else str(p) for p in parts)
    try:
        return str(code), said if isinstance(said, str) else json.dumps(said)
    except RecursionError:
        return "", ""


_PAGE = "a web page came, not an answer of the API"


def _page(error: Any) -> str:
    """What is said of an answer that is a web page: a proxy's, or that of another program."""
    is_page = isinstance(error.body, str) and error.body.lstrip().startswith("<")
    return _PAGE if is_page or error.response.headers.get("content-type", "").startswith("text/html") else ""


def _place(address: str) -> str:
    """An address without what may be secret in it."""
    try:
        parts = urlsplit(address)
        return (
            f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
            if parts.hostname
            else parts.path
        )
    except ValueError:
        return ""


_STATUSES = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "internal_server_error": 500,
    "internal": 500,
    "provider_unavailable": 502,
    "unavailable": 503,
    "service_unavailable": 503,
    "slow_down": 503,
    "timeout_error": 504,
    "vector_store_timeout": 504,
    "deadline_exceeded": 504,
    "overloaded_error": 529,
    "overloaded": 529,
}
"""Providers' names of problems (of google.rpc as well) → the HTTP status that they stand for."""
_SAYING = (
    ("overloaded", 529),
    ("too many requests", 429),
    ("rate limit", 429),
    ("temporarily unavailable", 503),
    ("service unavailable", 503),
)
"""Words of errors without a name → the status that they stand for."""


def status_named(code: str, said: str) -> int | None:
    """The HTTP status of an error that came without one, by its name, or by its words when it has none."""
    if re.fullmatch("[45][0-9]{2}", code):
        return int(code)
    if (status := _STATUSES.get(code.lower())) is not None or code not in ("", "error"):
        return status
    return next((status for words, status in _SAYING if words in said.lower()), None)


def said_in_stream(context: ErrorContext, code: str, said: str) -> LLMError:
    """The error of an answer that failed after it had begun; there is no status then, only the provider's *code*, which some
    servers make a status of."""
    status = status_named(code, said) or 400
    error = status_error(context, status, said, code=code)
    if status == 400 and type(error) is ProviderError:
        said = context.harmless(said).strip()[:SAID_LIMIT] or "no reason given"
        return ProviderError(f"{context.provider}: {said}", hint="Try again.", **context.facts)
    return error


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a provider asks to wait, None when it does not.

    `Retry-After` in either of its forms (RFC 9110, section 10.2.3), as a time since 1970 or in milliseconds first; else the latest of the reset headers of
    limits that are used up: `x-ratelimit-reset-*` (OpenAI: durations such as `6m0s`), `anthropic-ratelimit-*-reset` (RFC 3339).
    """
    low = {str(k).lower(): str(v) for k, v in headers.items()}
    now = now or clock.now()
    if (wait := retry.number_of_seconds(low.get("retry-after-ms"), 1000)) is not None:
        return wait
    if (wait := retry.retry_after(low.get("retry-after"), now)) is not None:
        return wait
    waits: list[float] = []
    for name, value in low.items():
        if name.startswith("x-ratelimit-reset"):
            left, wait = low.get(name.replace("-reset", "-remaining", 1)), retry.seconds_until_reset(value, now)
        elif name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
            left, wait = low.get(f"{name.removesuffix('reset')}remaining"), _until(value, now)
        else:
            continue
        if wait is not None and left in (None, "0"):
            waits.append(wait)
    return max(waits, default=None)


def _until(value: str, now: datetime) -> float | None:
    try:
        return retry.seconds_left(datetime.fromisoformat(value), now)
    except ValueError:
        return retry.seconds_until_reset(value, now)


__getattr__: Callable[[str], Any] = renamed(
    __name__, {"Caller": "ErrorContext", "stainless": "map_sdk_error", "translated": "translate_errors"}
)

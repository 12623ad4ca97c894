"""HTTP for nodes: one client for api_job and hook, with limits, retries and one kind of error."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import stamina

from dipeo_nb.common.scrub import logger
from dipeo_nb.common.values import finite
from dipeo_nb.domain.ports import HTTPResponse
from dipeo_nb.errors import IntegrationError, ValidationError

if TYPE_CHECKING:  # takes 0.1 s to import; only runs that call a server pay for it
    import httpx

RETRIED = frozenset((429, 500, 502, 503, 504))
"""Answers that are asked for again (diagram-spec §3.8)."""
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
"""Methods that may be sent again when nobody knows whether they arrived (RFC 9110 §9.2.2)."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most."""
_LOG = logger(__name__)


class HTTPClient:
    """`HTTPPort` over httpx. Follows redirects (credentials stay with the first server), keeps no cookies.

    Args:
        max_size: bytes of an answer at most.
        transport: for tests; default: the network.
    """

    def __init__(self, *, max_size: int = 50_000_000, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._max_size = max_size
        self._transport = transport

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: str | bytes | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        retry_delay: float = 1.0,
    ) -> HTTPResponse:
        """See `domain.ports.HTTPPort`."""
        import httpx

        method = method.upper()
        address = _checked(url)
        body: dict[str, Any] = (
            {"content": content} if content is not None else {"json": finite(json)} if json is not None else {}
        )
        attempts = 0

        def again(error: Exception) -> bool | float:
            if isinstance(error, _AgainError):
                return True if error.wait is None else error.wait
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                return True  # nothing was sent
            return isinstance(error, httpx.TransportError) and method in IDEMPOTENT

        tries = stamina.retry_context(
            on=again,
            attempts=max_retries + 1,
            timeout=None,
            wait_initial=retry_delay,
            wait_max=LONGEST_WAIT,
            wait_jitter=0,
        )
        try:
            async with httpx.AsyncClient(
                timeout=timeout, follow_redirects=True, max_redirects=10, transport=self._transport, auth=auth
            ) as client:
                async for attempt in tries:
                    with attempt:
                        attempts += 1
                        response = await self._once(client, method, address, headers, params, body, attempts)
                        if response.status in RETRIED and attempts <= max_retries:
                            raise _AgainError(_retry_after(response.headers.get("retry-after")))
                        return response
        except httpx.TransportError as error:
            raise _failed(address, error, timeout, attempts) from None
        except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
            raise IntegrationError(
                f"{method} {_shown(address)}: {error}.",
                hint="Check the address.",
                url=_shown(address),
                attempts=attempts,
            ) from None
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self,
        client: httpx.AsyncClient,
        method: str,
        address: httpx.URL,
        headers: Mapping[str, str] | None,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any],
        attempts: int,
    ) -> HTTPResponse:
        if params:
            address = address.copy_merge_params(dict(params))
        async with client.stream(method, address, headers=dict(headers or {}), **body) as answer:
            pieces: list[bytes] = []
            size = 0
            async for piece in answer.aiter_bytes():
                size += len(piece)
                if size > self._max_size:
                    raise IntegrationError(
                        f"{method} {_shown(address)} answers with more than {self._max_size:,} bytes.",
                        hint="Ask for less (pages, fields); DIPEO_MAX_FILE_SIZE is the limit.",
                        url=_shown(address), status=answer.status_code, attempts=attempts,
                    )  # fmt: skip
                pieces.append(piece)
            _LOG.debug("%s %s: %d, %d bytes", method, _shown(address), answer.status_code, size)
            encoding = answer.encoding or "utf-8"
            return HTTPResponse(
                answer.status_code, dict(answer.headers), b"".join(pieces), encoding, _shown(answer.url), attempts
            )


class _AgainError(Exception):
    """An answer that is asked for again, after *wait* seconds when the server says so."""

    def __init__(self, wait: float | None) -> None:
        super().__init__("again")
        self.wait = wait


def _checked(url: str) -> httpx.URL:
    import httpx

    hint = "Write it whole: https://host/path."
    try:
        address = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValidationError(f"'{url[:200]}' is no address: {error}.", hint=hint) from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ValidationError(f"'{url[:200]}' is no address of a web server.", hint=hint)
    return address


def _shown(address: httpx.URL) -> str:
    """An address as messages show it: without name, password and query, where keys hide."""
    return str(address.copy_with(userinfo=b"", query=None, fragment=None))


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3: a number or a date); None: it says nothing."""
    if not value:
        return None
    if value.strip().isdecimal():
        return min(float(value), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = (until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _failed(address: httpx.URL, error: httpx.TransportError, timeout: float, attempts: int) -> IntegrationError:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        what, hint = f"did not answer within {timeout:g} s", "Try again, or give the node a larger `timeout` (seconds)."
    elif isinstance(error, httpx.ConnectError):
        what, hint = "cannot be reached", "Check the address and the network."
    else:
        what, hint = f"broke the connection ({type(error).__name__})", "Try again."
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    return IntegrationError(f"{_shown(address)} {what}{tried}.", hint=hint, url=_shown(address), attempts=attempts)

"""HTTP for nodes: one client for api_job and hook, with limits, retries and one kind of error.

Redirects are followed here and not by the library: to another server (scheme, host or port) go neither credentials nor bodies, and
each server on the way is checked. Names are resolved here, too: the connection is made to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dipeo_nb.common import lazy
from dipeo_nb.common.addresses import PORTS, origin
from dipeo_nb.common.http_environment import usable_environment
from dipeo_nb.common.redaction import logger, redactor
from dipeo_nb.common.retry import Backoff
from dipeo_nb.common.secret_names import may_be_secret_name
from dipeo_nb.common.values import finite
from dipeo_nb.domain.ports import HTTPResponse
from dipeo_nb.errors import IntegrationError, ValidationError
from dipeo_nb.integrations import limits
from dipeo_nb.integrations.attempts import Failure, Limits, Next, after
from dipeo_nb.integrations.body import ACCEPT_ENCODING, BodyError, read_body

if TYPE_CHECKING:  # takes 0.1 s to import; only runs that call a server pay for it
    import ssl

    import httpx2
    import stamina
else:
    stamina = lazy.module("stamina")

RETRIED = frozenset((429, 500, 502, 503, 504))
"""Answers that are asked for again."""
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
"""Methods that may be sent again when nobody knows whether they arrived (RFC 9110, section 9.2.2)."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most."""
MAX_REDIRECTS = 10
KEPT = frozenset(("accept", "accept-language", "content-type", "user-agent"))
"""Headers of a node that also another server gets to which the first one redirects."""
NEXT_ADDRESS_S = 5.0
"""Seconds for a connection to one address of a server that has more."""
NO_SERVER = "redirects to what is not an address of a web server"
OUR_OWN = frozenset(("content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"))
"""Headers that describe the transmission: the client makes them."""
_LOG = logger(__name__)


class RealTime:
    """The time, and waiting for it."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


TIME = RealTime()


class HTTPClient:
    """`HTTPPort` over httpx2. Keeps no cookies.

    Args:
        max_size: bytes of an answer at most.
        transport: for tests; default: the network.
    """

    def __init__(self, *, max_size: int = 50_000_000, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._max_size = max_size
        self._limits = Limits(TIME, TIME.sleep)
        self._transport = transport
        self._ssl: ssl.SSLContext | None = None
        """Made once: reading the certificates takes longer than many a request."""

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
        allowed: Callable[[str], bool] | None = None,
    ) -> HTTPResponse:
        """See `domain.ports.HTTPPort`."""
        import httpx2

        method = method.upper()
        address = _checked(url)
        body: dict[str, Any] = (
            {"content": content} if content is not None else {"json": finite(json)} if json is not None else {}
        )
        if auth is not None:
            headers = {**(headers or {}), "Authorization": f"Basic {base64.b64encode(':'.join(auth).encode()).decode()}"}
        first = _Message(
            method, address.copy_merge_params(dict(params)) if params else address, usable_headers(headers or {}), body
        )
        once = method not in IDEMPOTENT
        backoff = Backoff(retry_delay, LONGEST_WAIT)
        of = (_origin(address), address.path, _identity(first))
        attempts = 0
        async with self._client(timeout, listed_only=allowed is not None) as client:
            while True:
                attempts += 1
                wait: float | None = None
                if max_retries:  # else who calls keeps the limits
                    await self._limits.wait(f"{method} {_shown(address)}", None, of, LONGEST_WAIT)
                try:
                    try:
                        async with asyncio.timeout(timeout):
                            response = await self._followed(client, first, attempts, allowed)
                    except TimeoutError:  # each piece came in time, all of them did not
                        raise httpx2.ReadTimeout("") from None
                except httpx2.TransportError as error:
                    failed = _failed(address, error, timeout, attempts)
                    # An answer that did not come leaves open what was done; an answer, also a bad one, was given by somebody.
                    lost = Failure(bool(failed.facts["sent"]))
                    if after(lost, "once" if once else "idempotent", attempts, RETRIED, max_retries) is not Next.AGAIN:
                        raise failed from None
                except httpx2.InvalidURL:  # not the first one, which was checked
                    raise _redirect_error(first, NO_SERVER, "Check the address.") from None
                except httpx2.DecodingError as error:
                    raise IntegrationError(
                        f"{method} {_shown(address)}: {error}.",
                        hint="Check the address.",
                        url=_shown(address),
                        attempts=attempts,
                    ) from None
                else:
                    if max_retries:
                        wait = limits.wait_asked(response.status, response.headers, self._limits.wall())
                        if wait:
                            self._limits.close(of, min(wait, LONGEST_WAIT))
                    refused = Failure(True, response.status)
                    if response.status not in RETRIED or after(refused, "keyed", attempts, RETRIED, max_retries) is Next.FAIL:
                        return response
                if wait is None:
                    await self._limits.pause(backoff.delay(attempts))

    @asynccontextmanager
    async def _client(self, timeout: float, *, listed_only: bool) -> AsyncIterator[httpx2.AsyncClient]:
        import httpx2

        transport = self._transport
        if transport is None:
            if self._ssl is None:
                with usable_environment():
                    self._ssl = await asyncio.to_thread(httpx2.create_ssl_context)
            from dipeo_nb.integrations.checked_transport import CheckedTransport

            transport = CheckedTransport(self._ssl, listed_only=listed_only)
        own = {"Accept-Encoding": ACCEPT_ENCODING}
        async with httpx2.AsyncClient(timeout=timeout, follow_redirects=False, transport=transport, headers=own) as client:
            yield client

    async def _followed(
        self, client: httpx2.AsyncClient, first: _Message, attempts: int, allowed: Callable[[str], bool] | None
    ) -> HTTPResponse:
        """The answer to a message, after the redirects on the way to it.

        Raises:
            IntegrationError: too many; one leads to something that is not a web server or may not be called; a body would have
                to go to another server.
        """
        message, hops = first, 0
        while True:
            _check_allowed(message, first, allowed)
            response = await self._once(client, message.method, message.address, message.headers, None, message.body, attempts)
            target = response.headers.get("location") if response.status in _REDIRECTS else None
            if target is None:
                return response
            hops += 1
            if hops > MAX_REDIRECTS:
                raise _redirect_error(first, f"redirects more than {MAX_REDIRECTS} times", "Check the address.")
            message = _redirected(first, message, response.status, target)

    async def _once(
        self,
        client: httpx2.AsyncClient,
        method: str,
        address: httpx2.URL,
        headers: Mapping[str, str] | None,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any],
        attempts: int,
    ) -> HTTPResponse:
        if params:
            address = address.copy_merge_params(dict(params))
        async with client.stream(method, address, headers=dict(headers or {}), **body) as answer:
            try:
                content = await read_body(answer, self._max_size)
            except BodyError as error:
                raise IntegrationError(
                    f"{method} {_shown(address)} {error.message}.",
                    hint="Ask for less (pages, fields); DIPEO_MAX_FILE_SIZE is the limit."
                    if "more than" in error.message
                    else "Check the server.",
                    url=_shown(address), status=answer.status_code, attempts=attempts,
                ) from None  # fmt: skip
            _LOG.debug("%s %s: %d, %d bytes", method, _shown(address), answer.status_code, len(content))
            encoding = answer.encoding or "utf-8"
            return HTTPResponse(answer.status_code, dict(answer.headers), content, encoding, _shown(answer.url), attempts)


class _Message(NamedTuple):
    """What is sent to a server."""

    method: str
    address: httpx2.URL
    headers: Mapping[str, str]
    body: Mapping[str, Any]


_REDIRECTS = frozenset((301, 302, 303, 307, 308))


def _redirected(first: _Message, last: _Message, status: int, target: str) -> _Message:
    """The message that a redirect asks for (RFC 9110, section 15.4); to another server without what was meant for the first."""
    import httpx2

    try:
        address = last.address.join(target)
        there = _origin(address)
    except (httpx2.InvalidURL, ValueError):
        raise _redirect_error(first, NO_SERVER, "Check the address.") from None
    method, headers, body = last.method, last.headers, last.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", {}
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    if there == _origin(last.address):
        return _Message(method, address, headers, body)
    if body:
        raise _redirect_error(
            first, f"redirects to {there}, and a body is not sent on to another server", f"Name {there} in the node's `url`."
        )
    headers = {name: value for name, value in headers.items() if name.lower() in KEPT}
    address = address.copy_with(userinfo=b"")
    secrets = _credentials(first)
    kept = [(name, value) for name, value in address.params.multi_items() if not _holds(value, secrets)]
    if len(kept) < len(address.params.multi_items()):
        address = address.copy_with(params=kept)
    return _Message(method, address, headers, {})


def _credentials(message: _Message) -> list[str]:
    """Values of a message that are for its server only."""
    of_headers = [value.rpartition(" ")[2] for name, value in message.headers.items() if name.lower() not in KEPT]
    of_query = [value for name, value in message.address.params.multi_items() if may_be_secret_name(name)]
    return [value for value in (*of_headers, *of_query, message.address.password) if value]


def _identity(message: _Message) -> str:
    """What tells one caller of a server from another: its limits are for each."""
    return hashlib.blake2b("\0".join(_credentials(message)).encode(), digest_size=8).hexdigest()


def _holds(value: str, secrets: list[str]) -> bool:
    return redactor(value) != value or any(secret in value for secret in secrets if len(secret) >= 4)


def _check_allowed(message: _Message, first: _Message, allowed: Callable[[str], bool] | None) -> None:
    if allowed is None:
        return
    origin = _origin(message.address)
    if not allowed(origin):
        there = f"{_shown(first.address)} redirects to {origin}" if message is not first else f"{origin} is to be called"
        raise not_allowed(f"{there}, which is not on the list of what this diagram may call.", origin)


def not_allowed(message: str, origin: str) -> IntegrationError:
    """The error over a server that a diagram may not call."""
    return IntegrationError(
        message, hint=f"If you want that, run with --allow net={origin}.", cause="not_granted", wanted=f"net={origin}"
    )


def _redirect_error(first: _Message, what: str, hint: str) -> IntegrationError:
    return IntegrationError(f"{first.method} {_shown(first.address)} {what}.", hint=hint, url=_shown(first.address))


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def usable_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Headers that can be sent.

    Raises:
        ValidationError: a name or a value has characters that HTTP has no place for, or the client makes that header.
    """
    for name, value in given.items():
        shown = redactor.text(name)[:100]
        if not _TOKEN.fullmatch(name):
            raise ValidationError(f"{shown!r} is not the name of a header.", hint="Use letters, digits and hyphens.")
        if name.lower() in OUR_OWN:
            raise ValidationError(f"The header {shown} is made by the client.", hint="Leave it out.")
        if not value.isascii() or any((c < " " and c != "\t") or c == "\x7f" for c in value):
            raise ValidationError(
                f"The header {shown} has characters that a header cannot hold.",
                hint="Use ASCII on one line; encode other text (`{{x | urlencode}}`), or send it in the body.",
            )
    return dict(given)


def _checked(url: str) -> httpx2.URL:
    import httpx2

    hint = "Write it whole: https://host/path."
    shown = redactor.text(url)[:200]
    try:
        address = httpx2.URL(url.strip())
        port = address.port
    except (httpx2.InvalidURL, ValueError) as error:
        raise ValidationError(f"'{shown}' is not an address: {str(error).rstrip('.')}.", hint=hint) from None
    if address.scheme not in PORTS or not address.host:
        raise ValidationError(f"'{shown}' is not an address of a web server.", hint=hint)
    if port is not None and not 0 < port < 65536:
        raise ValidationError(f"'{_shown(address)}' is not an address: there is no port {port}.", hint=hint)
    return address


def _origin(address: httpx2.URL) -> str:
    """The server, as the library will call it: a second parser could see another one."""
    return origin(address.scheme, address.raw_host.decode("ascii"), address.port)


def _shown(address: httpx2.URL) -> str:
    """An address as messages show it: without name, password and query, where keys hide."""
    return str(address.copy_with(userinfo=b"", query=None, fragment=None))


def _failed(address: httpx2.URL, error: httpx2.TransportError, timeout: float, attempts: int) -> IntegrationError:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        what, hint = f"did not answer within {timeout:g} s", "Try again, or give the node a larger `timeout` (seconds)."
    elif isinstance(error, httpx2.ConnectError):
        what, hint = "cannot be reached", "Check the address and the network."
    elif "location header" in str(error):
        what, hint = NO_SERVER, "Check the address."
    else:
        what, hint = f"broke the connection ({type(error).__name__})", "Try again."
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    sent = not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
    return IntegrationError(f"{_shown(address)} {what}{tried}.", hint=hint, url=_shown(address), attempts=attempts, sent=sent)

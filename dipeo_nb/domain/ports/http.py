"""Web servers and integrations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


class HTTPResponse(NamedTuple):
    """A web server's answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes
    encoding: str
    url: str
    """After redirects, without its query."""
    attempts: int

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding, "replace")


@runtime_checkable
class HTTPPort(Protocol):
    """Requests to web servers, as used by api_job and hook nodes."""

    @abstractmethod
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
        """Send a request and return the answer, whatever its status.

        Redirects are followed, 10 at most. A server other than the one in *url* (scheme, host or port) gets neither a body nor
        credentials: only a few harmless headers, no user name and password, no key in the query.

        Statuses 429, 500, 502, 503 and 504 are retried (after the server's Retry-After, else after *retry_delay* seconds, doubled
        each time, 60 at most), and so are failed connections if a retry is safe. What a server says about its limits (Retry-After,
        `X-RateLimit-Remaining: 0`) is kept for later requests with the same path and credentials, too. With *max_retries* 0 there
        is one attempt, at once.

        Args:
            params: added to the query of the address.
            json: body as JSON; or *content*, unchanged.
            auth: user name and password (Basic).
            timeout: seconds without a byte, for each attempt.
            allowed: whether a server (`https://host`, `http://host:8080`: `common.addresses.origin_of`) may be called, also by
                a redirect. Names that resolve to this machine or its network are refused then; only explicit
                addresses (`localhost`, `10.0.0.5`) can be allowed. None: every server.

        Raises:
            ValidationError: the address is not an http or https URL, or a header cannot be sent.
            IntegrationError: no answer, one that is too large, or a server that may not be called (`cause` is `not_granted`).
        """
        ...


class OfferedTool(NamedTuple):
    """An operation as a tool of a model."""

    operation: str
    """`provider.operation`."""
    description: str
    schema: Mapping[str, Any]
    """JSON schema of its arguments."""
    destructive: bool = False
    """Whether the user is asked before each call."""


@runtime_checkable
class IntegrationPort(Protocol):
    """Operations of providers (issue trackers, chats …), as used by integrated_api nodes."""

    @abstractmethod
    def operations(self) -> Mapping[str, Sequence[str]]:
        """Return provider → its operations."""
        ...

    @abstractmethod
    async def execute(
        self,
        provider: str,
        operation: str,
        *,
        resource_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        api_key_id: str | None = None,
        timeout: float | None = None,
        max_retries: int = 3,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Any:
        """Call an operation and return its answer as a JSON value.

        Args:
            config: parameters of the operation.
            api_key_id: id of the key; None: the provider's own.
            timeout: seconds.
            max_retries: retries after transient failures.
            idempotency_key: the same for every attempt at the same work.
            more: given only when they are not the defaults: `repeated` (an earlier attempt at the same work may have been sent),
                `all` and `limit` (pages of a list), `progress` (a function that hears of each page, given with these two).

        Raises:
            ServiceError: the provider refuses or cannot be reached.
            ValidationError: no such provider or operation; the message lists the available ones.
        """
        ...

"""Servers and what is offered there."""

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
    """Of the last redirect, without its query."""
    attempts: int

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding, "replace")


@runtime_checkable
class HTTPPort(Protocol):
    """Requests to web servers: what api_job and hook nodes use."""

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
        """Send a request; any answer is returned, also 404.

        Redirects are followed, 10 at most. A server other than the one in *url* (scheme, host or port) gets neither a body nor
        credentials: no header but a few harmless ones, no name and password, no key in the query.

        Answers 429, 500, 502, 503 and 504 are asked for again (after the server's Retry-After, else after *retry_delay*
        seconds, doubled each time, 60 at most), and so are connections that failed where repeating does no harm.

        Args:
            params: added to the query of the address.
            json: body as JSON; or *content*, as it is.
            auth: name and password (Basic).
            timeout: seconds without a byte, each attempt.
            allowed: whether a server (`https://host`, `http://host:8080`: `common.addresses.origin_of`) may be called, also by
                a redirect. Names that lead to this machine or its network are refused then; only an address that is openly
                one (`localhost`, `10.0.0.5`) can be allowed. None: every server.

        Raises:
            ValidationError: the address is none of http or https, or a header cannot be sent.
            IntegrationError: no answer, one that is too large, or a server that may not be called (`cause` is `not_granted`).
        """
        ...


@runtime_checkable
class IntegrationPort(Protocol):
    """Operations of providers (issue trackers, chat rooms …): what integrated_api nodes call."""

    @abstractmethod
    def operations(self) -> Mapping[str, Sequence[str]]:
        """Provider → its operations."""
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
    ) -> Any:
        """Call an operation; its answer as a JSON value.

        Args:
            config: what the operation takes.
            api_key_id: id of the key; None: the provider's own.
            timeout: seconds.
            max_retries: how often a transient failure is tried again.
            idempotency_key: the same for every attempt at the same work.

        Raises:
            ServiceError: the provider refuses or cannot be reached.
            ValidationError: no such provider or operation; the message lists those there are.
        """
        ...

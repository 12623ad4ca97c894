"""The network of the HTTP client: names are resolved here, the addresses are checked, and one of the checked ones is called.

A name that is resolved once to be checked and again to be called may lead elsewhere the second time (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx2

from dipeo_nb.common.addresses import is_private, names_this_network, origin
from dipeo_nb.common.http_environment import proxy_for, usable_environment
from dipeo_nb.errors import IntegrationError
from dipeo_nb.integrations.http import NEXT_ADDRESS_S, not_allowed


class CheckedTransport(httpx2.AsyncBaseTransport):
    """For one request and its redirects.

    Args:
        context: of TLS.
        listed_only: private addresses are called only where the host is openly one of this machine or network. Otherwise the
            first server may be anywhere, but a server of the internet cannot redirect into the private network.
    """

    def __init__(self, context: ssl.SSLContext, *, listed_only: bool) -> None:
        self._context = context
        self._listed_only = listed_only
        self._direct = httpx2.AsyncHTTPTransport(verify=context)
        self._proxied: dict[str, httpx2.AsyncHTTPTransport] = {}
        self._first: str | None = None
        """The server that was called first."""
        self._began_private = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.raw_host.decode("ascii")
        server = origin(request.url.scheme, host, request.url.port)
        proxy = proxy_for(request.url.scheme, request.url.host)
        # A proxy resolves names itself; where addresses matter, ours are an indication at least.
        found = await self._resolved(request, required=proxy is None) if proxy is None or self._listed_only else []
        private = {address for address in found if is_private(address)}
        if self._first is None:
            self._first, self._began_private = server, bool(private)
        if private and not self._may_be_private(host, server):
            found = [address for address in found if address not in private]
            if not found:
                raise (
                    not_allowed(
                        f"{server} leads to an address of this machine or its network, where this diagram may not call.", server
                    )
                    if self._listed_only
                    else IntegrationError(
                        f"A redirect leads to {server}, which is this machine or its network.",
                        hint=f"If that is meant, name {server} in the node's `url`.",
                        cause="private_address",
                    )
                )
        if proxy is not None:
            return await self._via(proxy).handle_async_request(request)
        return await self._call(request, found)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._proxied.values()):
            await transport.aclose()

    def _may_be_private(self, host: str, server: str) -> bool:
        if self._listed_only:
            return names_this_network(host)
        return self._began_private or server == self._first

    async def _call(self, request: httpx2.Request, addresses: list[str]) -> httpx2.Response:
        """Try the addresses in their order."""
        *others, last = addresses
        for address in others:
            try:
                return await self._direct.handle_async_request(_to(request, address, NEXT_ADDRESS_S))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # the next one may be reached
        return await self._direct.handle_async_request(_to(request, last, None))

    async def _resolved(self, request: httpx2.Request, *, required: bool) -> list[str]:
        """The addresses of the host; none where a proxy resolves the name and this machine cannot."""
        host, port = request.url.raw_host.decode("ascii"), request.url.port or 0
        timeout = request.extensions.get("timeout", {}).get("connect")
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            if required:
                raise httpx2.ConnectTimeout("its name is not resolved in time", request=request) from None
            return []
        except (OSError, UnicodeError) as error:
            if required:
                raise httpx2.ConnectError(f"its name is not known ({error})", request=request) from None
            return []
        return list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))

    def _via(self, proxy: str) -> httpx2.AsyncHTTPTransport:
        if proxy not in self._proxied:
            with usable_environment():
                self._proxied[proxy] = httpx2.AsyncHTTPTransport(verify=self._context, proxy=httpx2.Proxy(proxy))
        return self._proxied[proxy]


def _to(request: httpx2.Request, address: str, connect_s: float | None) -> httpx2.Request:
    """The same request, sent to an address; certificate and Host stay those of the name."""
    host = request.url.raw_host.decode("ascii")
    extensions = dict(request.extensions)
    if address != host:
        extensions["sni_hostname"] = host
    if connect_s is not None:
        limits = dict(extensions.get("timeout", {}))
        limits["connect"] = min(limits.get("connect") or connect_s, connect_s)
        extensions["timeout"] = limits
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )

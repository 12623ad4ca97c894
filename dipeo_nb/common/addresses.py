"""Addresses of web servers: what makes two of them the same server, and which are those of this machine and its own network."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
"""The port of a scheme when an address names none."""


def origin_of(url: str) -> str:
    """The server of an address as `scheme://host:port`, in one spelling: lower case, no final dot, ASCII (`xn--…`), no port
    where it is the scheme's own.

    Raises:
        ValueError: it is none of http or https, or names no host.
    """
    parts = urlsplit(url.strip())
    return origin(parts.scheme, parts.hostname or "", parts.port)


def origin(scheme: str, host: str, port: int | None) -> str:
    """`origin_of` for an address that is split already."""
    scheme, host = scheme.lower(), host.lower().removesuffix(".")
    if scheme not in PORTS or not host:
        raise ValueError("not the address of a web server")
    if not host.isascii():
        host = host.encode("idna").decode()
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port is not None and port != PORTS[scheme] else "")


def names_this_network(host: str) -> bool:
    """Whether a host, as it is written, is openly one of this machine or its network: `localhost` or a private address."""
    host = host.lower().removesuffix(".").strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return is_private(host)
    except ValueError:
        return False


def is_private(address: str) -> bool:
    """Whether an IP address is not one of the public internet: loopback, private, link-local, shared, reserved, multicast; also
    when it is wrapped into an IPv6 address.

    Raises:
        ValueError: it is not an address.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        teredo = found.teredo
        inner = found.ipv4_mapped or found.sixtofour or (teredo[1] if teredo else None)
        if inner is None and any(found in network for network in _WITH_IPV4):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(str(inner))
    return not found.is_global or found.is_multicast


_WITH_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""IPv6 addresses that end with the IPv4 address they lead to."""

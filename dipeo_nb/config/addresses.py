"""Server addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

OWN_HOSTS = {
    "openai": ("api.openai.com",),
    "anthropic": ("api.anthropic.com",),
    "google": ("generativelanguage.googleapis.com",),
}
"""Hosts of the providers' own servers; subdomains count as theirs."""


def is_url(text: str) -> bool:
    return "://" in text


def is_own_server(url: str, hosts: Iterable[str]) -> bool:
    """Whether a URL belongs to one of a provider's own servers, over https."""
    try:
        address = urlsplit(url)
        host, _ = address.hostname or "", address.port
    except ValueError:
        return False
    plain = not re.search(r"[\s\\\x00-\x1f]", url) and "@" not in address.netloc
    return plain and address.scheme == "https" and any(host == own or host.endswith(f".{own}") for own in hosts)


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    try:
        return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


def ollama_address(host: str) -> str:
    """Return the URL of an OLLAMA_HOST value: scheme http and port 11434 by default; a listen address becomes a loopback address.

    Follows Ollama's own client (envconfig.Host, envconfig.ConnectableHost).
    """
    text = host.strip().strip("\"'")
    scheme, there, rest = text.partition("://")
    rest = rest.rstrip("/")
    if there and not rest:
        return text  # without an address; using it reports the error
    if not there:
        scheme, rest = "http", text.rstrip("/")
    place, slash, path = rest.partition("/")
    name, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):  # no port; `[::1]` has colons of its own
        name, port = place, "" if there else "11434"
    name = {"": "localhost", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)
    return f"{scheme}://{name}{':' if port else ''}{port}{slash}{path}"

"""Servers of the Model Context Protocol in the usual `.mcp.json` of the base directory.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "."]},
                    "docs": {"type": "http", "url": "https://docs.example/mcp", "headers": {"Authorization": "Bearer ${DOCS_TOKEN}"}}}}

Such a file starts programs and sends data away, so it counts only when the user trusts its folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dipeo_nb.common.addresses import origin_of
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import parse_json
from dipeo_nb.errors import ManifestError, TrustError, ValidationError

FILE = ".mcp.json"
PREFIX = "mcp_"
"""Before the name of a server: the name of its provider."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*+)(?::-([^}$]*+))?\}")


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server: a command that is started, or an address."""

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class McpFile:
    """The servers that a base directory names.

    Args:
        trusted: whether the user trusts a file.
        variable: the value of a variable of the user's, for `${NAME}`; None when it is not set.
    """

    def __init__(self, base: Path, trusted: Callable[[Path], bool], variable: Callable[[str], str | None]) -> None:
        self._path = base / FILE
        self._base = base
        self._trusted = trusted
        self._variable = variable

    def names(self) -> list[str]:
        """The providers of its servers; none when there is no such file, or it cannot be read."""
        try:
            return [provider_name(name) for name in self._servers()]
        except ManifestError:
            return []

    def find(self, provider: str) -> McpServer:
        """A server by the name of its provider.

        Raises:
            ValidationError: there is none.
            ManifestError: the file cannot be used.
            TrustError: its folder is not trusted.
        """
        servers = {provider_name(name): (name, given) for name, given in self._servers().items()}
        if provider not in servers:
            raise ValidationError(
                f"{FILE} names no server for '{provider:.80}'.",
                hint=did_you_mean(provider, servers, f"There are: {', '.join(servers) or 'none'}."),
            )
        if not self._trusted(self._path):
            raise TrustError(
                f"{self._path} says which programs are started and where data is sent to, and its folder is not trusted.",
                hint=f"Read it, then: dipeo-nb trust {self._path.parent} (dp.trust).",
            )
        name, given = servers[provider]
        return self._server(name, given)

    def _servers(self) -> Mapping[str, Any]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError:
            raise self._wrong("it is not UTF-8 text") from None
        except OSError as error:
            raise failed("read", str(self._path), error) from error
        try:
            value = parse_json(text)
        except ValueError as error:
            raise self._wrong(f"it is not JSON ({error})") from None
        servers = value.get("mcpServers") if isinstance(value, Mapping) else None
        if not isinstance(servers, Mapping):
            raise self._wrong("it has no mapping `mcpServers`")
        return servers

    def _server(self, name: str, given: Any) -> McpServer:
        if not isinstance(given, Mapping):
            raise self._wrong(f"{name} is not a mapping")
        kind = given.get("type") or ("http" if "url" in given else "stdio")
        if kind == "sse":
            raise self._wrong(
                f"{name} is of the type sse, which the protocol has given up", 'Use the address of its "http" endpoint.'
            )
        if kind not in ("stdio", "http", "streamable-http"):
            raise self._wrong(f"{name} has the type {str(kind)[:40]!r}", "Use stdio or http.")
        if kind == "stdio":
            command, args = given.get("command"), given.get("args", [])
            if (
                not isinstance(command, str)
                or not command
                or not isinstance(args, list)
                or not all(isinstance(a, str) for a in args)
            ):
                raise self._wrong(f"{name} needs a `command`, and `args` that are a list of texts")
            cwd = given.get("cwd")
            return McpServer(
                name,
                self._filled(command),
                tuple(map(self._filled, args)),
                self._texts(name, given, "env"),
                str(cwd) if cwd else str(self._base),
            )
        url = self._filled(str(given.get("url") or ""))
        try:
            origin_of(url)
        except ValueError:
            raise self._wrong(f"{name} has no `url` of a web server") from None
        return McpServer(name, url=url, headers=self._texts(name, given, "headers"))

    def _texts(self, name: str, given: Mapping[str, Any], part: str) -> dict[str, str]:
        texts = given.get(part, {})
        if not isinstance(texts, Mapping) or not all(isinstance(value, str) for value in texts.values()):
            raise self._wrong(f"`{part}` of {name} is not a mapping of texts")
        redactor.add_named({part: dict(texts)})
        return {str(key): self._filled(value) for key, value in texts.items()}

    def _filled(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            given = self._variable(found[1])
            if given is None and found[2] is None:
                raise ManifestError(
                    f"{self._path} needs the variable {found[1]}.", hint=f"Set {found[1]}.", path=str(self._path)
                )
            if given is not None and len(given) >= 8:
                redactor.add(given)
            return given if given is not None else found[2]

        return _VARIABLE.sub(value, text)

    def _wrong(self, why: str, hint: str = "Correct the file.") -> ManifestError:
        return ManifestError(f"{self._path} cannot be used: {why}.", hint=hint, path=str(self._path))


def provider_name(server: str) -> str:
    """The provider of a server: `mcp_` and its name in lower case."""
    return PREFIX + re.sub(r"[^a-z0-9]+", "_", server.lower()).strip("_")

"""Tools of MCP servers: connections, which stay open while their session does, and calls. Needs the extra `mcp`, which is imported
when a server is used.

Nothing is built on what the protocol has given up (sampling, roots, logging). A question of a server (elicitation) is one of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from dipeo_nb.common import json_schema
from dipeo_nb.common.loop import on_library_loop, run_sync
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import plain_value
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import (
    IntegrationError,
    ManifestError,
    MissingDependencyError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnknownOutcomeError,
    ValidationError,
)
from dipeo_nb.integrations.mcp_forms import filled_in
from dipeo_nb.integrations.mcp_oauth import Paste, authorization
from dipeo_nb.integrations.mcp_servers import McpFile, McpServer
from dipeo_nb.integrations.provider_port import Ask

CONNECT_S = 60.0
"""Seconds until a server has to be ready; a first start may install it."""
MOST_PAGES = 100
_asking: ContextVar[Ask | None] = ContextVar("dipeo_nb_mcp_ask", default=None)


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server."""

    name: str
    description: str
    schema: Mapping[str, Any]
    read_only: bool = False
    destructive: bool = False
    """Whether the server says so."""
    idempotent: bool = False


@dataclass(slots=True)
class _Connection:
    """A connection, held open by a task of its own: it has to be closed by the task that opened it."""

    server: McpServer
    client: Any = None
    http: Any = None
    """The client of HTTP under it, which is ours to close."""
    tools: dict[str, McpTool] = field(default_factory=dict)
    changed: bool = False
    """Whether the server has said that it has other tools now."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    asks: list[Ask] = field(default_factory=list)
    """Of the calls that are going on."""


class McpClients:
    """The connections of a session, one for each server. Its coroutines run on one event loop."""

    def __init__(self, file: McpFile, keys: APIKeyPort | None = None) -> None:
        self._file = file
        self._keys = keys
        self._open: dict[str, _Connection] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def names(self) -> list[str]:
        """The providers of the servers."""
        return self._file.names()

    def check_server(self, provider: str) -> None:
        """See to it that there is such a server, and that it may be started. Raises as `McpFile.find`."""
        self._file.find(provider)

    def known_tools(self, provider: str) -> dict[str, McpTool]:
        """The tools of a server; it is asked for them unless this is the loop that would answer. Raises as `tools`."""
        self._file.find(provider)
        if on_library_loop():
            return dict(self._open[provider].tools) if provider in self._open else {}
        return run_sync(self.tools(provider))

    async def tools(self, provider: str) -> dict[str, McpTool]:
        """The tools of a server by name.

        Raises:
            ValidationError, ManifestError, TrustError: see `McpFile.find`.
            ProviderUnavailableError: it cannot be started or reached.
            MissingDependencyError: without the extra `mcp`.
        """
        return (await self._current(provider)).tools

    async def execute(
        self, provider: str, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None,
        progress: Callable[[str], None] | None = None, ask: Ask | None = None,
    ) -> Any:  # fmt: skip
        """Call a tool; the result is its structured content, else its text.

        Raises:
            ProviderRejectedError: the tool reports an error, or its result is not what its schema says.
            UnknownOutcomeError: the connection was lost, and the tool may have done its work.
            ProviderUnavailableError: the same, of a tool that only reads; or as `tools`.
            ValidationError: there is no such tool, or the arguments do not fit.
        """
        connection = await self._current(provider, tool)
        if (found := connection.tools.get(tool)) is None:
            raise ValidationError(
                f"{provider} has no tool '{tool:.80}'.",
                hint=did_you_mean(tool, connection.tools, f"It has: {', '.join(connection.tools)}."),
            )
        sent = check_arguments(f"{provider}.{tool}", found, arguments)

        async def report(done: float, total: float | None, message: str | None) -> None:
            if progress is not None:
                progress(f"{provider}.{tool}: {done:g}{f' of {total:g}' if total else ''}{f', {message}' if message else ''}")

        patience = asyncio.timeout(timeout)

        async def asked(question: str) -> str | None:
            patience.reschedule(None)  # the user's time is not the server's
            answer = None if ask is None else await ask(question)
            patience.reschedule(None if timeout is None else asyncio.get_running_loop().time() + timeout)
            return answer

        token = _asking.set(asked)
        connection.asks.append(asked)
        try:
            async with patience:
                result = await connection.client.call_tool(tool, sent, progress_callback=report)
        except TimeoutError:
            raise _lost(f"{provider}.{tool} did not answer within {timeout or 0:g} s", found) from None
        except (IntegrationError, ValidationError):
            raise
        except Exception as error:
            raise await self._failure(provider, tool, connection, found, error) from error
        finally:
            _asking.reset(token)
            connection.asks.remove(asked)
        return _value(f"{provider}.{tool}", result)

    async def authorize(self, provider: str, paste: Paste) -> None:
        """Get the user's consent to use a server (OAuth), and store it. Raises as `tools`."""
        await self._close(provider)
        await self._connected(provider, paste)

    async def cleanup(self) -> None:
        """Close all connections; programs that were started end."""
        for provider in list(self._open):
            await self._close(provider)

    # Connections.

    async def _current(self, provider: str, tool: str | None = None) -> _Connection:
        """The connection, with the tools that the server has now; one that is not among them is asked for again."""
        connection = await self._connected(provider)
        if connection.changed or (tool is not None and tool not in connection.tools):
            connection.changed = False
            try:
                connection.tools = await _listed(connection.client)
            except Exception as error:
                await self._close(provider)
                raise _unreachable(provider, connection.server, error) from error
        return connection

    async def _connected(self, provider: str, paste: Paste | None = None) -> _Connection:
        async with self._locks.setdefault(provider, asyncio.Lock()):
            connection = self._open.get(provider)
            if connection is not None and connection.task is not None and not connection.task.done():
                return connection
            connection = _Connection(self._file.find(provider))
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection.task = asyncio.create_task(self._hold(provider, connection, ready, paste), name=f"mcp {provider}")
            try:
                async with asyncio.timeout(CONNECT_S if paste is None else None):  # the user's time is not the server's
                    await asyncio.shield(ready)
            except TimeoutError:
                connection.task.cancel()
                raise ProviderUnavailableError(
                    f"The server of {provider} is not ready within {CONNECT_S:g} s.", hint="Start it by hand to see why."
                ) from None
            self._open[provider] = connection
            return connection

    async def _hold(self, provider: str, connection: _Connection, ready: asyncio.Future[None], paste: Paste | None) -> None:
        refused: list[Exception] = []
        try:
            auth = None
            if self._keys is not None and not any(name.lower() == "authorization" for name in connection.server.headers):
                auth = await _authorization(provider, connection.server, self._keys, paste, refused.append)
            client = _client(connection, auth)
            async with client:
                connection.client = client
                connection.tools = await _listed(client)
                ready.set_result(None)
                await connection.stop.wait()
        except Exception as error:  # noqa: BLE001 - given to who waits for the connection, or seen by the next call
            if not ready.done():
                ready.set_exception(
                    refused[0]
                    if refused
                    else error
                    if isinstance(error, (MissingDependencyError, IntegrationError, ManifestError))
                    else _unreachable(provider, connection.server, error)
                )
        finally:
            if connection.http is not None:
                await connection.http.aclose()

    async def _close(self, provider: str) -> None:
        connection = self._open.pop(provider, None)
        if connection is None or connection.task is None:
            return
        connection.stop.set()
        done, _ = await asyncio.wait({connection.task}, timeout=10)
        if not done:
            connection.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connection.task

    async def _failure(self, provider: str, tool: str, connection: _Connection, found: McpTool, error: Exception) -> Exception:
        """The error of a call: an answer that reports one, or a connection that is gone."""
        said = redactor.text(_said(error))[:500]
        if type(error).__name__ in ("MCPError", "McpError") and "closed" not in said.lower():
            return ProviderRejectedError(f"{provider}.{tool} fails: {said.rstrip('.')}.", hint="Correct the arguments.")
        if isinstance(error, RuntimeError) and "schema" in said.lower():
            return ProviderRejectedError(
                f"{provider}.{tool}: {said.rstrip('.')}.", hint="The server breaks its own promise; report it to its author."
            )
        await self._close(provider)
        return _lost(f"The server of {provider} is gone ({said or type(error).__name__})", found)


def check_arguments(name: str, tool: McpTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """See to it that arguments fit the schema of a tool; returns those to send: None is left out where it means "not given".

    Raises:
        ValidationError: they do not.
        ManifestError: the server's schema is none.
    """
    json_schema.load()
    from jsonschema import SchemaError

    sent = {key: value for key, value in arguments.items() if value is not None or not _optional(tool.schema, key)}
    try:
        problems = list(validator(dict(tool.schema)).iter_errors(sent))
    except SchemaError as error:
        raise ManifestError(
            f"{name} has a schema that is none: {error.message[:200]}.", hint="Report it to the author of the server."
        ) from None
    except Exception as error:  # noqa: BLE001 - a `$ref` that leads nowhere
        raise ManifestError(
            f"{name} has a schema that cannot be used: {str(error)[:200]}.", hint="Report it to the author of the server."
        ) from None
    for problem in problems:
        where = "".join(f"[{step!r}]" for step in problem.absolute_path)
        raise ValidationError(
            f"{name}: the arguments{where} do not fit: {problem.message[:300].rstrip('.')}.",
            hint=f"It takes: {', '.join(tool.schema.get('properties', {})) or 'nothing'}.",
        )
    return sent


def _optional(schema: Mapping[str, Any], name: str) -> bool:
    """Whether a parameter may be left out, and has a type of which None is none."""
    field = schema.get("properties", {}).get(name)
    kinds = field.get("type") if isinstance(field, Mapping) else None
    return name not in schema.get("required", ()) and isinstance(kinds, str) and kinds != "null"


async def _authorization(
    provider: str, server: McpServer, keys: APIKeyPort, paste: Paste | None, refused: Callable[[Exception], None]
) -> Any:
    if not server.url:
        return None
    try:
        return await authorization(provider, server.url, keys, paste, refused)
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "mcp", extra="mcp") from error


def _client(connection: _Connection, auth: Any) -> Any:
    try:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.types import ElicitResult, ToolListChangedNotification
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "mcp", extra="mcp") from error
    import httpx2

    async def answered(context: Any, params: Any) -> Any:
        ask = _asking.get() or (connection.asks[-1] if len(connection.asks) == 1 else None)
        content = None if ask is None else await filled_in(connection.server.name, params, ask)
        return ElicitResult(action="cancel") if content is None else ElicitResult(action="accept", content=content)

    async def noticed(message: Any) -> None:
        connection.changed |= isinstance(message, ToolListChangedNotification)

    server = connection.server
    if server.url:
        http = connection.http = httpx2.AsyncClient(
            headers=dict(server.headers), timeout=httpx2.Timeout(30, read=300), follow_redirects=False, auth=auth
        )
        transport: Any = streamable_http_client(server.url, http_client=http)
    else:
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=dict(server.env) or None, cwd=server.cwd
        )
        transport = stdio_client(parameters, errlog=subprocess.DEVNULL)  # pyright: ignore[reportArgumentType] - a kernel's stderr is not a file
    return Client(transport, elicitation_callback=answered, message_handler=noticed)


async def _listed(client: Any) -> dict[str, McpTool]:
    found: dict[str, McpTool] = {}
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            hints = tool.annotations
            found[tool.name] = McpTool(
                tool.name, tool.description or "", dict(tool.input_schema or {"type": "object"}),
                read_only=bool(hints and hints.read_only_hint), destructive=bool(hints and hints.destructive_hint),
                idempotent=bool(hints and hints.idempotent_hint),
            )  # fmt: skip
        if not page.next_cursor or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    return found


def _value(name: str, result: Any) -> Any:
    text = "\n".join(part.text for part in result.content if getattr(part, "type", "") == "text")
    if result.is_error:
        raise ProviderRejectedError(
            f"{name} fails: {redactor.text(text)[:500].rstrip('.') or 'without a reason'}.", hint="Correct the arguments."
        )
    if result.structured_content is not None:
        return plain_value(result.structured_content, name)
    others = [
        part.model_dump(mode="json", by_alias=True, exclude_none=True)
        for part in result.content
        if getattr(part, "type", "") != "text"
    ]
    return text if not others else {"text": text, "content": others}


def _lost(what: str, tool: McpTool) -> IntegrationError:
    if tool.read_only or tool.idempotent:
        return ProviderUnavailableError(f"{what}.", hint="Try again.")
    return UnknownOutcomeError(
        f"{what}; whether {tool.name} has done its work is not known.", hint="Look before you do it again."
    )


def _unreachable(provider: str, server: McpServer, error: Exception) -> ProviderUnavailableError:
    where = server.url.partition("?")[0] or server.command
    return ProviderUnavailableError(
        f"The server of {provider} ({where}) cannot be used: {redactor.text(_said(error))[:300].rstrip('.') or type(error).__name__}.",
        hint="Start it by hand to see why." if server.command else "Check the address and the network.",
    )


def _said(error: BaseException) -> str:
    """What an error says; of a group the first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__

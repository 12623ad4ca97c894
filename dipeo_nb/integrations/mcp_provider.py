"""MCP servers as providers: each tool is an operation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.text import did_you_mean
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import DipeoError, ValidationError
from dipeo_nb.integrations.description import TYPES
from dipeo_nb.integrations.mcp_client import McpClients, McpTool, check_arguments
from dipeo_nb.integrations.provider_port import Call


class McpProvider:
    """`ProviderPort` over a server. What names its tools starts it."""

    starts = True

    def __init__(self, name: str, clients: McpClients) -> None:
        self.name = name
        self.clients = clients

    def operation_names(self) -> tuple[str, ...]:
        return tuple(self.clients.known_tools(self.name))

    def check(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> Any:
        check_arguments(f"{self.name}.{operation}", self._tool(operation), config)

    def check_node(self, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        self.clients.check_server(self.name)

    async def check_key(self, key_id: str | None) -> None:
        """Nothing: its server asks for it."""

    def accepted(self, operation: str) -> frozenset[str] | None:
        return None

    def preview(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> dict[str, Any]:
        self.check(operation, config, resource_id)
        return {"operation": f"{self.name}.{operation}", "effect": _effect(self._tool(operation)), "parameters": dict(config)}

    async def offered(self) -> list[OfferedTool]:
        return [
            OfferedTool(f"{self.name}.{name}", tool.description or name, tool.schema, tool.destructive)
            for name, tool in (await self.clients.tools(self.name)).items()
        ]

    async def execute(self, operation: str, call: Call) -> Any:
        return await self.clients.execute(
            self.name, operation, call.parameters, timeout=call.timeout, progress=call.progress, ask=call.ask
        )

    async def row(self) -> dict[str, Any]:
        row = {"provider": self.name, "ready": "yes", "operations": None, "about": "An MCP server.", "from": ".mcp.json"}
        try:
            self.clients.check_server(self.name)
        except DipeoError as error:
            row |= {"ready": f"no: {error}", "about": ""}
        return row

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"operation": name, "effect": _effect(tool),
             "parameters": ", ".join(f"{p}*" if p in tool.schema.get("required", ()) else p for p in tool.schema.get("properties", {})),
             "about": tool.description.partition("\n")[0]}
            for name, tool in self.clients.known_tools(self.name).items()
        ]  # fmt: skip

    def signature(self, operation: str) -> inspect.Signature:
        return tool_signature(self._tool(operation))

    def help(self, operation: str) -> str:
        return self._tool(operation).description

    def _tool(self, operation: str) -> McpTool:
        tools = self.clients.known_tools(self.name)
        if operation not in tools:
            raise ValidationError(
                f"{self.name} has no tool '{operation:.80}'.",
                hint=did_you_mean(operation, tools, f"It has: {', '.join(tools)}."),
            )
        return tools[operation]


def _effect(tool: McpTool) -> str:
    return "read" if tool.read_only else "idempotent" if tool.idempotent else "once"


def tool_signature(tool: McpTool) -> inspect.Signature:
    """The arguments of an MCP tool as Python shows them; those that are required first."""
    required = tool.schema.get("required", ())
    names = sorted(
        (name for name in tool.schema.get("properties", {}) if name.isidentifier()), key=lambda name: name not in required
    )
    return inspect.Signature([
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=TYPES.get(str(tool.schema["properties"][name].get("type")), Any),
            default=inspect.Parameter.empty if name in required else None,
        )
        for name in names
    ])  # fmt: skip

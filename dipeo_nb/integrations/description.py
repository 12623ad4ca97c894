"""Providers and their operations, as lists and helps show them."""

from __future__ import annotations

import inspect
from typing import Any

from dipeo_nb.errors import DipeoError
from dipeo_nb.integrations.manifest import Operation
from dipeo_nb.integrations.mcp_client import McpTool
from dipeo_nb.integrations.providers import IntegratedApiService


async def provider_row(service: IntegratedApiService, name: str) -> dict[str, Any]:
    """A provider in a list: name, what it lacks, number of operations, what it is, where it is from."""
    if (own := service.provider_class(name)) is not None:
        about = (inspect.getdoc(own) or "").partition("\n")[0]
        return {
            "provider": name,
            "ready": "yes",
            "operations": len(own.operations()),
            "about": about,
            "from": type(own).__module__,
        }
    if (clients := service.mcp_clients(name)) is not None:
        try:
            clients.check_server(name)
        except DipeoError as error:
            return {"provider": name, "ready": f"no: {error}", "operations": None, "about": "", "from": ".mcp.json"}
        return {"provider": name, "ready": "yes", "operations": None, "about": "An MCP server.", "from": ".mcp.json"}
    try:
        found = service.manifest_provider(name)
    except DipeoError as error:
        return {"provider": name, "ready": f"no: {error}", "operations": 0, "about": "", "from": ""}
    ready = await found.ready()
    about = found.manifest.description
    return {"provider": name, "ready": ready, "operations": len(found.operations), "about": about, "from": found.source}


def operation_rows(service: IntegratedApiService, name: str) -> list[dict[str, Any]]:
    """One row per operation of a provider."""
    if (own := service.provider_class(name)) is not None:
        return [
            {
                "operation": n,
                "effect": "",
                "parameters": str(inspect.signature(m)),
                "about": (inspect.getdoc(m) or "").partition("\n")[0],
            }
            for n, m in own.operations().items()
        ]
    if (clients := service.mcp_clients(name)) is not None:
        return [
            {"operation": n, "effect": "read" if tool.read_only else "idempotent" if tool.idempotent else "once",
             "parameters": ", ".join(f"{p}*" if p in tool.schema.get("required", ()) else p for p in tool.schema.get("properties", {})),
             "about": tool.description.partition("\n")[0]}
            for n, tool in clients.known_tools(name).items()
        ]  # fmt: skip
    return [
        {
            "operation": n,
            "effect": o.effective,
            "parameters": ", ".join(f"{p}*" if q.required else p for p, q in o.parameters.items()),
            "about": o.description,
        }
        for n, o in service.manifest_provider(name).operations.items()
    ]


_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict, "any": Any}


def signature_of(operation: Operation) -> inspect.Signature:
    """The parameters of an operation as Python shows them; those that are required first."""
    ordered = sorted(operation.parameters.items(), key=lambda pair: not pair[1].required)
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=_TYPES.get(parameter.type, Any),
            default=inspect.Parameter.empty if parameter.required else parameter.default,
        )
        for name, parameter in ordered
    ]  # fmt: skip
    if operation.paging is not None:
        known = {parameter.name for parameter in parameters}
        paged = (("all", bool, False), ("limit", int, None))
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, kind, default in paged
            if name not in known
        ]
    return inspect.Signature(parameters)


def tool_signature(tool: McpTool) -> inspect.Signature:
    """The arguments of an MCP tool as Python shows them; those that are required first."""
    required = tool.schema.get("required", ())
    names = sorted(
        (name for name in tool.schema.get("properties", {}) if name.isidentifier()), key=lambda name: name not in required
    )
    return inspect.Signature([
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=_TYPES.get(str(tool.schema["properties"][name].get("type")), Any),
            default=inspect.Parameter.empty if name in required else None,
        )
        for name in names
    ])  # fmt: skip


def description_of(operation: Operation) -> str:
    """What an operation does, and its parameters."""
    lines = [operation.description, "", f"Effect: {operation.effective}.", ""]
    for name, parameter in operation.parameters.items():
        choices = f" ({', '.join(map(str, parameter.enum))})" if parameter.enum else ""
        needed = ", required" if parameter.required else ""
        lines.append(f"    {name}: {parameter.type}{needed}{choices}. {parameter.description}".rstrip())
    if operation.paging is not None:
        lines.append("    all: boolean. All pages.\n    limit: integer. Items at most.")
    return "\n".join(lines)

"""Operations of providers, and tools of MCP servers, as tools of a person: what its model calls is carried out in the run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.common.loop import run_on_loop
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.answer_forms import AnswerForm, Approval
from dipeo_nb.domain.chat import ToolConfig
from dipeo_nb.domain.nodes import provider_tool
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext

LONGEST_NAME = 64
"""Characters of the name of a function at most, as models take them."""
_KINDS: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
ATTEMPTS = 3
"""How often an answer that is neither yes nor no is asked for again."""


async def provider_tools(context: NodeContext, tools: Any) -> tuple[ToolConfig, ...]:
    """The tools of a node that are operations of providers (`wikipedia.search`, `mcp_files.*`).

    Raises:
        NodeExecutionError: there are no integrations that offer tools.
        ValidationError: there is no such provider or operation.
    """
    names = [name for tool in (tools if isinstance(tools, list) else [tools]) if (name := provider_tool(tool)) is not None]  # pyright: ignore[reportUnknownVariableType]
    if not names:
        return ()
    port = cast(Any, context.services.integrations)
    if port is None or not hasattr(port, "offered"):
        raise NodeExecutionError(
            "There are no integrations that offer tools.", hint="Leave integrations= out, or give it `offered`."
        )
    found: dict[str, ToolConfig] = {}
    for name in names:
        for offered in await port.offered(name):
            found.setdefault(offered.operation, _tool(context, port, offered))
    return tuple(found.values())


def _tool(context: NodeContext, port: Any, offered: OfferedTool) -> ToolConfig:
    provider, _, operation = offered.operation.partition(".")
    number = 0

    async def ask(question: str) -> str | None:
        answer, _ = await context.execution.ask(context.node, question, timeout=None, default=None)
        return answer

    async def call(**arguments: Any) -> Any:
        nonlocal number
        number += 1
        given = {name: value for name, value in arguments.items() if value is not None}
        options: dict[str, Any] = {"config": given, "idempotency_key": f"{context.idempotency_key}:{operation}:{number}"}
        if provider.startswith("mcp_"):
            options |= {"ask": ask, "progress": lambda said: context.log("info", said)}
        if context.attempt > 1:
            options["repeated"] = True
        return await port.execute(provider, operation, **options)

    async def run(**arguments: Any) -> Any:
        async def allowed() -> Any:
            if not offered.destructive:
                return await call(**arguments)
            decision = await _approval(context, offered.operation, arguments)
            if not decision.approved:
                return "The user did not allow this call" + (f": {decision.reason}" if decision.reason else ".")
            return await call(**(arguments if decision.arguments is None else decision.arguments))

        return await run_on_loop(allowed())

    run.__signature__ = _signature(offered)  # type: ignore[attr-defined]
    run.__name__ = re.sub(r"[^A-Za-z0-9_-]", "_", offered.operation)[:LONGEST_NAME]
    return ToolConfig("function", run.__name__, offered.description, offered.schema, function=run)


async def _approval(context: NodeContext, operation: str, arguments: Mapping[str, Any]) -> Approval:
    """Whether the user lets the model call an operation, perhaps with other arguments. Who answers neither yes nor no is asked
    again, and after `ATTEMPTS` answers it is a no."""
    form = AnswerForm("approval", arguments=arguments, tool=operation)
    question = f"{operation} would change something for good: {json_text(arguments)[:500]}. Allow it?"
    note = ""
    for _ in range(ATTEMPTS):
        answer, _ = await context.execution.ask(context.node, question + note, timeout=None, default=None, form=form)
        if (decision := form.approval(answer)) is not None:
            return decision
        note = f"\n({form.problem(answer)})"
    return Approval(False)


def _signature(offered: OfferedTool) -> inspect.Signature:
    """Its arguments, as far as they have names in Python; the provider checks them against the schema."""
    required = offered.schema.get("required", ())
    properties = offered.schema.get("properties", {})
    return inspect.Signature([
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY,
            annotation=_KINDS.get(str(properties[name].get("type")), Any) if name in required else Any,
            default=inspect.Parameter.empty if name in required else None,
        )
        for name in properties if name.isidentifier()
    ])  # fmt: skip

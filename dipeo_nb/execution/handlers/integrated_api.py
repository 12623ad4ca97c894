"""integrated_api: calls an operation of a provider through the integrations port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.domain.nodes import IntegratedApiNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import DipeoError, NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain

PORT = "integrations"
"""The service that it needs."""
API_TIMEOUT = 30.0
"""Seconds when the node names none (DiPeO's default)."""
TIMEOUT = None  # the operation has its own, and so has each of its retries


def missing(node: PlanNode, services: Services) -> tuple[str, str] | None:
    """Why a node cannot run here: there is no such operation, or it has no such parameter."""
    spec = cast(IntegratedApiNode, node.spec)
    check = getattr(services.integrations, "check_node", None)  # a port of the user's own need not have it
    if check is None or "{{" in spec.provider + spec.operation:
        return None
    try:
        if not spec.operation:
            names = ", ".join(cast(Any, services.integrations).operations_of(spec.provider))
            return f"'{node.label}' names no operation of {spec.provider}.", f"Set `operation` to one of: {names}."
        check(spec.provider, spec.operation, dict(spec.config), paged=spec.all or spec.limit is not None)
    except DipeoError as error:
        return f"{node.label}: {error.message}", error.hint or "Correct the node."
    return None


async def ready(node: PlanNode, services: Services) -> None:
    """Raises when there is no key for its provider."""
    spec = cast(IntegratedApiNode, node.spec)
    check = getattr(services.integrations, "check_key", None)  # a port of the user's own need not have it
    if check is not None and "{{" not in spec.provider + (spec.api_key_id or ""):
        await check(spec.provider, spec.api_key_id)


async def execute(context: NodeContext) -> Output:
    spec = cast(IntegratedApiNode, context.node.spec)
    port = context.services.integrations
    if port is None:
        raise NodeExecutionError("There are no integrations here.", hint="Give some: dp.Session(integrations=…).")
    if not spec.operation:
        raise NodeExecutionError(
            f"'{context.node.label}' names no operation of {spec.provider}.",
            hint=f"Set `operation` to one of: {', '.join(port.operations().get(spec.provider, ())) or 'none known'}.",
        )
    # The config lies over a mapping that arrives unlabelled.
    arrived = context.inputs.values.get("default")
    brought = plain(arrived) if isinstance(arrived, Mapping) else {}
    known = getattr(port, "accepted", None)  # a port of the user's own need not have it
    if brought and known is not None and (names := known(spec.provider, spec.operation)) is not None:
        brought = {name: value for name, value in brought.items() if name in names}
    answer = await port.execute(
        spec.provider,
        spec.operation,
        resource_id=context.render(spec.resource_id) if spec.resource_id else None,
        config={**brought, **context.render_within(spec.config)},
        api_key_id=spec.api_key_id,
        timeout=API_TIMEOUT if spec.timeout is None else spec.timeout,
        max_retries=spec.max_retries,
        idempotency_key=context.idempotency_key,
        **_more(context, spec),
    )
    return Output(answer, meta={"provider": spec.provider, "operation": spec.operation})


def _more(context: NodeContext, spec: IntegratedApiNode) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if spec.provider.startswith("mcp_"):  # its tools may ask, and say how far they are
        more |= {"ask": lambda question: _answer(context, question), "progress": lambda said: context.log("info", said)}
    if context.attempt > 1:
        more["repeated"] = True
    if spec.all or spec.limit is not None:
        more |= {"all": spec.all, "limit": spec.limit, "progress": lambda said: context.log("info", said)}
    return more


async def _answer(context: NodeContext, question: str) -> str | None:
    """The user's answer to a question of a tool."""
    answer, _ = await context.execution.ask(context.node, question, timeout=None, default=None)
    return answer

"""integrated_api: calls an operation of a provider through the integrations port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from dipeo_nb.domain.nodes import IntegratedApiNode
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain

PORT = "integrations"
"""The service that it needs."""
API_TIMEOUT = 30.0
"""Seconds when the node names none (DiPeO's default)."""
TIMEOUT = None  # the operation has its own, and so has each of its retries


async def run(context: NodeContext) -> Output:
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
    answer = await port.execute(
        spec.provider,
        spec.operation,
        resource_id=context.render(spec.resource_id) if spec.resource_id else None,
        config={**brought, **context.render_within(spec.config)},
        api_key_id=spec.api_key_id,
        timeout=API_TIMEOUT if spec.timeout is None else spec.timeout,
        max_retries=spec.max_retries,
        idempotency_key=context.idempotency_key,
    )
    return Output(answer, meta={"provider": spec.provider, "operation": spec.operation})

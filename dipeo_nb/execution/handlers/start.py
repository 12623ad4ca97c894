"""start: hands the run's variables to its successors.

`custom_data` is published as globals in every mode, under the variables given to the run.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, cast

from dipeo_nb.domain.enums import HookTriggerMode
from dipeo_nb.domain.nodes import StartNode
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output

TRIGGER_TIMEOUT = 3600.0
"""Seconds that a trigger is waited for when the node names none; the run's own limit comes first."""
TIMEOUT = None  # only a trigger takes time, and it has its own
PURE = True


def execute(context: NodeContext) -> Output | Coroutine[Any, Any, Output]:
    spec = cast(StartNode, context.node.spec)
    return _triggered(context, spec) if spec.trigger_mode is HookTriggerMode.HOOK else _started(context, spec)


async def _triggered(context: NodeContext, spec: StartNode) -> Output:
    """What the event brings are variables of the run; `run.signal(name, …)` sends it."""
    timeout = TRIGGER_TIMEOUT if spec.timeout is None else spec.timeout
    event = (spec.hook_event or "").strip()
    brought = await context.execution.wait_for(context.node, event, spec.hook_filters, timeout)
    for name, value in brought.items():
        context.publish(name, value)
    return _started(context, spec)


def _started(context: NodeContext, spec: StartNode) -> Output:
    execution = context.execution
    data = spec.custom_data if isinstance(spec.custom_data, Mapping) else {"custom_data": spec.custom_data}
    for name, value in data.items():
        if name not in execution.progress.variables:
            context.publish(name, value)
    return Output(dict(execution.progress.variables), meta={"trigger_mode": str(spec.trigger_mode)})

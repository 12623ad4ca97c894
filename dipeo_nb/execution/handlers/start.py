"""start: hands the run's variables to its successors (diagram-spec §3.1).

`custom_data` is published as globals in every mode, under the variables given to the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from dipeo_nb.domain.nodes import StartNode
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output


def run(context: NodeContext) -> Output:
    spec = cast(StartNode, context.node.spec)
    execution = context.execution
    data = spec.custom_data if isinstance(spec.custom_data, Mapping) else {"custom_data": spec.custom_data}
    for name, value in data.items():
        if name not in execution.variables:
            context.publish(name, value)
    return Output(dict(execution.variables), meta={"trigger_mode": str(spec.trigger_mode)})

"""ir_builder: makes a code generator's intermediate form through its port."""

from __future__ import annotations

from dataclasses import fields
from typing import cast

from dipeo_nb.domain.nodes import IrBuilderNode, NodeSpec
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain

PORT = "ir"
"""The service that it needs."""
_NOT_OPTIONS = {f.name for f in fields(NodeSpec)}


async def run(context: NodeContext) -> Output:
    spec = cast(IrBuilderNode, context.node.spec)
    builder = context.services.ir
    if builder is None:
        raise NodeExecutionError("There is no builder of intermediate forms here.", hint="Give one: dp.Session(ir=…).")
    options = {f.name: plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in _NOT_OPTIONS}
    built = await builder.build(plain(context.inputs.body), options)
    return Output(built)

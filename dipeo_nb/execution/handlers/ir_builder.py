"""ir_builder: builds a code generator's intermediate representation through its port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from dipeo_nb.diagram.yaml_reader import yaml_value
from dipeo_nb.domain.nodes import IrBuilderNode, NodeSpec
from dipeo_nb.errors import NodeExecutionError, StorageError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.step_progress import shown_steps

PORT = "ir"
"""The service that it needs."""
_NOT_OPTIONS = {f.name for f in fields(NodeSpec)}


async def execute(context: NodeContext) -> Output:
    spec = cast(IrBuilderNode, context.node.spec)
    builder = context.services.ir
    if builder is None:
        raise NodeExecutionError(
            "There is no builder of intermediate representations here.", hint="Give one: dp.Session(ir=…)."
        )
    options = {f.name: plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in _NOT_OPTIONS}
    if spec.config_path:
        options["config"] = await asyncio.to_thread(_config, context, context.file_name(spec.config_path))
    with shown_steps(context, "Building"):
        built = await builder.build(plain(context.inputs.body), options)
    return Output(built)


def _config(context: NodeContext, path: str) -> Mapping[str, Any]:
    """The options in a file of YAML or JSON; none, with a warning, when there is no such file: DiPeO's diagrams name some, and folders, that are
    never read."""
    try:
        text = context.services.files.read_text(path)
    except StorageError as error:
        if error.facts.get("cause") not in ("not_found", "is_directory"):
            raise
        context.log("WARNING", f"There is no file {path}: the builder uses its defaults.")
        return {}
    value, _ = yaml_value(text, path)
    if not isinstance(value, Mapping):
        raise NodeExecutionError(
            f"{path} does not hold a mapping of options.", hint="Write for example `model_files: [core.ts]`."
        )
    return cast(Mapping[str, Any], value)

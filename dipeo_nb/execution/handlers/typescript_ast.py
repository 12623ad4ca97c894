"""typescript_ast: reads TypeScript through the parser port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import cast

from dipeo_nb.domain.nodes import NodeSpec, TypescriptAstNode
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain

PORT = "typescript"
"""The service that it needs."""
_NOT_OPTIONS = {"source", "file", "batch", "batch_input_key", *(f.name for f in fields(NodeSpec))}


async def run(context: NodeContext) -> Output:
    spec = cast(TypescriptAstNode, context.node.spec)
    parser = context.services.typescript
    if parser is None:
        raise NodeExecutionError("There is no TypeScript parser here.", hint="Give one: dp.Session(typescript=…).")
    values = context.inputs.values
    if isinstance(values.get("default"), Mapping) and values["default"].get("_skip_parsing"):
        return Output(plain(values["default"]))
    options = {f.name: plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in _NOT_OPTIONS}
    sources = _sources(context, spec)
    found = await parser.parse(sources, options)
    if spec.batch:
        return Output(dict(found), meta={"sources": len(found)})
    (name,) = sources
    return Output(found[name])


def _sources(context: NodeContext, spec: TypescriptAstNode) -> dict[str, str]:
    """Name → text: those of a batch; else the node's own source, its file, or what arrives."""
    names = context.names
    if spec.batch:
        given = plain(names.get(spec.batch_input_key))
        if not isinstance(given, Mapping) or not given:
            raise NodeExecutionError(
                f"The batch of '{context.node.label}' needs '{spec.batch_input_key}': a mapping of names to texts.",
                hint="Label an incoming arrow with that name, or set batch_input_key.",
            )
        return {str(name): str(text) for name, text in given.items()}
    if spec.source:
        return {"source": spec.source}
    if spec.file:
        path = context.file_name(spec.file)
        return {path: context.services.files.read_text(path)}
    text = names.get("source", names.get("default"))
    if not isinstance(text, str):
        raise NodeExecutionError(
            f"'{context.node.label}' has no source to read.",
            hint="Set `source` or `file`, or draw an arrow with the text.",
        )
    return {"source": str(text)}

"""typescript_ast: reads TypeScript through the parser port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from dipeo_nb.domain.nodes import NodeSpec, TypescriptAstNode
from dipeo_nb.errors import CodeError, NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.step_progress import shown_steps

PORT = "typescript"
"""The service that it needs."""
_NOT_OPTIONS = {"source", "file", "batch", "batch_input_key", *(f.name for f in fields(NodeSpec))}


async def execute(context: NodeContext) -> Output:
    spec = cast(TypescriptAstNode, context.node.spec)
    parser = context.services.typescript
    if parser is None:
        raise NodeExecutionError("There is no TypeScript parser here.", hint="Give one: dp.Session(typescript=…).")
    values = context.inputs.values
    if isinstance(values.get("default"), Mapping) and values["default"].get("_skip_parsing"):
        return Output(plain(values["default"]))
    options = {f.name: plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in _NOT_OPTIONS}
    sources = _sources(context, spec)
    with shown_steps(context, "Parsing"):
        found = await parser.parse(sources, options)
    if unread := [name for name in sources if _error(found[name])]:
        if len(unread) == len(sources):  # of a batch, too, nothing was read
            raise CodeError(f"{unread[0]}:{_error(found[unread[0]])}", hint="Give it the text of a TypeScript module.")
        for name in unread:
            context.log("WARNING", f"{name}:{_error(found[name])}")
    if spec.batch:
        return Output(dict(found), meta={"sources": len(found)})
    (name,) = sources
    return Output(found[name])


def _error(result: Any) -> str:
    """Why nothing was read of a source; empty: something was."""
    metadata = cast(Mapping[str, Any], result).get("metadata") if isinstance(result, Mapping) else None
    return str(cast(Mapping[str, Any], metadata).get("error") or "") if isinstance(metadata, Mapping) else ""


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

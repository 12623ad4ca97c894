"""db: reads and writes files below the base directory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.common.cancellable import in_thread
from dipeo_nb.common.values import parse_json
from dipeo_nb.domain.enums import DBOperation
from dipeo_nb.domain.nodes import DbNode
from dipeo_nb.errors import NodeExecutionError, StorageError, ValidationError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain

QUICK = 100_000
"""Characters of a text that is parsed on the event loop."""
VALUE_NAMES = ("generated_code", "content", "value")
"""Inputs that hold what is to be written, in this order, before the first input of any name."""


async def execute(context: NodeContext) -> Output:
    spec = cast(DbNode, context.node.spec)
    if spec.data is not None and not any(
        str(f).strip() for f in (spec.file if isinstance(spec.file, list) else [spec.file or ""])
    ):
        return Output(spec.data)
    paths = _paths(context, spec)
    try:
        match spec.operation:
            case DBOperation.PROMPT:
                return Output(", ".join(paths))
            case DBOperation.READ:
                return await _read(context, spec, paths)
            case _:
                return await _change(context, spec, paths)
    except ValidationError as error:  # of the data, found during the run
        raise NodeExecutionError(error.message, hint=error.hint) from error


def _paths(context: NodeContext, spec: DbNode) -> list[str]:
    given = spec.file if isinstance(spec.file, list) else [spec.file or ""]
    paths = [context.file_name(str(p)).strip() for p in given]
    if not any(paths):
        raise NodeExecutionError("The db node names no file.", hint="Set `file` (source_details).")
    return [p for p in paths if p]


def _is_glob(spec: DbNode, path: str) -> bool:
    return spec.glob is not False and any(c in path for c in "*?[")


async def _read(context: NodeContext, spec: DbNode, paths: list[str]) -> Output:
    files = context.services.files
    if len(paths) == 1 and not _is_glob(spec, paths[0]):
        try:
            body, facts = await _content(context, spec, paths[0])
        except StorageError as error:
            if error.facts.get("cause") != "not_found":
                raise
            if spec.default is not None:
                return Output(spec.default, meta={"path": paths[0], "missing": True})
            raise StorageError(
                error.message,
                hint=f"Create '{paths[0]}' below the base directory (--base-dir, DIPEO_BASE_DIR), fix the node's `file`, "
                "or give the node a `default`.",
                operation="read",
            ) from error
        # Edges that carry text deliver the file as it is, not a rendering of what was parsed.
        whole = not spec.keys and spec.lines is None
        text = await asyncio.to_thread(files.read_text, facts["file_path"]) if whole else None
        return Output(body, text, meta={"path": facts["file_path"]})
    found: dict[str, Any] = {}
    for path in paths:
        names = [p.as_posix() for p in await asyncio.to_thread(files.glob, path)] if _is_glob(spec, path) else [path]
        for name in names:
            try:
                found[name] = (await _content(context, spec, name))[0]
            except StorageError:
                found[name] = None  # of several files, an unreadable one is None
    return Output(found, meta={"paths": list(found)})


async def _content(context: NodeContext, spec: DbNode, path: str) -> tuple[Any, Mapping[str, Any]]:
    """(content of one file, facts about it)."""
    form = str(spec.format) if spec.format else None
    done = await context.services.db.execute_operation(path, "read", keys=spec.keys, lines=spec.lines, format=form)
    body = done["value"]
    if spec.serialize_json and isinstance(body, str) and spec.lines is None:
        try:
            body = await in_thread(parse_json, body) if len(body) > QUICK else parse_json(body)
        except ValueError as error:
            raise NodeExecutionError(
                f"'{path}' is not JSON: {error}.", hint="Correct the file, or remove serialize_json."
            ) from None
    return body, done["metadata"]


async def _change(context: NodeContext, spec: DbNode, paths: list[str]) -> Output:
    if len(paths) != 1 or _is_glob(spec, paths[0]):
        what = f"{len(paths)} files" if len(paths) > 1 else f"the pattern {paths[0]!r}"
        raise NodeExecutionError(
            f"{spec.operation} takes exactly one file, not {what}.", hint="Name one path without wildcards."
        )
    value = plain(written_value(context))
    form = str(spec.format) if spec.format else None
    done = await context.services.db.execute_operation(paths[0], str(spec.operation), value, spec.keys, format=form)
    path, size = done["metadata"]["file_path"], done["metadata"]["size"]
    verb = {DBOperation.WRITE: "Wrote", DBOperation.APPEND: "Appended to", DBOperation.UPDATE: "Updated"}
    return Output(
        {"path": path, "bytes": size, "value": value},
        f"{verb[spec.operation]} {path} ({size} bytes)",
        meta={"path": path, "bytes": size},
    )


def written_value(context: NodeContext) -> Any:
    """The first of generated_code, content, value; else the first input; a mapping that holds one of them is unwrapped."""
    values = context.inputs.values
    chosen = next((values[n] for n in VALUE_NAMES if values.get(n) is not None), None)
    if chosen is None:
        chosen = next((v for v in values.values() if v is not None), None)
    if isinstance(chosen, Mapping) and not hasattr(chosen, "__dipeo_text__"):
        chosen = next((chosen[n] for n in VALUE_NAMES if chosen.get(n) is not None), chosen)
    if chosen is None:
        chosen = context.render_within(cast(DbNode, context.node.spec).data)
    if chosen is None:
        raise NodeExecutionError("There is nothing to write: no input has a value.", hint="Draw an arrow into the node.")
    return str(chosen) if hasattr(chosen, "__dipeo_text__") else chosen

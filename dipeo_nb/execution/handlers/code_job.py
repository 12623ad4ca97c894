"""code_job: runs Python in the run's worker process (diagram-spec §3.5 "Do")."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

from dipeo_nb.domain.enums import SupportedLanguage
from dipeo_nb.domain.nodes import CodeJobNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import CodeError, StorageError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output

TIMEOUT = None  # the code has its own limit, which also kills the worker
CODE_TIMEOUT = 30.0
"""Seconds when the node names none (spec default)."""
_FILE = re.compile(r"[^\n]+\.py")


def missing(node: PlanNode, services: Services) -> tuple[str, str] | None:
    """Why a node cannot run here: its language."""
    language = cast(CodeJobNode, node.spec).language
    if language is SupportedLanguage.PYTHON:
        return None
    return f"Code in {language} does not run in this version; python does.", "Write it in Python."


async def run(context: NodeContext) -> Output:
    spec = cast(CodeJobNode, context.node.spec)
    execution = context.execution
    code, name, folder = await asyncio.to_thread(source, context, spec)
    result = await execution.code.run_python(
        code,
        filename=name,
        inputs=context.inputs,
        variables=execution.variables,
        assigned={} if spec.isolated else execution.code_variables,
        node_id=context.node.id,
        function_name=spec.function_name,
        timeout=CODE_TIMEOUT if spec.timeout is None else spec.timeout,
        shared=not spec.isolated,
        folder=folder,
        on_output=lambda text: execution.emit_delta(
            context.node, {"kind": "stdout", "text": text, "is_partial": True, "run": context.run}
        ),
    )
    if not spec.isolated:
        execution.code_variables = dict(result.variables)
    meta: dict[str, Any] = {"variables": dict(result.variables)}
    if result.stdout:
        meta["stdout"] = result.stdout
    return Output(result.value, meta=meta)


def source(context: NodeContext, spec: CodeJobNode) -> tuple[str, str, Path | None]:
    """(code, name for tracebacks, folder of its imports). Inline code wins over a file, as in upstream; a single line
    that names an existing .py file is that file."""
    files = context.services.files
    path = spec.file_path
    if spec.code:
        line = spec.code.strip()
        if not (_FILE.fullmatch(line) and _exists(context, line)):
            return spec.code, f"<{context.node.label}>", None
        path = line
    if not path:
        raise CodeError("The node has neither `code` nor `file_path`.", hint="Add one of them.", traceback="")
    return files.read_text(path), path, files.resolve(path).parent


def _exists(context: NodeContext, path: str) -> bool:
    try:
        return context.services.files.exists(path)
    except StorageError:
        return False  # not a name that a file here could have: then it is code

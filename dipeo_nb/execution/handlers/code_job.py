"""code_job: Python in the run's worker process; TypeScript, bash and shell as programs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any, cast

from dipeo_nb.common.paths import name_below
from dipeo_nb.common.programs import find_program
from dipeo_nb.common.values import parse_structured
from dipeo_nb.config import missing_variable
from dipeo_nb.domain.enums import SupportedLanguage
from dipeo_nb.domain.nodes import CODE_FILE, CodeJobNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import CodeError, StorageError
from dipeo_nb.execution import node_js
from dipeo_nb.execution.child_process import base_dir, run_command, tail
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain, unparsed
from dipeo_nb.execution.shown_scripts import as_shown

TIMEOUT = None  # the code has its own limit, which also kills the worker
CODE_TIMEOUT = 30.0
"""Seconds when the node names none (DiPeO's default)."""
_OF_TEXTS = ("TypeError:", "AttributeError:", "KeyError:", "IndexError:", "ValueError:")
"""Errors of code that takes a text for rows or fields."""


def missing(node: PlanNode, services: Services) -> tuple[str, str] | None:
    """Why a node cannot run here: the program of its language is not there."""
    language = cast(CodeJobNode, node.spec).language
    if language is SupportedLanguage.TYPESCRIPT and node_js.node() is None:
        return node_js.no_node()
    if language in _SHELLS and find_program(_SHELLS[language]) is None:
        return f"There is no {_SHELLS[language]} on this machine.", "Install it, or write the code in Python."
    return None


_SHELLS = {SupportedLanguage.BASH: "bash", SupportedLanguage.SHELL: "sh"}


async def execute(context: NodeContext) -> Output:
    spec = cast(CodeJobNode, context.node.spec)
    code, name, file = await asyncio.to_thread(source, context, spec)
    match spec.language:
        case SupportedLanguage.PYTHON:
            return await _python(context, spec, code, name, file)
        case SupportedLanguage.TYPESCRIPT:
            return await _typescript(context, spec, code, name, file)
        case _:
            return await _shell(context, spec, code, name, file)


async def _python(context: NodeContext, spec: CodeJobNode, code: str, name: str, file: Path | None) -> Output:
    execution = context.execution
    try:
        result = await execution.code.run_python(
            code,
            filename=name,
            inputs=context.inputs,
            variables=execution.progress.variables,
            node_id=context.node.id,
            function_name=spec.function_name,
            timeout=_limit(spec),
            view=context.assigned,
            shared=not spec.isolated,
            file=file,
            on_output=context.show_printed,
            on_log=lambda payload: execution.hear(context.node, payload),
        )
    except CodeError as error:
        _advise(error, context, spec, code)
        raise
    meta: dict[str, Any] = {"variables": result.variables}
    if result.code:
        meta["code"] = result.code
    if result.stdout:
        meta["stdout"] = result.stdout
    return Output(result.value, meta=meta)


def _advise(error: CodeError, context: NodeContext, spec: CodeJobNode, code: str) -> None:
    """Say where a missing name is, if other code of the run has set it; and where code took the text of a file for what is
    in it, how to get that."""
    texts = [n for n in unparsed(context.inputs) if re.search(rf"\b{re.escape(n)}\b", code) or n == "default"]
    if texts and error.message.startswith(_OF_TEXTS):
        many = "s" * (len(texts) > 1)
        error.hint = (
            f"The input{many} {', '.join(map(repr, texts))} arrived as text; to get the rows or fields in it, give "
            f"the arrow{many} `content_type: object`. {error.hint or ''}"
        ).strip()
    change = context.execution.progress.assigned().names.get(str(error.facts.get("name")))
    if change is None or change.label == context.node.label or "lost" in error.facts:
        return
    if spec.isolated:
        error.hint = f"'{change.label}' sets '{error.facts['name']}', and this node is isolated: label an arrow with that name."
    elif context.assigned.names.get(error.facts["name"]) is not change:
        error.hint = (
            f"'{change.label}' sets '{error.facts['name']}', but no arrows lead from it to '{context.node.label}', so it need "
            "not have run before: connect them."
        )


async def _typescript(context: NodeContext, spec: CodeJobNode, code: str, name: str, file: Path | None) -> Output:
    files, sources = context.services.files, context.execution.gate.sources
    value, stdout = await node_js.run_typescript(
        code,
        file=file,
        shown=None if file is None or sources is None else (name_below(name, files.base_path), sources),
        name=spec.function_name,
        inputs={**_names(context), "node_id": context.node.id, "globals": plain(context.execution.progress.variables)},
        cwd=file.parent if file else files.base_path,
        timeout=_limit(spec),
        env=base_dir(files),
        pass_env=context.execution.options.pass_env,
        on_output=context.show_printed,
    )
    return Output(value, meta={"stdout": stdout} if stdout else {})


async def _shell(context: NodeContext, spec: CodeJobNode, code: str, name: str, file: Path | None) -> Output:
    """Inputs are variables of the environment, never part of the text: `INPUT_name`, and their names in `INPUT_KEYS`."""
    given = {key: value for key, value in _names(context).items() if key.isidentifier()}
    names = {f"INPUT_{key}": as_text(value) for key, value in given.items()}
    services, cwd = context.services, file.parent if file else context.services.files.base_path
    with as_shown(context.execution.gate, services.files.base_path, cwd) as scripts:
        if scripts is not None:
            code = await asyncio.to_thread(scripts.text, code, name_below(name, services.files.base_path) if file else None)
        done = await run_command(
            [_SHELLS[spec.language], "-c", code, file.name if file else name],
            cwd=cwd,
            timeout=_limit(spec),
            env={**base_dir(services.files), **names, "INPUT_KEYS": ",".join(given)},
            pass_env=context.execution.options.pass_env,
            on_output=context.show_printed,
        )
    if done.status:
        raise CodeError(
            f"The script ended with exit status {done.status}: {tail(done.stderr) or 'it said nothing on stderr'}",
            hint=missing_variable(code, tail(done.stderr), context.execution.options.pass_env)
            or "Correct the script of the node.",
            traceback=tail(done.stderr),
        )
    return Output(done.stdout.strip(), meta={"stderr": done.stderr} if done.stderr else {})


def _names(context: NodeContext) -> dict[str, Any]:
    """Inputs by name, as plain JSON values; texts that hold JSON are what they hold, as for Python."""
    return {name: parse_structured(plain(value)) for name, value in context.inputs.names({}).items()}


def _limit(spec: CodeJobNode) -> float:
    return CODE_TIMEOUT if spec.timeout is None else spec.timeout


def source(context: NodeContext, spec: CodeJobNode) -> tuple[str, str, Path | None]:
    """(code, name for tracebacks, the file it stands in). Inline code wins over a file, as in upstream; a single line
    that names an existing file of code is that file."""
    files = context.services.files
    path = spec.file_path
    if spec.code:
        line = spec.code.strip()
        if not (CODE_FILE.fullmatch(line) and _exists(context, line)):
            return spec.code, f"<{context.node.label}>", None
        path = line
    if not path:
        raise CodeError("The node has neither `code` nor `file_path`.", hint="Add one of them.", traceback="")
    return context.program(path, code=True), path, files.resolve(path)


def _exists(context: NodeContext, path: str) -> bool:
    if context.execution.gate.sources is not None:
        # Looking is not reading: a line such as `python3 job.py` names no file, and nothing need be granted for it. A file that was
        # not shown is refused when it is read.
        with contextlib.suppress(OSError, ValueError):
            base = context.services.files.base_path
            return (base / name_below(path, base)).is_file()
        return False
    try:
        return context.services.files.exists(path)
    except StorageError:
        return False  # not a name that a file here could have: then it is code

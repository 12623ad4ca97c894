"""template_job: renders a template, to a file when asked.

Names, later wins: `generated_at`, `variables` (their texts are templates of prompts; a
lone `{{x}}` is the object), inputs (a mapping that arrives unlabelled is
spread), variables of the run, what the preprocessor returns; and `inputs`, `globals`, `local`.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.common.cancellable import in_thread
from dipeo_nb.domain.enums import TemplateEngine
from dipeo_nb.domain.nodes import TemplateJobNode
from dipeo_nb.errors import NodeExecutionError, StorageError, TemplateError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.evaluation import file_text
from dipeo_nb.execution.inputs import Output

PREPROCESSOR_TIMEOUT = 60.0
"""Seconds that a preprocessor may take."""
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


async def execute(context: NodeContext) -> Output:
    spec = cast(TemplateJobNode, context.node.spec)
    names = await _names(context, spec)
    text, what = await _template(context, spec, names)
    if spec.engine is TemplateEngine.INTERNAL:
        made = await context.rendered(text, names)
    else:
        try:
            made = await file_text(text, names, load=lambda name: _included(context, name), what=what, limit=context.time_limit)
        except TemplateError as error:
            name = undefined[1] if (undefined := _UNDEFINED.search(error.message)) else ""
            if why := context.assigned.unshown(name):
                error.hint = f"{why[:1].upper()}{why[1:]}; set a further variable made of it: a number, text, list or mapping."
            raise
    if not spec.output_path:
        return Output(made)
    path = await _path(context, spec.output_path, names)
    written = await in_thread(_write, context, path, made)
    return Output(made, meta={"path": path, "bytes": len(made.encode()), "written": written})


async def _names(context: NodeContext, spec: TemplateJobNode) -> dict[str, Any]:
    variables = context.render_within(spec.variables)
    now = datetime.datetime.fromtimestamp(context.services.clock.now(), datetime.UTC)
    names = {"generated_at": now.isoformat(timespec="seconds"), **variables, **context.names}
    return {**names, **await _prepared(context, spec, names)} if spec.preprocessor else names


async def _template(context: NodeContext, spec: TemplateJobNode, names: Mapping[str, Any]) -> tuple[str, str]:
    """(the template, how errors call it)."""
    if spec.template_content is not None:
        return spec.template_content, f"the template of '{context.node.label}'"
    if not spec.template_path:
        raise NodeExecutionError("The node has no template.", hint="Set `template_path` or `template_content`.")
    path = await _path(context, spec.template_path, names)
    return await asyncio.to_thread(context.program, path), f"template {path}"


async def _path(context: NodeContext, template: str, names: Mapping[str, Any]) -> str:
    """File names take double and single braces."""
    return context.file_name(await context.rendered(template, names), names).strip()


def _included(context: NodeContext, name: str) -> str | None:
    """A template that another one includes, below the base directory."""
    try:
        return context.program(name)
    except StorageError as error:
        if error.facts.get("cause") == "not_found":
            return None
        raise


def _write(context: NodeContext, path: str, text: str) -> bool:
    """Whether it was written: a file that says the same already keeps its time, so that builds after it rest."""
    files = context.services.files
    if files.exists(path) and files.read_bytes(path) == text.encode():
        return False
    files.write_text(path, text)
    return True


async def _prepared(context: NodeContext, spec: TemplateJobNode, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the preprocessor, a function of a module below the base directory, makes of the names."""
    module, function, arguments = _preprocessor(spec.preprocessor)
    code = (
        "import importlib\n"
        f"found = getattr(importlib.import_module({module!r}), {function!r})\n"
        f"return found({{**globals, **inputs}}, **{arguments!r})"
    )
    result = await context.execution.code.run_python(
        code,
        filename=f"<preprocessor of {context.node.label}>",
        inputs=context.inputs,
        variables={**names["globals"], **{k: v for k, v in names.items() if k in spec.variables}},
        node_id=context.node.id,
        function_name="main",
        timeout=PREPROCESSOR_TIMEOUT,
        shared=False,
    )
    if not isinstance(result.value, Mapping):
        raise NodeExecutionError(
            f"The preprocessor {module}.{function} returned {type(result.value).__name__}.",
            hint="It takes the mapping of names and returns a mapping of further ones.",
        )
    return cast(Mapping[str, Any], result.value)


def _preprocessor(given: Any) -> tuple[str, str, dict[str, Any]]:
    """(module, function, keyword arguments) of `package.module.function`, or of the mapping."""
    if isinstance(given, str) and _DOTTED.fullmatch(given.strip()):
        module, _, function = given.strip().rpartition(".")
        return module, function, {}
    if isinstance(given, Mapping):
        spec = cast(Mapping[str, Any], given)
        module, function = str(spec.get("module") or ""), str(spec.get("function") or "preprocess")
        arguments = spec.get("args") or {}
        if _DOTTED.fullmatch(f"{module}.{function}") and isinstance(arguments, Mapping):
            return module, function, dict(cast(Mapping[str, Any], arguments))
    raise NodeExecutionError(
        f"The preprocessor {given!r} names no function.",
        hint="Write `module.function`, or {module: …, function: …, args: {…}}.",
    )

"""Python functions as tools of models: their schema, and running them when they are called."""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.common.values import json_text, well_formed
from dipeo_nb.domain.chat import ToolCall, ToolConfig, ToolResult
from dipeo_nb.errors import ValidationError

RESULT_LIMIT = 100_000
"""Characters of a result that the model is told."""
BUILT_IN = {"websearch": "web_search", "web_search": "web_search", "image": "image_generation"}
"""Short names of built-in tools → their type."""


def tool_of(function: Callable[..., Any], *, name: str | None = None, description: str | None = None) -> ToolConfig:
    """A tool out of a Python function, sync or async.

    Args:
        function: its typed parameters become the schema of the arguments; `Annotated[…, Field(description=…)]` and an `Args:`
            section describe them.
        name: default: the function's.
        description: default: the docstring up to its `Args:` section.

    Raises:
        ValidationError: a parameter has no type, or one that JSON cannot carry, or is `*args` or positional only.
    """
    label = name or function.__name__
    model = _arguments(function, label)
    try:
        schema = model.model_json_schema()
    except Exception as error:  # pydantic has several, none of them public
        raise ValidationError(
            f"The tool '{label}' has a parameter that JSON cannot carry: {str(error).splitlines()[0]}",
            hint="Use str, int, float, bool, lists, dicts, enums, Literal or pydantic models.",
        ) from error
    schema.pop("title", None)
    for part in schema.get("properties", {}).values():
        part.pop("title", None)
    text = description or _parts(function)[0] or label
    return ToolConfig("function", label, text, schema, function=function)


def tools_of(tools: Sequence[Any] | Any) -> tuple[ToolConfig, ...]:
    """Tools out of what users give: functions, `ToolConfig`s, names of built-in ones (`websearch`, `image`).

    Raises:
        ValidationError: something else, or two tools of one name.
    """
    given = tools if isinstance(tools, (list, tuple)) else [tools] if tools else []
    made: list[ToolConfig] = []
    for tool in given:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(tool, ToolConfig):
            made.append(tool)
        elif isinstance(tool, str) and tool in BUILT_IN:
            made.append(ToolConfig(BUILT_IN[tool]))
        elif callable(tool):
            made.append(tool_of(tool))
        else:
            raise ValidationError(
                f"{tool!r} is no tool.", hint=f"Give a Python function, or one of {', '.join(sorted(BUILT_IN))}."
            )
    names = [t.name or t.type for t in made]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValidationError(
            f"Two tools are called '{twice[0]}'.", hint="Give one of them another name: tool_of(f, name=…)."
        )
    return tuple(made)


async def run_tool(call: ToolCall, tools: Sequence[ToolConfig]) -> ToolResult:
    """What a tool answers. Whatever goes wrong is told to the model, which may try again: unknown tool, arguments that do not
    fit, an exception of the function. A sync function runs in a worker thread."""
    tool = next((t for t in tools if t.name == call.name and t.function is not None), None)
    if tool is None or tool.function is None:
        names = ", ".join(str(t.name) for t in tools if t.function is not None)
        return ToolResult(call.id, f"There is no tool '{call.name}'. There are: {names}.", is_error=True)
    try:
        model = _arguments(tool.function, call.name)
        given = model.model_validate(dict(call.arguments))
    except PydanticValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return ToolResult(call.id, f"The arguments do not fit: {wrong}.", is_error=True)
    arguments = {field: getattr(given, field) for field in type(given).model_fields}
    try:
        if inspect.iscoroutinefunction(tool.function):
            value = await tool.function(**arguments)
        else:
            value = await asyncio.to_thread(tool.function, **arguments)
            if inspect.isawaitable(value):
                value = await value
    except Exception as error:  # noqa: BLE001 - told to the model
        return ToolResult(call.id, f"{type(error).__name__}: {error}", is_error=True)
    return ToolResult(call.id, _text(value)[:RESULT_LIMIT])


def _text(value: Any) -> str:
    return well_formed(value) if isinstance(value, str) else json_text(value)


def _arguments(function: Callable[..., Any], label: str) -> type[BaseModel]:
    """The parameters of a function as a pydantic class."""
    hints = typing.get_type_hints(function, include_extras=True)
    said = _parts(function)[1]
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValidationError(
                f"The tool '{label}' takes {parameter}, which a model cannot fill.",
                hint="Use named parameters with types.",
            )
        if parameter.name not in hints:
            raise ValidationError(
                f"The parameter '{parameter.name}' of the tool '{label}' has no type.",
                hint=f"Write it as in: def {label}({parameter.name}: str).",
            )
        kind = hints[parameter.name]
        if parameter.name in said and not _described(kind):
            kind = Annotated[kind, Field(description=said[parameter.name])]
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (kind, default)
    try:
        return create_model(label, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    except NameError as error:
        raise ValidationError(f"The tool '{label}' has a parameter that cannot be used: {error}.") from error


def _described(kind: Any) -> bool:
    return any(getattr(part, "description", None) for part in getattr(kind, "__metadata__", ()))


def _parts(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(what a docstring says before its `Args:` section, parameter → what that section says)."""
    text = inspect.getdoc(function) or ""
    before, _, after = text.partition("\nArgs:\n")
    if text.startswith("Args:\n"):
        before, after = "", text.removeprefix("Args:\n")
    section = re.split(r"\n(?=\S)", after)[0]
    said = {
        m[1]: " ".join(m[2].split())
        for m in re.finditer(r"^ {2,8}(\w+)(?: \([^)]*\))?: (.+(?:\n {6,}\S.*)*)", section, re.MULTILINE)
    }
    return before.strip(), said

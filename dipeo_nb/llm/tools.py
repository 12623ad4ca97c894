"""Python functions as tools of models: their schema, and running them when they are called."""

from __future__ import annotations

import inspect
import json
import re
import typing
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, create_model
from pydantic import ValidationError as PydanticValidationError
from pydantic_core import to_json

from dipeo_nb.common import user_code
from dipeo_nb.common.text import nearest
from dipeo_nb.common.typed_dicts import readable
from dipeo_nb.common.values import UnsupportedValueError, is_plain, json_text, plain_value, well_formed
from dipeo_nb.domain.chat import ToolCall, ToolConfig, ToolResult
from dipeo_nb.errors import ValidationError

RESULT_LIMIT = 100_000
"""Characters of a result that are sent to the model."""
_FIELD = "argument_"
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
    if not callable(function):
        raise ValidationError(
            f"{function!r:.80} is not a function.", hint="Give a Python function whose parameters have types."
        )
    label = name or user_code.name_of(function)
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
            near = nearest(tool, BUILT_IN) if isinstance(tool, str) else None
            guess = f"Did you mean '{near}'? " if near else ""
            raise ValidationError(
                f"{tool!r:.80} is not a tool.", hint=f"{guess}Give a Python function, or one of {', '.join(sorted(BUILT_IN))}."
            )
    names = [t.name or t.type for t in made]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValidationError(f"Two tools are called '{twice[0]}'.", hint="Give one of them another name: tool_of(f, name=…).")
    return tuple(made)


def call_of(call_id: str, name: str, text: str) -> ToolCall:
    """A call, by the text that a model gave as arguments; whatever it is."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return ToolCall(call_id, name, cast("dict[str, Any]", value))
    return ToolCall(call_id, name, {}, text)


def call_id_of(given: Any, taken: Collection[str], prefix: str = "call_") -> str:
    """The id of a call, by which its result is sent to the model: what the server gave, or one of ours when it gave none, or that of
    another call.

    Args:
        taken: ids of the other calls of the turn.
    """
    if isinstance(given, str) and given and given not in taken and is_plain(given):
        return given
    return f"{prefix}{uuid.uuid4().hex[:12]}"


async def run_tool(call: ToolCall, tools: Sequence[ToolConfig]) -> ToolResult:
    """The result of a tool. Any error is reported to the model, which may try again: unknown tool, arguments that do not
    fit, an exception of the function. A sync function runs in a worker thread."""
    tool = next((t for t in tools if t.name == call.name and t.function is not None), None)
    if tool is None or tool.function is None:
        names = ", ".join(str(t.name) for t in tools if t.function is not None)
        return ToolResult(call.id, f"There is no tool '{call.name}'. There are: {names}.", is_error=True)
    if call.unreadable is not None:
        said = f"The arguments are not a JSON object: {call.unreadable[:200]!r}. Call the tool again, with one."
        return ToolResult(call.id, said, is_error=True)
    function, given = tool.function, to_json(dict(call.arguments))
    try:
        # Validators, the function and the value's own `__repr__` are code of the user's.
        text = await user_code.finished(function, lambda: _fitting(function, call.name, given), _text)
    except _UnfitError as error:
        return ToolResult(call.id, str(error), is_error=True)
    except Exception as error:  # noqa: BLE001 - the model gets it
        return _failed(call, error)
    return ToolResult(call.id, text[:RESULT_LIMIT])


class _UnfitError(Exception):
    """Arguments that the parameters do not take; the text says why."""


def _fitting(function: Callable[..., Any], label: str, given: bytes) -> dict[str, Any]:
    """Arguments as the parameters have them. They are read as JSON, where a strict class takes texts for dates and lists for
    tuples."""
    try:
        fitting = _arguments(function, label).model_validate_json(given)
    except PydanticValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise _UnfitError(f"The arguments do not fit: {wrong}.") from None
    return {info.alias or name: getattr(fitting, name) for name, info in type(fitting).model_fields.items()}


def _failed(call: ToolCall, error: Exception) -> ToolResult:
    return ToolResult(call.id, user_code.failure_text(error), is_error=True)


def _text(value: Any) -> str:
    """A result as it is sent to the model: a text as it is, anything else as JSON, of whatever pydantic knows."""
    if isinstance(value, str):
        return well_formed(value)
    try:
        return json_text(plain_value(value))
    except UnsupportedValueError as error:
        try:
            return to_json(value, inf_nan_mode="strings", serialize_unknown=False).decode()
        except ValueError:
            raise ValueError(f"The tool returned what cannot be written as JSON: {error.message} {error.hint}") from None


def _arguments(function: Callable[..., Any], label: str) -> type[BaseModel]:
    """The parameters of a function as a pydantic class."""
    of = user_code.described_by(function)
    try:
        hints = typing.get_type_hints(of.__init__ if inspect.isclass(of) else of, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except (
        NameError,
        TypeError,
        ValueError,
    ) as error:  # a name that is not defined; a built-in that does not say what it takes
        raise ValidationError(
            f"What the tool '{label}' takes is not known: {error}.", hint="Give a Python function whose parameters have types."
        ) from error
    said = _parts(function)[1]
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValidationError(
                f"The tool '{label}' takes {parameter}, which a model cannot fill.",
                hint="Use named parameters with types.",
            )
        # Of a class whose parameters are made from its fields, the signature alone has the types.
        written = parameter.annotation
        if parameter.name not in hints and written is not parameter.empty and not isinstance(written, str):
            hints[parameter.name] = written
        if parameter.name not in hints:
            raise ValidationError(
                f"The parameter '{parameter.name}' of the tool '{label}' has no type.",
                hint=f"Write it as in: def {label}({parameter.name}: str).",
            )
        kind = hints[parameter.name]
        if parameter.name in said and not _described(kind):
            kind = Annotated[kind, Field(description=said[parameter.name])]
        default = ... if parameter.default is parameter.empty else parameter.default
        # Any name will do for a parameter; pydantic keeps some for itself.
        fields[f"{_FIELD}{len(fields)}"] = (kind, Field(default, alias=parameter.name))
    try:
        taken: dict[str, Any] = {name: (readable(kind), field) for name, (kind, field) in fields.items()}
        return create_model(label, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **taken)
    except (NameError, TypeError, PydanticUserError) as error:
        raise ValidationError(
            f"The tool '{label}' has a parameter that cannot be used: {str(error).splitlines()[0]}",
            hint="Use str, int, float, bool, lists, dicts, enums, Literal or pydantic models.",
        ) from error


def _described(kind: Any) -> bool:
    return any(getattr(part, "description", None) for part in getattr(kind, "__metadata__", ()))


def _parts(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(what a docstring says before its `Args:` section, parameter → what that section says)."""
    text = inspect.getdoc(user_code.described_by(function)) or inspect.getdoc(function) or ""
    before, _, after = text.partition("\nArgs:\n")
    if text.startswith("Args:\n"):
        before, after = "", text.removeprefix("Args:\n")
    section = re.split(r"\n(?=\S)", after)[0]
    said = {
        m[1]: " ".join(m[2].split())
        for m in re.finditer(r"^ {2,8}(\w+)(?: \([^)]*\))?: (.+(?:\n {6,}\S.*)*)", section, re.MULTILINE)
    }
    return before.strip(), said

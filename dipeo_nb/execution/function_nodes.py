"""Node types of your own: `@dp.node` makes a Python function one.

    @dp.node
    def shout(text: str, times: int = 2) -> str:
        "Says it louder."
        return " ".join([text.upper()] * times)

Then a diagram may have nodes of `type: shout`. A parameter's value is, in this order: the property of that name in the diagram
(texts are templates), the input of that name (label of an arrow, key of a mapping, variable of the run), for the first parameter
without a default the node's only unlabelled input, and the parameter's default.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, TypeVar, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from typing_extensions import is_typeddict

from dipeo_nb.common import user_code
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.typed_dicts import readable
from dipeo_nb.common.values import BASE64, plain_value
from dipeo_nb.domain.enums import NodeCategory, NodeType
from dipeo_nb.domain.nodes import NodeMeta, NodeSpec, register_node_spec, spec
from dipeo_nb.errors import NodeExecutionError, ValidationError
from dipeo_nb.execution import handlers, log_capture
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.function_context import FunctionContext
from dipeo_nb.execution.inputs import Output, TextView, plain

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_PLAIN = (str, int, float, bool)
_MISSING: Any = object()


@overload
def node(function: F, /) -> F: ...


@overload
def node(*, name: str | None = None, timeout: float | None = None, side_effects: bool = True) -> Callable[[F], F]: ...


@checked_call
def node(function: Any = None, /, *, name: str | None = None, timeout: float | None = None, side_effects: bool = True) -> Any:
    """Make a function a node type; the function itself stays as it is. Defining it again replaces it.

    A plain function runs in a thread of its own. `async def` ones share an event loop, which is neither the library's nor the
    notebook's: one that blocks delays the others that are at work, but no run, limit or Stop; what is bound to an event loop
    (clients, locks) is made in the functions, or at module level by what binds itself on first use. An async generator gives the
    list of its items. A parameter called `context` gets the `NodeContext`: services, conversation, `idempotency_key`. What is
    returned becomes a plain value (docs/values.md); it is recorded, so a resumed run does not call the function again.

    Args:
        name: the type in diagrams; default: the function's name.
        timeout: seconds for one call; default: that of the settings. A function that is late is cancelled when it is async, also in
            a loop that awaits nothing. A plain one, and a call that does not return (`time.sleep`), is not waited for any more,
            but Python cannot end its thread.
        side_effects: whether calling it twice can do harm outside.

    Raises:
        ValidationError: the name is invalid or that of a built-in type, or a parameter cannot be filled (`*args`, reserved names).
    """

    if isinstance(function, str):
        raise ValidationError("The name of a node type is an option of its own.", hint=f"Write @dp.node(name={function!r}).")

    def decorate(made: Any) -> Any:
        if not callable(made):
            raise ValidationError(
                f"A node type is a function, not {type(made).__name__}.", hint="Write @dp.node above the function's `def`."
            )
        kind = name or user_code.name_of(made)
        signature = inspect.signature(made)
        _check(kind, made, signature)
        hints = _hints(made)
        parameters = [p for p in signature.parameters.values() if p.name != "context"]
        work = _Function(kind, made, parameters, hints, takes_context="context" in signature.parameters)
        register_node_spec(_spec_of(kind, made, parameters, hints, side_effects))
        handlers.register(kind, work, timeout="default" if timeout is None else timeout)
        return made

    return decorate if function is None else decorate(function)


class _Function:
    """The handler of one such type."""

    def __init__(
        self,
        kind: str,
        function: Callable[..., Any],
        parameters: list[inspect.Parameter],
        hints: Mapping[str, Any],
        takes_context: bool,
    ) -> None:
        self._kind, self._function, self._parameters, self._takes_context = kind, function, parameters, takes_context
        config = ConfigDict(arbitrary_types_allowed=True)
        self._texts = {p.name for p in parameters if _is_text(hints.get(p.name, Any))}
        self._bytes = {p.name for p in parameters if hints.get(p.name) is bytes}
        self._types = {p.name: _adapter(hints[p.name], config) for p in parameters if hints.get(p.name, Any) is not Any}
        required = [p.name for p in parameters if p.default is p.empty]
        self._first = required[0] if required else None
        """Takes the only unlabelled input."""

    async def __call__(self, context: NodeContext) -> Output:
        given = self._given(context)
        own = {"context": FunctionContext.of(context)} if self._takes_context else {}
        context.acting = True
        with log_capture.calling(context.execution.hear, context.node):
            output = await user_code.finished(self._function, lambda: self._typed(given) | own, _output)
        return output._replace(meta={**context.spent(), **output.meta}) if context.spent() else output

    def _given(self, context: NodeContext) -> dict[str, Any]:
        """Parameter → value, as the node and its inputs have it."""
        names = context.names
        arguments: dict[str, Any] = {}
        for parameter in self._parameters:
            value = self._value(context, parameter, names)
            if value is _MISSING:
                if parameter.default is parameter.empty:
                    raise NodeExecutionError(
                        f"'{self._kind}' needs '{parameter.name}', and nothing brings it.",
                        hint=f"Give the node a property '{parameter.name}', or label an arrow into it '{parameter.name}'.",
                    )
                continue
            arguments[parameter.name] = value
        return arguments

    def _value(self, context: NodeContext, parameter: inspect.Parameter, names: Mapping[str, Any]) -> Any:
        given = getattr(context.node.spec, parameter.name)
        if given is not None:
            if not isinstance(given, str):
                return given
            return (context.render if parameter.name in self._texts else context.render_value)(given, names)
        brought = context.inputs.names(context.variables)
        if parameter.name in brought:
            return self._taken(parameter.name, brought[parameter.name])
        if parameter.name == self._first and "default" in context.inputs.values:
            return self._taken(parameter.name, brought["default"])
        return _MISSING

    def _taken(self, name: str, value: Any) -> Any:
        """An input as the parameter takes it: a `str` the text of an arrow that carries text, `bytes` the bytes."""
        if isinstance(value, TextView) and name in self._texts:
            return str(value)
        value = plain(value)
        if name in self._bytes and isinstance(value, dict) and set(value) == {BASE64}:
            return base64.b64decode(value[BASE64])
        return value

    def _typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the annotations have them. Validators are code of the user's."""
        return {name: self._fitting(name, value) if name in self._types else value for name, value in given.items()}

    def _fitting(self, name: str, value: Any) -> Any:
        try:
            return self._types[name].validate_python(value)
        except PydanticValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise NodeExecutionError(
                f"'{where}' of '{self._kind}' does not fit: {first['msg']}.",
                hint=f"It got {type(value).__name__}; correct what comes into the node, or the function's annotation.",
            ) from None


def _output(value: Any) -> Output:
    """What a function gave. Iterators run here, where the function runs and in its time."""
    return value if isinstance(value, Output) else Output(plain_value(value, "result"))


def _spec_of(
    kind: str, function: Any, parameters: list[inspect.Parameter], hints: Mapping[str, Any], side_effects: bool
) -> type[NodeSpec]:
    """The typed properties of the type: one for each parameter, all optional, since inputs may bring them."""
    fields: list[Any] = []
    for parameter in parameters:
        text = _is_text(hints.get(parameter.name, Any))
        doc = f"Default: {parameter.default!r}" if parameter.default is not parameter.empty else "Required, here or as an input"
        hint = hints.get(parameter.name, Any)
        fields.append((parameter.name, _simple(hint), spec(None, doc=doc, template=text)))
    summary = (inspect.getdoc(user_code.described_by(function)) or f"The function {kind}").splitlines()[0]
    meta = NodeMeta(kind, NodeCategory.COMPUTE, summary, outputs=("default", "error"), side_effects=side_effects)
    made = dataclasses.make_dataclass(
        f"{kind.title().replace('_', '')}Node",
        fields,
        bases=(NodeSpec,),
        namespace={"META": meta, "__annotations__": {"META": ClassVar}, "__doc__": summary},
        frozen=True,
        slots=True,
        kw_only=True,
    )
    return typing.cast("type[NodeSpec]", made)


def _simple(hint: Any) -> Any:
    """The annotation that a diagram's property is checked against; Any where only a call can tell."""
    options = [a for a in typing.get_args(hint) if a is not type(None)] if _is_union(hint) else [hint]
    if len(options) == 1 and (options[0] in _PLAIN or (isinstance(options[0], type) and issubclass(options[0], Enum))):
        return options[0] | None
    return Any


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_text(hint: Any) -> bool:
    return hint is str or (_is_union(hint) and str in typing.get_args(hint))


def _adapter(hint: Any, config: ConfigDict) -> TypeAdapter[Any]:
    hint = readable(hint)
    own = isinstance(hint, type) and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint) or is_typeddict(hint))
    return TypeAdapter(hint) if own else TypeAdapter(hint, config=config)


def _hints(function: Any) -> dict[str, Any]:
    of = user_code.described_by(function)
    try:
        return typing.get_type_hints(of.__init__ if inspect.isclass(of) else of)
    except NameError as error:
        raise ValidationError(
            f"An annotation of '{user_code.name_of(function)}' names '{error.name}', which is not there.",
            hint="Define or import it above the function.",
        ) from None


def _check(kind: str, function: Any, signature: inspect.Signature) -> None:
    if not _NAME.match(kind):
        raise ValidationError(
            f"'{kind}' is not the name of a node type.",
            hint="Use lower-case letters, digits and `_`: @dp.node(name='my_node').",
        )
    if kind in set(NodeType):
        raise ValidationError(f"'{kind}' is a built-in node type.", hint="Choose another name: @dp.node(name=…).")
    reserved = {f.name for f in dataclasses.fields(NodeSpec)} | {"META", "label", "type", "id", "position", "props"}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValidationError(
                f"'{kind}' has the parameter '{parameter}', which no property can fill.", hint="Name every parameter."
            )
        if parameter.name in reserved:
            raise ValidationError(
                f"'{kind}' has a parameter '{parameter.name}', which means something else in every node.",
                hint="Call it another name.",
            )

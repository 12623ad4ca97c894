"""Jinja2's sandbox as our templates use it: keys before methods, text views, missing values, bounded results.

A value's methods can be called (`{{ name.upper() }}`), and that is all: a method that is not called is a missing value, so that
`{{ reply.title }}` of a text or `{{#if order.items}}` of a mapping without that key never means Python's own `title` or `items`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, MappingView
from contextvars import ContextVar
from functools import cached_property, wraps
from itertools import islice
from typing import Any, Protocol, TypeVar, cast

from jinja2 import ChainableUndefined, Environment, Undefined, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import do_sum
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from dipeo_nb.diagram.metering import MAX_ROUNDS, Meter, meter
from dipeo_nb.diagram.template_code import TemplateCode
from dipeo_nb.diagram.values import TooLargeError, as_text, checked_binary, checked_method, plain, structured_text

# Noncharacters: Unicode reserves them for internal use, so no text has them.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


class Noted(Protocol):
    """The record that collects missing values during a rendering."""

    missing: dict[str, None]
    touched: bool


RECORD: ContextVar[Noted | None] = ContextVar("dipeo_template_record", default=None)
FILENAME = "<prompt template>"


class Missing(ChainableUndefined):
    """A missing value: prints nothing, and is noted when it is printed or walked."""

    def __str__(self) -> str:
        check_refused(self)
        record = RECORD.get()
        if record is not None:
            record.missing[self._undefined_name or "?"] = None
            record.touched = True
        return ""

    def __iter__(self) -> Iterator[Any]:
        str(self)
        return iter(())

    def __len__(self) -> int:
        str(self)
        return 0

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        check_refused(self)
        return Missing(name=f"{self._undefined_name}.{name}")

    def __getitem__(self, key: Any) -> Missing:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Missing(name=f"{self._undefined_name}[{key}]")


def check_refused(value: Any) -> None:
    if value._undefined_exception is SecurityError:
        raise SecurityError(value._undefined_message)


class _Method:
    """Mixed into the class of missing values: a method of a value, missing as long as it is not called."""

    _bound: Callable[..., Any]


def _refusal(message: str) -> Callable[..., Any]:
    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise SecurityError(message)

    return refused


OURS: set[type] = set()
"""Classes whose methods translated tags call."""
_BUILT_IN = frozenset([str, bytes, int, float, list, tuple, dict, set, frozenset])
_OWNERS = (str, bytes, int, float, list, tuple, set, frozenset, Mapping, datetime.date, datetime.time)
"""Kinds of values whose methods are charged."""
_PLAIN_VALUES = (str, bytes, int, float, list, tuple, set, frozenset, Mapping, type(None))
"""Kinds of values that have keys, items and methods, and no attributes."""


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox; keys come before methods, text views give their value, results are bounded."""

    code_generator_class = TemplateCode
    called_by_tags: frozenset[str] = frozenset()
    """Names of our own functions that take no time to speak of, or charge it themselves; no template can give them to something
    else."""
    intercepted_binops = frozenset(["**", "*", "%", "+"])

    @cached_property
    def _method_kind(self) -> type[Undefined]:
        return type("Method", (_Method, self.undefined), {})

    def _member(self, value: Any, name: str) -> Any:
        """An attribute of a value; a method only to be called."""
        found = super().getattr(value, name)
        if isinstance(found, Undefined):
            if found._undefined_exception is not SecurityError:
                return found
            found = _refusal(str(found._undefined_message))  # a method that changes its value
        if callable(found):
            method = self._method_kind(obj=value, name=name)
            cast(_Method, method)._bound = found  # pyright: ignore[reportPrivateUsage]
            return method
        if isinstance(value, _PLAIN_VALUES) and name not in getattr(value, "__dict__", ()):
            return self.undefined(obj=value, name=name)  # what every text or number has (`n.real`) is not the author's
        return found

    def getattr(self, obj: Any, attribute: str) -> Any:
        value = plain(obj)
        if isinstance(value, Mapping) and attribute in value:
            return value[attribute]
        if isinstance(value, Undefined):
            return super().getattr(value, attribute)
        if attribute.startswith("_") and not isinstance(value, Mapping):
            raise SecurityError(f"'{attribute}' cannot be read: names that begin with an underscore are not for templates")
        if isinstance(value, str) and attribute in ("format", "format_map"):
            raise SecurityError(f"the method {attribute} is not for templates; put the values where they belong")
        if isinstance(value, (list, tuple)) and attribute.isdecimal():
            return self.getitem(value, int(attribute))
        return self._member(obj if isinstance(obj, str) and not isinstance(value, (Mapping, list)) else value, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = plain(obj)
        argument = plain(argument)
        if isinstance(value, Mapping):
            if isinstance(argument, slice):
                value = str(obj)
            else:
                try:
                    return value[argument]
                except (KeyError, TypeError):
                    return self.undefined(obj=value, name=f"[{argument}]")
        if isinstance(argument, str) and argument.startswith("_") and not isinstance(value, ChainableUndefined):
            raise SecurityError(f"'{argument}' cannot be read: names that begin with an underscore are not for templates")
        if isinstance(argument, ChainableUndefined):
            return self.undefined(name=argument._undefined_name)
        if isinstance(argument, str) and not isinstance(value, Undefined):
            if not argument.isdecimal() or not isinstance(value, (list, tuple)):
                return self._member(value, argument)
            argument = int(argument)
        found = super().getitem(value, argument)
        if isinstance(argument, slice):
            meter().spend(len(cast("str | list[Any]", found)))
        return found

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        x, y = (left, right) if isinstance(left, str) and isinstance(right, str) else (plain(left), plain(right))
        checked_binary(operator, x, y)
        if operator == "%" and isinstance(x, (str, bytes)):
            meter().weigh(y, factor=max(x.count("%") if isinstance(x, str) else x.count(b"%"), 1))
        made = super().call_binop(context, operator, x, y)
        if isinstance(made, (str, bytes, list, tuple)):
            meter().spend(len(made))  # pyright: ignore[reportUnknownArgumentType]
        return made

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        obj = obj._bound if isinstance(obj, _Method) else obj  # pyright: ignore[reportPrivateUsage]
        owner = getattr(obj, "__self__", None)
        if owner is self or type(owner) in OURS:  # no call of the author's
            return obj(*args)
        account = meter()
        account.turn(ROUNDS_OF_A_MACRO if isinstance(obj, Macro) else 1)
        if isinstance(obj, LoopContext):  # the recursion of `{% for … recursive %}`
            return super().call(context, obj, *(self.counted(value, 0) for value in args[:1]))
        if owner is None or not (type(owner) in _BUILT_IN or isinstance(owner, _OWNERS)):
            return super().call(context, obj, *args, **kwargs)
        account.weigh(owner, 10 if getattr(obj, "__name__", "") == "translate" else 1)
        if args or kwargs:
            args = tuple(gathered(value) for value in args)
            checked_method(owner, getattr(obj, "__name__", ""), (*args, *kwargs.values()))
            for value in (*args, *kwargs.values()):
                account.weigh(value)
        made = super().call(context, obj, *args, **kwargs)
        if isinstance(made, (str, bytes, list, tuple)):
            account.spend(len(made))  # pyright: ignore[reportUnknownArgumentType]
        return made

    # What `Counted` puts into templates. No name of a template leads here.

    def counted(self, value: Any, text: int) -> Any:
        """The items of a loop, each iteration charged with the text of its body."""
        value = plain(value)
        if isinstance(value, (str, Mapping, list, tuple, set, frozenset, range)):
            account = meter()
            account.turn(len(value))  # pyright: ignore[reportUnknownArgumentType]
            account.spend(len(value) * text)  # pyright: ignore[reportUnknownArgumentType]
            return value
        return self._rounds(value, text) if isinstance(value, Iterator) else value

    def _rounds(self, values: Iterator[Any], text: int) -> Iterator[Any]:
        account = meter()
        for value in values:
            account.turn()
            account.spend(text)
            yield value

    def charged(self, text: int) -> str:
        """The text in the body of a macro, at every call of it."""
        meter().spend(text)
        return ""

    def weighed(self, value: Any) -> Any:
        """A value that is compared, or was just made."""
        meter().weigh(plain(value))
        return value

    def joined(self, *values: Any) -> str:
        """Values as one text: the operator ~."""
        account = meter()
        for value in values:
            account.weigh(value)
        return "".join(map(str, values))

    def _load_template(self, name: str, globals: Any) -> Any:
        meter().turn(ROUNDS_OF_A_TEMPLATE)
        return super()._load_template(name, globals)


E = TypeVar("E", bound=SandboxEnvironment)


def make_environment(kind: type[E], filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any) -> E:
    """An environment of the sandbox, with further *filters*; *options* are Jinja2's."""
    options = {"keep_trailing_newline": True, "autoescape": False, "cache_size": 0, "extensions": (), **options}
    env = kind(**options)
    env.globals = {"range": env.globals["range"]}
    for name in _STRUCTURE_FILTERS & env.filters.keys():
        env.filters[name] = _on_values(env.filters[name])
    env.filters["sum"] = _sum
    env.filters["json"] = env.filters["tojson"] = _to_json
    for name in ("center", "indent", "format", "xmlattr"):
        # The first two make text of any length, the others are for other uses.
        env.filters.pop(name, None)
    env.filters["indent"] = _indent
    env.filters["attr"] = _attribute
    env.filters |= filters or {}
    env.filters = {name: _metered(name, function) for name, function in env.filters.items()}
    env.tests = {name: _metered(name, test) for name, test in env.tests.items()}
    return env


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test whose work is charged. As it asks for the context, it is never carried out while a template is compiled."""
    wants = getattr(function, "jinja_pass_arg", None)
    factor = _EXPENSIVE.get(name, 1)
    checked = name in ("batch", "slice", "round", "replace", "join")

    @pass_context
    @wraps(function)
    def simple(context: Context, *args: Any, **kwargs: Any) -> Any:
        account = meter()
        account.turn()
        for value in args:
            account.weigh(value, factor)
        made = function(*args, **kwargs)
        if isinstance(made, (str, list)):
            account.spend(len(made))  # pyright: ignore[reportUnknownArgumentType]
        return made

    if wants is None and not checked:
        return simple

    @pass_context
    @wraps(function)
    def call(context: Context, *args: Any, **kwargs: Any) -> Any:
        account = meter()
        account.turn()
        if name == "join":
            args = (gathered(plain(args[0])), *args[1:])
        for value in args:
            account.weigh(value, factor)
        if checked:
            _check_filter(name, (*args, *kwargs.values()), account)
        if wants is not None:
            args = (getattr(context, _CONTEXTS[wants.name]) if wants.name in _CONTEXTS else context, *args)
        made = function(*args, **kwargs)
        if isinstance(made, (str, list)):
            account.spend(len(made))  # pyright: ignore[reportUnknownArgumentType]
        return made

    return call


_CONTEXTS = {"environment": "environment", "eval_context": "eval_ctx"}
_EXPENSIVE = {
    "urlize": 60, "striptags": 60, "wordwrap": 400, "pprint": 30, "batch": 20, "title": 10, "groupby": 10, "sort": 10, "unique": 10,
    "tojson": 4, "json": 4, "slice": 4, "sum": 4, "max": 4, "min": 4, "dictsort": 4,
}  # fmt: skip
"""Filters that take much longer for each character or element than others."""


def _check_filter(name: str, args: tuple[Any, ...], account: Meter) -> None:
    """Refuse a filter whose result would be far too large."""
    numbers = [abs(value) for value in args[1:] if isinstance(value, int)]
    if name in ("batch", "slice") and max(numbers, default=0) > MAX_PARTS:
        raise TooLargeError(f"{name} makes at most {MAX_PARTS:,} parts")
    if name == "batch" and isinstance(args[0], (str, bytes, list, tuple, range, Mapping, set, frozenset)):
        account.turn(len(args[0]) // max([*numbers, 1]))  # pyright: ignore[reportUnknownArgumentType]
    if name == "round" and max(numbers, default=0) > MAX_PLACES:
        raise TooLargeError(f"round takes at most {MAX_PLACES:,} digits")
    if name in ("replace", "join") and len(args) > 1:
        many = args[0] if name == "join" else str(args[0])
        if name == "replace":
            checked_method(many, "replace", [str(value) for value in args[1:3]])
        elif isinstance(many, (list, tuple, str)):
            account.spend(len(many) * len(str(args[1])))  # pyright: ignore[reportUnknownArgumentType]
            checked_method(str(args[1]), "join", [["" for _ in many]])  # pyright: ignore[reportUnknownVariableType]


MAX_PARTS = 100_000
"""Parts of the filters batch and slice."""
MAX_PLACES = 1_000
"""Digits of the filter round."""
ROUNDS_OF_A_MACRO = 10
"""Cost of a call of a macro."""
ROUNDS_OF_A_TEMPLATE = 20
"""Cost of an included template."""


@pass_environment
def _sum(environment: Environment, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TooLargeError("sum adds numbers only")  # adding lists one by one takes quadratic time
    return do_sum(environment, plain(iterable), attribute, start)


class Counted(NodeTransformer):
    """Sees to it that everything in a template that takes time is counted."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        values = cast(nodes.Expr, node.iter)
        node.iter = self._call("counted", values, nodes.Const(_text_in(node)), lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._body(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = cast("list[nodes.Expr]", node.nodes)
        return self._call("joined", *parts, lineno=node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        parts = [node.expr, *(operand.expr for operand in node.ops)]
        equality = all(operand.op in ("eq", "ne") for operand in node.ops)
        if len(parts) == 2 and equality and any(isinstance(part, nodes.Const) for part in parts):
            return node  # takes no longer than the constant is long
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._weighed(node) if any(not isinstance(item, nodes.Const) for item in node.items) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or all(isinstance(i, nodes.Const) for i in node.items) else self._weighed(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._weighed(node)

    def _body(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        body = cast(nodes.Macro, node).body
        charge = self._call("charged", nodes.Const(_text_in(node)), lineno=node.lineno)
        body.insert(0, nodes.Output([charge], lineno=node.lineno))
        return node

    def _weighed(self, node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.Const) else self._call("weighed", node, lineno=node.lineno)

    def _call(self, name: str, *arguments: nodes.Expr, lineno: int) -> nodes.Call:
        function = nodes.EnvironmentAttribute(name, lineno=lineno)
        return nodes.Call(function, list(arguments), [], None, None, lineno=lineno)


def _text_in(node: nodes.Node) -> int:
    """Characters of the text in the body of a loop or macro."""
    return sum(len(text.data) for text in node.find_all(nodes.TemplateData))


@pass_environment
def _attribute(environment: SandboxEnvironment, value: Any, name: str) -> Any:
    return environment.getattr(value, name)


_STRUCTURE_FILTERS = frozenset(
    [
        "abs", "attr", "batch", "count", "dictsort", "first", "float", "groupby", "int", "items", "join", "last",
        "length", "list", "map", "max", "min", "pprint", "random", "reject", "rejectattr", "reverse", "round",
        "select", "selectattr", "slice", "sort", "sum", "unique",
    ]
)  # fmt: skip
"""Filters that want the value behind a text view."""


def _on_values(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*(plain(a) for a in args), **kwargs)

    return call


def gathered(value: Any) -> Any:
    """A list for what gives its items one by one (`map`, `keys()`, a range); everything else as it is.

    Raises:
        TooLargeError: it gives too many.
    """
    if not isinstance(value, (Iterator, MappingView, range)):
        return value
    items: list[Any] = list(islice(cast(Iterator[Any], value), MAX_ROUNDS + 1))
    if len(items) > MAX_ROUNDS:
        raise TooLargeError(f"the loops take more than {MAX_ROUNDS:,} rounds")
    return items


def _to_json(value: Any, indent: int | None = None) -> str:
    return structured_text(plain(gathered(value)), indent=indent and min(indent, 8))


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    pad = " " * min(width, 80)
    text = as_text(value).replace("\n", "\n" + pad)
    return pad + text if first else text


class _PromptEnvironment(SandboxEnvironment):
    called_by_tags = frozenset(["_out", "_each", "_named", "_has", "_given", "_field", "_true"])


ENVIRONMENT: Environment = make_environment(
    _PromptEnvironment,
    block_start_string=OPEN + "%",
    block_end_string="%" + CLOSE,
    variable_start_string=OPEN + "{",
    variable_end_string="}" + CLOSE,
    comment_start_string=OPEN + "#",
    comment_end_string="#" + CLOSE,
    undefined=Missing,
)
"""The environment of prompts."""

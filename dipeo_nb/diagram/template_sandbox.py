"""Jinja2's sandbox as our templates use it: keys before methods, text views, missing values, bounded results.

A value's methods can be called (`{{ name.upper() }}`), and that is all: a method that is not called is a missing value, so that
`{{ reply.title }}` of a text or `{{#if order.items}}` of a mapping without that key never means Python's own `title` or `items`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MappingView
from contextvars import ContextVar
from functools import cached_property, wraps
from itertools import islice
from typing import Any, Protocol, cast

from jinja2 import ChainableUndefined, Environment, Undefined, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dipeo_nb.diagram.values import TooLargeError, as_text, checked_binary, checked_method, plain, structured_text

# Noncharacters: Unicode reserves them for internal use, so no text has them.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


class Noted(Protocol):
    """Who is told of missing values during a rendering."""

    missing: dict[str, None]
    touched: bool


RECORD: ContextVar[Noted | None] = ContextVar("dipeo_template_record", default=None)
FILENAME = "<prompt template>"
MAX_ROUNDS = 1_000_000
"""Rounds of all loops of one rendering."""


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


_PLAIN_VALUES = (str, bytes, int, float, list, tuple, set, frozenset, Mapping, type(None))
"""Kinds of values that have keys, items and methods, and no attributes."""


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox; keys come before methods, text views give their value, results are bounded."""

    intercepted_binops = frozenset(["**", "*", "%"])

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
            raise SecurityError(
                f"'{attribute}' cannot be read: names that begin with an underscore are not for templates"
            )
        if isinstance(value, str) and attribute in ("format", "format_map"):
            raise SecurityError(f"the method {attribute} is not for templates; put the values where they belong")
        if isinstance(value, (list, tuple)) and attribute.isdecimal():
            return self.getitem(value, int(attribute))
        return self._member(
            obj if isinstance(obj, str) and not isinstance(value, (Mapping, list)) else value, attribute
        )

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
            raise SecurityError(
                f"'{argument}' cannot be read: names that begin with an underscore are not for templates"
            )
        if isinstance(argument, ChainableUndefined):
            return self.undefined(name=argument._undefined_name)
        if isinstance(argument, str) and not isinstance(value, Undefined):
            if not argument.isdecimal() or not isinstance(value, (list, tuple)):
                return self._member(value, argument)
            argument = int(argument)
        return super().getitem(value, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        x, y = (left, right) if isinstance(left, str) and isinstance(right, str) else (plain(left), plain(right))
        checked_binary(operator, x, y)
        return super().call_binop(context, operator, x, y)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        obj = obj._bound if isinstance(obj, _Method) else obj  # pyright: ignore[reportPrivateUsage]
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, (str, bytes)):
            checked_method(owner, getattr(obj, "__name__", ""), args)
        return super().call(context, obj, *args, **kwargs)


def make_environment(kind: type[SandboxEnvironment], **options: Any) -> SandboxEnvironment:
    """An environment of the sandbox; *options* are Jinja2's."""
    env = kind(keep_trailing_newline=True, autoescape=False, cache_size=0, extensions=(), **options)
    env.globals = {"range": env.globals["range"]}
    for name in _STRUCTURE_FILTERS & env.filters.keys():
        env.filters[name] = _on_values(env.filters[name])
    env.filters["json"] = env.filters["tojson"] = _to_json
    for name in ("center", "indent", "format", "xmlattr"):
        # The first two make text of any length, the others are for other uses.
        env.filters.pop(name, None)
    env.filters["indent"] = _indent
    env.filters["attr"] = _attribute
    return env


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


ENVIRONMENT: Environment = make_environment(
    SandboxEnvironment,
    block_start_string=OPEN + "%",
    block_end_string="%" + CLOSE,
    variable_start_string=OPEN + "{",
    variable_end_string="}" + CLOSE,
    comment_start_string=OPEN + "#",
    comment_end_string="#" + CLOSE,
    undefined=Missing,
)
"""The environment of prompts."""

"""Jinja2's sandbox as our templates use it: keys before attributes, text views, missing values, bounded results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, Protocol

from jinja2 import ChainableUndefined, Environment
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dipeo_nb.diagram.values import as_text, checked_binary, checked_method, plain, structured_text

# Noncharacters: Unicode reserves them for internal use, so no text has them.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


class Noted(Protocol):
    """Who is told of missing values during a rendering."""

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


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox; keys come before attributes, text views give their value, results are bounded."""

    intercepted_binops = frozenset(["**", "*", "%"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        value = plain(obj)
        if isinstance(value, Mapping) and attribute in value:
            return value[attribute]
        if isinstance(value, ChainableUndefined):
            return super().getattr(value, attribute)
        if attribute.startswith("_") and not isinstance(value, Mapping):
            raise SecurityError(
                f"'{attribute}' cannot be read: names that begin with an underscore are not for templates"
            )
        if isinstance(value, str) and attribute in ("format", "format_map"):
            raise SecurityError(f"the method {attribute} is not for templates; put the values where they belong")
        if isinstance(value, (list, tuple)) and attribute.isdecimal():
            return self.getitem(value, int(attribute))
        return super().getattr(
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
        if isinstance(argument, str) and argument.isdecimal() and isinstance(value, (list, tuple)):
            argument = int(argument)
        return super().getitem(value, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        x, y = (left, right) if isinstance(left, str) and isinstance(right, str) else (plain(left), plain(right))
        checked_binary(operator, x, y)
        return super().call_binop(context, operator, x, y)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
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
    return env


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


def _to_json(value: Any, indent: int | None = None) -> str:
    return structured_text(plain(value), indent=indent and min(indent, 8))


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

"""Functions that expressions can call, and comparison of values: functions, methods, operators and text views."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import operator
from collections.abc import Callable, Mapping
from typing import Any

from dipeo_nb.diagram.values import TooLargeError, plain

MAX_STEPS = 100_000
"""Rounds of all comprehensions of one evaluation; also the longest `range`."""


def _range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_STEPS:
        raise TooLargeError(f"a range may have {MAX_STEPS:,} elements, this one has {len(made):,}")
    return made


def _reversed(value: Any) -> list[Any]:
    return list(reversed(value))


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 1_000:
        raise TooLargeError("round takes at most 1,000 digits")
    return round(value, digits)


def _sum(values: Any, start: float = 0) -> Any:
    if not isinstance(start, (int, float)):
        # Adding lists one by one takes quadratic time.
        raise TypeError("sum adds numbers only")
    return sum(values, start)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "dict": dict, "enumerate": enumerate, "float": float, "int": int,
    "isinstance": isinstance, "len": len, "list": list, "max": max, "min": min, "range": _range,
    "reversed": _reversed, "round": _round, "set": set, "sorted": sorted, "str": str, "sum": _sum, "tuple": tuple,
    "zip": zip,
}  # fmt: skip
TYPES: dict[str, type] = {
    "bool": bool, "dict": dict, "float": float, "int": int, "list": list, "set": set, "str": str, "tuple": tuple,
}  # fmt: skip
LAZY = ("any", "all")
"""Functions that stop early: a generator given to them is not made into a list first."""
_TEXT_METHODS = frozenset(
    [
        "capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
        "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isspace", "istitle", "isupper", "join",
        "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
        "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
        "title", "upper", "zfill",
    ]
)  # fmt: skip
_SET_METHODS = frozenset(
    ["copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "symmetric_difference", "union"]
)
METHODS: tuple[tuple[type | tuple[type, ...], frozenset[str]], ...] = (
    (str, _TEXT_METHODS),
    (Mapping, frozenset(["copy", "get", "items", "keys", "values"])),
    ((list, tuple), frozenset(["copy", "count", "index"])),
    ((set, frozenset), _SET_METHODS),
    ((int, float), frozenset(["bit_length", "is_integer"])),
    ((datetime.date, datetime.time), frozenset(["date", "isoformat", "isoweekday", "time", "timestamp", "weekday"])),
)
DATE_FIELDS = frozenset(["year", "month", "day", "hour", "minute", "second", "microsecond"])
BINARY: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
    ast.LShift: ("<<", operator.lshift),
    ast.RShift: (">>", operator.rshift),
    ast.BitAnd: ("&", operator.and_),
    ast.BitOr: ("|", operator.or_),
    ast.BitXor: ("^", operator.xor),
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}


def _is(left: Any, right: Any) -> bool:
    # Identity of numbers and texts is an accident of the interpreter; equality of the same type is what is meant.
    return left is right or (type(left) is type(right) and isinstance(left, (str, int, float)) and left == right)


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: _is,
    ast.IsNot: lambda a, b: not _is(a, b),
}


def comparison(kind: type[ast.cmpop]) -> Callable[[Any, Any], Any]:
    """The function of a comparison operator."""
    if kind is ast.Eq:
        return _equal
    if kind is ast.NotEq:
        return lambda a, b: not _equal(a, b)
    if kind is ast.In:
        return _contains
    if kind is ast.NotIn:
        return lambda a, b: not _contains(a, b)
    test = _COMPARE[kind]

    def compare(a: Any, b: Any) -> Any:
        if isinstance(a, str) and isinstance(b, str):
            return test(str(a), str(b))
        return test(plain(a), plain(b))

    return compare


def _equal(a: Any, b: Any) -> bool:
    # A view of a conversation or of a value equals its text, and its value.
    if isinstance(b, str):
        return text_of(a) == str(b) if isinstance(a, str) or hasattr(a, "__dipeo_text__") else plain(a) == plain(b)
    if isinstance(a, str) and hasattr(b, "__dipeo_text__"):
        return a == b.__dipeo_text__
    return bool(plain(a) == plain(b))


def _contains(item: Any, many: Any) -> bool:
    value = plain(many)
    if not isinstance(item, str):
        return plain(item) in value
    # A view holds a text when its value or its text does.
    if isinstance(value, (Mapping, list, tuple, set, frozenset)) and str(item) in value:
        return True
    text = text_of(many)
    return str(item) in (text if isinstance(text, str) else value)


def text_of(value: Any) -> Any:
    """The text of a view; everything else as it is."""
    if isinstance(value, str):
        return str(value)
    return getattr(value, "__dipeo_text__", value)


def method_argument(value: Any) -> Any:
    """An argument of a method; a text view counts as its text."""
    return str(value) if isinstance(value, str) else value


def bound_method(owner: Any, name: str, path: str) -> Any:
    """The method of a value, if expressions may call it; *path* names the value in errors."""
    for candidate in (plain(owner), text_of(owner)):
        for types, names in METHODS:
            if isinstance(candidate, types) and name in names and hasattr(candidate, name):
                return getattr(candidate, name)
    value = plain(owner)
    if isinstance(value, Mapping) and name in value:
        raise TypeError(f"'{path}.{name}' is a value and cannot be called; leave the parentheses out")
    own = sorted(n for types, names in METHODS if isinstance(value, types) for n in names)
    raise AttributeError(f"{kind(value)} has no method '{name}'{f' (methods: {chr(44).join(own)})' if own else ''}")


def record_fields(value: Any) -> Any:
    """Names of the fields of a record (dataclass, named tuple, pydantic model); empty for everything else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind)]
    return getattr(kind, "_fields", None) or getattr(kind, "model_fields", None) or ()


def kind(value: Any) -> str:
    """The kind of a value, with an article, for messages."""
    if value is None:
        return "None"
    names = {
        "str": "text",
        "dict": "a mapping",
        "list": "a list",
        "int": "a number",
        "float": "a number",
        "bool": "a truth value",
    }
    return names.get(type(value).__name__, f"a value of type {type(value).__name__}")

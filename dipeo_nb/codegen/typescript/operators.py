"""Operators of JavaScript on values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dipeo_nb.codegen.typescript.values import (
    MAX_TEXT,
    UNDEFINED,
    kind_of,
    loosely_same,
    number,
    same,
    to_text,
    truthy,
)


def binary(operator: str, left: Any, right: Any) -> Any:
    """What an operator gives.

    Raises:
        ValueError: it is not evaluated for these values; the message says why.
    """
    if operator == "+" and (isinstance(left, str) or isinstance(right, str)):
        text = to_text(left) + to_text(right)
        if len(text) > MAX_TEXT:
            raise ValueError(f"the text would have more than {MAX_TEXT:,} characters")
        return text
    if operator in _EQUALITY:
        return _EQUALITY[operator](left, right)
    if operator == "in" and isinstance(right, dict):
        return to_text(left) in right
    if operator in _ORDER:
        if kind_of(left) != kind_of(right) or kind_of(left) not in ("number", "string"):
            raise ValueError(f"{kind_of(left)} {operator} {kind_of(right)}")
        return _ORDER[operator](left, right)
    if operator in _ARITHMETIC:
        one, other = _number(left, operator), _number(right, operator)
        try:
            return number(_ARITHMETIC[operator](one, other))
        except ZeroDivisionError:
            return math.nan if not one or operator == "%" else math.copysign(math.inf, one) * math.copysign(1, other)
        except OverflowError:
            return math.inf
    raise ValueError(f"the operator {operator}")


def unary(operator: str, value: Any) -> Any:
    """As `binary`."""
    match operator:
        case "!":
            return not truthy(value)
        case "typeof":
            return kind_of(value)
        case "void":
            return UNDEFINED
        case "-":
            return number(-_number(value, operator))
        case "+":
            return number(to_number(value))
        case "~":
            return ~_int32(_number(value, operator))
        case _:
            raise ValueError(f"the operator {operator}")


def to_number(value: Any) -> int | float:
    """`Number(value)`; ValueError: of something that has none here."""
    if value is None or value is False:
        return 0
    if value is True:
        return 1
    if value is UNDEFINED:
        return math.nan
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return 0
        try:
            return int(text, 0) if text[:2].lower() in ("0x", "0o", "0b") else number(float(text.replace("_", "x")))
        except ValueError:
            return math.nan
    raise ValueError(f"a number of {kind_of(value)}")


def _number(value: Any, operator: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{operator} of {kind_of(value)}")
    return value


def _int32(value: float) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        return 0
    small = int(value) & 0xFFFFFFFF
    return small - 0x100000000 if small & 0x80000000 else small


def _power(one: float, other: float) -> float:
    return float(one) ** other if abs(other) < 1100 else math.pow(one, other)


_EQUALITY: Mapping[str, Callable[[Any, Any], bool]] = {
    "===": same, "!==": lambda a, b: not same(a, b), "==": loosely_same, "!=": lambda a, b: not loosely_same(a, b),
}  # fmt: skip
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "%": lambda a, b: math.fmod(a, b) if b else math.nan, "**": _power,
    "&": lambda a, b: _int32(_int32(a) & _int32(b)), "|": lambda a, b: _int32(_int32(a) | _int32(b)),
    "^": lambda a, b: _int32(_int32(a) ^ _int32(b)), "<<": lambda a, b: _int32(_int32(a) << (_int32(b) & 31)),
    ">>": lambda a, b: _int32(a) >> (_int32(b) & 31), ">>>": lambda a, b: (_int32(a) & 0xFFFFFFFF) >> (_int32(b) & 31),
}  # fmt: skip

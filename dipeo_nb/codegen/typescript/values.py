"""Values of JavaScript, as far as constants need them: what they are, and how they turn into text, numbers and JSON."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node

    from dipeo_nb.codegen.typescript.outline import Outline


class Undefined:
    """The value `undefined`."""

    def __repr__(self) -> str:
        return "undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED = Undefined()
MAX_TEXT = 1_000_000
"""Characters of a text."""
MAX_ITEMS = 100_000
"""Elements of an array."""


@dataclass(slots=True)
class Scope:
    """The names of a function, then those around it, and at last those of the module."""

    outline: Outline
    namespace: str = ""
    around: Scope | None = None
    names: dict[str, Any] = field(default_factory=dict[str, Any])

    def within(self) -> Scope:
        """A scope inside this one."""
        return Scope(self.outline, self.namespace, self)


class Closure(NamedTuple):
    """A function with the names around it."""

    node: Node
    scope: Scope


class NotEvaluatedError(Exception):
    """An expression that has no value here.

    Args:
        node: it, or the part of it that is to blame.
    """

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


def truthy(value: Any) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return False
    if isinstance(value, (list, dict, Closure)):
        return True
    return bool(value)


def same(one: Any, other: Any) -> bool:
    """`===`."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if isinstance(one, (list, dict, Closure)) or isinstance(other, (list, dict, Closure)):
        return one is other
    return type(one) is type(other) and one == other


def loosely_same(one: Any, other: Any) -> bool:
    """`==` for values of one kind, and for null and undefined."""
    nothing = (None, UNDEFINED)
    if any(one is n for n in nothing) or any(other is n for n in nothing):
        return any(one is n for n in nothing) and any(other is n for n in nothing)
    return same(one, other)


def number(value: float) -> int | float:
    """A number; whole ones as `int`, so that JSON writes them without a point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def to_text(value: Any) -> str:
    """As a template string writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        text = repr(value)
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", text) if "e" in text else text
    if isinstance(value, list):
        items: list[Any] = value
        return ",".join("" if item is None or item is UNDEFINED else to_text(item) for item in items)
    if isinstance(value, dict):
        return "[object Object]"
    return str(value)


def kind_of(value: Any) -> str:
    """`typeof`."""
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "function" if isinstance(value, Closure) else "object"


def keys(value: dict[str, Any]) -> list[str]:
    """In JavaScript's order: whole numbers first, ascending."""
    if not any(key.isdecimal() for key in value):
        return list(value)
    numbers = [key for key in value if _INDEX.fullmatch(key)]
    return [*sorted(numbers, key=int), *(key for key in value if not _INDEX.fullmatch(key))]


_INDEX = re.compile(r"0|[1-9]\d{0,9}")


def key_text(value: Any) -> str:
    return value if isinstance(value, str) else to_text(value)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(\r\n|[\s\S]))")


def unescaped(text: str) -> str:
    """What stands between quotes, with its escapes carried out."""
    if "\\" not in text:
        return text

    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        if code:
            return chr(int(code, 16)) if int(code, 16) < 0x110000 else "�"
        if found[4] in ("\n", "\r\n", "\r", "\u2028", "\u2029"):
            return ""  # the line continues
        return _ESCAPES.get(found[4], found[4])

    made = _ESCAPE.sub(one, text)
    if any("\ud800" <= c <= "\udfff" for c in made):  # two halves of one character
        made = made.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return made


def parsed_number(text: str) -> int | float:
    """A literal: `1_000`, `0xff`, `1.5e3`, `10n`."""
    plain = text.replace("_", "").lower()
    if plain.endswith("n") and not plain.startswith("0x"):
        plain = plain[:-1]
    if plain[:2] in ("0x", "0o", "0b"):
        return int(plain.rstrip("n"), 0)
    try:
        return int(plain) if plain.isdecimal() and len(plain) < 400 else number(float(plain))
    except ValueError:
        return math.nan

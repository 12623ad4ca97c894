"""Values of expressions and templates: the value behind a text view, its text, and limits on results.

A *text view* is a `str` with an attribute `__dipeo_value__`: text that remembers what it was made from. A value with an
attribute `__dipeo_text__` is the opposite: a mapping that reads as text (a conversation as its last message).
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.common.values import UnsupportedValueError, is_plain, json_text, plain_value

MAX_SIZE = 10_000_000
"""Characters and elements that one evaluation or rendering may create at once."""
MAX_BITS = 20_000
"""Bits of a whole number."""


class TooLargeError(ValueError):
    """A result would exceed a limit."""


def plain(value: Any) -> Any:
    """The value that a text view was made from; any other value as it is."""
    if isinstance(value, str) and type(value) is not str:
        return getattr(value, "__dipeo_value__", value)
    return value


def checked_binary(symbol: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be far too large, before it is computed.

    Raises:
        TooLargeError: it would be.
    """
    whole = isinstance(left, int) and isinstance(right, int)
    if symbol == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple, bytes)) and isinstance(times, int) and len(many) * times > MAX_SIZE:
                raise TooLargeError(f"the result would have more than {MAX_SIZE:,} elements")
        bits = left.bit_length() + right.bit_length() if whole else 0
    elif symbol == "**":
        bits = left.bit_length() * right if whole else 0
    elif symbol == "<<":
        bits = left.bit_length() + right if whole else 0
    elif symbol == "%" and isinstance(left, (str, bytes)):
        form = left if isinstance(left, str) else left.decode("latin-1")
        if re.search(r"%[^%a-zA-Z]*(\*|\d{4,})", form):
            raise TooLargeError("the width in the format is too large")
        return
    else:
        return
    if bits > MAX_BITS:
        raise TooLargeError("the number would be too large")


def checked_method(owner: Any, name: str, arguments: Sequence[Any]) -> None:
    """Refuse the call of a text's method whose result would be far too large.

    Raises:
        TooLargeError: it would be.
    """
    if isinstance(owner, int) and name == "to_bytes":
        size = max((a for a in arguments if isinstance(a, int)), default=0)
    elif isinstance(owner, (datetime.date, datetime.time)) and name == "strftime":
        if any(isinstance(a, str) and re.search(r"\d{3,}", a) for a in arguments):
            raise TooLargeError("the width in the format is too large")
        return
    elif isinstance(owner, (str, bytes)):
        size = _size_of_text(owner, name, arguments)
    else:
        return
    if size > MAX_SIZE:
        raise TooLargeError(f"the text would have more than {MAX_SIZE:,} characters")


_ENCODINGS = frozenset(["utf8", "utf16", "utf16le", "utf16be", "utf32", "utf8sig", "ascii", "latin1", "iso88591", "cp1252"])
"""Encodings that are allowed; others take quadratic time, or are not encodings of text."""


def _size_of_text(owner: str | bytes, name: str, arguments: Sequence[Any]) -> int:
    """The maximum length of a text method's result; 0: no longer than the text."""
    size = 0
    if name in ("ljust", "rjust", "center", "zfill"):
        size = max((a for a in arguments if isinstance(a, int)), default=0)
    elif name == "expandtabs":
        size = len(owner) * max((a for a in arguments if isinstance(a, int)), default=8)
    elif name == "replace" and len(arguments) >= 2 and isinstance(arguments[1], type(owner)):
        # Replacing the empty text puts the new one at every place; `count` knows.
        text: Any = owner
        found: int = text.count(arguments[0]) if isinstance(arguments[0], type(owner)) else 0
        size = len(owner) + found * len(arguments[1])
    elif name == "join" and arguments and isinstance(arguments[0], (list, tuple, str, set, frozenset, Mapping)):
        parts: Any = arguments[0]
        size = len(owner) * len(parts) + sum(len(p) for p in parts if isinstance(p, (str, bytes)))
    elif name == "translate" and arguments and isinstance(arguments[0], Mapping):
        table: Any = arguments[0]
        size = len(owner) * max((len(t) for t in table.values() if isinstance(t, str)), default=1)
    elif name in ("encode", "decode") and arguments:
        encoding = re.sub(r"[^a-z0-9]", "", str(arguments[0]).lower())
        if encoding not in _ENCODINGS:
            raise TooLargeError(f"'{str(arguments[0])[:40]}' is not an allowed encoding; use utf-8")
    return size


def as_text(value: Any, *, python: bool = False) -> str:
    """A value as templates print it: text as it is, mappings and lists as JSON (indent 2), dates in ISO form.

    Args:
        python: mappings and lists in Python's notation, on one line, as Jinja2 prints them.
    """
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    text = getattr(value, "__dipeo_text__", None)
    if isinstance(text, str):
        return text
    if isinstance(value, (bool, int, float)):
        return str(value)
    data = jsonable(value)
    if isinstance(data, str):
        return data
    return str(data) if python else structured_text(data, indent=2)


def structured_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON, as it would be in a run; what has no form there as its text."""
    data = jsonable(value)
    if is_plain(data):
        return json_text(data, indent=indent)
    return json.dumps(data, indent=indent, ensure_ascii=False, default=jsonable)


FALSE_WORDS = frozenset(["", "false", "0", "no", "none"])


def is_true(value: Any) -> bool:
    """Truth for #if and #unless: missing, None, False, 0, empty, and the words false, 0, no, none (any case) are not."""
    value = plain(value)
    if isinstance(value, str):
        return value.strip().lower() not in FALSE_WORDS
    return bool(value)


def _is_undefined(value: Any) -> bool:
    """Whether it is Jinja2's missing value, of which there is none as long as nobody has imported Jinja2."""
    jinja2 = sys.modules.get("jinja2.runtime")
    return jinja2 is not None and isinstance(value, jinja2.Undefined)


def jsonable(value: Any) -> Any:
    """A value as it would be in a run. Of what has no form there, as values of a notebook may not: lists and mappings as they are,
    else the text."""
    if _is_undefined(value):
        str(value)  # notes what is missing, or refuses it, as its kind does
        return None
    try:
        return value if is_plain(value) else plain_value(value)
    except UnsupportedValueError:
        if isinstance(value, Mapping):
            return {k if isinstance(k, (str, int, float, type(None))) else str(k): v for k, v in value.items()}
        return value if isinstance(value, (list, tuple)) else str(value)

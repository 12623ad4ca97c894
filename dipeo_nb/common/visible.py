"""Texts that somebody else wrote, made safe to look at: what steers a terminal or turns the direction of writing is spelled out.

`\\x1b[2J` clears a terminal, and a right-to-left override shows a line of code as another one; both are shown as they are written
here. Line breaks and tabs stay.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from dipeo_nb.common.scrub import redactor

_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters (C0 and C1) and those that change the direction of writing."""
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
"""The same without isolates and marks, which our own texts put around labels."""


def visible(text: str) -> str:
    """*text* with every harmful character as its escape: `\\x1b`, `\\u202e`. CR LF counts as one line break."""
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def visible_json(text: str) -> str:
    """JSON text with harmful characters as JSON's own escapes; it stays the same value."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


P = ParamSpec("P")
R = TypeVar("R")


def displayed(method: Callable[P, R]) -> Callable[P, R]:
    """For a method that makes what is shown of an object (`__repr__`, `_repr_html_`, `_repr_mimebundle_`): without secrets and
    control characters, also in the output that a notebook saves."""

    @functools.wraps(method)
    def clean(*args: P.args, **kwargs: P.kwargs) -> R:
        return _clean(method(*args, **kwargs))

    return clean


def _clean(shown: Any) -> Any:
    if isinstance(shown, Mapping):
        return {kind: item if str(kind).startswith("image/png") else _clean(item) for kind, item in shown.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(shown, tuple):
        return tuple(map(_clean, shown))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(shown, str):
        return _STEERING.sub(_escape, redactor(shown))
    return shown

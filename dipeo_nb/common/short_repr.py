"""Representations of bounded length: what a notebook or a traceback shows of an object never holds a whole book."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.redaction import redactor

VALUE_LIMIT = 200
"""Characters of one value."""
REPR_LIMIT = 1_000
"""Characters of one object."""


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 4, 8, 8, 8, 8
        self.maxstring = self.maxother = VALUE_LIMIT
        self.maxlong = 60

    def repr_str(self, x: str, level: int) -> str:
        text: str = redactor(x)  # before it is cut: a piece of a secret would not be found any more
        return repr(text if len(text) <= self.maxstring else f"{text[: self.maxstring - 1]}…")


_SHORT = _Short()


def short_repr(value: Any, limit: int = REPR_LIMIT) -> str:
    """The repr of a value, with long texts, collections and levels cut; *limit* characters at most."""
    text = _SHORT.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def bounded_repr(self: Any) -> str:
    """A `__repr__` for dataclasses and named tuples with values of any size; empty fields are left out."""
    if dataclasses.is_dataclass(self):
        fields = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.repr]
    else:
        fields = list(zip(self._fields, self, strict=True))
    empty: tuple[Any, ...] = (None, "", (), [], {})
    shown = ", ".join(
        f"{name}={_SHORT.repr(value)}"
        for name, value in fields
        if not any(type(value) is type(e) and value == e for e in empty)
    )
    text = f"{type(self).__name__}({shown})"
    return text if len(text) <= REPR_LIMIT else f"{text[: REPR_LIMIT - 2]}…)"


if not TYPE_CHECKING:  # until 0.2
    __getattr__ = moved_names(
        __name__,
        {
            "inert": "dipeo_nb.common.text",
        },
    )

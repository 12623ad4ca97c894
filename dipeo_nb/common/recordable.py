"""Whether a value can be recorded as it stands: one look at what most nodes give, in place of one for its form and one for secrets."""

from __future__ import annotations

from typing import Any

from dipeo_nb.common.redaction import SHORTEST, redactor

FEW = 8
"""Entries of a small mapping."""
_SIMPLE = frozenset((float, bool, type(None)))


def is_recordable(value: Any) -> bool:
    """Whether a value is plain (`common.values`) and holds no secret that the process's redactor finds, as far as that is seen at once:
    of a text or number, and of a small mapping of these. False: it has to be looked at closely."""
    if type(value) is not dict:
        return _is_simple(value)
    if len(value) > FEW:
        return False
    marked = redactor.marked
    for name, item in value.items():
        if type(name) is not str or not name.isascii() or (len(name) >= SHORTEST and marked(name)):
            return False
        kind = type(item)
        if kind is str:
            if not item.isascii() or (len(item) >= SHORTEST and marked(item)):
                return False
        elif not (-1e300 < item < 1e300 if kind is int else kind in _SIMPLE):
            return False
    return True


def _is_simple(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() and (len(value) < SHORTEST or not redactor.marked(value))
    return -1e300 < value < 1e300 if kind is int else kind in _SIMPLE

"""Many texts looked through at once: the labels of a diagram, long lists, the keys of large mappings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

MANY = 16
"""Texts from which on that is worth while."""
LONGEST_JOINED = 1_000_000
"""Characters of them at most."""


def joined(values: Collection[Any]) -> str | None:
    """Texts as one, in which no secret is that is in none of them; None: they are few, not texts alone, or too long."""
    if len(values) > MANY and {*map(type, values)} == {str} and sum(map(len, values)) <= LONGEST_JOINED:
        return "\0".join(values)
    return None

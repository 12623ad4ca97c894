"""Former home of a name of `common.text`. Importing it warns; until 0.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dipeo_nb.common.moved import moved_names

__getattr__: Callable[[str], Any] = moved_names(
    __name__,
    {
        "printable": "dipeo_nb.common.text",
    },
)

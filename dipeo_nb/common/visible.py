"""Former home of names of `common.text`. Importing one warns; until 0.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dipeo_nb.common.moved import moved_names

__getattr__: Callable[[str], Any] = moved_names(
    __name__,
    {
        "displayed": "dipeo_nb.common.text",
        "visible": "dipeo_nb.common.text",
        "visible_json": "dipeo_nb.common.text",
    },
)

"""Former home of a name of `common.text`. Importing it warns; until 0.2."""

from __future__ import annotations

from dipeo_nb.common.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "printable": "dipeo_nb.common.text",
    },
)

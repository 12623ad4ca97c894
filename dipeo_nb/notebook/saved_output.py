"""An output of a cell that holds a static face: what a saved notebook has of it, and what shows where nothing runs."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Any

from dipeo_nb.notebook import kernel


class SavedOutput:
    """One output of a cell, under one display id. Created in the cell; `update` on any thread."""

    def __init__(self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        from IPython.display import display

        self._handle: Any = display(dict(data), raw=True, metadata=dict(metadata or {}), display_id=True)

    def update(self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, *, final: bool = False) -> None:
        """Replace the face. It reaches the cells of pages that were there when it was first shown."""

        def send() -> None:
            self._handle.update(dict(data), raw=True, metadata=dict(metadata or {}))

        # An empty context: the update belongs to the display, not to the cell that happens to run now.
        contextvars.Context().run(send)
        if final and kernel.unattended():
            # A program that executes a notebook (nbclient) keeps messages that arrive while a cell is executed, and loses those between
            # two cells: a run that ends there would leave the face of its beginning.
            kernel.at_end_of_cell(send)

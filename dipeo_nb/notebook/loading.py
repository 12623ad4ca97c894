"""`dipeo_nb.load`, which needs no session: reading a diagram brings neither the engine nor the services along."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.calls import checked_call
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import document
from dipeo_nb.diagram.document import Diagram

if TYPE_CHECKING:
    from dipeo_nb.notebook import interrupts
else:
    interrupts = lazy.module("dipeo_nb.notebook.interrupts")


@checked_call
def load(source: Diagram | str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None) -> Diagram:
    """Read a diagram from a path, a name, a text or a mapping.

        d = dp.load("debate.light.yaml")        # a file, or the name of one: dp.load("debate")
        d = dp.load("demo:debate")              # one that comes with the package
        d = dp.load({"version": "light", "nodes": [...], "connections": [...]})

    Args:
        source: a path, also relative to the base directory; a name, which is looked up there and in `examples/`,
            `projects/` and `files/`; `demo:NAME`; text of several lines; or a mapping.
        format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.

    Raises: DiagramNotFoundError, DiagramFormatError when it cannot be read; ValidationError when it is none of these.

    `%dipeo nodes` and `dipeo-nb nodes` describe the node types, `dipeo-nb nodes TYPE` the fields of one; docs/nodes.md has all.
    """
    try:
        return source if isinstance(source, Diagram) else document.load(source, format=format, base_dir=get_settings().base_dir)
    except KeyboardInterrupt as interrupt:
        interrupts.short(interrupt, "dp.load() was interrupted.")
        raise

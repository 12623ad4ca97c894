"""Finds the diagram that a sub_diagram node means."""

from __future__ import annotations

from pathlib import Path

from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.loading import DEEPEST, load_nested
from dipeo_nb.domain.nodes import SubDiagramNode

__all__ = ["DEEPEST", "nested_document"]


def nested_document(spec: SubDiagramNode, name: str, *, source_path: str | None, base_dir: Path) -> Diagram:
    """The diagram that a sub_diagram node means, as `loading.load_nested` finds it.

    Raises:
        DiagramError: there is none, or it cannot be read.
    """
    return Diagram.of(load_nested(spec, name, source_path=source_path, base_dir=base_dir))

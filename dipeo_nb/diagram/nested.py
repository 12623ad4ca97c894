"""Which diagram a sub_diagram node means."""

from __future__ import annotations

from pathlib import Path

from dipeo_nb.diagram.document import Diagram, load, load_named
from dipeo_nb.domain.nodes import SubDiagramNode

DEEPEST = 10
"""Diagrams within diagrams."""


def nested_document(spec: SubDiagramNode, name: str, *, source_path: str | None, base_dir: Path) -> Diagram:
    """The diagram that a sub_diagram node means: inline, else looked up beside the file of its own diagram and below the base
    directory.

    Args:
        name: its `diagram_name`, with its variables filled in.
        source_path: the file of the diagram that the node is part of.

    Raises:
        DiagramError: there is none, or it cannot be read.
    """
    if spec.diagram_data:
        return load(spec.diagram_data, format=spec.diagram_format, base_dir=base_dir)
    form = str(spec.diagram_format) if spec.diagram_format else None
    beside = Path(source_path).parent if source_path else None
    return load_named(name, base_dir, beside=beside, format=form)

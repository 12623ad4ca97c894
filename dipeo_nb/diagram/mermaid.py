"""A diagram as Mermaid flowchart text, for pages that draw Mermaid themselves."""

from __future__ import annotations

from collections.abc import Mapping

from dipeo_nb.diagram.drawing import STATUS_COLORS, NodeLook, clean, subtitle
from dipeo_nb.domain.diagram import DomainDiagram

_SHAPES = {"start": ("([", "])"), "endpoint": ("([", "])"), "condition": ("{{", "}}"), "db": ("[(", ")]")}


def to_mermaid(diagram: DomainDiagram, status: Mapping[str, NodeLook] | None = None) -> str:
    """Mermaid text; node ids are ours (n0, n1 …), so that no label can break it."""
    names = {n.id: f"n{i}" for i, n in enumerate(diagram.nodes)}
    persons = {p.id: p.label for p in diagram.persons}
    lines = ["flowchart LR"]
    for node in diagram.nodes:
        opening, closing = _SHAPES.get(node.type, ("[", "]"))
        note = _text(subtitle(node, persons), 60)
        lines.append(f'  {names[node.id]}{opening}"{_text(node.label, 60)}<br/><small>{note}</small>"{closing}')
    for arrow in diagram.arrows:
        if arrow.source not in names or arrow.target not in names:
            continue
        word = {"condtrue": "true", "condfalse": "false", "default": ""}.get(arrow.source_handle, arrow.source_handle)
        label = ": ".join(part for part in (word, _text(arrow.label, 40) if arrow.label else "") if part)
        link = f'-->|"{label}"|' if label else "-->"
        lines.append(f"  {names[arrow.source]} {link} {names[arrow.target]}")
    if status:
        for name, (color, _) in STATUS_COLORS.items():
            lines.append(f"  classDef {name} stroke:{color},stroke-width:3px")
        lines += [
            f"  class {names[i]} {look.status}"
            for i, look in status.items()
            if i in names and look.status in STATUS_COLORS
        ]
    return "\n".join(lines) + "\n"


def _text(text: object, limit: int) -> str:
    """A label as Mermaid takes it between quotes: everything with a meaning of its own becomes a numbered entity."""
    return "".join(f"#{ord(c)};" if c in '"#<>&`|[]{}()\\;%' else c for c in clean(text, limit))

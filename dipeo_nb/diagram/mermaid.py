"""A diagram as Mermaid flowchart text, for Markdown and for viewers that draw Mermaid themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.labels import NodeLook, clean, isolate
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Status

_LABEL = 80

_SHAPES = {
    "start": ("([", "])"),
    "endpoint": ("([", "])"),
    "condition": ("{{", "}}"),
    "db": ("[(", ")]"),
    "sub_diagram": ("[[", "]]"),
    "user_response": ("[/", "/]"),
}

# Border and fill that read on light and dark pages alike, the text colour always with them.
_CLASSES = {
    Status.PENDING: "fill:#f1f4f7,stroke:#8391a3,color:#1c2330",
    Status.RUNNING: "fill:#dbe8ff,stroke:#2563eb,color:#1c2330,stroke-width:3px",
    Status.PAUSED: "fill:#fdf3d0,stroke:#946200,color:#1c2330",
    Status.COMPLETED: "fill:#dcf5e4,stroke:#15803d,color:#1c2330",
    Status.FAILED: "fill:#fde2e1,stroke:#d32020,color:#1c2330,stroke-width:3px",
    Status.ABORTED: "fill:#fbe1e8,stroke:#9f1239,color:#1c2330",
    Status.SKIPPED: "fill:#eeeff1,stroke:#6b7280,color:#4b5563,stroke-dasharray:4 3",
    Status.MAXITER_REACHED: "fill:#d9f3f7,stroke:#0e7490,color:#1c2330",
    Status.INTERRUPTED: "fill:#fde8d8,stroke:#c2410c,color:#1c2330",
}


def to_mermaid(diagram: DomainDiagram, status: Mapping[str, NodeLook] | None = None) -> str:
    """The graph as Mermaid text, left to right.

    Node names are numbers of our own (`n0`, `n1` …), never labels; labels are quoted and encoded, so no text of a
    diagram can be read as Mermaid or HTML. With *status*, each node shows its state by glyph, count and class.
    """
    index: dict[str, int] = {}
    for node in diagram.nodes:
        index.setdefault(node.id, len(index))
    persons = labels.persons_by_reference(diagram)
    lines = ["flowchart LR"]
    by_status: dict[str, list[str]] = {}
    drawn: set[str] = set()
    for node in diagram.nodes:
        if node.id in drawn:
            continue
        drawn.add(node.id)
        name = f"n{index[node.id]}"
        look = None if status is None else status.get(node.id) or NodeLook(Status.PENDING)
        opening, closing = _SHAPES.get(node.type, ("(", ")"))
        lines.append(f'    {name}{opening}"{_node_text(node, look, persons)}"{closing}')
        if look and look.status in _CLASSES:
            by_status.setdefault(str(look.status), []).append(name)
    for arrow in diagram.arrows:
        if arrow.source not in index or arrow.target not in index:
            continue
        words = " ".join(isolate(w) for w in labels.arrow_words(arrow, limit=40) if w)
        text = f'|"{_encode(words)}"|' if words else ""
        lines.append(f"    n{index[arrow.source]} -->{text} n{index[arrow.target]}")
    for state, names in by_status.items():
        lines.append(f"    classDef {state} {_CLASSES[Status(state)]}")
        lines.append(f"    class {','.join(names)} {state}")
    return "\n".join(lines) + "\n"


def _node_text(node: DomainNode, look: NodeLook | None, persons: Mapping[str, tuple[str, str]]) -> str:
    title = isolate(clean(labels.title(node), _LABEL))
    if look:
        title = f"{labels.status_look(look.status).glyph} {title}{f' ×{look.runs}' if look.runs else ''}"
    below = clean(look.note if look and look.note else labels.subtitle(node, persons), _LABEL)
    return f"{_encode(title)}<br/>{_encode(isolate(below))}" if below else _encode(title)


def _encode(text: str) -> str:
    """Mermaid's own entities for whatever Mermaid, Markdown or HTML could take for markup."""
    text = _DECODED_MARK.sub("\\1\u200b", text)
    start = _LIST_MARK.match(text)
    safe = start.start(1) if start else -1
    return "".join(c if i != safe and (c.isalnum() or c in _PLAIN or c > "\x7f") else f"#{ord(c)};" for i, c in enumerate(text))


_PLAIN = frozenset(" ,.:?!/=+-()")
_LIST_MARK = re.compile(r"\W*\d*([.)+-])")
"""The sign that makes the beginning of a label a Markdown list."""
_DECODED_MARK = re.compile(r"(\$|\bfa[bklrs]?)(?=\$|:fa-)")
"""Mermaid looks for formulas and icons after decoding, so an entity does not help; a character without width does."""

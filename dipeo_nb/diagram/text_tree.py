"""A diagram as a tree of text: nodes in file order with their arrows."""

from __future__ import annotations

from collections.abc import Mapping

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.labels import NodeLook, clean, isolate
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Status


def text_tree(diagram: DomainDiagram, status: Mapping[str, NodeLook] | None = None, *, width: int = 100) -> str:
    """The graph as lines of text, in flow order, at most *width* characters a line.

    A single successor is under its node, several as branches; a node met again is only named, with `↩`.
    """
    nodes = {n.id: n for n in diagram.nodes}
    persons = labels.persons_by_reference(diagram)
    outgoing: dict[str, list[DomainArrow]] = {}
    entered: set[str] = set()
    for arrow in diagram.arrows:
        if arrow.source in nodes and arrow.target in nodes:
            outgoing.setdefault(arrow.source, []).append(arrow)
            if arrow.source != arrow.target:
                entered.add(arrow.target)
    lines: list[str] = []
    seen: set[str] = set()
    for root in [*(i for i in nodes if i not in entered), *nodes]:
        # (node, arrow that led here, the prefix before it, the prefix before its successors)
        stack: list[tuple[str, DomainArrow | None, str, str]] = [] if root in seen else [(root, None, "", "")]
        while stack:
            node_id, arrow, lead, under = stack.pop()
            again = node_id in seen
            lines.append(_row(nodes[node_id], arrow, lead, again, status, persons, width))
            if again:
                continue
            seen.add(node_id)
            below = outgoing.get(node_id, [])
            if len(below) == 1:
                stack.append((below[0].target, below[0], under, under))
                continue
            deep = len(under) < 36  # deeper trees stop moving to the right
            for i, a in enumerate(reversed(below)):
                joint, bar = ("└─ ", "   ") if i == 0 else ("├─ ", "│  ")
                stack.append((a.target, a, under + joint, under + bar if deep else under))
    return "\n".join(lines) or "(no nodes)"


def _row(
    node: DomainNode,
    arrow: DomainArrow | None,
    lead: str,
    again: bool,
    status: Mapping[str, NodeLook] | None,
    persons: Mapping[str, tuple[str, str]],
    width: int,
) -> str:
    branch, label = labels.arrow_words(arrow, limit=24) if arrow else ("", "")
    said = " ".join(isolate(w) for w in (branch, label) if w)
    way = (f"[{said}] → " if said else "→ ") if arrow else ""
    look = None if status is None else status.get(node.id) or NodeLook(Status.PENDING)
    mark = f"{labels.status_look(look.status).glyph} " if look else ""
    count = f" ×{look.runs}" if look and look.runs else ""
    name = isolate(labels.cut_at(t, 40) if len(t := labels.title(node)) > 40 else t)
    if again:
        tail = " ↩"
    elif look and look.note:
        tail = f" · {isolate(clean(look.note))}"
    else:
        tail = f" · {isolate(sub)}" if (sub := labels.subtitle(node, persons)) else ""
    row = f"{lead}{way}{mark}{name}{count}{tail}"
    return labels.cut_at(row, width) if len(row) > width else row

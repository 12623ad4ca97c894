"""Two versions of a diagram as one drawing: what is the same, changed, new or gone, by word, sign and pattern besides the colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dipeo_nb.diagram.drawing import draw, overview
from dipeo_nb.diagram.html import figure
from dipeo_nb.diagram.labels import NodeLook
from dipeo_nb.diagram.layout import place
from dipeo_nb.domain.diagram import DomainDiagram

_RULES = {
    "changed": ("stroke-width:3", "#9a5b00", "#f2b34c"),
    "new": ("stroke-width:3;stroke-dasharray:9 3", "#12703a", "#5fd68a"),
    "gone": ("stroke-dasharray:2 4;stroke-width:2.4", "#b3261e", "#ff8f85"),
}
"""Pattern of the outline, and its colour on light and dark ground."""


def united(before: DomainDiagram | None, after: DomainDiagram) -> DomainDiagram:
    """The diagram *after*, with the nodes that only *before* has (by label), and their arrows."""
    if before is None:
        return after
    known = {node.label for node in after.nodes}
    taken = {node.id for node in after.nodes} | {arrow.id for arrow in after.arrows}
    gone = {node.id: node for node in before.nodes if node.label not in known}
    if not gone:
        return after
    labels = {node.id: node.label for node in before.nodes}
    ids = {node.label: node.id for node in after.nodes}
    renamed = {i: i if i not in taken else f"{i}_before" for i in gone}
    of = {**{i: ids[label] for i, label in labels.items() if label in ids}, **renamed}
    arrows = [
        replace(
            arrow,
            id=f"{arrow.id}_before" if arrow.id in taken else arrow.id,
            source=of[arrow.source],
            target=of[arrow.target],
        )
        for arrow in before.arrows
        if (arrow.source in gone or arrow.target in gone) and arrow.source in of and arrow.target in of
    ]
    nodes = [replace(node, id=renamed[i]) for i, node in gone.items()]
    return replace(after, nodes=(*after.nodes, *nodes), arrows=(*after.arrows, *arrows))


def difference_figure(diagram: DomainDiagram, looks: Mapping[str, NodeLook], alt: str) -> str:
    """The drawing as HTML.

    Args:
        looks: node id → `same`, `changed`, `new` or `gone`, and a line below the label.
    """
    layout = place(diagram)
    shown = _patterned(draw(diagram, status=looks, title=alt, layout=layout))
    whole = overview(diagram, layout, status=looks, title=alt)
    return figure(shown, alt=alt, overview=None if whole is None else _patterned(whole))


def _patterned(svg: str) -> str:
    light = "".join(_rule(name, pattern, colour) for name, (pattern, colour, _) in _RULES.items())
    dark = "".join(_rule(name, "", colour) for name, (_, _, colour) in _RULES.items())
    faded = 'g[data-status="same"],g[data-status="gone"] text{opacity:.72}'
    return svg.replace("</style>", f"{light}{faded}@media (prefers-color-scheme:dark){{{dark}}}</style>", 1)


def _rule(name: str, pattern: str, colour: str) -> str:
    node = f'g[data-status="{name}"]'
    return f'{node} [class$="-box"]{{stroke:{colour};{pattern}}}{node} circle{{fill:{colour}}}'

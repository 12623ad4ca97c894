"""Layered layout of one connected part of a diagram, for a width: see `dipeo_nb.diagram.layout`.

Nodes are in columns, from left to right as arrows lead. Where the columns are wider than the page they are broken into
bands, one under the other, as words are into lines. Every arrow leaves its node on the right and enters on the left; one
that leads back within a band makes an arc under (or over) the boxes. All pieces of arrows run in lanes that nothing else
uses (see `dipeo_nb.diagram.lanes`), and every label has a place that was kept free for it, so that nothing lies on
anything else: not by search but by construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dipeo_nb.diagram.bands import Bands
from dipeo_nb.diagram.box_ports import BoxPorts
from dipeo_nb.diagram.columns import bands_of, layers_of
from dipeo_nb.diagram.heights import Heights
from dipeo_nb.diagram.ordering import put_in_order
from dipeo_nb.diagram.part import Link, Part
from dipeo_nb.diagram.placement import Placement
from dipeo_nb.diagram.routes import Routes

SELF_LOOPS = 3
"""Arrows of a node to itself that are drawn one by one."""

_CAREFUL_NODES = 60
"""With more boxes, what comes out a little too wide is left as it is."""


def layered(members: Sequence[int], sizes: Sequence[tuple[float, float]], links: Sequence[Link], width: float) -> Part:
    """One connected part, at most *width* pixels wide where that can be."""
    local = {n: i for i, n in enumerate(members)}
    inner = [sizes[n] for n in members]
    links = [k._replace(source=local[k.source], target=local[k.target]) for k in links]
    drawn = [k for k in links if k.source != k.target]
    loops: dict[int, list[Link]] = {}
    for k in links:
        if k.source == k.target:
            loops.setdefault(k.source, []).append(k)
    layers = layers_of(len(inner), [(k.target, k.source) if k.back else (k.source, k.target) for k in drawn])
    best: Part | None = None
    narrowest = math.inf
    for tight, shares in ((False, (1.0, 0.92, 0.84, 0.7)), (True, (1.0, 0.8, 0.6, 0.4, 0.01, 1.3))):
        tried: set[tuple[int, ...]] = set()
        for share in shares:
            starts = bands_of(inner, drawn, layers, share * width)
            if tuple(starts) in tried:
                continue
            tried.add(tuple(starts))
            part = _part(Bands(inner, drawn, loops, layers, starts, width, tight=tight))
            wide = part.extent().w
            if wide < narrowest:
                best, narrowest = part, wide
            if wide <= width or len(inner) > _CAREFUL_NODES:
                break
        if len(inner) > _CAREFUL_NODES or narrowest <= width:
            break
    assert best is not None
    return Part({members[i]: box for i, box in best.boxes.items()}, best.routes, best.labels)


def _part(bands: Bands) -> Part:
    """Everything in its place, step by step."""
    place = put_in_order(bands)
    bands.find_direct()
    ports = BoxPorts(bands, place)
    heights = Heights(bands, ports)
    return Routes(bands, ports, Placement(bands, ports, heights)).part()

"""The layout of a diagram whose file has the positions of its nodes.

Boxes that would touch are moved apart without changing what is left of what, or above what; empty stretches are made
shorter. Arrows are led between the boxes (`dipeo_nb.diagram.routing`) and labels put on them by search, so it is looked at
whether anything lies on anything else; then there is no such layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from dipeo_nb.diagram.part import LABEL_HEIGHT, Link, Part
from dipeo_nb.diagram.routing import Box, Point, route
from dipeo_nb.domain.diagram import DomainNode

_ARROWS = 120
"""With more arrows than this, arrangements are not kept: hardly one of them is without arrows on arrows."""
_WIDEST = (300.0, 160.0)
"""Empty stretches, across and down, are at most so many pixels from node to node."""
_REACH = (420.0, 110.0)
"""Nodes farther apart than this, in pixels, cannot touch, nor the label between them."""


def arranged(
    nodes: Sequence[DomainNode], sizes: Sequence[tuple[float, float]], links: Sequence[Link], room: float
) -> Part | None:
    """The arrangement of the file; None when there is none, it is wider than *room*, or something would lie on another."""
    if len(links) > _ARROWS or any(link.source == link.target for link in links) or not _sensible(nodes):
        return None
    boxes = _moved_apart([(n.position.x, n.position.y) for n in nodes if n.position], sizes, links)
    if max(b.right for b in boxes) - min(b.x for b in boxes) > room:
        return None
    routes = route(boxes, [(link.source, link.target) for link in links])
    part = Part(dict(enumerate(boxes)), {link.id: r for link, r in zip(links, routes, strict=True)})
    lines = [(link, p, q) for link in links for p, q in itertools.pairwise(part.routes[link.id])]
    if part.extent().w > room or not _apart(boxes, lines) or not _labelled(part, links, lines):
        return None
    return part if part.extent().w <= room else None


_Line = tuple[Link, Point, Point]


def _apart(boxes: Sequence[Box], lines: Sequence[_Line]) -> bool:
    """Whether no arrow runs through a box or along another arrow."""
    for link, p, q in lines:
        left, right, top, bottom = _reach(p, q)
        for n, box in enumerate(boxes):
            near = 0.0 if n in (link.source, link.target) else -4.0
            if left < box.right - near and box.x + near < right and top < box.bottom - near and box.y + near < bottom:
                return False
    for (a, *first), (b, *second) in itertools.combinations(lines, 2):
        if a.id == b.id:
            continue
        (l1, r1, t1, b1), (l2, r2, t2, b2) = _reach(*first), _reach(*second)
        level = t1 == b1 and t2 == b2 and abs(t1 - t2) < 6 and l1 < r2 + 2 and l2 < r1 + 2
        upright = l1 == r1 and l2 == r2 and abs(l1 - l2) < 6 and t1 < b2 + 2 and t2 < b1 + 2
        if level or upright:
            return False
    return True


def _reach(p: Point, q: Point) -> tuple[float, float, float, float]:
    """Left, right, top, bottom."""
    return min(p[0], q[0]), max(p[0], q[0]), min(p[1], q[1]), max(p[1], q[1])


def _labelled(part: Part, links: Sequence[Link], lines: Sequence[_Line]) -> bool:
    """Put each label on its arrow; False when one finds no place that is free."""
    for link in sorted((k for k in links if k.space), key=lambda k: (-k.space, k.id)):
        taken = [*part.boxes.values(), *part.labels.values()]
        foreign = [_reach(p, q) for other, p, q in lines if other.id != link.id]
        for box in _offers(part.routes[link.id], link.space):
            if any(_meet(box, other) for other in taken):
                continue
            if any(left < box.right + 3 and box.x - 3 < right and top < box.bottom + 3 and box.y - 3 < bottom
                   for left, right, top, bottom in foreign):  # fmt: skip
                continue
            part.labels[link.id] = box
            break
        else:
            return False
    return True


def _meet(a: Box, b: Box) -> bool:
    return a.x < b.right + 3 and b.x < a.right + 3 and a.y < b.bottom + 3 and b.y < a.bottom + 3


def _offers(points: Sequence[Point], wide: float) -> Iterable[Box]:
    """Places for a label: in the middle of its arrow's level pieces first, then of the upright ones, then elsewhere."""
    pieces = sorted(itertools.pairwise(points), key=lambda piece: (piece[0][1] != piece[1][1], -_length(*piece)))
    for share in (0.5, 0.35, 0.65, 0.2, 0.8):
        for p, q in pieces:
            x, y = p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share
            yield Box(x - wide / 2, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)


def _length(p: Point, q: Point) -> float:
    return abs(q[0] - p[0]) + abs(q[1] - p[1])


def _sensible(nodes: Sequence[DomainNode]) -> bool:
    """Whether the file's positions are an arrangement: all there, finite, and not all on a few spots."""
    spots: set[tuple[float, float]] = set()
    for node in nodes:
        p = node.position
        if p is None or not (math.isfinite(p.x) and math.isfinite(p.y)):
            return False
        spots.add((p.x, p.y))
    return len(nodes) == 1 or 2 * len(spots) > len(nodes)


def _moved_apart(
    places: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], links: Sequence[Link]
) -> list[Box]:
    room: dict[tuple[int, int], float] = {}
    for link in links:
        pair = (min(link.source, link.target), max(link.source, link.target))
        room[pair] = max(room.get(pair, 0.0), link.space + 32 if link.space else 0.0)
    xs, ys = [p[0] for p in places], [p[1] for p in places]
    # Files place nodes by their top left corner on cells of about 200 by 80; centring keeps rows and columns straight.
    ys = [y - size[1] / 2 for y, size in zip(ys, sizes, strict=True)]
    across: list[tuple[int, int, float]] = []
    down: list[tuple[int, int, float]] = []
    for a, b in _close_pairs(xs, ys):
        i, j = (a, b) if (xs[a], a) <= (xs[b], b) else (b, a)
        gap = max(44.0, room.get((min(a, b), max(a, b)), 0.0))
        k, m = (a, b) if (ys[a], a) <= (ys[b], b) else (b, a)
        wide, high = xs[j] - xs[i], ys[m] - ys[k]
        if high >= sizes[k][1] + 28 or wide >= sizes[i][0] + gap:
            continue
        if wide / sizes[i][0] >= high / sizes[k][1]:
            across.append((i, j, sizes[i][0] + gap))
        else:
            down.append((k, m, sizes[k][1] + 36.0))
    xs, ys = _spread(xs, across, _WIDEST[0]), _spread(ys, down, _WIDEST[1])
    return [Box(x, y, *size) for x, y, size in zip(xs, ys, sizes, strict=True)]


def _close_pairs(xs: Sequence[float], ys: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Pairs of places so near that their boxes, or the label between them, might touch."""
    reach_x, reach_y = _REACH
    cells: dict[tuple[int, int], list[int]] = {}
    for n, (x, y) in enumerate(zip(xs, ys, strict=True)):
        cx, cy = int(x // reach_x), int(y // reach_y)
        for i in (cx - 1, cx, cx + 1):
            for j in (cy - 1, cy, cy + 1):
                for other in cells.get((i, j), ()):
                    yield other, n
        cells.setdefault((cx, cy), []).append(n)


def _spread(values: Sequence[float], apart: Sequence[tuple[int, int, float]], widest: float) -> list[float]:
    """Move values apart, in order, so that value[j] ≥ value[i] + distance for each (i, j, distance) of *apart*.

    What was equal stays equal unless it must part; differences never shrink, except empty stretches wider than
    *widest*, which are of no use to a reader.
    """
    needs: dict[int, list[tuple[int, float]]] = {}
    for i, j, distance in apart:
        needs.setdefault(j, []).append((i, distance))
    order = sorted(range(len(values)), key=lambda n: (values[n], n))
    moved = [0.0] * len(values)
    at = 0
    previous: float | None = None
    here = 0.0
    while at < len(order):
        group = [order[at]]
        while at + len(group) < len(order) and values[order[at + len(group)]] - values[group[0]] < 1:
            group.append(order[at + len(group)])
        inside = set(group)
        here = here + min(values[group[0]] - previous, widest) if previous is not None else 0.0
        here = max([here, *(moved[i] + d for n in group for i, d in needs.get(n, ()) if i not in inside)])
        top = here
        for n in group:
            moved[n] = max([here, *(moved[i] + d for i, d in needs.get(n, ()) if i in inside)])
            top = max(top, moved[n])
        here = top
        previous = values[group[0]]
        at += len(group)
    return moved

"""Where everything on a drawing stands: `place(diagram)` → `Layout`. Pixels, y downwards, origin at the top left.

A diagram whose nodes all have sensible positions keeps their arrangement; boxes that would touch are moved apart
without changing what is left of what, or above what. Any other diagram is layered from left to right, each connected
part for itself: small parts by `graphlay`, which also breaks long chains into rows, large ones by a cheaper method
here (longest path, barycentres, isotonic regression), linear in what it draws. The same diagram always gives the
same layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.layered import Link, Part, layered
from dipeo_nb.diagram.routing import Box, Point, route
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode

LABEL_SIZE, SUBTITLE_SIZE, ARROW_LABEL_SIZE = 13.0, 11.0, 10.5
"""Font sizes in pixels."""
ICON_SPACE = 46.0
"""From a box's left side to its text."""
MARGIN = 28.0
_MIN_WIDTH, _MAX_WIDTH, _RIGHT_PAD = 128.0, 216.0, 16.0
_LABEL_HEIGHT, _LABEL_MAX_WIDTH = 18.0, 132.0
_LOOP_HEIGHT = 26.0
_CAREFUL_LINKS = 400
"""With more arrows than this, labels may stand on other arrows' lines."""


class Face(NamedTuple):
    """What a node's box shows, already cut to fit."""

    lines: tuple[str, ...]
    """The label, one or two lines."""
    subtitle: str
    text_width: float
    """Pixels for the subtitle, when something else is to be shown there."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes, routes and places of labels."""

    nodes: Mapping[str, Box]
    """Node id → box."""
    edges: Mapping[str, tuple[Point, ...]]
    """Arrow id → polyline from the source's border to the target's; arrows to nowhere are left out."""
    faces: Mapping[str, Face]
    labels: Mapping[str, tuple[Box, str, str]]
    """Arrow id → (box, branch, label) of arrows that say something."""
    back: frozenset[str]
    """Arrows that close a loop."""
    smooth: frozenset[str]
    """Arrows whose slanting pieces are to be drawn as curves; all others run at right angles."""
    width: float
    height: float


def place(diagram: DomainDiagram) -> Layout:
    """Lay a diagram out. Never fails: arrows to unknown nodes are left out, senseless positions ignored."""
    nodes = list({n.id: n for n in diagram.nodes}.values())
    persons = labels.persons_by_reference(diagram)
    faces, sizes = [], []
    for node in nodes:
        face, size = _face(node, labels.subtitle(node, persons))
        faces.append(face)
        sizes.append(size)
    links = _links(diagram, nodes)
    if not nodes:
        return Layout({}, {}, {}, {}, frozenset(), frozenset(), 2 * MARGIN, 2 * MARGIN)

    if _arranged(nodes):
        part = _as_given(nodes, sizes, links)
    else:
        part = _packed([layered(members, sizes, inner) for members, inner in _parts(len(nodes), links)])
    _add_loops(part, links)
    kinds = [n.type for n in nodes]
    for link in links:
        part.routes[link.id] = _touching(part, link, kinds)
    placed = _place_labels(part, links)

    everything = Part(
        {**part.boxes, **{-1 - i: box for i, box in enumerate(b for b, _, _ in placed.values())}}, part.routes
    )
    whole = everything.extent()
    dx, dy = MARGIN - whole.x, MARGIN - whole.y
    moved = Part()
    part.move_into(moved, dx, dy)
    return Layout(
        nodes={nodes[n].id: moved.boxes[n] for n in range(len(nodes))},
        edges={link.id: moved.routes[link.id] for link in links},
        faces={n.id: f for n, f in zip(nodes, faces, strict=True)},
        labels={i: (Box(b.x + dx, b.y + dy, b.w, b.h), branch, label) for i, (b, branch, label) in placed.items()},
        back=frozenset(link.id for link in links if link.back),
        smooth=frozenset(moved.smooth),
        width=whole.w + 2 * MARGIN,
        height=whole.h + 2 * MARGIN,
    )


# ------------------------------------------------------------------------------------------------ preparation


def _face(node: DomainNode, subtitle: str) -> tuple[Face, tuple[float, float]]:
    title = labels.title(node)
    side = _RIGHT_PAD + (12.0 if node.type == "condition" else 0.0)
    room = _MAX_WIDTH - ICON_SPACE - side
    lines = labels.wrap(title, room, LABEL_SIZE, bold=True)
    widest = max(labels.measure(line, LABEL_SIZE, bold=True) for line in lines)
    below = labels.measure(subtitle, SUBTITLE_SIZE)
    text_width = min(room, max(widest, below, _MIN_WIDTH - ICON_SPACE - side))
    shown = labels.fit(subtitle, text_width + 4, SUBTITLE_SIZE) if below > text_width else subtitle
    width = math.ceil(ICON_SPACE + text_width + side)
    return Face(tuple(lines), shown, text_width), (float(width), 52.0 if len(lines) == 1 else 68.0)


def _links(diagram: DomainDiagram, nodes: Sequence[DomainNode]) -> list[Link]:
    index = {node.id: i for i, node in enumerate(nodes)}
    arrows = list({a.id: a for a in diagram.arrows if a.source in index and a.target in index}.values())
    ends = [(index[a.source], index[a.target]) for a in arrows]
    back = _back_edges(len(nodes), ends)
    found: list[Link] = []
    for i, (arrow, (source, target)) in enumerate(zip(arrows, ends, strict=True)):
        branch, label = labels.arrow_words(arrow)
        space = 0.0
        if branch or label:
            branch_width = labels.measure(branch, ARROW_LABEL_SIZE, bold=True)
            gap = 6.0 if branch and label else 0.0
            label = (
                labels.fit(label, max(40.0, _LABEL_MAX_WIDTH - branch_width - gap), ARROW_LABEL_SIZE) if label else ""
            )
            branch = labels.fit(branch, _LABEL_MAX_WIDTH, ARROW_LABEL_SIZE, bold=True) if branch else ""
            space = (
                labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + gap + labels.measure(label, ARROW_LABEL_SIZE) + 14
            )
        found.append(Link(arrow.id, source, target, i in back, branch, label, math.ceil(space)))
    return found


def _back_edges(count: int, ends: Sequence[tuple[int, int]]) -> set[int]:
    """Edges that lead back to a node still being followed, walking from the roots in file order."""
    outgoing: list[list[int]] = [[] for _ in range(count)]
    entered = [False] * count
    for e, (source, target) in enumerate(ends):
        outgoing[source].append(e)
        entered[target] = entered[target] or source != target
    back: set[int] = set()
    state = bytearray(count)  # 0 not met, 1 being followed, 2 done
    for root in [*(n for n in range(count) if not entered[n]), *range(count)]:
        if state[root]:
            continue
        state[root] = 1
        stack = [(root, iter(outgoing[root]))]
        while stack:
            n, following = stack[-1]
            for e in following:
                target = ends[e][1]
                if state[target] == 1:
                    back.add(e)
                elif not state[target]:
                    state[target] = 1
                    stack.append((target, iter(outgoing[target])))
                    break
            else:
                state[n] = 2
                stack.pop()
    return back


def _parts(count: int, links: Sequence[Link]) -> list[tuple[list[int], list[Link]]]:
    """Connected parts in file order: (nodes, links)."""
    leader = list(range(count))

    def find(n: int) -> int:
        while leader[n] != n:
            leader[n] = leader[leader[n]]
            n = leader[n]
        return n

    for link in links:
        a, b = find(link.source), find(link.target)
        leader[max(a, b)] = min(a, b)
    parts: dict[int, tuple[list[int], list[Link]]] = {}
    for n in range(count):
        parts.setdefault(find(n), ([], []))[0].append(n)
    for link in links:
        parts[find(link.source)][1].append(link)
    return list(parts.values())


# --------------------------------------------------------------------------------------------- given positions


def _arranged(nodes: Sequence[DomainNode]) -> bool:
    """Whether the file's positions are an arrangement: all there, finite, and not all on a few spots."""
    spots: set[tuple[float, float]] = set()
    for node in nodes:
        p = node.position
        if p is None or not (math.isfinite(p.x) and math.isfinite(p.y)):
            return False
        spots.add((p.x, p.y))
    return len(nodes) == 1 or 2 * len(spots) > len(nodes)


def _as_given(nodes: Sequence[DomainNode], sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Part:
    places = [(n.position.x, n.position.y) for n in nodes if n.position]
    room: dict[tuple[int, int], float] = {}
    for link in links:
        pair = (min(link.source, link.target), max(link.source, link.target))
        room[pair] = max(room.get(pair, 0.0), link.space + 44 if link.space else 0.0)
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
    xs, ys = _spread(xs, across, 460.0), _spread(ys, down, 320.0)
    boxes = [Box(x, y, *size) for x, y, size in zip(xs, ys, sizes, strict=True)]
    drawn = [link for link in links if link.source != link.target]
    routes = route(boxes, [(link.source, link.target) for link in drawn])
    return Part(dict(enumerate(boxes)), {link.id: r for link, r in zip(drawn, routes, strict=True)})


def _close_pairs(xs: Sequence[float], ys: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Pairs of places so near that their boxes, or the label between them, might touch."""
    reach_x, reach_y = _MAX_WIDTH + _LABEL_MAX_WIDTH + 60, 110.0
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


def _packed(parts: Sequence[Part]) -> Part:
    """Parts in file order on shelves, about twice as wide as high."""
    whole = Part()
    extents = [p.extent() for p in parts]
    gap = 48.0
    widest = max(e.w for e in extents)
    limit = max(widest, math.sqrt(sum((e.w + gap) * (e.h + gap) for e in extents) * 2.0))
    x = y = shelf = 0.0
    for part, extent in zip(parts, extents, strict=True):
        if x and x + extent.w > limit:
            x, y, shelf = 0.0, y + shelf + gap, 0.0
        part.move_into(whole, x - extent.x, y - extent.y)
        x += extent.w + gap
        shelf = max(shelf, extent.h)
    return whole


# ----------------------------------------------------------------------------------------------------- touches


def _add_loops(part: Part, links: Sequence[Link]) -> None:
    """Arrows of a node to itself: arches above it, the shortest label innermost."""
    arches: dict[int, float] = {}
    for link in sorted((k for k in links if k.source == k.target), key=lambda k: (k.space, k.id)):
        box = part.boxes[link.source]
        number = arches.get(link.source, 0.0)
        arches[link.source] = number + 1
        middle, top = box.x + box.w / 2, box.y - _LOOP_HEIGHT - 22 * number
        half = min(max(24 + 12 * number, link.space / 2 + 11), box.w / 2 - 14, box.w / 2 - 26 + 3 * number)
        part.routes[link.id] = (
            (middle + half, box.y),
            (middle + half, top),
            (middle - half, top),
            (middle - half, box.y),
        )


def _touching(part: Part, link: Link, kinds: Sequence[str]) -> tuple[Point, ...]:
    """The route with its ends drawn in to where the outlines of round and pointed nodes really are."""
    points = list(part.routes[link.id])
    for at, n in ((0, link.source), (-1, link.target)):
        box, (x, y) = part.boxes[n], points[at]
        away = abs(y - box.y - box.h / 2)
        if abs(x - box.x) < 0.01:
            points[at] = (x + inset(kinds[n], box, away), y)
        elif abs(x - box.right) < 0.01:
            points[at] = (x - inset(kinds[n], box, away), y)
    return tuple(points)


CHAMFER = 14.0
"""How far the points of a condition's outline stick out, in pixels."""


def inset(kind: str, box: Box, away: float) -> float:
    """How far inside the box's left and right sides the outline runs, *away* pixels above or below the middle."""
    half = box.h / 2
    if kind == "condition":
        return CHAMFER * min(1.0, away / half)
    if kind in ("start", "endpoint"):
        return half - math.sqrt(max(0.0, half * half - away * away))
    return 0.0


_Rect = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _place_labels(part: Part, links: Sequence[Link]) -> dict[str, tuple[Box, str, str]]:
    """A place on its own line for each arrow label: clear of boxes and labels, and of other lines where it can be."""
    said = sorted((link for link in links if link.space), key=lambda k: (-k.space, k.id))
    if not said:
        return {}
    solid = _Rects()
    for box in part.boxes.values():
        solid.add((box.x - 3, box.y - 3, box.right + 3, box.bottom + 3), None)
    lines = _Rects()
    if len(links) <= _CAREFUL_LINKS:
        for link in links:
            points = part.routes[link.id]
            for (px, py), (qx, qy) in itertools.pairwise(points):
                lines.add((min(px, qx) - 6, min(py, qy) - 6, max(px, qx) + 6, max(py, qy) + 6), link.id)

    placed: dict[str, tuple[Box, str, str]] = {}
    for link in said:
        best: tuple[float, _Rect] | None = None
        for rank, rect in enumerate(_label_offers(part.routes[link.id], link)):
            price = 0.4 * rank + 100 * solid.touched(rect, link.id) + 4 * lines.touched(rect, link.id)
            if best is None or price < best[0]:
                best = (price, rect)
            if best[0] <= 0.4 * (rank + 1):  # no later offer can be better
                break
        assert best is not None
        left, top, right, bottom = best[1]
        placed[link.id] = (Box(left, top, right - left, bottom - top), link.branch, link.label)
        solid.add((left - 3, top - 3, right + 3, bottom + 3), None)
    return placed


class _Rects:
    """Rectangles by the cells of a coarse grid that they touch."""

    _CELL = 192.0

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], list[tuple[float, float, float, float, str | None]]] = {}

    def add(self, rect: _Rect, owner: str | None) -> None:
        for cell in self._touched_cells(rect):
            self._cells.setdefault(cell, []).append((*rect, owner))

    def touched(self, rect: _Rect, owner: str) -> int:
        """How many rectangles of other owners this one touches (once per cell, which is near enough)."""
        left, top, right, bottom = rect
        count = 0
        for cell in self._touched_cells(rect):
            for a, b, c, d, whose in self._cells.get(cell, ()):
                if a < right and left < c and b < bottom and top < d and whose != owner:
                    count += 1
        return count

    def _touched_cells(self, rect: _Rect) -> list[tuple[int, int]]:
        size = self._CELL
        x0, y0, x1, y1 = int(rect[0] // size), int(rect[1] // size), int(rect[2] // size), int(rect[3] // size)
        if x0 == x1 and y0 == y1:
            return [(x0, y0)]
        return [(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]


def _label_offers(points: Sequence[Point], link: Link) -> Iterable[_Rect]:
    """Places for a label on a line: on its level pieces first, longest first, then on the upright and slanting ones."""
    w, h = link.space / 2, _LABEL_HEIGHT / 2
    pieces = list(itertools.pairwise(points))
    if link.source == link.target:
        x, y = (points[1][0] + points[2][0]) / 2, points[1][1]
        yield x - w, y - h, x + w, y + h
    level = [(p[0] - q[0] if q[0] < p[0] else q[0] - p[0], p, q) for p, q in pieces if p[1] == q[1]]
    level = [piece for piece in level if piece[0] >= 2 * w + 20]
    upright = [(abs(q[1] - p[1]), p, q) for p, q in pieces if abs(q[1] - p[1]) >= 2 * h + 20]
    best = sorted(level, key=_length, reverse=True) + sorted(upright, key=_length, reverse=True)
    for _, p, q in best or [(0.0, p, q) for p, q in pieces]:
        for share in (0.5, 0.38, 0.62, 0.26, 0.74):
            x, y = p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share
            yield x - w, y - h, x + w, y + h
    for p, q in pieces:
        # Beside the line, when nothing on it is free.
        x, y = (p[0] + q[0]) / 2, (p[1] + q[1]) / 2
        for dx, dy in ((0.0, -2 * h), (0.0, 2 * h), (-w - 8, 0.0), (w + 8, 0.0)):
            yield x + dx - w, y + dy - h, x + dx + w, y + dy + h


def _length(piece: tuple[float, Point, Point]) -> float:
    return piece[0]

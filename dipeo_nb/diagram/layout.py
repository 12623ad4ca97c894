"""Where everything on a drawing stands: `place(diagram)` → `Layout`. Pixels, y downwards, origin at the top left.

A diagram whose nodes all have sensible positions keeps their arrangement; boxes that would touch are moved apart
without changing what is left of what, or above what. Any other diagram is layered from left to right, each connected
part for itself: small parts by `graphlay`, which also breaks long chains into rows, large ones by a cheaper method
here (longest path, barycentres, isotonic regression), linear in what it draws. The same diagram always gives the
same layout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import graphlay

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.routing import Box, Point, route
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode

LABEL_SIZE, SUBTITLE_SIZE, ARROW_LABEL_SIZE = 13.0, 11.0, 10.5
"""Font sizes in pixels."""
ICON_SPACE = 46.0
"""From a box's left side to its text."""
MARGIN = 28.0
_MIN_WIDTH, _MAX_WIDTH, _RIGHT_PAD = 128.0, 216.0, 16.0
_COLUMN_GAP, _ROW_GAP = 64.0, 34.0
_LABEL_HEIGHT, _LABEL_MAX_WIDTH = 18.0, 132.0
_LOOP_HEIGHT = 26.0
_FINE_NODES, _FINE_WEIGHT = 150, 600
"""Up to so many nodes, and nodes plus columns crossed by arrows, a part is laid out by graphlay."""
_CAREFUL_LINKS = 400
"""With more arrows than this, labels may stand on other arrows' lines."""
_DUMMIES = 40_000
"""Columns that arrows may be led through, in all; the longest arrows beyond that run straight."""


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


class _Link(NamedTuple):
    id: str
    source: int
    target: int
    back: bool
    branch: str
    label: str
    space: float
    """Pixels its label needs; 0 without label."""


@dataclass(slots=True)
class _Part:
    """A piece of the drawing under construction, in its own coordinates."""

    boxes: dict[int, Box] = field(default_factory=dict[int, Box])
    routes: dict[str, tuple[Point, ...]] = field(default_factory=dict[str, tuple[Point, ...]])
    smooth: set[str] = field(default_factory=set[str])

    def extent(self) -> Box:
        xs = [p[0] for r in self.routes.values() for p in r]
        ys = [p[1] for r in self.routes.values() for p in r]
        left = min([*xs, *(b.x for b in self.boxes.values())])
        top = min([*ys, *(b.y for b in self.boxes.values())])
        right = max([*xs, *(b.right for b in self.boxes.values())])
        bottom = max([*ys, *(b.bottom for b in self.boxes.values())])
        return Box(left, top, right - left, bottom - top)

    def move_into(self, other: _Part, dx: float, dy: float) -> None:
        other.boxes.update((n, Box(b.x + dx, b.y + dy, b.w, b.h)) for n, b in self.boxes.items())
        other.routes.update((i, tuple((x + dx, y + dy) for x, y in r)) for i, r in self.routes.items())
        other.smooth |= self.smooth


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
        part = _packed([_layered(members, sizes, inner) for members, inner in _parts(len(nodes), links)])
    for link in links:
        if link.source == link.target:
            part.routes[link.id] = _loop(part.boxes[link.source], link.space, part.routes)
    kinds = [n.type for n in nodes]
    for link in links:
        part.routes[link.id] = _touching(part, link, kinds)
    placed = _place_labels(part, links)

    everything = _Part({**part.boxes, **{-1 - i: box for i, box in enumerate(b for b, _, _ in placed.values())}}, part.routes)
    whole = everything.extent()
    dx, dy = MARGIN - whole.x, MARGIN - whole.y
    moved = _Part()
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


def _links(diagram: DomainDiagram, nodes: Sequence[DomainNode]) -> list[_Link]:
    index = {node.id: i for i, node in enumerate(nodes)}
    arrows = list({a.id: a for a in diagram.arrows if a.source in index and a.target in index}.values())
    ends = [(index[a.source], index[a.target]) for a in arrows]
    back = _back_edges(len(nodes), ends)
    found: list[_Link] = []
    for i, (arrow, (source, target)) in enumerate(zip(arrows, ends, strict=True)):
        branch, label = labels.arrow_words(arrow)
        space = 0.0
        if branch or label:
            branch_width = labels.measure(branch, ARROW_LABEL_SIZE, bold=True)
            gap = 6.0 if branch and label else 0.0
            label = labels.fit(label, max(40.0, _LABEL_MAX_WIDTH - branch_width - gap), ARROW_LABEL_SIZE) if label else ""
            branch = labels.fit(branch, _LABEL_MAX_WIDTH, ARROW_LABEL_SIZE, bold=True) if branch else ""
            space = labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + gap + labels.measure(label, ARROW_LABEL_SIZE) + 14
        found.append(_Link(arrow.id, source, target, i in back, branch, label, math.ceil(space)))
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


def _parts(count: int, links: Sequence[_Link]) -> list[tuple[list[int], list[_Link]]]:
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
    parts: dict[int, tuple[list[int], list[_Link]]] = {}
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


def _as_given(nodes: Sequence[DomainNode], sizes: Sequence[tuple[float, float]], links: Sequence[_Link]) -> _Part:
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
    return _Part(dict(enumerate(boxes)), {link.id: r for link, r in zip(drawn, routes, strict=True)})


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


# ---------------------------------------------------------------------------------------------------- layering


def _layered(members: list[int], sizes: Sequence[tuple[float, float]], links: Sequence[_Link]) -> _Part:
    """One connected part, laid out from left to right."""
    local = {n: i for i, n in enumerate(members)}
    inner = [sizes[n] for n in members]
    drawn = [link for link in links if link.source != link.target]
    if len(members) == 1:
        return _Part({members[0]: Box(0, 0, *inner[0])})
    forward = [(local[k.target], local[k.source]) if k.back else (local[k.source], local[k.target]) for k in drawn]
    layers = _layers(len(members), forward)
    weight = len(members) + sum(layers[t] - layers[s] for s, t in forward)
    lay = _fine if len(members) <= _FINE_NODES and weight <= _FINE_WEIGHT else _coarse
    part = lay(inner, drawn, forward, layers)
    return _Part({members[i]: box for i, box in part.boxes.items()}, part.routes, part.smooth)


def _layers(count: int, forward: Sequence[tuple[int, int]]) -> list[int]:
    """Column of each node: as far left as its sources allow, then what only feeds others is pulled up to them."""
    waiting = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in forward:
        waiting[target] += 1
        after[source].append(target)
    entering = list(waiting)
    layers = [0] * count
    ready = [n for n in range(count) if not waiting[n]]
    for n in ready:  # grows while it is walked
        column = layers[n] + 1
        for target in after[n]:
            layers[target] = max(layers[target], column)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for n in reversed(ready):
        if len(after[n]) > entering[n]:
            layers[n] = max(layers[n], min(layers[t] for t in after[n]) - 1)
    return layers


def _fine(
    sizes: Sequence[tuple[float, float]], links: Sequence[_Link], forward: Sequence[tuple[int, int]], layers: Sequence[int]
) -> _Part:
    """By graphlay; loops are closed by arches above or below."""
    ahead = [(link, ends) for link, ends in zip(links, forward, strict=True) if not link.back]
    gap = max([_COLUMN_GAP, *(link.space + 34 for link, _ in ahead)])
    graph = {
        "nodes": [{"size": {"width": w, "height": h}, "shape": "box"} for w, h in sizes],
        "edges": [{"source": s, "target": t, "weight": 1.0} for _, (s, t) in ahead],
    }
    options = {
        "direction": "leftright",
        "spacing": {"layer_gap": gap, "node_gap": _ROW_GAP, "dummy_gap": 24.0},
        "wrap": {"viewport_aspect": 2.4},
        "tuning": {"wrap": {"max_rows": 12, "max_cut_edges": 10, "min_gain": 1.1}},
    }
    result = graphlay.layout(graph, options=options)
    part = _Part()
    for i, node in enumerate(result.nodes):
        (w, h), centre = sizes[i], node["center"]
        part.boxes[i] = Box(centre["x"] - w / 2, centre["y"] - h / 2, w, h)
    for (link, _), edge in zip(ahead, result.edges, strict=True):
        part.routes[link.id] = tuple((p["x"], p["y"]) for p in edge["points"])
    loops = [link for link in links if link.back]
    ends = [ends[::-1] for link, ends in zip(links, forward, strict=True) if link.back]
    boxes = [part.boxes[i] for i in range(len(sizes))]
    arches = route(boxes, ends, taken=list(part.routes.values()), loops=True)
    part.routes.update((link.id, points) for link, points in zip(loops, arches, strict=True))
    return part


def _coarse(
    sizes: Sequence[tuple[float, float]], links: Sequence[_Link], forward: Sequence[tuple[int, int]], layers: Sequence[int]
) -> _Part:
    """Columns, dummies where arrows pass, barycentres for the order, isotonic regression for the places."""
    count = len(sizes)
    columns = max(layers) + 1
    layer = list(layers)
    heights = [h for _, h in sizes]
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    chains: list[list[int]] = [[] for _ in links]
    budget = _DUMMIES
    for e in sorted(range(len(links)), key=lambda e: layer[forward[e][1]] - layer[forward[e][0]]):
        source, target = forward[e]
        span = layer[target] - layer[source]
        chain = [source]
        if span - 1 <= budget:
            budget -= span - 1
            for column in range(layer[source] + 1, layer[target]):
                chain.append(len(layer))
                layer.append(column)
                heights.append(0.0)
                before.append([])
                after.append([])
        chain.append(target)
        chains[e] = chain
        if len(chain) == span + 1:
            for a, b in zip(chain, chain[1:], strict=False):
                after[a].append(b)
                before[b].append(a)

    rows = _ordered(columns, layer, before, after)
    y = _heights(rows, heights, before, after)

    widths = [0.0] * columns
    gaps = [_COLUMN_GAP] * columns
    crowd = [0] * columns
    for n in range(count):
        widths[layer[n]] = max(widths[layer[n]], sizes[n][0])
    for link, chain in zip(links, chains, strict=True):
        gaps[layer[chain[0]]] = max(gaps[layer[chain[0]]], link.space + 40)
        for a in chain[:-1]:
            crowd[layer[a]] += 1
    steps = [
        widths[column] + max(gaps[column], min(160.0, 44.0 + 4 * crowd[column])) for column in range(columns)
    ]
    fold = _Fold(steps, widths, layer, y, heights, chains)
    part = _Part()
    for n in range(count):
        w, h = sizes[n]
        part.boxes[n] = Box(fold.left(n) + (widths[layer[n]] - w) / 2, fold.y(n) - h / 2, w, h)

    offsets = _port_offsets(count, chains, y, heights)
    for e, chain in enumerate(chains):
        source, target = part.boxes[chain[0]], part.boxes[chain[-1]]
        points: list[Point] = [(source.right, fold.y(chain[0]) + offsets[e][0])]
        for a, b in zip(chain, chain[1:], strict=False):
            here = fold.y(a) + (offsets[e][0] if a < count else 0.0)
            there = fold.y(b) + (offsets[e][1] if b < count else 0.0)
            right, left = fold.left(a) + widths[layer[a]], fold.left(b)
            points += [(right, here), *fold.turn(e, a, b, here, there), (left, there)]
        points.append((target.x, fold.y(chain[-1]) + offsets[e][1]))
        slim = [p for k, p in enumerate(points) if not k or p != points[k - 1]]
        part.routes[links[e].id] = tuple(reversed(slim)) if links[e].back else tuple(slim)
        part.smooth.add(links[e].id)
    return part


class _Fold:
    """Breaks a long row of columns into several rows, one under the other, where few arrows pass."""

    def __init__(
        self,
        steps: Sequence[float],
        widths: Sequence[float],
        layer: Sequence[int],
        y: Sequence[float],
        heights: Sequence[float],
        chains: Sequence[Sequence[int]],
    ) -> None:
        columns = len(steps)
        self._layer = layer
        self._y = y
        tops, bottoms = [math.inf] * columns, [-math.inf] * columns
        for n, column in enumerate(layer):
            tops[column] = min(tops[column], y[n] - heights[n] / 2)
            bottoms[column] = max(bottoms[column], y[n] + heights[n] / 2)
        passing = [0] * columns
        for chain in chains:
            for a in chain[:-1]:
                passing[layer[a]] += 1
        wide, high = sum(steps), max(bottoms) - min(tops)
        row_width = wide / max(1, round(math.sqrt(wide / (2.4 * (high + 60)))))

        self.row = [0] * columns
        self.lefts = [0.0] * columns
        starts = [0]
        left = 0.0
        for column in range(columns):
            # Somewhere in the last third of a row, the gap that the fewest arrows pass.
            if left > 0.7 * row_width and sum(steps[column:]) > 0.25 * row_width:
                ahead = passing[column - 1 : min(columns - 1, column + max(1, round((column - starts[-1]) * 0.4)))]
                if left > 1.1 * row_width or passing[column - 1] <= min(ahead):
                    starts.append(column)
                    left = 0.0
            self.row[column] = len(starts) - 1
            self.lefts[column] = left
            left += steps[column]
        ends = [*(s - 1 for s in starts[1:]), columns - 1]
        self._right = [self.lefts[end] + widths[end] for end in ends]
        turns: dict[int, list[tuple[float, int]]] = {}
        for e, chain in enumerate(chains):
            for a, b in zip(chain, chain[1:], strict=False):
                if self.row[layer[b]] == self.row[layer[a]] + 1:
                    turns.setdefault(self.row[layer[a]], []).append((y[a], e))
        self._lanes = {
            (row, e): float(i) for row, found in turns.items() for i, (_, e) in enumerate(sorted(found, reverse=True))
        }
        self._shift: list[float] = []
        self._below: list[float] = []
        bottom = 0.0
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            top = min(tops[start : end + 1])
            self._shift.append(bottom - top)
            self._below.append(bottom - top + max(bottoms[start : end + 1]))
            bottom = self._below[-1] + 72 + 8 * len(turns.get(number, ()))

    def left(self, n: int) -> float:
        return self.lefts[self._layer[n]]

    def y(self, n: int) -> float:
        return self._y[n] + self._shift[self.row[self._layer[n]]]

    def turn(self, e: int, a: int, b: int, here: float, there: float) -> list[Point]:
        """Corners of arrow *e* between two neighbouring columns that stand in different rows."""
        row = self.row[self._layer[a]]
        lane = self._lanes.get((row, e))
        if row == self.row[self._layer[b]] or lane is None:
            return []
        right, left = self._right[row] + 28 + 8 * lane, -28 - 8 * lane
        below = self._below[row] + 36 + 8 * lane
        return [(right, here), (right, below), (left, below), (left, there)]


def _ordered(
    columns: int, layer: Sequence[int], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Items of each column, ordered by the mean place of their neighbours, swept both ways."""
    rows: list[list[int]] = [[] for _ in range(columns)]
    met = bytearray(len(layer))
    # Depth first from the left keeps branches together from the start.
    for root in sorted(range(len(layer)), key=lambda n: layer[n]) if layer else ():
        stack = [root]
        while stack:
            n = stack.pop()
            if met[n]:
                continue
            met[n] = 1
            rows[layer[n]].append(n)
            stack.extend(t for t in reversed(after[n]) if not met[t])
    place = [0.0] * len(layer)
    for row in rows:
        for i, n in enumerate(row):
            place[n] = float(i)
    for sweep in range(4 if len(layer) < 20_000 else 2):
        numbers = range(1, columns) if sweep % 2 == 0 else range(columns - 2, -1, -1)
        neighbours = before if sweep % 2 == 0 else after
        for column in numbers:
            row = rows[column]
            for n in row:
                near = neighbours[n]
                if len(near) == 1:
                    place[n] = place[near[0]]
                elif near:
                    place[n] = sum([place[m] for m in near]) / len(near)
            row.sort(key=place.__getitem__)
            for i, n in enumerate(row):
                place[n] = float(i)
    return rows


def _heights(
    rows: Sequence[Sequence[int]], heights: Sequence[float], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]
) -> list[float]:
    """Centre of each item: near its neighbours' mean, in the order of its column, boxes apart."""
    y = [0.0] * len(heights)
    spacing: list[list[float]] = []
    for row in rows:
        steps = [0.0]
        for a, b in zip(row, row[1:], strict=False):
            gap = _ROW_GAP if heights[a] and heights[b] else 20.0
            steps.append(steps[-1] + (heights[a] + heights[b]) / 2 + gap)
        spacing.append(steps)
        for n, step in zip(row, steps, strict=True):
            y[n] = step - steps[-1] / 2
    rounds = 4 if len(heights) < 20_000 else 2
    for sweep in range(rounds):
        rightwards = sweep % 2 == 0
        numbers = range(1, len(rows)) if rightwards else range(len(rows) - 2, -1, -1)
        near, far = (before, after) if rightwards else (after, before)
        for column in numbers:
            row, steps = rows[column], spacing[column]
            wanted: list[float] = []
            for n, step in zip(row, steps, strict=True):
                ends = near[n]
                if len(ends) == 1:
                    wanted.append(y[ends[0]] - step)
                else:
                    ends = ends or far[n]
                    wanted.append((sum([y[m] for m in ends]) / len(ends) if ends else y[n]) - step)
            for n, step, value in zip(row, steps, _rising(wanted), strict=True):
                y[n] = value + step
    return y


def _rising(values: Sequence[float]) -> list[float]:
    """The non-decreasing values nearest to *values* by squares (pool adjacent violators)."""
    sums: list[float] = []
    counts: list[int] = []
    for value in values:
        total, count = value, 1
        while sums and sums[-1] * count > total * counts[-1]:
            total += sums.pop()
            count += counts.pop()
        sums.append(total)
        counts.append(count)
    result: list[float] = []
    for total, count in zip(sums, counts, strict=True):
        result += [total / count] * count
    return result


def _port_offsets(
    count: int, chains: Sequence[Sequence[int]], y: Sequence[float], heights: Sequence[float]
) -> list[tuple[float, float]]:
    """How far above or below a box's middle each arrow leaves and enters, in the order of its other end."""
    sides: dict[tuple[int, bool], list[tuple[float, int]]] = {}
    for e, chain in enumerate(chains):
        sides.setdefault((chain[0], True), []).append((y[chain[1]], e))
        sides.setdefault((chain[-1], False), []).append((y[chain[-2]], e))
    found: dict[tuple[int, bool], float] = {}
    for (n, leaving), ends in sides.items():
        ends.sort()
        step = min(14.0, (heights[n] - 16) / len(ends))
        for i, (_, e) in enumerate(ends):
            found[e, leaving] = (i - (len(ends) - 1) / 2) * step
    return [(found[e, True], found[e, False]) for e in range(len(chains))]


def _packed(parts: Sequence[_Part]) -> _Part:
    """Parts in file order on shelves, about twice as wide as high."""
    whole = _Part()
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


def _loop(box: Box, space: float, routes: Mapping[str, Sequence[Point]]) -> tuple[Point, ...]:
    """An arrow of a node to itself: an arch above it, wide enough for its label, each further one around the last."""
    middle = box.x + box.w / 2
    taken = [abs(p[0] - middle) for r in routes.values() for p in (r[0], r[-1]) if p[1] == box.y and box.x <= p[0] <= box.right]
    half, height = max(24.0, space / 2 + 11), _LOOP_HEIGHT
    while any(abs(half - t) < 6 for t in taken) and half < box.w / 2 - 18:
        half, height = half + 10, height + 10
    half = min(half, box.w / 2 - 12)
    top = box.y - height
    return ((middle + half, box.y), (middle + half, top), (middle - half, top), (middle - half, box.y))


def _touching(part: _Part, link: _Link, kinds: Sequence[str]) -> tuple[Point, ...]:
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


def _place_labels(part: _Part, links: Sequence[_Link]) -> dict[str, tuple[Box, str, str]]:
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
            for (px, py), (qx, qy) in zip(points, points[1:], strict=False):
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


def _label_offers(points: Sequence[Point], link: _Link) -> Iterable[_Rect]:
    """Places for a label on a line: on its level pieces first, longest first, then on the upright and slanting ones."""
    w, h = link.space / 2, _LABEL_HEIGHT / 2
    pieces = list(zip(points, points[1:], strict=False))
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

"""Layered layout, left to right, of one connected part of a diagram: see `dipeo_nb.diagram.layout`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import graphlay

from dipeo_nb.diagram.routing import Box, Point, route

COLUMN_GAP, ROW_GAP = 64.0, 34.0
"""Pixels between columns (more where labels stand) and between boxes of a column."""
_FINE_NODES, _FINE_WEIGHT = 150, 600
"""Up to so many nodes, and nodes plus columns crossed by arrows, a part is laid out by graphlay."""
_DUMMIES = 40_000
"""Columns that arrows may be led through, in all; the longest arrows beyond that run straight."""
_UNFOLDED = 1300.0
"""Pixels up to which a part stays one row."""
_ASPECT = 2.4
"""How many times wider than high a long part is to become by breaking it into rows."""


class Link(NamedTuple):
    id: str
    source: int
    target: int
    back: bool
    branch: str
    label: str
    space: float
    """Pixels its label needs; 0 without label."""


@dataclass(slots=True)
class Part:
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

    def move_into(self, other: Part, dx: float, dy: float) -> None:
        other.boxes.update((n, Box(b.x + dx, b.y + dy, b.w, b.h)) for n, b in self.boxes.items())
        other.routes.update((i, tuple((x + dx, y + dy) for x, y in r)) for i, r in self.routes.items())
        other.smooth |= self.smooth


def layered(members: list[int], sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Part:
    """One connected part, laid out from left to right."""
    local = {n: i for i, n in enumerate(members)}
    inner = [sizes[n] for n in members]
    drawn = [link for link in links if link.source != link.target]
    if len(members) == 1:
        return Part({members[0]: Box(0, 0, *inner[0])})
    forward = [(local[k.target], local[k.source]) if k.back else (local[k.source], local[k.target]) for k in drawn]
    layers = _layers(len(members), forward)
    weight = len(members) + sum(layers[t] - layers[s] for s, t in forward)
    lay = _fine if len(members) <= _FINE_NODES and weight <= _FINE_WEIGHT else _coarse
    part = lay(inner, drawn, forward, layers)
    return Part({members[i]: box for i, box in part.boxes.items()}, part.routes, part.smooth)


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
    sizes: Sequence[tuple[float, float]],
    links: Sequence[Link],
    forward: Sequence[tuple[int, int]],
    layers: Sequence[int],
) -> Part:
    """By graphlay; loops are closed by arches above or below."""
    ahead = [(link, ends) for link, ends in zip(links, forward, strict=True) if not link.back]
    gap = max([COLUMN_GAP, *(link.space + 34 for link, _ in ahead)])
    graph = {
        "nodes": [{"size": {"width": w, "height": h}, "shape": "box"} for w, h in sizes],
        "edges": [{"source": s, "target": t, "weight": 1.0} for _, (s, t) in ahead],
    }
    options: dict[str, object] = {
        "direction": "leftright",
        "spacing": {"layer_gap": gap, "node_gap": ROW_GAP, "dummy_gap": 24.0},
    }
    columns = max(layers) + 1
    if sum(w for w, _ in sizes) / len(sizes) * columns + gap * (columns - 1) > _UNFOLDED:
        options["wrap"] = {"viewport_aspect": _ASPECT}
        options["tuning"] = {"wrap": {"max_rows": 12, "max_cut_edges": 10, "min_gain": 1.1}}
    result = graphlay.layout(graph, options=options)
    part = Part()
    for i, node in enumerate(result.nodes):
        (w, h), centre = sizes[i], node["center"]
        part.boxes[i] = Box(centre["x"] - w / 2, centre["y"] - h / 2, w, h)
    for (link, _), edge in zip(ahead, result.edges, strict=True):
        part.routes[link.id] = tuple((p["x"], p["y"]) for p in edge["points"])
    loops = [link for link in links if link.back]
    ends = [(target, source) for link, (source, target) in zip(links, forward, strict=True) if link.back]
    boxes = [part.boxes[i] for i in range(len(sizes))]
    arches = route(boxes, ends, taken=list(part.routes.values()), loops=True)
    part.routes.update((link.id, points) for link, points in zip(loops, arches, strict=True))
    return part


def _coarse(
    sizes: Sequence[tuple[float, float]],
    links: Sequence[Link],
    forward: Sequence[tuple[int, int]],
    layers: Sequence[int],
) -> Part:
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
            for a, b in itertools.pairwise(chain):
                after[a].append(b)
                before[b].append(a)

    rows = _ordered(columns, layer, before, after)
    y = _heights(rows, heights, before, after)

    widths = [0.0] * columns
    gaps = [COLUMN_GAP] * columns
    crowd = [0] * columns
    for n in range(count):
        widths[layer[n]] = max(widths[layer[n]], sizes[n][0])
    for link, chain in zip(links, chains, strict=True):
        gaps[layer[chain[0]]] = max(gaps[layer[chain[0]]], link.space + 40)
        for a in chain[:-1]:
            crowd[layer[a]] += 1
    steps = [widths[column] + max(gaps[column], min(160.0, 44.0 + 4 * crowd[column])) for column in range(columns)]
    fold = _Fold(steps, widths, layer, y, heights, chains)
    part = Part()
    for n in range(count):
        w, h = sizes[n]
        part.boxes[n] = Box(fold.left(n) + (widths[layer[n]] - w) / 2, fold.y(n) - h / 2, w, h)

    offsets = _port_offsets(count, chains, y, heights)
    for e, chain in enumerate(chains):
        source, target = part.boxes[chain[0]], part.boxes[chain[-1]]
        points: list[Point] = [(source.right, fold.y(chain[0]) + offsets[e][0])]
        for a, b in itertools.pairwise(chain):
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
        row_width = wide / max(1, round(math.sqrt(wide / (_ASPECT * (high + 60)))))

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
            for a, b in itertools.pairwise(chain):
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
    rows: Sequence[Sequence[int]],
    heights: Sequence[float],
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
) -> list[float]:
    """Centre of each item: near its neighbours' mean, in the order of its column, boxes apart."""
    y = [0.0] * len(heights)
    spacing: list[list[float]] = []
    for row in rows:
        steps = [0.0]
        for a, b in itertools.pairwise(row):
            gap = ROW_GAP if heights[a] and heights[b] else 20.0
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

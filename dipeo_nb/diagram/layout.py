"""Where nodes stand and how arrows run. Deterministic; wheels only, no system binary.

Positions of the file are kept (spread a little where boxes would touch). Without them, and when they are useless, a layered
layout from left to right is made. Small diagrams are laid out and routed by `graphlay`; large ones, for which that takes
seconds, by a plain layered layout with curves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import graphlay

from dipeo_nb.domain.diagram import DomainDiagram

NODE_WIDTH, NODE_HEIGHT = 178.0, 58.0
"""Pixels."""
GAP_X, GAP_Y = 64.0, 44.0
"""Pixels between boxes at least."""
FINE_LIMIT = 60
"""Nodes up to which edges are routed around boxes."""
SPREAD_LIMIT = 2.5
"""Positions that would have to be spread further than this are given up."""

Point = tuple[float, float]


class Box(NamedTuple):
    """A node's place: top left corner and size, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Layout(NamedTuple):
    """Everything drawing needs to know, moved so that it begins at (0, 0)."""

    nodes: Mapping[str, Box]
    edges: Mapping[str, tuple[Point, ...]]
    """Arrow id → corners of its line, ends included."""
    labels: Mapping[str, Point]
    """Arrow id → where the middle of its label fits."""
    width: float
    height: float


def place(diagram: DomainDiagram) -> Layout:
    """The layout of a diagram; arrows of unknown nodes are left out."""
    if not diagram.nodes:
        return Layout({}, {}, {}, 0.0, 0.0)
    ids = [n.id for n in diagram.nodes]
    known = set(ids)
    arrows = [a for a in diagram.arrows if a.source in known and a.target in known]
    given = _given(diagram)
    if len(ids) <= FINE_LIMIT:
        return _fine(ids, [(a.id, a.source, a.target, a.label) for a in arrows], given)
    ends = [(a.id, a.source, a.target) for a in arrows]
    return _curved(given or _layered(ids, [(s, t) for _, s, t in ends]), ends)


def _given(diagram: DomainDiagram) -> dict[str, Point] | None:
    """The file's positions, spread until no boxes touch; None when they are missing or of no use."""
    if any(n.position is None for n in diagram.nodes):
        return None
    places = {n.id: (n.position.x, n.position.y) for n in diagram.nodes if n.position is not None}
    factor = 1.0
    # Sorted by x, only neighbours can touch.
    order = sorted(places.items(), key=lambda item: item[1])
    for i, (_, (x, y)) in enumerate(order):
        for _, (other_x, other_y) in order[i + 1 :]:
            dx, dy = other_x - x, abs(other_y - y)
            if dx >= NODE_WIDTH + GAP_X:
                break
            if dy >= NODE_HEIGHT + GAP_Y / 2:
                continue
            ways = [(NODE_WIDTH + GAP_X / 2) / dx] if dx else []
            ways += [(NODE_HEIGHT + GAP_Y / 2) / dy] if dy else []
            if not ways or min(ways) > SPREAD_LIMIT:
                return None
            factor = max(factor, min(ways))
    return {i: (x * factor, y * factor) for i, (x, y) in places.items()}


def _fine(
    ids: Sequence[str], arrows: Sequence[tuple[str, str, str, str | None]], given: dict[str, Point] | None
) -> Layout:
    graph = graphlay.Graph()
    for node in ids:
        fields: dict[str, Any] = {}
        if given is not None:
            x, y = given[node]
            fields["position"] = {"x": x + NODE_WIDTH / 2, "y": y + NODE_HEIGHT / 2}
        graph.node(node, width=NODE_WIDTH, height=NODE_HEIGHT, **fields)
    for _, source, target, label in arrows:
        size = {"label_size": {"width": min(len(label), 24) * 6.5 + 8, "height": 16.0}} if label else {}
        graph.edge(source, target, **size)
    options = {"spacing": {"layer_gap": GAP_X, "node_gap": GAP_Y}}
    raw: dict[str, Any] = (graphlay.layout if given is None else graphlay.reroute)(graph, options=options).raw
    boxes = {
        node: Box(
            found["center"]["x"] - NODE_WIDTH / 2, found["center"]["y"] - NODE_HEIGHT / 2, NODE_WIDTH, NODE_HEIGHT
        )
        for node, found in zip(ids, raw["nodes"], strict=True)
    }
    edges: dict[str, tuple[Point, ...]] = {}
    labels: dict[str, Point] = {}
    for (arrow, *_), found in zip(arrows, raw["edges"], strict=True):
        edges[arrow] = tuple((p["x"], p["y"]) for p in found["points"])
        anchor = found["label_anchor"]
        labels[arrow] = (anchor["x"], anchor["y"]) if anchor else middle(edges[arrow])
    return _from_origin(boxes, edges, labels)


def _layered(ids: Sequence[str], ends: Sequence[tuple[str, str]]) -> dict[str, Point]:
    """Longest-path layers, rows ordered by the mean row of the neighbours; linear in the size of the diagram."""
    after: dict[str, list[str]] = {n: [] for n in ids}
    for source, target in ends:
        if source != target:
            after[source].append(target)
    forward = _without_back_edges(ids, after)
    before: dict[str, list[str]] = {n: [] for n in ids}
    waiting = dict.fromkeys(ids, 0)
    for source, targets in forward.items():
        for target in targets:
            before[target].append(source)
            waiting[target] += 1
    layer = dict.fromkeys(ids, 0)
    ready = [n for n in ids if not waiting[n]]
    for n in ready:  # grows while it is walked
        for target in forward[n]:
            layer[target] = max(layer[target], layer[n] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    rows: dict[int, list[str]] = {}
    for n in ids:
        rows.setdefault(layer[n], []).append(n)
    row = {n: float(i) for members in rows.values() for i, n in enumerate(members)}
    for sweep in range(4):
        near = before if sweep % 2 == 0 else forward
        for number in sorted(rows, reverse=bool(sweep % 2)):
            mean = {n: sum(row[m] for m in near[n]) / len(near[n]) if near[n] else row[n] for n in rows[number]}
            rows[number].sort(key=lambda n: mean[n])
            row.update({n: float(i) for i, n in enumerate(rows[number])})
    tallest = max(len(members) for members in rows.values())
    places: dict[str, Point] = {}
    for number, members in rows.items():
        top = (tallest - len(members)) / 2
        for i, n in enumerate(members):
            places[n] = (number * (NODE_WIDTH + GAP_X), (top + i) * (NODE_HEIGHT + GAP_Y))
    return places


def _without_back_edges(ids: Sequence[str], after: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    kept: dict[str, list[str]] = {n: [] for n in ids}
    state: dict[str, int] = {}
    for root in ids:
        if root in state:
            continue
        state[root] = 1
        path = [(root, iter(after[root]))]
        while path:
            n, following = path[-1]
            for target in following:
                if state.get(target) == 1:
                    continue  # closes a cycle
                kept[n].append(target)
                if target not in state:
                    state[target] = 1
                    path.append((target, iter(after[target])))
                    break
            else:
                state[n] = 2
                path.pop()
    return kept


def _curved(places: Mapping[str, Point], arrows: Sequence[tuple[str, str, str]]) -> Layout:
    """Edges from right side to left side; those that go back run below everything between their ends."""
    boxes = {n: Box(x, y, NODE_WIDTH, NODE_HEIGHT) for n, (x, y) in places.items()}
    edges: dict[str, tuple[Point, ...]] = {}
    for arrow, source, target in arrows:
        a, b = boxes[source], boxes[target]
        start, end = (a.x + a.width, a.y + a.height / 2), (b.x, b.y + b.height / 2)
        if start[0] + 20 <= end[0]:
            bend = (start[0] + end[0]) / 2
            edges[arrow] = (start, end) if start[1] == end[1] else (start, (bend, start[1]), (bend, end[1]), end)
        else:
            low = max(a.y + a.height, b.y + b.height) + GAP_Y / 2
            out, into = start[0] + GAP_X / 3, end[0] - GAP_X / 3
            edges[arrow] = (start, (out, start[1]), (out, low), (into, low), (into, end[1]), end)
    return _from_origin(boxes, edges, {arrow: middle(points) for arrow, points in edges.items()})


def middle(points: Sequence[Point]) -> Point:
    """The middle of the longest stretch of a line."""
    stretches = list(itertools.pairwise(points))
    (ax, ay), (bx, by) = max(stretches, key=lambda s: abs(s[0][0] - s[1][0]) + abs(s[0][1] - s[1][1]))
    return (ax + bx) / 2, (ay + by) / 2


def _from_origin(boxes: dict[str, Box], edges: dict[str, tuple[Point, ...]], labels: dict[str, Point]) -> Layout:
    xs = [b.x for b in boxes.values()] + [x for points in edges.values() for x, _ in points]
    ys = [b.y for b in boxes.values()] + [y for points in edges.values() for _, y in points]
    left, top = min(xs), min(ys)
    right = max(max(b.x + b.width for b in boxes.values()), *xs)
    bottom = max(max(b.y + b.height for b in boxes.values()), *ys)
    return Layout(
        {n: Box(b.x - left, b.y - top, b.width, b.height) for n, b in boxes.items()},
        {a: tuple((x - left, y - top) for x, y in points) for a, points in edges.items()},
        {a: (x - left, y - top) for a, (x, y) in labels.items()},
        right - left,
        bottom - top,
    )

"""Positions of everything on a drawing: `place(diagram)` → `Layout`. Pixels, y downwards, origin at the top left.

A drawing of up to `OVERVIEW_NODES` nodes is as wide as a notebook's cell at most, so that its text can be read there; larger
ones are as wide as high, roughly. A diagram whose nodes all have sensible positions keeps their arrangement when it fits
and when no arrow or label would lie on anything else (`dipeo_nb.diagram.arranged`). Any other diagram is laid out in
columns, each connected part for itself (`dipeo_nb.diagram.layered`). The same diagram always gives the same layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.arranged import arranged
from dipeo_nb.diagram.layered import SELF_LOOPS, layered
from dipeo_nb.diagram.part import Link, Part
from dipeo_nb.diagram.routing import Box, Point
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode

LABEL_SIZE, SUBTITLE_SIZE, ARROW_LABEL_SIZE = 13.0, 11.0, 11.0
"""Font sizes in pixels."""
PAGE = 780.0
"""Pixels that a drawing is wide at most, so that a notebook's cell shows it without making it smaller."""
OVERVIEW_NODES = 40
"""With more nodes a drawing may be wider than the page: one looks at it as a map, or at a part of it."""
ICON_SPACE = 46.0
"""From a box's left side to its text."""
MARGIN = 16.0
_MIN_WIDTH, _MAX_WIDTH, _RIGHT_PAD = 124.0, 216.0, 16.0
_LABEL_MAX_WIDTH = 112.0
_PARALLEL = 8
"""More arrows than this from one node to another are drawn as one, with their number."""


class Face(NamedTuple):
    """Texts of a node's box, already cut to fit."""

    lines: tuple[str, ...]
    """The label, one or two lines."""
    subtitle: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes, routes and places of labels."""

    nodes: Mapping[str, Box]
    """Node id → box."""
    edges: Mapping[str, tuple[Point, ...]]
    """Arrow id → polyline from the source's border to the target's; arrows to nowhere are left out."""
    faces: Mapping[str, Face]
    labels: Mapping[str, tuple[Box, str, str]]
    """Arrow id → (box, branch, label) of arrows that have either text."""
    back: frozenset[str]
    """Arrows that close a loop."""
    bundles: Mapping[str, tuple[str, ...]]
    """Arrow id → all arrows that its line represents, where that is more than itself; the others have no line."""
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
    links, bundles = _links(diagram, nodes)
    if not nodes:
        return Layout({}, {}, {}, {}, frozenset(), {}, 2 * MARGIN, 2 * MARGIN)

    room = _room(sizes)
    part = arranged(nodes, sizes, links, room)
    if part is None:
        part = _packed([layered(members, sizes, inner, room) for members, inner in _parts(len(nodes), links)], room)
    kinds = [n.type for n in nodes]
    for link in links:
        part.routes[link.id] = _touching(part, link, kinds)

    whole = part.extent()
    dx, dy = MARGIN - whole.x, MARGIN - whole.y
    moved = Part()
    part.move_into(moved, dx, dy)
    return Layout(
        nodes={nodes[n].id: moved.boxes[n] for n in range(len(nodes))},
        edges={link.id: moved.routes[link.id] for link in links},
        faces={n.id: f for n, f in zip(nodes, faces, strict=True)},
        labels={link.id: (moved.labels[link.id], *_words(link, moved.labels[link.id].w)) for link in links if link.space},
        back=frozenset(link.id for link in links if link.back),
        bundles=bundles,
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
    return Face(tuple(lines), shown), (float(width), 52.0 if len(lines) == 1 else 68.0)


def _links(diagram: DomainDiagram, nodes: Sequence[DomainNode]) -> tuple[list[Link], dict[str, tuple[str, ...]]]:
    """The lines to draw, and which of them represent several arrows."""
    index = {node.id: i for i, node in enumerate(nodes)}
    arrows = list({a.id: a for a in diagram.arrows if a.source in index and a.target in index}.values())
    parallel: dict[tuple[int, int], list[DomainArrow]] = {}
    for arrow in arrows:
        parallel.setdefault((index[arrow.source], index[arrow.target]), []).append(arrow)
    found: list[tuple[DomainArrow, int, int, str, str]] = []
    bundles: dict[str, tuple[str, ...]] = {}
    for (source, target), together in parallel.items():
        if len(together) > (SELF_LOOPS if source == target else _PARALLEL):
            bundles[together[0].id] = tuple(a.id for a in together)
            found.append((together[0], source, target, "", f"{len(together):,} arrows"))
        else:
            found += [(a, source, target, *labels.arrow_words(a)) for a in together]
    place_in_file = {arrow.id: i for i, arrow in enumerate(arrows)}
    found.sort(key=lambda each: place_in_file[each[0].id])
    back = _back_edges(len(nodes), [(source, target) for _, source, target, _, _ in found])
    return [
        Link(arrow.id, source, target, i in back, branch, label, _space(branch, label))
        for i, (arrow, source, target, branch, label) in enumerate(found)
    ], bundles


_WORD_GAP, _WORD_SIDE = 6.0, 7.0


def _space(branch: str, label: str) -> float:
    """Pixels that the words of an arrow take, up to what they may take."""
    if not (branch or label):
        return 0.0
    wide = labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + labels.measure(label, ARROW_LABEL_SIZE)
    return math.ceil(min(wide + _WORD_GAP * bool(branch and label), _LABEL_MAX_WIDTH) + 2 * _WORD_SIDE)


def _words(link: Link, wide: float) -> tuple[str, str]:
    """Branch and label, cut to fit into a place of this width."""
    room = wide - 2 * _WORD_SIDE + 0.5
    branch, label = link.branch, link.label
    if branch:
        beside = min(labels.measure(label, ARROW_LABEL_SIZE), 24.0) + _WORD_GAP if label else 0.0
        branch = labels.fit(branch, room - beside, ARROW_LABEL_SIZE, bold=True)
        room -= labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + _WORD_GAP
    return branch, labels.fit(label, room, ARROW_LABEL_SIZE) if label else ""


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


# ------------------------------------------------------------------------------------------------------- parts


def _room(sizes: Sequence[tuple[float, float]]) -> float:
    """Pixels for boxes and arrows from left to right."""
    page = PAGE - 2 * MARGIN
    if len(sizes) <= OVERVIEW_NODES:
        return page
    return max(page, math.sqrt(1.6 * sum((w + 80) * (h + 60) for w, h in sizes)))


def _packed(parts: Sequence[Part], room: float) -> Part:
    """Parts in file order on shelves."""
    whole = Part()
    gap = 40.0
    x = y = shelf = 0.0
    for part in parts:
        extent = part.extent()
        if x and x + extent.w > room:
            x, y, shelf = 0.0, y + shelf + gap, 0.0
        part.move_into(whole, x - extent.x, y - extent.y)
        x += extent.w + gap
        shelf = max(shelf, extent.h)
    return whole


# ----------------------------------------------------------------------------------------------------- touches


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
"""Width of the points of a condition's outline, in pixels."""


ROUND = 34.0
"""Radius of a start's or an endpoint's ends, in pixels; lower ones are half circles."""


def inset(kind: str, box: Box, away: float) -> float:
    """Distance of the outline from the box's left and right sides, *away* pixels above or below the middle."""
    half = box.h / 2
    if kind == "condition":
        return CHAMFER * min(1.0, away / half)
    if kind in ("start", "endpoint"):
        round_ = min(half, ROUND)
        beyond = max(0.0, away - half + round_)
        return round_ - math.sqrt(max(0.0, round_ * round_ - beyond * beyond))
    return 0.0

"""Routes of arrows between boxes at fixed positions: right angles, round boxes and other arrows.

For every arrow a few hundred simple shapes (straight, one to four bends, through gaps between boxes) are priced, and
the cheapest is taken. The price counts length, bends, boxes crossed, arrows crossed and arrows run along with. First
the sides are chosen, then places on each side are given out in the order of the arrows' other ends, then the routes
are drawn. Deterministic; cost grows with the number of arrows and with what is near each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle: left, top, width, height, in pixels."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h


RIGHT, LEFT, TOP, BOTTOM = range(4)
_OUT = ((1, 0), (-1, 0), (0, -1), (0, 1))
_OPPOSITE = (LEFT, RIGHT, BOTTOM, TOP)
_LEAVE_PRICE = (0, 30, 24, 18)
_ENTER_PRICE = (30, 0, 16, 20)
"""Arrows like to leave on the right and enter on the left; indexed by side."""

STUB = 18.0
"""Pixels an arrow runs straight out of, or into, a box."""
_LANE = 12.0
_BEND, _CROSSING, _ALONG, _THROUGH_BOX, _MIXED_SIDE = 34.0, 30.0, 90.0, 800.0, 46.0
_TRIES = 6000
"""Shapes looked at closely, for all arrows together; a route that crosses no box is always looked for."""


def route(boxes: Sequence[Box], links: Sequence[tuple[int, int]]) -> list[tuple[Point, ...]]:
    """A polyline from border to border for each link.

    Args:
        boxes: must not overlap.
        links: (source, target) as indexes into *boxes*; source and target differ.
    """
    return _Router(boxes, len(links)).run(links)


class _Router:
    def __init__(self, boxes: Sequence[Box], count: int) -> None:
        self.boxes = boxes
        self.tries = max(24, min(400, _TRIES // max(1, count)))
        self.grid = _Grid(boxes)
        self.lines = _Lines()
        self.top = min((b.y for b in boxes), default=0.0)
        self.bottom = max((b.bottom for b in boxes), default=0.0)

    def run(self, links: Sequence[tuple[int, int]]) -> list[tuple[Point, ...]]:
        order = sorted(range(len(links)), key=lambda i: (self._distance(*links[i]), i))
        sides = self._choose_sides(links, order)
        ports = self._give_ports(links, sides)
        self.lines = _Lines()
        routes: list[tuple[Point, ...]] = [()] * len(links)
        for i in order:
            source, target = links[i]
            start, end = ports[i]
            routes[i] = self._cheapest(source, target, [(sides[i][0], sides[i][1], start, end)])[1]
            self.lines.add(routes[i])
        return routes

    def _distance(self, source: int, target: int) -> float:
        a, b = self.boxes[source], self.boxes[target]
        return abs(a.x + a.w / 2 - b.x - b.w / 2) + abs(a.y + a.h / 2 - b.y - b.h / 2)

    # ------------------------------------------------------------------------------------- sides and ports

    def _choose_sides(self, links: Sequence[tuple[int, int]], order: Sequence[int]) -> list[tuple[int, int]]:
        chosen: list[tuple[int, int]] = [(RIGHT, LEFT)] * len(links)
        leaving: set[tuple[int, int]] = set()
        entering: set[tuple[int, int]] = set()
        for i in order:
            source, target = links[i]
            a, b = self.boxes[source], self.boxes[target]
            ends = [(s, t, _middle(a, s), _middle(b, t)) for s in range(4) for t in range(4)]
            extra = [
                _LEAVE_PRICE[s]
                + _ENTER_PRICE[t]
                + ((source, s) in entering) * _MIXED_SIDE
                + ((target, t) in leaving) * _MIXED_SIDE
                for s, t, _, _ in ends
            ]
            best, sketch = self._cheapest(source, target, ends, extra)
            self.lines.add(sketch)
            chosen[i] = (ends[best][0], ends[best][1])
            leaving.add((source, chosen[i][0]))
            entering.add((target, chosen[i][1]))
        return chosen

    def _give_ports(self, links: Sequence[tuple[int, int]], sides: Sequence[tuple[int, int]]) -> list[tuple[Point, Point]]:
        on_side: dict[tuple[int, int], list[tuple[float, float, int, bool]]] = {}
        for i, (source, target) in enumerate(links):
            for node, side, other, first in ((source, sides[i][0], target, True), (target, sides[i][1], source, False)):
                box = self.boxes[other]
                x, y = box.x + box.w / 2, box.y + box.h / 2
                here = self.boxes[node]
                # Order by the direction of the other end, so that arrows of one side do not cross at once.
                along, away = (y - here.y, abs(x - here.x)) if side in (RIGHT, LEFT) else (x - here.x, abs(y - here.y))
                flip = -1 if along > 0 else 1
                on_side.setdefault((node, side), []).append((along, flip * away, i, first))
        ports: dict[tuple[int, bool], Point] = {}
        for (node, side), ends in on_side.items():
            box = self.boxes[node]
            ends.sort()
            length = box.h if side in (RIGHT, LEFT) else box.w
            gap = min(20.0, (length - 16) / len(ends))
            for place, (_, _, i, first) in enumerate(ends):
                offset = (place - (len(ends) - 1) / 2) * gap
                x, y = _middle(box, side)
                ports[i, first] = (x, y + offset) if side in (RIGHT, LEFT) else (x + offset, y)
        for i, (source, target) in enumerate(links):
            lone = (len(on_side[source, sides[i][0]]) == 1, len(on_side[target, sides[i][1]]) == 1)
            if sides[i][1] == _OPPOSITE[sides[i][0]] and any(lone):
                axis = 1 if sides[i][0] in (RIGHT, LEFT) else 0
                self._straighten(i, (source, target), lone, axis, ports)
        return [(ports[i, True], ports[i, False]) for i in range(len(links))]

    def _straighten(
        self, i: int, link: tuple[int, int], lone: tuple[bool, bool], axis: int, ports: dict[tuple[int, bool], Point]
    ) -> None:
        """Ports that face each other, a little apart: one straight line, where a lone port can move to make it one."""
        spans = [(b[axis] + 12, b[axis] + b[axis + 2] - 12) for b in (self.boxes[link[0]], self.boxes[link[1]])]
        if all(lone):
            low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
            at = (low + high) / 2
        else:
            fixed = ports[i, not lone[0]][axis]
            low, high = spans[0] if lone[0] else spans[1]
            at = min(max(fixed, low), high)
            low, high = at, fixed if at == fixed else at - 1
        (px, py), (qx, qy) = ports[i, True], ports[i, False]
        start, end = ((px, at), (qx, at)) if axis else ((at, py), (at, qy))
        if low <= high and not self.grid.crossed(start, end):
            ports[i, True], ports[i, False] = start, end

    # ----------------------------------------------------------------------------------------------- shapes

    def _cheapest(
        self,
        source: int,
        target: int,
        ends: Sequence[tuple[int, int, Point, Point]],
        extra: Sequence[float] | None = None,
    ) -> tuple[int, tuple[Point, ...]]:
        """(index into *ends*, route) of the cheapest shape."""
        offers: list[tuple[float, int, tuple[Point, ...]]] = []
        xs, ys = self._channels(source, target)
        for e, (s, t, start, end) in enumerate(ends):
            more = extra[e] if extra else 0.0
            for points in _shapes(start, s, end, t, xs, ys):
                length = sum(abs(q[0] - p[0]) + abs(q[1] - p[1]) for p, q in itertools.pairwise(points))
                offers.append((length + _BEND * (len(points) - 2) + more, e, points))
        offers.sort()
        best_price, best, clear = float("inf"), offers[0], False
        for tried, offer in enumerate(offers):
            if offer[0] >= best_price or (clear and tried >= self.tries):
                break
            trouble = self._trouble(offer[2], best_price - offer[0])
            if offer[0] + trouble < best_price:
                best_price, best, clear = offer[0] + trouble, offer, trouble < _THROUGH_BOX
        return best[1], best[2]

    def _channels(self, source: int, target: int) -> tuple[list[float], list[float]]:
        """Coordinates at which a route may run vertically (x) and horizontally (y)."""
        a, b = self.boxes[source], self.boxes[target]
        left, right = min(a.x, b.x), max(a.right, b.right)
        top, bottom = min(a.y, b.y), max(a.bottom, b.bottom)
        xs = {(min(a.right, b.right) + max(a.x, b.x)) / 2}
        ys = {(min(a.bottom, b.bottom) + max(a.y, b.y)) / 2}
        for box in (a, b):
            xs |= {box.x - STUB - 6, box.right + STUB + 6}
            ys |= {box.y - STUB - 6, box.bottom + STUB + 6}
        # Over or under whatever is between.
        between = [self.boxes[n] for n in self.grid.near(left, self.top, right, self.bottom)]
        ys |= {min(n.y for n in between) - STUB - 6, max(n.bottom for n in between) + STUB + 6}
        xs |= {x + d for x in tuple(xs) for d in (-_LANE, _LANE)}
        ys |= {y + d for y in tuple(ys) for d in (-_LANE, _LANE)}
        near = self.grid.near(left - 40, top - 40, right + 40, bottom + 40) - {source, target}
        if len(near) <= 10:
            for n in near:
                box = self.boxes[n]
                xs |= {box.x - STUB - 6, box.right + STUB + 6}
                ys |= {box.y - STUB - 6, box.bottom + STUB + 6}
        return sorted(xs), sorted(ys)

    def _trouble(self, points: Sequence[Point], limit: float) -> float:
        price = 0.0
        for p, q in itertools.pairwise(points):
            price += _THROUGH_BOX * self.grid.crossed(p, q)
            if price >= limit:
                return price
        for p, q in itertools.pairwise(points):
            price += self.lines.price(p, q)
            if price >= limit:
                return price
        return price


def _middle(box: Box, side: int) -> Point:
    dx, dy = _OUT[side]
    return box.x + box.w * (1 + dx) / 2, box.y + box.h * (1 + dy) / 2


def _shapes(start: Point, s: int, end: Point, t: int, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[Point, ...]]:
    out, into = _OUT[s], _OUT[t]
    p = (start[0] + STUB * out[0], start[1] + STUB * out[1])
    q = (end[0] + STUB * into[0], end[1] + STUB * into[1])
    found: list[tuple[Point, ...]] = []
    if _OPPOSITE[s] == t and (start[1] == end[1] if out[0] else start[0] == end[0]):
        forward = (end[0] - start[0]) * out[0] + (end[1] - start[1]) * out[1]
        if forward > 0:
            found.append((start, end))
    middles: list[tuple[Point, ...]] = [((q[0], p[1]),), ((p[0], q[1]),)]
    middles += [((x, p[1]), (x, q[1])) for x in xs]
    middles += [((p[0], y), (q[0], y)) for y in ys]
    for middle in middles:
        points = _simplified((start, p, *middle, q, end))
        if points is not None:
            found.append(points)
    return found or [(start, p, (p[0], q[1]), q, end)]


def _simplified(points: Sequence[Point]) -> tuple[Point, ...] | None:
    """Without points on a straight line; None when the line turns back on itself."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) >= 2:
            (ax, ay), (bx, by) = kept[-2], kept[-1]
            if ax == bx == point[0] or ay == by == point[1]:
                if (bx - ax) * (point[0] - bx) + (by - ay) * (point[1] - by) < 0:
                    return None
                kept[-1] = point
                continue
        kept.append(point)
    return tuple(kept)


# ------------------------------------------------------------------------------------------- what is in the way

_CELL = 160.0
_BIN = 120.0


class _Grid:
    """Boxes by the cells of a coarse grid that they touch."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.boxes = boxes
        self.cells: dict[tuple[int, int], list[int]] = {}
        for n, box in enumerate(boxes):
            for cx in range(int(box.x // _CELL), int(box.right // _CELL) + 1):
                for cy in range(int(box.y // _CELL), int(box.bottom // _CELL) + 1):
                    self.cells.setdefault((cx, cy), []).append(n)

    def near(self, left: float, top: float, right: float, bottom: float) -> set[int]:
        """Boxes that touch this rectangle."""
        columns = range(int(left // _CELL), int(right // _CELL) + 1)
        rows = range(int(top // _CELL), int(bottom // _CELL) + 1)
        cells = self.cells
        found = [n for cx in columns for cy in rows if (cx, cy) in cells for n in cells[cx, cy]]
        boxes = self.boxes
        return {n for n in found if (b := boxes[n])[0] < right and left < b[0] + b[2] and b[1] < bottom and top < b[1] + b[3]}

    def crossed(self, p: Point, q: Point) -> int:
        """Number of boxes that this horizontal or vertical line crosses or comes too close to."""
        left, right = (p[0], q[0]) if p[0] <= q[0] else (q[0], p[0])
        top, bottom = (p[1], q[1]) if p[1] <= q[1] else (q[1], p[1])
        # A line along a side counts when nearer than 6 pixels; one that ends on a side does not.
        if top == bottom:
            return len(self.near(left + 1, top - 6, right - 1, bottom + 6)) if right - left > 2 else 0
        return len(self.near(left - 6, top + 1, right + 6, bottom - 1)) if bottom - top > 2 else 0


class _Lines:
    """Horizontal and vertical lines already drawn, by bins of their fixed coordinate."""

    def __init__(self) -> None:
        self.across: dict[int, list[tuple[float, float, float]]] = {}
        self.down: dict[int, list[tuple[float, float, float]]] = {}

    def add(self, points: Sequence[Point]) -> None:
        for (px, py), (qx, qy) in itertools.pairwise(points):
            if py == qy:
                self.across.setdefault(int(py // _BIN), []).append((py, min(px, qx), max(px, qx)))
            elif px == qx:
                self.down.setdefault(int(px // _BIN), []).append((px, min(py, qy), max(py, qy)))

    def price(self, p: Point, q: Point) -> float:
        """Cost of crossing lines, and of running along them, for the line from p to q."""
        if p[1] == q[1]:
            return self._price(p[1], min(p[0], q[0]), max(p[0], q[0]), self.across, self.down)
        return self._price(p[0], min(p[1], q[1]), max(p[1], q[1]), self.down, self.across)

    @staticmethod
    def _price(
        at: float,
        low: float,
        high: float,
        same: dict[int, list[tuple[float, float, float]]],
        other: dict[int, list[tuple[float, float, float]]],
    ) -> float:
        price = 0.0
        for number in range(int((at - 9) // _BIN), int((at + 9) // _BIN) + 1):
            for there, a, b in same.get(number, ()):
                if -9 < there - at < 9 and a + 2 < high and low + 2 < b:
                    price += _ALONG + (min(b, high) - max(a, low)) / 2
        for number in range(int(low // _BIN), int(high // _BIN) + 1):
            for there, a, b in other.get(number, ()):
                if low < there < high and a < at < b:
                    price += _CROSSING
        return price

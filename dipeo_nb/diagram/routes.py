"""The boxes, routes and labels of a layered drawing, when everything has its place."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from dipeo_nb.diagram.bands import ARC, DETOUR, DIRECT, Bands
from dipeo_nb.diagram.box_ports import BoxPorts
from dipeo_nb.diagram.columns import GAP
from dipeo_nb.diagram.part import LABEL_HEIGHT, Part
from dipeo_nb.diagram.placement import FAR, TIGHT_LABEL, Placement
from dipeo_nb.diagram.routing import Box, Point


class Routes:
    """Makes the `Part` of a placement."""

    def __init__(self, bands: Bands, ports: BoxPorts, placement: Placement) -> None:
        self.bands: Bands = bands
        self.ports: BoxPorts = ports
        self.placement: Placement = placement

    def part(self) -> Part:
        part = Part()
        for n in range(self.bands.count):
            band, c = self.bands.band[n], self.bands.column[n]
            high = self.ports.height[n]
            part.boxes[n] = Box(
                self.placement.lefts[band][c], self.placement.real(n) - high / 2, self.placement.wides[band][c], high
            )
        for e, link in enumerate(self.bands.links):
            way = self.bands.way[e]
            points = (
                self._direct(e, part) if way == DIRECT else self._around(e, part) if way == DETOUR else self._through(e, part)
            )
            part.routes[link.id] = _without_straight(points)
        self._add_self_loops(part)
        self._add_labels(part)
        return part

    def _through(self, e: int, part: Part) -> list[Point]:
        """An arrow through its band, or an arc."""
        hops = self.bands.hops[e]
        first, last = hops[0].left, hops[-1].right
        a, b = (
            self.placement.real(first, self.ports.port(hops[0], False)),
            self.placement.real(last, self.ports.port(hops[-1], True)),
        )
        points: list[Point] = []
        arc = self.bands.way[e] == ARC
        if arc:
            x = self.placement.arc_port(first, e, False)
            box = part.boxes[first]
            points += [(x, box.bottom if self.bands.under[e] else box.y), (x, a)]
        else:
            points.append((part.boxes[first].right, a))
        for hop in hops:
            key = self.bands.band[hop.left], self.bands.column[hop.left] + 1, e
            shift = self.placement.band_top[key[0]] - key[0] * FAR
            for piece in self.placement.pieces.get(key, ()):
                x = self.placement.lane_x(key, piece.lane)
                points += [(x, piece.start + shift), (x, piece.end + shift)]
        if arc:
            x = self.placement.arc_port(last, e, True)
            box = part.boxes[last]
            points += [(x, b), (x, box.bottom if self.bands.under[e] else box.y)]
            points.reverse()
        else:
            points.append((part.boxes[last].x, b))
        return points

    def _around(self, e: int, part: Part) -> list[Point]:
        s, t = self.bands.links[e].source, self.bands.links[e].target
        out, margin, into = self.placement.detour_xs(e)
        start, end = self.placement.real(s, self.ports.out_port[e]), self.placement.real(t, self.ports.in_port[e])
        points: list[Point] = [(part.boxes[s].right, start), (out, start)]
        for which in (0, 1):
            for y, a, b in self.placement.across.get((e, which), ()):
                points += [(a, y), (b, y)]
        last = into if into is not None else margin
        assert last is not None
        points += [(last, end), (part.boxes[t].x, end)]
        return points

    def _direct(self, e: int, part: Part) -> list[Point]:
        s, t = self.bands.links[e].source, self.bands.links[e].target
        a, b = self.placement.arc_port(s, e, True), self.placement.arc_port(t, e, False)
        points: list[Point] = [(a, part.boxes[s].y)]
        for y, p, q in self.placement.across.get((e, 0), ()):
            points += [(p, y), (q, y)]
        points.append((b, part.boxes[t].bottom))
        return points

    def _add_self_loops(self, part: Part) -> None:
        """Arrows of a node to itself: arcs under it, the shortest label innermost."""
        for n in self.bands.loops:
            box = part.boxes[n]
            middle = box.x + box.w / 2
            loops = self.bands.loops_of(n)
            halves = list(itertools.accumulate((k.space / 2 + 8 for k in loops), lambda a, b: max(a + 12, b), initial=4.0))
            halves = [min(half, box.w / 2 - 20 - 8 * i) for i, half in enumerate(reversed(halves[1:]))][::-1]
            for link, half in zip(loops, halves, strict=True):
                y = self.placement.real(n, self.ports.loop_level[link.id])
                part.routes[link.id] = (
                    (middle + half, box.bottom),
                    (middle + half, y),
                    (middle - half, y),
                    (middle - half, box.bottom),
                )
                if link.space:
                    wide = min(link.space, 2 * half - 12)
                    part.labels[link.id] = Box(middle - wide / 2, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)

    def _add_labels(self, part: Part) -> None:
        upright = _Upright(part.routes)
        for e, link in enumerate(self.bands.links):
            if not link.space:
                continue
            points = part.routes[link.id]
            if self.bands.way[e] == DIRECT:
                place = self._label_of_direct(e, part)
            elif self.bands.way[e] == ARC:
                place = self._label_of_arc(e, part, upright)
            else:
                (x, y), (end, _) = points[0], points[1]
                left, wide = x + 7, min(link.space, TIGHT_LABEL) if self.bands.tight else link.space
                if len(points) == 2:
                    nearest = min(end, x + self._gap_after(link.source))
                    middle = Box((x + nearest - 7 - wide) / 2, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)
                    if middle.x >= x + 4 and not upright.meet(middle, link.id):
                        left = middle.x
                place = Box(left, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)
            part.labels[link.id] = place

    def _gap_after(self, n: int) -> float:
        """Pixels between the column of a box and the next."""
        lefts, c = self.placement.lefts[self.bands.band[n]], self.bands.column[n]
        if c + 1 < len(lefts):
            return lefts[c + 1] - lefts[c] - self.placement.wides[self.bands.band[n]][c]
        return GAP

    def _label_of_direct(self, e: int, part: Part) -> Box:
        link = self.bands.links[e]
        box, x = part.boxes[link.source], part.routes[link.id][0][0]
        wide = min(link.space, box.w)
        left = min(max(x - wide / 2, box.x), box.right - wide)
        return Box(left, box.y - 12 - LABEL_HEIGHT, wide, LABEL_HEIGHT)

    def _label_of_arc(self, e: int, part: Part, upright: _Upright) -> Box:
        link, hops = self.bands.links[e], self.bands.hops[e]
        top = -LABEL_HEIGHT / 2
        if len(hops) > 1:
            passing = hops[-1].left
            band, c = self.bands.band[passing], self.bands.column[passing]
            wide = min(link.space, self.placement.wides[band][c])
            middle = self.placement.lefts[band][c] + self.placement.wides[band][c] / 2
            return Box(middle - wide / 2, self.placement.real(passing) + top, wide, LABEL_HEIGHT)
        left, right = self.placement.arc_port(link.target, e, False), self.placement.arc_port(link.source, e, True)
        a, b = (
            self.placement.real(hops[0].left, self.ports.port(hops[0], False)),
            self.placement.real(hops[0].right, self.ports.port(hops[0], True)),
        )
        if a == b:
            middle = Box((left + right - link.space) / 2, a + top, link.space, LABEL_HEIGHT)
            if middle.x >= left + 8 and middle.right <= right - 8 and not upright.meet(middle, link.id):
                return middle
        end = part.boxes[link.target].right + max(
            0.0, self.placement.zones.get((self.bands.band[link.target], self.bands.column[link.target] + 1), 0.0)
        )
        wide = min(link.space, end - left - 10)
        return Box(end - wide, a + top, wide, LABEL_HEIGHT)


class _Upright:
    """The upright pieces of arrows, by their place from left to right."""

    def __init__(self, routes: dict[str, tuple[Point, ...]]) -> None:
        self.found = sorted(
            (p[0], min(p[1], q[1]), max(p[1], q[1]), name)
            for name, points in routes.items()
            for p, q in itertools.pairwise(points)
            if p[0] == q[0]
        )
        self.xs = [x for x, *_ in self.found]

    def meet(self, box: Box, owner: str) -> bool:
        """Whether another arrow's upright piece comes near this box."""
        low, high = bisect.bisect_left(self.xs, box.x - 4), bisect.bisect_right(self.xs, box.right + 4)
        return any(
            name != owner and top < box.bottom + 4 and box.y - 4 < bottom for _, top, bottom, name in self.found[low:high]
        )


def _without_straight(points: Sequence[Point]) -> tuple[Point, ...]:
    """Without points on a straight line."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) >= 2 and (kept[-2][0] == kept[-1][0] == point[0] or kept[-2][1] == kept[-1][1] == point[1]):
            kept[-1] = point
        else:
            kept.append(point)
    return tuple(kept)

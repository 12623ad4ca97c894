"""The points where arrows meet the boxes of a layered drawing, and the heights of the boxes that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dipeo_nb.diagram.bands import ARC, DETOUR, FLAT, Bands, Hop
from dipeo_nb.diagram.part import LABEL_HEIGHT


class BoxPorts:
    """The places of arrows at boxes. `Heights` may still move them along a side.

    Args:
        place: of each item in its column.
    """

    def __init__(self, bands: Bands, place: Sequence[float]) -> None:
        self.bands = bands
        self._spread(place)
        self._set_arc_levels()

    def _spread(self, place: Sequence[float]) -> None:
        """The positions at which arrows leave or enter the right and left sides of boxes: offsets from the middle."""
        leaving: list[list[tuple[float, float, int]]] = [[] for _ in range(self.bands.count)]
        entering: list[list[tuple[float, float, int]]] = [[] for _ in range(self.bands.count)]
        for e, link in enumerate(self.bands.links):
            if self.bands.way[e] == FLAT:
                chain = self.bands.chains[e]
                leaving[link.source].append((1, place[chain[1]], e))
                entering[link.target].append((1, place[chain[-2]], e))
            elif self.bands.way[e] == DETOUR:
                first, last = self.bands.detour(e)
                leaving[link.source].append((0 if first < self.bands.band[link.source] else 2, 0.0, e))
                entering[link.target].append((0 if last < self.bands.band[link.target] else 2, 0.0, e))
        self.out_port: list[float] = [0.0] * len(self.bands.links)
        self.in_port: list[float] = [0.0] * len(self.bands.links)
        self.lone: list[tuple[bool, bool]] = [(False, False)] * len(self.bands.links)
        self.height: list[float] = [h for _, h in self.bands.sizes]
        for n in range(self.bands.count):
            for ends, offsets in ((leaving[n], self.out_port), (entering[n], self.in_port)):
                self.height[n] = max(self.height[n], self._spread_ports(sorted(ends), offsets, self.height[n]))
        for e, link in enumerate(self.bands.links):
            self.lone[e] = (len(leaving[link.source]) == 1, len(entering[link.target]) == 1)

    def _spread_ports(self, ends: Sequence[tuple[float, float, int]], offsets: list[float], high: float) -> float:
        """Give out the places on one side, those that continue in the same band in the middle; the height they need."""
        need = high
        for plain, centred in ((8.0, True), (5.0, True), (5.0, False)):
            half = [10.0 if offsets is self.out_port and self.bands.links[e].space else plain for *_, e in ends]
            kinds = [kind for kind, *_ in ends]
            first = -sum(half)
            if centred and 1 in kinds:
                first = -sum(h for h, kind in zip(half, kinds, strict=True) if kind == 1)
                first -= 2 * sum(h for h, kind in zip(half, kinds, strict=True) if kind == 0)
            for (*_, e), h in zip(ends, half, strict=True):
                offsets[e] = first + h
                first += 2 * h
            need = math.ceil(2 * max((abs(offsets[e]) + 6 for *_, e in ends), default=0.0))
            if need <= high:
                break
        return need

    def _set_arc_levels(self) -> None:
        """The distance of each arc from the middle of its box, and the space each box needs for its arcs."""
        self.arc_level: dict[tuple[int, bool], float] = {}
        self.loop_level: dict[str, float] = {}
        self.extent_above: list[float] = [*(h / 2 for h in self.height), *self.bands.half[self.bands.count :]]
        self.extent_below: list[float] = list(self.extent_above)
        for n in range(self.bands.count):
            depth = self.height[n] / 2 + 8
            for link in self.bands.loops_of(n):
                half = LABEL_HEIGHT / 2 + 2 if link.space else 5.0
                self.loop_level[link.id] = depth + half
                depth += 2 * half
                self.extent_below[n] = depth
            for arcs, extents, sign in (
                (self.bands.below[n], self.extent_below, 1),
                (self.bands.above[n], self.extent_above, -1),
            ):
                for leaves in (True, False):
                    depth = self.height[n] / 2 + 12
                    for e, whose in arcs:
                        if whose != leaves:
                            continue
                        half = LABEL_HEIGHT / 2 + 2 if self.bands.links[e].space else 6.0
                        self.arc_level[e, leaves] = sign * (depth + half)
                        depth += 2 * half
                        extents[n] = max(extents[n], depth)

    def port(self, hop: Hop, right: bool) -> float:
        """The offset of the start or end of a hop from the middle of its left or right item."""
        item = hop.right if right else hop.left
        if item >= self.bands.count:
            return 0.0
        if self.bands.way[hop.edge] == ARC:
            return self.arc_level[hop.edge, right]
        return self.in_port[hop.edge] if right else self.out_port[hop.edge]

"""Vertical positions of the items of a layered drawing in their band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from dipeo_nb.diagram.bands import ARC, FLAT, Bands
from dipeo_nb.diagram.box_ports import BoxPorts
from dipeo_nb.diagram.columns import ROW_GAP, median, rising
from dipeo_nb.diagram.part import LABEL_HEIGHT


class Heights:
    """The middle of each item, `y`, counted from the top of its band, and the height of each band in `bottoms`."""

    def __init__(self, bands: Bands, ports: BoxPorts) -> None:
        self.bands: Bands = bands
        self.ports: BoxPorts = ports
        self._set_heights()

    def _set_heights(self) -> None:
        """The middle of each item: as straight as arrows can be, in the order of the columns, boxes apart."""
        self.y: list[float] = [0.0] * len(self.bands.band)
        wishes: tuple[list[list[tuple[int, float, float]]], list[list[tuple[int, float, float]]]] = (
            [[] for _ in self.bands.band],
            [[] for _ in self.bands.band],
        )
        for hops in self.bands.hops:
            for hop in hops:
                shift = self.ports.port(hop, False) - self.ports.port(hop, True)
                inner = (hop.left >= self.bands.count) + (hop.right >= self.bands.count)
                weight = (1.0, 2.0, 6.0)[inner] if self.bands.way[hop.edge] == FLAT else (0.4, 0.6, 4.0)[inner]
                wishes[0][hop.right].append((hop.left, shift, weight))
                wishes[1][hop.left].append((hop.right, -shift, weight))
        for columns in self.bands.rows:
            self._align(columns, wishes)
        self._straighten()
        self._level_arcs()
        self.bottoms: list[float] = []
        for columns in self.bands.rows:
            items = [n for column in columns for n in column]
            top = min(self.y[n] - self.ports.extent_above[n] for n in items)
            for n in items:
                self.y[n] -= top
            self.bottoms.append(max(self.y[n] + self.ports.extent_below[n] for n in items))

    def _align(
        self,
        columns: Sequence[Sequence[int]],
        wishes: tuple[Sequence[Sequence[tuple[int, float, float]]], Sequence[Sequence[tuple[int, float, float]]]],
    ) -> None:
        y = self.y
        steps: list[list[float]] = []
        for column in columns:
            step = [0.0]
            for a, b in itertools.pairwise(column):
                step.append(step[-1] + self.ports.extent_below[a] + self._apart(a, b) + self.ports.extent_above[b])
            steps.append(step)
            for n, s in zip(column, step, strict=True):
                y[n] = s - step[-1] / 2
        for sweep in range(8):
            rightwards = sweep % 2 == 0
            near, far = wishes if rightwards else wishes[::-1]
            for c in range(len(columns)) if rightwards else range(len(columns) - 1, -1, -1):
                wanted: list[tuple[float, float]] = []
                for n, s in zip(columns[c], steps[c], strict=True):
                    ends = near[n] or far[n]
                    if sweep >= 6:
                        ends = [*near[n], *far[n]]
                    places = [(y[m] + shift, weight) for m, shift, weight in ends]
                    wanted.append((median(places) - s, sum(w for _, w in places)) if places else (y[n] - s, 0.1))
                for n, s, value in zip(columns[c], steps[c], rising(wanted), strict=True):
                    y[n] = value + s

    def _apart(self, a: int, b: int) -> float:
        if a < self.bands.count and b < self.bands.count:
            plain = (
                self.ports.extent_below[a] == self.ports.height[a] / 2
                and self.ports.extent_above[b] == self.ports.height[b] / 2
            )
            return ROW_GAP if plain else 14.0
        return 12.0 if a < self.bands.count or b < self.bands.count else 6.0

    def _straighten(self) -> None:
        """Move the port of an arrow that has its side of a box to itself where that makes it straight."""
        for e, hops in enumerate(self.bands.hops):
            if self.bands.way[e] != FLAT:
                continue
            link, (alone_out, alone_in) = self.bands.links[e], self.ports.lone[e]
            first, last = hops[0], hops[-1]
            wanted = self.y[first.right] + self.ports.port(first, True) - self.y[link.source]
            if alone_out and abs(wanted) <= self.ports.height[link.source] / 2 - 14:
                self.ports.out_port[e] = wanted
                continue
            wanted = self.y[last.left] + self.ports.port(last, False) - self.y[link.target]
            if alone_in and abs(wanted) <= self.ports.height[link.target] / 2 - 14:
                self.ports.in_port[e] = wanted

    def _level_arcs(self) -> None:
        """Lower the shallow end of an arc under boxes to the deep one, where there is room: it is then one level line."""
        following = {
            a: b for columns in self.bands.rows for column in columns for a, b in itertools.pairwise(column)
        }  # fmt: skip
        for e, hops in enumerate(self.bands.hops):
            if self.bands.way[e] != ARC or not self.bands.under[e]:
                continue
            ends = {hops[0].left: False, hops[-1].right: True}
            passing = [hop.right for hop in hops[:-1]]
            level = max(
                *(self.y[n] + self.ports.arc_level[e, leaves] for n, leaves in ends.items()),
                *(self.y[n] for n in passing),
                -math.inf,
            )
            half = LABEL_HEIGHT / 2 + 2 if self.bands.links[e].space else 6.0
            deepest = level + half + 12
            items = [*ends, *passing]
            alone = all(len(self.bands.below[n]) == 1 or self.y[n] + self.ports.arc_level[e, ends[n]] == level for n in ends)
            free = all(
                self.y[n] == level
                or n not in following
                or deepest <= self.y[following[n]] - self.ports.extent_above[following[n]]
                for n in items
            )
            if not (alone and free):
                continue
            for n, leaves in ends.items():
                self.ports.arc_level[e, leaves] = level - self.y[n]
                self.ports.extent_below[n] = max(self.ports.extent_below[n], level - self.y[n] + half)
            for n in passing:
                self.y[n] = level

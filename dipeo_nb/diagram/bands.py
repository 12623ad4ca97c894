"""Division of a layered drawing into bands: the course of each arrow, and the items of each column.

The first step of `dipeo_nb.diagram.layered`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from dipeo_nb.diagram.columns import PITCH
from dipeo_nb.diagram.part import LABEL_HEIGHT, Link

FLAT, ARC, DETOUR, DIRECT = range(4)
"""Course of an arrow: through the columns of its band; back under or over its band's boxes; along the spaces between
bands; straight up from a box to one above it in the next band."""

_TIGHT_PITCH = 9.0
"""Pixels from lane to lane where the page is too narrow."""
_ARCS_BELOW, _ARCS_ABOVE = 4, 2
"""Arcs at one box; above it they share the side with the badges of a run."""
_LONGEST = 12
"""Columns that an arrow may cross between boxes; longer ones run above or below the band."""
_DUMMIES = 20_000
"""Places kept free for arrows between boxes, in all."""


class Hop(NamedTuple):
    """An arrow's way from an item of one column to one of the next."""

    left: int
    right: int
    edge: int


class Bands:
    """A part whose columns have been given to bands. Items are its boxes, and after them the places kept free for passing arrows.

    Args:
        sizes: width and height of each box.
        links: arrows between different boxes.
        loops: arrows of a box to itself, by box.
        layers: the column of each box before the columns are broken into bands.
        starts: the first column of each band.
        width: pixels of the page.
        tight: whether lanes and labels take as little room as can be.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[float, float]],
        links: Sequence[Link],
        loops: dict[int, list[Link]],
        layers: Sequence[int],
        starts: Sequence[int],
        width: float,
        *,
        tight: bool,
    ) -> None:
        self.sizes: Sequence[tuple[float, float]] = sizes
        self.links: Sequence[Link] = links
        self.loops: dict[int, list[Link]] = loops
        self.width: float = width
        self.tight: bool = tight
        self.pitch: float = _TIGHT_PITCH if tight else PITCH
        self.count: int = len(sizes)
        band_of = [bisect.bisect_right(starts, column) - 1 for column in range(max(layers) + 1)]
        self.band: list[int] = [band_of[layer] for layer in layers]
        self.column: list[int] = [layer - starts[band_of[layer]] for layer in layers]
        ends = [*starts[1:], max(layers) + 1]
        self.lengths: list[int] = [end - start for start, end in zip(starts, ends, strict=True)]
        self.way: list[int] = [FLAT] * len(links)
        self.below: list[list[tuple[int, bool]]] = [[] for _ in sizes]
        self.above: list[list[tuple[int, bool]]] = [[] for _ in sizes]
        """Arcs under and over each box, the nearest first: (arrow, whether it leaves here)."""
        self.under: list[bool] = [True] * len(links)
        self.half: list[float] = [0.0] * self.count
        """Half of the height that each passing arrow needs; boxes have it in `BoxPorts`."""
        self.chains: list[list[int]] = [[] for _ in links]
        self.hops: list[list[Hop]] = []
        self._choose_ways()
        self._make_columns()

    def _choose_ways(self) -> None:
        budget = _DUMMIES
        arcs: list[int] = []
        for e, link in enumerate(self.links):
            s, t = link.source, link.target
            span = self.column[t] - self.column[s]
            if self.band[s] != self.band[t] or abs(span) > _LONGEST or abs(span) - 1 > budget:
                self.way[e] = DETOUR
                continue
            budget -= abs(span) - 1
            if span < 0:
                arcs.append(e)
        arcs.sort(key=lambda e: (self.column[self.links[e].source] - self.column[self.links[e].target], e))
        taken: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        for e in arcs:
            s, t = self.links[e].source, self.links[e].target
            ends = (self.column[t], self.column[s])
            free = [under for under in (True, False) if all(self._room_for_arc(n, under) for n in (s, t))]
            if not free:
                self.way[e] = DETOUR
                continue
            clear = [u for u in free if not any(_interleaved(ends, o) for o in taken.get((self.band[s], u), ())[:50])]
            under = (clear or free)[0]
            taken.setdefault((self.band[s], under), []).append(ends)
            self.way[e], self.under[e] = ARC, under
            for n, leaves in ((s, True), (t, False)):
                (self.below if under else self.above)[n].append((e, leaves))

    def _room_for_arc(self, n: int, under: bool) -> bool:
        if under:
            return n not in self.loops and len(self.below[n]) < _ARCS_BELOW
        return len(self.above[n]) < _ARCS_ABOVE

    def _make_columns(self) -> None:
        band, column, half = self.band, self.column, self.half
        self.hops = [[] for _ in self.links]
        for e, link in enumerate(self.links):
            if self.way[e] not in (FLAT, ARC):
                continue
            s, t = link.source, link.target
            left, right = (t, s) if self.way[e] == ARC else (s, t)
            chain = [left]
            for c in range(column[left] + 1, column[right]):
                chain.append(len(band))
                band.append(band[left])
                column.append(c)
                half.append(4.0)
            chain.append(right)
            if self.way[e] == ARC and len(chain) > 2 and link.space:
                half[chain[-2]] = LABEL_HEIGHT / 2 + 2
            self.chains[e] = chain
            self.hops[e] = [Hop(a, b, e) for a, b in itertools.pairwise(chain)]
        self.rows: list[list[list[int]]] = [[[] for _ in range(length)] for length in self.lengths]
        self.between: list[list[list[Hop]]] = [[[] for _ in range(length)] for length in self.lengths]
        """Hops behind each column of each band."""
        for hops in self.hops:
            for hop in hops:
                self.between[band[hop.left]][column[hop.left]].append(hop)

    def detour(self, e: int) -> tuple[int, int]:
        """The first and the last space between bands that an arrow runs along; space b is the one below band b."""
        a, b = self.band[self.links[e].source], self.band[self.links[e].target]
        return (a, b - 1) if a < b else (a - 1, b) if a > b else (a, a)

    def loops_of(self, n: int) -> list[Link]:
        return sorted(self.loops.get(n, ()), key=lambda k: (k.space, k.id))

    def find_direct(self) -> None:
        """Arrows back to the band above that can run straight up, from the highest box of a column to a lowest one."""
        lowest: set[int] = set()
        highest: set[int] = set()
        for columns in self.rows:
            for column in columns:
                boxes = [i for i, n in enumerate(column) if n < self.count]
                labelled = [i for i, n in enumerate(column) if n >= self.count and self.half[n] > 4]
                if boxes and not any(i > boxes[-1] for i in labelled):
                    lowest.add(column[boxes[-1]])
                if boxes and not any(i < boxes[0] for i in labelled):
                    highest.add(column[boxes[0]])
        for e, link in enumerate(self.links):
            s, t = link.source, link.target
            if self.way[e] != DETOUR or self.band[t] != self.band[s] - 1:
                continue
            first = self.rows[self.band[s]][self.column[s]][0]
            if link.space and first != s:
                continue  # its label is over the box, where something passes
            if s in highest and t in lowest and not self.above[s] and t not in self.loops:
                self.way[e] = DIRECT
                highest.discard(s)
                lowest.discard(t)


def _interleaved(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[0] < a[1] < b[1] or b[0] < a[0] < b[1] < a[1]

"""Layered layout of one connected part of a diagram, for a width: see `dipeo_nb.diagram.layout`.

Nodes stand in columns, from left to right as arrows lead. Where the columns are wider than the page they are broken into
bands, one under the other, as words are into lines. Every arrow leaves its node on the right and enters on the left; one
that leads back within a band makes an arc under (or over) the boxes. All pieces of arrows run in lanes that nothing else
uses (see `dipeo_nb.diagram.lanes`), and every label has a place that was kept free for it, so that nothing lies on
anything else: not by search but by construction.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from dipeo_nb.diagram import lanes
from dipeo_nb.diagram.columns import GAP, PITCH, STUB, bands_of, inversions, layers_of, median, rising
from dipeo_nb.diagram.lanes import Run
from dipeo_nb.diagram.part import LABEL_HEIGHT, Link, Part
from dipeo_nb.diagram.routing import Box, Point

SELF_LOOPS = 3
"""Arrows of a node to itself that are drawn one by one."""

_ROW_GAP = 28.0
"""Pixels at least between boxes of a column."""
_TIGHT_PITCH, _TIGHT_LABEL = 9.0, 60.0
"""Where the page is too narrow: pixels from lane to lane, and of a label."""
_CLEAR = 16.0
"""Pixels between a band and the lanes above and below it."""
_ARCS_BELOW, _ARCS_ABOVE = 4, 2
"""Arcs at one box; above it they share the side with the badges of a run."""
_BADGES = 72.0
"""Pixels of a box's top, from the right, that belong to the badges."""
_LONGEST = 12
"""Columns that an arrow may cross between boxes; longer ones run above or below the band."""
_DUMMIES = 20_000
"""Places kept free for arrows between boxes, in all."""
_CAREFUL_NODES = 60
"""With more boxes, what comes out a little too wide is left as it is."""
_CAREFUL_ITEMS = 400
"""Up to so many boxes and passing arrows, the order in columns is improved pair by pair."""


def layered(members: Sequence[int], sizes: Sequence[tuple[float, float]], links: Sequence[Link], width: float) -> Part:
    """One connected part, at most *width* pixels wide where that can be."""
    local = {n: i for i, n in enumerate(members)}
    inner = [sizes[n] for n in members]
    links = [k._replace(source=local[k.source], target=local[k.target]) for k in links]
    drawn = [k for k in links if k.source != k.target]
    loops: dict[int, list[Link]] = {}
    for k in links:
        if k.source == k.target:
            loops.setdefault(k.source, []).append(k)
    layers = layers_of(len(inner), [(k.target, k.source) if k.back else (k.source, k.target) for k in drawn])
    best: Part | None = None
    narrowest = math.inf
    for tight, shares in ((False, (1.0, 0.92, 0.84, 0.7)), (True, (1.0, 0.8, 0.6, 0.4, 0.01, 1.3))):
        tried: set[tuple[int, ...]] = set()
        for share in shares:
            starts = bands_of(inner, drawn, layers, share * width)
            if tuple(starts) in tried:
                continue
            tried.add(tuple(starts))
            part = _Bands(inner, drawn, loops, layers, starts, width, tight=tight).part()
            wide = part.extent().w
            if wide < narrowest:
                best, narrowest = part, wide
            if wide <= width or len(inner) > _CAREFUL_NODES:
                break
        if len(inner) > _CAREFUL_NODES or narrowest <= width:
            break
    assert best is not None
    return Part({members[i]: box for i, box in best.boxes.items()}, best.routes, best.labels)


_FLAT, _ARC, _DETOUR, _DIRECT = range(4)
"""How an arrow runs: through the columns of its band; back under or over its band's boxes; along the spaces between
bands; straight up from a box to one above it in the next band."""

_FAR = 1e6
"""More than any band is high."""


class _Hop(NamedTuple):
    """An arrow's way from an item of one column to one of the next."""

    left: int
    right: int
    edge: int


class _Bands:
    """A part whose columns have been given to bands."""

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
        self.sizes, self.links, self.loops, self.width, self.tight = sizes, links, loops, width, tight
        self.pitch = _TIGHT_PITCH if tight else PITCH
        self.count = len(sizes)
        band_of = [bisect.bisect_right(starts, column) - 1 for column in range(max(layers) + 1)]
        self.band = [band_of[layer] for layer in layers]
        self.column = [layer - starts[band_of[layer]] for layer in layers]
        ends = [*starts[1:], max(layers) + 1]
        self.lengths = [end - start for start, end in zip(starts, ends, strict=True)]
        self.way = [_FLAT] * len(links)
        self.below: list[list[tuple[int, bool]]] = [[] for _ in sizes]
        self.above: list[list[tuple[int, bool]]] = [[] for _ in sizes]
        """Arcs under and over each box, the nearest first: (arrow, whether it leaves here)."""
        self.under = [True] * len(links)
        self.half = [0.0] * self.count
        """Half of the height that each passing arrow needs; filled for boxes by `_set_heights`."""
        self.extent_above: list[float] = []
        self.extent_below: list[float] = []
        self.chains: list[list[int]] = [[] for _ in links]
        self.hops: list[list[_Hop]] = []
        self._choose_ways()
        self._make_columns()

    # ------------------------------------------------------------------------------------------ ways of arrows

    def _choose_ways(self) -> None:
        budget = _DUMMIES
        arcs: list[int] = []
        for e, link in enumerate(self.links):
            s, t = link.source, link.target
            span = self.column[t] - self.column[s]
            if self.band[s] != self.band[t] or abs(span) > _LONGEST or abs(span) - 1 > budget:
                self.way[e] = _DETOUR
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
                self.way[e] = _DETOUR
                continue
            clear = [u for u in free if not any(_interleaved(ends, o) for o in taken.get((self.band[s], u), ())[:50])]
            under = (clear or free)[0]
            taken.setdefault((self.band[s], under), []).append(ends)
            self.way[e], self.under[e] = _ARC, under
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
            if self.way[e] not in (_FLAT, _ARC):
                continue
            s, t = link.source, link.target
            left, right = (t, s) if self.way[e] == _ARC else (s, t)
            chain = [left]
            for c in range(column[left] + 1, column[right]):
                chain.append(len(band))
                band.append(band[left])
                column.append(c)
                half.append(4.0)
            chain.append(right)
            if self.way[e] == _ARC and len(chain) > 2 and link.space:
                half[chain[-2]] = LABEL_HEIGHT / 2 + 2
            self.chains[e] = chain
            self.hops[e] = [_Hop(a, b, e) for a, b in itertools.pairwise(chain)]
        self.rows: list[list[list[int]]] = [[[] for _ in range(length)] for length in self.lengths]
        self.between: list[list[list[_Hop]]] = [[[] for _ in range(length)] for length in self.lengths]
        """Hops behind each column of each band."""
        for hops in self.hops:
            for hop in hops:
                self.between[band[hop.left]][column[hop.left]].append(hop)

    # ------------------------------------------------------------------------------------------ order in columns

    def _slot(self, item: int, edge: int) -> float:
        """Where in its place an item has the end of an arrow: arcs under a box come after what its side has."""
        if item >= self.count or self.way[edge] != _ARC:
            return 0.0
        return 0.4 if self.under[edge] else -0.4

    def _put_in_order(self) -> list[float]:
        """The items of each column in order; the place of each item in its column."""
        items = len(self.band)
        after: list[list[_Hop]] = [[] for _ in range(items)]
        before: list[list[_Hop]] = [[] for _ in range(items)]
        for hops in self.hops:
            for hop in hops:
                after[hop.left].append(hop)
                before[hop.right].append(hop)
        for n in range(self.count):
            after[n].sort(key=lambda hop: self._slot(hop.left, hop.edge))
        rank = self._reading_order()
        met = bytearray(items)
        for root in sorted(range(self.count), key=lambda n: (self.column[n], rank[n])):
            stack = [root]
            while stack:
                n = stack.pop()
                if met[n]:
                    continue
                met[n] = 1
                self.rows[self.band[n]][self.column[n]].append(n)
                stack += [hop.right for hop in reversed(after[n]) if not met[hop.right]]
        place = [0.0] * items
        for columns, between in zip(self.rows, self.between, strict=True):
            self._untangle(columns, between, before, after, place)
        return place

    def _reading_order(self) -> list[int]:
        """The number of each node when arrows are followed in the order of the file."""
        after: list[list[int]] = [[] for _ in range(self.count)]
        entered = bytearray(self.count)
        for link in self.links:
            if not link.back:
                after[link.source].append(link.target)
                entered[link.target] = 1
        rank = [-1] * self.count
        number = 0
        for root in range(self.count):
            stack = [] if entered[root] else [root]
            while stack:
                n = stack.pop()
                if rank[n] < 0:
                    rank[n] = number
                    number += 1
                    stack += [t for t in reversed(after[n]) if rank[t] < 0]
        return rank

    def _untangle(
        self,
        columns: list[list[int]],
        between: Sequence[Sequence[_Hop]],
        before: Sequence[Sequence[_Hop]],
        after: Sequence[Sequence[_Hop]],
        place: list[float],
    ) -> None:
        """Change the order in columns where that makes arrows cross less; what makes no difference stays as it is."""

        def settle(column: Sequence[int]) -> None:
            for i, n in enumerate(column):
                place[n] = float(i)

        def crossings() -> int:
            return sum(
                inversions(
                    [(place[h.left] + slot(h.left, h.edge), place[h.right] + slot(h.right, h.edge)) for h in hops]
                )
                for hops in between
            )

        slot = self._slot
        for column in columns:
            settle(column)
        best = crossings()
        kept = [list(column) for column in columns]
        for sweep in range(8):
            if not best:
                break
            rightwards = sweep % 2 == 0
            for c in range(1, len(columns)) if rightwards else range(len(columns) - 2, -1, -1):
                wanted: dict[int, float] = {}
                for n in columns[c]:
                    near = (
                        [(h.left, h.edge) for h in before[n]] if rightwards else [(h.right, h.edge) for h in after[n]]
                    )
                    wanted[n] = sum(place[m] + slot(m, e) for m, e in near) / len(near) if near else place[n]
                columns[c].sort(key=wanted.__getitem__)
                settle(columns[c])
            now = crossings()
            if now < best:
                best, kept = now, [list(column) for column in columns]
        columns[:] = kept
        for column in columns:
            settle(column)
        if best and sum(map(len, columns)) <= _CAREFUL_ITEMS:
            self._swap_neighbours(columns, before, after, place)

    def _swap_neighbours(
        self,
        columns: Sequence[list[int]],
        before: Sequence[Sequence[_Hop]],
        after: Sequence[Sequence[_Hop]],
        place: list[float],
    ) -> None:
        def crossed(a: int, b: int) -> int:
            """Crossings of the arrows of a and b when a stands above b, less those when below."""
            count = 0
            for ends in (
                [[place[h.left] + self._slot(h.left, h.edge) for h in before[n]] for n in (a, b)],
                [[place[h.right] + self._slot(h.right, h.edge) for h in after[n]] for n in (a, b)],
            ):
                count += sum((p > q) - (p < q) for p in ends[0] for q in ends[1])
            return count

        for _ in range(4):
            changed = False
            for column in columns:
                for i in range(len(column) - 1):
                    a, b = column[i], column[i + 1]
                    if crossed(a, b) > 0:
                        column[i], column[i + 1] = b, a
                        place[a], place[b] = float(i + 1), float(i)
                        changed = True
            if not changed:
                break

    # ------------------------------------------------------------------------------------------ ports and heights

    def _detour(self, e: int) -> tuple[int, int]:
        """The first and the last space between bands that an arrow runs along; space b is the one below band b."""
        a, b = self.band[self.links[e].source], self.band[self.links[e].target]
        return (a, b - 1) if a < b else (a - 1, b) if a > b else (a, a)

    def _find_direct(self) -> None:
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
            if self.way[e] != _DETOUR or self.band[t] != self.band[s] - 1:
                continue
            first = self.rows[self.band[s]][self.column[s]][0]
            if link.space and first != s:
                continue  # its label stands over the box, where something passes
            if s in highest and t in lowest and not self.above[s] and t not in self.loops:
                self.way[e] = _DIRECT
                highest.discard(s)
                lowest.discard(t)

    def _set_ports(self, place: Sequence[float]) -> None:
        """Where on its right or left side each arrow leaves or enters a box: offsets from the middle."""
        leaving: list[list[tuple[float, float, int]]] = [[] for _ in range(self.count)]
        entering: list[list[tuple[float, float, int]]] = [[] for _ in range(self.count)]
        for e, link in enumerate(self.links):
            if self.way[e] == _FLAT:
                chain = self.chains[e]
                leaving[link.source].append((1, place[chain[1]], e))
                entering[link.target].append((1, place[chain[-2]], e))
            elif self.way[e] == _DETOUR:
                first, last = self._detour(e)
                leaving[link.source].append((0 if first < self.band[link.source] else 2, 0.0, e))
                entering[link.target].append((0 if last < self.band[link.target] else 2, 0.0, e))
        self.out_port = [0.0] * len(self.links)
        self.in_port = [0.0] * len(self.links)
        self.lone: list[tuple[bool, bool]] = [(False, False)] * len(self.links)
        self.height = [h for _, h in self.sizes]
        for n in range(self.count):
            for ends, offsets in ((leaving[n], self.out_port), (entering[n], self.in_port)):
                self.height[n] = max(self.height[n], self._spread_ports(sorted(ends), offsets, self.height[n]))
        for e, link in enumerate(self.links):
            self.lone[e] = (len(leaving[link.source]) == 1, len(entering[link.target]) == 1)
        self._set_arc_levels()

    def _spread_ports(self, ends: Sequence[tuple[float, float, int]], offsets: list[float], high: float) -> float:
        """Give out the places on one side, those that go on in the same band in the middle; the height they need."""
        need = high
        for plain, centred in ((8.0, True), (5.0, True), (5.0, False)):
            half = [10.0 if offsets is self.out_port and self.links[e].space else plain for *_, e in ends]
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
        """How far under or over the middle of its box each arc runs, and what each box needs for its arcs."""
        self.arc_level: dict[tuple[int, bool], float] = {}
        self.loop_level: dict[str, float] = {}
        self.extent_above = [*(h / 2 for h in self.height), *self.half[self.count :]]
        self.extent_below = list(self.extent_above)
        for n in range(self.count):
            depth = self.height[n] / 2 + 8
            for link in self._loops_of(n):
                half = LABEL_HEIGHT / 2 + 2 if link.space else 5.0
                self.loop_level[link.id] = depth + half
                depth += 2 * half
                self.extent_below[n] = depth
            for arcs, extents, sign in ((self.below[n], self.extent_below, 1), (self.above[n], self.extent_above, -1)):
                for leaves in (True, False):
                    depth = self.height[n] / 2 + 12
                    for e, whose in arcs:
                        if whose != leaves:
                            continue
                        half = LABEL_HEIGHT / 2 + 2 if self.links[e].space else 6.0
                        self.arc_level[e, leaves] = sign * (depth + half)
                        depth += 2 * half
                        extents[n] = max(extents[n], depth)

    def _loops_of(self, n: int) -> list[Link]:
        return sorted(self.loops.get(n, ()), key=lambda k: (k.space, k.id))

    def _port(self, hop: _Hop, right: bool) -> float:
        """Where a hop begins or ends, from the middle of its left or right item."""
        item = hop.right if right else hop.left
        if item >= self.count:
            return 0.0
        if self.way[hop.edge] == _ARC:
            return self.arc_level[hop.edge, right]
        return self.in_port[hop.edge] if right else self.out_port[hop.edge]

    def _set_heights(self) -> None:
        """The middle of each item: as straight as arrows can be, in the order of the columns, boxes apart."""
        self.y = [0.0] * len(self.band)
        wishes: tuple[list[list[tuple[int, float, float]]], list[list[tuple[int, float, float]]]] = (
            [[] for _ in self.band],
            [[] for _ in self.band],
        )
        for hops in self.hops:
            for hop in hops:
                shift = self._port(hop, False) - self._port(hop, True)
                inner = (hop.left >= self.count) + (hop.right >= self.count)
                weight = (1.0, 2.0, 6.0)[inner] if self.way[hop.edge] == _FLAT else (0.4, 0.6, 4.0)[inner]
                wishes[0][hop.right].append((hop.left, shift, weight))
                wishes[1][hop.left].append((hop.right, -shift, weight))
        for columns in self.rows:
            self._align(columns, wishes)
        self._straighten()
        self._level_arcs()
        self.bottoms: list[float] = []
        for columns in self.rows:
            items = [n for column in columns for n in column]
            top = min(self.y[n] - self.extent_above[n] for n in items)
            for n in items:
                self.y[n] -= top
            self.bottoms.append(max(self.y[n] + self.extent_below[n] for n in items))

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
                step.append(step[-1] + self.extent_below[a] + self._apart(a, b) + self.extent_above[b])
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
        if a < self.count and b < self.count:
            plain = self.extent_below[a] == self.height[a] / 2 and self.extent_above[b] == self.height[b] / 2
            return _ROW_GAP if plain else 14.0
        return 12.0 if a < self.count or b < self.count else 6.0

    def _straighten(self) -> None:
        """Move the port of an arrow that has its side of a box to itself where that makes it straight."""
        for e, hops in enumerate(self.hops):
            if self.way[e] != _FLAT:
                continue
            link, (alone_out, alone_in) = self.links[e], self.lone[e]
            first, last = hops[0], hops[-1]
            wanted = self.y[first.right] + self._port(first, True) - self.y[link.source]
            if alone_out and abs(wanted) <= self.height[link.source] / 2 - 14:
                self.out_port[e] = wanted
                continue
            wanted = self.y[last.left] + self._port(last, False) - self.y[link.target]
            if alone_in and abs(wanted) <= self.height[link.target] / 2 - 14:
                self.in_port[e] = wanted

    def _level_arcs(self) -> None:
        """Lower the shallow end of an arc under boxes to the deep one, where there is room: it is then one level line."""
        following = {
            a: b for columns in self.rows for column in columns for a, b in itertools.pairwise(column)
        }  # fmt: skip
        for e, hops in enumerate(self.hops):
            if self.way[e] != _ARC or not self.under[e]:
                continue
            ends = {hops[0].left: False, hops[-1].right: True}
            passing = [hop.right for hop in hops[:-1]]
            level = max(
                *(self.y[n] + self.arc_level[e, leaves] for n, leaves in ends.items()),
                *(self.y[n] for n in passing),
                -math.inf,
            )
            half = LABEL_HEIGHT / 2 + 2 if self.links[e].space else 6.0
            deepest = level + half + 12
            items = [*ends, *passing]
            alone = all(len(self.below[n]) == 1 or self.y[n] + self.arc_level[e, ends[n]] == level for n in ends)
            free = all(
                self.y[n] == level
                or n not in following
                or deepest <= self.y[following[n]] - self.extent_above[following[n]]
                for n in items
            )
            if not (alone and free):
                continue
            for n, leaves in ends.items():
                self.arc_level[e, leaves] = level - self.y[n]
                self.extent_below[n] = max(self.extent_below[n], level - self.y[n] + half)
            for n in passing:
                self.y[n] = level

    # ------------------------------------------------------------------------------------------ lanes

    def part(self) -> Part:
        """Everything in its place."""
        place = self._put_in_order()
        self._find_direct()
        self._set_ports(place)
        self._set_heights()
        self._run_down()
        self._set_columns()
        self._run_across()
        return self._drawn()

    def _run_down(self) -> None:
        """Lanes between columns. Heights are counted through all bands, far apart, as their distance is not known yet."""
        self.gap_lanes: dict[tuple[int, int], int] = {}
        self.pieces: dict[tuple[int, int, int], list[lanes.Piece]] = {}
        """(band, gap, arrow) → where the arrow runs in that gap. The leftmost gap, number 0, is one for all bands."""
        self.raised: set[tuple[int, int, int]] = set()
        """Those that leave their band upwards."""
        self.half_steps: set[tuple[int, int]] = set()
        """Gaps that have such."""
        self.zones: dict[tuple[int, int], float] = {}
        """Gap → pixels kept for labels at its left."""
        runs: dict[tuple[int, int], list[tuple[int, Run]]] = {}
        for e, link in enumerate(self.links):
            if self.way[e] == _FLAT and link.space:
                self._keep_zone(link.source, link.space + 4)
            elif self.way[e] == _ARC and link.space and len(self.hops[e]) == 1:
                left = self.hops[e][0].left
                self._keep_zone(left, link.space - self.sizes[left][0] / 2 + 30)
            for hop in self.hops[e]:
                band, gap = self.band[hop.left], self.column[hop.left] + 1
                a = self._at(hop.left, self._port(hop, False))
                b = self._at(hop.right, self._port(hop, True))
                if a != b:
                    runs.setdefault((band, gap), []).append((e, Run(a, -1, b, 1)))
            if self.way[e] == _DETOUR:
                if link.space:
                    self._keep_zone(link.source, link.space + 4)
                self._run_detour(e, runs)
        for key, found in runs.items():
            pieces, count = lanes.assign([run for _, run in found], tight=self.tight)
            self.gap_lanes[key] = count
            for (e, _), where in zip(found, pieces, strict=True):
                self.pieces[*key, e] = where

    def _keep_zone(self, n: int, wide: float) -> None:
        """Room for a label behind the column of a box."""
        key = self.band[n], self.column[n] + 1
        wide = min(wide, _TIGHT_LABEL + 4) if self.tight else wide
        self.zones[key] = max(self.zones.get(key, 0.0), wide)

    def _at(self, item: int, offset: float) -> float:
        return self.band[item] * _FAR + self.y[item] + offset

    def _space(self, number: int) -> float:
        """The height of the space below a band, before heights are known."""
        return (number + 1) * _FAR - _FAR / 4

    def _run_detour(self, e: int, runs: dict[tuple[int, int], list[tuple[int, Run]]]) -> None:
        s, t = self.links[e].source, self.links[e].target
        first, last = self._detour(e)
        leave, enter = (self.band[s], self.column[s] + 1), (self.band[t], self.column[t])
        start, end = self._at(s, self.out_port[e]), self._at(t, self.in_port[e])
        runs.setdefault(leave, []).append((e, Run(start, -1, self._space(first), 0)))
        if first < self.band[s]:
            self.raised.add((*leave, e))
            self.half_steps.add(leave)
        if enter[1] == 0:
            runs.setdefault((0, 0), []).append((e, Run(self._space(first), 0, end, 1)))
            return
        if first != last:
            runs.setdefault((0, 0), []).append((e, Run(self._space(first), 0, self._space(last), 0)))
        runs.setdefault(enter, []).append((e, Run(self._space(last), 0, end, 1)))
        if last < self.band[t]:
            self.raised.add((*enter, e))
            self.half_steps.add(enter)

    def _set_columns(self) -> None:
        """Left sides and widths of columns, the same in all bands where the page is wide enough."""
        widths = [[0.0] * length for length in self.lengths]
        for n in range(self.count):
            band, c = self.band[n], self.column[n]
            widths[band][c] = max(widths[band][c], self.sizes[n][0])
        margin = self.gap_lanes.get((0, 0), 0)
        self.margin_pitch = min(8.0, self.pitch)
        left = 0.0 if not margin else math.ceil((self.margin_pitch * (margin - 1) + STUB) / self.pitch) * self.pitch
        self.lane_base: dict[tuple[int, int], float] = {(0, 0): left - STUB - self.margin_pitch * (margin - 1)}
        self.lefts: list[list[float]] = [[] for _ in self.lengths]
        self.wides: list[list[float]] = [[] for _ in self.lengths]
        together = list(range(len(self.lengths)))
        self.aligned = self._stand(together, left, widths) <= self.width
        """Whether the columns of all bands stand under each other."""
        if not self.aligned:
            for band in together:
                self._stand([band], left, widths)

    def _stand(self, bands: Sequence[int], left: float, widths: Sequence[Sequence[float]]) -> float:
        """Place the columns of some bands under each other; the right end of all, arrows included."""
        for band in bands:
            self.lefts[band], self.wides[band] = [], []
        farthest = left
        for c in range(max(self.lengths[b] for b in bands)):
            here = [b for b in bands if c < self.lengths[b]]
            right = left + max(widths[b][c] for b in here)
            following = right + GAP
            needs: list[tuple[tuple[int, int], float, float]] = []
            for b in here:
                self.lefts[b].append(left)
                self.wides[b].append(right - left)
                key = b, c + 1
                zone, count = self.zones.get(key, 0.0), self.gap_lanes.get(key, 0)
                base = math.ceil((right + (zone + 12 if zone > 0 else 14)) / self.pitch) * self.pitch
                end = right + max(0.0, zone + 20)
                if count:
                    half_step = self.pitch / 2 if key in self.half_steps else 0.0
                    end = max(end, base + self.pitch * (count - 1) + half_step + STUB)
                    farthest = max(farthest, end - STUB)
                needs.append((key, base, end))
                if c + 1 < self.lengths[b]:
                    following = max(following, end)
                farthest = max(farthest, right + max(0.0, zone))
            for key, base, end in needs:
                # Lanes in the middle of what is free.
                spare = (following - end) // (2 * self.pitch) if key[1] < self.lengths[key[0]] else 0.0
                self.lane_base[key] = base + self.pitch * max(0.0, spare)
            left = following
        return farthest

    def _lane_x(self, key: tuple[int, int, int], lane: int) -> float:
        pitch = self.pitch if key[1] else self.margin_pitch
        return self.lane_base[key[0], key[1]] + pitch * lane + (self.pitch / 2 if key in self.raised else 0.0)

    def _arc_port(self, n: int, e: int, leaves: bool) -> float:
        """Where on a box's lower or upper side an arc, or a direct arrow (in the middle), leaves or enters."""
        box_left, wide = self.lefts[self.band[n]][self.column[n]], self.wides[self.band[n]][self.column[n]]
        if self.way[e] == _DIRECT:
            if leaves or e in self.upright:
                low, high = 26.0, wide - _BADGES
                return math.floor((box_left + (low + high) / 2) / self.pitch) * self.pitch + self.pitch / 2
            return round((box_left + wide / 2) / self.pitch) * self.pitch
        under = self.under[e]
        arcs = (self.below if under else self.above)[n]
        # Those that go left stand on the left, the nearest one outermost; those that come from the right, on the right.
        row = [(k, True) for k, whose in arcs if whose] + [(k, False) for k, whose in reversed(arcs) if not whose]
        low, high = (30.0, wide - 30.0) if under else (26.0, wide - _BADGES)
        direct = under and any(self.way[k] == _DIRECT for k in self.entered_from_below.get(n, ()))
        pitch = 14.0 if direct or len(row) < 2 else min(18.0, (high - low) / (len(row) - 1))
        at = row.index((e, leaves))
        if direct:
            lefts = sum(1 for _, whose in row if whose)
            away = at - lefts if at < lefts else at - lefts + 1
            return box_left + wide / 2 + 16.0 * away
        return box_left + (low + high) / 2 + pitch * (at - (len(row) - 1) / 2)

    def _run_across(self) -> None:
        """Lanes between bands, and so the top of each band."""
        self.entered_from_below: dict[int, list[int]] = {}
        self.upright: set[int] = set()
        """Arrows that run straight up."""
        for e, link in enumerate(self.links):
            if self.way[e] == _DIRECT:
                s, t = link.source, link.target
                self.entered_from_below.setdefault(t, []).append(e)
                if self.aligned and self.column[s] == self.column[t] and not self.below[t]:
                    self.upright.add(e)
        runs: dict[int, list[tuple[int, int, Run]]] = {}
        roomy: set[int] = set()
        for e, link in enumerate(self.links):
            s, t = link.source, link.target
            if self.way[e] == _DIRECT:
                if link.space:
                    roomy.add(self.band[t])
                if e not in self.upright:
                    a, b = self._arc_port(s, e, True), self._arc_port(t, e, False)
                    runs.setdefault(self.band[t], []).append((e, 0, Run(a, 1, b, -1)))
            elif self.way[e] == _DETOUR:
                first, last = self._detour(e)
                out, margin, into = self._detour_xs(e)
                side_out = 1 if first < self.band[s] else -1
                side_in = 1 if last < self.band[t] else -1
                if into is None:
                    assert margin is not None
                    runs.setdefault(first, []).append(
                        (e, 0, Run(out, side_out, margin, 1 if self.band[t] > first else -1))
                    )
                elif margin is None:
                    runs.setdefault(first, []).append((e, 0, Run(out, side_out, into, side_in)))
                else:
                    down = last > first
                    runs.setdefault(first, []).append((e, 0, Run(out, side_out, margin, 1 if down else -1)))
                    runs.setdefault(last, []).append((e, 1, Run(margin, -1 if down else 1, into, side_in)))
        self.across: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
        """(arrow, how manyeth) → pieces in a space between bands: (y, from x, to x)."""
        self.band_top: list[float] = []
        y = 0.0
        for number in range(-1, len(self.lengths)):
            found = runs.get(number, [])
            pieces, count = lanes.assign([run for *_, run in found])
            if number >= 0:
                self.band_top.append(y)
                y += self.bottoms[number]
            if found:
                y += _CLEAR if number >= 0 else 0.0
                for (e, which, _), where in zip(found, pieces, strict=True):
                    self.across[e, which] = [(y + 10.0 * lane, a, b) for lane, a, b in where]
                y += 10.0 * (count - 1) + (40.0 if number in roomy else _CLEAR + 4)
            elif number >= 0:
                y += _ROW_GAP + 12

    def _detour_xs(self, e: int) -> tuple[float, float | None, float | None]:
        s, t = self.links[e].source, self.links[e].target
        leave, enter = (self.band[s], self.column[s] + 1, e), (self.band[t], self.column[t], e)
        out = self._lane_x(leave, self.pieces[leave][0].lane)
        margin = self._lane_x((0, 0, e), self.pieces[0, 0, e][0].lane) if (0, 0, e) in self.pieces else None
        into = self._lane_x(enter, self.pieces[enter][0].lane) if enter[1] else None
        return out, margin, into

    # ------------------------------------------------------------------------------------------ the result

    def _drawn(self) -> Part:
        part = Part()
        for n in range(self.count):
            band, c = self.band[n], self.column[n]
            high = self.height[n]
            part.boxes[n] = Box(self.lefts[band][c], self._real(n) - high / 2, self.wides[band][c], high)
        for e, link in enumerate(self.links):
            way = self.way[e]
            points = (
                self._direct(e, part)
                if way == _DIRECT
                else self._around(e, part)
                if way == _DETOUR
                else self._through(e, part)
            )
            part.routes[link.id] = _without_straight(points)
        self._add_self_loops(part)
        self._add_labels(part)
        return part

    def _real(self, item: int, offset: float = 0.0) -> float:
        return self.band_top[self.band[item]] + self.y[item] + offset

    def _through(self, e: int, part: Part) -> list[Point]:
        """An arrow through its band, or an arc."""
        hops = self.hops[e]
        first, last = hops[0].left, hops[-1].right
        a, b = self._real(first, self._port(hops[0], False)), self._real(last, self._port(hops[-1], True))
        points: list[Point] = []
        arc = self.way[e] == _ARC
        if arc:
            x = self._arc_port(first, e, False)
            box = part.boxes[first]
            points += [(x, box.bottom if self.under[e] else box.y), (x, a)]
        else:
            points.append((part.boxes[first].right, a))
        for hop in hops:
            key = self.band[hop.left], self.column[hop.left] + 1, e
            shift = self.band_top[key[0]] - key[0] * _FAR
            for piece in self.pieces.get(key, ()):
                x = self._lane_x(key, piece.lane)
                points += [(x, piece.start + shift), (x, piece.end + shift)]
        if arc:
            x = self._arc_port(last, e, True)
            box = part.boxes[last]
            points += [(x, b), (x, box.bottom if self.under[e] else box.y)]
            points.reverse()
        else:
            points.append((part.boxes[last].x, b))
        return points

    def _around(self, e: int, part: Part) -> list[Point]:
        s, t = self.links[e].source, self.links[e].target
        out, margin, into = self._detour_xs(e)
        start, end = self._real(s, self.out_port[e]), self._real(t, self.in_port[e])
        points: list[Point] = [(part.boxes[s].right, start), (out, start)]
        for which in (0, 1):
            for y, a, b in self.across.get((e, which), ()):
                points += [(a, y), (b, y)]
        last = into if into is not None else margin
        assert last is not None
        points += [(last, end), (part.boxes[t].x, end)]
        return points

    def _direct(self, e: int, part: Part) -> list[Point]:
        s, t = self.links[e].source, self.links[e].target
        a, b = self._arc_port(s, e, True), self._arc_port(t, e, False)
        points: list[Point] = [(a, part.boxes[s].y)]
        for y, p, q in self.across.get((e, 0), ()):
            points += [(p, y), (q, y)]
        points.append((b, part.boxes[t].bottom))
        return points

    def _add_self_loops(self, part: Part) -> None:
        """Arrows of a node to itself: arcs under it, the shortest label innermost."""
        for n in self.loops:
            box = part.boxes[n]
            middle = box.x + box.w / 2
            loops = self._loops_of(n)
            halves = list(
                itertools.accumulate((k.space / 2 + 8 for k in loops), lambda a, b: max(a + 12, b), initial=4.0)
            )
            halves = [min(half, box.w / 2 - 20 - 8 * i) for i, half in enumerate(reversed(halves[1:]))][::-1]
            for link, half in zip(loops, halves, strict=True):
                y = self._real(n, self.loop_level[link.id])
                part.routes[link.id] = (
                    (middle + half, box.bottom),
                    (middle + half, y),
                    (middle - half, y),
                    (middle - half, box.bottom),
                )
                if link.space:
                    wide = min(link.space, 2 * half - 12)
                    part.labels[link.id] = Box(middle - wide / 2, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)

    # ------------------------------------------------------------------------------------------ labels

    def _add_labels(self, part: Part) -> None:
        upright = _Upright(part.routes)
        for e, link in enumerate(self.links):
            if not link.space:
                continue
            points = part.routes[link.id]
            if self.way[e] == _DIRECT:
                place = self._label_of_direct(e, part)
            elif self.way[e] == _ARC:
                place = self._label_of_arc(e, part, upright)
            else:
                (x, y), (end, _) = points[0], points[1]
                left, wide = x + 7, min(link.space, _TIGHT_LABEL) if self.tight else link.space
                if len(points) == 2:
                    nearest = min(end, x + self._gap_after(link.source))
                    middle = Box((x + nearest - 7 - wide) / 2, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)
                    if middle.x >= x + 4 and not upright.meet(middle, link.id):
                        left = middle.x
                place = Box(left, y - LABEL_HEIGHT / 2, wide, LABEL_HEIGHT)
            part.labels[link.id] = place

    def _gap_after(self, n: int) -> float:
        """Pixels between the column of a box and the next."""
        lefts, c = self.lefts[self.band[n]], self.column[n]
        if c + 1 < len(lefts):
            return lefts[c + 1] - lefts[c] - self.wides[self.band[n]][c]
        return GAP

    def _label_of_direct(self, e: int, part: Part) -> Box:
        link = self.links[e]
        box, x = part.boxes[link.source], part.routes[link.id][0][0]
        wide = min(link.space, box.w)
        left = min(max(x - wide / 2, box.x), box.right - wide)
        return Box(left, box.y - 12 - LABEL_HEIGHT, wide, LABEL_HEIGHT)

    def _label_of_arc(self, e: int, part: Part, upright: _Upright) -> Box:
        link, hops = self.links[e], self.hops[e]
        top = -LABEL_HEIGHT / 2
        if len(hops) > 1:
            passing = hops[-1].left
            band, c = self.band[passing], self.column[passing]
            wide = min(link.space, self.wides[band][c])
            middle = self.lefts[band][c] + self.wides[band][c] / 2
            return Box(middle - wide / 2, self._real(passing) + top, wide, LABEL_HEIGHT)
        left, right = self._arc_port(link.target, e, False), self._arc_port(link.source, e, True)
        a, b = (
            self._real(hops[0].left, self._port(hops[0], False)),
            self._real(hops[0].right, self._port(hops[0], True)),
        )
        if a == b:
            middle = Box((left + right - link.space) / 2, a + top, link.space, LABEL_HEIGHT)
            if middle.x >= left + 8 and middle.right <= right - 8 and not upright.meet(middle, link.id):
                return middle
        end = part.boxes[link.target].right + max(
            0.0, self.zones.get((self.band[link.target], self.column[link.target] + 1), 0.0)
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
            name != owner and top < box.bottom + 4 and box.y - 4 < bottom
            for _, top, bottom, name in self.found[low:high]
        )


def _interleaved(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[0] < a[1] < b[1] or b[0] < a[0] < b[1] < a[1]


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

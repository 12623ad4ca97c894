"""The order of the items in each column of a layered drawing, so that few arrows cross."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from dipeo_nb.diagram.bands import ARC, Bands, Hop
from dipeo_nb.diagram.columns import inversions

_CAREFUL_ITEMS = 400
"""Up to so many boxes and passing arrows, the order in columns is improved pair by pair."""


def put_in_order(bands: Bands) -> list[float]:
    """The items of each column in order; the place of each item in its column."""
    items = len(bands.band)
    after: list[list[Hop]] = [[] for _ in range(items)]
    before: list[list[Hop]] = [[] for _ in range(items)]
    for hops in bands.hops:
        for hop in hops:
            after[hop.left].append(hop)
            before[hop.right].append(hop)
    for n in range(bands.count):
        after[n].sort(key=lambda hop: _slot(bands, hop.left, hop.edge))
    rank = _reading_order(bands)
    met = bytearray(items)
    for root in sorted(range(bands.count), key=lambda n: (bands.column[n], rank[n])):
        stack = [root]
        while stack:
            n = stack.pop()
            if met[n]:
                continue
            met[n] = 1
            bands.rows[bands.band[n]][bands.column[n]].append(n)
            stack += [hop.right for hop in reversed(after[n]) if not met[hop.right]]
    place = [0.0] * items
    for columns, between in zip(bands.rows, bands.between, strict=True):
        _untangle(bands, columns, between, before, after, place)
    return place


def _slot(bands: Bands, item: int, edge: int) -> float:
    """Where in its place an item has the end of an arrow: arcs under a box come after what its side has."""
    if item >= bands.count or bands.way[edge] != ARC:
        return 0.0
    return 0.4 if bands.under[edge] else -0.4


def _reading_order(bands: Bands) -> list[int]:
    """The number of each node when arrows are followed in the order of the file."""
    after: list[list[int]] = [[] for _ in range(bands.count)]
    entered = bytearray(bands.count)
    for link in bands.links:
        if not link.back:
            after[link.source].append(link.target)
            entered[link.target] = 1
    rank = [-1] * bands.count
    number = 0
    for root in range(bands.count):
        stack = [] if entered[root] else [root]
        while stack:
            n = stack.pop()
            if rank[n] < 0:
                rank[n] = number
                number += 1
                stack += [t for t in reversed(after[n]) if rank[t] < 0]
    return rank


def _untangle(
    bands: Bands,
    columns: list[list[int]],
    between: Sequence[Sequence[Hop]],
    before: Sequence[Sequence[Hop]],
    after: Sequence[Sequence[Hop]],
    place: list[float],
) -> None:
    """Change the order in columns where that makes arrows cross less; what makes no difference stays as it is."""

    def settle(column: Sequence[int]) -> None:
        for i, n in enumerate(column):
            place[n] = float(i)

    def crossings() -> int:
        return sum(
            inversions([(place[h.left] + slot(h.left, h.edge), place[h.right] + slot(h.right, h.edge)) for h in hops])
            for hops in between
        )

    slot = functools.partial(_slot, bands)
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
                near = [(h.left, h.edge) for h in before[n]] if rightwards else [(h.right, h.edge) for h in after[n]]
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
        _swap_neighbours(bands, columns, before, after, place)


def _swap_neighbours(
    bands: Bands,
    columns: Sequence[list[int]],
    before: Sequence[Sequence[Hop]],
    after: Sequence[Sequence[Hop]],
    place: list[float],
) -> None:
    def crossed(a: int, b: int) -> int:
        """Crossings of the arrows of a and b when a is above b, less those when below."""
        count = 0
        for ends in (
            [[place[h.left] + _slot(bands, h.left, h.edge) for h in before[n]] for n in (a, b)],
            [[place[h.right] + _slot(bands, h.right, h.edge) for h in after[n]] for n in (a, b)],
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

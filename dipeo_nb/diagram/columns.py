"""Columns of a layered drawing: assignment of nodes, division into bands, straight and uncrossed arrows.

Pure functions on numbers, used by `dipeo_nb.diagram.layered`.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

from dipeo_nb.diagram.part import Link

GAP = 40.0
"""Pixels at least between columns."""
ROW_GAP = 28.0
"""Pixels at least between boxes of a column."""
PITCH = 12.0
"""Pixels from lane to lane. Lanes whose arrows leave a band upwards are half a step from the others, so that they
never continue one that comes down from the band above."""
STUB = 15.0
"""Pixels between an arrow's last turn and the box it enters."""
_LONG_COLUMN = 100
"""Items of a column up to which places are found exactly."""


def layers_of(count: int, forward: Sequence[tuple[int, int]]) -> list[int]:
    """Column of each node: as far left as its sources allow, then what only feeds others is pulled up to them."""
    waiting = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in forward:
        waiting[target] += 1
        after[source].append(target)
    entering = list(waiting)
    found = [0] * count
    ready = [n for n in range(count) if not waiting[n]]
    for n in ready:  # grows while it is walked
        column = found[n] + 1
        for target in after[n]:
            found[target] = max(found[target], column)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for n in reversed(ready):
        if len(after[n]) > entering[n]:
            found[n] = max(found[n], min(found[t] for t in after[n]) - 1)
    return found


def bands_of(sizes: Sequence[tuple[float, float]], links: Sequence[Link], columns_of: Sequence[int], room: float) -> list[int]:
    """The first column of each band: as few bands as fit, broken where few arrows pass."""
    columns = max(columns_of) + 1
    widths, zones = [0.0] * columns, [0.0] * columns
    cut, leaving = [0.0] * (columns + 1), [0] * columns
    for n, (w, _) in enumerate(sizes):
        widths[columns_of[n]] = max(widths[columns_of[n]], w)
    for link in links:
        a, b = columns_of[link.source], columns_of[link.target]
        leaving[a] += 1
        if not link.back:
            zones[a] = max(zones[a], link.space)
        # An arrow that leads back over a break, or a long one, is harder to follow.
        price = 60.0 if a > b else 25.0
        low, high = min(a, b), max(a, b)
        cut[low + 1] += price
        cut[high + 1 if high < columns else columns] -= price
    price_of_cut = list(itertools.accumulate(cut))
    gaps = [max(GAP, (zone + 10 if zone else 12) + PITCH * max(1, leaving[c] // 2) + STUB) for c, zone in enumerate(zones)]
    offset = [0.0, *itertools.accumulate(w + g for w, g in zip(widths, gaps, strict=True))]
    side = 2 * PITCH + STUB  # for the arrows from band to band
    if offset[columns] - gaps[-1] <= room:
        return [0]
    best = [0.0] + [math.inf] * columns
    previous = [0] * (columns + 1)
    for end in range(1, columns + 1):
        for start in range(end - 1, -1, -1):
            wide = offset[end] - gaps[end - 1] - offset[start] + side
            if wide > room and start < end - 1:
                break
            unused = max(0.0, 1 - wide / room)
            price = best[start] + 100 + 30 * unused * unused + (price_of_cut[start] if start else 0.0)
            if price < best[end] - 1e-6:
                best[end], previous[end] = price, start
    starts: list[int] = []
    at = columns
    while at:
        at = previous[at]
        starts.append(at)
    return starts[::-1]


def inversions(pairs: Sequence[tuple[float, float]]) -> int:
    """Number of crossings of straight lines between two columns."""
    seen: list[float] = []
    count = 0
    for _, group in itertools.groupby(sorted(pairs), key=lambda pair: pair[0]):
        ends = [end for _, end in group]
        count += sum(len(seen) - bisect.bisect_right(seen, end) for end in ends)
        for end in ends:
            bisect.insort(seen, end)
    return count


def median(places: Sequence[tuple[float, float]]) -> float:
    """The weighted median; between two middle ones of four or more the mean, else the upper one."""
    ordered = sorted(places)
    half = sum(weight for _, weight in ordered) / 2
    total = 0.0
    for i, (place, weight) in enumerate(ordered):
        total += weight
        if total > half or (total == half and (len(ordered) < 4 or i + 1 == len(ordered))):
            return place
        if total == half:
            return (place + ordered[i + 1][0]) / 2
    return ordered[-1][0]


def rising(values: Sequence[tuple[float, float]]) -> list[float]:
    """The non-decreasing values nearest to the given (value, weight): pool adjacent violators.

    By absolute distance, which keeps as many as can be exactly; by squares where there are many, which is quicker.
    """
    pools: list[tuple[float, list[tuple[float, float]]]] = []
    if len(values) > _LONG_COLUMN:
        means: list[tuple[float, float, int]] = []
        for value, weight in values:
            count = 1
            while means and means[-1][0] > value:
                other, more, size = means.pop()
                value = (value * weight + other * more) / (weight + more)
                weight, count = weight + more, count + size
            means.append((value, weight, count))
        return [value for value, _, count in means for _ in range(count)]
    for value in values:
        middle, pool = value[0], [value]
        while pools and pools[-1][0] > middle:
            _, earlier = pools.pop()
            pool = earlier + pool
            middle = median(pool)
        pools.append((middle, pool))
    return [middle for middle, pool in pools for _ in pool]

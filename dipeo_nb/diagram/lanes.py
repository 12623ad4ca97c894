"""Lanes for parallel pieces of arrows in the space between two columns, or two rows, of a drawing.

A run is the piece of an arrow along such a space. At either end it turns to one side: towards the lanes with low numbers
(-1) or high ones (1), or it leaves the space in its own direction (0). `assign` gives each run a lane so that no two
pieces lie on each other, neither the runs themselves nor what leads to them from the sides, and so that few cross. Where
two runs would have to be on both sides of each other, one of them changes its lane on the way.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

APART = 4.2
"""Distance in pixels from which two things count as not overlapping."""
_MARGIN = 9.0
"""Pixels between two runs that follow each other on one lane."""
_LOOKED_AT = 60
"""Lanes in which room is looked for, the last ones, where there are very many."""
_CAREFUL = 40
"""Up to so many runs in one space, crossings are counted; more are ordered by a rule of thumb."""


class Run(NamedTuple):
    start: float
    start_side: int
    end: float
    end_side: int


class Piece(NamedTuple):
    lane: int
    start: float
    end: float


def assign(runs: Sequence[Run], *, tight: bool = False) -> tuple[list[list[Piece]], int]:
    """(the pieces of each run, from its start to its end; how many lanes there are).

    Args:
        tight: as few lanes as can be, also where that makes more arrows cross.
    """
    # A run from the high side to the low one is looked at from its other end.
    turned = [run.start_side == 1 and run.end_side == -1 for run in runs]
    pieces = [Run(r.end, r.end_side, r.start, r.start_side) if turn else r for r, turn in zip(runs, turned, strict=True)]
    split: set[int] = set()
    of_run: list[list[int]] = [[i] for i in range(len(runs))]
    before = _constraints(pieces)
    order: list[int] = []
    waiting = [0] * len(pieces)
    for followers in before:
        for q in followers:
            waiting[q] += 1
    weights = _crossings(pieces) if len(pieces) <= _CAREFUL else None
    rest = set(range(len(pieces)))
    open_ = {i for i in rest if not waiting[i]}
    by_rank = sorted((_rank(pieces[i]), i) for i in open_) if weights is None else []
    while rest:
        if not open_:
            # Each of those left waits for another one: one from side to side becomes two pieces.
            blocked = min(
                (i for i in rest if pieces[i].start_side == -1 and pieces[i].end_side == 1 and i not in split),
                key=lambda i: (waiting[i], _rank(pieces[i])),
            )
            run = pieces[blocked]
            middle = _free_between(run.start, run.end, pieces)
            pieces[blocked] = Run(run.start, run.start_side, middle, 1)
            second = len(pieces)
            pieces.append(Run(middle, -1, run.end, run.end_side))
            of_run = [[*o, second] if o[-1] == blocked else o for o in of_run]
            # What had to precede the whole has to precede its second piece.
            for followers in before:
                followers[:] = [second if q == blocked else q for q in followers]
            before[blocked].append(second)
            before.append([])
            waiting.append(waiting[blocked] + 1)
            waiting[blocked] = 0
            if weights is not None:
                for row in weights:
                    row.append(0)
                weights.append([0] * len(pieces))
            rest.add(second)
            split |= {blocked, second}
            open_ = {blocked}
            by_rank = [(_rank(pieces[blocked]), blocked)]
        if weights is not None:
            chosen = min(open_, key=lambda i: (sum(weights[i][q] for q in rest), _rank(pieces[i])))
        else:
            _, chosen = heapq.heappop(by_rank)
        order.append(chosen)
        open_.discard(chosen)
        rest.discard(chosen)
        for q in before[chosen]:
            waiting[q] -= 1
            if not waiting[q]:
                open_.add(q)
                if weights is None:
                    heapq.heappush(by_rank, (_rank(pieces[q]), q))
    lanes = _packed(pieces, before, order, tight=tight)
    found = [[Piece(lanes[i], pieces[i].start, pieces[i].end) for i in parts] for parts in of_run]
    for i, turn in enumerate(turned):
        if turn:
            found[i] = [Piece(lane, end, start) for lane, start, end in reversed(found[i])]
    return found, max(lanes, default=-1) + 1


def _span(run: Run) -> tuple[float, float]:
    return (run.start, run.end) if run.start <= run.end else (run.end, run.start)


def _ends(run: Run) -> tuple[tuple[float, int], tuple[float, int]]:
    return (run.start, run.start_side), (run.end, run.end_side)


def _rank(run: Run) -> tuple[float, float]:
    """Nested runs in the order in which they do not cross."""
    return (-run.start, -run.end) if run.start < run.end else (run.start, run.end)


def _constraints(runs: Sequence[Run]) -> list[list[int]]:
    """For each run, those that need a higher lane: their way to the high side would lie on its way to the low side."""
    high = sorted((at, i) for i, run in enumerate(runs) for at, side in _ends(run) if side == 1)
    before: list[list[int]] = [[] for _ in runs]
    for i, run in enumerate(runs):
        for at, side in _ends(run):
            if side == -1:
                for k in range(bisect.bisect_left(high, (at - APART, -1)), len(high)):
                    other, q = high[k]
                    if other >= at + APART:
                        break
                    if q != i and q not in before[i]:
                        before[i].append(q)
    return before


def _crossings(runs: Sequence[Run]) -> list[list[int]]:
    """weights[p][q]: crossings when p has the lower lane, less those when q has."""
    spans = [_span(run) for run in runs]
    count = len(runs)
    crossed = [[0] * count for _ in range(count)]
    for p, q in itertools.permutations(range(count), 2):
        low, high = spans[p]
        for at, side in _ends(runs[q]):
            # q's ways to the low side cross p when p is lower; its ways to the high side when p is higher.
            if side and low < at < high:
                if side == -1:
                    crossed[p][q] += 1
                else:
                    crossed[q][p] += 1
    return [[crossed[p][q] - crossed[q][p] for q in range(count)] for p in range(count)]


def _free_between(a: float, b: float, runs: Sequence[Run]) -> float:
    """The middle of the widest stretch between a and b, or near them if it must be, in which nothing turns."""
    turns = [at for run in runs for at, _ in _ends(run)]
    for more in (0.0, 40.0):
        low, high = min(a, b) - more, max(a, b) + more
        inside = sorted({low, high, *(at for at in turns if low < at < high)})
        at = max(range(len(inside) - 1), key=lambda i: inside[i + 1] - inside[i])
        if inside[at + 1] - inside[at] >= 2 * APART:
            break
    return (inside[at] + inside[at + 1]) / 2


def _packed(runs: Sequence[Run], before: Sequence[Sequence[int]], order: Sequence[int], *, tight: bool) -> list[int]:
    """The lowest lane for each run that keeps the order of those that are side by side."""
    lanes = [0] * len(runs)
    floor = [0] * len(runs)
    placed: list[tuple[float, float, int]] = []
    taken: list[list[tuple[float, float]]] = []
    for i in order:
        low, high = _span(runs[i])
        lane = floor[i]
        if len(order) <= 200 and not tight:
            for a, b, other in placed:
                if a - _MARGIN < high and low < b + _MARGIN:
                    lane = max(lane, other + 1)
            placed.append((low, high, lane))
        else:
            lane = max(lane, len(taken) - _LOOKED_AT)
            while lane < len(taken) and _occupied(taken[lane], low, high):
                lane += 1
            while lane >= len(taken):
                taken.append([])
            bisect.insort(taken[lane], (low, high))
        lanes[i] = lane
        for q in before[i]:
            floor[q] = max(floor[q], lane + 1)
    return lanes


def _occupied(taken: Sequence[tuple[float, float]], low: float, high: float) -> bool:
    """Whether one of these disjoint stretches comes too near to this one."""
    at = bisect.bisect_left(taken, (low, high))
    return (at < len(taken) and taken[at][0] < high + _MARGIN) or (at > 0 and taken[at - 1][1] > low - _MARGIN)

"""Positions of the columns and bands of a layered drawing, with the lanes of arrows between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dipeo_nb.diagram import lanes
from dipeo_nb.diagram.bands import ARC, DETOUR, DIRECT, FLAT, Bands
from dipeo_nb.diagram.box_ports import BoxPorts
from dipeo_nb.diagram.columns import GAP, ROW_GAP, STUB
from dipeo_nb.diagram.heights import Heights
from dipeo_nb.diagram.lanes import Run

TIGHT_LABEL = 60.0
"""Pixels of a label where the page is too narrow."""
FAR = 1e6
"""More than any band is high."""
_CLEAR = 16.0
"""Pixels between a band and the lanes above and below it."""
_BADGES = 72.0
"""Pixels of a box's top, from the right, that belong to the badges."""


class Placement:
    """Lanes between columns, then the columns, then the lanes between bands, and so the bands."""

    def __init__(self, bands: Bands, ports: BoxPorts, heights: Heights) -> None:
        self.bands: Bands = bands
        self.ports: BoxPorts = ports
        self.heights: Heights = heights
        self._run_down()
        self._set_columns()
        self._run_across()

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
        for e, link in enumerate(self.bands.links):
            if self.bands.way[e] == FLAT and link.space:
                self._keep_zone(link.source, link.space + 4)
            elif self.bands.way[e] == ARC and link.space and len(self.bands.hops[e]) == 1:
                left = self.bands.hops[e][0].left
                self._keep_zone(left, link.space - self.bands.sizes[left][0] / 2 + 30)
            for hop in self.bands.hops[e]:
                band, gap = self.bands.band[hop.left], self.bands.column[hop.left] + 1
                a = self._at(hop.left, self.ports.port(hop, False))
                b = self._at(hop.right, self.ports.port(hop, True))
                if a != b:
                    runs.setdefault((band, gap), []).append((e, Run(a, -1, b, 1)))
            if self.bands.way[e] == DETOUR:
                if link.space:
                    self._keep_zone(link.source, link.space + 4)
                self._run_detour(e, runs)
        for key, found in runs.items():
            pieces, count = lanes.assign([run for _, run in found], tight=self.bands.tight)
            self.gap_lanes[key] = count
            for (e, _), where in zip(found, pieces, strict=True):
                self.pieces[*key, e] = where

    def _keep_zone(self, n: int, wide: float) -> None:
        """Room for a label behind the column of a box."""
        key = self.bands.band[n], self.bands.column[n] + 1
        wide = min(wide, TIGHT_LABEL + 4) if self.bands.tight else wide
        self.zones[key] = max(self.zones.get(key, 0.0), wide)

    def _at(self, item: int, offset: float) -> float:
        return self.bands.band[item] * FAR + self.heights.y[item] + offset

    def _space(self, number: int) -> float:
        """The height of the space below a band, before heights are known."""
        return (number + 1) * FAR - FAR / 4

    def _run_detour(self, e: int, runs: dict[tuple[int, int], list[tuple[int, Run]]]) -> None:
        s, t = self.bands.links[e].source, self.bands.links[e].target
        first, last = self.bands.detour(e)
        leave, enter = (self.bands.band[s], self.bands.column[s] + 1), (self.bands.band[t], self.bands.column[t])
        start, end = self._at(s, self.ports.out_port[e]), self._at(t, self.ports.in_port[e])
        runs.setdefault(leave, []).append((e, Run(start, -1, self._space(first), 0)))
        if first < self.bands.band[s]:
            self.raised.add((*leave, e))
            self.half_steps.add(leave)
        if enter[1] == 0:
            runs.setdefault((0, 0), []).append((e, Run(self._space(first), 0, end, 1)))
            return
        if first != last:
            runs.setdefault((0, 0), []).append((e, Run(self._space(first), 0, self._space(last), 0)))
        runs.setdefault(enter, []).append((e, Run(self._space(last), 0, end, 1)))
        if last < self.bands.band[t]:
            self.raised.add((*enter, e))
            self.half_steps.add(enter)

    def _set_columns(self) -> None:
        """Left sides and widths of columns, the same in all bands where the page is wide enough."""
        widths = [[0.0] * length for length in self.bands.lengths]
        for n in range(self.bands.count):
            band, c = self.bands.band[n], self.bands.column[n]
            widths[band][c] = max(widths[band][c], self.bands.sizes[n][0])
        margin = self.gap_lanes.get((0, 0), 0)
        self.margin_pitch: float = min(8.0, self.bands.pitch)
        left = 0.0 if not margin else math.ceil((self.margin_pitch * (margin - 1) + STUB) / self.bands.pitch) * self.bands.pitch
        self.lane_base: dict[tuple[int, int], float] = {(0, 0): left - STUB - self.margin_pitch * (margin - 1)}
        self.lefts: list[list[float]] = [[] for _ in self.bands.lengths]
        self.wides: list[list[float]] = [[] for _ in self.bands.lengths]
        together = list(range(len(self.bands.lengths)))
        self.aligned: bool = self._stand(together, left, widths) <= self.bands.width
        """Whether the columns of all bands are aligned."""
        if not self.aligned:
            for band in together:
                self._stand([band], left, widths)

    def _stand(self, bands: Sequence[int], left: float, widths: Sequence[Sequence[float]]) -> float:
        """Place the columns of some bands under each other; the right end of all, arrows included."""
        for band in bands:
            self.lefts[band], self.wides[band] = [], []
        farthest = left
        for c in range(max(self.bands.lengths[b] for b in bands)):
            here = [b for b in bands if c < self.bands.lengths[b]]
            right = left + max(widths[b][c] for b in here)
            following = right + GAP
            needs: list[tuple[tuple[int, int], float, float]] = []
            for b in here:
                self.lefts[b].append(left)
                self.wides[b].append(right - left)
                key = b, c + 1
                zone, count = self.zones.get(key, 0.0), self.gap_lanes.get(key, 0)
                base = math.ceil((right + (zone + 12 if zone > 0 else 14)) / self.bands.pitch) * self.bands.pitch
                end = right + max(0.0, zone + 20)
                if count:
                    half_step = self.bands.pitch / 2 if key in self.half_steps else 0.0
                    end = max(end, base + self.bands.pitch * (count - 1) + half_step + STUB)
                    farthest = max(farthest, end - STUB)
                needs.append((key, base, end))
                if c + 1 < self.bands.lengths[b]:
                    following = max(following, end)
                farthest = max(farthest, right + max(0.0, zone))
            for key, base, end in needs:
                # Lanes in the middle of what is free.
                spare = (following - end) // (2 * self.bands.pitch) if key[1] < self.bands.lengths[key[0]] else 0.0
                self.lane_base[key] = base + self.bands.pitch * max(0.0, spare)
            left = following
        return farthest

    def lane_x(self, key: tuple[int, int, int], lane: int) -> float:
        pitch = self.bands.pitch if key[1] else self.margin_pitch
        return self.lane_base[key[0], key[1]] + pitch * lane + (self.bands.pitch / 2 if key in self.raised else 0.0)

    def arc_port(self, n: int, e: int, leaves: bool) -> float:
        """The point on a box's lower or upper side where an arc, or a direct arrow (in the middle), leaves or enters."""
        box_left, wide = (
            self.lefts[self.bands.band[n]][self.bands.column[n]],
            self.wides[self.bands.band[n]][self.bands.column[n]],
        )
        if self.bands.way[e] == DIRECT:
            if leaves or e in self.upright:
                low, high = 26.0, wide - _BADGES
                return math.floor((box_left + (low + high) / 2) / self.bands.pitch) * self.bands.pitch + self.bands.pitch / 2
            return round((box_left + wide / 2) / self.bands.pitch) * self.bands.pitch
        under = self.bands.under[e]
        arcs = (self.bands.below if under else self.bands.above)[n]
        # Those that go left are on the left, the nearest one outermost; those that come from the right, on the right.
        row = [(k, True) for k, whose in arcs if whose] + [(k, False) for k, whose in reversed(arcs) if not whose]
        low, high = (30.0, wide - 30.0) if under else (26.0, wide - _BADGES)
        direct = under and any(self.bands.way[k] == DIRECT for k in self.entered_from_below.get(n, ()))
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
        for e, link in enumerate(self.bands.links):
            if self.bands.way[e] == DIRECT:
                s, t = link.source, link.target
                self.entered_from_below.setdefault(t, []).append(e)
                if self.aligned and self.bands.column[s] == self.bands.column[t] and not self.bands.below[t]:
                    self.upright.add(e)
        runs: dict[int, list[tuple[int, int, Run]]] = {}
        roomy: set[int] = set()
        for e, link in enumerate(self.bands.links):
            s, t = link.source, link.target
            if self.bands.way[e] == DIRECT:
                if link.space:
                    roomy.add(self.bands.band[t])
                if e not in self.upright:
                    a, b = self.arc_port(s, e, True), self.arc_port(t, e, False)
                    runs.setdefault(self.bands.band[t], []).append((e, 0, Run(a, 1, b, -1)))
            elif self.bands.way[e] == DETOUR:
                first, last = self.bands.detour(e)
                out, margin, into = self.detour_xs(e)
                side_out = 1 if first < self.bands.band[s] else -1
                side_in = 1 if last < self.bands.band[t] else -1
                if into is None:
                    assert margin is not None
                    runs.setdefault(first, []).append(
                        (e, 0, Run(out, side_out, margin, 1 if self.bands.band[t] > first else -1))
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
        for number in range(-1, len(self.bands.lengths)):
            found = runs.get(number, [])
            pieces, count = lanes.assign([run for *_, run in found])
            if number >= 0:
                self.band_top.append(y)
                y += self.heights.bottoms[number]
            if found:
                y += _CLEAR if number >= 0 else 0.0
                for (e, which, _), where in zip(found, pieces, strict=True):
                    self.across[e, which] = [(y + 10.0 * lane, a, b) for lane, a, b in where]
                y += 10.0 * (count - 1) + (40.0 if number in roomy else _CLEAR + 4)
            elif number >= 0:
                y += ROW_GAP + 12

    def detour_xs(self, e: int) -> tuple[float, float | None, float | None]:
        s, t = self.bands.links[e].source, self.bands.links[e].target
        leave, enter = (self.bands.band[s], self.bands.column[s] + 1, e), (self.bands.band[t], self.bands.column[t], e)
        out = self.lane_x(leave, self.pieces[leave][0].lane)
        margin = self.lane_x((0, 0, e), self.pieces[0, 0, e][0].lane) if (0, 0, e) in self.pieces else None
        into = self.lane_x(enter, self.pieces[enter][0].lane) if enter[1] else None
        return out, margin, into

    def real(self, item: int, offset: float = 0.0) -> float:
        return self.band_top[self.bands.band[item]] + self.heights.y[item] + offset

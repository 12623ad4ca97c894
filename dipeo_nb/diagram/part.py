"""A piece of a drawing under construction: boxes, arrows and labels by number, in coordinates of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dipeo_nb.diagram.routing import Box, Point

LABEL_HEIGHT = 18.0
"""Pixels of an arrow's label."""


class Link(NamedTuple):
    id: str
    source: int
    target: int
    back: bool
    branch: str
    label: str
    space: float
    """Pixels its label needs; 0 without label."""


@dataclass(slots=True)
class Part:
    """A piece of the drawing under construction, in its own coordinates."""

    boxes: dict[int, Box] = field(default_factory=dict[int, Box])
    routes: dict[str, tuple[Point, ...]] = field(default_factory=dict[str, tuple[Point, ...]])
    labels: dict[str, Box] = field(default_factory=dict[str, Box])

    def extent(self) -> Box:
        xs = [p[0] for r in self.routes.values() for p in r]
        ys = [p[1] for r in self.routes.values() for p in r]
        boxes = [*self.boxes.values(), *self.labels.values()]
        left = min([*xs, *(b.x for b in boxes)])
        top = min([*ys, *(b.y for b in boxes)])
        right = max([*xs, *(b.right for b in boxes)])
        bottom = max([*ys, *(b.bottom for b in boxes)])
        return Box(left, top, right - left, bottom - top)

    def move_into(self, other: Part, dx: float, dy: float) -> None:
        other.boxes.update((n, Box(b.x + dx, b.y + dy, b.w, b.h)) for n, b in self.boxes.items())
        other.labels.update((i, Box(b.x + dx, b.y + dy, b.w, b.h)) for i, b in self.labels.items())
        other.routes.update((i, tuple((x + dx, y + dy) for x, y in r)) for i, r in self.routes.items())

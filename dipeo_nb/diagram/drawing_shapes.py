"""Shapes of a drawing as SVG path data: outlines of nodes, arrows with round corners, icons, glyphs of states."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dipeo_nb.diagram.layout import CHAMFER, ROUND
from dipeo_nb.diagram.routing import Point


def fmt(value: float) -> str:
    """A number for a path: one decimal, no trailing zero."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def is_round(kind: str) -> bool:
    """Whether nodes of a type have round ends."""
    return kind in ("start", "endpoint")


def outline_path(kind: str, w: float, h: float, p: str) -> str:
    """The outline of a node of *w* by *h* pixels as an SVG element; *p* begins the names of classes."""
    if kind == "condition":
        c, r = CHAMFER, h / 2
        d = f"M{fmt(c)} 0H{fmt(w - c)}L{fmt(w)} {fmt(r)}L{fmt(w - c)} {fmt(h)}H{fmt(c)}L0 {fmt(r)}Z"
        return f'<path class="{p}box" d="{d}"/>'
    inner = ""
    if kind == "sub_diagram":
        inner = f'<rect class="{p}inner" x="3.5" y="3.5" width="{fmt(w - 7)}" height="{fmt(h - 7)}" rx="8"/>'
    rx = min(h / 2, ROUND) if is_round(kind) else 11
    return f'<rect class="{p}box" width="{fmt(w)}" height="{fmt(h)}" rx="{fmt(rx)}"/>{inner}'


_HEAD_LENGTH, _HEAD_HALF, _CORNER = 8.0, 4.4, 9.0


def arrow_path(points: Sequence[Point]) -> tuple[str, str]:
    """Path data of the line (which ends under the head) and of the arrowhead."""
    points = list(points)
    (ax, ay), (bx, by) = points[-2], points[-1]
    length = math.hypot(bx - ax, by - ay) or 1.0
    dx, dy = (bx - ax) / length, (by - ay) / length
    tail = (bx - dx * _HEAD_LENGTH, by - dy * _HEAD_LENGTH)
    points[-1] = (bx - dx * (_HEAD_LENGTH - 1), by - dy * (_HEAD_LENGTH - 1))
    left = (tail[0] - dy * _HEAD_HALF, tail[1] + dx * _HEAD_HALF)
    right = (tail[0] + dy * _HEAD_HALF, tail[1] - dx * _HEAD_HALF)
    head = f"M{_at((bx, by))}L{_at(left)}L{_at(right)}Z"
    return _cornered(points), head


def _at(point: Point) -> str:
    return f"{fmt(point[0])} {fmt(point[1])}"


def _cornered(points: Sequence[Point]) -> str:
    """Straight pieces with rounded corners."""
    pieces = [f"M{_at(points[0])}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        pieces.append(_corner(before, here, after))
    pieces.append(f"L{_at(points[-1])}")
    return "".join(pieces)


def _corner(before: Point, here: Point, after: Point) -> str:
    into = math.hypot(here[0] - before[0], here[1] - before[1])
    out = math.hypot(after[0] - here[0], after[1] - here[1])
    r = min(_CORNER, into / 2, out / 2)
    if r < 0.5:
        return f"L{_at(here)}"
    start = (here[0] + (before[0] - here[0]) * r / into, here[1] + (before[1] - here[1]) * r / into)
    end = (here[0] + (after[0] - here[0]) * r / out, here[1] + (after[1] - here[1]) * r / out)
    return f"L{_at(start)}Q{_at(here)} {_at(end)}"


# Icons on a grid of 16 by 16, drawn as lines.
ICONS = {
    "start": "M5 3.2v9.6l8-4.8z",
    "endpoint": "M4 14.5V2M4 2.8h8.6l-2.2 3 2.2 3H4",
    "person_job": "M8 8.2a3.1 3.1 0 1 0 0-6.2 3.1 3.1 0 0 0 0 6.2zM2.4 14.2c.5-3 2.7-4.4 5.6-4.4s5.1 1.4 5.6 4.4",
    "condition": "M1.8 8h4.4M6.2 8c2.6 0 2.2-4.6 5-4.6h2.6M6.2 8c2.6 0 2.2 4.6 5 4.6h2.6M12 1.4l2 2-2 2M12 10.6l2 2-2 2",
    "code_job": "M5 4L1.4 8 5 12M11 4l3.6 4-3.6 4M9.4 2.6L6.6 13.4",
    "api_job": "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM1.8 8h12.4M8 1.8c3.6 3.6 3.6 8.8 0 12.4M8 1.8c-3.6 3.6-3.6 8.8 0 12.4",
    "db": "M2.6 3.8c0-2.6 10.8-2.6 10.8 0s-10.8 2.6-10.8 0v8.4c0 2.6 10.8 2.6 10.8 0V3.8M2.6 8c0 2.6 10.8 2.6 10.8 0",
    "user_response": "M2 3.2h12v8H7.4L4.2 14v-2.8H2zM5 6h6M5 8.6h4",
    "hook": "M9 1.4L3 9h4.4L6.6 14.6 13 7H8.4z",
    "template_job": "M3.4 1.6h6.2l3 3v9.8H3.4zM9.4 1.8v3h3M5.6 8h4.8M5.6 11h4.8",
    "json_schema_validator": "M4.8 2C2.6 2 4 5 3 7.2L1.8 8 3 8.8C4 11 2.6 14 4.8 14M11.2 2c2.2 0 .8 3 1.8 5.2l1.2.8-1.2.8c-1 2.2.4 5.2-1.8 5.2"
    "M5.8 8.2l1.6 1.6 2.8-3.4",
    "typescript_ast": "M8 5V1.8M8 5H3.2v3M8 5h4.8v3M8 5v3M1.8 8.2h2.8v2.8H1.8zM6.6 8.2h2.8v2.8H6.6zM11.4 8.2h2.8v2.8h-2.8zM8 11v3",
    "sub_diagram": "M1.8 2.4h12.4v11.2H1.8zM4.4 5.4h2.8v2.4H4.4zM8.8 9h2.8v2.4H8.8zM7.2 6.6h3V9",
    "integrated_api": "M6.2 1.8v3.4M9.8 1.8v3.4M4 5.2h8v2.6a4 4 0 0 1-8 0zM8 11.8v2.6",
    "ir_builder": "M8 1.6l6.2 3.2L8 8 1.8 4.8zM1.8 8L8 11.2 14.2 8M1.8 11.2L8 14.4l6.2-3.2",
    "diff_patch": "M8 2v5.2M5.4 4.6h5.2M5.4 11.4h5.2M2 1h12v14H2z",
}
ICON_UNKNOWN = "M5.4 5.6c.2-3.6 5.4-3.4 5.2-.2C10.4 7.6 8 7.4 8 10M8 13v.4"
# Glyphs around the middle of a badge.
GLYPHS = {
    "pending": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "running": "M-2.4-3.800L3.8 0L-2.4 3.800Z",
    "paused": "M-2.2-3.600V3.600M2.2-3.600V3.6",
    "completed": "M-4 .3L-1.2 3.200L4.2-3",
    "failed": "M-3.3-3.300L3.3 3.300M3.3-3.300L-3.3 3.3",
    "aborted": "M-3-3H3V3H-3Z",
    "skipped": "M-4-3.200L-.8 0L-4 3.200M.8-3.200L4 0L.8 3.2",
    "maxiter_reached": "M3.9-1.200A4.1 4.1 0 1 0 3.6 2M4.3-4.200V-1H1.1",
    "interrupted": "M0-4.400V.8M0 3.700V4",
}
DIFFERENCE_GLYPHS = {
    "same": "M-3.6-1.800H3.6M-3.6 1.800H3.6",
    "changed": "M-3.6-1.800H3.6M-3.6 1.800H3.6M2.4-4.200L-2.4 4.200",
    "new": "M-4 0H4M0-4V4",
    "gone": "M-4 0H4",
}
GLYPH_UNKNOWN = "M-2-2.200c.2-2.8 4.2-2.6 4-.1C1.8-.4 0-.6 0 1.200M0 3.700V4"

"""Drawings of a diagram: a self-contained SVG, a live one for a page that has `LIVE_CSS`, and a tree of text.

A drawing holds no `id`, no script, no font and no reference to anything outside; whatever the diagram's author typed
is cleaned, cut and escaped. State is shown by colour *and* by a glyph. Not for editing: nothing here reads a drawing.

The live drawing and its page agree on this:

- `<svg class="dp-drawing">`; one `<g class="dp-node" data-node=ID data-status=STATUS data-runs=N>` per node, one
  `<g class="dp-arrow" data-arrow=ID data-source=ID data-target=ID>` per arrow.
- To show progress, set `data-status` (a `Status` value; empty: none) and `data-runs`, and the text of
  `.dp-runs text` (`×3`; the badge shows from 1 run on). Keep `aria-label` of the node in step.
- Set `data-selected` on the chosen node; nodes are `role="button"` and can have the focus.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.labels import clean, escape, isolate
from dipeo_nb.diagram.layout import (
    ARROW_LABEL_SIZE,
    CHAMFER,
    ICON_SPACE,
    LABEL_SIZE,
    PAGE,
    ROUND,
    SUBTITLE_SIZE,
    Face,
    Layout,
    place,
)
from dipeo_nb.diagram.routing import Box, Point
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Status
from dipeo_nb.errors import ValidationError

Theme = Literal["auto", "light", "dark"]


class NodeLook(NamedTuple):
    """What a drawing shows of a node's progress."""

    status: str
    """A `Status` value."""
    runs: int = 0
    """Finished runs; shown as `×3` from 1 on."""
    note: str = ""
    """Replaces the line under the label, e.g. `1.2 s · 340 tokens`."""


def draw(
    diagram: DomainDiagram,
    *,
    status: Mapping[str, NodeLook] | None = None,
    theme: Theme = "auto",
    title: str | None = None,
    width: int | None = None,
    live: bool = False,
    layout: Layout | None = None,
    overview: float | None = None,
) -> str:
    """The diagram as SVG text.

    Args:
        status: node id → what to show of its progress; nodes left out are pending. None: no progress is shown.
        theme: `light`, `dark`, or `auto`: follows the reader's system, on a background of its own, so that it can
            be read on any page.
        title: name of the diagram for screen readers and tooltips; default: the metadata's name.
        width: pixels; default: the drawing's natural width. The height follows.
        live: for a page that holds `LIVE_CSS`: colours come from the page, all states are prepared, `theme` is not
            used.
        layout: of an earlier `place(diagram)`, to save doing it again.
        overview: pixels of width at which it is to be taken in whole: labels are of a size that can be read there, as far as
            boxes are large enough for them, and details are left out.

    Raises:
        ValidationError: an unknown theme, or a width that is not positive.
    """
    if theme not in ("auto", "light", "dark"):
        raise ValidationError(f"'{clean(theme, 40)}' is no theme.", hint="Use 'auto', 'light' or 'dark'.")
    if width is not None and width <= 0:
        raise ValidationError(f"A drawing cannot be {width} pixels wide.", hint="Give a positive number.")
    name = title or (diagram.metadata.name if diagram.metadata else None) or "diagram"
    brush = (_OverviewBrush if overview else _Brush)(diagram, layout or place(diagram), status, live)
    if isinstance(brush, _OverviewBrush):
        brush.scale = min(1.0, (overview or PAGE) / brush.layout.width)
    return brush.svg(name, theme, width)


class _Brush:
    def __init__(
        self, diagram: DomainDiagram, layout: Layout, status: Mapping[str, NodeLook] | None, live: bool
    ) -> None:
        self.diagram = diagram
        self.layout = layout
        self.status = status
        self.live = live
        self.nodes = {n.id: n for n in diagram.nodes}
        self.titles = {n.id: labels.title(n) for n in diagram.nodes}
        self.p = "dp-"

    def svg(self, name: str, theme: Theme, width: int | None) -> str:
        lay = self.layout
        if not self.live:
            # Style sheets of several drawings on one page must not meet, so each has class names of its own.
            seed = repr((sorted(lay.nodes), len(lay.edges), theme, name, lay.width, lay.height)) + self._more_style()
            self.p = f"d{hashlib.sha256(seed.encode('utf-8', 'replace')).hexdigest()[:7]}-"
        wide, high = math.ceil(lay.width), math.ceil(lay.height)
        shown = width or wide
        looks = self.status or {}
        spoken = labels.summary(self.diagram, name, [v.status for v in looks.values()])
        role = 'role="group"' if self.live else 'role="img"'
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{self.p}drawing" viewBox="0 0 {wide} {high}" '
            f'width="{shown}" height="{math.ceil(high * shown / wide)}" {role} aria-label="{escape(spoken)}" '
            f'style="max-width:100%;height:auto">'
        )
        parts = [
            opening,
            f"<title>{escape(clean(name))}</title><desc>{escape(self._description(spoken))}</desc>",
        ]
        if not self.live:
            parts.append(f"<style>{_style(self.p, theme)}{self._more_style()}</style>")
        parts.append(f'<rect class="{self.p}card" x=".5" y=".5" width="{wide - 1}" height="{high - 1}" rx="12"/>')
        arrows = {a.id: a for a in self.diagram.arrows}
        parts += [self._arrow(arrows[i], points) for i, points in lay.edges.items()]
        parts += [self._tag(i, *placed) for i, placed in lay.labels.items()]
        parts += [self._node(self.nodes[i], box, lay.faces[i]) for i, box in lay.nodes.items()]
        if not lay.nodes:
            parts.append(f'<text class="{self.p}sub" x="14" y="{high / 2 + 4:g}">empty</text>')
        parts.append("</svg>")
        return "".join(parts)

    def _more_style(self) -> str:
        return ""

    def _description(self, spoken: str) -> str:
        steps = [
            f"{isolate(self.titles[a.source])} → {isolate(self.titles[a.target])}"
            for a in self.diagram.arrows[:40]
            if a.id in self.layout.edges
        ]
        more = f" and {len(self.diagram.arrows) - 40} more" if len(self.diagram.arrows) > 40 else ""
        return f"{spoken} {'; '.join(steps)}{more}" if steps else spoken

    # ------------------------------------------------------------------------------------------------- nodes

    def _node(self, node: DomainNode, box: Box, face: Face) -> str:
        p = self.p
        look = self._look(node.id)
        name = self.titles[node.id]
        words = [name, labels.type_words(node)]
        if look:
            words.append(labels.status_look(look.status).word)
            words += [f"{look.runs} run{'' if look.runs == 1 else 's'}"] if look.runs else []
            words += [clean(look.note)] if look.note else []
        spoken = escape(", ".join(isolate(w) for w in words))
        state = (
            f' data-status="{escape(clean(look.status, 40)) if look else ""}" data-runs="{look.runs if look else 0}"'
        )
        if not look and not self.live:
            state = ""
        acts = f' role="button" tabindex="0" aria-label="{spoken}"' if self.live else ""
        half = box.h / 2
        sub = face.subtitle
        if look and look.note:
            room = box.w - ICON_SPACE - (CHAMFER + 4 if node.type == "condition" else 8)
            sub = labels.fit(clean(look.note), room, SUBTITLE_SIZE)
        first = (half - 3 if sub else half + 5) - 8 * (len(face.lines) - 1)
        text = "".join(
            f'<text class="{p}label" x="{ICON_SPACE:g}" y="{_n(first + 16 * i)}">{escape(line)}</text>'
            for i, line in enumerate(face.lines)
        )
        below = first + 16 * len(face.lines)
        category = labels.category(node)
        return (
            f'<g class="{p}node {p}c-{category}" data-node="{escape(clean(node.id))}"{state}{acts} '
            f'transform="translate({_n(box.x)} {_n(box.y)})"><title>{spoken}</title>'
            f"{_outline(node.type, box.w, box.h, p)}"
            f'<rect class="{p}tile" x="10" y="{_n(half - 14)}" width="28" height="28" rx="{14 if _round(node.type) else 8}"/>'
            f'<path class="{p}icon" transform="translate(16 {_n(half - 8)})" d="{_ICONS.get(node.type, _ICON_UNKNOWN)}"/>'
            f'{text}<text class="{p}sub" x="{ICON_SPACE:g}" y="{_n(below)}">{escape(sub)}</text>'
            f"{self._badges(look, box)}</g>"
        )

    def _look(self, node_id: str) -> NodeLook | None:
        if self.status is None:
            return None
        return self.status.get(node_id) or NodeLook(Status.PENDING)

    def _badges(self, look: NodeLook | None, box: Box) -> str:
        if not look and not self.live:
            return ""
        p = self.p
        x = box.w - 12
        if self.live:
            glyphs = "".join(f'<path class="{p}glyph {p}g-{s}" d="{d}"/>' for s, d in _GLYPHS.items())
            runs = look.runs if look else 0
        else:
            assert look is not None
            glyphs = f'<path class="{p}glyph" d="{_GLYPHS.get(look.status, _GLYPH_UNKNOWN)}"/>'
            runs = look.runs
        badge = f'<g class="{p}badge" transform="translate({_n(x)} 0)"><circle r="9.5"/>{glyphs}</g>'
        if not runs and not self.live:
            return badge
        count = f"×{runs}"
        pill = 34.0 if self.live else labels.measure(count, 10, bold=True) + 12
        return badge + (
            f'<g class="{p}runs" transform="translate({_n(x - 14 - pill / 2)} 0)">'
            f'<rect x="{_n(-pill / 2)}" y="-8" width="{_n(pill)}" height="16" rx="8"/><text y="3.6">{count}</text></g>'
        )

    # ------------------------------------------------------------------------------------------------ arrows

    def _arrow(self, arrow: DomainArrow, points: Sequence[Point]) -> str:
        p = self.p
        branch, label = labels.arrow_words(arrow)
        words = [f"{isolate(self.titles[arrow.source])} → {isolate(self.titles[arrow.target])}"]
        together = self.layout.bundles.get(arrow.id, ())
        words += [f"{len(together):,} arrows"] if together else [isolate(w) for w in (branch, label) if w]
        if arrow.target_handle != "default":
            words.append(f"into {clean(arrow.target_handle, 40)}")
        if arrow.content_type:
            words.append(clean(arrow.content_type, 40))
        back = f" {p}back" if arrow.id in self.layout.back else ""
        line, head = _path(points)
        return (
            f'<g class="{p}arrow{back}" data-arrow="{escape(clean(arrow.id))}" data-source="{escape(clean(arrow.source))}" '
            f'data-target="{escape(clean(arrow.target))}"><title>{escape(" · ".join(words))}</title>'
            f'<path class="{p}line" d="{line}"/><path class="{p}head" d="{head}"/></g>'
        )

    def _tag(self, arrow_id: str, box: Box, branch: str, label: str) -> str:
        p = self.p
        x = box.x + 7
        y = _n(box.y + box.h / 2 + 3.7)
        texts = ""
        if branch:
            kind = {"true": f" {p}true", "false": f" {p}false"}.get(branch, "")
            texts = f'<text class="{p}branch{kind}" x="{_n(x)}" y="{y}">{escape(branch)}</text>'
            x += labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + 6
        if label:
            texts += f'<text x="{_n(x)}" y="{y}">{escape(label)}</text>'
        return (
            f'<g class="{p}tag" data-of="{escape(clean(arrow_id))}"><rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}" rx="9"/>'
            f"{texts}</g>"
        )


class _OverviewBrush(_Brush):
    """Draws for a smaller size: boxes with their labels, and lines."""

    scale = 1.0
    """Pixels that one of the layout is shown as."""

    def _more_style(self) -> str:
        return (
            f".{self.p}label{{font-size:{_OVERVIEW_TEXT / self.scale:.1f}px;text-anchor:middle}}"
            f".{self.p}box,.{self.p}line{{vector-effect:non-scaling-stroke}}"
        )

    def _tag(self, arrow_id: str, box: Box, branch: str, label: str) -> str:
        return ""

    def _node(self, node: DomainNode, box: Box, face: Face) -> str:
        p, size = self.p, _OVERVIEW_TEXT / self.scale
        look = self._look(node.id)
        title = self.titles[node.id]
        words = [title, *([labels.status_look(look.status).word] if look else [])]
        state = f' data-status="{escape(clean(look.status, 40))}"' if look else ""
        room = box.w - 6 / self.scale - (CHAMFER if node.type == "condition" else 0.0)
        most = int(box.h / (size * 1.05))
        lines = [] if not most else labels.wrap(title, room, size, bold=True) if most > 1 else [labels.fit(title, room, size, bold=True)]
        first = box.h / 2 + size * (0.35 - 0.525 * (len(lines) - 1))
        text = "".join(
            f'<text class="{p}label" x="{_n(box.w / 2)}" y="{_n(first + 1.05 * size * i)}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        return (
            f'<g class="{p}node {p}c-{labels.category(node)}" data-node="{escape(clean(node.id))}"{state} '
            f'transform="translate({_n(box.x)} {_n(box.y)})"><title>{escape(", ".join(isolate(w) for w in words))}</title>'
            f"{_outline(node.type, box.w, box.h, p)}{text}</g>"
        )


_OVERVIEW_TEXT = 10.6
"""Pixels of labels in an overview, as they are shown."""


# ------------------------------------------------------------------------------------------------------ shapes


def _n(value: float) -> str:
    """A number for a path: one decimal, no trailing zero."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _round(kind: str) -> bool:
    return kind in ("start", "endpoint")


def _outline(kind: str, w: float, h: float, p: str) -> str:
    if kind == "condition":
        c, r = CHAMFER, h / 2
        d = f"M{_n(c)} 0H{_n(w - c)}L{_n(w)} {_n(r)}L{_n(w - c)} {_n(h)}H{_n(c)}L0 {_n(r)}Z"
        return f'<path class="{p}box" d="{d}"/>'
    inner = ""
    if kind == "sub_diagram":
        inner = f'<rect class="{p}inner" x="3.5" y="3.5" width="{_n(w - 7)}" height="{_n(h - 7)}" rx="8"/>'
    rx = min(h / 2, ROUND) if _round(kind) else 11
    return f'<rect class="{p}box" width="{_n(w)}" height="{_n(h)}" rx="{_n(rx)}"/>{inner}'


_HEAD_LENGTH, _HEAD_HALF, _CORNER = 8.0, 4.4, 9.0


def _path(points: Sequence[Point]) -> tuple[str, str]:
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
    return f"{_n(point[0])} {_n(point[1])}"


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
_ICONS = {
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
_ICON_UNKNOWN = "M5.4 5.6c.2-3.6 5.4-3.4 5.2-.2C10.4 7.6 8 7.4 8 10M8 13v.4"

# Glyphs around the middle of a badge.
_GLYPHS = {
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
_GLYPH_UNKNOWN = "M-2-2.200c.2-2.8 4.2-2.6 4-.1C1.8-.4 0-.6 0 1.200M0 3.700V4"

# -------------------------------------------------------------------------------------------------------- style

_LIGHT = {
    "card": "#fafbfc", "edge": "#dfe4ea", "box": "#ffffff", "border": "#b4bfcc", "text": "#1c2330", "muted": "#566274",
    "line": "#74818f", "loop": "#9a5b00", "on": "#ffffff", "yes": "#12703a", "no": "#b3261e",
    "control": "#475569", "ai": "#7c3aed", "compute": "#2563eb", "integration": "#0b8378", "codegen": "#b45f06",
    "utility": "#be185d", "unknown": "#6b7280",
    "pending": "#8391a3", "running": "#2563eb", "paused": "#946200", "completed": "#15803d", "failed": "#d32020",
    "aborted": "#9f1239", "skipped": "#6b7280", "maxiter_reached": "#0e7490", "interrupted": "#c2410c",
}  # fmt: skip
_DARK = {
    "card": "#15181d", "edge": "#2b313a", "box": "#21262e", "border": "#4b5665", "text": "#eef1f5", "muted": "#a9b4c2",
    "line": "#8693a3", "loop": "#e0a458", "on": "#15181d", "yes": "#5fd68a", "no": "#ff8f85",
    "control": "#a3b1c4", "ai": "#b197fc", "compute": "#6ea8fe", "integration": "#3fd0bf", "codegen": "#f2b34c",
    "utility": "#f688be", "unknown": "#a3a9b3",
    "pending": "#7b8898", "running": "#6ea8fe", "paused": "#f2c94c", "completed": "#57d38c", "failed": "#ff7b72",
    "aborted": "#fb7f9a", "skipped": "#9aa3af", "maxiter_reached": "#38c6d9", "interrupted": "#ff9c57",
}  # fmt: skip
_FONT = "Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif"
_STATES = ("running", "paused", "completed", "failed", "aborted", "skipped", "maxiter_reached", "interrupted")


def _shape_rules(p: str) -> str:
    """What does not depend on the theme."""
    p = f".{p}"
    return (
        f"{p}drawing text{{font-family:{_FONT}}}"
        f"{p}label{{font-size:{LABEL_SIZE:g}px;font-weight:600}}{p}sub{{font-size:{SUBTITLE_SIZE:g}px}}"
        f"{p}tag text{{font-size:{ARROW_LABEL_SIZE:g}px}}{p}tag {p}branch{{font-weight:600}}"
        f"{p}runs text{{font-size:10px;font-weight:600;text-anchor:middle}}"
        f"{p}line{{fill:none;stroke-width:1.6;stroke-linejoin:round}}{p}back {p}line{{stroke-dasharray:6 4}}"
        f"{p}box{{stroke-width:1.3;stroke-linejoin:round}}{p}inner{{fill:none}}{p}tile{{fill-opacity:.14}}"
        f"{p}icon,{p}glyph{{fill:none;stroke-width:1.5;stroke-linecap:round;stroke-linejoin:round}}"
        f"{p}glyph{{stroke-width:1.9}}"
        f'{p}node[data-status="skipped"] {p}box{{stroke-dasharray:4 3}}'
        + ",".join(f'{p}node[data-status="{s}"] {p}box' for s in _STATES if s != "skipped")
        + "{stroke-width:2}"
    )


def _colour_rules(p: str, colours: Mapping[str, str]) -> str:
    """Fills and strokes; *colours* maps names to CSS colours."""
    p = f".{p}"
    c = colours
    rules = [
        f"{p}card{{fill:{c['card']};stroke:{c['edge']}}}",
        f"{p}line{{stroke:{c['line']}}}{p}head{{fill:{c['line']}}}",
        f"{p}back {p}line{{stroke:{c['loop']}}}{p}back {p}head{{fill:{c['loop']}}}",
        f"{p}tag rect{{fill:{c['card']};stroke:{c['edge']}}}{p}tag text,{p}sub{{fill:{c['muted']}}}",
        f"{p}label,{p}tag {p}branch{{fill:{c['text']}}}{p}tag {p}true{{fill:{c['yes']}}}{p}tag {p}false{{fill:{c['no']}}}",
        f"{p}box{{fill:{c['box']};stroke:{c['border']}}}{p}inner{{stroke:{c['border']}}}",
        f"{p}badge circle{{fill:{c['pending']};stroke:{c['card']};stroke-width:1.5}}{p}glyph{{stroke:{c['on']}}}",
        f"{p}runs rect{{fill:{c['box']};stroke:{c['border']}}}{p}runs text{{fill:{c['text']}}}",
    ]
    rules += [f"{p}c-{k} {p}tile{{fill:{c[k]}}}{p}c-{k} {p}icon{{stroke:{c[k]}}}" for k in labels.CATEGORIES]
    rules += [
        f'{p}node[data-status="{s}"] {p}box{{stroke:{c[s]}}}{p}node[data-status="{s}"] {p}badge circle{{fill:{c[s]}}}'
        for s in _STATES
    ]
    return "".join(rules)


def _style(p: str, theme: Theme) -> str:
    if theme == "auto":
        dark = f"@media (prefers-color-scheme:dark){{{_colour_rules(p, _DARK)}}}"
        return _shape_rules(p) + _colour_rules(p, _LIGHT) + dark
    return _shape_rules(p) + _colour_rules(p, _LIGHT if theme == "light" else _DARK)


def _live_css() -> str:
    surfaces = {
        "card": "var(--jp-layout-color0,var(--vscode-editor-background,Canvas))",
        "edge": "var(--jp-border-color2,var(--vscode-panel-border,#8884))",
        "box": "var(--jp-layout-color1,var(--vscode-editor-background,Canvas))",
        "text": "var(--jp-content-font-color1,var(--vscode-editor-foreground,CanvasText))",
        "muted": "var(--jp-content-font-color2,var(--vscode-descriptionForeground,CanvasText))",
        "on": "var(--jp-layout-color1,var(--vscode-editor-background,Canvas))",
    }
    light = ";".join(f"--dp-{k}:{surfaces.get(k, v)}" for k, v in _LIGHT.items())
    dark = ";".join(f"--dp-{k}:{v}" for k, v in _DARK.items() if k not in surfaces)
    is_dark = ",".join(
        f"{host} .dp-drawing" for host in ('[data-jp-theme-light="false"]', ".vscode-dark", ".vscode-high-contrast")
    )
    states = (*_STATES, "pending")
    show = ",".join(f'.dp-node[data-status="{s}"] .dp-badge,.dp-node[data-status="{s}"] .dp-g-{s}' for s in states)
    # A glow, so that the border still tells the state.
    glow = "drop-shadow(0 0 5px var(--jp-brand-color1,var(--vscode-focusBorder,Highlight)))"
    pulse = '.dp-node[data-status="running"] .dp-badge circle{animation:dp-pulse 1.4s ease-in-out infinite}'
    return "\n".join(
        [
            f".dp-drawing{{{light};font-family:var(--jp-ui-font-family,var(--vscode-font-family,{_FONT}))}}",
            f"{is_dark}{{{dark}}}",
            _shape_rules("dp-"),
            ".dp-drawing text{font-family:inherit}",
            _colour_rules("dp-", {k: f"var(--dp-{k})" for k in _LIGHT}),
            ".dp-badge,.dp-glyph,.dp-runs{display:none}",
            f"{show}{{display:inline}}",
            '.dp-node[data-runs]:not([data-runs="0"]):not([data-status=""]) .dp-runs{display:inline}',
            ".dp-node{cursor:pointer;outline:none}",
            f".dp-node:focus-visible .dp-box,.dp-node[data-selected] .dp-box{{stroke-width:2.6;filter:{glow}}}",
            f"@media (prefers-reduced-motion:no-preference){{{pulse}@keyframes dp-pulse{{50%{{opacity:.45}}}}}}",
        ]
    )


LIVE_CSS = _live_css()
"""Style sheet for pages that hold live drawings; every rule begins with `.dp-` or needs it."""


# --------------------------------------------------------------------------------------------------------- text


def overview(
    diagram: DomainDiagram, layout: Layout, *, status: Mapping[str, NodeLook] | None = None, theme: Theme = "auto", title: str | None = None
) -> str | None:
    """The whole of a drawing that is wider than the page, for the width of the page; None for one that fits."""
    if layout.width <= PAGE:
        return None
    return draw(diagram, status=status, theme=theme, title=title, layout=layout, overview=PAGE)


def text_tree(diagram: DomainDiagram, status: Mapping[str, NodeLook] | None = None, *, width: int = 100) -> str:
    """The graph as lines of text, in flow order, at most *width* characters a line.

    A single successor stands under its node, several as branches; a node met again is only named, with `↩`.
    """
    nodes = {n.id: n for n in diagram.nodes}
    persons = labels.persons_by_reference(diagram)
    outgoing: dict[str, list[DomainArrow]] = {}
    entered: set[str] = set()
    for arrow in diagram.arrows:
        if arrow.source in nodes and arrow.target in nodes:
            outgoing.setdefault(arrow.source, []).append(arrow)
            if arrow.source != arrow.target:
                entered.add(arrow.target)
    lines: list[str] = []
    seen: set[str] = set()
    for root in [*(i for i in nodes if i not in entered), *nodes]:
        # (node, arrow that led here, what stands before it, what stands before its successors)
        stack: list[tuple[str, DomainArrow | None, str, str]] = [] if root in seen else [(root, None, "", "")]
        while stack:
            node_id, arrow, lead, under = stack.pop()
            again = node_id in seen
            lines.append(_row(nodes[node_id], arrow, lead, again, status, persons, width))
            if again:
                continue
            seen.add(node_id)
            below = outgoing.get(node_id, [])
            if len(below) == 1:
                stack.append((below[0].target, below[0], under, under))
                continue
            deep = len(under) < 36  # deeper trees stop moving to the right
            for i, a in enumerate(reversed(below)):
                joint, bar = ("└─ ", "   ") if i == 0 else ("├─ ", "│  ")
                stack.append((a.target, a, under + joint, under + bar if deep else under))
    return "\n".join(lines) or "(no nodes)"


def _row(
    node: DomainNode,
    arrow: DomainArrow | None,
    lead: str,
    again: bool,
    status: Mapping[str, NodeLook] | None,
    persons: Mapping[str, tuple[str, str]],
    width: int,
) -> str:
    branch, label = labels.arrow_words(arrow, limit=24) if arrow else ("", "")
    said = " ".join(isolate(w) for w in (branch, label) if w)
    way = (f"[{said}] → " if said else "→ ") if arrow else ""
    look = None if status is None else status.get(node.id) or NodeLook(Status.PENDING)
    mark = f"{labels.status_look(look.status).glyph} " if look else ""
    count = f" ×{look.runs}" if look and look.runs else ""
    name = isolate(labels.cut_at(t, 40) if len(t := labels.title(node)) > 40 else t)
    if again:
        tail = " ↩"
    elif look and look.note:
        tail = f" · {isolate(clean(look.note))}"
    else:
        tail = f" · {isolate(sub)}" if (sub := labels.subtitle(node, persons)) else ""
    row = f"{lead}{way}{mark}{name}{count}{tail}"
    return labels.cut_at(row, width) if len(row) > width else row

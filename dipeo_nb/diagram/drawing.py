"""Drawings of a diagram: a self-contained SVG, a live one for the view of a run, and a tree of text.

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
from typing import TYPE_CHECKING

from dipeo_nb.common.moved import moved_names
from dipeo_nb.diagram import labels
from dipeo_nb.diagram.drawing_shapes import (
    DIFFERENCE_GLYPHS,
    GLYPH_UNKNOWN,
    GLYPHS,
    ICON_UNKNOWN,
    ICONS,
    arrow_path,
    fmt,
    is_round,
    outline_path,
)
from dipeo_nb.diagram.drawing_style import Theme, style_sheet
from dipeo_nb.diagram.labels import NodeLook, clean, escape, isolate
from dipeo_nb.diagram.layout import ARROW_LABEL_SIZE, CHAMFER, ICON_SPACE, PAGE, SUBTITLE_SIZE, Face, Layout, place
from dipeo_nb.diagram.routing import Box, Point
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import Status
from dipeo_nb.errors import ValidationError


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
        live: for the view of a run: colours come from the page, all states are prepared, `theme` is not
            used.
        layout: of an earlier `place(diagram)`, to save doing it again.
        overview: pixels of width at which it is to be taken in whole: labels are of a size that can be read there, as far as
            boxes are large enough for them, and details are left out.

    Raises:
        ValidationError: an unknown theme, or a width that is not positive.
    """
    if theme not in ("auto", "light", "dark"):
        raise ValidationError(f"'{clean(theme, 40)}' is not a theme.", hint="Use 'auto', 'light' or 'dark'.")
    if width is not None and width <= 0:
        raise ValidationError(f"A drawing cannot be {width} pixels wide.", hint="Use a positive number.")
    name = title or (diagram.metadata.name if diagram.metadata else None) or "diagram"
    brush = (_OverviewBrush if overview else _Brush)(diagram, layout or place(diagram), status, live)
    if isinstance(brush, _OverviewBrush):
        brush.scale = min(1.0, (overview or PAGE) / brush.layout.width)
    return brush.svg(name, theme, width)


class _Brush:
    def __init__(self, diagram: DomainDiagram, layout: Layout, status: Mapping[str, NodeLook] | None, live: bool) -> None:
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
            parts.append(f"<style>{style_sheet(self.p, theme)}{self._more_style()}</style>")
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
        state = f' data-status="{escape(clean(look.status, 40)) if look else ""}" data-runs="{look.runs if look else 0}"'
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
            f'<text class="{p}label" x="{ICON_SPACE:g}" y="{fmt(first + 16 * i)}">{escape(line)}</text>'
            for i, line in enumerate(face.lines)
        )
        below = first + 16 * len(face.lines)
        category = labels.category(node)
        return (
            f'<g class="{p}node {p}c-{category}" data-node="{escape(clean(node.id))}"{state}{acts} '
            f'transform="translate({fmt(box.x)} {fmt(box.y)})"><title>{spoken}</title>'
            f"{outline_path(node.type, box.w, box.h, p)}"
            f'<rect class="{p}tile" x="10" y="{fmt(half - 14)}" width="28" height="28" rx="{14 if is_round(node.type) else 8}"/>'
            f'<path class="{p}icon" transform="translate(16 {fmt(half - 8)})" d="{ICONS.get(node.type, ICON_UNKNOWN)}"/>'
            f'{text}<text class="{p}sub" x="{ICON_SPACE:g}" y="{fmt(below)}">{escape(sub)}</text>'
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
            glyphs = "".join(f'<path class="{p}glyph {p}g-{s}" d="{d}"/>' for s, d in GLYPHS.items())
            runs = look.runs if look else 0
        else:
            assert look is not None
            glyphs = (
                f'<path class="{p}glyph" d="{GLYPHS.get(look.status) or DIFFERENCE_GLYPHS.get(look.status, GLYPH_UNKNOWN)}"/>'
            )
            runs = look.runs
        badge = f'<g class="{p}badge" transform="translate({fmt(x)} 0)"><circle r="9.5"/>{glyphs}</g>'
        if not runs and not self.live:
            return badge
        count = f"×{runs}"
        pill = 34.0 if self.live else labels.measure(count, 10, bold=True) + 12
        return badge + (
            f'<g class="{p}runs" transform="translate({fmt(x - 14 - pill / 2)} 0)">'
            f'<rect x="{fmt(-pill / 2)}" y="-8" width="{fmt(pill)}" height="16" rx="8"/><text y="3.6">{count}</text></g>'
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
        line, head = arrow_path(points)
        return (
            f'<g class="{p}arrow{back}" data-arrow="{escape(clean(arrow.id))}" data-source="{escape(clean(arrow.source))}" '
            f'data-target="{escape(clean(arrow.target))}"><title>{escape(" · ".join(words))}</title>'
            f'<path class="{p}line" d="{line}"/><path class="{p}head" d="{head}"/></g>'
        )

    def _tag(self, arrow_id: str, box: Box, branch: str, label: str) -> str:
        p = self.p
        x = box.x + 7
        y = fmt(box.y + box.h / 2 + 3.7)
        texts = ""
        if branch:
            kind = {"true": f" {p}true", "false": f" {p}false"}.get(branch, "")
            texts = f'<text class="{p}branch{kind}" x="{fmt(x)}" y="{y}">{escape(branch)}</text>'
            x += labels.measure(branch, ARROW_LABEL_SIZE, bold=True) + 6
        if label:
            texts += f'<text x="{fmt(x)}" y="{y}">{escape(label)}</text>'
        return (
            f'<g class="{p}tag" data-of="{escape(clean(arrow_id))}"><rect x="{fmt(box.x)}" y="{fmt(box.y)}" width="{fmt(box.w)}" height="{fmt(box.h)}" rx="9"/>'
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
        lines = (
            []
            if not most
            else labels.wrap(title, room, size, bold=True)
            if most > 1
            else [labels.fit(title, room, size, bold=True)]
        )
        first = box.h / 2 + size * (0.35 - 0.525 * (len(lines) - 1))
        text = "".join(
            f'<text class="{p}label" x="{fmt(box.w / 2)}" y="{fmt(first + 1.05 * size * i)}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        return (
            f'<g class="{p}node {p}c-{labels.category(node)}" data-node="{escape(clean(node.id))}"{state} '
            f'transform="translate({fmt(box.x)} {fmt(box.y)})"><title>{escape(", ".join(isolate(w) for w in words))}</title>'
            f"{outline_path(node.type, box.w, box.h, p)}{text}</g>"
        )


_OVERVIEW_TEXT = 10.6
"""Pixels of labels in an overview, as they are shown."""


def overview(
    diagram: DomainDiagram,
    layout: Layout,
    *,
    status: Mapping[str, NodeLook] | None = None,
    theme: Theme = "auto",
    title: str | None = None,
) -> str | None:
    """The whole of a drawing that is wider than the page, for the width of the page; None for one that fits."""
    if layout.width <= PAGE:
        return None
    return draw(diagram, status=status, theme=theme, title=title, layout=layout, overview=PAGE)


if not TYPE_CHECKING:  # until 0.2
    __getattr__ = moved_names(
        __name__,
        {
            "text_tree": "dipeo_nb.diagram.text_tree",
        },
    )

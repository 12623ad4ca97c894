"""Drawing a diagram as SVG, and as a tree of text.

The SVG is self-contained: no script, no reference to anything outside, no id (so several in one page never disturb each
other). Every text from the diagram is escaped, stripped of control characters, isolated (right-to-left text stays in its
box) and cut. Status is told by colour and by a sign, never by colour alone.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from dipeo_nb.diagram.layout import Box, Point, place
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.nodes import NODE_SPECS

MARGIN = 22.0
"""Pixels around the drawing."""
FONT = "Inter, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Noto Sans', sans-serif"


class NodeLook(NamedTuple):
    """What a run says about a node."""

    status: str = "pending"
    runs: int = 0
    note: str = ""
    """Replaces the second line."""


CATEGORY_COLORS = {
    NodeCategory.CONTROL: ("#475569", "#94a3b8"),
    NodeCategory.AI: ("#7c3aed", "#a78bfa"),
    NodeCategory.COMPUTE: ("#2563eb", "#60a5fa"),
    NodeCategory.INTEGRATION: ("#0f766e", "#2dd4bf"),
    NodeCategory.CODEGEN: ("#b45309", "#fbbf24"),
    NodeCategory.UTILITY: ("#4b5563", "#9ca3af"),
}
"""Category → colour on light, on dark."""
STATUS_COLORS = {
    "running": ("#1d4ed8", "#60a5fa"),
    "completed": ("#15803d", "#4ade80"),
    "failed": ("#b91c1c", "#f87171"),
    "skipped": ("#6b7280", "#9ca3af"),
    "maxiter_reached": ("#15803d", "#4ade80"),
    "aborted": ("#c2410c", "#fb923c"),
    "interrupted": ("#c2410c", "#fb923c"),
}
STATUS_SIGNS = {
    "running": '<path d="M-2.6 -4 L4 0 L-2.6 4 Z" fill="#fff"/>',
    "completed": '<path d="M-3.6 0.2 L-1 3 L4 -3" fill="none" stroke="#fff" stroke-width="2"/>',
    "failed": '<path d="M-3 -3 L3 3 M3 -3 L-3 3" stroke="#fff" stroke-width="2"/>',
    "skipped": '<path d="M-3.6 0 L3.6 0" stroke="#fff" stroke-width="2"/>',
    "maxiter_reached": '<path d="M-4 0.2 L-1.6 2.8 L2.6 -3 M3.6 -3.4 L3.6 3.4" fill="none" stroke="#fff" stroke-width="1.7"/>',
    "aborted": '<rect x="-2.8" y="-2.8" width="5.6" height="5.6" fill="#fff"/>',
    "interrupted": '<path d="M0 -4 L0 1 M0 3.2 L0 4.2" stroke="#fff" stroke-width="2"/>',
}
STATUS_WORDS = {
    "pending": "not run",
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "skipped": "skipped",
    "maxiter_reached": "completed, at its limit",
    "aborted": "aborted",
    "interrupted": "interrupted",
}
STATUS_MARKS = {
    "running": ">", "completed": "+", "failed": "!", "skipped": "-", "maxiter_reached": "+", "aborted": "x", "interrupted": "?",
}  # fmt: skip
ICONS = {
    "start": '<path d="M-3.5 -5 L5 0 L-3.5 5 Z" fill="#fff"/>',
    "endpoint": '<rect x="-4.2" y="-4.2" width="8.4" height="8.4" rx="1.5" fill="#fff"/>',
    "person_job": '<circle cx="0" cy="-3" r="3" fill="#fff"/><path d="M-5.5 6 C-5.5 1 5.5 1 5.5 6 Z" fill="#fff"/>',
    "condition": '<path d="M-5 0 L0 -5 L5 0 L0 5 Z" fill="none" stroke="#fff" stroke-width="1.9"/>',
    "code_job": '<path d="M-2.5 -4 L-6 0 L-2.5 4 M2.5 -4 L6 0 L2.5 4" fill="none" stroke="#fff" stroke-width="1.8"/>',
    "db": '<ellipse cx="0" cy="-3.6" rx="5" ry="2" fill="#fff"/><path d="M-5 -2 L-5 4 C-5 6.4 5 6.4 5 4 L5 -2 C5 0.2 -5 0.2 -5 -2 Z" fill="#fff"/>',
    "user_response": '<path d="M-6 -5 H6 V3 H0 L-4 6.5 V3 H-6 Z" fill="#fff"/>',
    "api_job": '<circle r="5.2" fill="none" stroke="#fff" stroke-width="1.6"/><path d="M-5.2 0 H5.2 M0 -5.2 C3.4 -2 3.4 2 0 5.2 C-3.4 2 -3.4 -2 0 -5.2" fill="none" stroke="#fff" stroke-width="1.2"/>',
    "sub_diagram": '<rect x="-6" y="-5.5" width="5" height="4.2" fill="#fff"/><rect x="1" y="1.3" width="5" height="4.2" fill="#fff"/><path d="M-3.5 -1.3 V3.4 H1" fill="none" stroke="#fff" stroke-width="1.5"/>',
}
"""Node type → picture around (0, 0), white; other types show the first letters of their type."""

LIGHT = {
    "page": "#ffffff",
    "box": "#ffffff",
    "border": "#cbd5e1",
    "text": "#0f172a",
    "muted": "#526077",
    "edge": "#64748b",
}
DARK = {
    "page": "#1b1f27",
    "box": "#262b36",
    "border": "#4b5567",
    "text": "#f1f5f9",
    "muted": "#a9b4c6",
    "edge": "#94a3b8",
}


def draw(
    diagram: DomainDiagram,
    *,
    status: Mapping[str, NodeLook] | None = None,
    theme: str = "auto",
    title: str | None = None,
    width: float | None = None,
    live: bool = False,
) -> str:
    """The diagram as SVG text.

    Args:
        status: node id → how it looks; None draws the bare diagram.
        theme: `light`, `dark`, or `auto` (light, and dark where the reader's system is).
        title: what screen readers are told.
        width: pixels; None for the natural width.
        live: without colours of its own, for a page that has `LIVE_CSS`: nodes are focusable groups with `data-node`
            and `data-status`, which a script may change.
    """
    layout = place(diagram)
    full_width, full_height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    scale = 1.0 if width is None or not full_width else width / full_width
    looks = status or {}
    mark = (
        "dipeo-live"
        if live
        else "dipeo-" + hashlib.blake2b(repr((diagram, looks, theme)).encode(), digest_size=5).hexdigest()
    )
    name = clean(title or "Diagram", 200)
    arrows = {a.id: a for a in diagram.arrows}
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{mark}" role="img" aria-label="{escape(_described(diagram, name))}" '
            f'width="{full_width * scale:.0f}" height="{full_height * scale:.0f}" viewBox="0 0 {full_width:.0f} {full_height:.0f}" '
            f'font-family="{FONT}">'
        ),
        "" if live else f"<style>{_style(mark, theme)}</style>",
        f"<title>{escape(name)}</title>",
        "" if live else f'<rect class="page" width="{full_width:.0f}" height="{full_height:.0f}" rx="10"/>',
        f'<g transform="translate({MARGIN:.0f} {MARGIN:.0f})">',
    ]
    parts += [_edge(arrows[i], points) for i, points in layout.edges.items()]
    persons = {p.id: p.label for p in diagram.persons}
    parts += [_node(n, layout.nodes[n.id], looks.get(n.id), persons, live) for n in diagram.nodes]
    # Labels last: they stay readable where an arrow passes below them.
    parts += [_edge_labels(arrows[i], points, layout.labels[i]) for i, points in layout.edges.items()]
    parts.append("</g></svg>")
    return "".join(parts)


def _described(diagram: DomainDiagram, name: str) -> str:
    return f"{name}: {len(diagram.nodes)} nodes, {len(diagram.arrows)} arrows"


def _node(node: DomainNode, box: Box, look: NodeLook | None, persons: Mapping[str, str], live: bool) -> str:
    spec = NODE_SPECS.get(node.type)
    category = spec.META.category if spec else NodeCategory.UTILITY
    shape = _shape(node.type, box)
    note = look.note if look is not None and look.note else subtitle(node, persons)
    state = look.status if look is not None else "pending"
    words = f"{clean(node.label, 200)}, {node.type}" + (
        f", {STATUS_WORDS.get(state, state)}" if look is not None else ""
    )
    attributes = (
        f' tabindex="0" role="button" aria-pressed="false" data-node="{escape(node.id, quote=True)}"' if live else ""
    )
    # Room for the text: the icon on the left, the sign of the status on the right.
    room = box.width - 62
    text = [
        (
            f'<g class="node {category} s-{escape(state)}" data-status="{escape(state)}"{attributes} '
            f'transform="translate({box.x:.1f} {box.y:.1f})">'
        ),
        f"<title>{escape(words)}</title>",
        shape,
        f'<g class="icon" transform="translate(22 {box.height / 2:.1f})"><circle class="disc" r="12"/>{_icon(node.type)}</g>',
        f'<text class="label" x="42" y="{box.height / 2 - 4:.1f}">{_shown(node.label, room, 13)}</text>',
        f'<text class="note" x="42" y="{box.height / 2 + 13:.1f}">{_shown(note, room - 4, 10.5)}</text>',
    ]
    corner = f"translate({box.width - 3:.1f} 3)"
    if live:
        signs = "".join(f'<g class="sign is-{s}"><circle r="9"/>{path}</g>' for s, path in STATUS_SIGNS.items())
        text.append(f'<g transform="{corner}">{signs}</g>')
        text.append(f'<text class="count" x="{box.width - 14:.1f}" y="{box.height - 9:.1f}"></text>')
    elif look is not None:
        if state in STATUS_SIGNS:
            text.append(f'<g class="sign" transform="{corner}"><circle r="9"/>{STATUS_SIGNS[state]}</g>')
        if look.runs > 1:
            text.append(f'<text class="count" x="{box.width - 14:.1f}" y="{box.height - 9:.1f}">×{look.runs}</text>')
    text.append("</g>")
    return "".join(text)


def _shape(kind: str, box: Box) -> str:
    w, h = box.width, box.height
    if kind == "condition":
        return f'<path class="box" d="M12 0 H{w - 12:.1f} L{w:.1f} {h / 2:.1f} L{w - 12:.1f} {h:.1f} H12 L0 {h / 2:.1f} Z"/>'
    radius = h / 2 if kind in ("start", "endpoint") else 10
    return f'<rect class="box" width="{w:.1f}" height="{h:.1f}" rx="{radius:.1f}"/>'


def _icon(kind: str) -> str:
    if kind in ICONS:
        return ICONS[kind]
    letters = "".join(part[:1] for part in clean(kind, 30).split("_"))[:2].upper() or "?"
    return f'<text class="letters" y="3.6">{escape(letters)}</text>'


def subtitle(node: DomainNode, persons: Mapping[str, str] | None = None) -> str:
    """The second line of a node: what it does, in a few words."""
    data = node.data
    match node.type:
        case "person_job":
            person = str(data.get("person") or "nobody")
            return f"{(persons or {}).get(person, person.removeprefix('person_'))} · up to {data.get('max_iteration', 100)}×"
        case "condition":
            kind = str(data.get("condition_type") or "custom")
            return str(data.get("expression") or "") if kind == "custom" else kind.replace("_", " ")
        case "code_job":
            source = str(data.get("file_path") or "") or next(
                (line.strip() for line in str(data.get("code") or "").splitlines() if line.strip()), ""
            )
            return source or str(data.get("language") or "python")
        case "db":
            files: Any = data.get("file")
            return f"{data.get('operation') or 'read'} {', '.join(map(str, files)) if isinstance(files, list) else files or ''}"
        case "endpoint":
            return f"saves {data['file_name']}" if data.get("save_to_file") and data.get("file_name") else "end"
        case "start":
            return "start"
        case "user_response":
            return str(data.get("prompt") or "asks the user")
        case "sub_diagram":
            return str(data.get("diagram_name") or "inline")
        case "api_job":
            return f"{data.get('method') or 'GET'} {data.get('url') or ''}"
        case _:
            return node.type.replace("_", " ")


def _edge(arrow: DomainArrow, points: tuple[Point, ...]) -> str:
    branch = {"condtrue": " yes", "condfalse": " no", "error": " no"}.get(arrow.source_handle, "")
    what = [clean(arrow.label, 80)] if arrow.label else []
    what += [arrow.content_type] if arrow.content_type else []
    tip = f"<title>{escape(', '.join(what))}</title>" if what else ""
    (ax, ay), (bx, by) = points[-2], points[-1]
    angle = _direction(ax, ay, bx, by)
    head = (
        f'<path class="head" transform="translate({bx:.1f} {by:.1f}) rotate({angle:.0f})" d="M0 0 L-9 -4.5 L-9 4.5 Z"/>'
    )
    return f'<g class="edge{branch}">{tip}<path class="line" d="{_rounded(points)}"/>{head}</g>'


def _direction(ax: float, ay: float, bx: float, by: float) -> float:
    if abs(bx - ax) >= abs(by - ay):
        return 0 if bx >= ax else 180
    return 90 if by >= ay else 270


def _rounded(points: tuple[Point, ...], radius: float = 9.0) -> str:
    """A line through the points, with rounded corners."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        before, after = max(abs(bx - ax), abs(by - ay)), max(abs(cx - bx), abs(cy - by))
        r = min(radius, before / 2, after / 2)
        if r <= 0:
            continue
        path.append(
            f"L{bx - (bx - ax) / before * r:.1f} {by - (by - ay) / before * r:.1f} "
            f"Q{bx:.1f} {by:.1f} {bx + (cx - bx) / after * r:.1f} {by + (cy - by) / after * r:.1f}"
        )
    path.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return "".join(path)


def _edge_labels(arrow: DomainArrow, points: tuple[Point, ...], anchor: Point) -> str:
    text = ""
    if arrow.source_handle in ("condtrue", "condfalse", "error", "success", "results"):
        word = {"condtrue": "true", "condfalse": "false"}.get(arrow.source_handle, arrow.source_handle)
        (ax, ay), (bx, by) = points[0], points[1]
        length = max(abs(bx - ax), abs(by - ay)) or 1.0
        away = min(22.0, length / 2 + 4)
        text += _pill(ax + (bx - ax) / length * away, ay + (by - ay) / length * away, word, arrow.source_handle)
    if arrow.label:
        x, y = anchor
        text += _pill(x, y, arrow.label, "name")
    return text


def _pill(x: float, y: float, text: str, kind: str) -> str:
    shown = cut(clean(text, 200), 150, 10)
    width = measure(shown, 10) + 10
    return (
        f'<g class="pill {kind}" transform="translate({x:.1f} {y:.1f})"><rect x="{-width / 2:.1f}" y="-8" width="{width:.1f}" '
        f'height="16" rx="8"/><text y="3.5">{_isolated(shown)}</text></g>'
    )


# Text.

_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]")


def clean(text: Any, limit: int) -> str:
    """One line of text that is safe in XML and cannot turn its surroundings around, cut to *limit* characters."""
    line = str(text)[: limit * 4]
    line = line.encode("utf-8", "replace").decode("utf-8", "replace")
    line = _INVISIBLE.sub("", line)
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in line)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def measure(text: str, size: float) -> float:
    """About how many pixels wide a text is in our font."""
    total = 0.0
    for c in text:
        if unicodedata.combining(c):
            continue
        if unicodedata.east_asian_width(c) in "WF":
            total += 1.0
        elif c in "iljtfI.,:;'|!()[] ":
            total += 0.32
        elif c in "mwMW@%":
            total += 0.88
        else:
            total += 0.65 if c.isupper() else 0.57
    return total * size


def cut(text: str, width: float, size: float) -> str:
    """The text, cut with … so that it fits into *width* pixels."""
    if measure(text, size) <= width:
        return text
    while text and measure(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _shown(text: Any, width: float, size: float) -> str:
    return _isolated(cut(clean(text, 200), width, size))


def _isolated(text: str) -> str:
    """Escaped, and isolated from the text around it when it may run from right to left (Unicode FSI … PDI)."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{escape(text)}\u2069"
    return escape(text)


# Colours.


def _style(mark: str, theme: str) -> str:
    if theme == "auto":
        return f"{_rules(mark, 0)}@media (prefers-color-scheme:dark){{{_rules(mark, 1)}}}"
    return _rules(mark, 1 if theme == "dark" else 0)


def _rules(mark: str, which: int) -> str:
    c = (LIGHT, DARK)[which]
    m = f".{mark}"
    rules = [
        f"{m} .page{{fill:{c['page']}}}{m} .box{{fill:{c['box']};stroke:{c['border']};stroke-width:1.4}}",
        f"{m} .label{{fill:{c['text']};font-size:13px;font-weight:600}}{m} .note{{fill:{c['muted']};font-size:10.5px}}",
        f"{m} .count{{fill:{c['muted']};font-size:10.5px;font-weight:600;text-anchor:end}}",
        f"{m} .letters{{fill:#fff;font-size:10px;font-weight:600;text-anchor:middle}}",
        f"{m} .line{{fill:none;stroke:{c['edge']};stroke-width:1.6}}{m} .head{{fill:{c['edge']}}}",
        f"{m} .pill rect{{fill:{c['page']};stroke:{c['border']}}}{m} .pill text{{fill:{c['muted']};font-size:10px;text-anchor:middle}}",
        *(f"{m} .{category} .disc{{fill:{colors[which]}}}" for category, colors in CATEGORY_COLORS.items()),
        *(
            f"{m} .s-{status} .box{{stroke:{colors[which]};stroke-width:2.2}}{m} .s-{status} .sign circle{{fill:{colors[which]}}}"
            for status, colors in STATUS_COLORS.items()
        ),
        f"{m} .s-skipped .box{{stroke-dasharray:5 4}}{m} .s-running .box{{stroke-width:3}}",
    ]
    return "".join(rules)


def _live_css() -> str:
    m = ".dipeo-live"
    text = "var(--jp-content-font-color1, var(--vscode-editor-foreground, CanvasText))"
    muted = "var(--jp-content-font-color2, var(--vscode-descriptionForeground, GrayText))"
    page = "var(--jp-layout-color1, var(--vscode-editor-background, Canvas))"
    border = "var(--jp-border-color1, var(--vscode-panel-border, #8888))"
    brand = "var(--jp-brand-color1, var(--vscode-focusBorder, Highlight))"
    rules = [
        f"{m}{{max-width:100%;height:auto;display:block}}",
        f"{m} .box{{fill:{page};stroke:{border};stroke-width:1.4}}{m} .node{{cursor:pointer;outline:none}}",
        f"{m} .label{{fill:{text};font-size:13px;font-weight:600}}{m} .note{{fill:{muted};font-size:10.5px}}",
        f"{m} .count{{fill:{muted};font-size:10.5px;font-weight:600;text-anchor:end}}",
        f"{m} .letters{{fill:#fff;font-size:10px;font-weight:600;text-anchor:middle}}",
        f"{m} .line{{fill:none;stroke:{muted};stroke-width:1.6}}{m} .head{{fill:{muted}}}",
        f"{m} .pill rect{{fill:{page};stroke:{border}}}{m} .pill text{{fill:{muted};font-size:10px;text-anchor:middle}}",
        f"{m} .sign{{display:none}}",
        *(f"{m} .{category} .disc{{fill:{colors[0]}}}" for category, colors in CATEGORY_COLORS.items()),
        *(
            f'{m} .node[data-status="{s}"] .box{{stroke:{_live_color(s)};stroke-width:2.2}}'
            f'{m} .node[data-status="{s}"] .is-{s}{{display:inline}}{m} .is-{s} circle{{fill:{_live_color(s)}}}'
            for s in STATUS_COLORS
        ),
        f'{m} .node[data-status="skipped"] .box{{stroke-dasharray:5 4}}',
        f'{m} .node[data-status="running"] .box{{stroke-width:3;stroke-dasharray:9 5;animation:dipeo-run 0.9s linear infinite}}',
        "@keyframes dipeo-run{to{stroke-dashoffset:-28}}",
        f"@media (prefers-reduced-motion:reduce){{{m} .node .box{{animation:none!important}}}}",
        f'{m} .node[aria-pressed="true"] .box{{fill:var(--jp-layout-color2, var(--vscode-list-hoverBackground, #8882))}}',
        f"{m} .node:focus-visible .box{{stroke:{brand};stroke-width:3.4}}",
    ]
    return "\n".join(rules)


def _live_color(status: str) -> str:
    name = {"running": "brand", "completed": "success", "maxiter_reached": "success", "failed": "error"}.get(status)
    light = STATUS_COLORS[status][0]
    return f"var(--jp-{name}-color1, {light})" if name else light


LIVE_CSS = _live_css()
"""Style of `draw(live=True)`: the colours of the page it is in (JupyterLab, VS Code, else the system's)."""


# Text tree.


def text_tree(diagram: DomainDiagram, *, status: Mapping[str, NodeLook] | None = None, width: int = 100) -> str:
    """The diagram as lines of text: nodes in the order they are reached, their arrows below them."""
    looks = status or {}
    labels = {n.id: clean(n.label, 60) for n in diagram.nodes}
    persons = {p.id: p.label for p in diagram.persons}
    leaving: dict[str, list[DomainArrow]] = {n.id: [] for n in diagram.nodes}
    entered: set[str] = set()
    for arrow in diagram.arrows:
        if arrow.source in labels and arrow.target in labels:
            leaving[arrow.source].append(arrow)
            entered.add(arrow.target)
    lines: list[str] = []
    seen: set[str] = set()
    queue = [n.id for n in diagram.nodes if n.id not in entered] + [n.id for n in diagram.nodes]
    nodes = {n.id: n for n in diagram.nodes}
    while queue:
        node_id = queue.pop(0)
        if node_id in seen:
            continue
        seen.add(node_id)
        node, look = nodes[node_id], looks.get(node_id)
        mark = f"[{STATUS_MARKS.get(look.status, ' ')}] " if look else ""
        times = f"  ×{look.runs}" if look and look.runs > 1 else ""
        said = clean(subtitle(node, persons), 60)
        lines.append(clean(f"{mark}{labels[node_id]} ({node.type}) {said}{times}", width))
        for arrow in leaving[node_id]:
            word = {"condtrue": " if true", "condfalse": " if false", "default": ""}.get(
                arrow.source_handle, f" on {arrow.source_handle}"
            )
            name = f" as {clean(arrow.label, 30)}" if arrow.label else ""
            lines.append("  " + clean(f"└─{word} → {labels[arrow.target]}{name}", width - 2))
        queue[:0] = [a.target for a in leaving[node_id]]
    return "\n".join(lines)

"""Style sheets of drawings, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dipeo_nb.diagram import labels
from dipeo_nb.diagram.layout import ARROW_LABEL_SIZE, LABEL_SIZE, SUBTITLE_SIZE

Theme = Literal["auto", "light", "dark"]
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
FONT = "Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif"
STATES = ("running", "paused", "completed", "failed", "aborted", "skipped", "maxiter_reached", "interrupted")


def _shape_rules(p: str) -> str:
    """The rules that do not depend on the theme."""
    p = f".{p}"
    return (
        f"{p}drawing text{{font-family:{FONT}}}"
        f"{p}label{{font-size:{LABEL_SIZE:g}px;font-weight:600}}{p}sub{{font-size:{SUBTITLE_SIZE:g}px}}"
        f"{p}tag text{{font-size:{ARROW_LABEL_SIZE:g}px}}{p}tag {p}branch{{font-weight:600}}"
        f"{p}runs text{{font-size:10px;font-weight:600;text-anchor:middle}}"
        f"{p}line{{fill:none;stroke-width:1.6;stroke-linejoin:round}}{p}back {p}line{{stroke-dasharray:6 4}}"
        f"{p}box{{stroke-width:1.3;stroke-linejoin:round}}{p}inner{{fill:none}}{p}tile{{fill-opacity:.14}}"
        f"{p}icon,{p}glyph{{fill:none;stroke-width:1.5;stroke-linecap:round;stroke-linejoin:round}}"
        f"{p}glyph{{stroke-width:1.9}}"
        f'{p}node[data-status="skipped"] {p}box{{stroke-dasharray:4 3}}'
        + ",".join(f'{p}node[data-status="{s}"] {p}box' for s in STATES if s != "skipped")
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
        for s in STATES
    ]
    return "".join(rules)


def style_sheet(p: str, theme: Theme) -> str:
    """The rules of a drawing that brings its own colours; *p* begins the names of classes."""
    if theme == "auto":
        dark = f"@media (prefers-color-scheme:dark){{{_colour_rules(p, _DARK)}}}"
        return _shape_rules(p) + _colour_rules(p, _LIGHT) + dark
    return _shape_rules(p) + _colour_rules(p, _LIGHT if theme == "light" else _DARK)

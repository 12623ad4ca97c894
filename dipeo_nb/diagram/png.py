"""SVG to PNG with our own font, so that labels show on a machine without any."""

from __future__ import annotations

from pathlib import Path

import resvg_py

from dipeo_nb.diagram.drawing import FONT

FONTS = Path(__file__).parent / "fonts"


def svg_to_png(svg: str, *, width: int | None = None, theme: str = "light") -> bytes:
    """The drawing as PNG.

    Args:
        svg: as `drawing.draw` makes it, with theme `light` or `dark` (PNG cannot follow its reader).
        width: pixels; None for twice the natural width, which is sharp on today's screens.
        theme: only for drawings without a background.
    """
    files = [str(p) for p in sorted(FONTS.glob("*.otf"))]
    svg = svg.replace(FONT, "Inter")
    size = {"zoom": 2} if width is None else {"width": width}
    data = resvg_py.svg_to_bytes(
        svg_string=svg,
        font_files=files,
        font_family="Inter",
        sans_serif_family="Inter",
        background=None if 'class="page"' in svg else {"dark": "#1b1f27"}.get(theme, "#ffffff"),
        **size,
    )
    return bytes(data)

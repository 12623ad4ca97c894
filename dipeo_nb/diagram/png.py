"""SVG to PNG with resvg and the fonts of this package: same picture on every machine, with or without fonts."""

from __future__ import annotations

import base64
import math
import re
import threading
from pathlib import Path
from typing import Literal

from dipeo_nb.common.redaction import logger
from dipeo_nb.errors import NodeExecutionError, ValidationError
from dipeo_nb.workers import WORKERS

FONTS = Path(__file__).parent / "fonts"
"""Inter, regular and semi-bold, reduced to Latin, Greek, Cyrillic and common signs (SIL Open Font License)."""

PIXELS = 24_000_000
"""Pixels of a picture at most; larger drawings are made smaller to fit."""
_SIDE = 30_000
SAVED_PIXELS = (1_000_000, 250_000)
"""Pixels of a picture that a notebook holds at most: it is for what shows no HTML (LaTeX, some viewers), and every output saves one; the
second number counts when the picture would take more than `SAVED_BYTES` otherwise."""
SAVED_BYTES = 36_000
"""Bytes of it at most; a larger one is left out."""
_NOT_IN_INTER = re.compile("[\u0530-\u1dff\u2c00-\ufffc\U00010000-\U0010ffff]")
_DARK_RULES = re.compile(r"@media \(prefers-color-scheme:dark\)\{((?:[^{}]*\{[^{}]*\})*)\}")


def svg_to_png(svg: str, *, width: int | None = None, theme: Literal["light", "dark"] = "light", pixels: int = PIXELS) -> bytes:
    """Render SVG text as PNG.

    The renderer holds the interpreter for as long as it draws, a second and more for hundreds of nodes. Where other threads would
    have to wait, as in a notebook whose runs go on, it draws in a process of its own.

    Args:
        svg: text of a drawing.
        width: pixels, at most 30,000; default: twice the drawing's own width, less for a very large one.
        theme: which side of an `auto` drawing to render; one of a fixed theme stays as it is.
        pixels: of the whole picture, at most; a larger one is made smaller to fit.

    Raises:
        ValidationError: not SVG, a width out of range, or an unknown theme.
        NodeExecutionError: the process that draws was ended.
    """
    if width is not None and not 1 <= width <= _SIDE:
        raise ValidationError(f"A picture cannot be {width} pixels wide.", hint=f"Give 1 to {_SIDE}.")
    if theme not in ("light", "dark"):
        raise ValidationError(f"'{theme}' is not a theme.", hint="Use 'light' or 'dark'.")
    size = re.match(r'<svg [^>]*?viewBox="0 0 ([0-9.]+) ([0-9.]+)"', svg)
    wide, high = (float(size[1]), float(size[2])) if size else (0.0, 0.0)
    if not wide or not high:
        raise ValidationError("This is not a drawing of this package.", hint="Pass the text that draw() returned.")
    most = min(math.sqrt(pixels / (wide * high)), _SIDE / max(wide, high))
    scale = min(width / wide if width else 2.0, most)
    svg = _DARK_RULES.sub(r"\1" if theme == "dark" else "", svg)
    across = max(1, round(wide * scale))
    if threading.active_count() == 1:
        return _drawn(svg, across)
    try:
        return base64.b64decode(WORKERS.call_here(f"{__name__}:encoded", svg, across))
    except OSError:  # where no process can be started
        return _drawn(svg, across)


def saved_picture(svg: str) -> str:
    """A light PNG, in Base64, that is small enough to be saved with every output; empty where there is none."""
    try:
        pictures = (svg_to_png(svg, pixels=pixels) for pixels in SAVED_PIXELS)
        return next((base64.b64encode(one).decode() for one in pictures if len(one) <= SAVED_BYTES), "")
    except NodeExecutionError as error:  # the process that draws is gone; the HTML has the same drawing
        logger(__name__).warning("A drawing is shown without its PNG: %s", error.message)
        return ""


def encoded(svg: str, width: int) -> str:
    """The picture as text, for the parent process."""
    return base64.b64encode(_drawn(svg, width)).decode()


def _drawn(svg: str, width: int) -> bytes:
    from resvg_py import svg_to_bytes

    try:
        return svg_to_bytes(
            svg_string=svg,
            width=width,
            font_files=[str(FONTS / "Inter-Regular.ttf"), str(FONTS / "Inter-SemiBold.ttf")],
            font_family="Inter",
            sans_serif_family="Inter",
            # The machine's fonts are looked through only for scripts that ours lacks: that takes time, and differs.
            skip_system_fonts=not _NOT_IN_INTER.search(svg),
        )
    except ValueError as exc:
        raise ValidationError(f"The drawing is not valid SVG: {exc}.", hint="Pass the text that draw() returned.") from exc

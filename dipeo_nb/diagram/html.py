"""Pages and fragments of HTML around a drawing; no script, nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from dipeo_nb.diagram.drawing import clean
from dipeo_nb.domain.diagnostics import Diagnostic

_PAGE_CSS = """
:root{color-scheme:light dark}
body{font:15px/1.5 -apple-system,"Segoe UI",Roboto,Arial,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.4rem}img{max-width:100%;height:auto}li{margin:.2rem 0}pre{white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse}td,th{border:1px solid #8886;padding:.2rem .6rem;text-align:left;vertical-align:top}
"""


def page(
    title: str, svg: str, diagnostics: Sequence[Diagnostic] = (), *, sections: Iterable[tuple[str, str]] = ()
) -> str:
    """One standalone HTML file: heading, drawing, findings, then *sections* of (heading, HTML that is already safe)."""
    name = escape(clean(title, 200))
    body = [f"<h1>{name}</h1>", figure(svg, title), findings(diagnostics)]
    body += [f"<h2>{escape(heading)}</h2>{content}" for heading, content in sections]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<meta name=viewport content='width=device-width'><title>{name}</title><style>{_PAGE_CSS}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def figure(svg: str, title: str) -> str:
    """The drawing as an image: it shows where scripts, styles and inline SVG are stripped, and cannot disturb its page."""
    data = base64.b64encode(svg.encode("utf-8", "replace")).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(clean(title, 200), quote=True)}" style="max-width:100%">'


def findings(diagnostics: Sequence[Diagnostic]) -> str:
    """Diagnostics as a list; empty text for none."""
    if not diagnostics:
        return ""
    items = "".join(f"<li>{escape(clean(str(d), 600))}</li>" for d in diagnostics)
    return f"<ul>{items}</ul>"

"""HTML around a drawing: a standalone page, and a fragment for a notebook's output.

Neither has a script or loads anything: the page's policy forbids both. The fragment is plain enough for viewers that
strip scripts, styles and inline SVG (GitHub): an image with alternative text, and lists.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import visible
from dipeo_nb.diagram.labels import clean, escape
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity

_SHOWN = 100
"""Findings listed at most."""
_SCHEME = (
    "color-scheme:if(style(--jp-layout-color0:white):light;style(--jp-layout-color0) or style(--vscode-foreground) or "
    "style(--colab-primary-text-color) or style(--marimo-text-font):inherit;else:light)"
)
"""Whether a drawing is light or dark. A page that names no colour scheme is a white one, such as an exported notebook, but a browser gives a
picture in it the scheme of the reader's system. Notebooks and editors that have dark themes say which is theirs, or follow the system. Where
browsers do not know `if()`, it is the system's everywhere."""


def page(
    title: str,
    svg: str,
    diagnostics: Sequence[Diagnostic] = (),
    *,
    sections: Iterable[tuple[str, str | Sequence[Sequence[object]]]] = (),
    subtitle: str = "",
    overview: str | None = None,
) -> str:
    """A standalone HTML page with a drawing.

    Args:
        title: heading and window title.
        svg: text of a static drawing of this package; it is placed inline, so that its tooltips work.
        diagnostics: findings, listed under the drawing.
        sections: (heading, content) shown below; content is text, shown verbatim with its line breaks, or rows of
            a table, the first of them its head.
        subtitle: one line under the heading.
        overview: text of an overview of the drawing, shown above it; its boxes are links to theirs.
    """
    name = escape(clean(title)) or "diagram"
    # The only styles the page allows are the ones in it now.
    styles = [_CSS, *re.findall(r"<style>([^<]*)</style>", svg + (overview or ""))]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in styles)
    policy = f"default-src 'none'; img-src data:; style-src {hashes}; base-uri 'none'; form-action 'none'"
    # The drawing's own style attribute, which the policy would refuse, is in the page's style sheet.
    drawing = _without_style(svg)
    above = ""
    if overview is not None:
        drawing = _numbered(drawing, r'<g id="node-{}" class="{}"')
        linked = _numbered(_without_style(overview), r'<a href="#node-{}"><g class="{}"', r"</g></a>")
        above = f"<div class=overview>{linked}</div>"
    under = f"<p class=sub>{escape(clean(subtitle))}</p>" if subtitle else ""
    rest = "".join(_section(heading, content) for heading, content in sections)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}</title><style>{_CSS}</style></head>\n"
        f'<body><main><h1>{name}</h1>{under}{above}<div class=drawing tabindex=0 role=region aria-label="Drawing">{drawing}</div>'
        f"{findings(diagnostics)}{rest}</main></body></html>\n"
    )


_NODE = re.compile(r'<g class="([\w-]+-node [^"]*)"')


def _without_style(svg: str) -> str:
    return re.sub(r'^(<svg [^>]*?) style="[^"]*"', r"\1", svg, count=1)


def _numbered(svg: str, opening: str, closing: str = "") -> str:
    """A drawing whose nodes begin with *opening*, given their number and class, and in an overview end with *closing*."""
    numbers = itertools.count(1)

    def begun(match: re.Match[str]) -> str:
        return opening.format(next(numbers), match[1])

    if not closing:
        return _NODE.sub(begun, svg)
    *groups, rest = svg.split("</g>")
    found = (_NODE.subn(begun, group) for group in groups)
    return "".join(text + (closing if nodes else "</g>") for text, nodes in found) + rest


def figure(picture: str | bytes, alt: str, *, width: int | None = None, overview: str | None = None) -> str:
    """A fragment with a drawing as an image, for `text/html` of a notebook output.

    Args:
        picture: SVG text, or PNG bytes.
        alt: what the image shows, for those who cannot see it.
        width: pixels; default: the picture's own, never wider than the page.
        overview: SVG text that shows all of a drawing which is wider than the page. The drawing itself then stands below it, in
            a pane that is scrolled, instead of being made too small to be read.
    """
    if overview is None:
        return _image(picture, alt, width=width)
    size = re.match(r'<svg [^>]*?width="(\d+)" height="(\d+)"', picture) if isinstance(picture, str) else None
    high = f"height:min(70vh,{int(size[2]) + 20}px);" if size else "height:70vh;"
    whole = _image(picture, f"{alt}, full size", shrinks=False)
    return (
        f"{_image(overview, alt)}<details open><summary>Full size</summary>"
        f'<div style="overflow:auto;{high}resize:vertical" tabindex="0">{whole}</div></details>'
    )


def _image(picture: str | bytes, alt: str, *, width: int | None = None, shrinks: bool = True) -> str:
    kind, data = ("image/png", picture) if isinstance(picture, bytes) else ("image/svg+xml", _encoded(picture))
    size = f' width="{int(width)}"' if width else ""
    style = "max-width:100%;height:auto" if shrinks else "max-width:none"
    return (
        f'<img src="data:{kind};base64,{base64.b64encode(data).decode("ascii")}" alt="{escape(clean(alt))}"{size} '
        f'style="{style};{_SCHEME}"/>'
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def findings(diagnostics: Sequence[Diagnostic]) -> str:
    """Errors and warnings as a list, the first hundred of them; empty text for none."""
    diagnostics = [d for d in diagnostics if d.severity is not Severity.INFO]
    if not diagnostics:
        return ""
    rows = "".join(
        f"<li class={escape(str(d.severity))}><b>{escape(str(d.severity))}</b> {escape(clean(_without_severity(d), 1000))}</li>"
        for d in diagnostics[:_SHOWN]
    )
    more = f"<li>and {len(diagnostics) - _SHOWN} more</li>" if len(diagnostics) > _SHOWN else ""
    return f"<ul class=findings>{rows}{more}</ul>"


def _without_severity(diagnostic: Diagnostic) -> str:
    return str(diagnostic).replace(f"{diagnostic.severity}[{diagnostic.code}]", f"[{diagnostic.code}]", 1)


def _section(heading: str, content: str | Sequence[Sequence[object]]) -> str:
    head = f"<h2>{escape(clean(heading))}</h2>"
    if isinstance(content, str):
        return f"<section>{head}<pre>{_lines(content)}</pre></section>"
    rows = list(content)
    if not rows:
        return f"<section>{head}<p class=sub>nothing</p></section>"
    first = "".join(f"<th scope=col>{_lines(str(c))}</th>" for c in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_lines(str(c))}</td>" for c in row) + "</tr>" for row in rows[1:])
    return f"<section>{head}<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></section>"


def _lines(text: str) -> str:
    """Text of any length with its line breaks and indents, but without what cannot be shown."""
    return escape(_UNSHOWABLE.sub("�", visible(redactor(text))))


_UNSHOWABLE = re.compile("[\ud800-\udfff\ufffe\uffff]")

_CSS = """
:root{color-scheme:light dark;--text:#1c2330;--muted:#566274;--ground:#fff;--panel:#f4f6f8;--edge:#dfe4ea;
--error:#b3261e;--warning:#8a5a00;--info:#2559c4}
@media (prefers-color-scheme:dark){:root{--text:#eef1f5;--muted:#a9b4c2;--ground:#0f1115;--panel:#191d23;--edge:#2b313a;
--error:#ff8f85;--warning:#f2c26b;--info:#8ab4f8}}
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 Inter,system-ui,-apple-system,'Segoe UI',
'Helvetica Neue',Arial,sans-serif}
main{max-width:1400px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:16px;margin:28px 0 8px}
.sub{color:var(--muted);margin:0 0 12px}
.drawing{margin:14px 0;overflow:auto}.drawing svg{display:block;max-width:none}
.overview{margin:14px 0}.overview svg{display:block;max-width:100%;height:auto}.overview a:hover,.overview a:focus{opacity:.6}
.overview~.drawing{max-height:80vh}.drawing g:target{filter:drop-shadow(0 0 6px var(--info))}
.findings{list-style:none;margin:12px 0;padding:0}
.findings li{padding:6px 12px;margin:4px 0;background:var(--panel);border-left:4px solid var(--edge);border-radius:4px;
overflow-wrap:anywhere}
.findings .error{border-color:var(--error)}.findings .warning{border-color:var(--warning)}
.findings .info{border-color:var(--info)}
.error b{color:var(--error)}.warning b{color:var(--warning)}.info b{color:var(--info)}
pre{background:var(--panel);border:1px solid var(--edge);border-radius:8px;padding:12px;overflow:auto;white-space:pre-wrap;
overflow-wrap:anywhere;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:6px 10px;border-bottom:1px solid var(--edge);white-space:pre-wrap;
overflow-wrap:anywhere}
th{color:var(--muted);font-weight:600}
@media print{.drawing,.overview~.drawing{overflow:visible;max-height:none}.drawing svg{max-width:100%;height:auto}}
"""

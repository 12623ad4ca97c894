"""What GitHub leaves of an output of a notebook.

It converts a notebook with nbconvert, which takes the first of `PRIORITY` that an output has, and lets through what the list of
github.com/gjtorikian/html-pipeline (`SanitizationFilter`) names: no style, no script, no class, no inline SVG; pictures within the page
(`data:`) stay in notebooks. Tags that are not on the list go, and what is in them stays, but for scripts and style sheets.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser

PRIORITY = (
    "application/vnd.jupyter.widget-view+json", "application/javascript", "text/html", "text/markdown", "image/svg+xml", "text/latex",
    "image/png", "image/jpeg", "text/plain",
)  # fmt: skip
TAGS = {
    "h1", "h2", "h3", "h4", "h5", "h6", "br", "b", "i", "strong", "em", "a", "pre", "code", "img", "tt", "div", "ins", "del", "sup",
    "sub", "p", "ol", "ul", "table", "thead", "tbody", "tfoot", "blockquote", "dl", "dt", "dd", "kbd", "q", "samp", "var", "hr", "ruby",
    "rt", "rp", "li", "tr", "td", "th", "s", "strike", "summary", "details",
}  # fmt: skip
ATTRIBUTES = {
    "href", "src", "alt", "title", "align", "valign", "border", "cellpadding", "cellspacing", "colspan", "rowspan", "dir", "width",
    "height", "lang", "open", "scope", "start", "tabindex",
}  # fmt: skip
_EMPTY = {"br", "hr", "img"}
_GONE = {"script", "style"}


def chosen(data: Mapping[str, str]) -> str:
    """The type of an output that is shown."""
    return next((kind for kind in PRIORITY if kind in data), "")


def sanitized(html: str) -> str:
    """What is left of the HTML of an output."""
    parser = _Sanitizer()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)


class _Sanitizer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._gone = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _GONE:
            self._gone += 1
        elif tag in TAGS:
            kept = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs if name in ATTRIBUTES)
            self.parts.append(f"<{tag}{kept}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in _GONE:
            self._gone -= 1
        elif tag in TAGS and tag not in _EMPTY:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._gone:
            self.parts.append(escape(data, quote=False))

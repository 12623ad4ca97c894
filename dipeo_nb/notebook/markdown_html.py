"""Texts of others as HTML for an output that nobody trusts, on one line: in a Markdown cell, an empty line would end the HTML, and what
follows would be live. HTML in them is text, and so are links and images, with their addresses."""

from __future__ import annotations

import re
from functools import cache
from html import escape

from markdown_it import MarkdownIt

from dipeo_nb.common.text import inert

_HEADING = re.compile(r"<(/?)h[1-6]>")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}).enable(["table", "strikethrough"])
    return parser.disable(["image", "link", "autolink"])


def markdown_html(text: str) -> str:
    """A text with its Markdown, and its line breaks. Headings do not disturb the page's outline."""
    before, *blocks = _parser().render(inert(text)).split("<pre>")
    parts = [_spaced(before)]
    for block in blocks:
        code, _, after = block.partition("</pre>")
        parts.append("<pre>" + code.replace("\n", "&#10;") + "</pre>" + _spaced(after))
    return "".join(parts).strip()


def code_html(text: str) -> str:
    """A text in which every blank counts."""
    escaped = escape(inert(text)).replace("\n", "&#10;")
    # `code`, too: the page of nbconvert gives `pre` no font of its own.
    return f'<pre style="white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"><code>{escaped}</code></pre>'


def lines(text: str) -> str:
    """A text as it is, with its line breaks."""
    return escape(text).replace("\n", "<br>")


def _spaced(html: str) -> str:
    return _HEADING.sub(lambda m: f"<{m[1]}h5>", html.replace("\n", " "))

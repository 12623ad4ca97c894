"""Markdown of a model as HTML for an output that nobody trusts: its HTML is text, and so are its links and images, with their addresses."""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt

from dipeo_nb.common.text import inert

_HEADING = re.compile(r"<(/?)h[1-6]>")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
    return parser.disable(["image", "link", "autolink"])


def markdown_html(text: str) -> str:
    """The text as HTML on one line: in a Markdown cell, an empty line would end the HTML. Headings do not disturb the page's outline."""
    before, *blocks = _parser().render(inert(text)).split("<pre>")
    parts = [_spaced(before)]
    for block in blocks:
        code, _, after = block.partition("</pre>")
        parts.append("<pre>" + code.replace("\n", "&#10;") + "</pre>" + _spaced(after))
    return "".join(parts).strip()


def _spaced(html: str) -> str:
    return _HEADING.sub(lambda m: f"<{m[1]}h5>", html.replace("\n", " "))

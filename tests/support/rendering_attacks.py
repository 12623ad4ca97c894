"""Texts that try to become live in a page, in Markdown or in a terminal, and what of them is."""

from __future__ import annotations

import re
from html.parser import HTMLParser

PAGES = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "'><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>", "</title><script>1</script>", "</style><script>1</script>", "]]><script>1</script>", "<!--><script>1</script>",
    "<a href=javascript:alert(1)>x</a>", "<iframe src=http://evil.test>", "<link rel=stylesheet href=http://evil.test>", "<base href=http://evil.test>",
    '<meta http-equiv=refresh content="0;url=http://evil.test">', "<form action=http://evil.test>", "<object data=http://evil.test>", "<math><mi xlink:href='javascript:1'>",
    "<style>@import 'http://evil.test'</style>", "<foreignObject><body onload=1>", "<use href='http://evil.test#x'/>", "&lt;script&gt;", "&#60;script&#62;", "<ScRiPt>1</sCrIpT>",
    "<img/src=x/onerror=1>", "<details open ontoggle=1>", "<video><source onerror=1>", "` onmouseover=1", '" onfocus=1 autofocus="', "<table background=http://evil.test>", "\\u003cscript>",
)  # fmt: skip
MARKDOWN = (
    "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](data:text/html,<script>1</script>)", "[x](vbscript:x)", "[x](file:///etc/passwd)",
    "![x](http://evil.test/pixel)", "[x]: javascript:alert(1)", "[x](<javascript:alert(1)>)", "<javascript:alert(1)>", "[x](java\\script:1)", "[x]( \n javascript:1)",
    "[x](&#106;avascript:1)", "[x](blob:http://x/1)", "[x](data:image/svg+xml;base64,PHN2Zz4=)", "<https://x/\" onclick=1>", "[a]: data:text/html,x",
)  # fmt: skip
TERMINAL = (
    "\x1b[2J", "\x1b]0;owned\x07", "\x1b]8;;http://evil.test\x1b\\x\x1b]8;;\x1b\\", "\x1b[31mred", "\x9b31m", "\x9d0;t\x9c", "\x1bP+q\x1b\\", "\x1b[6n",
    "\x1b]52;c;Y21k\x07", "a\rb", "a\bb", "\x07", "\x7f", "\x00", "\x0e", "\x1b(0", "\x1bc", "\u202eevil", "\u2066x\u2069", "\u200fx", "\u202ax\u202c", "\x85", "\x1b[?1049h", "\u061cx",
)  # fmt: skip
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class _Tags(HTMLParser):
    """What a browser would make of a text: tags, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.live: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "video", "math"}:
            self.live.append(tag)
        for name, value in attrs:
            target = (value or "").strip().lower()
            outside = name in ("src", "href", "xlink:href", "action", "background", "data") and not target.startswith(
                ("data:image/", "#")
            )
            if name.startswith("on") or outside or (tag == "meta" and target == "refresh"):
                self.live.append(f"{tag} {name}={value}")

    handle_startendtag = handle_starttag


def live(html: str) -> list[str]:
    parser = _Tags()
    parser.feed(html)
    return parser.live

"""Texts that others wrote, in every place where one is shown: nothing in them is live, in a page, a drawing, a notebook or a terminal."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dipeo_nb.common.text import visible, visible_json
from dipeo_nb.diagram.document import Diagram, load
from dipeo_nb.notebook import safe_markdown
from dipeo_nb.notebook.session import Session
from dipeo_nb.notebook.view import LiveDisplay
from dipeo_nb.terminal import one_line, safe
from dipeo_nb.testing import scripted

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


def test_the_table_is_long_enough():
    """Sixty at least."""
    assert len({*PAGES, *MARKDOWN, *TERMINAL}) >= 60


def diagram(text: str) -> Diagram:
    """With the text in every place that a diagram has for one."""
    return load(
        {
            "version": "light",
            "metadata": {"name": text, "description": text},
            "persons": {f"P {text}": {"service": "echo", "model": "m", "system_prompt": text}},
            "nodes": [
                {"label": "Start", "type": "start", "props": {"custom_data": {"x": text}}},
                {"label": f"Code {text}", "type": "code_job", "props": {"language": "python", "code": f"return {text!r}"}},
                {"label": "Say", "type": "person_job", "props": {"person": f"P {text}", "default_prompt": f"{text} {{{{value}}}}"}},
                {"label": f"End {text}", "type": "endpoint"},
            ],
            "connections": [
                {"from": "Start", "to": f"Code {text}"},
                {"from": f"Code {text}", "to": "Say", "label": "value"},
                {"from": "Say", "to": f"End {text}"},
            ],
        }
    )


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
            outside = name in ("src", "href", "xlink:href", "action", "background", "data") and not target.startswith(("data:image/", "#"))
            if name.startswith("on") or outside or (tag == "meta" and target == "refresh"):
                self.live.append(f"{tag} {name}={value}")

    handle_startendtag = handle_starttag


def live(html: str) -> list[str]:
    parser = _Tags()
    parser.feed(html)
    return parser.live


def displays(text: str, tmp_path: Path) -> tuple[list[str], list[str], list[str]]:
    """(HTML, SVG, plain text) of everything that is shown of a diagram with that text and of its run."""
    document = diagram(text)
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(document, model="echo", view=False).run
        bundles = [document._repr_mimebundle_(), run._repr_mimebundle_()]
        html = [document.html(), run.result()._repr_html_(), run.explain()._repr_html_(), dp.runs()._repr_html_()]
        html += [dp.diff(run.id, run.id)._repr_html_(), run.conversation._repr_html_()]
        plain = [repr(document), repr(run), repr(run.result()), str(run.explain()), str(dp.diff(run.id, run.id)), repr(dp.runs()), repr(run.conversation)]
        svg = [document.svg(), *(b["image/svg+xml"] for b in bundles if "image/svg+xml" in b)]
        html += [str(b["text/html"]) for b in bundles]
        plain += [str(b["text/plain"]) for b in bundles]
        live_view = LiveDisplay(run.state, document.model, stop=lambda: None, answer=lambda *_: None).view
        svg.append(live_view.svg)
        return html, svg, plain


@pytest.mark.parametrize("text", [*PAGES, *MARKDOWN], ids=range(len(PAGES) + len(MARKDOWN)))
def test_nothing_is_live(text: str, tmp_path: Path):
    """In labels, names, persons, prompts, code, outputs and conversations; drawings stay XML with nothing from elsewhere."""
    html, svg, _ = displays(text, tmp_path)
    assert html
    for page in html:
        assert live(page) == []
    for drawing in svg:
        root = ElementTree.fromstring(drawing)
        assert not [e.tag for e in root.iter() if e.tag.rpartition("}")[2].lower() in ("script", "foreignobject", "a", "image", "use")]
        assert not [name for e in root.iter() for name in e.attrib if name.lower().startswith("on") or "href" in name]


@pytest.mark.parametrize("text", [*PAGES, *MARKDOWN], ids=range(len(PAGES) + len(MARKDOWN)))
def test_answers_in_markdown(text: str):
    """No tag is left, no link runs anything, no image is fetched."""
    shown = safe_markdown.safe(text)
    assert not re.search(r"<(?!https?://[^\s<>\"'`]+>)[A-Za-z/!?]", shown)
    assert not re.search(r"\]\(\s*<?(?:javascript|data|vbscript|file|blob)\s*:", shown, re.IGNORECASE)
    assert not re.search(r"\]:\s*<?(?:javascript|data|vbscript|file|blob)\s*:", shown, re.IGNORECASE)
    assert "![" not in shown


@pytest.mark.parametrize("text", TERMINAL, ids=range(len(TERMINAL)))
def test_nothing_steers_a_terminal(text: str, tmp_path: Path):
    """No control character and no bidi control is left in what is printed; in the command line they are spelled out."""
    for shown in (safe(text), one_line(text, 80), visible(text)):
        assert not HARMFUL.search(shown), shown
    assert not HARMFUL.search(visible_json(f'"{text}"'))
    html, _, plain = displays(text.replace("\x00", ""), tmp_path)
    for shown in (*plain, *html):
        assert not HARMFUL.search(shown), shown

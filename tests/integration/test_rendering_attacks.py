"""Texts that others wrote, in every place where one is shown: nothing in them is live, in a page, a drawing, a notebook or a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dipeo_nb.common.text import visible, visible_json
from dipeo_nb.diagram.document import Diagram, load
from dipeo_nb.execution import run_page
from dipeo_nb.notebook import safe_markdown
from dipeo_nb.notebook.session import Session
from dipeo_nb.terminal import one_line, safe
from dipeo_nb.testing import scripted
from tests.support.rendering_attacks import HARMFUL, MARKDOWN, PAGES, TERMINAL, live


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
                {
                    "label": "Say",
                    "type": "person_job",
                    "props": {"person": f"P {text}", "default_prompt": f"{text} {{{{value}}}}"},
                },
                {"label": f"End {text}", "type": "endpoint"},
            ],
            "connections": [
                {"from": "Start", "to": f"Code {text}"},
                {"from": f"Code {text}", "to": "Say", "label": "value"},
                {"from": "Say", "to": f"End {text}"},
            ],
        }
    )


def displays(text: str, tmp_path: Path) -> tuple[list[str], list[str], list[str]]:
    """(HTML, SVG, plain text) of everything that is shown of a diagram with that text and of its run."""
    document = diagram(text)
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(document, model="echo", view=False).run
        bundles = [document._repr_mimebundle_(), run._repr_mimebundle_()]
        html = [document.html(), run.result()._repr_html_(), run.explain()._repr_html_(), dp.runs()._repr_html_()]
        html += [dp.diff(run.id, run.id)._repr_html_(), run.conversation._repr_html_()]
        plain = [
            repr(document),
            repr(run),
            repr(run.result()),
            str(run.explain()),
            str(dp.diff(run.id, run.id)),
            repr(dp.runs()),
            repr(run.conversation),
        ]
        svg = [document.svg()]
        html += [str(b["text/html"]) for b in bundles]
        plain += [str(b["text/plain"]) for b in bundles]
        svg.append(run_page.head_of(run.id, document.model)["svg"])
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
        assert not [
            e.tag for e in root.iter() if e.tag.rpartition("}")[2].lower() in ("script", "foreignobject", "a", "image", "use")
        ]
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

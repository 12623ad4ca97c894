"""Static faces on the pages of others: which colours they have, what is cut off on paper and in narrow windows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Browser, Page, expect

from dipeo_nb.diagram.document import load
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.github_notebook import sanitized

pytestmark = pytest.mark.browser
CODE = "\n".join(f"line_{n} = {n}" for n in range(60))
ANSWER = f"# Tabs\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\n{CODE}\n```\n\nThe last line."
TALK = """
version: light
metadata: {name: Debate}
persons:
  Ada: {service: openai, model: gpt-6-luna, system_prompt: You are for tabs.}
nodes:
- {label: Start, type: start}
- {label: Opening, type: person_job, person: Ada, default_prompt: "Open the debate."}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Opening}
- {from: Opening, to: End}
"""
LIGHT, DARK = (0xFA, 0xFB, 0xFC), (0x15, 0x18, 0x1D)
HOSTS = {
    "nbconvert": ("--jp-layout-color0: white; background: #fff; color: #000", "dark", LIGHT),
    "plain": ("background: #fff; color: #000", "dark", LIGHT),
    "lab-light": ("--jp-layout-color0: white; color-scheme: light; background: #fff", "dark", LIGHT),
    "lab-dark": ("--jp-layout-color0: #111; color-scheme: dark; background: #111; color: #eee", "light", DARK),
    "vscode": ("--vscode-foreground: #ccc; background: #1f1f1f; color: #ccc", "dark", DARK),
    "vscode-light": ("--vscode-foreground: #333; background: #fff; color: #333", "light", LIGHT),
    "marimo": ("--marimo-text-font: serif; color-scheme: dark; background: #181c1a; color: #eee", "light", DARK),
    "colab": ("--colab-primary-text-color: #e3e3e3; color-scheme: dark; background: #383838; color: #eee", "light", DARK),
}
"""Name → style of the page's body, colour scheme of the reader's system, ground of a drawing there."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("faces")
    with Session(folder, llm=scripted({"Opening": ANSWER})) as session:
        diagram = session.load(TALK)
        run = session.start(diagram, view=False)
        run.result()
        run.to_html(folder / "run.html")
        return {
            "diagram": diagram._repr_mimebundle_()["text/html"],
            "run": run._repr_mimebundle_()["text/html"],
            "file": (folder / "run.html").as_uri(),
        }


@pytest.fixture
def seen(chrome: Browser) -> Iterator[Any]:
    """Opens pages without a network."""
    contexts: list[Any] = []

    def open_page(content: str, **options: Any) -> Page:
        context = chrome.new_context(offline=True, **({"viewport": {"width": 1000, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        if content.startswith("file:"):
            page.goto(content)
        else:
            page.set_content(content)
        return page

    yield open_page
    for context in contexts:
        context.close()


def pixel(page: Page, png: bytes, x: int, y: int) -> tuple[int, ...]:
    """Red, green and blue of a place of a picture."""
    found = page.evaluate(
        """async ([data, x, y]) => {
        const image = new Image(), canvas = document.createElement("canvas");
        image.src = "data:image/png;base64," + data;
        await image.decode();
        [canvas.width, canvas.height] = [image.width, image.height];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return [...context.getImageData(x, y, 1, 1).data];
    }""",
        [base64.b64encode(png).decode(), x, y],
    )
    return tuple(found[:3])


@pytest.mark.parametrize("host", HOSTS)
def test_a_drawing_has_the_colours_of_its_page(seen: Any, faces: dict[str, str], shots: Path, host: str) -> None:
    """Of the page, not of the system: an exported notebook is white, whatever the reader's system looks like."""
    style, system, ground = HOSTS[host]
    page = seen(f'<body style="{style}">{faces["diagram"]}{faces["run"]}', color_scheme=system)
    page.screenshot(path=shots / f"face-{host}.png", full_page=True)
    for picture in page.locator("img").all():
        assert pixel(page, picture.screenshot(), 60, 4) == ground


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_github_leaves_is_readable(seen: Any, faces: dict[str, str], shots: Path, theme: str) -> None:
    """A heading is one, a table is one, code keeps its lines, and nothing is wider than the page."""
    page = seen(f'<meta name="color-scheme" content="{theme}">{sanitized(faces["diagram"] + faces["run"])}', color_scheme=theme)
    for fold in page.locator("details").all():
        fold.evaluate("fold => fold.open = true")
    page.screenshot(path=shots / f"face-github-{theme}.png", full_page=True)
    expect(page.locator("h5", has_text="Tabs").first).to_be_visible()
    assert page.locator("pre", has_text="line_59").first.bounding_box()["height"] > 60 * 10  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000


def test_a_narrow_window(seen: Any, faces: dict[str, str], shots: Path) -> None:
    """1280 pixels at 400 %: nothing but drawings and code may be scrolled sideways."""
    for name in ("diagram", "run", "file"):
        content = faces[name] if name == "file" else f"<body>{faces[name]}"
        page = seen(content, viewport={"width": 320, "height": 256})
        page.wait_for_timeout(300)
        page.screenshot(path=shots / f"face-narrow-{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_file_of_a_run_on_paper(seen: Any, faces: dict[str, str], shots: Path, system: str) -> None:
    """Dark on white; the whole answer, and below it what every node said; no controls."""
    page = seen(faces["file"], color_scheme=system)
    expect(page.locator(".dp-pill")).to_have_text("done")
    expect(page.locator(".dp-text-only")).to_be_hidden()
    page.emulate_media(media="print")
    page.screenshot(path=shots / f"face-paper-{system}.png", full_page=True)
    assert page.evaluate("getComputedStyle(document.querySelector('.dp-name')).color") == "rgb(20, 24, 31)"
    cut = """() => [...document.querySelectorAll(".dp-run *")].filter((e) => e.scrollHeight > e.clientHeight + 1
        && e.clientHeight > 0 && !["visible", "clip"].includes(getComputedStyle(e).overflowY) && !e.closest("svg, .dp-sr")).map((e) => e.className)"""
    assert page.evaluate(cut) == []
    expect(page.locator(".dp-text-only")).to_contain_text("Opening: completed")
    for control in (".dp-transport", ".dp-log", ".dp-menu"):
        expect(page.locator(control).first).to_be_hidden()


def test_a_page_of_a_large_diagram_on_paper(seen: Any) -> None:
    """All of it: on a screen it is scrolled."""
    nodes = "".join(f"- {{label: W{n}, type: template_job, template_content: x}}\n" for n in range(40))
    arrows = "".join(f"- {{from: S, to: W{n}}}\n- {{from: W{n}, to: W{(n * 7 + 3) % 40}}}\n" for n in range(40))
    page = seen(
        load(f"version: light\nnodes:\n- {{label: S, type: start}}\n{nodes}connections:\n{arrows}", format="light").html()
    )
    cut = "(() => { const e = document.querySelector('.drawing'); return e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1; })()"
    assert page.evaluate(cut)
    page.emulate_media(media="print")
    assert not page.evaluate(cut)


def test_a_file_of_a_run_without_scripts(seen: Any, faces: dict[str, str]) -> None:
    page = seen(faces["file"], java_script_enabled=False)
    expect(page.locator(".dp-text-only")).to_contain_text("The last line.")

"""Answers as a user sees them: streamed into a cell of a real JupyterLab, static afterwards, stopped, harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, Notebook

pytestmark = [pytest.mark.browser]
_numbers = count()
SETUP = '''
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
text = """## A fox

The *quick* brown fox jumps over the **lazy** dog. """ + "It jumps again, and `again`. " * 12 + """

```python
def jump(fox):
    return fox + 1
```

| who | how often |
| --- | --- |
| fox | 13 |
"""
slow = dp.Session(llm=SlowClient(text, delay=0.1))
'''
EVERYTHING = """
import sys; sys.path.insert(0, ROOT)
from tests.support.scripted_kernel import ScriptedEvents, end
from dipeo_nb.domain.chat import StreamEvent as E
told = dp.Session(llm=ScriptedEvents([
    E("start", data={"notice": "gpt-5 takes no temperature; 0.2 is left out."}),
    E("reasoning", "The user wants the weather of Oslo. I have a tool for that."),
    E("tool_call_start", "weather", data={"id": "1"}),
    E("tool_call_end", "weather", data={"id": "1", "arguments": {"city": "Oslo", "unit": "C"}}),
    E("tool_result", "12 degrees, *light* rain", data={"id": "1", "name": "weather"}),
    E("progress", "Fetching smollm2-135m", data={"done": 40_000_000, "total": 98_000_000}), 2.5,
    E("text", "It is **12 °C** in Oslo, with $x^2$ light rain."), 1.0,
    end("It is **12 °C** in Oslo, with $x^2$ light rain."),
]))
answer = told.chat("x")
"""
STRUCTURED = """
structured = dp.Session(llm=ScriptedEvents([
    E("partial", data={"value": {"city": "Oslo"}}), 1.5,
    E("partial", data={"value": {"city": "Oslo", "temperature": 12, "tags": ["rain", "wind"]}}), 0.5,
    end("{}", structured={"city": "Oslo", "temperature": 12, "tags": ["rain", "wind"]}),
]))
answer = structured.chat("x")
"""
EVIL = """
evil = '''Look:
<script>window.broken = 1</script><img src="x" onerror="window.broken = 2">
![i](https://example.org/leak.png)

```html
<script>window.broken = 3</script><img src="x" onerror="window.broken = 4">
```

$$
```
$$
<img src="x" onerror="window.broken = 5">

1. a
   ```
<img src="x" onerror="window.broken = 6">

`<img src="x" onerror="window.broken = 7">` [click](javascript:window.broken=8) THE END'''
dp.Session(llm=SlowClient(evil, delay=0.01)).chat("x")
"""


class Desk:
    """Opens notebooks of given cells, and ends their kernels."""

    def __init__(self, lab: Lab, page: Page) -> None:
        self.lab = lab
        self.page = page
        self.open: list[Notebook] = []

    def cells(self, *sources: str) -> Notebook:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        self.name = f"chat{next(_numbers)}.ipynb"
        nbformat.write(notebook, self.lab.root / self.name)
        opened = self.lab.open(self.page, self.name)
        self.open.append(opened)
        return opened


@pytest.fixture
def desk(lab: Lab, page: Page) -> Iterator[Desk]:
    opened = Desk(lab, page)
    yield opened
    for notebook in opened.open:
        notebook.shut_down()


def test_an_answer_streams_and_stays(desk: Desk, page: Page, shots: Path):
    """The text grows in one output as Markdown; after the end it is static, and so after a reload without a kernel."""
    notebook = desk.cells(SETUP, "answer = slow.chat('Tell me of the fox.')\nanswer", "print(answer.usage.output)")
    notebook.start_all()
    shown = notebook.output(1)
    expect(shown).to_contain_text("jumps over")
    seen = [shown.inner_text()]
    for _ in range(3):
        page.wait_for_function(
            "n => document.querySelectorAll('.jp-Cell')[1].querySelector('.jp-OutputArea-output:not(.dipeo-covered)').innerText.length > n + 40",
            arg=len(seen[-1]),
        )
        seen.append(shown.inner_text())
        expect(shown).to_have_count(1)
    assert len(set(seen)) == 4
    for theme in ("dark", "light"):
        notebook.theme(theme)
        page.screenshot(path=shots / f"chat-live-{theme}.png")
    notebook.wait()
    expect(shown).to_have_count(1)
    expect(shown.locator("h2")).to_contain_text("A fox")
    expect(shown.locator("td").last).to_have_text("13")
    expect(shown.locator("small")).to_contain_text("no cost")
    for theme in ("dark", "light"):
        notebook.theme(theme)
        shown.scroll_into_view_if_needed()
        page.screenshot(path=shots / f"chat-{theme}.png")
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    saved = json.loads((desk.lab.root / desk.name).read_text())["cells"][1]["outputs"]
    assert [output["output_type"] for output in saved] == ["display_data"]
    assert set(saved[0]["data"]) == {"text/markdown", "text/plain"}
    assert saved[0]["metadata"]["dipeo"]["model"] == "gpt-5-nano-2025-08-07"
    notebook.shut_down()
    desk.open.clear()
    again = desk.lab.open(page, desk.name)
    desk.open.append(again)
    expect(again.output(1)).to_have_count(1)
    expect(again.output(1).locator("h2")).to_contain_text("A fox")
    expect(again.output(1).locator("small")).to_contain_text("no cost")


@pytest.mark.parametrize("code", ["slow.chat('x')", "await slow.achat('x')"])
def test_stop_ends_the_answer(desk: Desk, code: str):
    """Lab's stop button ends the call; the text so far stays and says that it was stopped; the next cell works."""
    notebook = desk.cells(SETUP, code)
    notebook.start_all()
    shown = notebook.output(1).first
    expect(shown).to_contain_text("jumps over")
    notebook.interrupt()
    expect(shown.locator("small")).to_contain_text("stopped")
    expect(shown).to_contain_text("jumps over")
    expect(shown).not_to_contain_text("13")


@pytest.mark.model
def test_the_embedded_model_streams(desk: Desk, page: Page):
    """`model="local"` needs no key; its words appear one after the other."""
    notebook = desk.cells("import dipeo_nb as dp\ndp.chat('Tell me about the sea.', model='local', max_tokens=120)")
    notebook.start_all()
    shown = notebook.output(0)
    seen: set[str] = set()
    while "no cost" not in (shown.inner_text() if shown.count() else ""):
        seen.add(shown.inner_text() if shown.count() else "")
        page.wait_for_timeout(50)
    assert len(seen) > 4
    notebook.wait()
    expect(shown).to_have_count(1)
    expect(shown.locator("small").last).to_contain_text("local:")


def test_everything_that_can_happen(desk: Desk, page: Page, shots: Path):
    """Notice, reasoning, tools, a download bar, math and a table are seen while they happen and afterwards."""
    root = str(Path(__file__).parents[2])
    notebook = desk.cells(SETUP, EVERYTHING.replace("ROOT", repr(root)), STRUCTURED, "dp.llm('openai:gpt-5', temperature=1)",
                          "%load_ext dipeo_nb", "%%prompt --model echo > reply\nHello {{answer.structured.city}}",
                          "%dipeo models")  # fmt: skip
    notebook.start_all()
    shown = notebook.output(1)
    expect(shown).to_contain_text("40 of 98 MB")
    expect(shown).to_contain_text("I have a tool for that")
    page.screenshot(path=shots / "chat-progress.png")
    expect(shown.locator("strong")).to_have_text("12 °C")
    table = notebook.output(2).locator("td")
    expect(table).to_have_text(["city", "Oslo"])
    notebook.wait()
    expect(table).to_have_text(["city", "Oslo", "temperature", "12", "tags", '["rain", "wind"]'])
    expect(shown).to_contain_text('weather(city="Oslo", unit="C") → 12 degrees, *light* rain')
    expect(shown.locator("details")).not_to_have_attribute("open", "")
    expect(shown).to_contain_text("takes no temperature")
    expect(notebook.output(5)).to_contain_text("[echo] Hello Oslo")
    expect(notebook.output(6).locator("th").first).to_have_text("service")
    for theme in ("dark", "light"):
        notebook.theme(theme)
        shown.scroll_into_view_if_needed()
        page.screenshot(path=shots / f"chat-everything-{theme}.png")
        notebook.output(6).scroll_into_view_if_needed()
        page.screenshot(path=shots / f"chat-models-{theme}.png")


def test_an_answer_cannot_run_scripts(desk: Desk, page: Page, shots: Path):
    """HTML, script links and images of an answer neither run nor load, live or finished; they are seen as text."""
    notebook = desk.cells(SETUP, EVIL)
    notebook.start_all()
    notebook.wait()
    shown = notebook.output(1)
    expect(shown).to_contain_text("THE END")
    expect(shown).to_contain_text('<script>window.broken = 3</script><img src="x" onerror="window.broken = 4">')
    expect(shown.locator("img, script")).to_have_count(0)
    # Looked at and not clicked: Lab would look for a file of that name.
    expect(shown.get_by_role("link", name="click")).to_have_attribute(
        "href", re.compile("javascript\u2060|javascript%E2%81%A0")
    )
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "chat-evil.png")
    assert page.evaluate("() => window.broken") is None

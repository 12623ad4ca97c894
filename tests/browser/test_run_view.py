"""The view of a run in a page of its own: live, scrubbed, asked, stopped, with hostile texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from dipeo_nb.execution.run_state import RunState
from tests.support import run_view
from tests.support.run_view import golden, of_start, push, show, statuses

pytestmark = pytest.mark.browser


def event(seq: int, kind: EventType, node: str | None, /, **payload: Any) -> Event:
    return Event(seq, kind, "run", 1000 + seq / 10, node, payload)


def test_each_instant_is_that_of_python(page: Page) -> None:
    """Wherever the cursor is put, the drawing, the text and the figures are those of `RunState` at that event."""
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False), events)
    page.evaluate("view.ended()")
    page.locator("#cell .dp-log > summary").click()
    for seq in (5, 20, len(events) // 2, len(events) - 1, 9):
        state = RunState.fold(events[:seq])
        page.locator(".dp-cursor").focus()
        page.keyboard.press("Home")
        for _ in range(seq):
            page.keyboard.press("ArrowRight")
        expect(page.locator(".dp-seq")).to_have_text(f"event {seq} of {len(events)}")
        assert statuses(page) == {node: str(n.status) for node, n in state.nodes.items()}
        text = page.locator(".dp-body").inner_text()
        last = next(n for n in reversed([state.nodes[i] for i in state.order]) if n.status == "running" or n.text)
        if last.text:
            assert last.text.split("]")[-1].strip()[:20] in text
        spent = f"{state.usage.input or 0:,} tokens in, {state.usage.output or 0:,} out, {state.spent.calls} call"
        expect(page.locator(".dp-figures .dp-slot").nth(1)).to_have_attribute("title", re.compile(f"^{spent}"))
    page.keyboard.press("End")
    expect(page.locator(".dp-live")).to_have_attribute("aria-pressed", "true")


def test_a_run_that_goes_on(page: Page, shots: Path) -> None:
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=True, budget=0.05))
    expect(page.locator(".dp-pill")).to_have_text("not started")
    push(page, events[:12], now=1.2)
    expect(page.locator(".dp-pill")).to_have_text("running")
    expect(page.locator(".dp-live")).to_have_text("LIVE")
    expect(page.locator(".dp-caret")).to_have_count(1)
    before = page.locator(".dp-where").inner_text()
    expect(page.locator(".dp-where")).not_to_have_text(before)  # the clock goes on by itself
    page.screenshot(path=shots / "run-view-live.png")
    page.locator(".dp-stop").click()
    assert page.evaluate("sent") == [{"type": "stop"}]
    expect(page.locator(".dp-stop")).to_be_disabled()
    push(page, events[12:])
    page.evaluate("view.ended()")
    expect(page.locator(".dp-pill")).to_have_text("done")
    expect(page.locator(".dp-stop")).to_be_hidden()
    expect(page.locator(".dp-live")).to_have_text("END")


def test_the_kernel_goes_and_comes_back(page: Page) -> None:
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=True), events[:12])
    page.evaluate("view.gone()")
    expect(page.locator(".dp-notice")).to_contain_text('dp.resume("exec_0123456789abcdef")')
    expect(page.locator(".dp-pill")).to_have_text("kernel gone")
    expect(page.locator(".dp-stop")).to_be_disabled()
    stands = page.locator(".dp-where").inner_text()
    page.wait_for_timeout(400)
    assert page.locator(".dp-where").inner_text() == stands
    push(page, events[12:14], now=1.4)
    expect(page.locator(".dp-pill")).to_have_text("running")
    expect(page.locator(".dp-notice")).to_be_hidden()


def test_a_run_that_was_cut_off_shows_what_it_had_said(page: Page) -> None:
    events = golden("debate.light.yaml")[:12]
    show(page, of_start(events, live=False), events)
    expect(page.locator(".dp-pill")).to_have_text("interrupted")
    expect(page.locator(".dp-body")).to_contain_text("What it had said is kept")
    pieces = sum(event.payload.get("kind") == "text" for event in events)
    expect(page.locator(".dp-figures")).to_contain_text(f"~{pieces} tok")


def test_what_was_lost_on_the_way_can_be_sent_again(page: Page) -> None:
    """An answer and a stop that nothing came of, as when the connection was away in that moment."""
    page.clock.install()
    diagram = DomainDiagram((DomainNode("a", "user_response", "Ask"),), ())
    asked = {"prompt": "Which?", "timeout": None, "default": None, "request_id": "q1", "label": "Ask"}
    show(page, run_page.head_of("exec_1", diagram, live=True, can=["answer", "stop"]))
    push(page, [event(1, EventType.EXECUTION_STARTED, None, labels={"a": "Ask"}, diagram="D"), event(2, EventType.NODE_STARTED, "a", run=1, inputs={}), event(3, EventType.INTERACTIVE_PROMPT, "a", **asked)], now=0.3)  # fmt: skip
    field, stop = page.locator(".dp-question input"), page.get_by_role("button", name="Stop")
    field.fill("Tuesday")
    page.keyboard.press("Enter")
    expect(page.locator(".dp-question")).to_be_hidden()
    stop.click()
    expect(page.locator(".dp-stop")).to_have_text("Stopping…")
    page.clock.fast_forward(60_000)
    expect(page.locator(".dp-left")).to_have_text("The answer has not arrived. Send it again?")
    expect(field).to_have_value("Tuesday")
    field.press("Enter")
    expect(page.locator(".dp-question")).to_be_hidden()
    stop.click()
    assert page.evaluate("sent") == 2 * [{"type": "answer", "id": "q1", "text": "Tuesday"}, {"type": "stop"}]


@pytest.mark.parametrize(
    ("form", "act", "answer"),
    [
        ({}, lambda p: (p.locator(".dp-question input").fill("Tuesday"), p.keyboard.press("Enter")), "Tuesday"),
        (
            {"kind": "multiline"},
            lambda p: (p.locator(".dp-question textarea").fill("a\nb"), p.keyboard.press("Control+Enter")),
            "a\nb",
        ),
        ({"kind": "choice", "choices": ["tea", "coffee"]}, lambda p: p.get_by_role("button", name="coffee").click(), "coffee"),
        (
            {"kind": "choice", "choices": [str(i) for i in range(9)]},
            lambda p: (p.locator(".dp-question select").select_option("7"), p.get_by_role("button", name="Send").click()),
            "7",
        ),
        ({"kind": "approval"}, lambda p: p.get_by_role("button", name="Approve").click(), "approve"),
        (
            {"kind": "approval"},
            lambda p: (
                p.get_by_role("button", name="Reject…").click(),
                p.locator(".dp-question input").fill("too dear"),
                p.keyboard.press("Enter"),
            ),
            "reject: too dear",
        ),
        (
            {"kind": "approval", "tool": "send", "arguments": {"to": "all"}},
            lambda p: (
                p.get_by_role("button", name="Edit…").click(),
                p.locator(".dp-question textarea").fill('{"to": "Ann"}'),
                p.get_by_role("button", name="Approve with these").click(),
            ),
            '{"to": "Ann"}',
        ),
    ],
)
def test_a_question_is_answered(page: Page, form: dict[str, Any], act: Any, answer: str) -> None:
    diagram = DomainDiagram((DomainNode("a", "user_response", "Ask"),), ())
    show(page, run_page.head_of("exec_1", diagram, live=True, can=["answer"]))
    push(page, [event(1, EventType.EXECUTION_STARTED, None, labels={"a": "Ask"}, diagram="D"), event(2, EventType.NODE_STARTED, "a", run=1, inputs={})])  # fmt: skip
    asked = {"prompt": "Which **one**?", "timeout": 60, "default": None, "request_id": "q1", "label": "Ask", **form}
    page.locator(".dp-body").focus()
    push(page, [event(3, EventType.INTERACTIVE_PROMPT, "a", **asked)], now=0.3)
    expect(page.locator(".dp-asked strong")).to_have_text("one")
    expect(page.locator(".dp-left")).to_contain_text("left, then it fails")
    assert page.evaluate("document.activeElement.className") == "dp-body"  # a question never takes the focus
    act(page)
    assert page.evaluate("sent") == [{"type": "answer", "id": "q1", "text": answer}]
    expect(page.locator(".dp-question")).to_be_hidden()
    push(page, [event(4, EventType.INTERACTIVE_RESPONSE, "a", request_id="q1", answer=answer, source="user")])
    page.keyboard.press("j")  # the instant before
    expect(page.locator(".dp-actions")).to_have_text("as it was asked then")


HOSTILE = (
    '<img src=x onerror="window.hacked=1"> </script><script>window.hacked=1</script> [x](javascript:window.hacked=1) '
    '![y](http://example.com/x.png) `<b>` **<i>x</i>** <https://example.com/"onclick="hacked=1> \u202e \u2028 \x00'
)


WRITING = """async ([text, step, start]) => {
  const spent = [], count = Math.ceil(text.length / step), real = window.requestAnimationFrame;
  let seq = start.at(-1)[0], own = 0, going = null;
  // All that a view does, it does when rows are given to it and when it draws; what it wrote is laid out.
  window.requestAnimationFrame = (draw) => real((now) => { const began = performance.now(); draw(now); document.body.offsetHeight; own += performance.now() - began; });
  view.push(start);
  for (let i = 0; i < count; i++) {
    own = 0;
    const began = performance.now();
    view.push([[++seq, "node_output", 1000 + seq / 10, "a", { kind: "text", text: text.slice(i * step, (i + 1) * step), run: 1, $pieces: 200 }]]);
    own += performance.now() - began;
    await new Promise((done) => setTimeout(() => real(() => real(done)), 30));
    spent.push(own);
  }
  window.requestAnimationFrame = real;
  const scale = performance.now(), box = document.createElement("div");
  for (let i = 0; i < 2000; i++) box.append(Object.assign(document.createElement("p"), { textContent: `paragraph ${i} `.repeat(20) }));
  document.body.append(box);
  box.getBoundingClientRect();
  const unit = performance.now() - scale;
  box.remove();
  const usual = (some) => some.sort((a, b) => a - b).slice(0, 24).reduce((sum, x) => sum + x, 0) / 24; // without what others took the processor for
  return { early: usual(spent.slice(5, 35)), late: usual(spent.slice(-30)), unit };
}"""
"""Gives the view a text in pieces; milliseconds of its own work for one message, and those of laying out 2,000 paragraphs."""


@pytest.mark.parametrize("kind", ["paragraphs", "one line", "code"])
def test_what_a_message_costs_does_not_grow_with_the_text(page: Page, kind: str) -> None:
    """60,000 words in 300 messages: as at 2,000 tokens a second for 30 seconds. Each lays out what is new, not all of it."""
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    ends = {"paragraphs": (80, "\n\n"), "code": (12, "\n"), "one line": (10**9, "")}
    every, mark = ends[kind]
    text = "".join(f"{words[n % 9]}{mark if n % every == every - 1 else ' '}" for n in range(60_000))
    if kind == "code":
        text = f"```python\n{text}"
    diagram = DomainDiagram((DomainNode("a", "person_job", "Writer"),), ())
    show(page, run_page.head_of("exec_1", diagram, live=True))
    start = [event(1, EventType.EXECUTION_STARTED, None, labels={"a": "Writer"}, diagram="D"), event(2, EventType.NODE_STARTED, "a", run=1, inputs={})]  # fmt: skip
    step = -(-len(text) // 300)
    spent = page.evaluate(WRITING, [text, step, list(run_page.rows(start))])
    print(kind, spent)
    page.wait_for_function(
        "(length) => document.querySelector('.dp-md').textContent.replace(/\\s/g, '').length === length",
        arg=len(re.sub(r"\s|```python", "", text)),
    )
    assert spent["late"] < 2 * spent["early"] + 0.02 * spent["unit"], spent
    assert spent["late"] < 0.2 * spent["unit"], spent


def test_texts_are_never_markup(page: Page) -> None:
    """Of a model, a diagram, a question, an error, a tool and a log line, with ids that are names of objects of JavaScript."""
    nodes = tuple(DomainNode(i, "person_job", f"{HOSTILE} {i}") for i in ("__proto__", "constructor", "toString"))
    diagram = DomainDiagram(nodes, (DomainArrow("a1", "__proto__", "constructor", label=HOSTILE),))
    labels = {n.id: n.label for n in nodes}
    show(page, run_page.head_of("exec_1", diagram, name=HOSTILE, live=True, can=run_view.CAN))
    k = EventType
    push(
        page,
        [
            event(1, k.EXECUTION_STARTED, None, labels=labels, diagram=HOSTILE, variables={}),
            event(2, k.NODE_STARTED, "__proto__", run=1, inputs={}),
            event(3, k.NODE_OUTPUT, "__proto__", kind="text", text=HOSTILE, run=1),
            event(4, k.NODE_OUTPUT, "__proto__", kind="tool", text=HOSTILE, step="call", data={"id": "1", "arguments": {"x": HOSTILE}}, run=1),
            event(5, k.NODE_STARTED, "constructor", run=1, inputs={HOSTILE: ["__proto__", 1]}),
            event(6, k.INTERACTIVE_PROMPT, "constructor", prompt=HOSTILE, request_id="__proto__", timeout=None, default=HOSTILE, label=HOSTILE),
            event(7, k.EXECUTION_LOG, "constructor", level=HOSTILE, message=HOSTILE, extra_fields={}),
            event(8, k.NODE_ERROR, "__proto__", run=1, error={"type": HOSTILE, "message": HOSTILE, "hint": HOSTILE, "traceback": HOSTILE}),
        ],
        now=1.0,
    )  # fmt: skip
    page.locator(".dp-log > summary").click()
    page.locator(".dp-body").focus()
    for key in "apmico":
        page.keyboard.press(key)
    page.locator(".dp-what").nth(2).click()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('#cell :is(img, script, iframe, [onerror], [onclick])').length") == 0
    assert set(page.evaluate("[...document.querySelectorAll('#cell a')].map((a) => new URL(a.href).protocol)")) <= {
        "https:",
        "http:",
    }
    assert statuses(page)["__proto__"] == "failed"


MARKDOWN = """# A *fox*

The **quick** brown `fox`, ~~not~~ [a link](https://example.com) and
a line\\
more. snake_case_name and 2 * 3 * 4.

- one
  - inner
- two

3. three
4. four

> quoted
> twice

| a | b |
|---|--:|
| 1 | 2 |

```python
x = "<b>"
```

---
- [x] done
"""


def test_markdown(page: Page) -> None:
    """What it becomes, and that a text which grows piece by piece becomes the same as one that comes at once."""
    show(page, of_start(golden("debate.light.yaml"), live=False))
    page.evaluate("() => { window.made = (text) => new Markdown().show(text).el.innerHTML; }")
    page.evaluate("(text) => { window.whole = text; }", MARKDOWN)
    made = page.evaluate("made(whole)")
    for part in (
        'role="heading" aria-level="4"', "A <em>fox</em>", "<strong>quick</strong>", "<code>fox</code>", "<del>not</del>", "a line<br>",
        "snake_case_name and 2 * 3 * 4.", "<li dir=\"auto\">one<ul>", '<ol start="3">', "<blockquote", "<th dir=\"auto\">a</th>", '<td class="dp-right"',
        'data-lang="python"', "x = \"&lt;b&gt;\"", "<hr>", "☑",
    ):  # fmt: skip
        assert part in made, part
    long = "\n".join(f"line {n} " + "of it " * (n % 9) for n in range(130))
    for text in (
        MARKDOWN,
        f"Before\n```py\n{long}\n```\nafter `{long}`\n\n> ```\n> " + long.replace("\n", "\n> "),
        "no space " * 1500,
        "x" * 9000,
    ):
        assert page.evaluate(
            "(whole) => { const one = new Markdown(), step = Math.ceil(whole.length / 700); for (let i = 1; i <= whole.length; i += step) one.show(whole.slice(0, i), true); return one.show(whole).el.innerHTML === made(whole); }",
            text,
        ), text[:80]  # fmt: skip
        said = page.evaluate("(text) => new Markdown().show(text).el.textContent", text)
        assert said.count("line 7") == text.count("line 7")
    code = page.evaluate("(text) => new Markdown().show(text).el.querySelector('pre').textContent", f"```\n{long}\n```")
    assert code == long
    for hostile in (
        "[",
        "![",
        "*a ",
        "_",
        "`",
        "``` ",
        "~~a ",
        "- ",
        "> ",
        "|",
        "-",
        "\\",
        "<",
        "http://",
        "# ",
        "1. ",
        " ",
        "](",
        "**_~~`[",
    ):
        page.evaluate("(text) => made(text)", hostile * 20_000)  # in time that grows with its length, or this would never end


def test_the_cursor_is_dragged_and_the_drawing_moved(page: Page) -> None:
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False), events)
    middle = len(events) // 2
    shortly_after = events[middle - 1].occurred_at - events[0].occurred_at + 0.03  # the next event is a tenth of a second later
    seconds = events[-1].occurred_at - events[0].occurred_at
    where = f"{shortly_after:.1f} / {seconds:.1f} s"
    track = page.locator(".dp-over").bounding_box()
    assert track is not None
    page.mouse.move(track["x"] + 5, track["y"] + 20)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * shortly_after / seconds, track["y"] + 20, steps=5)
    expect(page.locator(".dp-where")).to_have_text(where)
    page.mouse.up()
    page.mouse.move(track["x"] + 5, track["y"] + 20)
    expect(page.locator(".dp-where")).to_have_text(where)  # let go of
    assert statuses(page) == {node: str(n.status) for node, n in RunState.fold(events[:middle]).nodes.items()}
    before = page.locator(".dp-drawing").get_attribute("viewBox")
    page.mouse.move(track["x"] + 60, 70)
    page.mouse.down()
    page.mouse.move(track["x"] + 90, 90, steps=3)
    page.mouse.up()
    assert page.locator(".dp-drawing").get_attribute("viewBox") != before


def test_a_fork_and_a_note_are_asked_for(page: Page) -> None:
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False), events)
    page.locator("[data-node='node_1']").click()
    page.get_by_role("tab", name="Prompt").click()
    page.get_by_role("button", name="Edit and run from here…").click()
    page.get_by_role("textbox", name="Prompt of Sunny").fill("Praise {{topic}}.")
    page.get_by_role("button", name="Run from here").click()
    page.get_by_role("button", name="Write a note on this moment").click()
    page.get_by_role("textbox", name="Note").fill("Too long.")
    page.get_by_role("button", name="Keep it").click()
    fork, note = page.evaluate("sent")
    assert fork == {"what": "fork", "node": "node_1", "of": 2, "prompt": "Praise {{topic}}."}
    assert (note["what"], note["text"]) == ("note", "Too long.")
    assert 1 <= note["first"] < note["last"] <= len(events)


def test_what_is_typed_stays_while_the_run_goes_on(page: Page) -> None:
    """A prompt is edited in a run whose node ends and begins again meanwhile: text, focus and the turn it is of stay."""
    events = golden("debate.light.yaml")
    first = next(i for i, e in enumerate(events) if e.type == "node_started" and e.node_id == "node_1")
    show(page, of_start(events, live=True), events[: first + 2])
    page.locator("[data-node='node_1']").click()
    page.locator(".dp-body").focus()
    page.keyboard.press("f")
    expect(page.locator(".dp-fork")).to_contain_text("This run continues")
    page.keyboard.press("Control+a")
    page.keyboard.type("Praise")
    push(page, events[first + 2 :])
    page.keyboard.type(" it.")
    expect(page.locator(".dp-pill")).to_have_text("done")
    assert page.evaluate("document.activeElement.value") == "Praise it."
    page.keyboard.press("Control+Enter")
    assert page.evaluate("sent") == [{"what": "fork", "node": "node_1", "of": 1, "prompt": "Praise it."}]


def test_what_a_screen_reader_is_told(page: Page) -> None:
    """Beginnings, ends and failures, never pieces of text; the drawing, the tabs and the cursor have names."""
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=True), events[:4])
    for one in events[4:]:
        push(page, [one])
    spoken = page.locator("[role=log] p").all_inner_texts()
    assert "Sunny done" in " ".join(spoken)
    assert "writes" not in " ".join(spoken)
    tree = page.locator(".dp-run").aria_snapshot()
    for name in ("Sunny", "Timeline", "Moment of the run", "Playback", "tablist", "Run done"):
        assert name in tree


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [480, 760, 900, 1600])
def test_sizes(page: Page, shots: Path, width: int, theme: str) -> None:
    """Two columns from 760 px on, not taller than 460; labels of the drawing can be read; nothing is wider than its place."""
    events = golden("debate.light.yaml")
    show(page, of_start(events, live=False), events, theme=theme, width=width)
    page.screenshot(path=shots / f"run-view-{width}-{theme}.png")
    box = page.locator(".dp-run").bounding_box()
    drawing, panel = page.locator(".dp-drawing-pane").bounding_box(), page.locator(".dp-panel").bounding_box()
    assert None not in (box, drawing, panel)
    assert (drawing["y"] == panel["y"]) == (width >= 760)
    if width >= 760:
        assert box["height"] <= 460
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert min(page.evaluate(run_view.SIZES)) >= 7.5


def test_a_large_diagram_is_taken_in_whole_and_read_by_zooming(page: Page) -> None:
    nodes = tuple(DomainNode(f"n{i}", "db", f"Step number {i}") for i in range(120))
    diagram = DomainDiagram(nodes, tuple(DomainArrow(f"a{i}", f"n{i}", f"n{i + 1}") for i in range(119)))
    show(page, run_page.head_of("exec_1", diagram, live=False))
    push(page, [event(1, EventType.EXECUTION_STARTED, None, labels={n.id: n.label for n in nodes}, diagram="D")])
    expect(page.locator(".dp-map")).to_be_visible()
    expect(page.locator(".dp-drawing-pane[data-overview]")).to_have_count(1)
    page.locator(".dp-node[tabindex='0']").focus()
    for _ in range(12):
        page.keyboard.press("+")
    expect(page.locator(".dp-drawing-pane[data-overview]")).to_have_count(0)
    page.keyboard.press("0")
    expect(page.locator(".dp-drawing-pane[data-overview]")).to_have_count(1)

"""The view of a run in a page of its own, for tests in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_file, run_page
from dipeo_nb.execution.run_comparison import comparison
from dipeo_nb.execution.run_state import RunState
from tests.support.golden_logs import logs

CAN = ("stop", "answer", "note", "fork", "alone", "again", "copy", "compare", "body")
SIZES = """() => [...document.querySelectorAll('.dp-drawing text')].filter((t) => t.textContent && getComputedStyle(t).display !== 'none'
  && !t.closest('.dp-runs')).map((t) => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a)"""
"""The sizes in which the texts of a drawing are shown."""
REFUSED = {
    "error": "It runs code that you have not approved.",
    "listing": ["Runs Python in 'Mark'", "Reads data/*.csv"],
    "pin": "abc-123",
}
"""What an order is answered that needs a yes first."""

_SHOWN = "(seq) => Number(document.querySelector('.dp-log > summary > .dp-count').textContent.replaceAll(',', '')) >= seq"


def golden(name: str) -> list[Event]:
    """The log of a golden run. Its nodes took no time there; here an event comes each tenth of a second, and a word of an answer is one."""
    events = next(events for found, events in logs() if found == name)
    apart = [part for event in events for part in _words(event)]
    return [event._replace(seq=seq, occurred_at=1000 + seq / 10) for seq, event in enumerate(apart, start=1)]


def _words(event: Event) -> Iterator[Event]:
    """An event with several pieces of an answer as events with one each."""
    payload = {name: value for name, value in event.payload.items() if name != "pieces"}
    if payload == event.payload:
        yield event
    else:
        for word in re.findall(r"\s*\S+", payload["text"]):
            yield event._replace(payload={**payload, "text": word})


def of_start(events: Sequence[Event], *, live: bool, can: Sequence[str] = CAN, **more: Any) -> dict[str, Any]:
    """The head of a run whose diagram is in its first event."""
    state = RunState.fold(events[:1])
    diagram = run_file.diagram_of(state)
    assert diagram is not None
    return run_page.head_of("exec_0123456789abcdef", diagram, name=state.diagram, live=live, can=can) | more


def show(
    page: Any, head: dict[str, Any], events: Sequence[Event] = (), *, theme: str = "light", width: int = 900, height: int = 760
) -> None:
    """Show a run; `push` gives it more. Messages and orders of the view are in `window.sent`, and what an order
    brings is in `window.replies`."""
    page.set_viewport_size({"width": width + 16, "height": height})
    back = "#111" if theme == "dark" else "#fff"
    page.set_content(
        f"<!doctype html><html lang='en'><title>Run</title><meta charset='utf-8'><style>body{{margin:8px;background:{back}}}{run_page.styles()}</style>"
        f"<body data-jp-theme-light='{'false' if theme == 'dark' else 'true'}'><main id='cell'></main>"
        f"<script type='module'>{run_page.script()}\nObject.assign(window, {{ createRunView, Markdown }});</script>"
    )
    page.wait_for_function("() => Boolean(window.createRunView)")
    page.evaluate(
        "(head) => { window.sent = []; window.view = createRunView(document.getElementById('cell'), { head, host: { send: (m) => sent.push(m),"
        " ask: (order) => { sent.push(order); const found = window.replies?.[order.what]; return found?.error ? Promise.reject(Object.assign(new Error(found.error), found)) : Promise.resolve(found ?? {}); } } }); }",
        head,
    )
    push(page, events)


def push(page: Any, events: Sequence[Event], *, now: float | None = None) -> None:
    """Give the view events, and the clock of the run; wait until they are shown."""
    page.evaluate(
        "([rows, now]) => { view.push(rows); if (now !== null) view.now(now); return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); }",
        [list(run_page.rows(events)), now],
    )
    if events:
        page.wait_for_function(_SHOWN, arg=events[-1].seq)


def replies() -> dict[str, Any]:
    """What a kernel would answer, of a real run and a made-up history."""
    before = golden("debate.light.yaml")
    said = [
        event._replace(payload={**event.payload, "output": "Something else entirely."}) if event.type == "node_completed" and event.seq > 30 else event
        for event in before
    ]  # fmt: skip
    row = {"run_id": "exec_77777777", "short_id": "77777777", "diagram": "Debate", "status": "completed", "duration_s": 3.2, "cost_usd": 0.012, "model": "gpt-5", "inputs": "topic=tabs", "note": ""}  # fmt: skip
    return {
        "inputs": {
            "model": None,
            "inputs": [
                {"name": "topic", "value": "tabs or spaces", "default": None, "kind": "text"},
                {"name": "rounds", "value": 3, "default": 3, "kind": "number"},
                {"name": "loud", "value": False, "default": False, "kind": "boolean"},
                {"name": "style", "value": {"tone": "dry"}, "default": None, "kind": "json"},
            ],
        },
        "runs": {"runs": [row, {**row, "run_id": "exec_8", "short_id": "8", "status": "failed", "note": "Too long from here on, and it repeats itself again and again."}]},
        "compare": comparison(RunState.fold(before), RunState.fold(said)),
        "copy": {"text": '"""As run exec_1 did."""\n\nimport dipeo_nb as dp\n\nprint("hello")\n'},
    }  # fmt: skip


def statuses(page: Any) -> dict[str, str]:
    """Node → status, as the drawing shows them."""
    return dict(
        page.evaluate("() => [...document.querySelectorAll('[data-node]')].map((g) => [g.dataset.node, g.dataset.status])")
    )

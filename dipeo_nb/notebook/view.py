"""The live view of a run: an anywidget fed from the run's state, frozen to its static form at the end.

One task on the loop thread per view looks at the state 20 times a second and sends what changed; however fast tokens come,
the browser gets no more (jupyter_server drops everything above 1000 messages a second). Callbacks of the page may come on
any thread: they only hand over.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from dipeo_nb.diagram.drawing import LIVE_CSS, draw
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.fold import RunState
from dipeo_nb.notebook.static_view import bundle, money, shown

INTERVAL_S = 0.05
"""Seconds between two updates of the page."""
LOG_INTERVAL_S = 0.25
"""Seconds between two updates of the list of events."""
TEXT_LIMIT = 60_000
"""Characters of one node's text sent to the page (its end)."""
LOG_LINES = 200
"""Events listed; the run has all of them."""

_STATIC = Path(__file__).parent / "static"


class LiveView(anywidget.AnyWidget):
    """The widget. `commands(message)` is called for each message of the page, on any thread."""

    _esm = _STATIC / "live.js"
    _css = (_STATIC / "live.css").read_text() + LIVE_CSS
    svg = traitlets.Unicode("").tag(sync=True)
    run = traitlets.Dict().tag(sync=True)
    text = traitlets.Dict().tag(sync=True)
    log = traitlets.Dict().tag(sync=True)

    def __init__(self, commands: Callable[[Mapping[str, Any]], None], **state: Any) -> None:
        super().__init__(**state)
        comm = getattr(self, "comm", None)
        if hasattr(comm, "_reply_subshell_for"):
            # ipykernel 7.4 would route the page's messages to the blocked main shell; this restores the page's own
            # routing (jupyter.md §2, finding 4). Elsewhere the attribute does not exist.
            comm._reply_subshell_for = None  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]
        self.on_msg(lambda _, content, buffers: commands(content))


class LiveDisplay:
    """One live view in one output, from its first picture to its frozen form."""

    def __init__(
        self,
        state: RunState,
        diagram: DomainDiagram,
        *,
        stop: Callable[[], None],
        answer: Callable[[str, str], None],
    ) -> None:
        self._state = state
        self._diagram = diagram
        self._stop = stop
        self._answer = answer
        self._chosen: str | None = None
        self._log: list[str] = []
        self._total = 0
        self._next_log = 0.0
        self._log_shown = -1
        self._frozen = False
        self._handle: Any = None
        self.view = LiveView(
            self._command,
            svg=draw(diagram, live=True, title=state.diagram),
            run=self._run(),
            text=self._text(),
            log={"total": 0, "text": ""},
        )

    def show(self) -> None:
        """Display the view in the running cell."""
        from IPython.display import display

        data = bundle(self._state, self._diagram, picture=False)
        widget = self.view._repr_mimebundle_()
        widget_data = (widget[0] if isinstance(widget, tuple) else widget) or {}
        self._handle = display({**data, **widget_data}, raw=True, display_id=True)
        if self._frozen:
            self.freeze()

    def see(self, event: Event) -> None:
        """Take an event into the list. On the loop thread."""
        if event.type is EventType.NODE_OUTPUT:
            return
        self._total += 1
        self._log.append(_line(event, self._state))
        if len(self._log) > 2 * LOG_LINES:
            del self._log[:-LOG_LINES]

    async def follow(self, finished: Callable[[], bool]) -> None:
        """Keep the page up to date until the run is over, then freeze. On the loop thread."""
        try:
            while not finished():
                self._update()
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._next_log = 0.0
            self._update()
            self.freeze()

    def freeze(self) -> None:
        """Replace the widget by the static form, which needs no kernel. A saved notebook then shows it everywhere."""
        self._frozen = True
        if self._handle is None:
            return
        # An empty context: the update belongs to the cell of the display, not to the one that runs now.
        contextvars.Context().run(self._handle.update, bundle(self._state, self._diagram), raw=True)
        self.view.close()

    def _update(self) -> None:
        with self.view.hold_sync():
            self.view.run = self._run()
            self.view.text = self._text()
            now = time.monotonic()
            if self._log_shown != self._total and now >= self._next_log:
                self._next_log = now + LOG_INTERVAL_S
                self._log_shown = self._total
                self.view.log = {"total": self._total, "text": "\n".join(self._log[-LOG_LINES:])}

    def _run(self) -> dict[str, Any]:
        state = self._state
        started = state.started_at or time.time()
        elapsed = state.duration_s if state.finished else max(0.0, time.time() - started)
        total = state.usage.total
        cost = f"{total:,} tokens, {money(state.cost_usd)}" if total is not None else ""
        question = state.pending_question
        return {
            "status": str(state.status),
            # In tenths: the page's own clock fills in between, and an unchanged state sends nothing.
            "elapsed": round(elapsed, 1) if state.finished else round(elapsed),
            "cost": cost,
            "nodes": {i: [str(n.status), n.runs] for i, n in state.nodes.items()},
            "question": {k: question[k] for k in ("request_id", "prompt", "default")} if question else None,
        }

    def _text(self) -> dict[str, Any]:
        state = self._state
        node_id = self._chosen or _following(state)
        if node_id is None or node_id not in state.nodes:
            return {"node": None, "label": "", "text": ""}
        node = state.nodes[node_id]
        text = node.text or (shown(node.output, TEXT_LIMIT) if node.output is not None else "")
        if node.error is not None:
            text = f"{node.error.get('message')}\n{node.error.get('hint') or ''}"
        return {"node": node_id, "label": state.label(node_id), "text": text[-TEXT_LIMIT:]}

    def _command(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"type": "stop"}:
                self._stop()
            case {"type": "select", "node": str(node)}:
                self._chosen = None if node == self._chosen else node
            case {"type": "answer", "request_id": str(request), "text": str(text)}:
                self._answer(request, text)
            case _:
                return  # a page of another version; nothing it could mean is lost


def _following(state: RunState) -> str | None:
    """The node whose text is shown while nobody chose one: the last one that is at work and says something."""
    running = [i for i in state.order if state.nodes[i].status == "running"]
    speaking = [i for i in running if state.nodes[i].text]
    spoken = [i for i in state.order if state.nodes[i].text]
    recent = sorted(spoken, key=lambda i: state.nodes[i].started_at or 0.0)
    return (speaking or recent or running or state.order or [None])[-1]


def _line(event: Event, state: RunState) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event.occurred_at))
    label = f" {state.label(event.node_id)}" if event.node_id else ""
    p = event.payload
    more = p.get("status") or (p.get("error") or {}).get("message") or p.get("message") or p.get("prompt") or ""
    times = f" #{p['run']}" if "run" in p else ""
    return f"{event.seq:>5} {at} {event.type}{label}{times} {shown(str(more), 200)}".rstrip()

"""The live view of a run: an anywidget fed from the run's state, frozen to its static form at the end.

One task per view on the loop thread checks the state 20 times a second and sends what changed; however fast tokens arrive, the
browser gets no more messages (jupyter_server drops everything above 1000 a second). A message has the complete value of a trait,
never a difference, so a page that opens late is right at once. Callbacks of the page may come on any thread: they only pass on.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.drawing_style import LIVE_CSS
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.run_state import NodeState, RunState
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.static_view import bundle, money, shown

INTERVAL_S = 0.05
"""Seconds between two updates of the page."""
LOG_INTERVAL_S = 0.25
"""Seconds between two updates of the list of events."""
TEXT_LIMIT = 60_000
"""Characters of one node's text sent to the page (its end)."""
LOG_ROWS = 500
"""Events listed (the last ones); the run has all of them."""

_STATIC = Path(__file__).parent / "static"


class LiveView(anywidget.AnyWidget):
    """The widget. `commands(message)` is called for each message of the page, on any thread.

    Traits, kernel → page only: `svg` (the live drawing), `run` (status, clock, nodes, question), `text` (of the selected
    node), `log` (rows of events).
    """

    _esm = _STATIC / "live.js"
    _css = (_STATIC / "live.css").read_text(encoding="utf-8") + LIVE_CSS
    svg = traitlets.Unicode("").tag(sync=True)
    run = traitlets.Dict().tag(sync=True)
    text = traitlets.Dict().tag(sync=True)
    log = traitlets.Dict().tag(sync=True)

    def __init__(self, commands: Callable[[Mapping[str, Any]], None], **state: Any) -> None:
        super().__init__(**state)
        comm = getattr(self, "comm", None)
        if hasattr(comm, "_reply_subshell_for"):
            # ipykernel 7.4 would route the page's messages to the blocked main shell; this restores the page's own
            # routing. Elsewhere the attribute does not exist.
            comm._reply_subshell_for = None  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]
        self.on_msg(lambda _, content, buffers: commands(content))


class LiveDisplay:
    """One live view in one output, from its first picture to its frozen form.

    Args:
        stop: ends the run; any thread.
        answer: takes (request id, text); any thread.
        elsewhere: whether a waiting cell asks the questions now, so that the view shows them without a form.
        reached: called when a message of the page arrives, which shows that clicks reach the kernel; any thread.
    """

    def __init__(
        self,
        state: RunState,
        diagram: DomainDiagram,
        *,
        stop: Callable[[], None],
        answer: Callable[[str, str], None],
        elsewhere: Callable[[], bool] = lambda: False,
        reached: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._diagram = diagram
        self._stop = stop
        self._answer = answer
        self._elsewhere = elsewhere
        self._reached = reached
        # The drawing has cleaned ids; an id may be any text.
        self._drawn = {n.id: clean(n.id) for n in diagram.nodes}
        self._ids = {drawn: node_id for node_id, drawn in self._drawn.items()}
        self._chosen: str | None = None
        self._rows: deque[list[Any]] = deque(maxlen=LOG_ROWS)
        self._listed = 0
        self._last_seq = 0
        self._next_log = 0.0
        self._sent_rows = -1
        self._handle: Any = None
        self.view = LiveView(
            self._command,
            svg=draw(diagram, live=True, title=state.diagram),
            run=self._run(),
            text=self._text(),
            log={"total": 0, "rows": []},
        )

    def show(self) -> None:
        """Display the view in the running cell. Front ends without widgets show the static form of this moment."""
        from IPython.display import display

        widget = self.view._repr_mimebundle_()
        data = (widget[0] if isinstance(widget, tuple) else widget) or {}
        self._handle = display(data | bundle(self._state, self._diagram, png=False), raw=True, display_id=True)

    def see(self, event: Event) -> None:
        """Add an event to the list, once. On the loop thread."""
        if event.seq <= self._last_seq:
            return
        self._last_seq = event.seq
        if event.type is not EventType.NODE_OUTPUT:
            self._listed += 1
            self._rows.append(_row(event, self._state))

    async def follow(self, finished: Callable[[], bool]) -> None:
        """Keep the page up to date until the run has ended, then freeze it. On the loop thread."""
        try:
            while not finished():
                self._update()
                await asyncio.sleep(INTERVAL_S)
            self._next_log = 0.0
            self._update()
        finally:
            await self._freeze()

    async def _freeze(self) -> None:
        """Replace the widget with the static form, which needs no kernel: a saved notebook then shows it everywhere."""
        static = await asyncio.to_thread(bundle, self._state, self._diagram)
        # An empty context: the update belongs to the display, not to the cell that happens to run now.
        contextvars.Context().run(self._handle.update, static, raw=True)
        if kernel.unattended():
            # A program that executes a notebook (nbclient) keeps messages that arrive while a cell is executed, and loses those between
            # two cells: a run that ends there would leave a widget without a kernel.
            kernel.at_end_of_cell(lambda: self._handle.update(static, raw=True))
        self.view.close()

    def _update(self) -> None:
        with self.view.hold_sync():
            self.view.run = self._run()
            self.view.text = self._text()
            now = time.monotonic()
            if self._sent_rows != self._listed and now >= self._next_log:
                self._next_log = now + LOG_INTERVAL_S
                self._sent_rows = self._listed
                self.view.log = {"total": self._listed, "rows": list(self._rows)}

    def _run(self) -> dict[str, Any]:
        state = self._state
        elapsed = state.duration_s if state.finished else max(0.0, time.time() - (state.started_at or time.time()))
        total = state.usage.total
        question = state.pending_question
        return {
            "name": clean(state.diagram, 120),
            "model": clean(state.model or "", 60),
            "status": str(state.status),
            # Whole seconds: the page's clock runs by itself, so a quiet run costs one message a second.
            "elapsed": round(elapsed, 1) if state.finished else round(elapsed),
            "spent": "" if total is None else f"{total:,} tokens · {money(state.cost_usd)}",
            "nodes": {self._drawn.get(i, i): [str(n.status), n.runs] for i, n in state.nodes.items()},
            "question": question
            and {
                "id": question["request_id"],
                "label": clean(question.get("label") or "", 120),
                "prompt": question["prompt"],
                "default": question.get("default"),
                "deadline": _deadline(question),
                "elsewhere": self._elsewhere(),
            },
        }

    def _text(self) -> dict[str, Any]:
        state, chosen = self._state, self._chosen
        node_id = chosen or _following(state)
        if node_id is None or node_id not in state.nodes:
            return {"node": None, "label": "", "chosen": False, "text": ""}
        node = state.nodes[node_id]
        text = _said(node) or ("" if node.output is None else shown(node.output, TEXT_LIMIT))
        if node.error is not None:
            text = "\n".join(filter(None, (text, str(node.error.get("message")), str(node.error.get("hint") or ""))))
        label = clean(state.label(node_id), 120)
        return {
            "node": self._drawn.get(node_id, node_id),
            "label": label,
            "chosen": chosen is not None,
            "text": text[-TEXT_LIMIT:],
        }

    def _command(self, message: Mapping[str, Any]) -> None:
        self._reached()
        match message:
            case {"type": "hello"}:
                return
            case {"type": "stop"}:
                self._stop()
            case {"type": "select", "node": str(node)}:
                self._chosen = self._ids.get(node)
            case {"type": "select", "node": None}:
                self._chosen = None
            case {"type": "answer", "id": str(request), "text": str(text)}:
                self._answer(request, text)
            case _:
                return  # a page of another version


def _following(state: RunState) -> str | None:
    """The node whose text is shown unless the user chose one: of the running nodes, the last one with text, else the one started last."""
    running = spoken = started = None
    for node_id in islice(state.order, len(state.order)):
        node = state.nodes[node_id]
        at = node.started_at or 0.0
        said = bool(_said(node))
        if node.status == Status.RUNNING and said and at >= _start(state, running):
            running = node_id
        if said and at >= _start(state, spoken):
            spoken = node_id
        if at >= _start(state, started):
            started = node_id
    return running or spoken or started


def _said(node: NodeState) -> str:
    """The text of a node; for one that is running without text, its progress."""
    if node.text or node.status != Status.RUNNING:
        return node.text
    return "\n".join(list(node.progress.values()))


def _start(state: RunState, node_id: str | None) -> float:
    return -1.0 if node_id is None else state.nodes[node_id].started_at or 0.0


def _deadline(question: Mapping[str, Any]) -> float | None:
    """Seconds since the epoch at which the question expires; None without a limit."""
    asked, timeout = question.get("asked_at"), question.get("timeout")
    return None if asked is None or timeout is None else asked + timeout


def _row(event: Event, state: RunState) -> list[Any]:
    """seq, time, type, node and details of an event, as the list shows them."""
    p = event.payload
    more = p.get("status") or (p.get("error") or {}).get("message") or p.get("message") or p.get("prompt") or ""
    run = f"run {p['run']}" if "run" in p else ""
    return [
        event.seq,
        time.strftime("%H:%M:%S", time.localtime(event.occurred_at)),
        str(event.type).replace("_", " "),
        clean(state.label(event.node_id), 80) if event.node_id else "",
        " · ".join(filter(None, (run, clean(more, 200)))),
    ]

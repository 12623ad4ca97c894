"""Shows a run in a terminal, live or line by line, and asks the user there.

Everything shown here goes to stderr, through `safe`: a label or a model's answer must not steer the terminal.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from dipeo_nb.common import lazy
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import money, visible
from dipeo_nb.common.values import json_text, well_formed
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.payloads import (
    ExecutionLog,
    ExecutionStarted,
    NodeCompleted,
    NodeError,
    NodeStarted,
    ProgressOutput,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live as RichLive
    from rich.table import Table

    from dipeo_nb.domain.events import Event
    from dipeo_nb.domain.ports import Question
    from dipeo_nb.execution import run_state
    from dipeo_nb.execution.engine import Execution
    from dipeo_nb.execution.replay import Replay
    from dipeo_nb.execution.run_state import RunState
else:
    run_state = lazy.module("dipeo_nb.execution.run_state")  # not for `--help`, nor for a line that is said


# What a run looks like.


class View:
    """Shows nothing; the base class of the other views."""

    interval: float = 0.5
    """Seconds between two ticks without events."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def catch_up(self, state: RunState) -> None:
        """Apply what a resumed run did before, without showing it."""

    def show(self, event: Event) -> None:
        """Apply the next event."""

    def tick(self) -> None:
        """Redraw when the interval is over; called often."""

    def note(self, text: str) -> None:
        """Show a message between the events."""

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to another program for a while."""
        yield


SHOWN_AGAIN = 2
"""How many equal results of a node are shown before they are only counted."""


class Lines(View):
    """One line per start and end of a node, for logs and pipes; repeated results of a loop are counted."""

    def __init__(self) -> None:
        self.state: RunState = run_state.RunState()
        self._progress: dict[str, int] = {}
        self._latest: dict[str, str] = {}
        """The latest result of each node, as it is shown."""
        self._again: dict[str, int] = {}
        """How many times in a row a node has reported the same."""

    def note(self, text: str) -> None:
        say(text)

    def catch_up(self, state: RunState) -> None:
        self.state = state.snapshot()

    def show(self, event: Event) -> None:
        self.state.apply(event)
        payload = event.payload
        label = safe(self.state.label(event.node_id or ""), 60)
        match event.type:
            case EventType.EXECUTION_STARTED:
                say(f"{event.run_id}  {safe(cast(ExecutionStarted, payload).get('diagram'), 60)}")
            case EventType.NODE_STARTED if self._again.get(label, 0) < SHOWN_AGAIN:
                run = cast(NodeStarted, payload).get("run", 1)
                say(f"  {label} …" if run == 1 else f"  {label} … (run {run})")
            case EventType.NODE_COMPLETED if cast(NodeCompleted, payload).get("status") == Status.COMPLETED:
                completed = cast(NodeCompleted, payload)
                branch = completed.get("meta", {}).get("branch", "").removeprefix("cond")
                result = branch or completed.get("output")
                self._show_result(label, f"  {label}: {one_line(result, 100) or 'done'}")
            case EventType.NODE_ERROR:
                error = cast(NodeError, payload).get("error")
                say(f"  {label} failed: {one_line(error and error.get('message'), 200)}")
            case EventType.NODE_OUTPUT if event.output_kind == "progress":
                self._show_progress(label, cast(ProgressOutput, payload))
            case EventType.EXECUTION_LOG if payload.get("level") in ("WARNING", "ERROR"):
                line = cast(ExecutionLog, payload)
                where = f"{label}: " if label else ""
                say(f"  {line['level'].lower()}: {where}{one_line(line.get('message'), 300)}")
            case EventType.EXECUTION_COMPLETED | EventType.EXECUTION_ERROR:
                for name in self._again:
                    self._show_count(name)
                say(summary(self.state))
            case _:
                pass

    def _show_result(self, label: str, line: str) -> None:
        if self._latest.get(label) == line:
            self._again[label] = self._again.get(label, 0) + 1
            if self._again[label] > SHOWN_AGAIN:
                return
        else:
            self._show_count(label)
            self._again[label] = 0
            self._latest[label] = line
        say(line)

    def _show_count(self, label: str) -> None:
        if (more := self._again.get(label, 0) - SHOWN_AGAIN) > 0:
            say(f"{self._latest[label]} ({more} more times)")

    def _show_progress(self, label: str, payload: ProgressOutput) -> None:
        """Show a line for each tenth, as lines cannot be redrawn here."""
        tenth = int(10 * _share(payload.get("data")))
        if self._progress.get(label) != tenth:
            self._progress[label] = tenth
            say(f"  {label}: {_progress_text(payload)}")


class Live(View):
    """Draws the run in place: nodes with status and runs, and the text of the running ones; finished answers scroll by."""

    interval: float = 0.1
    redraw: float = 1 / 15
    """Minimum seconds between two drawings."""

    def __init__(self) -> None:
        self.state: RunState = run_state.RunState()
        self.console: Any = new_console()
        self._drawn = 0.0
        self._note = ""
        self._progress: dict[str, str] = {}
        self.live = self._drawing()

    def _drawing(self) -> RichLive:
        from rich.live import Live as RichLive

        return RichLive(console=self.console, auto_refresh=False, get_renderable=self._frame)

    def __enter__(self) -> View:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._note = ""
        self.live.refresh()
        self.live.stop()

    def catch_up(self, state: RunState) -> None:
        self.state = state.snapshot()

    def note(self, text: str) -> None:
        # Only remembered: this is called from a signal handler, perhaps in the middle of a drawing.
        self._note = text

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.live.transient = True  # this drawing goes, as the next one shows it all again
        self.live.stop()
        try:
            yield
        finally:
            self.live: Any = self._drawing()  # a used one would draw over what was said meanwhile
            self.live.start()

    def show(self, event: Event) -> None:
        self.state.apply(event)
        node_id = event.node_id or ""
        if event.output_kind == "progress":
            self._progress[node_id] = _progress_text(cast(ProgressOutput, event.payload))
        elif event.type in ("node_completed", "node_error", "node_output"):
            self._progress.pop(node_id, None)
        if event.type == "node_completed":
            completed = cast(NodeCompleted, event.payload)
            if completed.get("meta", {}).get("person_id"):
                self._say_answer(node_id, completed)

    def tick(self) -> None:
        if time.monotonic() - self._drawn >= self.redraw:
            self.live.refresh()
            self._drawn = time.monotonic()

    def _say_answer(self, node_id: str, payload: NodeCompleted) -> None:
        """Print a person's finished answer above the drawing."""
        from rich.padding import Padding
        from rich.text import Text

        title = Text(safe(self.state.label(node_id), 60), style="bold cyan")
        if payload.get("run", 1) > 1:
            title.append(f"  (round {payload['run']})", style="dim")
        body = Text(safe(payload.get("text") or payload.get("output"), 4000).strip())
        self.console.print(title, Padding(body, (0, 0, 1, 2)))

    def _frame(self) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        state = self.state
        height = max(8, self.console.height)
        running = [i for i in state.order if state.nodes[i].status == "running"]
        texts: list[RenderableType] = []
        for node_id in running[:3]:
            if text := safe(state.nodes[node_id].text[-2000:]).strip():
                last = Text(text).wrap(self.console, max(20, self.console.width - 4))[-max(3, height // 4) :]
                texts += [
                    Text(safe(state.label(node_id), 60), style="bold yellow"),
                    Padding(Text("\n").join(last), (0, 0, 1, 2)),
                ]
        parts: list[RenderableType] = [*texts, self._nodes(height // 2), Text(summary(state), style="bold")]
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        return Group(*parts)

    def _nodes(self, rows: int) -> RenderableType:
        """The nodes in file order; when they do not fit, those that are running or failed, then those that finished last."""
        from rich.table import Table
        from rich.text import Text

        state, glyphs = self.state, _glyphs(self.console)
        shown = list(state.nodes)
        if len(shown) > rows:
            started = [i for i in reversed(state.order) if state.nodes[i].status not in ("running", "failed")]
            urgent = [i for i in state.order if state.nodes[i].status in ("running", "failed")]
            chosen = set([*urgent, *started, *shown][:rows])
            shown = [i for i in shown if i in chosen]
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, max_width=40, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for node_id in shown:
            node = state.nodes[node_id]
            glyph, style = glyphs.get(str(node.status), ("?", ""))
            note = self._progress.get(node_id) or one_line((node.error or {}).get("message"), 200)
            table.add_row(
                Text(glyph, style=style),
                Text(safe(state.label(node_id), 200), style=style if node.status == "running" else ""),
                f"{node.runs}×" if node.runs > 1 else "",
                f"{node.duration_s:.1f} s" if node.duration_s >= 0.05 else "",
                Text(note, style="dim"),
            )
        if len(shown) < len(state.nodes):
            table.add_row("", Text(f"… and {len(state.nodes) - len(shown)} more nodes", style="dim"))
        return table


_GLYPHS = {
    "pending": ("·", ".", "dim"),
    "running": ("▶", ">", "yellow"),
    "paused": ("‖", "=", "yellow"),
    "completed": ("✓", "+", "green"),
    "maxiter_reached": ("✓", "+", "green"),
    "skipped": ("–", "-", "dim"),
    "failed": ("✗", "x", "bold red"),
    "aborted": ("■", "#", "red"),
    "interrupted": ("■", "#", "red"),
}
"""Status → sign, sign in ASCII, style."""


def _glyphs(console: Console) -> dict[str, tuple[str, str]]:
    plain = console.options.ascii_only
    return {status: (ascii_sign if plain else sign, style) for status, (sign, ascii_sign, style) in _GLYPHS.items()}


def summary(state: RunState) -> str:
    """`completed · Debate · local · 12.3 s · 231 tokens · $0.0012`."""
    elapsed = state.duration_s or (max(0.0, time.time() - state.started_at) if state.started_at else 0.0)
    parts = [str(state.status), safe(state.diagram, 60)]
    if state.model:
        parts.append(state.model)
    parts.append(f"{elapsed:.1f} s")
    if state.usage.total:
        parts.append(f"{state.usage.total} tokens")
    if state.usage.total or not state.cost_complete:
        parts.append("cost unknown" if state.cost_usd is None else money(state.cost_usd) if state.cost_usd else "free")
    return " · ".join(parts)


def _share(data: Mapping[str, Any] | None) -> float:
    """The fraction of the work that is done, 0 to 1; 0 when unknown."""
    done, total = (data or {}).get("done"), (data or {}).get("total")
    return min(1.0, done / total) if done and total else 0.0


def _progress_text(payload: ProgressOutput) -> str:
    share = _share(payload.get("data"))
    return one_line(payload.get("text"), 100) + (f" {share:.0%}" if share else "")


# Questions to the person at the keyboard.


@dataclass(frozen=True)
class PendingQuestion:
    """A question on its way from the loop thread to the main thread, which owns the terminal."""

    question: Question
    reply: Callable[[str, str], None]
    """Takes the answer and its source."""
    waiting: Callable[[], bool]
    """False once the answer is no longer needed."""


class TerminalPrompter:
    """InteractionPort of a terminal: puts each question into the feed that the main thread reads."""

    def __init__(self, feed: queue.SimpleQueue[Any]) -> None:
        self._feed = feed

    async def ask(self, question: Question) -> tuple[str, str]:
        import asyncio

        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[str, str]] = loop.create_future()

        def reply(text: str, source: str) -> None:
            loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result((text, source)))

        self._feed.put(PendingQuestion(question, reply, lambda: not answered.done()))
        return await answered


def prompt_user(asked: PendingQuestion, execution: Execution | Replay) -> None:
    """Ask at the terminal; the end of input without a default stops the run."""
    question = asked.question
    default = f" [{question.default}]" if question.default is not None else ""
    sys.stderr.write(f"\n{safe(question.prompt or question.label)}{safe(default)}\n> ")
    sys.stderr.flush()
    line = _read_line(asked.waiting)
    if line is None:
        sys.stderr.write("\n")
    elif line.rstrip("\r\n"):
        asked.reply(line.rstrip("\r\n"), "user")
    elif question.default is not None:
        asked.reply(question.default, "default")
    elif line:
        asked.reply("", "user")
    else:
        execution.stop(f"the input ended before '{question.label}' was answered")


def _read_line(waiting: Callable[[], bool]) -> str | None:
    """A line of stdin, "" at its end; None when it is no longer needed (timed out, stopped)."""
    if os.name == "nt":  # no select on a console there
        return sys.stdin.readline()
    import select

    while waiting():
        if select.select([sys.stdin], [], [], 0.2)[0]:
            return sys.stdin.readline()
    return None


# Text.


def say(*lines: str) -> None:
    """Write lines to stderr."""
    for line in lines:
        print(safe(line), file=sys.stderr)
    sys.stderr.flush()


def one_line(value: Any, limit: int) -> str:
    """The beginning of a value on one line."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json_text(value)
    return safe(" ".join(redactor(text)[: 4 * limit].split()), limit)


def safe(value: Any, limit: int | None = None) -> str:
    """Text that is safe for a terminal: without secrets, with control and bidirectional characters as escapes, cut to *limit*."""
    text: str = redactor("" if value is None else value if isinstance(value, str) else json_text(value))
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return visible(well_formed(text))


def new_console(*, stderr: bool = True) -> Console:
    """A console without markup; it is wide when there is no terminal, so that nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else 200)


def new_table(*columns: str) -> Table:
    """A table without borders; numbers are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        # Where room is short free text wraps, so that names stay whole: they are for copying.
        table.add_column(
            name,
            justify="right" if name in ("took", "tokens", "cost", "events", "size") else "left",
            no_wrap=name not in ("diagram", "about", "persons", "needs approval for", "fix", "values"),
        )
    return table


# The former names, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Asked": "dipeo_nb.terminal:PendingQuestion",
            "TerminalAnswers": "dipeo_nb.terminal:TerminalPrompter",
        },
    )

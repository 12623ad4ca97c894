"""The views of a kernel: one widget for all of them, which is shown nowhere, and one ticker with one budget.

What stands in a notebook is static HTML that names the widget and what it shows (`mark`); the script of the widget puts the view over it,
wherever in a page that HTML appears. The ticker sends what the subjects (runs, chats, a table of runs) have to say: all of it in one message,
ten times a second at most, within `BYTES_PER_S`; jupyter_server drops everything above 1000 messages a second.
Callbacks of a page may come on any thread: they only pass on.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import anywidget
import traitlets

from dipeo_nb.common.loop import LoopThread
from dipeo_nb.common.redaction import logger
from dipeo_nb.errors import DipeoError
from dipeo_nb.execution import run_page

TICK_S = 0.1
"""Seconds between two messages to the pages."""
HEARTBEAT_S = 1.0
"""Seconds after which a page hears the clocks of what is live, also when nothing happens."""
BYTES_PER_S = 300_000
"""Characters of JSON sent in any second to all pages."""
REPLY_BYTES = 200_000
"""Characters of one message that answers what a page asked for."""
KEPT = 100
"""Subjects that pages can ask for; the oldest that has ended is dropped, and its static face is left."""
_LOG = logger(__name__)


class Subject(Protocol):
    """What a view shows. All of it on the loop thread."""

    id: str
    live: bool
    """Whether more may happen."""
    last: int
    """Number of the last thing that pages were given."""

    def part(self, room: int) -> dict[str, Any] | None:
        """The next things to tell, about *room* characters of them; None when there is nothing."""
        ...

    def now(self) -> float:
        """Seconds of its clock."""
        ...

    def head(self) -> Mapping[str, Any]:
        """What does not change; `kind` says which view shows it."""
        ...

    def given(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """What pages were given after a number, in parts of about `REPLY_BYTES`, up to `last` as it is at the end.

        It takes the time that its parts need, and none between the last of them and its end.
        """
        ...

    async def asked(self, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Take a message of a page; returns the answer to it, if there is one."""
        ...


class PageWidget(anywidget.AnyWidget):
    """The widget. `commands(message)` is called for each message of a page, on any thread."""

    _esm = run_page.script("widget.js")
    _css = run_page.styles() + (run_page.FOLDER / "widget.css").read_text(encoding="utf-8")
    token = traitlets.Unicode("").tag(sync=True)
    shows = traitlets.Unicode("").tag(sync=True)
    """Where the front end displays the widget itself: what it shows."""

    def __init__(self, commands: Callable[[Mapping[str, Any]], None], **state: Any) -> None:
        super().__init__(**state)
        comm = getattr(self, "comm", None)
        if hasattr(comm, "_reply_subshell_for"):
            # ipykernel 7.4 would route the page's messages to the blocked main shell; this restores the page's own
            # routing. Elsewhere the attribute does not exist.
            comm._reply_subshell_for = None  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]
        self.on_msg(lambda _, content, buffers: commands(content))


class Views:
    """All views of this kernel. Created in the main thread; everything else on the loop thread."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(6)
        self.widget = PageWidget(self._command, token=self.token)
        self._subjects: OrderedDict[str, Subject] = OrderedDict()
        self._count = 0
        self._coming: dict[str, dict[Any, Mapping[str, Any]]] = {}
        """Ids whose subjects are not here yet, as a run is displayed before its record is open; each with what pages have asked meanwhile."""
        self._resending: set[tuple[Any, str]] = set()
        """Pages, and the ids of what is being sent to them once more."""
        self._dropped: set[str] = set()
        self._sent: deque[tuple[float, int]] = deque()
        self._heard_at = 0.0
        self._ticking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def new_id(self) -> str:
        """An id for a subject. Any thread."""
        self._count += 1
        subject_id = f"v{self._count}"
        self._coming[subject_id] = {}
        return subject_id

    def mark(self, subject_id: str, html: str, *, final: bool) -> str:
        """Static HTML over which pages put the view of a subject."""
        return f'<div class="dipeo-of-{self.token} dipeo-shows-{subject_id}{" dipeo-final" if final else ""}">{html}</div>'

    def displayed(self, subject_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a front end needs to display the widget itself, in which it shows a subject: data, and metadata, which tell Colab where
        its widgets come from."""
        self.widget.shows = subject_id
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return dict(data), dict(metadata)

    def add(self, subject: Subject) -> None:
        """Let pages see a subject."""
        self._subjects[subject.id] = subject
        for message in self._coming.pop(subject.id, {}).values():
            self._begin(message)
        if subject.id in self._dropped:
            self._dropped.discard(subject.id)
            self._send({"type": "again", "id": subject.id})
        if len(self._subjects) > KEPT:
            ended = next((i for i, other in self._subjects.items() if not other.live and i != subject.id), None)
            if ended is not None:
                del self._subjects[ended]
                self._dropped.add(ended)
                self._send({"type": "dropped", "id": ended})
        if self._ticking is None or self._ticking.done():
            # An empty context: what is sent belongs to no cell.
            loop = asyncio.get_running_loop()
            self._ticking = loop.create_task(self._tick_while_live(), context=contextvars.Context())

    def tell(self, subject_id: str, part: Mapping[str, Any]) -> None:
        """Tell all pages more of a subject that is not live."""
        self._send({"type": "tick", "parts": [{"id": subject_id, **part}]})

    async def _tick_while_live(self) -> None:
        while True:
            going = [s for s in self._subjects.values() if s.live]
            self._tick()
            if not going:
                return
            await asyncio.sleep(TICK_S)

    def _tick(self) -> None:
        """Tell the pages what is new, first of those that have waited longest."""
        room, parts = self._room(), list[dict[str, Any]]()
        for subject in list(self._subjects.values()):
            if room <= 0:
                break
            part = subject.part(room)
            if part is not None:
                part["id"] = subject.id
                parts.append(part)
                room -= len(json.dumps(part, ensure_ascii=False, default=str))
                self._subjects.move_to_end(subject.id)
        at = time.monotonic()
        beat = at - self._heard_at >= HEARTBEAT_S
        if not parts and not beat:
            return
        message: dict[str, Any] = {"type": "tick", "parts": parts}
        if beat:
            self._heard_at = at
            message["now"] = {s.id: round(s.now(), 3) for s in self._subjects.values() if s.live}
        self._sent.append((at, self._room() - room))
        self._send(message)

    def _room(self) -> int:
        """Characters that may be sent now."""
        since = time.monotonic() - 1.0
        while self._sent and self._sent[0][0] < since:
            self._sent.popleft()
        return BYTES_PER_S - sum(size for _, size in self._sent)

    def _send(self, message: Mapping[str, Any]) -> None:
        self.widget.send(message)

    # Messages of the pages.

    def _command(self, message: Mapping[str, Any]) -> None:
        loop = LoopThread.get().loop
        loop.call_soon_threadsafe(lambda: self._begin(message), context=contextvars.Context())

    def _begin(self, message: Mapping[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Mapping[str, Any]) -> None:
        page, subject_id = message.get("page"), message.get("of")
        subject = self._subjects.get(subject_id) if isinstance(subject_id, str) else None
        try:
            match message:
                case {"type": "since", "seq": int(seq)}:
                    if subject is None and subject_id in self._coming:
                        self._coming[subject_id][page] = message  # answered when it comes
                    elif subject is None:
                        self._send({"type": "reply", "to": page, "id": subject_id, "unknown": True})
                    else:
                        await self._tell_again(subject, seq, page)
                case _ if subject is not None:
                    reply = await subject.asked(message)
                    if reply is not None:
                        self._send({"to": page, "id": subject_id, **reply})
                case _:
                    return  # a page of another version, or of a subject that was dropped
        except DipeoError as error:
            _LOG.warning("What a view asked for cannot be read: %s", error)  # at this moment: the page asks again

    async def _tell_again(self, subject: Subject, after: int, page: Any) -> None:
        """Tell one page what the others know already: it was loaded later, or lost a message.

        One that asks again meanwhile, as the record is slow, does not get it twice: when this ends it knows whether something is missing.
        """
        asked = (page, subject.id)
        if asked in self._resending:
            return
        self._resending.add(asked)
        try:
            await self._tell_all_after(subject, after, page)
        finally:
            self._resending.discard(asked)

    async def _tell_all_after(self, subject: Subject, after: int, page: Any) -> None:
        await subject.asked({"type": "since"})
        last, first = after, True
        async for part in subject.given(after):
            last = part["last"]
            more = {"head": subject.head()} if first else {}
            self._send({"type": "reply", "to": page, "id": subject.id, "done": False, **more, **part})
            first = False
        # Nothing was sent to others between the last part and this message.
        head = {"head": subject.head()} if first else {}
        state = {"done": True, "live": subject.live, "now": round(subject.now(), 3)}
        self._send({"type": "reply", "to": page, "id": subject.id, "after": last, "last": last, **head, **state})


_views: Views | None = None


def views() -> Views:
    """The views of this kernel, created at first use. In the main thread."""
    global _views
    if _views is None:
        _views = Views()
    return _views

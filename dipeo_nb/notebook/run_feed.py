"""What the pages are given of one run: its events as rows, in order, each once; pieces of a text that came together are one row."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import STREAMED, VARYING
from dipeo_nb.errors import DipeoError, TrustError
from dipeo_nb.execution import run_page
from dipeo_nb.execution.live_clock import LiveClock
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.view import REPLY_BYTES, TICK_S

_RECENT = 50
"""Parts that are kept for pages that come later: the record is read up to those."""
_OUTPUT = EventType.NODE_OUTPUT


class RunFeed:
    """One run, as pages see it. On the loop thread, but for what the constructor does.

    Args:
        read: gives the events after a number, in pages, from the record of the run.
        stop: ends the run.
        answer: takes (request id, text).
        can: what the pages may ask for now.
        face: what a notebook holds of the run now that it has ended.
        order: carries out what a page asks for and waits for, such as the record of a run that this one began; None when that cannot be.
        reached: called when a message of a page arrives.
    """

    def __init__(
        self,
        subject_id: str,
        state: RunState,
        diagram: DomainDiagram,
        *,
        read: Callable[[int], AsyncIterator[Iterable[Event]]],
        stop: Callable[[], None],
        answer: Callable[[str, str], None],
        can: Callable[[], list[str]],
        face: Callable[[], Awaitable[Mapping[str, Any]]],
        order: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]],
        live: bool,
        reached: Callable[[], None] = lambda: None,
        budget: float | None = None,
    ) -> None:
        self.id = subject_id
        self.live = live
        self.last = 0
        self._state, self._diagram = state, diagram
        self._read, self._stop, self._answer, self._can = read, stop, answer, can
        self._face, self._order, self._reached = face, order, reached
        self._budget = budget
        self._pending: deque[Event] = deque()
        self._recent: deque[tuple[int, list[run_page.Row]]] = deque(maxlen=_RECENT)
        """The number before each of the last parts, and its rows."""
        self.seen = 0
        """Number of the last event taken."""
        self._early: dict[int, Event] = {}
        self._clock = LiveClock()
        self._could: list[str] | None = None
        self._said_end = False
        self._head: dict[str, Any] | None = None

    def see(self, event: Event) -> None:
        """Take an event, once; one that comes before those that it follows waits for them."""
        if event.seq != self.seen + 1:
            if event.seq > self.seen:
                self._early[event.seq] = event
            return
        following: Event | None = event
        while following is not None:
            self.seen = following.seq
            self._pending.append(following)
            following = self._early.pop(self.seen + 1, None) if self._early else None

    def end(self) -> None:
        """Nothing happens any more, whether or not an event given so."""
        self._said_end = True

    def head(self) -> Mapping[str, Any]:
        if self._head is None:
            state = self._state
            self._head = {
                "kind": "run",
                **run_page.head_of(
                    state.run_id, self._diagram, name=state.diagram, model=state.model, budget=self._budget, live=self.live,
                    can=self._can(),
                ),
            }  # fmt: skip
        return {**self._head, "live": self.live, "can": self._can()}

    def part(self, room: int) -> dict[str, Any] | None:
        if not self.live:
            return None
        after, found, taken = self.last, list[run_page.Row](), 0
        while self._pending and taken < room:
            some = [self._pending.popleft() for _ in range(min(len(self._pending), 500))]
            for row in joined(some):
                found.append(row)
                taken += len(json.dumps(row, ensure_ascii=False, default=str))
            for event in some:
                self._clock.take(event)
            self.last = some[-1].seq
        part: dict[str, Any] = {}
        if found:
            part |= {"after": after, "last": self.last, "rows": found}
            self._recent.append((after, found))
        could = self._can()
        if could != self._could:
            self._could = part["can"] = could
        if self._said_end and not self._pending:
            self.live = False
            part |= {"live": False, "now": round(self.now(), 3)}
        if not part:
            return None
        return {"after": after, "last": self.last, **part}

    def now(self) -> float:
        return self._clock.now(self.live)

    async def given(self, after: int) -> AsyncIterator[dict[str, Any]]:
        while after < self.last:
            if sent := self._sent_after(after):
                # All of it in this moment: a run that continues would be read forever.
                for rows, _ in _parts(sent):
                    yield {"after": after, "last": rows[-1][0], "rows": rows}
                    after = rows[-1][0]
                return
            before, last = after, self.last
            async for page in self._read(after):
                events = [event for event in page if after < event.seq <= last]
                for rows, size in _parts(joined(events)):
                    # Every message says where it begins: rows are of several events.
                    yield {"after": after, "last": rows[-1][0], "rows": rows}
                    after = rows[-1][0]
                    await asyncio.sleep(TICK_S * size / REPLY_BYTES)
                if events:
                    after = max(after, events[-1].seq)
            if after == before:  # the rest is not recorded
                return

    def _sent_after(self, seq: int) -> list[run_page.Row]:
        """What pages were sent after a number; nothing when none of the last parts begins there."""
        parts = list(self._recent)
        first = next((i for i, (after, _) in enumerate(parts) if after == seq), len(parts))
        return [row for _, rows in parts[first:] for row in rows]

    async def asked(self, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self._reached()
        match message:
            case {"type": "stop"}:
                self._stop()
            case {"type": "answer", "id": str(request), "text": str(text)}:
                self._answer(request, text)
            case {"type": "face"} if not self.live:
                return {"type": "face", "data": await self._face(), "metadata": {}}
            case {"type": "order", "order": dict(order), "request": int(request)}:
                return {"type": "order", "request": request, **await self._ordered(order)}
            case {"type": "body", "seq": int(seq)}:
                async for page in self._read(seq - 1):
                    for event in page:
                        if event.seq == seq:
                            return {"type": "body", "rows": list(run_page.rows([event], limit=10_000_000))}
                        break
                    break
            case _:
                pass
        return None

    async def _ordered(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return {"found": await self._order(order)}
        except TrustError as error:
            return {"error": error.message, "listing": error.listing(), "pin": error.facts.get("pin")}
        except DipeoError as error:
            return {"error": f"{error.message} {error.hint or ''}".rstrip()}

    async def later(self) -> dict[str, Any] | None:
        """What was recorded of the run after its end, such as notes; None when there is nothing, or it has not ended."""
        if self.live:
            return None
        after = self.last
        events = [event async for page in self._read(after) for event in page if event.seq > after]
        if not events:
            return None
        self.last = events[-1].seq
        return {"after": after, "last": self.last, "rows": list(joined(events))}


def joined(events: Iterable[Event]) -> Iterator[run_page.Row]:
    """The rows of events that happened in a row. Pieces of one text within `TICK_S` are one row, in the place of the last of them."""
    open_texts: dict[str | None, list[Event]] = {}
    found: list[Event] = []
    texts: dict[int, list[Event]] = {}

    def close(node_id: str | None) -> None:
        pieces = open_texts.pop(node_id, None)
        if pieces is not None:
            texts[pieces[-1].seq] = pieces

    for event in events:
        if event.type is not _OUTPUT or event.payload.get("kind") not in STREAMED:
            close(event.node_id)
            found.append(event)
            continue
        pieces = open_texts.get(event.node_id)
        if pieces is not None and not _continues(pieces, event):
            close(event.node_id)
            pieces = None
        if pieces is None:
            open_texts[event.node_id] = [event]
        else:
            pieces.append(event)
    for node_id in list(open_texts):
        close(node_id)
    found.extend(map(_one, texts.values()))
    found.sort(key=lambda event: event.seq)
    yield from run_page.rows(found)


def _continues(pieces: list[Event], event: Event) -> bool:
    last, new = pieces[-1].payload, event.payload
    return (
        event.occurred_at - pieces[0].occurred_at < TICK_S
        and "restart" not in new
        and last.keys() - VARYING == new.keys() - VARYING
        and all(name in VARYING or value == last[name] for name, value in new.items())
    )


def _one(pieces: list[Event]) -> Event:
    if len(pieces) == 1:
        return pieces[0]
    text = "".join(piece.payload.get("text", "") for piece in pieces)
    count = sum(piece.payload.get("pieces", 1) for piece in pieces)
    return pieces[-1]._replace(payload={**pieces[0].payload, "text": text, "pieces": count})


def _parts(rows: Iterable[run_page.Row]) -> Iterator[tuple[list[run_page.Row], int]]:
    """Rows in parts of about `REPLY_BYTES`, each with its size."""
    part: list[run_page.Row] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row, ensure_ascii=False, default=str))
        if part and size + length > REPLY_BYTES:
            yield part, size
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part, size

"""A run as one HTML file: the run view with its timeline, offline, without anything to install or to load.

The file holds the log, compressed, and the script of the view; of a very long run the end of the log, and the state before that. Its policy lets nothing else run and loads nothing. Without scripts, and on
paper, it shows the run as lines of text.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, cast

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import inert
from dipeo_nb.common.values import json_text, plain_value
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution import run_page, snapshots
from dipeo_nb.execution.left_out import LeftOut
from dipeo_nb.execution.run_page import Row
from dipeo_nb.execution.run_state import RunState, interrupted
from dipeo_nb.execution.snapshots import recorded_state

SIZE = 1_400_000
"""Characters of the data of a file at most, where it can be kept: longer texts are cut to their beginning until it fits."""
LIMITS = (1_000_000, 100_000, 20_000, 4_000, 500)
"""Characters of one text, the first of these with which a file is not larger than `SIZE`."""
CHILDREN = 200
"""Runs of sub-diagrams that a file holds at most."""

EVENTS = 100_000
"""Events of a run that a file holds at most, and of all runs of its sub-diagrams together: a browser shows so many within seconds."""


class Log(NamedTuple):
    """A run that is written."""

    state: RunState
    """After the last event that is written."""
    pages: Callable[[int], AsyncIterator[Iterable[Event]]]
    """Gives the events after a number in order, some at a time."""


def held(events: Sequence[Event], state: RunState | None = None) -> Log:
    """A run whose events are at hand, and the state after them."""

    async def pages(after: int) -> AsyncIterator[Iterable[Event]]:
        yield [event for event in events if event.seq > after]

    return Log(RunState.fold(events) if state is None else state, pages)


async def recorded(store: RunStore, run_id: str) -> list[Log]:
    """A recorded run, and behind it those of its sub-diagrams."""
    found = await _log(store, run_id)
    return [found, *await sub_runs(store, found.state)]


async def sub_runs(store: RunStore, state: RunState) -> list[Log]:
    """The runs of sub-diagrams that a run began, and those that they began, as far as they are recorded."""
    waiting, found = deque(_begun(state)), list[Log]()
    while waiting and len(found) < CHILDREN:
        one = await _log(store, waiting.popleft())
        if one.state.events:
            found.append(one)
            waiting += _begun(one.state)
    return found


def _begun(state: RunState) -> list[str]:
    return [child for node in state.nodes.values() for child in node.children]


async def _log(store: RunStore, run_id: str) -> Log:
    return stored(store, run_id, await recorded_state(store, run_id))


def stored(store: RunStore, run_id: str, state: RunState) -> Log:
    """A run whose state is known, and whose events are in a store."""
    return Log(state, lambda after: snapshots.pages(store, run_id, after=after))


def diagram_of(state: RunState) -> DomainDiagram | None:
    """The diagram in a run's record; None when it has none."""
    return load(dict(state.source), format="native").model if state.source else None


async def html(logs: Sequence[Log]) -> str:
    """The page of the first run of *logs*, in which those of sub-diagrams open in place."""
    state = logs[0].state
    data = await packed(logs)

    def page() -> str:
        inside = (
            f'<pre class="dp-text-only">{escape(_text(state))}</pre>\n'
            f'<script type="application/octet-stream" id="data">{data}</script>'
        )
        return run_page.document("page.js", title=state.diagram, inside=inside)

    return await asyncio.to_thread(page)


async def packed(logs: Sequence[Log], size: int = SIZE, events: int = EVENTS) -> str:
    """The runs as pages take them: JSON, compressed, in letters that HTML leaves alone; of *size* characters where texts can be cut.

    Args:
        events: of the first run at most, and of the others together: the last ones, behind what the earlier ones led to. Runs for which
            nothing is left are left out.
    """
    parts = await _parts(logs, events)
    data, longest = "", LIMITS[0] + 1
    for limit in LIMITS:
        if limit < longest:
            packer = _Packer(limit, size)
            for part in parts:
                await packer.take(part)
            data, longest = await asyncio.to_thread(packer.data), packer.longest
            if len(data) <= size:
                break
    return data


class _Part(NamedTuple):
    """A run, and from where on its events are written."""

    log: Log
    beginning: Sequence[Row]
    """What stands before those events."""
    after: int


async def _parts(logs: Sequence[Log], events: int) -> list[_Part]:
    found, room = list[_Part](), events
    for number, log in enumerate(logs):
        if number == 1:
            room = events
        if log.state.events <= room + 1:  # the first event is written in any case
            found.append(_Part(log, (), 0))
        elif room:
            found.append(await _end_of(log, room))
        room -= min(room, log.state.events)
    return found


async def _end_of(log: Log, events: int) -> _Part:
    return _Part(log, await beginning(log, events), log.state.events - events)


async def beginning(log: Log, events: int = EVENTS) -> list[Row]:
    """What stands before the last *events* of a run that has more: the first event, and what those led to that are left out."""
    left, rows = LeftOut(), list[Row]()
    async for page in _between(log, 0, log.state.events - events):
        if not rows:
            rows.append(run_page.whole_row(page[0]))
        await asyncio.to_thread(left.take_all, page)
    row = left.row()
    return [*rows, [*row[:4], redactor(row[4])]]


async def _between(log: Log, after: int, last: int) -> AsyncIterator[Sequence[Event]]:
    """The events after a number up to another one, in pages that have some, each once."""
    async for page in log.pages(after):
        if events := [event for event in page if after < event.seq <= last]:
            yield events
            after = events[-1].seq
        if after >= last:
            return


class _Packer:
    """Compresses runs with texts of so many characters at most.

    It takes no more when the data has become too large and shorter texts would make it smaller.
    """

    def __init__(self, limit: int, size: int) -> None:
        self._limit, self._size = limit, size
        self._zip = zlib.compressobj(9)
        self._data = bytearray()
        self._runs = 0
        self.longest = 0
        """Characters of the longest text in full, where a limit could cut it: shorter limits than that cut something."""

    async def take(self, part: _Part) -> None:
        """Add a run."""
        state, before = part.log.state, ""
        head = await asyncio.to_thread(_head, state)
        self._add(f'{"," if self._runs else "["}{{"head":{_JSON(head)},"events":[')
        self._runs += 1
        if part.beginning:
            await asyncio.to_thread(self._add_rows, part.beginning, before)
            before = ","
        async for page in _between(part.log, part.after, state.events):
            if self._hopeless:
                return
            await asyncio.to_thread(self._add_rows, map(run_page.whole_row, page), before)
            before = ","
        self._add("]}")

    def data(self) -> str:
        """All of it; nothing can be added any more."""
        self._add("]" if self._runs else "[]")
        self._data += self._zip.flush()
        return base64.b64encode(self._data).decode()

    @property
    def _hopeless(self) -> bool:
        return len(self._data) * 4 > self._size * 3 and self._limit > LIMITS[-1] and self.longest > LIMITS[-1]

    def _add_rows(self, rows: Iterable[Row], before: str) -> None:
        texts: list[str] = []
        for row in rows:
            text = _JSON(row)
            if len(text) > LIMITS[-1]:  # else there is nothing in it that any limit cuts
                payload = run_page.cut(row[4], self._limit)
                self.longest = max(self.longest, _longest(payload))
                text = _JSON([*row[:4], payload])
            texts.append(text)
        self._add(before + ",".join(texts))

    def _add(self, text: str) -> None:
        self._data += self._zip.compress(text.encode("utf-8", "surrogatepass"))


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=plain_value).encode


def _longest(value: Any) -> int:
    """Characters of the longest text within what `run_page.cut` has left."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return max(
            cast("int", value.get("$cut", 0)) if value.keys() == {"$cut", "text"} else 0, *map(_longest, value.values()), 0
        )
    return max(map(_longest, value), default=0) if isinstance(value, list) else 0


def _head(state: RunState) -> dict[str, Any]:
    return run_page.head_of(state.run_id, diagram_of(state), name=state.diagram, model=state.model)


def _text(state: RunState) -> str:
    """The run for those whose browser runs no scripts, and for paper."""
    state = interrupted(state)
    lines = [f"{state.diagram}: {state.status}", f"run {state.run_id}"]
    if state.error is not None:
        lines.append(f"{state.error.get('type')}: {state.error.get('message')}")
    for node_id in state.order:
        node = state.nodes[node_id]
        said = node.text or (node.output if isinstance(node.output, str) else json_text(node.output))
        lines.append(f"\n{state.label(node_id)}: {node.status}\n{said[:20_000]}")
    return inert(redactor("\n".join(lines)))

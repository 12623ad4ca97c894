"""Event logs of runs, as text: one line for each event, `*` before the first one of a commit."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Container, Sequence
from typing import Any

from dipeo_nb.common.values import json_text, plain_value
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Clock, HTTPPort, HTTPResponse, InteractionPort, Question
from dipeo_nb.errors import IntegrationError, UserError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.metrics import measure, summarize
from dipeo_nb.execution.recovery import recovered, reusable
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from tests.golden import virtual_time
from tests.support import graph_dsl as shapes
from tests.support.graph_shapes import Shape

BEGIN = 1_780_315_200.0
"""Seconds since the epoch when a run begins: 2026-06-01, 12:00 UTC."""
MODEL = "echo:7"
"""Moves all persons: instant, and loops that wait for a model's no come to an end."""
VISITS = 12
"""Runs of one node after which its loop counts as endless."""
SECONDS = 0.125
"""Virtual time that a node of a shape takes."""


class VirtualClock(Clock):
    """The time of the event loop; ids are numbers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ids: int = 0) -> None:
        self._loop, self._ids = loop, ids

    def now(self) -> float:
        return BEGIN + self.monotonic()

    def monotonic(self) -> float:
        return self._loop.time()

    def new_id(self, prefix: str = "") -> str:
        self._ids += 1
        return f"{prefix}{self._ids:032x}"


class CommitStore(InMemoryRunStore):
    """Remembers which events were committed together."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[str, list[int]] = {}
        """Run → number of the first event of each commit."""

    async def append(self, events: Sequence[Event]) -> None:
        self.began.setdefault(events[0].run_id, []).append(events[0].seq)
        await super().append(events)


class Web(HTTPPort):
    """Servers that answer with the request; `nowhere.example` does not answer, and a path that ends in a status has that status."""

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        if "nowhere" in url:
            raise IntegrationError(f"{url} cannot be reached.", hint="Check the address.", cause="connection")
        facts = {name: options[name] for name in ("params", "json", "content", "timeout") if options.get(name) is not None}
        body = json_text({"method": method, "url": url, **facts}).encode()
        status = int(url[-3:]) if re.fullmatch(r".*/[2-5]\d\d", url) else 200
        return HTTPResponse(status, {"content-type": "application/json"}, body, "utf-8", url, 1)


class Reader(InteractionPort):
    """Repeats each question."""

    async def ask(self, question: Question) -> tuple[str, str]:
        return f"answer to '{question.prompt}'", "answers"


def of_shape(case: Shape) -> str:
    """The run of a shape, and how it goes on when its process ends halfway."""
    decisions = dict(word.split("=") for word in case.decisions.split())
    plan = shapes.drawn(case.arrows)

    async def run() -> list[str]:
        async with _runtime() as runtime:
            execution = runtime.execution(Prepared.own(plan, runtime.services))
            await execution.run()
            lines = await _lines(runtime)
            kept = await _first_half(runtime, execution.run_id)
        async with _runtime() as runtime:
            await runtime.services.store.append(kept)
            found = recovered(plan, kept, variables={}, max_visits=runtime.settings.max_iterations)
            await runtime.execution(Prepared.own(plan, runtime.services), recovered=found).run()
            return lines + await _lines(runtime, kept)

    with shapes.scripted_handlers(decisions, {}, seconds=SECONDS):
        return "\n".join(virtual_time.run(run()))


def of_diagram(document: Diagram, *, again: bool = True) -> str:
    """The run of a diagram.

    Args:
        again: also how it goes on when its process ends halfway, and a fork of it.
    """

    async def run() -> list[str]:
        async with _runtime() as runtime:
            try:
                prepared = runtime.prepare(document, model=MODEL)
                execution = runtime.execution(
                    prepared,
                    model=MODEL,
                    max_iterations=VISITS,
                    interaction=Reader(),
                    source=document.to_data(),
                )
            except UserError as error:
                return [f"refused: {error.message}"]
            await execution.run()
            lines = [*await _lines(runtime), *_words(await runtime.services.store.events(execution.run_id))]
            if not again:
                return lines
            events = await runtime.services.store.events(execution.run_id)
            kept = await _first_half(runtime, execution.run_id)
        return lines + await _resumed(kept) + await _forked(document, prepared.plan, events)

    first, *others = virtual_time.run(run())
    source = f'"source":{_json(document.to_data())}'
    return "\n".join([first, *(line.replace(source, '"source":"as above"') for line in others)])


async def _resumed(kept: Sequence[Event]) -> list[str]:
    async with _runtime(ids=32) as runtime:
        await runtime.services.store.append(kept)
        recovery = await runtime.recover(kept[0].run_id)
        execution = runtime.execution(
            recovery.prepared,
            model=recovery.model,
            own_models=recovery.own_models,
            max_iterations=recovery.max_iterations,
            interaction=Reader(),
            source=kept[0].payload["source"],
            recovered=recovery.recovered,
        )
        await execution.run()
        return await _lines(runtime, kept)


async def _forked(document: Diagram, plan: Plan, events: Sequence[Event]) -> list[str]:
    """A fork from the node that finished last but one."""
    done = [plan.nodes[plan.by_id[e.node_id]] for e in events if e.type is EventType.NODE_COMPLETED and e.node_id]
    if len(done) < 3:
        return []
    async with _runtime(ids=64) as runtime:
        gate = runtime.regate(document, plan, events, model=MODEL)
        execution = runtime.execution(
            Prepared(plan, gate),
            variables=events[0].payload["variables"],
            model=MODEL,
            max_iterations=VISITS,
            interaction=Reader(),
            source=events[0].payload["source"],
            reuse=reusable(plan, events, at=done[-2]),
            forked_from={"run_id": events[0].run_id, "node": done[-2].id, "run": 1},
        )
        await execution.run()
        return [f"-- forked at {done[-2].label}", *await _lines(runtime)]


def _runtime(*, ids: int = 0) -> Runtime:
    """Within a running virtual loop."""
    clock = VirtualClock(asyncio.get_running_loop(), ids)
    return Runtime(get_settings(), clock=clock, store=CommitStore(), bus=InMemoryEventBus(), http=Web())


async def _first_half(runtime: Runtime, run_id: str) -> list[Event]:
    """What was stored when half of the commits were made; half of the events where there are sub-diagrams."""
    store = runtime.services.store
    assert isinstance(store, CommitStore)
    commits = store.began[run_id]
    if len(store.began) > 1:
        return await store.events(run_id, limit=commits[-1] // 2)
    return await store.events(run_id, limit=commits[len(commits) // 2] - 1)


async def _lines(runtime: Runtime, before: Sequence[Event] = ()) -> list[str]:
    """All runs of a runtime, in the order in which they began; without what was there *before*.

    Commits are not marked where there are sub-diagrams: which events of parent and child come together depends on Python's version.
    """
    store = runtime.services.store
    assert isinstance(store, CommitStore)
    lines: list[str] = []
    for row in reversed(await store.runs(limit=1000, nested=True)):
        events = await store.events(row.run_id)
        begun = bool(before) and row.run_id == before[0].run_id
        if begun:
            lines.append(f"-- resumed after event {len(before)}")
        elif row.parent_run_id:
            lines.append(f"-- run {row.run_id}, part of {row.parent_run_id}")
        commits = store.began[row.run_id] if len(store.began) == 1 else ()
        lines += _written(events, len(before) if begun else 0, commits)
        lines.append(f"= {_json(RunState.fold(events).report())}")
    return [_portable(line, runtime.settings) for line in lines]


def _written(events: Sequence[Event], before: int, commits: Container[int]) -> list[str]:
    """Number, seconds since the beginning, type, node and payload of each event; pieces of one text that came together in one
    line, with the list of their texts."""
    lines: list[str] = []
    start = events[0].occurred_at
    for _, group in itertools.groupby(events[before:], lambda e: _stream(e, commits)):
        pieces = list(group)
        event, last = pieces[0], pieces[-1]
        payload = dict(event.payload)
        if last is not event:
            payload["text"] = [piece.payload["text"] for piece in pieces]
        mark = "*" if event.seq in commits else " "
        number = event.seq if last is event else f"{event.seq}-{last.seq}"
        at = round(event.occurred_at - start, 6)
        lines.append(f"{mark}{number} {at:g} {event.type} {event.node_id or '-'} {_json(payload)}")
    return lines


def _stream(event: Event, commits: Container[int]) -> object:
    """The same for pieces that are written in one line."""
    if "is_partial" not in event.payload or event.seq in commits or not isinstance(event.payload.get("text"), str):
        return event.seq
    facts = {name: value for name, value in event.payload.items() if name != "text"}
    return event.node_id, event.occurred_at, _json(facts)


def _json(value: Any) -> str:
    """Compact JSON; keys stay in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain_value)


def _words(events: Sequence[Event]) -> list[str]:
    return [f"~ {sentence}" for sentence in summarize(measure(events))]


def _portable(line: str, settings: Settings) -> str:
    """Without what differs from machine to machine, and shorter."""
    line = line.replace(str(settings.base_dir), "BASE")
    line = re.sub(r'"(mac|whole)":"[0-9a-f]{64}"', r'"\1":"…"', line)
    line = re.sub(r'"traceback":"(?:[^"\\]|\\.)*"', lambda found: _MARKS.sub("", found[0]), line)
    line = _TIME.sub("TIME", line)
    return re.sub(r"exec_0+", "exec_", line)


_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?")
"""What code reads from the clock of the machine."""
_MARKS = re.compile(r"\\n *[~^]+(?=\\n)|\. Did you mean: '[^']*'\?")
"""What versions of Python put in tracebacks in different ways."""

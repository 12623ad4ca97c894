"""Snapshots of runs: so that a run of a million events opens as quickly as one of a thousand.

A snapshot is the `RunState` after some event, stored beside the log. Readers of a run take the latest snapshot and the events
after it. Nothing depends on that: a snapshot that is missing, damaged or of another version costs the time of reading all events.

The journal attaches one to the final event of every run that is long enough, and to a commit now and then on the way, so that a run
whose process was killed opens quickly, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from dipeo_nb.common import lazy
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.payloads import ExecutionStarted
from dipeo_nb.domain.ports import RunStore, Snapshot
from dipeo_nb.domain.spending import Spending
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_state import RunState

if TYPE_CHECKING:
    from dipeo_nb.execution import checkpoint
    from dipeo_nb.execution.progress import RunProgress
else:
    checkpoint = lazy.module("dipeo_nb.execution.checkpoint")  # reading a run needs none

KIND = "state"
FINAL_EVENTS_FROM = 2_000
"""Events from which on a run that ends has a snapshot; shorter ones are read as quickly without."""
EVERY = 20_000
"""Events between two snapshots of a run that is going on, at least."""
CHARACTERS_PER_EVENT = 20
"""Characters of snapshots that a run stores on the way for each of its events, at most (about)."""
_FIRST = ("source", "variables")
"""Fields that the first event has, and the snapshot therefore not."""
_COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning")
_MEANING = 2
"""To be raised when the same fields come to mean something else, or `RunState.apply` makes something else of the same events."""
_LOG = logger(__name__)


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


_RUN = tuple(name for name in _fields(RunState) if name not in (*_FIRST, "nodes", "spent", "persons"))
_NODE = tuple(name for name in _fields(NodeState) if name != "spent")
VERSION = crc32(repr((_MEANING, _fields(RunState), _fields(NodeState), _fields(Spending), _COUNTS)).encode())
"""Of the snapshots that this version of the package reads and writes: it changes with the fields of the state."""


def snapshot_of(state: RunState) -> Snapshot:
    """The snapshot of a state. It shares values with the state, and no container that changes."""
    copied = state.snapshot()
    content = {name: getattr(copied, name) for name in _RUN}
    content["nodes"] = {
        node_id: {**{name: getattr(node, name) for name in _NODE}, "spent": _spent(node.spent)}
        for node_id, node in copied.nodes.items()
    }
    content["spent"] = _spent(copied.spent)
    content["persons"] = {name: _spent(spent) for name, spent in copied.persons.items()}
    return Snapshot(state.run_id, KIND, VERSION, state.events, content)


def state_of(snapshot: Snapshot, first: Event) -> RunState | None:
    """The state of a snapshot; None when it is of another version, or damaged.

    Args:
        first: the first event of the run.
    """
    content = snapshot.content
    if snapshot.version != VERSION:
        return None
    started = cast(ExecutionStarted, first.payload)
    try:
        state = RunState(**{name: content[name] for name in _RUN})
        state.source, state.variables = started.get("source"), started.get("variables", {})
        state.spent = _spending(content["spent"])
        state.persons = {name: _spending(spent) for name, spent in content["persons"].items()}
        for node_id, found in content["nodes"].items():
            state.nodes[node_id] = NodeState(**{name: found[name] for name in _NODE}, spent=_spending(found["spent"]))
        if (state.run_id, state.events) != (first.run_id, snapshot.seq):
            raise ValueError("it is of another run, or of other events")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _LOG.warning("Run %s: its snapshot is damaged and not used: %r", snapshot.run_id, error)
        return None
    return state.snapshot()  # a store may have given its own containers


def _spent(spent: Spending) -> list[Any]:
    return [[getattr(spent.usage, name) for name in _COUNTS], spent.known_usd, spent.complete, spent.calls]


def _spending(found: Sequence[Any]) -> Spending:
    counts, known, complete, calls = found
    return Spending(TokenUsage(*counts), known, complete, calls)


async def pages(store: RunStore, run_id: str, *, after: int = 0) -> AsyncIterator[Sequence[Event]]:
    """The events of a run in pages, from any store: one that does not inherit the port may lack `scan`."""
    scan = getattr(store, "scan", None)
    async for page in RunStore.scan(store, run_id, after=after) if scan is None else scan(run_id, after=after):
        yield page


async def read_run(store: RunStore, run_id: str, *take: Callable[[Event], object], after: int = 0) -> None:
    """Give each recorded event of a run to readers, in order, without holding the others.

    Args:
        take: each is called with every event.
    """
    async for page in pages(store, run_id, after=after):
        for reader in take:
            for event in page:
                reader(event)


async def snapshot_state(store: RunStore, run_id: str) -> RunState:
    """The state of a run after the events of its latest snapshot; that before the first event when there is none to be used."""
    if not hasattr(store, "snapshot") or (snapshot := await store.snapshot(run_id, KIND)) is None:
        return RunState()
    first = await store.events(run_id, limit=1)
    return (state_of(snapshot, first[0]) if first else None) or RunState()


async def recorded_state(store: RunStore, run_id: str, begun: RunState | None = None) -> RunState:
    """What is recorded of a run, read from its latest snapshot on. A snapshot that would have saved much is stored.

    Args:
        begun: a state of the run to go on from.

    Raises:
        StorageError: the run cannot be read.
    """
    state = await snapshot_state(store, run_id) if begun is None else begun
    before = state.events
    await read_run(store, run_id, state.apply, after=before)
    if state.events - before >= EVERY and hasattr(store, "put_snapshot"):
        try:
            await store.put_snapshot(snapshot_of(state))
        except StorageError as error:  # it cannot be written to, or not now: the next reader reads all events again
            _LOG.info("Run %s: no snapshot was stored: %s", run_id, error)
    return state


class Snapshots:
    """Decides when a run that is going on has a snapshot stored, and a checkpoint with it.

    Args:
        seq: number of the last event that is stored already.
        sign: gives events as they are recorded.
    """

    def __init__(self, store: RunStore, seq: int, sign: Callable[[list[Event]], list[Event]]) -> None:
        attach = getattr(store, "attach_snapshot", None)
        self._attach: Callable[[Snapshot], None] | None = (
            None if getattr(attach, "__func__", None) is RunStore.attach_snapshot else attach
        )
        self.stored: bool = self._attach is not None
        """Whether the store stores any."""
        self._due = seq + EVERY
        self._sign = sign
        self._progress: RunProgress | None = None
        self._places: checkpoint.LogPlaces | None = None

    def follow(self, progress: RunProgress, places: checkpoint.LogPlaces | None) -> None:
        """From here on there are checkpoints, too.

        Args:
            places: of the log so far; None: the run begins.
        """
        if self._attach is not None and not progress.shares_code:
            self._progress, self._places = progress, places or checkpoint.LogPlaces(progress.plan)

    def due(self, events: Sequence[Event]) -> bool:
        """Whether a snapshot is to be attached to the append of *events*, which are all that has happened and is not stored."""
        if self._attach is None:
            return False
        if self._places is not None:
            for event in events:
                self._places.take(event)
        seq, kind = events[-1][:2]
        return seq >= self._due or (kind in FINAL_EVENTS and seq >= FINAL_EVENTS_FROM)

    def attach(self, events: Sequence[Event], state: RunState) -> None:
        """Attach a snapshot to the append of *events*.

        Args:
            state: the state before them.
        """
        assert self._attach is not None  # `due` has said so
        last = events[-1]
        state = state.snapshot()
        for event in events:
            state.apply(event)
        snapshot = snapshot_of(state)
        self._attach(snapshot)
        found = None
        if self._progress is not None and self._places is not None and last.type not in FINAL_EVENTS:
            found = checkpoint.checkpoint_of(self._progress, self._places, last, self._sign)
        if found is not None:  # else, and at the end, the one before stays: a run that failed is resumed from there
            self._attach(found)
        self._due = last.seq + max(EVERY, _size(snapshot.content) // CHARACTERS_PER_EVENT)


def _size(value: Any) -> int:
    """Characters of a value as JSON, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(name) + _size(item) for name, item in value.items())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 5

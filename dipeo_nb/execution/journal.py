"""The record of a run in the making: numbers its events, commits them to the store, folds them and publishes them.

The order is fixed: an event is stored, then applied to the `RunState`, then published; so nothing is shown that is not stored.
What is between "taken from the pending events" and "applied" is never cut by a cancellation: node tasks are cancelled by their
time limits, by `stop` and at the end of the run, and call `flush`, which waits for the commit first; the engine's own loop, which
calls `commit`, is not cancelled.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dipeo_nb.common import injection
from dipeo_nb.common.aio import DONE, begun, uncancelled
from dipeo_nb.common.open_on_use import service_of
from dipeo_nb.common.redaction import logger, redactor
from dipeo_nb.common.values import EVENT_DEPTH, is_plain, plain_value
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Clock, Services
from dipeo_nb.errors import StorageError
from dipeo_nb.execution import log_capture
from dipeo_nb.execution.delta_ticks import DeltaTicks, ticks_of
from dipeo_nb.execution.progress import RunProgress
from dipeo_nb.execution.publisher import Publisher
from dipeo_nb.execution.record import log_line
from dipeo_nb.execution.recovery import Recovered
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import Snapshots
from dipeo_nb.execution.streamed_texts import StreamedTexts

_LOG = logger(__name__)
UNWRITABLE = frozenset({"disk_full", "read_only", "moved"})
"""Causes of a StorageError after which a run continues in memory: the run is worth more than its record."""


_new = tuple.__new__
"""Makes a named tuple in half the time."""


class Timeline:
    """The times of a run: the wall clock read once, and monotonic time from there on.

    So times never go backwards and differences are durations, whatever happens to the wall clock meanwhile.

    Args:
        not_before: the time of the last event when a run is resumed; the wall clock may have been set back since.
        parent: the timeline of the run that this one is part of.
    """

    def __init__(self, clock: Clock, *, not_before: float = 0.0, parent: Timeline | None = None) -> None:
        self.monotonic: Callable[[], float] = clock.monotonic
        begin, now = clock.monotonic(), clock.now() if parent is None else parent.now()
        self.offset: float = max(now, not_before) - begin
        """Seconds between the epoch and the beginning of monotonic time."""
        while self.offset + begin < not_before:  # rounded down
            self.offset += math.ulp(max(abs(self.offset), begin, not_before))

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.offset + self.monotonic()


class Journal:
    """The record of one run.

    Args:
        seq: number of the last event that is stored already.
        interval: seconds between two commits of streamed text.
        sign: gives events as they are recorded.
        on_failure: called when a commit that nobody waits for has failed; `failure` says why.
    """

    def __init__(
        self,
        services: Services,
        state: RunState,
        timeline: Timeline,
        *,
        seq: int = 0,
        interval: float,
        sign: Callable[[list[Event]], list[Event]],
        on_failure: Callable[[], None],
    ) -> None:
        self._state = state
        self.timeline = timeline
        self._seq = seq
        self.failure: Exception | None = None
        self.unrecorded: StorageError | None = None
        """Why the run is not recorded to its end: the disk is full, may not be written, or the file is gone. Then it continues in memory."""
        self.tail: list[Event] = []
        """Events that are in memory only."""
        self._run_id = state.run_id
        self._store = services.store
        self._snapshots = Snapshots(services.store, seq, sign)
        self._committed = seq
        self._interval = interval
        self._sign = sign
        self._on_failure = on_failure
        self.pending: list[Event] = []
        """Events that wait for a commit."""
        self._committing = False
        self._shown = seq
        """Number of the last event whose commit has ended."""
        self._commit_ended = asyncio.Event()
        """Tells those who wait for the commit under way that it has ended."""
        self._unshown: list[Event] = []
        """Events that are stored and not published."""
        self._applied = 0
        """How many of them are applied to the state."""
        self._applying = threading.Lock()
        self._ticks: DeltaTicks | None = None
        self._timed: asyncio.Task[None] | None = None
        self.texts: StreamedTexts = StreamedTexts()
        self._publisher = Publisher(state.run_id, services.bus)
        self._ended = False

    def begin(self, progress: RunProgress, recovered: Recovered | None) -> None:
        """Record the run whose progress this is; continue from what was stored before it was cut off."""
        self._snapshots.follow(progress, None if recovered is None else recovered.places)
        if recovered is not None:
            self._state = recovered.state
            self._state.questions.clear()  # they were asked in a process that is gone; their nodes ask again

    def opened(self) -> None:
        """The store and the bus are open: from here on there is no detour by what would open them."""
        self._store = service_of(self._store)
        self._publisher.opened()

    @property
    def state(self) -> RunState:
        """What is stored so far, as a fold. Any thread; it changes as the run continues."""
        if self._applied < len(self._unshown):
            with self._applying:
                self._apply()
        return self._state

    # Noting events.

    @property
    def seq(self) -> int:
        """Number of the last event."""
        if self.texts.waiting:
            self._note_texts()
        return self._seq

    def emit(self, kind: EventType, node_id: str | None, payload: Mapping[str, Any]) -> None:
        """Note an event. Secrets are taken out of its payload, and text stands for what has no encoding."""
        self.note(kind, node_id, legible(redactor(payload)))

    def note(self, kind: EventType, node_id: str | None, payload: Mapping[str, Any]) -> None:
        """Note an event whose payload holds no secrets. After the last one of the run nothing is noted any more."""
        if self._ended:
            return
        if self.texts.waiting:
            self._note_texts()
        self._seq = seq = self._seq + 1
        timeline = self.timeline
        at = timeline.offset + timeline.monotonic()  # as `timeline.now`, a call less
        self.pending.append(_new(Event, (seq, kind, self._run_id, at, node_id, payload)))

    def emit_last(self, kind: EventType, payload: Mapping[str, Any]) -> None:
        """Note the final event of the run."""
        self.emit(kind, None, payload)
        self._ended = True

    def withdraw_last(self) -> None:
        """Take the final event back, which is pending still."""
        self.pending.pop()
        self._seq -= 1
        self._ended = False

    def emit_delta(self, node_id: str, payload: Mapping[str, Any]) -> None:
        """Note a piece of output; it is committed and shown within the interval.

        Pieces of one text that follow each other until then are one event.
        """
        if self._ended:
            return
        text = self.texts.of(node_id, payload)
        if text is None:
            self.emit(EventType.NODE_OUTPUT, node_id, payload)
            self.flush_soon()
            return
        if text.waits and not text.takes(payload):
            self._note_texts()
        if not text.waits:
            text.begin(payload, self.timeline.now())
            self.texts.waiting.append(text)
            self.flush_soon()
        text.add(payload["text"])

    def end_streams(self, node_id: str) -> None:
        """Note what was held back of the node's texts."""
        if node_id in self.texts.known:
            self._note_texts()  # before what was held back of them
            for payload in self.texts.end(node_id):
                self.note(EventType.NODE_OUTPUT, node_id, payload)

    def _note_texts(self) -> None:
        """Note the pieces that came since the last time, with the time of the first."""
        for node_id, at, payload in self.texts.take():
            self._seq += 1
            shown = legible(redactor(payload))
            self.pending.append(Event(self._seq, EventType.NODE_OUTPUT, self._run_id, at, node_id, shown))

    # Committing them.

    def flush_soon(self) -> None:
        """Commit within the interval, or when it is the turn of so many runs."""
        if self._ticks is None:
            self._ticks = ticks_of(self._interval)
        self._ticks.add(self._flush_now)

    def _flush_now(self) -> None:
        if self._timed is not None and not self._timed.done():
            self.flush_soon()  # what came since that one began is not in it
        elif self.pending or self.texts.waiting:
            self._timed = asyncio.get_running_loop().create_task(self._commit_apart())
            self._timed.add_done_callback(self._flushed)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.failure = error
            self._on_failure()

    async def flush(self) -> None:
        """Commit what is pending. A caller that is cancelled meanwhile gets the cancellation when the commit is done."""
        await uncancelled(self._commit_apart())

    async def _commit_apart(self) -> None:
        """`commit`, in a task that may have been made in the context of a node."""
        log_capture.enter(log_capture.NOWHERE)
        await self.commit()

    def commit(self, *, show_later: bool = False) -> Awaitable[None]:
        """As `flush`, for callers that are not cancelled and not in the context of a node, which saves a task.

        All that need not be waited for is done when this returns, which mostly is everything; the rest is to be awaited at once.

        Args:
            show_later: where nobody has to be waited for, what is stored is published with the next commit or by `publish`, which is to
                be called before other work on the event loop gets its turn: until then nobody who watches can look.

        Raises:
            StorageError: the store refused; the events are still pending.
        """
        if self._committing:
            return self._commit_in_turn()
        if self.texts.waiting:
            self._note_texts()
        if not self.pending:
            return DONE
        self._committing = True
        rest: Awaitable[None] = DONE
        try:
            events = self._sign(self.pending)  # now, since their numbers may have changed until here
            self.pending = []
            storing = self._storing(events)
            if storing is not DONE:
                rest = self._stored_and_shown(events, storing)
            else:
                self._take(events)
                if not (show_later and self._publisher.at_once):
                    rest = self._show()
        finally:
            if rest is DONE:
                self._committing = False
        return rest if rest is DONE else self._to_its_end(rest)

    async def _commit_in_turn(self) -> None:
        last = math.inf if self.texts.waiting else self._seq
        while self._committing:
            self._commit_ended.clear()
            await self._commit_ended.wait()
            if self._shown >= last:  # another has committed them: of thousands that wait, each would commit what came meanwhile
                return
        await self.commit()

    async def _to_its_end(self, rest: Awaitable[None]) -> None:
        try:
            await rest
        finally:
            self._committing = False
            self._shown = self._committed
            self._commit_ended.set()

    def _storing(self, events: list[Event]) -> Awaitable[None]:
        """Store events; return what is left to be awaited of that."""
        if self.unrecorded is not None:
            self.tail.extend(events)
            return DONE
        if injection.hook is not None:
            injection.reach("run.commit")
        try:
            if self._snapshots.stored and self._snapshots.due(events):
                self._snapshots.attach(events, self.state)
            storing = self._store.append(events)
            return storing if storing is DONE else begun(storing)
        except Exception as error:  # noqa: BLE001 - raised again, or the run continues without
            self._not_stored(events, error)
            return DONE

    async def _stored_and_shown(self, events: list[Event], storing: Awaitable[None]) -> None:
        try:
            await storing
        except asyncio.CancelledError:  # the event loop is being closed: all of them are stored, or none
            if await uncancelled(self._is_stored(events[-1])):
                self._take(events)
            else:
                self.pending[:0] = events
            raise
        except Exception as error:  # noqa: BLE001 - raised again, or the run continues without
            self._not_stored(events, error)
        self._take(events)
        await self._show()

    def _take(self, events: list[Event]) -> None:
        """Let events that are stored wait to be shown: to be applied, which is done earlier when somebody asks, and published."""
        if injection.hook is not None:
            injection.reach("run.stored")
        self._committed = events[-1][0]
        self._unshown += events

    def _apply(self) -> None:
        """Apply what is stored. The caller holds the lock, so only more can be stored meanwhile."""
        count = len(self._unshown)
        try:
            self._state.apply_all(self._unshown[self._applied : count])
        finally:
            self._applied = count  # an event that cannot be applied stops the others no more than once

    def _show(self) -> Awaitable[None]:
        """Apply and publish what is stored; return what is left to be awaited of that."""
        with self._applying:
            self._apply()
            events, self._unshown, self._applied = self._unshown, [], 0
        return self._publisher.publish(events)

    def publish(self) -> Awaitable[None]:
        """Publish what has not been yet; return what is left to be awaited of that."""
        if self._committing or not self._unshown:  # a commit publishes what came before it, too
            return DONE
        if (rest := self._show()) is DONE:
            return DONE
        self._committing = True
        return self._to_its_end(rest)

    def hurry(self) -> None:
        """See `Publisher.hurry`."""
        self._publisher.hurry()

    def snapshot(self) -> RunState:
        """The state after some commit, as a copy. Any thread."""
        with self._applying:
            self._apply()
            return self._state.snapshot()

    def _not_stored(self, events: list[Event], error: Exception) -> None:
        """What follows when the store did not take events: returns when the run continues with them in memory."""
        if isinstance(error, StorageError) and error.facts.get("cause") in UNWRITABLE:
            self._go_on_in_memory(events, error)
            return
        self.pending[:0] = events
        if isinstance(error, StorageError):
            raise error
        raise StorageError(
            f"The run store failed: {type(error).__name__}: {error}",
            hint="Check the run store (STATE_STORE_PATH).",
            operation="append",
            cause="failed",
        ) from error

    async def _is_stored(self, event: Event) -> bool:
        row = await self._store.run(event.run_id)
        return row is not None and row.events >= event.seq

    def _go_on_in_memory(self, events: list[Event], error: StorageError) -> None:
        self.unrecorded = error
        self.tail.extend(events)
        # What is pending has numbers already; the note stands behind it.
        self.note(
            EventType.EXECUTION_LOG,
            None,
            log_line(
                "WARNING" if error.facts.get("cause") == "read_only" else "ERROR",
                f"The run continues but is not recorded: {error.message}",
                {"hint": error.hint},
            ),
        )

    # The end.

    async def quiesce(self) -> None:
        """Let no commit come by itself any more, and wait for the one that is under way."""
        if self._ticks is not None:
            self._ticks.discard(self._flush_now)
        if self._timed is not None:
            await asyncio.gather(self._timed, return_exceptions=True)  # its error is kept by `_flushed`

    async def salvage(self) -> None:
        """Commit the end of a run after the store refused: all that is pending, with text for what has no encoding; else the last
        event alone.

        Raises:
            StorageError: not even that can be stored.
        """
        whole = [event._replace(payload=legible(event.payload)) for event in self.pending]
        self.pending = whole
        try:
            await self.commit()
        except StorageError:
            first = whole[:1] if not self._committed and len(whole) > 1 else []
            self._seq = self._committed + len(first) + 1
            self.pending = [*first, whole[-1]._replace(seq=self._seq)]
            await self.commit()


def legible(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A payload with text in place of what has no form; the very object when all of it has one."""
    return payload if is_plain(payload, EVENT_DEPTH) else plain_value(payload, lossy=True, levels=EVENT_DEPTH)

"""Storage of runs, and distribution of their events."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.errors import StorageError

PAGE = 1000
"""Events that `RunStore.scan` yields together, at most."""


class Snapshot(NamedTuple):
    """What a reader had made of the first events of a run, stored so that nobody needs to read these again. A log means the same
    without its snapshots."""

    run_id: str
    kind: str
    """Which reader, e.g. `state`."""
    version: int
    """Of `content`; readers ignore those of other versions."""
    seq: int
    """Number of the last event that it takes into account."""
    content: Mapping[str, Any]
    """JSON values."""


@runtime_checkable
class RunStore(Protocol):
    """The log of every run: append only, numbered without gaps, committed before an event becomes visible."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Commit *events* (all of one run, consecutive `seq`) in one transaction, all or nothing.

        The first event of a run must be `execution_started` with seq 1. After the final event of a run whose end is recorded, only
        `run_note` events are taken, from any process; they change neither its status nor its end. A cancelled append has ended when CancelledError is
        raised: the batch is stored as a whole or not at all (see `run`), and the next append continues from there.

        Raises:
            StorageError: any failure: a gap or repeat in `seq`, a final event already there, payload not JSON, disk
                full, read-only. Nothing of the batch is then stored.
        """
        ...

    @abstractmethod
    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Return the events with seq greater than *after*, in order; empty for an unknown run."""
        ...

    async def scan(self, run_id: str, *, after: int = 0, page: int = PAGE) -> AsyncIterator[Sequence[Event]]:
        """Yield the events with seq greater than *after* in order, *page* at a time, so that a log of any length takes little memory.

        It ends, also for a run that is going on: with an event that was the last one when it began, or with one shortly after that.
        Other tasks proceed between two pages. Default: by `events`.
        """
        # Not until there is nothing more: where reading takes longer than the next event, that would be when the run ends.
        last = 0 if (run := await self.run(run_id)) is None else run.events
        while after < last and (events := await self.events(run_id, after=after, limit=page)):
            yield events
            after = events[-1].seq
            await asyncio.sleep(0)

    async def snapshot(self, run_id: str, kind: str) -> Snapshot | None:
        """Return the latest snapshot of that kind; None when there is none, or it cannot be read. Default: there is none."""
        return None

    def attach_snapshot(self, snapshot: Snapshot) -> None:
        """Store a snapshot with the next `append` to its run, in the same transaction, in place of an earlier one of its kind.

        One of each kind may be attached. Only that append counts, whether it succeeds or not. Default: snapshots are not stored.
        """

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store a snapshot of events that are stored already, unless there is a later one of the same version. Default: nothing.

        Raises:
            StorageError: it could not be stored.
        """

    @abstractmethod
    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        """Return runs, newest first, including running ones. A run whose process is gone is `interrupted`.

        Args:
            parent: only the runs of sub-diagrams started by this run.
            nested: also runs of sub-diagrams, which are omitted otherwise.
        """
        ...

    async def holding(self, text: str) -> set[str]:
        """Return the ids of runs whose inputs, outputs, answers or notes have this text, in any case of a to z. Default: none are found.

        A text in a value of more than 64 KB may be missed where the store keeps that in pieces.
        """
        return set()

    @abstractmethod
    async def run(self, run_id: str) -> RunSummary | None:
        """Return one row, or None when unknown."""
        ...

    @abstractmethod
    async def claim(self, run_id: str, *, owned: bool = False) -> None:
        """Take ownership of a run that failed, was aborted, or whose process is gone, so that this process can append to it.

        Of several concurrent claims, only one succeeds.

        Args:
            owned: also when this process owns it: the caller knows that the run is not executing.

        Raises:
            StorageError: `not_found`, `completed`, or `going_on` (another process, or this one).
        """
        ...

    @abstractmethod
    async def delete(self, *run_ids: str, owned: bool = False, compact: bool = True) -> list[str]:
        """Delete runs with the runs of their sub-diagrams, all of them or none; unknown ones are ignored.

        Args:
            owned: also unfinished runs that this process started or claimed: the caller knows that they are not executing.
            compact: release their space at once, see `compact`.

        Returns:
            The ids of all deleted runs.

        Raises:
            StorageError: `going_on`: one of them is running, or part of a running one, named by `run_id`.
        """
        ...

    async def condense(self, run_id: str) -> int:
        """Put each streamed text of a run that has ended into its first piece, and pack the others, which stay as events without text.

        What is read of the run is the same otherwise. A run that has not ended is left alone, also one that is resumed meanwhile: no
        event is read that was not there at the beginning. Default: nothing.

        Returns:
            Rows that were saved; `compact` releases their space.
        """
        return 0

    async def compact(self) -> None:
        """Release the space of deleted runs. Default: the store does this by itself."""

    async def beat(self, run_id: str) -> bool:
        """Record that the run is alive; called every few seconds. Return False when another process has claimed it and it must
        stop. Default: the store needs no heartbeat."""
        return True

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        """Store an answer to a question of a run for the process that owns the run, now or later. The first one counts.

        Raises:
            StorageError: `answered`: there is one already; `unsupported` (the default): the store does not store answers.
        """
        raise StorageError(
            f"{type(self).__name__} does not store answers.",
            hint="Answer in the process that executes the run.",
            operation="answer",
            run_id=run_id,
            cause="unsupported",
        )

    async def answers(self, run_id: str) -> dict[str, str]:
        """Return request_id → answer stored for a run. Default: none."""
        return {}

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        """Delete a stored answer: it is recorded, or its question is closed. Default: nothing."""

    async def initialize(self) -> None:
        """Open and, if needed, migrate. Raises StorageError when the file is not a run store or too new. Default: nothing
        to open."""

    async def cleanup(self) -> None:
        """Close. Safe to call twice. Default: nothing to close."""


EventHandler = Callable[[Event], Awaitable[None] | None]
Overflow = Literal["block", "drop_oldest", "error"]
"""Behaviour when an async handler is too slow and its queue is full: `block` makes the publisher wait; `drop_oldest` drops the
oldest waiting event of the lowest priority, and counts it (the store has it); `error` ends the subscription with an error."""


class Subscription(NamedTuple):
    """Returned by `EventBus.subscribe`, for `unsubscribe`."""

    id: int


@runtime_checkable
class EventBus(Protocol):
    """Distributes stored events; never a second source of truth. Runs on the library's loop."""

    async def publish(self, event: Event) -> None:
        """Publish one event."""
        await self.publish_batch((event,))

    @abstractmethod
    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Deliver *events* to the subscribers, in order; all of them or none. Waits only for handlers of subscriptions with
        `block`, and does not raise their errors.

        Raises:
            EventBusError: nothing was published; `cause` is `invalid` (one of them is not an event, or not JSON for a
                bus that transmits it) or `unavailable` (a server cannot be reached, and the queue for it is full).
        """
        ...

    @abstractmethod
    def subscribe(
        self,
        handler: EventHandler,
        *,
        types: Iterable[EventType] | None = None,
        run_id: str | None = None,
        where: Callable[[Event], bool] | None = None,
        priority: EventPriority = EventPriority.NORMAL,
        max_queue_size: int | None = None,
        overflow: Overflow | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> Subscription:
        """Call *handler* for each matching event from now on.

        A synchronous handler is called immediately, those of higher priority first. An async one has a queue and a task of its
        own: it gets its events in order, and a slow one delays no others. When a handler raises, the error is logged, passed to
        *on_error* and counted in `stats`; it stays subscribed.

        Args:
            types, run_id, where: only these types, this run, events for which *where*, a synchronous function, is true. If it raises,
                this is treated like an error of the handler.
            max_queue_size, overflow: maximum events waiting for an async handler, and the behaviour beyond; default: the bus's own.
            on_error: called with the error of the handler, or with the EventBusError that ends the subscription.

        Raises:
            EventBusError: `invalid`: *where* is an async function.
        """
        ...

    @abstractmethod
    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivery, including waiting events. Unknown subscriptions are ignored."""
        ...

    @abstractmethod
    async def drain(self) -> None:
        """Wait until all events published here so far have been handled here."""
        ...

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Return `published` (events), and `subscribers`: for each `id`, `priority`, `delivered`, `dropped`, `failed`, `waiting`."""
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    @abstractmethod
    async def cleanup(self) -> None:
        """Drain, then stop. Safe to call twice."""
        ...

    async def __aenter__(self) -> Self:
        """Initialize the bus."""
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Clean up the bus."""
        await self.cleanup()

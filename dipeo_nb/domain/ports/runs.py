"""The record of runs, and what distributes their events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.errors import StorageError


@runtime_checkable
class RunStore(Protocol):
    """The log of every run: append only, numbered without gap, committed before anyone sees an event."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Commit *events* (all of one run, consecutive `seq`) in one transaction, all or nothing.

        The first event of a run must be `execution_started` with seq 1. A cancelled append has ended when the CancelledError is
        raised: all of the batch is stored or nothing (`run` tells which), and the next append goes on from there.

        Raises:
            StorageError: whatever goes wrong: a gap or repeat in `seq`, a final event already there, payload not JSON, disk
                full, read-only. Nothing of the batch is then stored.
        """
        ...

    @abstractmethod
    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Events with seq greater than *after*, in order; empty for an unknown run."""
        ...

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
        """Newest first, runs going on included. A run whose process is gone is `interrupted`.

        Args:
            parent: only the runs of sub-diagrams that this run began.
            nested: also runs of sub-diagrams; without it, and without *parent*, they are left out.
        """
        ...

    @abstractmethod
    async def run(self, run_id: str) -> RunSummary | None:
        """One row; None when unknown."""
        ...

    @abstractmethod
    async def claim(self, run_id: str, *, mine: bool = False) -> None:
        """Make a run that ended failed or aborted, or whose process is gone, one of this process that can be appended to.

        Only one of several processes that claim at the same time gets it.

        Args:
            mine: also when the process is this one: the caller knows that the run does not go on.

        Raises:
            StorageError: `not_found`, `completed`, or `going_on` (another process, or this one).
        """
        ...

    @abstractmethod
    async def delete(self, *run_ids: str, mine: bool = False, compact: bool = True) -> list[str]:
        """Forget runs with the runs of their sub-diagrams, all of them or none; unknown ones are ignored.

        Args:
            mine: also runs that this process began or claimed and that have no final event: the caller knows that they do not go on.
            compact: give their space back at once, see `compact`.

        Returns:
            The ids of all that are gone.

        Raises:
            StorageError: `going_on`, one of them lives, or is a part of a run that does; its `run_id` says which.
        """
        ...

    async def compact(self) -> None:
        """Give the space of deleted runs back. Default: the store does so by itself."""

    async def beat(self, run_id: str) -> bool:
        """Note that the run lives, whatever it waits for; called every few seconds. False: somebody else has claimed it since, and
        it is to end. Default: the store needs no heartbeat."""
        return True

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        """Leave an answer to a question of a run for the process that has the run, or will have it. The first one counts.

        Raises:
            StorageError: `answered`, there is one already; `unsupported` (the default), the store does not store answers.
        """
        raise StorageError(
            f"{type(self).__name__} does not store answers.",
            hint="Answer in the process that executes the run.",
            operation="answer",
            run_id=run_id,
            cause="unsupported",
        )

    async def answers(self, run_id: str) -> dict[str, str]:
        """request_id → answer that was left for a run. Default: none."""
        return {}

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        """Forget an answer that was left: it is recorded, or its question is over. Default: nothing."""

    async def initialize(self) -> None:
        """Open and, when needed, migrate. Raises StorageError when the file is not a run store or too new. Default: nothing
        to open."""

    async def cleanup(self) -> None:
        """Close. Safe to call twice. Default: nothing to close."""


EventHandler = Callable[[Event], Awaitable[None] | None]
Overflow = Literal["block", "drop_oldest", "error"]
"""What happens when an async handler is too slow and its queue is full: `block` makes the publisher wait for room;
`drop_oldest` drops, of what waits, the oldest event of the lowest priority, and counts it (the store has it); `error` ends the
subscription, and says so."""


class Subscription(NamedTuple):
    """Handed out by `EventBus.subscribe`, taken by `unsubscribe`."""

    id: int


@runtime_checkable
class EventBus(Protocol):
    """Distributes events that are already stored. Never a second source of truth. Lives on the library's loop."""

    @abstractmethod
    async def publish(self, event: Event) -> None:
        """A batch of one."""
        ...

    @abstractmethod
    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Hand *events* to the subscribers, each in order; all of them or none. Waits for handlers only where a subscription
        says `block`, and does not raise for them.

        Raises:
            EventBusError: nothing was published; `cause` is `invalid` (one of them is not an event, or not JSON where it has to
                travel) or `unavailable` (a server cannot be reached, and what waits for it has reached its limit).
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
        """Call *handler* for each event that fits, from now on.

        A plain handler is called at once, those of higher priority first. An async one has a queue and a task of its own: it
        gets its events in order, and a slow one delays nobody. A handler that raises is logged, told to *on_error*, counted
        in `stats`, and stays subscribed.

        Args:
            types, run_id, where: only these types, this run, events for which *where*, a plain function, is true. One that raises is
                treated as a handler that does.
            max_queue_size, overflow: events that may wait for an async handler, and what then; default: the bus's own.
            on_error: called with what the handler raised, or with the EventBusError that ends the subscription.

        Raises:
            EventBusError: `invalid`, *where* is an async function.
        """
        ...

    @abstractmethod
    def unsubscribe(self, subscription: Subscription) -> None:
        """Nothing comes any more, also nothing that waits. Unknown subscriptions are ignored."""
        ...

    @abstractmethod
    async def drain(self) -> None:
        """Return when everything published here so far has been handled here."""
        ...

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """`published` (events), and `subscribers`: of each `id`, `priority`, `delivered`, `dropped`, `failed`, `waiting`."""
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    @abstractmethod
    async def cleanup(self) -> None:
        """Drain, then stop. Safe to call twice."""
        ...

    async def __aenter__(self) -> EventBus:
        """Initialised."""
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Cleaned up."""
        await self.cleanup()

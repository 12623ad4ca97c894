"""From the events of runs to those who watch them: each event once, in order, whenever they come, however slow they are.

The run store has every event before any subscriber receives it, so what is live only has to be held as far as it saves reading: who
falls behind, comes late, or missed something is served from the store.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Self

from dipeo_nb.common import user_code
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.ports import EventBus, EventHandler, RunStore, Subscription
from dipeo_nb.errors import DipeoError, StorageError, UserError

PAUSE_S = 0.05
"""Seconds before a delivery is tried again; twice as long each time."""
_LOG = logger(__name__)


class MessageRouter:
    """Serves any number of connections with the events of any number of runs.

    A connection is a handler with a name. It is called with one event at a time. When it raises or is late, it is called again with
    the same event; when that happens `max_failures` times in a row, or the store cannot be read as often, the connection is removed.
    No connection ever waits for another one, and no run for any of them.

    Args:
        store: where the runs are; also those of other processes.
        bus: tells what is new.
        queue_size: events held in memory for one connection and run.
        max_failures: deliveries that may fail in a row.
        timeout: seconds for one delivery.
        idle_s: seconds after which, when the bus was silent, the store is looked at: for a run of a process that does not share
            the bus, or that is gone.
        begin_s: seconds that a run may take to appear in the store.
        apart: whether handlers are called apart from the event loop, so that one which blocks does not hold it: async ones on the
            loop of functions, plain ones in a thread. A handler then shares no asyncio primitive with that loop.
    """

    def __init__(
        self,
        store: RunStore,
        bus: EventBus,
        *,
        queue_size: int = 100,
        max_failures: int = 3,
        timeout: float = 30.0,
        idle_s: float = 0.5,
        begin_s: float = 10.0,
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._store, self._bus = store, bus
        self._queue_size, self._max_failures = queue_size, max_failures
        self._timeout, self._idle_s, self._begin_s = timeout, idle_s, begin_s
        self._connections: dict[str, _Connection] = {}
        self._followers: dict[str, list[_Follower]] = {}
        self._finishing = False
        self._subscription: Subscription | None = None
        self._removed = 0

    async def initialize(self) -> None:
        """Nothing to open: store and bus belong to another owner."""

    async def cleanup(self) -> None:
        """Remove all connections. Safe to call twice."""
        for connection_id in tuple(self._connections):
            await self.unregister_connection(connection_id)
        self._finishing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cleanup()

    async def register_connection(
        self,
        connection_id: str,
        handler: EventHandler,
        *,
        on_removed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Make a connection known; it gets nothing yet.

        Args:
            handler: plain or async; it has `timeout` seconds for each event, unless it is plain and not called apart.
            on_removed: hears of the last error when the connection is removed because it failed too often.

        Raises:
            UserError: there is one of that name.
        """
        if connection_id in self._connections:
            raise UserError(
                f"There is a connection '{connection_id}' already.",
                hint="Unregister it first, or choose another name.",
                cause="exists",
            )
        self._connections[connection_id] = _Connection(connection_id, handler, on_removed)

    async def unregister_connection(self, connection_id: str) -> None:
        """Nothing is delivered once this returns; a delivery under way is cancelled. Unknown ones are ignored."""
        if (connection := self._connections.pop(connection_id, None)) is not None:
            tasks = list(connection.tasks.values())
            connection.tasks.clear()
            await _ended(tasks)

    async def subscribe_connection_to_execution(self, connection_id: str, run_id: str, *, after: int = 0) -> None:
        """Deliver all events of a run that have a `seq` greater than *after*: those there are, then those to come, to the end of
        the run. Runs that are followed already are not disturbed.

        Raises:
            UserError: there is no such connection.
        """
        if (connection := self._connections.get(connection_id)) is None:
            raise UserError(
                f"There is no connection '{connection_id}'.",
                hint="Register it first; one that failed too often was removed.",
                cause="not_found",
            )
        if run_id not in connection.tasks:
            connection.positions[run_id] = after
            task = asyncio.get_running_loop().create_task(self._serve(connection, run_id, after))
            connection.tasks[run_id] = task

    async def unsubscribe_connection_from_execution(self, connection_id: str, run_id: str) -> None:
        """Nothing of the run is delivered once this returns. What is not followed is ignored."""
        if connection := self._connections.get(connection_id):
            connection.positions.pop(run_id, None)
            if task := connection.tasks.pop(run_id, None):
                await _ended([task])

    async def events(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Event]:
        """The same for a loop, which takes its time: every event of a run after *after*, to the end of the run or of its process.

        Use as `async with contextlib.aclosing(router.events(run_id)) as events`. Of a run that does not begin within `begin_s`
        there is nothing.

        Raises:
            StorageError: the store cannot be read.
        """
        follower = self._follow(run_id, after)
        latest = time.monotonic() + self._begin_s
        event, ended = None, False
        try:
            while True:
                for event in await self._next(follower):
                    ended = event.type in FINAL_EVENTS or (ended and event.type is EventType.RUN_NOTE)
                    follower.position = event.seq
                    yield event
                if follower.more:
                    continue
                if self._finishing or ended:
                    return
                try:
                    async with asyncio.timeout(self._idle_s):
                        await follower.news.wait()
                except TimeoutError:
                    follower.behind = True
                    summary = await self._store.run(run_id)
                    if summary is None:
                        if event is not None or time.monotonic() > latest:
                            return  # somebody deleted it, or it never was
                    elif summary.status != Status.RUNNING and summary.events <= follower.position:
                        return  # its process is gone
        finally:
            self._leave(follower)

    def finish(self) -> None:
        """Let the loops over events end with what there is now. On the loop thread."""
        self._finishing = True
        for followers in self._followers.values():
            for follower in followers:
                follower.news.set()

    def stats(self) -> dict[str, Any]:
        """`removed` (connections that failed too often), `followers` (and loops), `waiting` (events held for them), and
        `connections` by name: `delivered`, `failed`, `failed_in_a_row`, `latency_ms` (mean of its deliveries), `idle_s` (since the last one, or since it was registered),
        `healthy`, `following` {run: seq of the last event delivered}."""
        now = time.monotonic()
        followers = [follower for followers in self._followers.values() for follower in followers]
        return {
            "removed": self._removed,
            "followers": len(followers),
            "waiting": sum(follower.waiting for follower in followers),
            "connections": {name: each.stats(now) for name, each in self._connections.items()},
        }

    # Connections.

    async def _serve(self, connection: _Connection, run_id: str, after: int) -> None:
        try:
            async with aclosing(self._persistently(connection, run_id, after)) as events:
                async for event in events:
                    async with connection.one_at_a_time:
                        await self._deliver(connection, event)
                    if connection.tasks.get(run_id) is not asyncio.current_task():
                        return  # its handler has left
                    connection.positions[run_id] = event.seq
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            await self._remove(connection, error)
        finally:
            if connection.tasks.get(run_id) is asyncio.current_task():
                del connection.tasks[run_id], connection.positions[run_id]

    async def _persistently(self, connection: _Connection, run_id: str, after: int) -> AsyncGenerator[Event]:
        """The events; a store that cannot be read is tried again as often as a delivery is. Raises the last error."""
        failed = 0
        while True:
            try:
                async with aclosing(self.events(run_id, after=after)) as events:
                    async for event in events:
                        failed, after = 0, event.seq
                        yield event
            except StorageError as error:
                failed += 1
                if failed >= self._max_failures:
                    raise
                _LOG.warning("Connection %s: run %s cannot be read now: %s", connection.id, run_id, error)
                await asyncio.sleep(PAUSE_S * 2 ** (failed - 1))
            else:
                return

    async def _deliver(self, connection: _Connection, event: Event) -> None:
        """Raises the last error when it failed too often."""
        while self._connections.get(connection.id) is connection:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    await self._called(connection.handler, event)
            except Exception as error:
                connection.failed += 1
                connection.failed_in_a_row += 1
                if connection.failed_in_a_row >= self._max_failures:
                    raise
                _LOG.warning("Connection %s failed on %s #%d: %r", connection.id, event.type, event.seq, error)
                await asyncio.sleep(PAUSE_S * 2 ** (connection.failed_in_a_row - 1))
            else:
                connection.succeeded(begun)
                return

    async def _remove(self, connection: _Connection, error: Exception) -> None:
        if self._connections.pop(connection.id, None) is None:
            return
        self._removed += 1
        _LOG.error("Connection %s is removed: %r", connection.id, error, exc_info=not isinstance(error, DipeoError))
        await _ended(list(connection.tasks.values()))
        if connection.on_removed is not None:
            try:
                await self._called(connection.on_removed, error)
            except Exception:  # noqa: BLE001 - as with a handler
                _LOG.exception("The on_removed of connection %s failed", connection.id)

    async def _called(self, function: Callable[[Any], Any], argument: object) -> None:
        if self._apart:
            await user_code.call(function, argument)
            return
        with user_code.contained():
            result = function(argument)
        if inspect.isawaitable(result):
            await user_code.awaited(result)

    # Followers.

    def _follow(self, run_id: str, after: int) -> _Follower:
        follower = _Follower(run_id, after, self._queue_size)
        self._followers.setdefault(run_id, []).append(follower)
        if self._subscription is None:
            self._subscription = self._bus.subscribe(self._see)
        return follower

    def _leave(self, follower: _Follower) -> None:
        followers = self._followers[follower.run_id]
        followers.remove(follower)
        if not followers:
            del self._followers[follower.run_id]
        if not self._followers and self._subscription is not None:
            self._bus.unsubscribe(self._subscription)
            self._subscription = None

    def _see(self, event: Event) -> None:
        for follower in self._followers.get(event.run_id, ()):
            follower.see(event)

    async def _next(self, follower: _Follower) -> list[Event]:
        """What comes next for it, in order; maybe nothing yet."""
        if not follower.behind:
            events = follower.taken()
            if not events or events[0].seq == follower.position + 1:
                return events
            # Something did not come through the bus; what the store has not got either, nobody has.
            read = await self._read(follower)
            last = read[-1].seq if read else 0
            return read if follower.behind else read + [event for event in events if event.seq > last]
        follower.behind = False  # before reading: what comes in the meantime is kept
        return await self._read(follower)

    async def _read(self, follower: _Follower) -> list[Event]:
        events = await self._store.events(follower.run_id, after=follower.position, limit=self._queue_size)
        follower.behind = follower.behind or len(events) == self._queue_size
        return events


class _Follower:
    """Where somebody is in a run, and what came since, as far as it is held."""

    def __init__(self, run_id: str, position: int, limit: int) -> None:
        self.run_id = run_id
        self.position = position
        self.behind = True
        """The store has what comes next."""
        self.news = asyncio.Event()
        self._limit = limit
        self._waiting: deque[Event] = deque()

    @property
    def more(self) -> bool:
        return self.behind or (bool(self._waiting) and self._waiting[-1].seq > self.position)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def see(self, event: Event) -> None:
        if event.seq <= self.position:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.clear()
            self.behind = True
        self._waiting.append(event)
        self.news.set()

    def taken(self) -> list[Event]:
        self.news.clear()
        events = [event for event in self._waiting if event.seq > self.position]
        self._waiting.clear()
        return events


class _Connection:
    def __init__(self, name: str, handler: EventHandler, on_removed: Callable[[Exception], None] | None) -> None:
        self.id = name
        self.handler = handler
        self.on_removed = on_removed
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.positions: dict[str, int] = {}
        self.one_at_a_time = asyncio.Lock()
        self.delivered = self.failed = self.failed_in_a_row = 0
        self._took_s = 0.0
        self._last = time.monotonic()

    def succeeded(self, begun: float) -> None:
        self._last = time.monotonic()
        self._took_s += self._last - begun
        self.delivered += 1
        self.failed_in_a_row = 0

    def stats(self, now: float) -> dict[str, Any]:
        return {
            "delivered": self.delivered,
            "failed": self.failed,
            "failed_in_a_row": self.failed_in_a_row,
            "latency_ms": 1000 * self._took_s / self.delivered if self.delivered else None,
            "idle_s": now - self._last,
            "healthy": self.failed_in_a_row == 0,
            "following": {run: self.positions[run] for run in self.tasks},
        }


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for those that are not the caller's own: a handler may unregister its connection."""
    for task in tasks:
        if task is not asyncio.current_task():
            task.cancel()
    await asyncio.gather(*(task for task in tasks if task is not asyncio.current_task()), return_exceptions=True)

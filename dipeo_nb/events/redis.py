"""Event bus across processes and machines, on a Redis stream (extra `redis`; Redis 6.2 or later).

Events published here reach the subscribers of this process immediately, with or without Redis. For other processes they are added
to one stream: they wait here while the server is unavailable, and are added in order and only once (the script knows the last `seq`
of each run). Every bus continues to read that stream from its last position, so readers lose nothing in an outage. How much of the
stream survives a restart of the server depends on its configuration; `appendonly yes` keeps all that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import Any

from dipeo_nb.common.aio import on_loop
from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.common.redaction import logger
from dipeo_nb.common.redis_server import RedisServer, trouble
from dipeo_nb.common.retry import Backoff
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventBus, EventHandler, Overflow, Subscription
from dipeo_nb.errors import DipeoError, EventBusError
from dipeo_nb.events.in_memory import CLEANUP_S, InMemoryEventBus, check_events

BLOCK_MS = 2000
"""Milliseconds that one read waits for new events."""
PAGE = 500
"""Events added or read at once."""
BACKOFF = Backoff(0.05, 2.0)
"""Delays between attempts while the server is unavailable."""
IDLE_S = 30.0
"""Seconds after which events that a group member has not acknowledged go to another one; live members renew them."""
FLUSH_S = 5.0
"""Seconds that `cleanup` waits for unsent events to reach the server."""
LAST_S = 3.0
"""The same when the program ends without `cleanup`."""
MEMORY_S = 7 * 24 * 3600
"""Seconds for which the last `seq` of a run is stored."""
CONNECTIONS = 64

_LOG = logger(__name__)
# KEYS: the stream, the last seq of the run. ARGV: events to keep, seconds to store the seq, origin, then seq and body of each event.
_ADD = """
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
for i = 4, #ARGV, 2 do
    local seq = tonumber(ARGV[i])
    if seq > last then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[i + 1], 'from', ARGV[3])
        last = seq
    end
end
redis.call('SET', KEYS[2], last, 'EX', ARGV[2])
return last
"""


class RedisEventBus(EventBus):
    """`EventBus` across processes.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS), `unix://…`; user and password may be in it and are never shown.
        prefix: prefix of all keys; buses with different prefixes are separate.
        max_queue_size, overflow, apart: as with `InMemoryEventBus`.
        max_waiting: events kept while the server is unavailable; beyond that, the oldest are dropped, counted as `lost` and logged.
        kept: approximate length of the stream.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "dipeo",
        max_queue_size: int = 10_000,
        overflow: Overflow = "drop_oldest",
        max_waiting: int = 100_000,
        kept: int = 100_000,
        apart: bool = False,
    ) -> None:
        self._server = RedisServer(url, connections=CONNECTIONS)
        # In braces, so that a cluster keeps all keys in one slot and a script may access them together.
        self._prefix = f"{{{prefix}}}:events"
        self._here = InMemoryEventBus(max_queue_size, overflow=overflow, apart=apart)
        self._apart = apart
        self._max_waiting, self._kept = max_waiting, kept
        self._me = uuid.uuid4().hex
        self._outbox: deque[tuple[Event, bytes]] = deque()
        self._filled = asyncio.Event()
        self._sent = asyncio.Event()
        self._position = "0-0"
        self._loop: asyncio.AbstractEventLoop | None = None
        """Loop on which the bus was opened; calls from other loops are executed there."""
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: dict[int, _Reader] = {}
        self._published = self._lost = 0
        self._away: set[str] = set()

    def __repr__(self) -> str:
        return f"RedisEventBus({self._server.place!r})"

    @property
    def position(self) -> str:
        """Id of the last event received from the stream, for `subscribe(after=…)`."""
        return self._position

    async def initialize(self) -> None:
        """Connect.

        Raises:
            EventBusError: `unavailable`, `permission`.
            MissingDependencyError: redis is not installed.
        """
        if self._tasks:
            return
        client = await self._server.client()
        try:
            last = await client.xrevrange(self._prefix, count=1)
        except Exception as error:
            await self._server.close()
            raise self._failed("open", error) from error
        self._position = last[0][0].decode() if last else "0-0"
        self._loop = asyncio.get_running_loop()
        self._start(self._send())
        self._start(self._receive())

    async def cleanup(self) -> None:
        """Deliver and send published events (for `FLUSH_S` seconds at most), then disconnect. Safe to call twice."""
        await self._here.cleanup()
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.close()
        if reading := [reader.task for reader in readers if reader.task]:
            _, stuck = await asyncio.wait(reading, timeout=CLEANUP_S)
            for task in stuck:  # while a handler does not return
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        if self._tasks and not await self.flush(FLUSH_S):
            _LOG.warning("%s did not take the last %d events; the run store has them", self._server.place, len(self._outbox))
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()

    async def publish_batch(self, events: Sequence[Event]) -> None:
        check_events(events)
        try:
            bodies = [_encoded(event) for event in events]
        except Exception as error:
            message = error.message if isinstance(error, DipeoError) else f"An event cannot be sent: {error}."
            hint = error.hint if isinstance(error, DipeoError) else "Publish JSON values."
            raise EventBusError(f"{message} Nothing was published.", hint=hint, cause="invalid") from error
        await on_loop(self._loop, functools.partial(self._publish, events, bodies))

    async def _publish(self, events: Sequence[Event], bodies: Sequence[bytes]) -> None:
        await self._here.publish_batch(events)
        # From here on nothing can interrupt: the batch is queued for the server as one.
        self._published += len(events)
        self._outbox.extend(zip(events, bodies, strict=True))
        while len(self._outbox) > self._max_waiting:
            self._outbox.popleft()
            self._lost += 1
            if self._lost == 1:
                _LOG.error(
                    "%s is away; more than %d events wait, the oldest are dropped",
                    self._server.place,
                    self._max_waiting,
                )
        if events:
            self._sent.clear()
            self._filled.set()

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
        group: str | None = None,
        after: str | None = None,
    ) -> Subscription:
        """Like `EventBus.subscribe`, with two ways to read the stream itself at the handler's own pace, without dropping events:

        Args:
            after: first the stored events after this id (`0`: all; `position`), then new ones, without gaps.
            group: events are shared by all subscribers of this name in any process; each goes to one of them, and to another one
                if that dies before its handler has returned. A new group begins at *after*; default: now.
        """
        if group is None and after is None:
            return self._here.subscribe(
                handler, types=types, run_id=run_id, where=where, priority=priority,
                max_queue_size=max_queue_size, overflow=overflow, on_error=on_error,
            )  # fmt: skip
        position = self._position if after is None else _id(after)
        # A separate bus filters, calls and counts for this subscription; the bus of the process only has a placeholder.
        alone = InMemoryEventBus(apart=self._apart)
        alone.subscribe(handler, types=types, run_id=run_id, where=where, on_error=on_error)
        subscription = self._here.subscribe(_never, types=(), priority=priority)
        reader = self._readers[subscription.id] = _Reader(alone, group, position)

        def read() -> None:
            reader.task = asyncio.get_running_loop().create_task(self._read(reader))
            reader.task.add_done_callback(_log_failure)

        here = asyncio.get_running_loop()
        if self._loop is None or self._loop is here or not self._loop.is_running():
            read()
        else:
            self._loop.call_soon_threadsafe(read)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._here.unsubscribe(subscription)
        if (reader := self._readers.pop(subscription.id, None)) is not None:
            reader.close()

    async def drain(self) -> None:
        await self._here.drain()

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until the server has all events published here; return False after *timeout* seconds."""
        if self._outbox:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await on_loop(self._loop, self._sent.wait)
        return not self._outbox

    def stats(self) -> dict[str, Any]:
        """Return those of `EventBus`, and `connected`, `unsent` (events that the server does not have yet), `lost`, `position`."""
        subscribers = self._here.stats()["subscribers"]
        for each in subscribers:
            if reader := self._readers.get(each["id"]):
                counts = reader.bus.stats()["subscribers"][0]
                each |= {"delivered": counts["delivered"], "failed": counts["failed"], "position": reader.position}
        return {
            "published": self._published,
            "connected": bool(self._tasks) and not self._away,
            "unsent": len(self._outbox),
            "lost": self._lost,
            "position": self._position,
            "subscribers": subscribers,
        }

    # Sending.

    async def _send(self) -> None:
        client = await self._server.client()

        async def step() -> None:
            await self._filled.wait()
            page = [self._outbox[i] for i in range(min(PAGE, len(self._outbox)))]
            async with client.pipeline(transaction=True) as pipeline:
                for run, events in groupby(page, key=lambda pair: pair[0].run_id):
                    pairs = [part for event, body in events for part in (event.seq, body)]
                    keys = [self._prefix, f"{self._prefix}:last:{run}"]
                    pipeline.eval(_ADD, len(keys), *keys, self._kept, MEMORY_S, self._me, *pairs)
                await pipeline.execute()
            # Some may have been dropped from the same end in the meantime.
            sent = {id(event) for event, _ in page}
            while self._outbox and id(self._outbox[0][0]) in sent:
                self._outbox.popleft()
            if not self._outbox:
                self._filled.clear()
                self._sent.set()

        try:
            await self._retrying("send", step)
        finally:  # a program may end without `cleanup`
            if self._outbox and not self._away:
                async with asyncio.timeout(LAST_S):
                    while self._outbox:
                        await step()

    # Receiving.

    async def _receive(self) -> None:
        client = await self._server.client()

        async def step() -> None:
            page = await client.xread({self._prefix: self._position}, count=PAGE, block=BLOCK_MS)
            for _, entries in page or ():
                others = [fields for _, fields in entries if fields.get(b"from", b"").decode() != self._me]
                if events := [event for fields in others if (event := _decoded(fields)) is not None]:
                    await self._here.publish_batch(events)
                self._position = entries[-1][0].decode()

        await self._retrying("receive", step)

    async def _read(self, reader: _Reader) -> None:
        """Read the stream for one subscription."""
        client = await self._server.client()
        step = self._plain(client, reader) if reader.group is None else self._shared(client, reader, reader.group)
        keeper = asyncio.ensure_future(self._alive(client, reader)) if reader.group is not None else None
        try:
            await self._retrying(f"read for {reader.group or 'a subscriber'}", step, reader)
        finally:
            if keeper is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await self._leave(client, reader)
            await reader.bus.cleanup()

    def _plain(self, client: Any, reader: _Reader) -> Callable[[], Coroutine[Any, Any, None]]:
        async def step() -> None:
            page = await client.xread({self._prefix: reader.position}, count=PAGE, block=BLOCK_MS)
            for _, entries in page or ():
                for number, fields in entries:
                    if reader.closed:
                        return
                    await reader.handle(fields)
                    reader.position = number.decode()

        return step

    def _shared(self, client: Any, reader: _Reader, group: str) -> Callable[[], Coroutine[Any, Any, None]]:
        stream, fresh, due = self._prefix, True, 0.0

        async def step() -> None:
            nonlocal fresh, due
            if fresh:
                await _make_group(client, stream, group, reader.position)
            now = asyncio.get_running_loop().time()
            if now >= due:  # pending events of members that are gone
                await client.xautoclaim(stream, group, self._me, int(IDLE_S * 1000), count=PAGE)
                fresh, due = True, now + IDLE_S / 3
            # Its own pending events first: claimed from others, or delivered in a lost answer. An error leaves `fresh` true.
            own, fresh = fresh, True
            page = await client.xreadgroup(group, self._me, {stream: "0" if own else ">"}, count=20, block=BLOCK_MS)
            entries = [entry for _, found in page or () for entry in found]
            for number, fields in entries:
                if reader.closed:
                    return
                if number not in reader.handled:
                    await reader.handle(fields)
                    reader.handled.add(number)
                await client.xack(stream, group, number)
                reader.handled.discard(number)
                if not own:
                    reader.position = number.decode()
            fresh = own and bool(entries)

        return step

    async def _alive(self, client: Any, reader: _Reader) -> None:
        """Keep renewing the events of the group that are still being handled."""
        while True:
            await asyncio.sleep(IDLE_S / 3)
            with contextlib.suppress(Exception):  # the reader reports an outage; this only has to continue
                mine = await client.xpending_range(self._prefix, reader.group, "-", "+", PAGE, consumername=self._me)
                if mine:
                    numbers = [entry["message_id"] for entry in mine]
                    await client.xclaim(self._prefix, reader.group, self._me, 0, numbers, justid=True)

    async def _leave(self, client: Any, reader: _Reader) -> None:
        """Remove this member of a group, unless it has pending events for the others."""
        with contextlib.suppress(Exception):  # it is only a name in a list
            async with asyncio.timeout(1):
                if not await client.xpending_range(self._prefix, reader.group, "-", "+", 1, consumername=self._me):
                    await client.xgroup_delconsumer(self._prefix, reader.group, self._me)

    # Both.

    async def _retrying(self, what: str, step: Callable[[], Coroutine[Any, Any, None]], reader: _Reader | None = None) -> None:
        """Repeat a step until the reader is closed; wait while the server is unavailable."""
        failures, task = 0, asyncio.current_task()
        # A cancellation may be lost inside redis when the answer arrives at that moment.
        while not (task and task.cancelling()) and (reader is None or not reader.closed):
            try:
                await step()
            except Exception as error:
                if trouble(error) is None:
                    raise
                if what not in self._away:
                    self._away.add(what)
                    _LOG.warning("Cannot %s events at %s, trying again: %s", what, self._server.place, error)
                failures += 1
                await asyncio.sleep(BACKOFF.delay(failures))
            else:
                failures = 0
                if what in self._away:
                    self._away.discard(what)
                    _LOG.warning("Can %s events again: %s", what, self._server.place)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_log_failure)
        self._tasks.append(task)

    def _failed(self, operation: str, error: Exception) -> Exception:
        found = trouble(error)
        if found is None:
            return error
        return EventBusError(
            f"Cannot {operation} the event bus at {self._server.place}: {str(error).rstrip('.')}.",
            hint=f"{found.hint} Or use another bus (DIPEO_EVENT_BUS).",
            cause=found.cause,
        )


class _Reader:
    """One subscription that reads the stream itself."""

    def __init__(self, bus: InMemoryEventBus, group: str | None, position: str) -> None:
        self.bus = bus
        self.group = group
        self.position = position
        self.handled: set[bytes] = set()
        """Handled, but not acknowledged since the answer was lost."""
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        self._busy = False

    def close(self) -> None:
        """Stop it; a running handler finishes, and its event counts as handled."""
        self.closed = True
        if self.task is not None and not self._busy and not (loop := self.task.get_loop()).is_closed():
            loop.call_soon_threadsafe(self.task.cancel)

    async def handle(self, fields: dict[bytes, bytes]) -> None:
        """Deliver an event and wait for the handler."""
        event = _decoded(fields)
        if event is not None:
            self._busy = True
            await self.bus.publish(event)
            await self.bus.drain()
            self._busy = False


def _never(event: Event) -> None:
    """Placeholder handler of a subscriber that reads the stream itself."""


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("The event bus has stopped", exc_info=error)


async def _make_group(client: Any, stream: str, group: str, position: str) -> None:
    from redis.exceptions import ResponseError

    try:
        await client.xgroup_create(stream, group, id=position, mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):  # another process has created it
            raise


def _encoded(event: Event) -> bytes:
    return encode(event._asdict()).encode()


def _decoded(fields: dict[bytes, bytes]) -> Event | None:
    """Decode an event; return None, with a log entry, for anything else or a newer version."""
    try:
        values = decode(fields[b"event"])
        return Event(**{**values, "type": EventType(values["type"])})
    except (KeyError, TypeError, ValueError) as error:
        _LOG.warning("An entry of the stream is not an event known to this version: %r", error)
        return None


def _id(after: str) -> str:
    """Check an id of the stream.

    Raises:
        EventBusError: it is not an id.
    """
    time, dash, number = after.partition("-")
    if time.isdecimal() and (not dash or number.isdecimal()):
        return after
    raise EventBusError(
        f"'{after}' is not the id of an event in the stream.",
        hint="Use after='0' for all events, or a bus's `position`.",
        cause="invalid",
    )

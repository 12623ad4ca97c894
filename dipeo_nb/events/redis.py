"""The event bus of several processes and machines, on a Redis stream (extra `redis`; Redis 6.2 or later).

What is published here reaches the subscribers of this process at once, whether Redis is there or not. For the others it goes into
one stream: it waits here while the server is away, is added in order, and never twice (the script knows the last `seq` of each
run). Every bus reads that stream from where it last was, so an outage costs its readers nothing. How much of the stream a restart
of the server keeps is for its configuration to say; `appendonly yes` keeps all that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import Any, Self

from dipeo_nb.common.aio import on_loop
from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.common.redis_server import RedisServer, trouble
from dipeo_nb.common.retry import Backoff
from dipeo_nb.common.scrub import logger
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import EventHandler, Overflow, Subscription
from dipeo_nb.errors import DipeoError, EventBusError
from dipeo_nb.events.memory import CLEANUP_S, InMemoryEventBus, check_events

BLOCK_MS = 2000
"""Milliseconds that one reading waits for news."""
PAGE = 500
"""Events added or read at once."""
BACKOFF = Backoff(0.05, 2.0)
"""Between attempts while the server is away."""
IDLE_S = 30.0
"""Seconds after which what a member of a group has not acknowledged goes to another one; members that live say so."""
FLUSH_S = 5.0
"""Seconds that `cleanup` waits for the server to take what it has not got yet."""
LAST_S = 3.0
"""And when the program ends without it."""
MEMORY_S = 7 * 24 * 3600
"""Seconds for which the last number of a run is remembered."""
CONNECTIONS = 64

_LOG = logger(__name__)
# KEYS: the stream, the last number of the run. ARGV: events to keep, seconds to remember, origin, then seq and body of each event.
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


class RedisEventBus:
    """`EventBus` across processes.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS), `unix://…`; user and password may be in it and are never shown.
        prefix: beginning of all keys; buses with different ones never meet.
        max_queue_size, overflow, apart: as with `InMemoryEventBus`.
        max_waiting: events kept for a server that is away; beyond, the oldest are dropped, counted as `lost` and logged.
        kept: events that the stream keeps, about.
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
        # In braces, so that a cluster keeps all keys in one place and a script may touch them together.
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
        """Where the bus was opened; what it does for callers on other loops is done there."""
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: dict[int, _Reader] = {}
        self._published = self._lost = 0
        self._away: set[str] = set()

    def __repr__(self) -> str:
        return f"RedisEventBus({self._server.place!r})"

    @property
    def position(self) -> str:
        """Id of the last event of the stream that came in here; `subscribe(after=…)` takes it."""
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
        """Hand out and send what was published (for `FLUSH_S` seconds at most), then disconnect. Safe to call twice."""
        await self._here.cleanup()
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.close()
        if reading := [reader.task for reader in readers if reader.task]:
            _, stuck = await asyncio.wait(reading, timeout=CLEANUP_S)
            for task in stuck:  # in a handler that does not return
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        if self._tasks and not await self.flush(FLUSH_S):
            _LOG.warning(
                "%s did not take the last %d events; the run store has them", self._server.place, len(self._outbox)
            )
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cleanup()

    async def publish(self, event: Event) -> None:
        await self.publish_batch((event,))

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
        # From here on nothing can interrupt: all of the batch waits for the server, next to each other.
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
        """As `EventBus.subscribe`; and two ways to read the stream itself, at the handler's own pace, with nothing dropped:

        Args:
            after: first what the stream keeps after this id (`0`: everything; `position`), then what comes, without gap.
            group: the events are shared by all, in whatever process, that subscribe with this name; each goes to one of them, and
                to another one when that dies before its handler has returned. A new group begins at *after*; default: now.
        """
        if group is None and after is None:
            return self._here.subscribe(
                handler, types=types, run_id=run_id, where=where, priority=priority,
                max_queue_size=max_queue_size, overflow=overflow, on_error=on_error,
            )  # fmt: skip
        position = self._position if after is None else _id(after)
        # What filters, calls and counts is a bus for this one alone; in that of the process it only has its place.
        alone = InMemoryEventBus(apart=self._apart)
        alone.subscribe(handler, types=types, run_id=run_id, where=where, on_error=on_error)
        subscription = self._here.subscribe(_never, types=(), priority=priority)
        reader = self._readers[subscription.id] = _Reader(alone, group, position)

        def read() -> None:
            reader.task = asyncio.get_running_loop().create_task(self._read(reader))
            reader.task.add_done_callback(_told)

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
        """Wait until the server has everything that was published here; False when *timeout* seconds were not enough."""
        if self._outbox:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await on_loop(self._loop, self._sent.wait)
        return not self._outbox

    def stats(self) -> dict[str, Any]:
        """Beside those of `EventBus`: `connected`, `unsent` (events that the server has not got yet), `lost`, `position`."""
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
            # Some may have been dropped in the meantime, from the same end.
            sent = {id(event) for event, _ in page}
            while self._outbox and id(self._outbox[0][0]) in sent:
                self._outbox.popleft()
            if not self._outbox:
                self._filled.clear()
                self._sent.set()

        try:
            await self._again_and_again("send", step)
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

        await self._again_and_again("receive", step)

    async def _read(self, reader: _Reader) -> None:
        """Everything of the stream for one subscription."""
        client = await self._server.client()
        step = self._plain(client, reader) if reader.group is None else self._shared(client, reader, reader.group)
        keeper = asyncio.ensure_future(self._alive(client, reader)) if reader.group is not None else None
        try:
            await self._again_and_again(f"read for {reader.group or 'a subscriber'}", step, reader)
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
            if now >= due:  # what members left behind that are gone
                await client.xautoclaim(stream, group, self._me, int(IDLE_S * 1000), count=PAGE)
                fresh, due = True, now + IDLE_S / 3
            # Its own first: claimed from others, or handed to it in an answer that got lost. An error leaves `fresh` true.
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
        """Tell the group, again and again, that what it gave is still worked on."""
        while True:
            await asyncio.sleep(IDLE_S / 3)
            with contextlib.suppress(Exception):  # the reading tells of an outage; this only has to go on
                mine = await client.xpending_range(self._prefix, reader.group, "-", "+", PAGE, consumername=self._me)
                if mine:
                    numbers = [entry["message_id"] for entry in mine]
                    await client.xclaim(self._prefix, reader.group, self._me, 0, numbers, justid=True)

    async def _leave(self, client: Any, reader: _Reader) -> None:
        """Forget this member of a group, unless it leaves something behind for the others."""
        with contextlib.suppress(Exception):  # a name in a list, no more
            async with asyncio.timeout(1):
                if not await client.xpending_range(self._prefix, reader.group, "-", "+", 1, consumername=self._me):
                    await client.xgroup_delconsumer(self._prefix, reader.group, self._me)

    # Both.

    async def _again_and_again(
        self, what: str, step: Callable[[], Coroutine[Any, Any, None]], reader: _Reader | None = None
    ) -> None:
        """Do one step after the other, until the reader is closed; wait for a server that is away."""
        failures, task = 0, asyncio.current_task()
        # Being cancelled may get lost inside redis, when the answer comes at that moment.
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
        task.add_done_callback(_told)
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
        """Handled, but not acknowledged yet: the answer got lost."""
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        self._busy = False

    def close(self) -> None:
        """End it; a handler that is called just now finishes, and its event counts as handled."""
        self.closed = True
        if self.task is not None and not self._busy and not (loop := self.task.get_loop()).is_closed():
            loop.call_soon_threadsafe(self.task.cancel)

    async def handle(self, fields: dict[bytes, bytes]) -> None:
        """Return when the handler has."""
        event = _decoded(fields)
        if event is not None:
            self._busy = True
            await self.bus.publish(event)
            await self.bus.drain()
            self._busy = False


def _never(event: Event) -> None:
    """Stands in the list of subscribers for one that reads by itself."""


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("The event bus has stopped", exc_info=error)


async def _make_group(client: Any, stream: str, group: str, position: str) -> None:
    from redis.exceptions import ResponseError

    try:
        await client.xgroup_create(stream, group, id=position, mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):  # somebody made it
            raise


def _encoded(event: Event) -> bytes:
    return encode(event._asdict()).encode()


def _decoded(fields: dict[bytes, bytes]) -> Event | None:
    """None, and a line in the log: something else, or of a newer version."""
    try:
        values = decode(fields[b"event"])
        return Event(**{**values, "type": EventType(values["type"])})
    except (KeyError, TypeError, ValueError) as error:
        _LOG.warning("An entry of the stream is not an event known to this version: %r", error)
        return None


def _id(after: str) -> str:
    """An id of the stream.

    Raises:
        EventBusError: it is none.
    """
    time, dash, number = after.partition("-")
    if time.isdecimal() and (not dash or number.isdecimal()):
        return after
    raise EventBusError(
        f"'{after}' is not the id of an event in the stream.",
        hint="Use after='0' for all events, or a bus's `position`.",
        cause="invalid",
    )

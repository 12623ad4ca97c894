"""Whatever a subscriber gives that blocks (handler, predicate, on_error, connection, port of questions) holds neither runs nor the
end of a session."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dipeo_nb.common import function_loop
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Question
from dipeo_nb.errors import DipeoError, EventBusError, NodeExecutionError, NodeTimeoutError
from dipeo_nb.events import in_memory, plain_handlers
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.integrations.providers import BaseProvider, IntegratedApiService
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from dipeo_nb.testing.contracts.events import event
from tests.support.waiting import until, wait_until

FREE = threading.Event()
"""Lets what blocks go on."""


def block(*_: Any) -> bool:
    FREE.wait(60)
    return True


async def block_async(*_: Any) -> None:
    FREE.wait(60)


async def wait_for_ever(*_: Any) -> None:
    await asyncio.sleep(1000)


def fail(*_: Any) -> None:
    raise ValueError("no")


async def fail_async(*_: Any) -> None:
    raise ValueError("no")


BLOCKING: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "a plain handler": (block, {}),
    "an async handler": (wait_for_ever, {}),
    "an async handler that blocks": (block_async, {}),
    "a predicate of a plain handler": (fail, {"where": block}),
    "a predicate of an async handler": (fail_async, {"where": block}),
    "on_error of a plain handler": (fail, {"on_error": block}),
    "on_error of an async handler": (fail_async, {"on_error": block}),
    "an async on_error": (fail, {"on_error": wait_for_ever}),
    "on_error after an overflow": (wait_for_ever, {"max_queue_size": 1, "overflow": "error", "on_error": block}),
    "on_error of a predicate": (fail_async, {"where": lambda _: 1 / 0, "on_error": block}),
}

DIAGRAM = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: N, type: code_job, props: {language: python, code: "return 1"}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: N}
  - {from: N, to: E}
"""
QUESTION = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: Q, type: user_response, props: {prompt: "Go on?", timeout: 100}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: Q}
  - {from: Q, to: E}
"""


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(in_memory, "CLEANUP_S", 0.1)
    monkeypatch.setattr(plain_handlers, "PATIENCE_S", 0.1)
    FREE.clear()
    yield
    FREE.set()


@pytest.fixture
def session(tmp_path: Any) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=tmp_path)) as made:
        yield made


@pytest.mark.parametrize("kind", BLOCKING)
def test_a_subscriber_that_blocks_holds_nobody(session: Session, kind: str):
    handler, options = BLOCKING[kind]
    seen: list[int] = []

    async def subscribe() -> None:
        await session.runtime.initialize()
        bus = session.runtime.services.bus
        bus.subscribe(handler, **options)

        async def other(one: Event) -> None:
            seen.append(one.seq)

        bus.subscribe(other)

    run_sync(subscribe())
    run = session.start(DIAGRAM, view=False, trust=True)
    assert run.result(30).output == 1
    wait_until(lambda: seen == [one.seq for one in run.events])
    session.close()
    assert seen == [one.seq for one in run.events]


def test_every_kind_is_tried():
    assert len(BLOCKING) == 10


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_predicates_choose_in_order(apart: bool, is_async: bool):
    """Whether they are asked apart or not: each event once, in order, and one that fails is counted as a failure of its subscriber."""
    got: list[int] = []
    errors: list[str] = []

    async def later(one: Event) -> None:
        got.append(one.seq)

    def odd(one: Event) -> bool:
        if one.seq == 50:
            raise SystemExit(3)
        return one.seq % 2 == 1

    async def go() -> Any:
        async with InMemoryEventBus(apart=apart) as bus:
            bus.subscribe(
                later if is_async else lambda one: got.append(one.seq), where=odd, on_error=lambda e: errors.append(str(e))
            )
            for first in range(1, 400, 40):
                await bus.publish_batch([event(n) for n in range(first, first + 40)])
            await bus.drain()
            return bus.stats()["subscribers"][0]

    stats = run_sync(go())
    assert got == list(range(1, 400, 2))
    assert errors == ["SystemExit: 3"]
    assert (stats["delivered"], stats["failed"], stats["dropped"]) == (200, 1, 0)


class _NoTruth:
    def __bool__(self) -> bool:
        raise ArithmeticError("neither")


@pytest.mark.parametrize("apart", [False, True])
def test_predicates_that_have_no_answer(apart: bool):
    """An async one is refused at once; one that gives a coroutine, or what is neither true nor false, fails."""
    errors: list[str] = []
    wrongs: list[Callable[[Event], Any]] = [lambda one: asks(one), lambda _: _NoTruth()]

    async def asks(one: Event) -> bool:
        return True

    async def go() -> None:
        async with InMemoryEventBus(apart=apart) as bus:
            with pytest.raises(EventBusError, match="async"):
                bus.subscribe(print, where=asks)  # pyright: ignore[reportArgumentType]
            for wrong in wrongs:
                bus.subscribe(fail, where=wrong, on_error=lambda error: errors.append(str(error)))
            await bus.publish(event(1))
            await bus.drain()

    run_sync(go())
    assert len(errors) == 2
    assert any("await" in text for text in errors)
    assert "neither" in errors


def test_a_handler_that_takes_its_time_gets_everything_at_the_end():
    """`cleanup` waits as long as something is handled."""
    got: list[int] = []

    def slowly(one: Event) -> None:
        time.sleep(0.03)
        got.append(one.seq)

    async def go() -> None:
        async with InMemoryEventBus(apart=True) as bus:
            bus.subscribe(slowly)
            await bus.publish_batch([event(n) for n in range(1, 11)])

    run_sync(go())
    assert got == list(range(1, 11))


def test_connections_that_block_are_removed(session: Session, monkeypatch: pytest.MonkeyPatch):
    """Their time limit holds, and what hears of the removal may block, too."""
    router = session.runtime.router
    monkeypatch.setattr(router, "_timeout", 0.5)
    removed: set[str] = set()
    got: list[int] = []

    async def follow(run_id: str) -> None:
        blocking: list[Callable[..., Any]] = [block, wait_for_ever]
        for handler in blocking:

            def hear(error: Exception, name: str = handler.__name__) -> None:
                removed.add(name)
                block()

            await router.register_connection(handler.__name__, handler, on_removed=hear)
            await router.subscribe_connection_to_execution(handler.__name__, run_id)
        await router.register_connection("good", lambda one: got.append(one.seq))
        await router.subscribe_connection_to_execution("good", run_id)

    run = session.start(DIAGRAM, view=False, trust=True)
    run_sync(follow(run.id))
    assert run.result(30).output == 1
    wait_until(lambda: len(removed) == 2)
    wait_until(lambda: len(got) == len(run.events))


class _Port:
    """An interaction port as a user would write one."""

    def __init__(self, ask: Callable[[Question], Any]) -> None:
        self.ask = ask


async def _says_yes(question: Question) -> tuple[str, str]:
    return "yes", "user"


async def _leaves(question: Question) -> tuple[str, str]:
    raise SystemExit(3)


PORTS: dict[str, tuple[Callable[[Question], Any], str]] = {
    "async": (_says_yes, "completed"),
    "plain": (lambda _: ("yes", "user"), "completed"),
    "it leaves": (_leaves, "SystemExit: 3"),
    "it gives up": (fail, "no"),
    "a text alone": (lambda _: "yes", r"str, not with \(text, source\)"),
    "a number": (lambda _: (3, "user"), r"not with \(text, source\)"),
    "it blocks": (block, "aborted"),
    "it blocks, async": (block_async, "aborted"),
}


@pytest.mark.parametrize("kind", PORTS)
def test_ports_of_questions(session: Session, kind: str):
    """One that blocks is no obstacle to a stop, nor to an answer from elsewhere."""
    ask, outcome = PORTS[kind]
    runtime = session.runtime
    prepared = runtime.prepare(session.load(QUESTION))

    async def go() -> Any:
        port: Any = _Port(ask)
        execution = runtime.execution(prepared, interaction=port)
        work = asyncio.ensure_future(runtime.run(execution))
        if outcome == "aborted":
            await until(lambda: bool(execution.state.questions))
            execution.stop()
        await work
        return execution

    execution = run_sync(go())
    if outcome in ("completed", "aborted"):
        assert str(execution.state.status) == outcome
    else:
        with pytest.raises(DipeoError, match=outcome):
            raise execution.error


def test_operations_of_providers_that_block(tmp_path: Any):
    class Jira(BaseProvider):
        name = "jira"

        async def create(self) -> str:
            FREE.wait(60)
            return "late"

    diagram = {
        "version": "light",
        "nodes": [
            {"label": "S", "type": "start"},
            {
                "label": "N",
                "type": "integrated_api",
                "props": {"provider": "jira", "operation": "create", "timeout": 1, "max_retries": 0},
            },
        ],
        "connections": [{"from": "S", "to": "N"}],
    }
    with (
        Session(settings=Settings(base_dir=tmp_path), integrations=IntegratedApiService(Jira())) as session,
        pytest.raises((NodeTimeoutError, NodeExecutionError), match=r"too long|longer"),
    ):
        session.run(diagram, timeout=20)


def test_a_scripted_model_that_blocks():
    """The function of a script is called like other functions of users; an async one is awaited."""

    async def answer(request: LLMRequest) -> str:
        return "later"

    async def go() -> str:
        client = scripted([block, answer])
        slow = asyncio.ensure_future(client.complete(LLMRequest("scripted", "m", [])))
        await asyncio.sleep(0.01)  # held, if the function held the loop
        slow.cancel()
        return (await client.complete(LLMRequest("scripted", "m", []))).text

    assert run_sync(go()) == "later"


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_a_bus_is_used_from_two_loops(apart: bool, overflow: Any) -> None:
    """A cell of a notebook drains, and publishes to, the bus on whose handlers the library's loop works: neither waits for ever, and
    every event is handled before `drain` returns."""
    bus = InMemoryEventBus(apart=apart)
    handled: list[int] = []
    reported: list[Exception] = []

    async def slowly(event: Event) -> None:
        await asyncio.sleep(0.02)
        handled.append(event.seq)
        if event.seq == 1:
            raise ValueError("no")

    bus.subscribe(slowly, overflow=overflow, max_queue_size=2 if overflow == "block" else 100, on_error=reported.append)
    seen: list[int] = []
    bus.subscribe(lambda event: seen.append(event.seq))

    async def publish(numbers: range) -> None:
        for number in numbers:
            await bus.publish(event(number))

    async def cell() -> None:
        async with asyncio.timeout(60):
            await bus.drain()
            assert handled == [1, 2, 3]
            await publish(range(4, 9))
            await bus.drain()
            assert handled == seen == list(range(1, 9))
            assert len(reported) == 1

    run_sync(publish(range(1, 4)))
    asyncio.run(cell())
    run_sync(bus.cleanup())


BAD: dict[str, Callable[[Event], Any]] = {
    "it blocks": block,
    "it raises": fail,
    "it exits": lambda _: sys.exit(3),
    "it stops an iteration": lambda _: next(iter(())),
    "it says that it was cancelled": lambda _: _cancelled(),
    "it ends its thread": lambda _: _end_this_thread(),
}


def _cancelled() -> None:
    raise asyncio.CancelledError


async def _cancels_itself(_: Event) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def later(handler: Callable[[Event], Any]) -> Callable[[Event], Any]:
    async def handle(one: Event) -> None:
        await asyncio.sleep(0)
        handler(one)

    return handle


BAD_ASYNC: dict[str, Callable[[Event], Any]] = {
    **{kind: later(handler) for kind, handler in BAD.items() if "thread" not in kind},
    "it never ends": wait_for_ever,
    "it cancels its own task": _cancels_itself,
}


@pytest.mark.parametrize("kind", BAD_ASYNC)
def test_a_bad_async_handler_costs_others_no_event(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Async and plain ones, and itself none but that at work: events are handed over together."""
    monkeypatch.setattr(function_loop, "PATIENCE_S", 0.1)
    got: list[int] = []
    later_got: list[int] = []
    numbers = range(1, 500)

    async def follow(one: Event) -> None:
        later_got.append(one.seq)

    async def go() -> dict[str, Any]:
        bus = InMemoryEventBus(apart=True)
        bus.subscribe(BAD_ASYNC[kind], priority=EventPriority.CRITICAL)
        bus.subscribe(follow)
        bus.subscribe(lambda one: got.append(one.seq))
        for first in numbers[::7]:
            await bus.publish_batch([event(n) for n in numbers[first - 1 : first + 6]])
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while len(got) < len(numbers) or len(later_got) < len(numbers):
                await asyncio.sleep(0.01)
        if kind not in ("it blocks", "it never ends"):
            await bus.drain()
        stats = bus.stats()["subscribers"][0]
        FREE.set()
        await bus.cleanup()
        return stats

    stats = run_sync(go())
    assert got == later_got == list(numbers)
    if kind not in ("it blocks", "it never ends"):
        assert stats["failed"] == len(numbers)


def test_every_bad_async_handler_is_tried():
    assert len(BAD_ASYNC) == 7


class _Ended(BaseException):
    pass


def _end_this_thread() -> None:
    """The exception comes after this call, wherever the thread then is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_Ended))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("priority", [EventPriority.CRITICAL, EventPriority.LOW])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_handler_costs_others_no_event(kind: str, priority: EventPriority):
    """However many events there are, and wherever it stands in the order; the event loop goes on meanwhile."""
    got: list[int] = []
    numbers = range(1, 3 * plain_handlers.CROWDED)

    async def go() -> None:
        bus = InMemoryEventBus(max_queue_size=50, apart=True)
        bus.subscribe(BAD[kind], priority=priority)
        bus.subscribe(lambda one: got.append(one.seq))
        for number in numbers:
            await bus.publish(event(number))
        async with asyncio.timeout(20):
            while len(got) < len(numbers):
                await asyncio.sleep(0.01)
        FREE.set()
        await bus.cleanup()

    run_sync(go())
    assert got == list(numbers)


def test_every_bad_handler_is_tried():
    assert len(BAD) == 6


def test_a_handler_that_was_late_gets_the_latest_events(monkeypatch: pytest.MonkeyPatch):
    """The oldest are dropped beyond the limit, and counted; when it has caught up, publishers wait for it again."""
    got: list[int] = []

    def slow(one: Event) -> None:
        FREE.wait(60)
        got.append(one.seq)

    async def go() -> dict[str, Any]:
        async with InMemoryEventBus(max_queue_size=5, apart=True) as bus:
            bus.subscribe(slow)
            await bus.publish(event(1, kind=EventType.EXECUTION_COMPLETED))
            for number in range(2, 21):
                await bus.publish(event(number))
            FREE.set()
            await bus.drain()
            await bus.publish(event(21, kind=EventType.EXECUTION_COMPLETED))
            assert got[-1] == 21
            return bus.stats()["subscribers"][0]

    stats = run_sync(go())
    assert got == [1, 17, 18, 19, 20, 21]
    assert (stats["delivered"], stats["dropped"], stats["waiting"]) == (6, 15, 0)


def test_plain_handlers_have_seen_a_run_when_it_has_ended(session: Session):
    seen: list[int] = []
    run_sync(session.runtime.initialize())
    session.runtime.services.bus.subscribe(lambda one: seen.append(one.seq))
    for _ in range(5):
        seen.clear()
        run = session.start(DIAGRAM, view=False, trust=True)
        assert run.result(30).output == 1
        assert seen == [one.seq for one in run.events]


def test_what_is_published_in_one_step_is_handed_over_at_once():
    """The thread is woken once for all of it."""
    woken: list[int] = []

    async def go() -> None:
        async with InMemoryEventBus(apart=True) as bus:
            bus.subscribe(lambda one: woken.append(threading.get_ident()))
            first = bus._plain._wake
            bus._plain._wake = lambda: (calls.append(1), first())[1]  # pyright: ignore[reportAttributeAccessIssue]
            for number in range(1, 101):
                await bus.publish(event(number))
            assert not calls
            await asyncio.sleep(0)
            assert len(calls) == 1
            await bus.drain()

    calls: list[int] = []
    run_sync(go())
    assert len(woken) == 100
    assert len(set(woken)) == 1
    assert woken[0] != threading.get_ident()


def test_a_handler_that_leaves_gets_nothing_more():
    got: list[int] = []

    async def go() -> None:
        async with InMemoryEventBus(apart=True) as bus:

            def once(one: Event) -> None:
                got.append(one.seq)
                bus.unsubscribe(subscription)

            subscription = bus.subscribe(once)
            await bus.publish_batch([event(1), event(2)])
            await bus.publish(event(3))
            await bus.drain()

    run_sync(go())
    assert got == [1]


def test_no_thread_is_left_when_a_bus_is_closed():
    threads: list[threading.Thread] = []

    async def go() -> None:
        bus = InMemoryEventBus(apart=True)
        for number in (1, 2):  # it may be used again
            bus.subscribe(lambda one: threads.append(threading.current_thread()))
            await bus.publish(event(number))
            await bus.cleanup()

    run_sync(go())
    assert len(threads) == 2
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_the_end_of_a_run_waits_for_no_other_run():
    """Whose events keep a handler at work without end."""

    async def go() -> None:
        async with InMemoryEventBus(apart=True) as bus:
            subscription = bus.subscribe(lambda one: time.sleep(0.002))

            async def publish_on() -> None:
                number = 0
                while True:
                    await bus.publish(event(number := number + 1, "other"))
                    await asyncio.sleep(0)

            other = asyncio.ensure_future(publish_on())
            await asyncio.sleep(0.02)
            async with asyncio.timeout(20):
                await bus.publish(event(1, kind=EventType.EXECUTION_COMPLETED))
            assert not other.done()
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
            bus.unsubscribe(subscription)

    run_sync(go())


def test_an_event_to_many_subscribers_is_work_for_each_once():
    """Who is next is not looked for among all: the lines of Python are counted that the thread of the handlers takes."""

    def work(count: int) -> int:
        lines = 0

        def trace(frame: Any, what: str, arg: Any) -> Any:
            nonlocal lines
            lines += what == "line"
            return trace if frame.f_code.co_filename == plain_handlers.__file__ else None

        seen: list[int] = []

        async def go() -> None:
            async with InMemoryEventBus(apart=True) as bus:
                for number in range(count):
                    bus.subscribe(lambda _, number=number: seen.append(number))
                await bus.publish(event(1))
                await bus.drain()

        before = threading.gettrace()
        threading.settrace(trace)
        try:
            asyncio.run(go())
        finally:
            threading.settrace(before)  # pyright: ignore[reportArgumentType]
        assert seen == list(range(count))
        return lines

    few, many = work(50), work(200)
    assert few > 50
    assert many < 5 * few, (few, many)

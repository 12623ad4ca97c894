"""User code cannot hurt the loop: whatever it raises is a failure of its call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import dipeo_nb as dp
from dipeo_nb.common import user_code
from dipeo_nb.common.loop import LoopThread, run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ToolCall
from dipeo_nb.errors import NodeExecutionError, NodeTimeoutError, RunTimeoutError, ValidatorCodeError
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.structured import validated
from dipeo_nb.llm.tools import run_tool, tool_of
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.waiting import until
from tests.support.wire_openai import ScriptedServer, delta, final, request, settings_with


def _stop_iteration() -> None:
    next(iter(()))


RAISED: dict[str, tuple[BaseException, str]] = {
    "SystemExit": (SystemExit(3), "SystemExit: 3"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "StopIteration": (StopIteration("x"), "StopIteration"),
    "StopAsyncIteration": (StopAsyncIteration(), "StopAsyncIteration"),
    "CancelledError": (asyncio.CancelledError(), "CancelledError"),
    "GeneratorExit": (GeneratorExit(), "GeneratorExit"),
    "BaseException": (BaseException("odd"), "BaseException: odd"),
    "ValueError": (ValueError("plain"), "plain"),
}


def test_every_kind_is_tried():
    assert len(RAISED) == 8
    assert {type(error) for error, _ in RAISED.values()} >= set(user_code.ESCAPING)


@pytest.fixture(params=RAISED, ids=str)
def raised(request: pytest.FixtureRequest) -> tuple[BaseException, str]:
    return RAISED[request.param]


def _sync(error: BaseException) -> Callable[[], Any]:
    def function() -> str:
        raise error

    return function


def _async(error: BaseException) -> Callable[[], Any]:
    async def function() -> str:
        await asyncio.sleep(0)
        raise error

    return function


def _in_a_task(error: BaseException) -> Callable[[], Any]:
    async def function() -> str:
        return await asyncio.create_task(_async(error)())

    return function


KINDS = {"sync": _sync, "async": _async, "a task of its own": _in_a_task}


@pytest.fixture(params=KINDS, ids=str)
def function(request: pytest.FixtureRequest, raised: tuple[BaseException, str]) -> Callable[[], Any]:
    made = KINDS[request.param](raised[0])
    made.__name__ = "broken"
    made.__annotations__ = {"return": str}
    return made


def test_a_tool_fails_and_the_loop_lives(function: Callable[[], Any], raised: tuple[BaseException, str]):
    result = run_sync(run_tool(ToolCall("1", "broken", {}), [tool_of(function)]))
    assert result.is_error
    assert raised[1].partition(":")[0] in str(result.content)
    assert run_sync(asyncio.sleep(0, "alive")) == "alive"


@pytest.fixture
def session(tmp_path: Any) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=tmp_path)) as made:
        yield made


def _diagram(kind: str, **props: Any) -> dict[str, Any]:
    return {
        "version": "light",
        "nodes": [
            {"label": "S", "type": "start"},
            {"label": "N", "type": kind, "props": props},
            {"label": "E", "type": "endpoint"},
        ],
        "connections": [{"from": "S", "to": "N"}, {"from": "N", "to": "E"}],
    }


def test_a_node_fails_and_the_run_ends(session: Session, function: Callable[[], Any], raised: tuple[BaseException, str]):
    dp.node(name="broken_node")(function)
    with pytest.raises(NodeExecutionError, match=raised[1].partition(":")[0]):
        session.run(_diagram("broken_node"), timeout=30)
    (row,) = session.runs()
    assert row.status == "failed"


def test_handlers_of_events_do_not_end_a_run(session: Session, raised: tuple[BaseException, str]):
    @dp.node(name="fine_node")
    def fine() -> str:
        return "fine"

    calls: list[str] = []

    def plain(event: Any) -> None:
        calls.append("plain")
        raise raised[0]

    async def waiting(event: Any) -> None:
        calls.append("async")
        await asyncio.sleep(0)
        raise raised[0]

    def chooses(event: Any) -> bool:
        calls.append("where")
        raise raised[0]

    def complains(error: Exception) -> None:
        raise raised[0]

    async def subscribe() -> None:
        await session.runtime.initialize()
        bus = session.runtime.services.bus
        bus.subscribe(plain, on_error=complains)
        bus.subscribe(waiting)
        bus.subscribe(lambda _: None, where=chooses)

    run_sync(subscribe())
    assert session.run(_diagram("fine_node")).output == "fine"
    assert {"plain", "where"} <= set(calls)


def test_a_validator_of_an_answer(raised: tuple[BaseException, str]):
    class Shape(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise raised[0]

    unfit = isinstance(raised[0], ValueError)  # so a validator says that an answer does not fit
    with pytest.raises(
        ValueError if unfit else ValidatorCodeError, match=raised[0].args[0] if unfit else raised[1].partition(":")[0]
    ):
        validated({"x": 1}, Shape)


def test_limits_hold_over_functions_that_never_return(session: Session):
    release = threading.Event()

    @dp.node(name="stuck_node", timeout=0.2)
    def stuck() -> None:
        release.wait(60)

    @dp.node(name="stuck_longer")
    def stuck_longer() -> None:
        release.wait(60)

    try:
        for _ in range(12):  # more than a pool of threads would have
            with pytest.raises(NodeTimeoutError):
                session.run(_diagram("stuck_node"))
        with pytest.raises(RunTimeoutError):
            session.run(_diagram("stuck_longer"), timeout=0.3)
        assert run_sync(asyncio.to_thread(lambda: "free")) == "free"
    finally:
        release.set()


def test_a_cancelled_caller_is_cancelled():
    async def cancelled(work: Callable[[], Any]) -> bool:
        task = asyncio.create_task(user_code.call(work))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    async def slow() -> None:
        await asyncio.sleep(60)

    gate = threading.Event()
    assert run_sync(cancelled(slow))
    assert run_sync(cancelled(lambda: gate.wait(30)))
    gate.set()


def test_a_coroutine_can_be_closed_from_outside():
    class Forever:
        def __await__(self) -> Any:
            while True:
                yield

    closed: list[str] = []

    async def slow() -> None:
        try:
            await Forever()
        finally:
            closed.append("closed")

    work = user_code.awaited(slow())
    work.send(None)
    work.close()
    assert closed == ["closed"]


def test_the_loop_goes_on_when_it_is_stopped_by_a_callback():
    loop = LoopThread.get().loop
    run_sync(asyncio.sleep(0))

    async def stop() -> str:
        loop.stop()
        await asyncio.sleep(0.01)
        return "still here"

    assert run_sync(stop()) == "still here"

    def leave() -> None:
        raise SystemExit(4)

    loop.call_soon_threadsafe(leave)
    assert run_sync(asyncio.sleep(0.01, "still here")) == "still here"


def test_a_loop_that_ends_fails_what_is_pending():
    own = LoopThread()
    future = own.submit(asyncio.sleep(60))
    own._closing = True
    own.loop.call_soon_threadsafe(own.loop.stop)
    with pytest.raises(RuntimeError, match="has ended"):
        future.result(20)
    with pytest.raises(RuntimeError, match="has ended"):
        own.submit(asyncio.sleep(0)).result(20)
    for task in asyncio.all_tasks(own.loop):
        task.cancel()
    own.loop.run_until_complete(asyncio.sleep(0))
    own.loop.close()


def test_a_value_whose_iterator_exits(session: Session):
    @dp.node(name="exits_later")
    def exits_later() -> Any:
        def parts() -> Iterator[int]:
            yield 1
            raise SystemExit("later")

        return parts()

    with pytest.raises(NodeExecutionError, match="later"):
        session.run(_diagram("exits_later"), timeout=30)


@pytest.mark.parametrize("service", ["echo", "openai"])
def test_a_validator_that_blocks_holds_no_loop(service: str):
    """The class of an answer may take its time: other work of the loop goes on meanwhile."""
    begun, free = threading.Event(), threading.Event()

    class Slow(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def wait(cls, value: int) -> int:
            begun.set()
            assert free.wait(40), "the loop was held"
            return value

    async def go(settings: Settings) -> Any:
        calls = LLMService(settings, EnvironmentAPIKeyService(settings))
        asked = asyncio.ensure_future(calls.complete(request(service=service, model="gpt-6-luna", response_format=Slow)))
        await until(begun.is_set)
        free.set()
        answer = await asked
        await calls.cleanup()
        return answer.structured

    with ScriptedServer(lambda call: call.stream([delta('{"n": 3}'), final()])) as server:
        found = run_sync(go(settings_with(openai_api_key="sk-test", openai_base_url=server.url)))
    assert isinstance(found, Slow)

"""Async functions of users that block hold neither runs nor limits nor Stop; those that do not block share one event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import dipeo_nb as dp
from dipeo_nb.common import function_loop
from dipeo_nb.common.loop import LoopThread, run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, ToolCall
from dipeo_nb.errors import NodeExecutionError, NodeTimeoutError, RunAbortedError, RunTimeoutError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.llm.tools import run_tool, tool_of
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_loop, "PATIENCE_S", 0.05)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=tmp_path), llm=scripted()) as made:
        yield made


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What blocks waits for it."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(lambda: len(function_loop._LOOPS._loops) <= 1)  # the spare ones have ended


def _side_by_side(*kinds: str) -> dict[str, Any]:
    """A node of each type, next to each other."""
    return {
        "version": "light",
        "nodes": [
            {"label": "S", "type": "start"},
            *({"label": kind, "type": kind} for kind in kinds),
            {"label": "E", "type": "endpoint"},
        ],
        "connections": [
            c
            for kind in kinds
            for c in ({"from": "S", "to": kind}, {"from": kind, "to": "E", **({"label": kind} if kinds[1:] else {})})
        ],
    }


def _blocks(release: threading.Event) -> None:
    async def coroutine() -> None:
        release.wait(60)

    async def generator() -> AsyncIterator[int]:
        yield 1
        release.wait(60)

    async def in_cleanup() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            release.wait(60)

    async def ignores_its_end() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def in_a_task() -> None:
        async def work() -> None:
            release.wait(60)

        await asyncio.gather(work(), asyncio.sleep(60))

    class Checked(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def waits(cls, value: int) -> int:
            release.wait(60)
            return value

    async def in_a_validator(value: Any) -> None: ...

    in_a_validator.__annotations__["value"] = Checked

    def returns_a_coroutine() -> Any:
        return coroutine()

    class Callable:
        async def __call__(self) -> None:
            release.wait(60)

    for kind in (coroutine, generator, in_cleanup, ignores_its_end, in_a_task, in_a_validator, returns_a_coroutine):
        dp.node(name=f"blocks_{kind.__name__}")(kind)
    dp.node(name="blocks_callable")(Callable())
    dp.node(name="blocks_partial")(functools.partial(coroutine))


BLOCKING = (
    "coroutine", "generator", "in_cleanup", "ignores_its_end", "in_a_task", "in_a_validator", "returns_a_coroutine", "callable", "partial",
)  # fmt: skip


@pytest.mark.parametrize("kind", BLOCKING)
def test_limits_and_stop_hold_over_what_blocks(
    session: Session, release: threading.Event, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(function_loop, "CLEANUP_S", 0.05)
    _blocks(release)
    assert len(BLOCKING) == 9

    @dp.node(name="plain_beside")
    def beside() -> str:
        return "done"

    diagram = _side_by_side(f"blocks_{kind}", "plain_beside")
    if kind == "in_a_validator":
        diagram["nodes"][1]["props"] = {"value": {"x": 1}}
    with pytest.raises(RunTimeoutError):
        session.run(diagram, timeout=0.2)
    run = session.start(diagram)
    wait_until(lambda: run.node("plain_beside").status == "completed")
    run.stop()
    with pytest.raises(RunAbortedError):
        run.result()
    limited = {
        **diagram,
        "nodes": [
            {**n, "props": {**n.get("props", {}), "timeout": 0.1}} if "blocks" in n["label"] else n for n in diagram["nodes"]
        ],
    }
    with pytest.raises(NodeTimeoutError):
        session.run(limited)
    assert [row.status for row in session.runs()] == ["failed", "aborted", "failed"]


def test_what_begins_meanwhile_goes_on_elsewhere(session: Session, release: threading.Event):
    _blocks(release)

    @dp.node(name="async_beside")
    async def beside() -> str:
        await asyncio.sleep(0.001)
        return "done"

    run = session.start(_side_by_side("blocks_coroutine"))
    wait_until(lambda: run.node("blocks_coroutine").status == "running")
    assert session.run(_side_by_side("async_beside")).output == "done"
    assert session.run(_side_by_side("async_beside")).output == "done"
    assert len(function_loop._LOOPS._loops) == 2
    release.set()
    assert run.result().output is None
    wait_until(lambda: len(function_loop._LOOPS._loops) == 1)
    assert session.run(_side_by_side("async_beside")).output == "done"


def test_functions_share_one_loop_and_what_is_bound_to_it(session: Session):
    """Locks and queues at module level work over nodes and runs, as clients with connections do."""
    lock, loops = asyncio.Lock(), set[asyncio.AbstractEventLoop]()
    queue: asyncio.Queue[int] = asyncio.Queue()

    @dp.node(name="puts")
    async def puts() -> None:
        async with lock:
            await asyncio.sleep(0.001)
            loops.add(asyncio.get_running_loop())
            queue.put_nowait(1)

    @dp.node(name="gets")
    async def gets() -> int:
        async with lock:
            loops.add(asyncio.get_running_loop())
        return await queue.get()

    for _ in range(3):
        assert session.run(_side_by_side("gets", "puts")).output["gets"] == 1
    assert len(loops) == 1
    assert loops != {LoopThread.get().loop}


_VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_reach_functions(session: Session):
    async def inner() -> str:
        return _VARIABLE.get()

    async def outer() -> Any:
        _VARIABLE.set("set")
        return await run_tool(ToolCall("1", "inner", {}), [tool_of(inner)])

    assert run_sync(outer()).content == "set"


def test_a_cancelled_function_cleans_up(session: Session):
    ended: list[str] = []

    @dp.node(name="cleans_up", timeout=0.1)
    async def cleans_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("clean")

    with pytest.raises(NodeTimeoutError):
        session.run(_side_by_side("cleans_up"))
    assert ended == ["clean"]


def test_a_loop_that_awaits_nothing_is_ended(session: Session):
    """It would take the processor's time, and the interpreter's, for as long as the process lives."""
    left: list[str] = []

    @dp.node(name="spins", timeout=0.1)
    async def spins() -> None:
        try:
            while True:
                pass
        finally:
            left.append("ended")

    with pytest.raises(NodeTimeoutError, match=r"limit of 0\.1 s"):
        session.run(_side_by_side("spins"))
    wait_until(lambda: left == ["ended"])
    wait_until(lambda: len(function_loop._LOOPS._loops) == 1 and not function_loop._LOOPS._loops[0].blocked)

    @dp.node(name="after")
    async def after() -> str:
        return "fine"

    assert session.run(_side_by_side("after")).output == "fine"


def test_a_function_may_cancel_its_own_task(session: Session):
    @dp.node(name="cancels_itself")
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(NodeExecutionError, match="CancelledError"):
        session.run(_side_by_side("cancels_itself"), timeout=30)


VALUES = {"generator": [0, 1, 2], "callable": "called", "partial": 3, "late": "later"}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_form_of_async_function(session: Session, kind: str):
    async def generator() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    class Callable:
        async def __call__(self) -> str:
            return "called"

    async def add(a: int, b: int) -> int:
        return a + b

    async def later() -> str:
        return "later"

    forms = {"generator": generator, "callable": Callable(), "partial": functools.partial(add, b=1), "late": lambda: later()}
    dp.node(name=f"form_{kind}")(forms[kind])
    diagram = _side_by_side(f"form_{kind}")
    if kind == "partial":
        diagram["nodes"][1]["props"] = {"a": 2}
    assert session.run(diagram).output == VALUES[kind]
    if kind in ("generator", "late"):
        assert run_sync(run_tool(ToolCall("1", kind, {}), [tool_of(forms[kind], name=kind)])).is_error is False


def test_the_context_of_a_function_works_with_the_services(session: Session):
    @dp.node(name="asks")
    async def asks(context: NodeContext) -> Any:
        assert isinstance(context, NodeContext)
        request = LLMRequest("openai", "gpt-5-nano-2025-08-07", [ChatMessage("user", "Say hi.")])
        said = await context.complete(request)
        kinds = [event.kind async for event in context.services.llm.stream(request)]
        stored = await context.services.store.runs(limit=5)
        answer, _ = await context.execution.ask(context.node, "Who?", timeout=20, default=None)
        context.publish("asked", True)
        return {
            "said": bool(said.text), "last": kinds[-1], "runs": len(stored), "answer": answer,
            "text": await context.rendered("{{ 'a' | upper }}{{ missing }}"),
        }  # fmt: skip

    @dp.node(name="warns")
    def warns(context: NodeContext) -> str:
        return context.render("{{ missing }}.")

    result = session.run(_side_by_side("asks", "warns"), answers={"asks": "Ada"})
    assert result.outputs["E"]["asks"] == {"said": True, "last": "end", "runs": 1, "answer": "Ada", "text": "A"}
    assert [e.seq for e in result.events] == list(range(1, len(result.events) + 1))
    assert result.node("asks").usage.total


def test_a_tool_that_blocks_does_not_hold_the_loop(release: threading.Event):
    async def stuck() -> str:
        release.wait(60)
        return "free"

    async def both() -> Any:
        waiting = asyncio.ensure_future(run_tool(ToolCall("1", "stuck", {}), [tool_of(stuck)]))
        await asyncio.sleep(0.05)
        beside = await asyncio.sleep(0, "turns")
        waiting.cancel()
        await asyncio.wait({waiting})
        return beside, waiting.cancelled()

    assert run_sync(both()) == ("turns", True)


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "plain"])
def test_handlers_of_events_that_block_do_not_hold_runs(session: Session, release: threading.Event, asynchronous: bool):
    seen: list[int] = []

    def plain(event: Any) -> None:
        seen.append(event.seq)
        release.wait(60)

    async def waiting(event: Any) -> None:
        plain(event)

    @dp.node(name="fine_node")
    def fine() -> str:
        return "fine"

    session.runtime.services.bus.subscribe(waiting if asynchronous else plain)
    result = session.run(_side_by_side("fine_node"))
    assert result.output == "fine"
    assert len(seen) <= 1
    release.set()
    run_sync(session.runtime.services.bus.drain())
    assert seen == [event.seq for event in result.events]


def test_a_handler_may_leave_from_within(session: Session):
    bus, seen = session.runtime.services.bus, list[str]()

    async def once(event: Any) -> None:
        seen.append("begun")
        bus.unsubscribe(subscription)
        await asyncio.sleep(0)
        seen.append("ended")

    subscription = bus.subscribe(once)

    @dp.node(name="fine_node")
    def fine() -> str:
        return "fine"

    session.run(_side_by_side("fine_node"))
    wait_until(lambda: len(seen) == 2)
    session.run(_side_by_side("fine_node"))
    assert seen == ["begun", "ended"]


def test_a_run_within_an_async_function(session: Session, release: threading.Event):
    """Awaited or not: `run` blocks the loop of functions, and those of the inner run begin on a spare one."""

    @dp.node(name="inner")
    async def inner() -> int:
        return 1

    @dp.node(name="outer")
    async def outer() -> list[int]:
        awaited = await session.arun(_side_by_side("inner"))
        return [awaited.output, session.run(_side_by_side("inner")).output]

    assert session.run(_side_by_side("outer"), timeout=30).output == [1, 1]


def test_a_process_ends_over_a_function_that_blocks(tmp_path: Path):
    script = """
import time
import dipeo_nb as dp
from dipeo_nb.errors import NodeTimeoutError

@dp.node(timeout=0.2)
async def stuck():
    time.sleep(60)

try:
    dp.run({"version": "light", "nodes": [{"label": "S", "type": "start"}, {"label": "N", "type": "stuck"}],
            "connections": [{"from": "S", "to": "N"}]})
except NodeTimeoutError as error:
    print("in stuck (<string>:8)" in error.hint)
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert done.returncode == 0
    assert time.monotonic() - begun < 50

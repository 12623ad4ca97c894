"""Processes that can be killed: results, errors, limits, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from typing import Any

import pytest

from dipeo_nb.errors import ExpressionError, NodeExecutionError
from dipeo_nb.workers import WorkerPool
from dipeo_nb.workers.child import HEAD
from dipeo_nb.workers.pool import _LAUNCH, _paths

ENDLESS = ("re:fullmatch", "(a+)+$", "a" * 60 + "!")
"""Work that holds the interpreter, and would take years."""


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(2)
    yield made
    made.kill()


def _processes(pool: WorkerPool) -> list[int]:
    return [worker._process.pid for worker in pool._all]


@in_a_loop
async def test_results_come_from_one_process_after_another_call(pool: WorkerPool) -> None:
    """A process is used again."""
    first, second = await pool.call("os:getpid"), await pool.call("os:getpid")
    assert first == second != os.getpid()


@in_a_loop
async def test_errors_arrive_as_they_were_raised(pool: WorkerPool) -> None:
    """An error of this package keeps its kind, hint and facts; the process serves on."""
    with pytest.raises(ExpressionError) as caught:
        await pool.call("dipeo_nb.diagram.expressions:evaluate", "1 +", {})
    assert caught.value.hint
    assert caught.value.facts["expression"] == "1 +"
    with pytest.raises(NodeExecutionError, match="ZeroDivisionError"):
        await pool.call("operator:truediv", 1, 0)
    assert len(_processes(pool)) == 1


@in_a_loop
async def test_memory_has_a_limit(pool: WorkerPool) -> None:
    """More memory than allowed is an error of the work, not the end of anything."""
    with pytest.raises(NodeExecutionError, match="too much memory"):
        await pool.call("operator:mul", [0], 10**10)


@in_a_loop
async def test_a_cancelled_call_kills_its_process(pool: WorkerPool) -> None:
    """A time limit ends work that does not listen, and its process."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await pool.call(*ENDLESS)
    assert _processes(pool) == []
    assert await pool.call("math:sqrt", 4.0) == 2.0


@in_a_loop
async def test_more_calls_than_processes_wait_and_can_be_cancelled(pool: WorkerPool) -> None:
    """Calls beyond the room wait for it; one that is cancelled while it waits starts nothing."""
    busy = [asyncio.create_task(pool.call(*ENDLESS)) for _ in range(2)]
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(pool.call("math:sqrt", 9.0))
    given_up = asyncio.create_task(pool.call(*ENDLESS))
    await asyncio.sleep(0.1)
    given_up.cancel()
    for task in busy:
        task.cancel()
    assert await waiting == 3.0
    await asyncio.gather(*busy, given_up, return_exceptions=True)
    assert len(_processes(pool)) <= 1


@in_a_loop
async def test_the_working_directory_decides_nothing(
    pool: WorkerPool, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module beside the notebook is not imported."""
    (tmp_path / "fractions.py").write_text("raise RuntimeError('imported')")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NodeExecutionError, match="no attribute"):
        await pool.call("fractions:nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="not here: signals of POSIX")
def test_no_process_outlives_a_killed_parent() -> None:
    """SIGKILL of the parent ends the work soon after, also while it holds the interpreter."""
    code = f"""
        import asyncio
        from dipeo_nb.workers import WORKERS
        async def main():
            task = asyncio.create_task(WORKERS.call(*{ENDLESS!r}))
            while not any(worker.alive for worker in WORKERS._all):
                await asyncio.sleep(0.05)
            print(next(iter(WORKERS._all))._process.pid, flush=True)
            await task
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(300):
        if not _alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker is still there")


@pytest.mark.skipif(sys.platform == "win32", reason="not here: signals of POSIX")
def test_a_parent_that_is_gone_before_the_worker_has_started() -> None:
    """It does not take whoever adopted it for its parent, and work for ever."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-I", "-c", _LAUNCH, str(gone.pid), *_paths()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as worker:
        assert worker.stdin is not None
        request = pickle.dumps((ENDLESS[0], ENDLESS[1:]))
        worker.stdin.write(HEAD.pack(len(request)) + request)
        worker.stdin.flush()
        try:
            assert worker.wait(60) == 1
        finally:
            worker.kill()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True

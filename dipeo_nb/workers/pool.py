"""The parent's side: a few processes that are started when they are needed, used again, and killed when nobody waits any more."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from dipeo_nb import errors
from dipeo_nb.common.stepwise_json import LARGE, loads
from dipeo_nb.config import code_environment
from dipeo_nb.errors import DipeoError, NodeExecutionError
from dipeo_nb.workers.child import HEAD, read

AT_ONCE = 4
"""Processes that work at the same time."""
IDLE = 2
"""Processes that are kept for the next request."""
ANSWER_LIMIT = 256 * 1024 * 1024
"""Bytes of an answer."""
_LAUNCH = """
import sys
parent = int(sys.argv[1])
sys.path.extend(sys.argv[2:])
del sys.argv[1:]
from dipeo_nb.workers.child import main
main(parent)
"""


class WorkerPool:
    """Calls functions in processes of their own. Thread-safe, and bound to no event loop.

    A call that is cancelled, or interrupted, kills its process. Functions are named `package.module:function`; arguments are
    pickled, results are what JSON holds. Errors of this package arrive as they were raised.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._room = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    async def call(self, function: str, *arguments: Any) -> Any:
        """The result of *function*.

        Raises:
            DipeoError: as the function raises it; NodeExecutionError: it needed too much memory, or its process died.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        job = _Job(self, function, arguments)

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = job.run()
            except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
                error = raised
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits

        threading.Thread(target=work, name="dipeo-worker", daemon=True).start()
        try:
            return await future
        finally:
            job.cancel()

    def call_here(self, function: str, *arguments: Any, timeout: float | None = None) -> Any:
        """As `call`, blocking; an interruption (Ctrl-C) kills the process.

        Raises:
            TimeoutError: it took longer than *timeout* seconds.
        """
        job = _Job(self, function, arguments)
        timer = None if timeout is None else threading.Timer(timeout, job.cancel)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            return job.run()
        except NodeExecutionError:
            if job.cancelled:
                raise TimeoutError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
            job.cancel()

    def rest(self) -> None:
        """End the processes that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def kill(self) -> None:
        """End all processes."""
        with self._lock:
            workers, self._idle = list(self._all), []
        for worker in workers:
            worker.kill()

    def forget(self) -> None:
        """In a forked process: the processes are the parent's."""
        self.__init__()

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
        worker = _Worker(self._ended)
        with self._lock:
            self._all.add(worker)
        return worker

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if worker.alive and len(self._idle) < IDLE:
                self._idle.append(worker)
                return
        worker.kill()

    def _ended(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)


class _Job:
    """One call."""

    def __init__(self, pool: WorkerPool, function: str, arguments: tuple[Any, ...]) -> None:
        self._pool = pool
        self._call = function, arguments
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self.cancelled = False

    def run(self) -> Any:
        request = pickle.dumps(self._call, protocol=pickle.HIGHEST_PROTOCOL)  # in the thread: there may be much of it
        while not self._pool._room.acquire(timeout=0.1):  # pyright: ignore[reportPrivateUsage]
            if self.cancelled:
                raise NodeExecutionError("The work was cancelled.", hint="Try again.")
        try:
            worker = self._pool._take()  # pyright: ignore[reportPrivateUsage]
            with self._lock:
                self._worker = worker
                if self.cancelled:
                    worker.kill()
            try:
                answer = worker.ask(request)
            except BaseException:
                worker.kill()
                raise
            with self._lock:
                self._worker = None
            self._pool._give_back(worker)  # pyright: ignore[reportPrivateUsage]
        finally:
            self._pool._room.release()  # pyright: ignore[reportPrivateUsage]
        return _result(answer)

    def cancel(self) -> None:
        """Kill the process, if it still works for this call."""
        with self._lock:
            self.cancelled = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


class _Worker:
    """One process."""

    def __init__(self, on_end: Callable[[_Worker], None]) -> None:
        self._on_end = on_end
        self._process = subprocess.Popen(
            # Isolated: no variable, and no file of the working directory, decides what it imports.
            [sys.executable, "-I", "-c", _LAUNCH, str(os.getpid()), *_paths()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=sys.prefix,
            env=code_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the parent's
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes) -> dict[str, Any]:
        """Its answer. Blocks; `kill` from another thread ends that."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(HEAD.pack(len(request)))
            process.stdin.write(request)
            process.stdin.flush()
            answer = read(cast(Any, process.stdout), ANSWER_LIMIT)
        except (OSError, ValueError):  # killed: its pipes are closed
            answer = None
        if answer is None:
            raise NodeExecutionError(
                "The work was ended by the system: it needed too much memory, or the interpreter crashed.",
                hint="Give it less data, or do it in a code_job.",
            )
        return json.loads(answer) if len(answer) <= LARGE else loads(answer.decode())

    def kill(self) -> None:
        """End it. Safe to call twice, from any thread."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None and not pipe.closed:
                    pipe.close()
            except (OSError, RuntimeError):
                pass  # another thread is reading it, and will see its end
        self._on_end(self)


def _paths() -> list[str]:
    """Where the packages of this process are, for one that looks nowhere else."""
    installed = [p for p in sys.path if {"site-packages", "dist-packages"} & set(Path(p).parts)]
    return list(dict.fromkeys([*installed, str(Path(__file__).parents[2])]))


def _result(answer: dict[str, Any]) -> Any:
    if "value" in answer:
        return answer["value"]
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), NodeExecutionError)
        assert issubclass(kind, DipeoError)
        raise kind(answer["message"], hint=answer["hint"], **answer["facts"])
    raise NodeExecutionError(f"The work failed: {answer['failure']}.", hint="Give it less data, or do it in a code_job.")


WORKERS = WorkerPool()
"""The process's own."""
atexit.register(WORKERS.kill)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKERS.forget)

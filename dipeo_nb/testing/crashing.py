"""Runs of a small diagram in processes that are killed at a point of the code (`common.injection`), and their recovery.

`CrashContract` of `dipeo_nb.testing.contracts` uses it to check a run store.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dipeo_nb.common import injection
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.container import build
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.chat import LLMRequest
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import Unanswered
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.runtime import Runtime
from dipeo_nb.testing.models import scripted

PATIENCE_S = 30
"""Seconds that a process gets to reach its point."""
STEPS = ("One", "Two", "Three")
"""Labels of the nodes that call a model."""
WORK: dict[str, Any] = {
    "version": "light",
    "name": "work",
    "persons": {"Ada": {"service": "openai", "model": "m"}},
    "nodes": [
        {"label": "Start", "type": "start"},
        *({"label": step, "type": "person_job", "props": {"person": "Ada", "default_prompt": step}} for step in STEPS),
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [{"from": a, "to": b} for a, b in zip(("Start", *STEPS), (*STEPS, "End"), strict=True)],
}
QUESTION: dict[str, Any] = {
    "version": "light",
    "name": "question",
    "nodes": [
        {"label": "Start", "type": "start"},
        {"label": "Ask", "type": "user_response", "props": {"prompt": "Your name?"}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [{"from": "Start", "to": "Ask"}, {"from": "Ask", "to": "End"}],
}


@dataclass(frozen=True)
class Scene:
    """A run whose processes are killed.

    Args:
        folder: base directory of the runs, and where processes note what they did.
        store: makes an adapter of the run store, on the same content in every process; it crosses processes by pickle.
    """

    folder: Path
    store: Callable[[], RunStore]

    def kill(self, work: str, point: str, visit: int = 1, **given: Any) -> int:
        """Do some work in a new process that is killed when it reaches a point for the *visit*-th time.

        Args:
            work: name of a method of `Work`.
            given: its arguments.

        Returns:
            How the process ended: minus the number of the signal that ended it, or its exit code. It ends by itself when it does
            not reach the point, and by SIGALRM after `PATIENCE_S`.
        """
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        pickle.dump((self, work, point, visit, given), server.stdin)
        server.stdin.flush()
        return int(server.stdout.readline())

    @asynccontextmanager
    async def opened(self, store: RunStore) -> AsyncIterator[Work]:
        """What can be done with the run in this process, on an adapter that is open."""
        settings = Settings(base_dir=self.folder, data_dir=self.folder / "data")
        services = build(settings, store=store, llm=scripted(self._answer), bus=_NotedBus(self))
        async with Runtime(settings, services=services, borrowed={"store"}) as runtime:
            yield Work(self, runtime)

    def noted(self, what: str) -> list[str]:
        """Lines that processes have noted in a file, in order."""
        file = self.folder / what
        return file.read_text().splitlines() if file.exists() else []

    def note(self, what: str, line: str) -> None:
        """Note a line in a file; it is there whatever happens to this process afterwards."""
        with (self.folder / what).open("a") as file:
            file.write(f"{line}\n")

    def _answer(self, request: LLMRequest) -> str:
        node = str(request.context["node"])
        self.note("calls", node)
        return f"{node} is done"


@dataclass(frozen=True)
class Work:
    """What a process does with the run of a scene."""

    scene: Scene
    runtime: Runtime

    async def start(self, diagram: dict[str, Any] = WORK) -> RunState:
        """Run the diagram from its beginning."""
        document = load(diagram, base_dir=self.scene.folder)
        prepared = self.runtime.prepare(document)
        source = document.to_data()
        return await self._run(self.runtime.execution(prepared, source=source, interaction=Unanswered()))

    async def resume(self, run_id: str) -> RunState:
        """Resume a run to its end."""
        recovery = await self.runtime.recover(run_id)
        return await self._run(self.runtime.resumption(recovery, interaction=Unanswered()))

    async def answer(self, run_id: str, text: str) -> None:
        """Answer the question of a run."""
        await self.runtime.answer(run_id, text)

    async def delete(self, run_id: str) -> None:
        """Delete a run."""
        await self.runtime.delete_runs([run_id])

    async def _run(self, execution: Execution) -> RunState:
        self.scene.note("runs", execution.run_id)
        await self.runtime.run(execution)
        return execution.state


class _NotedBus(InMemoryEventBus):
    """Notes the numbers of events when they are published, which is when others may see them."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(apart=True)
        self._scene = scene

    async def publish_batch(self, events: Sequence[Event]) -> None:
        self._scene.note("shown", str(events[-1].seq))
        if any(event.type is EventType.INTERACTIVE_PROMPT for event in events):
            injection.reach("question")
        await super().publish_batch(events)


@cache
def _server() -> subprocess.Popen[bytes]:
    """A process without threads that forks another one for each order: they need not import the package again."""
    code = f"from {__name__} import serve; serve()"
    server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end() -> None:
        server.communicate()

    atexit.register(end)
    return server


def serve() -> None:
    """Perform pickled orders from stdin, each in a process of its own, and write to stdout how each ended."""
    while True:
        try:
            order = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if not (child := os.fork()):
            signal.alarm(PATIENCE_S)
            try:
                _perform(*order)
            except BaseException:  # noqa: BLE001 - reported by the exit code
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _perform(scene: Scene, work: str, point: str, visit: int, given: dict[str, Any]) -> None:
    left = visit

    def hook(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    async def perform() -> None:
        store = scene.store()
        await store.initialize()
        async with scene.opened(store) as doing:
            await getattr(doing, work)(**given)

    injection.hook = hook
    run_sync(perform())


async def until(found: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true result of an async function, or its last one after *seconds*."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (result := await found()) and loop.time() < deadline:  # noqa: ASYNC110 - it is in another process
        await asyncio.sleep(0.05)
    return result

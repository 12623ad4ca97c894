"""What a run store has after a process that used it was killed, at each point where that matters."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dipeo_nb.common import lazy
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.testing.contracts.promises import Contract, NotHereError, promise, same, that

if TYPE_CHECKING:
    from dipeo_nb.testing import crashing
else:
    crashing = lazy.module("dipeo_nb.testing.crashing")  # it brings the engine along

STARTED = {
    f"{point}-{visit}": (point, visit)
    for point, visit in (("run.commit", 1), ("store.append", 2), ("run.stored", 3), ("run.published", 4))
}
"""Case → the point at which a new run is killed, and how many times it was reached then."""
RESUMED = {point: point for point in ("run.claim", "run.claimed", "store.append", "run.published")}
"""Case → the point at which a run is killed while it is resumed."""


class CrashContract(Contract):
    """The promises of a `RunStore` about processes that are killed (`kill -9`): nothing that was shown is lost, nothing that had
    finished runs again, and the run can be resumed.

    A subclass overrides `make`, and `elsewhere`:

        class TestMyStore(CrashContract):
            def make(self):
                return MyStore(self.path)

            def elsewhere(self):
                return functools.partial(MyStore, self.path)
    """

    port: ClassVar[type] = RunStore
    durable: bool = True
    """Whether what is stored outlives the process; otherwise nothing of a killed process may be there."""

    def elsewhere(self) -> Callable[[], RunStore]:
        """Makes an adapter on the content of `make()` in another process; it crosses processes by pickle."""
        raise TypeError(f"{type(self).__name__} has no elsewhere(): it makes an adapter on the same content in another process")

    @promise(cases=STARTED)
    async def test_a_killed_run_can_be_resumed(self, store: RunStore, case: tuple[str, int]) -> None:
        """What was shown is stored, without gaps; the run is interrupted; resumed, it ends as if nothing had happened."""
        point, visit = case
        async with self._scene() as scene:
            self._kill(scene, "start", point, visit)
            await self._recovered(store, scene)

    @promise(cases=RESUMED)
    async def test_a_run_may_be_killed_again_while_it_is_resumed(self, store: RunStore, case: str) -> None:
        """The second recovery knows what the first one did."""
        self._need_durable()
        async with self._scene() as scene:
            self._kill(scene, "start", "run.published", 2)
            run_id = scene.noted("runs")[-1]
            await self._interrupted(store, run_id)
            self._kill(scene, "resume", case, run_id=run_id)
            await self._recovered(store, scene)

    @promise
    async def test_a_given_answer_is_kept(self, store: RunStore) -> None:
        """An answer to an interrupted run reaches it when it is resumed, though the process that gave it was killed."""
        self._need_durable()
        async with self._scene() as scene:
            self._kill(scene, "start", "question", diagram=crashing.QUESTION)
            run_id = scene.noted("runs")[-1]
            await self._interrupted(store, run_id)
            self._kill(scene, "answer", "answer.stored", run_id=run_id, text="Ada")
            async with scene.opened(store) as work:
                state = await work.resume(run_id)
            same(dict(state.outputs), {"End": "Ada"}, "the outputs of a run with that answer")
            same(await store.answers(run_id), {}, "answers that wait, after the run has ended")

    @promise
    async def test_a_deletion_is_whole_or_not_at_all(self, store: RunStore) -> None:
        """A process that is killed while it deletes a run leaves all of it; the run can be deleted afterwards."""
        self._need_durable()
        async with self._scene() as scene:
            async with scene.opened(store) as work:
                state = await work.start()
                events = await store.events(state.run_id)
                self._kill(scene, "delete", "store.delete", run_id=state.run_id)
                same(await store.events(state.run_id), events, "the events of a run whose deletion was cut off")
                await work.delete(state.run_id)
            same(await store.run(state.run_id), None, "a deleted run")

    def _need_durable(self) -> None:
        if not self.durable:
            raise NotHereError("nothing outlives the process")

    @asynccontextmanager
    async def _scene(self) -> AsyncIterator[crashing.Scene]:
        if not hasattr(os, "fork"):
            raise NotHereError("killing a process needs POSIX signals")
        with tempfile.TemporaryDirectory() as folder:
            yield crashing.Scene(Path(folder), self.elsewhere())

    def _kill(self, scene: crashing.Scene, work: str, point: str, visit: int = 1, **given: object) -> None:
        ended = scene.kill(work, point, visit, **given)
        same(ended, -signal.SIGKILL, f"the end of a process that is killed at {point} (visit {visit}) of {work}")

    async def _interrupted(self, store: RunStore, run_id: str) -> RunSummary:
        """The row of a run whose process has just been killed."""

        async def found() -> RunSummary | None:
            row = await store.run(run_id)
            return row if row is not None and row.status != Status.RUNNING else None

        row = await crashing.until(found)
        that(row is not None, "a run whose process was killed is still running, or not there, after 10 s")
        return row

    async def _recovered(self, store: RunStore, scene: crashing.Scene) -> None:
        """Check what is left of a run, resume it, and check how it ended."""
        run_id = scene.noted("runs")[-1]
        shown = max(map(int, scene.noted("shown")), default=0)
        events = await store.events(run_id)
        same([event.seq for event in events], [*range(1, len(events) + 1)], "the numbers of the events that are left")
        if not self.durable:
            same(events, [], "events of a process that is gone")
            return
        that(len(events) >= shown, f"event {shown} was shown, and only {len(events)} are stored")
        if not events:
            return  # killed before anything was stored, so nothing was shown
        row = await self._interrupted(store, run_id)
        same(row.events, len(events), "the number of events in the row of the run")
        finished = _finished(events)
        if row.status != Status.COMPLETED:
            async with scene.opened(store) as work:
                state = await work.resume(run_id)
            same(str(state.status), "completed", "the status of a resumed run")
            same(dict(state.outputs), {"End": f"{crashing.STEPS[-1]} is done"}, "the outputs of a resumed run")
        calls = scene.noted("calls")
        for step in crashing.STEPS:
            that(step in calls, f"{step} has never called its model")
            that(step not in finished or calls.count(step) == 1, f"{step} had finished, and ran again: {calls}")


def _finished(events: list[Event]) -> set[str]:
    """Labels of the nodes that have completed, by the record."""
    labels = events[0].started.get("labels", {})
    finished = (event.node_id or "" for event in events if event.type is EventType.NODE_COMPLETED)
    return {labels[node_id] for node_id in finished if node_id in labels}

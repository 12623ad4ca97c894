"""The runs that a server is executing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.enums import Status
from dipeo_nb.errors import DipeoError, UserError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.run_state import RunState, interrupted
from dipeo_nb.execution.snapshots import recorded_state
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.responses import unknown_run

_LOG = logger(__name__)


class GoingRuns:
    """Begins runs in the background, and knows them until they have ended."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._going: dict[str, Execution] = {}
        self._before: dict[str, int] = {}
        """Events that each of them had when it was begun here: those that a process recorded which has ended."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    def get(self, run_id: str) -> Execution | None:
        """The run, if it is executing here."""
        return self._going.get(run_id)

    def check_open(self) -> None:
        """Raise UserError when the server is shutting down."""
        if self._ending:
            raise UserError(
                "The server is shutting down; it starts no more runs.", hint="Start the server again.", cause="ending"
            )

    def begin(self, execution: Execution) -> None:
        """Run it in the background. Raises as `check_open`."""
        self.check_open()
        self._going[execution.run_id], self._before[execution.run_id] = execution, execution.journal.seq
        task = asyncio.get_running_loop().create_task(self._carried_out(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def recorded(self, run_id: str) -> None:
        """Wait until it is recorded that a run which is executing here has begun, or continues.

        Until then its record has no diagram, or the end of an earlier process, which nobody must take for the end of this run.
        """
        execution = self._going.get(run_id)
        if execution is not None and execution.state.events <= (before := self._before[run_id]):
            async with aclosing(self.runtime.router.events(run_id, after=before)) as events:
                await anext(events, None)

    async def state(self, run_id: str) -> RunState:
        """What is known of a run, also of one that is not executing here. Raises UserError when there is none."""
        await self.recorded(run_id)
        if (execution := self._going.get(run_id)) is not None:
            return execution.state
        store = self.runtime.services.store
        summary = await store.run(run_id)
        if summary is None:
            raise unknown_run(run_id)
        state = await recorded_state(store, run_id)
        return interrupted(state) if summary.status == Status.INTERRUPTED else state

    async def end(self, reason: str) -> None:
        """Stop the runs; from then on none is begun."""
        self._ending = True
        for execution in list(self._going.values()):
            execution.stop(reason)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carried_out(self, execution: Execution) -> None:
        try:
            await self.runtime.run(execution)
        except DipeoError as error:
            _LOG.error("Run %s: %s", execution.run_id, error)
        finally:
            self._going.pop(execution.run_id, None)
            self._before.pop(execution.run_id, None)

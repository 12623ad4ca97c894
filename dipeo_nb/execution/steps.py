"""The loop of a run: what is ready begins, what comes of it is recorded and lets others begin, until nothing is left.

Most nodes of most diagrams are done at once, and of those a step takes little more time than what happens here, in `RunProgress`, in
`Journal.commit` and in the scheduler. So these are written for speed: what is the same in every run of a node is worked out once,
and nothing is made that nobody has asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from dipeo_nb.common.aio import DONE
from dipeo_nb.common.recordable import is_recordable
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import UnsupportedValueError
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.execution import handlers, record, schedule
from dipeo_nb.execution.background import Background
from dipeo_nb.execution.code_state import EMPTY
from dipeo_nb.execution.context import NodeContext, RunScope
from dipeo_nb.execution.control import RunControl
from dipeo_nb.execution.inputs import Inputs, Output, settled
from dipeo_nb.execution.node_runner import NodeRunner
from dipeo_nb.execution.progress import goes_on
from dipeo_nb.execution.recovery import Recovered
from dipeo_nb.execution.run_errors import as_run_error, deadlock, endless

NODE_STARTED, NODE_COMPLETED = EventType.NODE_STARTED, EventType.NODE_COMPLETED
MOST_DEFERRED = 64
"""Events that wait for a commit at most while nothing but the work of pure nodes comes of them."""
INLINE_BURST = 64
"""Synchronous handlers run in a row before other work on the loop gets its turn, …"""
TURN_S = 0.005
"""… unless they have taken so many seconds before that."""


class Steps:
    """The work of one run, on the library's loop thread.

    Args:
        scope: the run, whose progress and journal are made.
        control: says whether it is to end before its time.
        labels: of each node, without secrets.
    """

    def __init__(self, scope: RunScope, control: RunControl, labels: Sequence[str]) -> None:
        self._scope, self._control = scope, control
        self._plan, self._progress, self._journal = scope.plan, scope.progress, scope.journal
        self._monotonic = scope.services.clock.monotonic
        self._runner = NodeRunner(scope)
        arrows = [edge.label for edge in scope.plan.edges if edge.label]
        self._labels = labels
        self._secretive = labels != [node.label for node in scope.plan.nodes] or redactor(arrows) is not arrows
        """Whether a label holds a secret; else what only names nodes and arrows need not be looked through each time."""
        own = scope.options.instead is None
        pure = {node_type: own and handlers.is_pure(node_type) for node_type in scope.plan.types}
        self._pure: list[bool] = [pure[node.type] for node in scope.plan.nodes]
        self._costly = False
        """Whether the end of work that took time waits for a commit: it is stored before anything else is done."""
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unfinished: dict[int, Coroutine[Any, Any, Output]] = {}
        """The work of those tasks."""
        self._background = Background(self._background_ended)
        self._halted = False
        """Whether the nodes at work are cancelled."""
        self._wakeup = asyncio.Event()

    def wake(self) -> None:
        """Something happened that the loop has to look at."""
        self._wakeup.set()

    def cancel(self) -> None:
        """Cancel the nodes at work. Once only: a second cancellation would interrupt what a node does about the first."""
        if not self._halted:
            self._halted = True
            for task in (*self._running.values(), *self._background.tasks):
                task.cancel()

    async def ended(self) -> None:
        """Wait until no node is at work."""
        if tasks := [*self._running.values(), *self._background.tasks]:
            await asyncio.gather(*tasks, return_exceptions=True)
        for work in self._unfinished.values():  # of tasks that were cancelled before their first step, which await nothing
            work.close()

    async def run(self, recovered: Recovered | None) -> None:
        """Go on until the run is finished, has failed or is to end.

        Raises:
            StorageError: what happened cannot be recorded.
        """
        progress, control, journal = self._progress, self._control, self._journal
        if recovered is None:
            progress.begin()
        else:
            self._note(recovered.notices)
            self._resume_background()
        scope, nodes, running, parallelism = self._scope, self._plan.nodes, self._running, self._scope.options.parallelism
        ticks, ready, monotonic, begin_work = progress.ticks, progress.ready, self._monotonic, self._runner.begin
        pure = self._pure
        burst, turn = 0, monotonic()
        while True:
            while ticks and control.failure is None:
                if notices := progress.advance():
                    self._note(notices)
            if journal.failure is not None:
                raise journal.failure
            if control.failure is not None:
                return
            if progress.finish is not None:
                await self._end_of_background()
                return

            # The start of every node there is room for is recorded, …
            starting: list[tuple[PlanNode, int, Inputs, int]] = []
            effects = False
            room = parallelism - len(running)
            while ready and room > 0:
                command, inputs, attempt = progress.start()
                node, run = nodes[command[0]], command[1]
                payload = record.node_started(node, run, inputs, attempt)
                journal.note(NODE_STARTED, node.id, redactor(payload) if self._secretive else payload)
                starting.append((node, run, inputs, attempt or 1))
                if not pure[command[0]]:
                    effects = True
                room -= 1
            deferred = not (effects or self._costly) and bool(starting) and len(journal.pending) < MOST_DEFERRED
            if not deferred and journal.pending:
                self._costly = False
                if (rest := journal.commit(show_later=True)) is not DONE:
                    await rest

            # … and then its work begins; where that has no effects, start and end are recorded together. Most is done at once; other work
            # on the loop has its turn after some of that.
            for node, run, inputs, attempt in starting:
                if self._halted:
                    break
                context = NodeContext(scope, node, run, inputs, attempt)
                begin = monotonic()
                try:
                    result = begin_work(context)
                except Exception as error:  # noqa: BLE001 - whatever a handler raises is the node's failure
                    self._failed(context, error, begin)
                    continue
                if not isinstance(result, Output):
                    if deferred:  # this takes longer
                        self._unfinished[node.index] = result
                        if (rest := journal.commit()) is not DONE:
                            await rest
                        if self._halted:
                            break
                    self._go_on(context, result)
                    continue
                self._succeeded(context, result, begin)
                burst += 1
                if burst >= INLINE_BURST or begin - turn > TURN_S:
                    if (rest := journal.publish()) is not DONE:
                        await rest
                    await asyncio.sleep(0)
                    burst, turn = 0, monotonic()

            if not ticks and control.failure is None and journal.failure is None:
                for node, run in progress.newly_waiting():
                    journal.emit(EventType.NODE_WAITING, node.id, record.node_waiting(node, run))
                    journal.flush_soon()
                self._wakeup.clear()  # before anything is awaited: what happens meanwhile wakes it
                if (rest := journal.publish()) is not DONE:
                    await rest
                await self._wakeup.wait()
                burst, turn = 0, monotonic()

    def _note(self, commands: Iterable[schedule.Command]) -> None:
        """Record what the scheduler commands, as far as it says more than which node is ready."""
        for command in commands:
            match command:
                case schedule.RunNode():
                    if error := self._progress.lacking(command):
                        self._control.fail(error)
                case schedule.PassOn(node=index, run=run):
                    node = self._plan.nodes[index]
                    self._journal.emit(NODE_COMPLETED, node.id, record.node_passed_on(node, run))
                case schedule.Exhausted(node=index, visits=visits):
                    self._control.fail(endless(self._plan, self._plan.nodes[index], visits, self._scope.run_id))
                case schedule.Finish():
                    if command.blocked:
                        self._control.fail(deadlock(self._plan, command, self._scope.run_id))

    # The work of a node.

    def _go_on(self, context: NodeContext, work: Coroutine[Any, Any, Output]) -> None:
        """Let work that was begun come to its end."""
        index = context.node.index
        self._unfinished[index] = work
        self._running[index] = asyncio.get_running_loop().create_task(self._finish(context, work))

    async def _finish(self, context: NodeContext, work: Coroutine[Any, Any, Output]) -> None:
        begin = self._monotonic()
        try:
            output = await self._runner.finish(context, work)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the node's failure
            self._failed(context, error, begin)
        else:
            self._succeeded(context, output, begin)
        finally:
            self._costly = True
            index = context.node.index
            self._running.pop(index, None)
            self._unfinished.pop(index, None)
            work.close()
            self._wakeup.set()

    def _succeeded(self, context: NodeContext, output: Output, begin: float) -> None:
        node, run, progress, journal = context.node, context.run, self._progress, self._journal
        meta = output[3]  # by number, as this is a part of every step
        clean = output[1] is None and is_recordable(output[0]) and (not meta or is_recordable(meta))
        if not clean:
            try:
                output = settled(output)
            except UnsupportedValueError as error:
                self._failed(context, error, begin)
                return
        duration_ms = (self._monotonic() - begin) * 1000
        payload = record.node_completed(
            self._labels[node.index], node.type, run, output, duration_ms, context.published, clean=clean
        )
        progress.complete(node, run, output, context.assigned if progress.shares_code else EMPTY)
        if node.id in journal.texts.known:
            journal.end_streams(node.id)
        journal.note(NODE_COMPLETED, node.id, payload)

    def _failed(self, context: NodeContext, error: Exception, begin: float) -> None:
        node, run = context.node, context.run
        ours = as_run_error(error, node)
        redactor.error(ours)
        self._journal.end_streams(node.id)
        handled = goes_on(self._plan, node)
        described = record.error_info(ours, node)
        duration_ms, spent = (self._monotonic() - begin) * 1000, context.spent()
        payload = record.node_failed(node, run, described, duration_ms, handled=handled, spent=spent)
        self._journal.emit(EventType.NODE_ERROR, node.id, payload)
        self._progress.fail(node, run, described, context.assigned, handled=handled)
        if not handled:
            self._control.fail(ours)

    # Work that no node waits for, but the end of the run does.

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin such work."""
        self._background.add(work)

    def _resume_background(self) -> None:
        """What nodes had begun that had finished already, and what may have been cut off with the run."""
        for index, run in self._progress.begun.children:
            node = self._plan.nodes[index]
            finished = self._progress.completed_runs(node) >= run
            if finished and (work := handlers.resumed(NodeContext(self._scope, node, run, Inputs()))) is not None:
                self.in_background(work)

    def _background_ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._control.fail(as_run_error(error, None))
        self._wakeup.set()

    async def _end_of_background(self) -> None:
        while self._background.tasks and self._control.failure is None:
            self._wakeup.clear()
            await self._wakeup.wait()
            await self._journal.commit()

"""The engine: carries out what the scheduler commands, and writes down what happened.

One `Execution` is one run. It lives on the library's loop thread. Order of every round:

    ticks ──Scheduler.step──▶ commands ──▶ events ──store.append (commit)──▶ RunState, EventBus ──▶ handlers start

so nothing is shown, and no handler starts, before it was written. A finished node's result and the start of its
successors are one commit. Token deltas are written in batches (`delta_ticks`). The rounds themselves are `execution.steps`.

Secrets are taken out before anything is written (`common.scrub.redactor`), so they reach neither store nor view nor bus.
Handlers hand each other the real values.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.diagram import DomainPerson
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import CodeRunner, RunGate, Services
from dipeo_nb.errors import DipeoError, RunAbortedError, RunInterruptedError
from dipeo_nb.execution import live, log_capture, prerequisites, record
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.control import RunControl
from dipeo_nb.execution.conversation import ConversationLog
from dipeo_nb.execution.external_events import Signal, Signals
from dipeo_nb.execution.inputs import run_inputs
from dipeo_nb.execution.journal import Journal, Timeline
from dipeo_nb.execution.persons import Persons
from dipeo_nb.execution.progress import RunProgress
from dipeo_nb.execution.questions import Questions
from dipeo_nb.execution.recovery import Recovered, begun
from dipeo_nb.execution.run_errors import as_run_error, describe
from dipeo_nb.execution.run_options import RunOptions
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.steps import Steps

BEAT_S = 20.0
"""Seconds between two heartbeats."""


class Execution:
    """One run of a plan. Create it anywhere; `run` it on the loop thread.

    Args:
        gate: what the run may do, and the services to do it with.
        recovered: continue from there, under the same id: the run was cut off.
        parent: the run that this one is part of, and the node of it that runs this one as its sub-diagram.
        log: the conversation to take part in; default: one of its own.
        run_id: default: a new one.

    Raises:
        ValidationError: an input of the run has no form as a value.
    """

    def __init__(
        self,
        plan: Plan,
        gate: RunGate,
        options: RunOptions | None = None,
        *,
        recovered: Recovered | None = None,
        parent: NodeContext | None = None,
        log: ConversationLog | None = None,
        run_id: str | None = None,
    ) -> None:
        self.plan = plan
        self.gate = gate
        self.services: Services = gate.services
        services = self.services
        options = options or RunOptions()
        self.options: RunOptions = replace(options, variables=run_inputs(options.variables)) if options.variables else options
        self.parent = parent
        self.run_id: str = recovered.run_id if recovered else run_id or services.clock.new_id("exec_")
        self.error: DipeoError | None = None
        """Why the run failed, as it can be raised."""
        self._monotonic = services.clock.monotonic
        self._recovered = recovered
        self.progress: RunProgress = begun(plan, self.options, recovered, log)
        labels: list[str] = redactor([node.label for node in plan.nodes])
        self.journal: Journal = Journal(
            services,
            RunState.fresh(self.run_id, plan.name, {node.id: label for node, label in zip(plan.nodes, labels, strict=True)}),
            Timeline(
                services.clock,
                not_before=recovered.at if recovered else 0.0,
                parent=parent.execution.journal.timeline if parent else None,
            ),
            seq=recovered.seq if recovered else 0,
            interval=self.options.delta_interval,
            sign=gate.sign,
            on_failure=lambda: self._steps.wake(),
        )
        self.journal.begin(self.progress, recovered)
        self.questions: Questions = Questions(
            services.store,
            self.run_id,
            self.options.interaction,
            self.journal,
            before=recovered.asked if recovered is not None else None,
            elsewhere=parent is None,
        )
        self.signals: Signals = Signals() if parent is None else parent.execution.signals
        """Events from outside."""
        self._control = RunControl(self.run_id, on_halt=self._halt, hurry=self.journal.hurry)
        self._steps = Steps(self, self._control, labels)
        self._begin = 0.0
        """When `run` began, on the monotonic clock."""
        self._hears = False
        self._code: CodeRunner | None = None
        self.person_labels: Mapping[str, str] = {person.id: person.label for person in plan.persons.values()}
        """By id: made once, as each turn of a person asks for them."""
        self._persons = Persons(plan.persons, self.options, services.llm, functools.partial(self.emit_log, None, "INFO"))

    @property
    def state(self) -> RunState:
        """What is written so far, as a fold; changes while the run continues."""
        return self.journal.state

    @property
    def tail(self) -> list[Event]:
        """Events that are in memory only, since the run store cannot be written any more."""
        return self.journal.tail

    def now(self) -> float:
        """Seconds since the epoch on the timeline of the run, which never goes backwards."""
        return self.journal.timeline.now()

    def result(self) -> Any:
        """What the run gave; see `RunProgress.result`."""
        return self.progress.result()

    # From any thread.

    def stop(self, reason: str = "stopped by the user") -> None:
        """Abort the run; what is finished stays recorded. Safe from any thread and to call twice."""
        self._control.stop(reason)

    def answer(self, request_id: str, text: str) -> None:
        """Answer a waiting user_response node. Any thread; the first answer counts.

        Raises:
            RunError: no such question waits, or not any more.
        """
        self.questions.answer(request_id, text)

    def signal(self, name: str, payload: Mapping[str, Any]) -> None:
        """Tell the run of an event from outside. Any thread; also before it waits for it."""
        signal = Signal(name, dict(payload))
        if not self._control.elsewhere(self.signals.deliver, signal):
            self.signals.deliver(signal)

    def hear(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record what code of a node has logged, as the payload of an `execution_log` event; too late, and it is ignored. Any
        thread."""
        if self._control.begun and not self._control.elsewhere(self.hear, node, payload) and self._hears:
            self.journal.emit(EventType.EXECUTION_LOG, node.id, payload)
            self.journal.flush_soon()

    def emit_log(self, node: PlanNode | None, level: str, message: str, **extra: Any) -> None:
        """Record a log line of the run. Any thread; too late, and it is ignored."""
        if self._control.elsewhere(functools.partial(self.emit_log, **extra), node, level, message):
            return
        line = record.log_line(level, redactor.text(message), extra)
        self.journal.emit(EventType.EXECUTION_LOG, node.id if node else None, line)

    def emit_delta(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record a piece of output; it is committed and shown within `delta_interval`. Any thread; too late, and it is ignored."""
        if not self._control.elsewhere(self.emit_delta, node, payload):
            self.journal.emit_delta(node.id, payload)

    # For handlers, on the loop thread.

    async def record(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record a piece of output now: when this returns it is stored."""
        self.journal.emit(EventType.NODE_OUTPUT, node.id, payload)
        await self.journal.flush()

    def person(self, reference: str) -> DomainPerson:
        """A person with its model settled; see `Persons.person`."""
        return self._persons.person(reference)

    @property
    def code(self) -> CodeRunner:
        """The run's code runner, made on first use and killed when the run ends."""
        if self._code is None:
            self._code = self.services.code()
        return self._code

    def spawn(self, plan: Plan, gate: RunGate, options: RunOptions, **more: Any) -> Execution:
        """A run that is part of this one, not started; arguments as for `Execution`."""
        return Execution(plan, gate, options, **more)

    async def ask(self, node: PlanNode, prompt: str, **options: Any) -> tuple[str, str]:
        """Put a question to the user; see `Questions.ask`."""
        return await self.questions.ask(node, prompt, **options)

    async def wait_for(self, node: PlanNode, name: str, filters: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """What the next event from outside brings that has this name and, at each path of *filters*, that value.

        Raises:
            NodeTimeoutError: there is none within *timeout* seconds.
        """
        self.emit_log(node, "INFO", f"'{node.label}' waits for the event '{name}'.", waits_for=name, timeout=timeout)
        await self.journal.flush()
        return dict((await self.signals.within(timeout, name, filters, node=node.label)).payload)

    # The life of the run.

    async def run(self) -> RunState:
        """Run to the end and return the final state. A failed or aborted run is a state, not an exception.

        A caller that is cancelled while it waits stops the run, and is released when the end is recorded.

        Raises:
            StorageError: the end cannot be recorded; the state tells it nevertheless.
        """
        loop = self._control.enter()
        live.enter(self.services.store, self.run_id, self, instead_of=self._recovered)
        self._begin = self._monotonic()
        resumed = None if self._recovered is None else self._recovered.seq
        started = record.run_started(self.plan, self.options, self.gate, resumed=resumed)
        self.journal.emit(EventType.EXECUTION_STARTED, None, started)
        work = loop.create_task(self._whole(loop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.stop("cancelled")
            await uncancelled(asyncio.gather(work, return_exceptions=True))
            raise

    async def _whole(self, loop: asyncio.AbstractEventLoop) -> RunState:
        control = self._control
        log_capture.enter(log_capture.NOWHERE)  # until a node is at work; the run may be part of a node's
        timer: asyncio.TimerHandle | None = None
        beating = loop.create_task(control.beat(self.services.store, BEAT_S, lambda: self.journal.unrecorded is None))
        with log_capture.listening():
            try:
                control.open()
                timer = loop.call_later(self.options.timeout, control.out_of_time, self.options.timeout)
                await self.journal.commit()
                self.journal.opened()
                self._hears = True
                control.look()
                await prerequisites.check(self.plan, self.services, self.options, new=self._recovered is None)
                await self._steps.run(self._recovered)
            except asyncio.CancelledError:  # the loop is being closed
                control.open()
                control.abort()
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has an end
                control.fail(as_run_error(error, None))
            control.close()
            await self._end_of_work()
            self._hears = False
            try:
                await self._write_end()
            finally:
                if timer is not None:
                    timer.cancel()
                beating.cancel()
                live.leave(self.services.store, self.run_id, self)
        return self.state

    def _halt(self) -> None:
        self._steps.cancel()
        self._steps.wake()

    # Work that no node waits for, but the end of the run does.

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin such work."""
        self._steps.in_background(work)

    # The end.

    async def _end_of_work(self) -> None:
        """Stop what still runs: no task, no process stays behind."""
        await self.journal.publish()
        self._steps.cancel()
        await self._steps.ended()
        await self.journal.quiesce()
        if self._code is not None:
            try:
                await self._code.cleanup()
            except Exception as error:  # noqa: BLE001 - the end is recorded nevertheless
                self._control.fail(as_run_error(error, None))

    async def _write_end(self) -> None:
        """Record the end. When the store refuses, the run has failed, and as much of its end is recorded as can be."""
        self._emit_end()
        try:
            return await self.journal.commit()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has an end
            failure = as_run_error(error, None)
        self._control.fail(failure)
        try:
            if not self.journal.pending:
                raise failure  # stored, and yet it went wrong
            self.journal.withdraw_last()
            self._emit_end()
            await self.journal.salvage()
        except Exception as error:  # noqa: BLE001 - as above
            ours = as_run_error(error, None)
            ours.run_id = self.run_id  # type: ignore[attr-defined]
            self.error = ours
            self.state.fail(describe(ours, None), self.now())
            raise ours from error.__cause__

    def _emit_end(self) -> None:
        duration = self.progress.worked_ms + (self._monotonic() - self._begin) * 1000
        statuses = self.progress.statuses()
        failure = self._control.failure
        if failure is None:
            self.journal.emit_last(EventType.EXECUTION_COMPLETED, record.run_completed(duration, statuses))
            return
        self.error = failure
        redactor.error(failure)
        status = Status.FAILED
        if isinstance(failure, RunAbortedError):
            status = Status.INTERRUPTED if isinstance(failure, RunInterruptedError) else Status.ABORTED
            statuses |= {self.plan.nodes[i].id: str(status) for i in self.progress.working}
        self.journal.emit_last(EventType.EXECUTION_ERROR, record.run_failed(failure, status, duration, statuses))

"""The engine: carries out what the scheduler commands, and writes down what happened.

One `Execution` is one run. It lives on the library's loop thread. Order of every round:

    ticks ──schedule.step──▶ commands ──▶ events ──store.append (commit)──▶ RunState, EventBus ──▶ handlers start

so nothing is shown, and no handler starts, before it was written. A finished node's result and the start of its
successors are one commit. Token deltas are written in batches, at most every `delta_interval` seconds.

Secrets are taken out before anything is written (`common.scrub.redactor`), so they reach neither store nor view nor bus.
Handlers hand each other the real values.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from dipeo_nb.common import user_code
from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.loop import closing
from dipeo_nb.common.scrub import logger, redactor
from dipeo_nb.common.values import UnsupportedValueError, well_formed
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import InteractiveResponse
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import CodeRunner, Question, RunGate
from dipeo_nb.errors import (
    BudgetExceededError,
    DipeoError,
    NodeExecutionError,
    NodeTimeoutError,
    RunAbortedError,
    RunInterruptedError,
    RunTimeoutError,
)
from dipeo_nb.execution import code_state, handlers, live, record, run_log, schedule
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.failures import as_run_error, deadlock, describe, endless
from dipeo_nb.execution.fold import RunState, Spent
from dipeo_nb.execution.handlers import sub_diagram
from dipeo_nb.execution.inputs import Inputs, Output, run_inputs, settled
from dipeo_nb.execution.journal import Journal, Timeline
from dipeo_nb.execution.memory import ConversationLog, as_record
from dipeo_nb.execution.questions import Questions
from dipeo_nb.execution.recovery import (
    Recovered,
    error_output,
    gathered,
    goes_on,
    message_of,
    needs_lost,
    output_of,
    published,
)
from dipeo_nb.execution.recovery import Run as NodeRun
from dipeo_nb.execution.run_options import RunOptions
from dipeo_nb.execution.signals import Signal, Signals
from dipeo_nb.execution.state.memory import taken_over

LONGEST_RETRY_S = 60.0
BEAT_S = 20.0
"""Seconds between two heartbeats."""
_LOG = logger(__name__)
INLINE_BURST = 64
"""Synchronous handlers run in a row before other work on the loop gets its turn."""


class Execution:
    """One run of a plan. Create it anywhere; `run` it on the loop thread.

    Args:
        gate: what the run may do, and the services to do it with.
        recovered: go on from there, under the same id: the run was cut off.
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
        self.services = services = gate.services
        options = options or RunOptions()
        self.options = replace(options, variables=run_inputs(options.variables)) if options.variables else options
        self.parent = parent
        self.run_id = recovered.run_id if recovered else run_id or services.clock.new_id("exec_")
        self._monotonic = services.clock.monotonic
        names = [*(n.label for n in plan.nodes), *(e.label or "" for e in plan.edges)]
        self._secretive = redactor(names) is not names
        """Whether a label holds a secret; else what only names nodes and arrows need not be looked through each time."""
        self.state = RunState.fresh(self.run_id, plan.name, {n.id: redactor(n.label) for n in plan.nodes})
        """What is written so far, as a fold; changes while the run goes on."""
        self.journal = Journal(
            services,
            self.state,
            Timeline(
                services.clock,
                not_before=recovered.events[-1].occurred_at if recovered else 0.0,
                parent=parent.execution.journal.timeline if parent else None,
            ),
            seq=recovered.seq if recovered else 0,
            interval=self.options.delta_interval,
            sign=gate.sign,
            on_failure=self._wake,
        )
        self.log = ConversationLog() if log is None else log
        self.error: DipeoError | None = None
        """Why the run failed, as it can be raised."""
        self.variables: dict[str, Any] = dict(self.options.variables)
        """Global variables: start data under run inputs, then what nodes publish."""
        self._shares_code = code_state.any_shares(plan)
        self._moved: set[str] = set()
        """Persons whose own options were left out, which was said."""
        self._assigned: dict[int, code_state.View] = {}
        """What code had assigned when a node last finished or passed its output on, by node; empty without such code."""
        self._scheduler = schedule.initial()
        self._ticks: deque[schedule.Tick] = deque()
        self._ready: deque[tuple[schedule.RunNode, Inputs]] = deque()
        self._outputs: dict[int, dict[int, Output]] = {}
        self._completed: dict[int, int] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wakeup: asyncio.Event = asyncio.Event()
        self._finish: schedule.Finish | None = None
        self._failure: DipeoError | None = None
        self._begin = 0.0
        """When `run` began, on the monotonic clock."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._hears = False
        self._stop_reason: str | None = None
        self._stoppable = False
        """True while nodes work. A second stop, or one that comes when the end is being written, changes nothing."""
        self._halted = False
        """Whether the run ends before its time, and the nodes at work are cancelled."""
        self._guard = threading.Lock()
        self.questions = Questions(
            services.store,
            self.run_id,
            self.options.interaction,
            before=recovered.events if recovered is not None else (),
            elsewhere=parent is None,
        )
        self.signals: Signals = Signals() if parent is None else parent.execution.signals
        """Events from outside."""
        self._code: CodeRunner | None = None
        self._maxed: set[int] = set()
        self._nodes_failed: set[int] = set()
        self._working: set[int] = set()
        self._starting: list[tuple[schedule.RunNode, Inputs]] = []
        self._attempts: dict[NodeRun, int] = {}
        self.children: dict[NodeRun, dict[int, str]] = {}
        """Runs of sub-diagrams begun so far, by node run and item."""
        self.items: dict[NodeRun, dict[int, Mapping[str, Any]]] = {}
        """What finished items of batches gave."""
        self.charged: dict[NodeRun, dict[str, Spent]] = {}
        """What nodes were charged for their runs of sub-diagrams, by run id."""
        self._background: set[asyncio.Task[None]] = set()
        self._renamed: dict[str, str] = {}
        """Ids of messages that were taken over from the log of another run → theirs here."""
        self._lost: Collection[NodeRun] = ()
        """Outputs of the time before the run was cut off that held secrets, and so are not known any more."""
        self._worked_ms = 0.0
        self._latest: NodeRun | None = None
        """The run of a node that finished last."""
        self._recovered = recovered
        if recovered is not None:
            self._adopt(recovered)

    def _adopt(self, recovered: Recovered) -> None:
        """Take over what a log tells."""
        self._scheduler = recovered.scheduler
        self._ready.extend(recovered.ready)
        self._outputs, self._completed = recovered.outputs, recovered.completed
        self.variables, self._assigned = recovered.variables, recovered.assigned
        self._maxed, self._nodes_failed = recovered.passed, recovered.failed
        self._attempts, self.children = dict(recovered.attempts), recovered.children
        self.items, self.charged = recovered.items, recovered.charged
        self._lost = recovered.lost
        self._worked_ms, self._latest = recovered.worked_ms, recovered.latest
        for message in recovered.log.messages:
            self.log.restore(message)
        for event in recovered.events:
            self.state.apply(event)
        self.state.questions.clear()  # they were asked in a process that is gone; their nodes ask anew

    @property
    def tail(self) -> list[Event]:
        """Events that are in memory only, since the run store cannot be written any more."""
        return self.journal.tail

    def now(self) -> float:
        """Seconds since the epoch on the timeline of the run, which never goes backwards."""
        return self.journal.timeline.now()

    # From any thread.

    def stop(self, reason: str = "stopped by the user") -> None:
        """Abort the run; what is finished stays recorded. Safe from any thread and to call twice."""
        with self._guard:
            if self._stop_reason is None:
                self._stop_reason = reason
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._abort)

    def answer(self, request_id: str, text: str) -> None:
        """Answer a waiting user_response node. Any thread; the first answer counts.

        Raises:
            RunError: no such question waits, or not any more.
        """
        self.questions.answer(request_id, text)

    def hear(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record what code of a node has logged, as the payload of an `execution_log` event; too late, and it is ignored. Any
        thread."""
        if self._loop is not None and not self._elsewhere(self.hear, node, payload) and self._hears:
            self._emit(EventType.EXECUTION_LOG, node.id, payload)
            self.journal.flush_soon()

    def _elsewhere(self, method: Callable[..., None], *args: Any) -> bool:
        """Whether this is not the thread of the run's loop; then the method is called there."""
        if self._loop is None or threading.get_ident() == self._thread:
            return False
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(method, *args)
        return True

    def signal(self, name: str, payload: Mapping[str, Any]) -> None:
        """Tell the run of an event from outside. Any thread; also before it waits for it."""
        told = Signal(name, dict(payload))
        if self._loop is None:
            self.signals.give(told)
        else:
            self._loop.call_soon_threadsafe(self.signals.give, told)

    # On the loop thread.

    def _abort(self) -> None:
        if closing() and self._stop_reason in (None, "cancelled"):
            self._halt(
                RunInterruptedError(
                    "The run was cut off: its process ended.",
                    hint=f"Go on with it: dp.resume('{self.run_id}'), or dipeo-nb resume {self.run_id}.",
                    run_id=self.run_id,
                )
            )
        else:
            self._halt(RunAbortedError(f"The run was aborted: {self._stop_reason or 'cancelled'}.", run_id=self.run_id))

    def _out_of_time(self) -> None:
        self._halt(
            RunTimeoutError(
                f"The run took longer than its limit of {self.options.timeout:g} s.",
                hint="Raise it with timeout= (--timeout, DIPEO_EXECUTION_TIMEOUT).",
                run_id=self.run_id,
            )
        )

    def _halt(self, failure: DipeoError) -> None:
        """End the run before its time. Its loop is not cancelled, which may be committing; the nodes at work are."""
        if self._stoppable:
            self._stoppable = False
            self._fail(failure)
            self._cancel_work()
            self._wake()
        self.journal.hurry()  # also when only the end is left to be recorded, or shown

    def _fail(self, failure: DipeoError) -> None:
        """Why the run fails; what comes first counts."""
        if self._failure is None:
            self._failure = failure

    def _wake(self) -> None:
        self._wakeup.set()

    def _cancel_work(self) -> None:
        """Once only: a second cancellation would interrupt what a node does about the first."""
        if not self._halted:
            self._halted = True
            for task in (*self._running.values(), *self._background):
                task.cancel()

    async def run(self) -> RunState:
        """Run to the end and return the final state. A failed or aborted run is a state, not an exception.

        Whoever is cancelled while it waits stops the run, and learns it when the end is recorded.

        Raises:
            StorageError: the end cannot be recorded; the state tells it nevertheless.
        """
        with self._guard:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        live.enter(self.services.store, self.run_id, self, instead_of=self._recovered)
        self._begin = self._monotonic()
        self._emit(EventType.EXECUTION_STARTED, None, record.run_started(self.plan, self.options, self.gate, resumed=self._recovered and self._recovered.seq))
        work = self._loop.create_task(self._carried_out(self._loop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.stop("cancelled")
            await uncancelled(asyncio.gather(work, return_exceptions=True))
            raise

    async def _carried_out(self, loop: asyncio.AbstractEventLoop) -> RunState:
        timer: asyncio.TimerHandle | None = None
        beating = loop.create_task(self._beat())
        with run_log.listening():
            try:
                self._stoppable = True
                timer = loop.call_later(self.options.timeout, self._out_of_time)
                await self.journal.commit()
                self._hears = True
                if self._stop_reason is not None:
                    self._abort()  # stopped before it began
                await self._drive()
            except asyncio.CancelledError:  # the loop is being closed
                self._stoppable = True
                self._abort()
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has an end
                self._fail(as_run_error(error, None))
            self._stoppable = False
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

    async def _beat(self) -> None:
        """Say in the store that the run lives; end it when somebody else has taken it over."""
        store = self.services.store
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                ours = await store.beat(self.run_id)
            except Exception as error:  # noqa: BLE001 - the next append tells whether the store works
                _LOG.warning("Run %s: its heartbeat could not be recorded: %s", self.run_id, error)
                continue
            if not ours and not self.journal.unrecorded:
                self._halt(taken_over(self.run_id))
                return

    def assigned_before(self, node: PlanNode, inputs: Inputs) -> code_state.View:
        """What code has assigned, as a run of *node* with these inputs can know it."""
        return code_state.before(self._assigned, node, inputs.arrived) if self._shares_code else code_state.EMPTY

    def assigned(self) -> code_state.View:
        """What code has assigned anywhere in the run so far."""
        return code_state.merged(self._assigned.values())

    def person(self, reference: str) -> DomainPerson:
        """A person with its model settled: the run's `model` option wins over the diagram, except for `own_models`."""
        person = self.plan.persons.get(reference) or next(
            (p for p in self.plan.persons.values() if reference in (p.label, f"person_{p.label}")), None
        )
        if person is None:
            raise NodeExecutionError(
                f"There is no person '{reference}'.",
                hint=f"Persons: {', '.join(p.label for p in self.plan.persons.values()) or 'none'}.",
            )
        if self.options.model is None or person.id in self.options.own_models:
            return person
        service, model = parse_model(self.options.model, self.services.llm.services)
        llm = person.llm
        if llm.own_options and person.id not in self._moved:
            self._moved.add(person.id)
            left = ", ".join(llm.own_options)
            self.emit_log(None, "INFO", f"'{person.label}' is moved to {self.options.model}; left out, as of its own model: {left}.")
        moved = LLMConfig(
            service=service,
            model=model,
            system_prompt=llm.system_prompt,
            temperature=llm.temperature,
            max_tokens=llm.max_tokens,
        )
        return DomainPerson(person.id, person.label, moved)

    def completed_runs(self, node: PlanNode) -> int:
        """How often a node has finished."""
        return self._completed.get(node.index, 0)

    @property
    def code(self) -> CodeRunner:
        """The run's code runner, made on first use and killed when the run ends."""
        if self._code is None:
            self._code = self.services.code()
        return self._code

    async def ask(
        self,
        node: PlanNode,
        prompt: str,
        *,
        timeout: float | None,
        default: str | None,
        path: tuple[str, ...] = (),
    ) -> tuple[str, str]:
        """Put a question to the user; (answer, source). Without an answer in time: the default, else NodeTimeoutError.

        Args:
            path: as of `Question`, when the node that asks is part of a sub-diagram.
        """
        path = path or (node.label,)
        label = path[-1]
        request_id = f"{node.id}:{self.journal.seq + 1}"
        prompt = redactor(prompt)
        question = Question(self.run_id, node.id, label, prompt, timeout, default, request_id, path)
        self.questions.open(request_id)
        try:
            self._emit(EventType.INTERACTIVE_PROMPT, node.id, record.prompt(question))
            await self.journal.flush()
            answer, source = await self.questions.asked(question, timeout)
            answer = well_formed(answer)
        except TimeoutError:
            if default is None:
                raise NodeTimeoutError(
                    f"Nobody answered '{label}' within {timeout:g} s.",
                    hint="Give the node a `default`, a longer `timeout`, or the answer beforehand (answers= / --answer).",
                    node=node.label,
                ) from None
            answer, source = default, "default"
        finally:
            self.questions.close(request_id)
        response: InteractiveResponse = {"request_id": request_id, "answer": answer, "source": source}
        self._emit(EventType.INTERACTIVE_RESPONSE, node.id, response)
        await self.journal.flush()
        await self.questions.recorded()
        return answer, source

    async def wait_for(self, node: PlanNode, name: str, filters: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """What the next event from outside brings that has this name and, at each path of *filters*, that value.

        Raises:
            NodeTimeoutError: there is none within *timeout* seconds.
        """
        self.emit_log(node, "INFO", f"'{node.label}' waits for the event '{name}'.", waits_for=name, timeout=timeout)
        await self.journal.flush()
        try:
            async with asyncio.timeout(timeout):
                signal = await self.signals.wait(name, filters)
        except TimeoutError:
            raise NodeTimeoutError(
                f"The event '{name}' did not come within {timeout:g} s.",
                hint=f'Send it: run.signal("{name}", …), or give the node a longer timeout.',
                node=node.label,
            ) from None
        return dict(signal.payload)

    def emit_delta(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record a piece of output; it is committed and shown within `delta_interval`. Any thread; too late, and it is ignored."""
        if self._elsewhere(self.emit_delta, node, payload):
            return
        self.journal.emit_delta(node.id, payload)

    async def record(self, node: PlanNode, payload: Mapping[str, Any]) -> None:
        """Record a piece of output now: when this returns it is stored."""
        self._emit(EventType.NODE_OUTPUT, node.id, payload)
        await self.journal.flush()

    def result(self) -> Any:
        """What the run gave: the value of its only endpoint, a mapping when several were reached, the last output without any."""
        ends = {
            node.label: self._outputs[node.index][self._completed[node.index]].body
            for node in self.plan.nodes
            if node.type == "endpoint" and node.index in self._completed
        }
        if ends:
            return next(iter(ends.values())) if len(ends) == 1 else ends
        if self._latest is None:
            return None
        index, run = self._latest
        return self._outputs[index][run].body

    def emit_log(self, node: PlanNode | None, level: str, message: str, **extra: Any) -> None:
        """Record a log line of the run. Any thread; too late, and it is ignored."""
        if self._elsewhere(functools.partial(self.emit_log, **extra), node, level, message):
            return
        message = redactor.text(message)
        self._emit(EventType.EXECUTION_LOG, node.id if node else None, record.log_line(level, message, extra))

    # The loop.

    async def _drive(self) -> None:
        if self._recovered is None:
            self._ticks.append(schedule.Begin())
        else:
            self._carry_out(self._recovered.notices)
            self._go_on_in_background()
        burst = 0
        while True:
            self._wakeup.clear()
            while self._ticks and self._failure is None:
                self._advance(self._ticks.popleft())
            if self.journal.failure is not None:
                raise self.journal.failure
            if self._failure is not None:
                return
            if self._finish is not None:
                await self._end_of_background()
                return
            self._take_off()
            if self.journal.pending:
                await self.journal.commit()
            burst = await self._start_handlers(burst)
            if not self._ticks and self._failure is None:
                burst = 0
                await self._wakeup.wait()

    def _advance(self, tick: schedule.Tick) -> None:
        self._scheduler, commands = schedule.step(
            self.plan, self._scheduler, tick, max_visits=self.options.max_iterations
        )
        self._carry_out(commands)

    def _carry_out(self, commands: Iterable[schedule.Command]) -> None:
        for command in commands:
            match command:
                case schedule.RunNode():
                    if self._lost and (error := needs_lost(self.plan, command, self._lost)):
                        self._failure = error
                    self._ready.append((command, gathered(self.plan, self._outputs, command)))
                case schedule.PassOn(node=index, run=run):
                    node = self.plan.nodes[index]
                    self._maxed.add(index)
                    if self._shares_code:
                        code_state.pass_on(self.plan, self._assigned, self._outputs, index, run)
                    self._emit(EventType.NODE_COMPLETED, node.id, record.node_passed_on(node, run))
                case schedule.Exhausted(node=index, visits=visits):
                    self._failure = endless(self.plan, self.plan.nodes[index], visits, self.run_id)
                case schedule.Finish():
                    self._finish = command
                    if command.blocked:
                        self._failure = deadlock(self.plan, command, self.run_id)

    def _take_off(self) -> None:
        """Note the start of every node there is room for."""
        self._starting = []
        room = self.options.parallelism - len(self._running)
        while self._ready and room > 0:
            command, inputs = self._ready.popleft()
            node = self.plan.nodes[command.node]
            place = node.index, command.run
            attempt: int | None = None
            if self._attempts and (before := self._attempts.get(place)):
                attempt = self._attempts[place] = before + 1
            payload = record.node_started(node, command.run, inputs, attempt)
            self.journal.note(EventType.NODE_STARTED, node.id, redactor(payload) if self._secretive else payload)
            self._working.add(node.index)
            self._starting.append((command, inputs))
            room -= 1

    async def _start_handlers(self, burst: int) -> int:
        for command, inputs in self._starting:
            if self._halted:
                break
            node = self.plan.nodes[command.node]
            place = node.index, command.run
            context = NodeContext(self, node, command.run, inputs, self._attempts.get(place, 1))
            begin = self._monotonic()
            try:
                if place in self.options.reuse:
                    self._reuse(context, self.options.reuse[place])
                    continue
                self.gate.check(node, self.plan)
                token = run_log.enter(run_log.Place(self, node))
                try:
                    with user_code.contained():
                        result = self._repeated(context) if node.spec.retries else handlers.begin(context)
                finally:
                    run_log.leave(token)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is the node's failure
                self._failed(context, error, begin)
                continue
            if isinstance(result, Output):
                self._succeeded(context, result, begin)
                burst += 1
                if burst >= INLINE_BURST:
                    burst = 0
                    await asyncio.sleep(0)
            else:
                task = asyncio.get_running_loop().create_task(self._run_node(context, result))
                # A task that is cancelled before its first step never awaits the work.
                task.add_done_callback(lambda _, work=result: work.close())
                self._running[node.index] = task
        self._starting = []
        return burst

    async def _run_node(self, context: NodeContext, work: Coroutine[Any, Any, Output]) -> None:
        begin = self._monotonic()
        node = context.node
        run_log.enter(run_log.Place(self, node))  # this task does nothing else
        try:
            output = await (work if node.spec.retries else self._in_time(context, work))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the node's failure
            self._failed(context, error, begin)
        else:
            self._succeeded(context, output, begin)
        finally:
            self._running.pop(node.index, None)
            self._wakeup.set()

    async def _in_time(self, context: NodeContext, work: Awaitable[Output]) -> Output:
        node = context.node
        limit = handlers.time_limit(node, self.options.node_timeout)
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                return await user_code.awaited(handlers.complete(context, work))
        except TimeoutError as error:
            if not scope.expired():
                raise
            notes = getattr(error.__cause__, "__notes__", ())
            raise NodeTimeoutError(
                f"'{node.label}' took longer than its limit of {limit:g} s.",
                hint=" ".join(notes) or "Give the node a larger `timeout`, or raise DIPEO_NODE_TIMEOUT.",
                node=node.label,
            ) from error

    async def _repeated(self, context: NodeContext) -> Output:
        """The node's work, tried again as its `retries` say; each try has the node's whole time."""
        node = context.node
        for retry in range(node.spec.retries + 1):
            context.last_try = retry == node.spec.retries
            try:
                with user_code.contained():
                    result = handlers.begin(context)
                output = result if isinstance(result, Output) else await self._in_time(context, result)
            except BudgetExceededError:
                raise
            except Exception as error:
                if retry == node.spec.retries:
                    raise
                ours = as_run_error(error, node)
                redactor.error(ours)
                wait = min(node.spec.retry_delay * 2**retry, LONGEST_RETRY_S)
                self.emit_log(
                    node,
                    "WARNING",
                    f"{ours.message} Trying again in {wait:g} s ({retry + 1} of {node.spec.retries}).",
                    retry=retry + 1,
                    error=describe(ours, node.label),
                )
                await asyncio.sleep(wait)
                context.attempt += 1
            else:
                return output._replace(meta={**output.meta, "retries": retry}) if retry else output
        raise AssertionError("unreachable: the last try returns or raises")

    def _reuse(self, context: NodeContext, event: Event) -> None:
        """Take a finished run of the node over from another run's log; it costs nothing again."""
        node, payload = context.node, event.payload
        meta = {k: v for k, v in payload.get("meta", {}).items() if k not in ("usage", "cost_usd", "calls")}
        renamed = {
            record["id"]: self.log.add(
                m.from_person_id, m.to_person_id, m.content, timestamp=m.timestamp, node_id=m.node_id
            )
            for record in meta.get("messages", ())
            for m in (message_of(record),)
        }
        if renamed:
            meta["messages"] = [as_record(m) for m in renamed.values()]
            self._renamed.update({old: m.id for old, m in renamed.items()})
        if "memory" in meta:
            meta["memory"] = self._remembered_here(meta["memory"])
        if "turns" in meta:  # of the items of a batch
            now = {old: as_record(m) for old, new in self._renamed.items() if (m := self.log.get(new)) is not None}
            meta["turns"] = [
                {
                    **turn,
                    **({"memory": self._remembered_here(turn["memory"])} if "memory" in turn else {}),
                    "messages": [now.get(m["id"], m) for m in turn.get("messages", ())],
                }
                for turn in meta["turns"]
            ]
        meta["reused"] = {"run_id": event.run_id, "seq": event.seq}
        said = payload.get("conversation")
        if said is not None:
            said = {**said, "upto": len(self.log.messages)}
        for name, value in published(node, event).items():
            context.publish(name, value)
        copy = event._replace(payload={**payload, "meta": meta, "conversation": said})
        self._succeeded(context, output_of(copy, self.log), self._monotonic())

    def _remembered_here(self, memory: Any) -> Any:
        """What a person brought along to a turn of another run, with the ids that its messages have here."""
        if not isinstance(memory, Mapping):
            return memory
        ids = {k: [self._renamed.get(i, i) for i in memory[k]] for k in ("ids", "brought") if k in memory}
        return {**memory, **ids}

    def _go_on_in_background(self) -> None:
        """Children that no node waited for, and that may have been cut off with the run."""
        for index, run in self.children:
            node = self.plan.nodes[index]
            if not getattr(node.spec, "wait_for_completion", True) and self._completed.get(index, 0) >= run:
                context = NodeContext(self, node, run, Inputs())
                self.in_background(sub_diagram.go_on(context))

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that no node waits for, but the end of the run does."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(as_run_error(error, None))
        self._wake()

    async def _end_of_background(self) -> None:
        while self._background and self._failure is None:
            self._wakeup.clear()
            await self._wakeup.wait()
            await self.journal.commit()

    def _succeeded(self, context: NodeContext, output: Output, begin: float) -> None:
        node = context.node
        try:
            output = settled(output)
        except UnsupportedValueError as error:
            self._failed(context, error, begin)
            return
        label = redactor(node.label) if self._secretive else node.label
        payload = record.node_completed(
            node,
            context.run,
            output,
            (self._monotonic() - begin) * 1000,
            label=label,
            published=context.published,
        )
        self._working.discard(node.index)
        self._keep(context, output)
        self.journal.end_streams(node.id)
        self.journal.note(EventType.NODE_COMPLETED, node.id, payload)
        self._ticks.append(schedule.Done(node.index, output.handles))

    def _failed(self, context: NodeContext, error: Exception, begin: float) -> None:
        node = context.node
        ours = as_run_error(error, node)
        redactor.error(ours)
        self._working.discard(node.index)
        self.journal.end_streams(node.id)
        self._nodes_failed.add(node.index)
        handled = goes_on(self.plan, node)
        described = record.error_info(ours, node)
        duration_ms, spent = (self._monotonic() - begin) * 1000, context.spent()
        failed = record.node_failed(node, context.run, described, duration_ms, handled=handled, spent=spent)
        self._emit(EventType.NODE_ERROR, node.id, failed)
        if not handled:
            self._fail(ours)
            return
        output = error_output(self.plan, node, described)
        self._keep(context, output)
        self._ticks.append(schedule.Done(node.index, output.handles))

    def _keep(self, context: NodeContext, output: Output) -> None:
        """Remember an output for as long as an edge can still ask for it."""
        node, run = context.node, context.run
        if self._shares_code:
            view = code_state.after(context.assigned, node, run, output.meta)
            self._assigned[node.index] = view
            output = output._replace(assigned=view)
        self._completed[node.index] = run
        self._latest = node.index, run
        kept = self._outputs.get(node.index)
        if kept is None:
            kept = self._outputs[node.index] = {}
        kept[run] = output
        if len(kept) > 16:
            needed = schedule.needed_outputs(self.plan, self._scheduler, node.index) | {run}
            # Inputs are resolved when a run becomes ready, so what is only ready or running needs nothing kept.
            for old in [r for r in kept if r not in needed]:
                del kept[old]

    # The record.

    def _emit(self, kind: EventType, node_id: str | None, payload: Mapping[str, Any]) -> None:
        self.journal.emit(kind, node_id, payload)

    async def _end_of_work(self) -> None:
        """Stop what still runs: no task, no process stays behind."""
        self._cancel_work()
        if tasks := [*self._running.values(), *self._background]:
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.journal.quiesce()
        if self._code is not None:
            try:
                await self._code.cleanup()
            except Exception as error:  # noqa: BLE001 - the end is recorded nevertheless
                self._fail(as_run_error(error, None))

    async def _write_end(self) -> None:
        """Record the end. When the store refuses, the run has failed, and as much of its end is recorded as can be."""
        self._emit_end()
        try:
            await self.journal.commit()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has an end
            failure = as_run_error(error, None)
        else:
            return
        self._fail(failure)
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
        duration = self._worked_ms + (self._monotonic() - self._begin) * 1000
        statuses = self._node_statuses()
        if self._failure is None:
            self.journal.emit_last(EventType.EXECUTION_COMPLETED, record.run_completed(duration, statuses))
            return
        self.error = self._failure
        redactor.error(self._failure)
        status = Status.FAILED
        if isinstance(self._failure, RunAbortedError):
            cut_off = isinstance(self._failure, RunInterruptedError)
            status = Status.INTERRUPTED if cut_off else Status.ABORTED
            statuses |= {self.plan.nodes[i].id: str(status) for i in self._working}
        self.journal.emit_last(
            EventType.EXECUTION_ERROR, record.run_failed(self._failure, status, duration, statuses)
        )

    def _node_statuses(self) -> dict[str, str]:
        """Final status of every node that did not simply complete or fail."""
        nodes = self.plan.nodes
        statuses = {nodes[i].id: str(Status.MAXITER_REACHED) for i in self._maxed - self._nodes_failed}
        statuses |= {nodes[i].id: str(Status.ABORTED) for i in self._working}
        skipped = self._finish.skipped if self._finish is not None else ()
        return statuses | {nodes[i].id: str(Status.SKIPPED) for i in skipped}

"""From a run's log back to the run: what `resume` starts from.

The ticks of the scheduler stand in the log: `node_completed`, and `node_error` with `handled`. So everything the engine held in
memory is there again when the log was gone through in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import ExecutionStarted, InteractivePrompt, NodeCompleted, NodeError, NodeOutput, NodeStarted
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import UserError
from dipeo_nb.execution import checkpoint, schedule
from dipeo_nb.execution.asked import OpenQuestions
from dipeo_nb.execution.checkpoint import LogPlaces
from dipeo_nb.execution.code_state import View
from dipeo_nb.execution.conversation import ConversationLog
from dipeo_nb.execution.fork import changed_nodes, downstream, reusable
from dipeo_nb.execution.inputs import Inputs, Output
from dipeo_nb.execution.progress import RunProgress, error_output, holds_hidden
from dipeo_nb.execution.record import message_of, output_of, published
from dipeo_nb.execution.run_options import NodeRunKey, RunOptions
from dipeo_nb.execution.run_state import RunState

__all__ = ["Recovered", "Recovering", "changed_nodes", "downstream", "recovered", "reusable"]


@dataclass
class Recovered:
    """A run as it was when its log ended."""

    first: Event
    """The first event of the log."""
    seq: int
    """Number of the last one."""
    at: float
    """Time of the last one."""
    progress: RunProgress
    """`ready` has the runs of nodes that had not finished."""
    state: RunState
    """The fold over the log."""
    asked: Mapping[str, Mapping[str, Any]]
    """Questions that the log leaves open, see `OpenQuestions.found`."""
    places: LogPlaces
    """Where in the log stands what is needed further on."""
    notices: list[schedule.Command] = field(default_factory=list[schedule.Command])
    """`PassOn`, `Finish` and `Exhausted` that the log does not show yet."""

    @property
    def run_id(self) -> str:
        return self.first.run_id


def recovered(plan: Plan, events: Iterable[Event], *, variables: Mapping[str, Any], max_visits: int) -> Recovered:
    """The state at the end of *events*, the whole log of a run of *plan*.

    Args:
        variables: inputs of the run that were secrets and so are not in the log; given again.
        max_visits: as for `schedule.Scheduler`.

    Raises:
        UserError: inputs of the run, or variables, were secrets and are not known any more.
        RunError: what is to run next needs an output that held one.
    """
    recovering = Recovering(plan, variables=variables, max_visits=max_visits)
    for event in events:
        recovering.take(event)
    return recovering.result()


class Recovering:
    """Reads a log back: takes the events of a run of *plan* in order, from the first on; arguments as for `recovered`."""

    def __init__(self, plan: Plan, *, variables: Mapping[str, Any], max_visits: int) -> None:
        self._plan, self._given, self._max_visits = plan, variables, max_visits
        self._first: Event | None = None
        self._seq, self._at = 0, 0.0
        self._replaying: _Replaying | None = None
        self._state = RunState()
        self._asked = OpenQuestions()
        self._places = LogPlaces(plan)
        self._error: Exception | None = None

    def take(self, event: Event) -> None:
        """Take one event in. What is wrong with the log is raised by `result`."""
        self._seq = event.seq
        if event.type is EventType.RUN_NOTE:
            if event.seq > self._state.events:
                self._state.apply(event)
            return
        self._at = event.occurred_at
        if self._error is not None:
            return
        try:
            if self._replaying is None:
                self._first, self._replaying = event, _Replaying(self._begun(event))
                self._replaying.begin()
            self._replaying.take(event)
            self._asked.take(event)
            self._places.take(event)
            if event.seq > self._state.events:
                self._state.apply(event)
        except Exception as error:  # noqa: BLE001 - raised by `result`: who may go on with the log is decided first
            self._error = error

    def restore(self, content: Mapping[str, Any], last: Event, first: Event, events: Iterable[Event], state: RunState) -> None:
        """Continue from a checkpoint instead of the events up to it.

        Args:
            last: has the number and the time of the last of them.
            first: the first of them.
            events: those that the checkpoint names, in order.
            state: of the run, at *last* or later.

        Raises:
            ValueError, TypeError, KeyError, IndexError: the checkpoint is damaged, or of another plan.
            UserError: see `recovered`.
        """
        progress = self._begun(first)
        waiting = checkpoint.restore(content, progress, self._places)
        self._replaying = _Replaying(progress)
        for event in events:
            self._replaying.reread(event, self._places)
            if event.type is EventType.INTERACTIVE_PROMPT:
                self._asked.take(event)
                self._places.asked.take(event)
                self._places.prompts[cast(InteractivePrompt, event.payload)["request_id"]] = event.seq
        self._replaying.continue_with(waiting, self._places.began, last.occurred_at)
        self._first, self._state = first, state
        self._seq, self._at = last.seq, last.occurred_at

    def _begun(self, first: Event) -> RunProgress:
        recorded = cast(ExecutionStarted, first.payload).get("variables", {})
        inputs = {**recorded, **self._given}
        if lost := sorted(name for name, value in inputs.items() if holds_hidden(value)):
            raise UserError(
                f"The run was given secrets, which are not recorded: {', '.join(lost)}.",
                hint=f"Give them again: dp.resume(run_id, {lost[0]}=…).",
                names=lost,
            )
        return RunProgress(self._plan, variables=inputs, log=ConversationLog(), max_visits=self._max_visits)

    def result(self) -> Recovered:
        """The run at the end of its log; nothing more is taken in.

        Raises:
            UserError, RunError: see `recovered`.
        """
        if self._error is not None:
            raise self._error
        replaying = self._replaying
        assert replaying is not None, "a log has a first event"
        assert self._first is not None
        replaying.end()
        progress, variables = replaying.progress, self._given
        found = progress.variables
        found.update({name: value for name, value in variables.items() if holds_hidden(found.get(name))})
        hidden = {name for name, value in found.items() if holds_hidden(value)}
        hidden |= {name for name, change in progress.assigned().names.items() if holds_hidden(change.of(name))}
        if lost := sorted(hidden):
            raise UserError(
                f"Variables of the run held secrets, which are not recorded: {', '.join(lost)}.",
                hint="Run the diagram again, or fork the run before they were set.",
                names=lost,
            )
        for command, _ in progress.ready:
            if error := progress.lacking(command):
                raise error
        notices = replaying.unrecorded()
        return Recovered(self._first, self._seq, self._at, progress, self._state, self._asked.found, self._places, notices)


def begun(plan: Plan, options: RunOptions, found: Recovered | None, log: ConversationLog | None) -> RunProgress:
    """Where a run begins: at the beginning, or where its log ends.

    Args:
        log: the conversation to take part in; default: one of its own.
    """
    if found is None:
        log = ConversationLog() if log is None else log
        return RunProgress(plan, variables=options.variables, log=log, max_visits=options.max_iterations)
    progress = found.progress
    if log is not None:
        for message in progress.log.messages:
            log.restore(message)
        progress.log = log
    return progress


class _Replaying:
    """Takes a log in, event by event."""

    def __init__(self, progress: RunProgress) -> None:
        self.progress = progress
        self._waiting: dict[NodeRunKey, tuple[schedule.RunNode, Inputs]] = {}
        """Runs that are ready or at work, in the order in which they became ready."""
        self._notices: list[schedule.Command] = []
        self._passes: Counter[int] = Counter()
        """How often the log says of a node that it passed its output on."""
        self._began = self._last = 0.0

    def begin(self) -> None:
        """The run begins."""
        self.progress.begin()
        self._advance()

    def reread(self, event: Event, places: LogPlaces) -> None:
        """Take from an event what a checkpoint refers to."""
        progress, index = self.progress, self.progress.plan.by_id.get(event.node_id or "")
        if index is None:
            return
        node = progress.plan.nodes[index]
        if event.type is EventType.NODE_OUTPUT:
            self._output(node, cast(NodeOutput, event.payload))
        elif event.type is EventType.NODE_ERROR:
            failed = cast(NodeError, event.payload)
            if places.outputs.get((index, failed["run"])) == event.seq:
                progress.outputs.setdefault(index, {})[failed["run"]] = error_output(progress.plan, node, failed["error"])
        elif event.type is EventType.NODE_COMPLETED:
            completed = cast(NodeCompleted, event.payload)
            self._messages(completed)
            values = published(node, completed)
            progress.variables.update(
                {name: value for name, value in values.items() if places.variables.get(name) == event.seq}
            )
            if places.outputs.get((index, completed["run"])) == event.seq:
                progress.outputs.setdefault(index, {})[completed["run"]] = self._recorded(node, completed)

    def continue_with(self, waiting: Iterable[schedule.RunNode], began: float, last: float) -> None:
        """All that a checkpoint refers to was read; these runs of nodes were not over."""
        self._began, self._last = began, last
        for command in waiting:
            self._waiting[command.node, command.run] = command, self.progress.inputs_for(command)
        self._advance()

    def take(self, event: Event) -> None:
        plan = self.progress.plan
        if event.type is EventType.EXECUTION_STARTED:
            self._stretch()
            self._began = event.occurred_at
        self._last = event.occurred_at
        if event.node_id is None or event.node_id not in plan.by_id:
            return
        node = plan.nodes[plan.by_id[event.node_id]]
        match event.type:
            case EventType.NODE_STARTED:
                self.progress.attempts[node.index, cast(NodeStarted, event.payload).get("run", 0)] += 1
            case EventType.NODE_OUTPUT if "kind" in event.payload:
                self._output(node, cast(NodeOutput, event.payload))
            case EventType.NODE_COMPLETED:
                self._completed(node, cast(NodeCompleted, event.payload))
            case EventType.NODE_ERROR:
                failed = cast(NodeError, event.payload)
                if failed.get("handled"):  # else it is tried again
                    seen = self._seen(node, failed["run"])
                    self.progress.fail(node, failed["run"], failed["error"], seen, handled=True)
                    self._advance()
            case _:
                pass

    def end(self) -> None:
        """The log ends here."""
        self._stretch()
        self.progress.ready.extend(self._waiting.values())

    def unrecorded(self) -> list[schedule.Command]:
        """What the scheduler said and the log does not show; the oldest passes are those that it shows."""
        return [c for c in self._notices if not (isinstance(c, schedule.PassOn) and self._shown(c.node))]

    def _shown(self, node: int) -> bool:
        if self._passes[node]:
            self._passes[node] -= 1
            return True
        return False

    def _stretch(self) -> None:
        self.progress.worked_ms += max(0.0, self._last - self._began) * 1000

    def _output(self, node: PlanNode, output: NodeOutput) -> None:
        self.progress.begun.take((node.index, output.get("run", 0)), output)
        if output["kind"] == "item":
            for record in output["data"].get("meta", {}).get("messages", ()):
                self.progress.log.restore(message_of(record))

    def _completed(self, node: PlanNode, completed: NodeCompleted) -> None:
        if completed.get("status") == Status.MAXITER_REACHED:
            self._passes[node.index] += 1
            return
        progress, run = self.progress, completed["run"]
        self._messages(completed)
        progress.variables.update(published(node, completed))
        progress.complete(node, run, self._recorded(node, completed), self._seen(node, run))
        self._advance()

    def _messages(self, completed: NodeCompleted) -> None:
        for record in completed.get("meta", {}).get("messages", ()):
            self.progress.log.restore(message_of(record))

    def _recorded(self, node: PlanNode, completed: NodeCompleted) -> Output:
        """The output of a run of a node, as far as it is recorded."""
        progress = self.progress
        output = output_of(completed, progress.log)
        if holds_hidden(output.body) or holds_hidden(output.text):
            if node.type == "start":  # its output is the run's variables, which were given again
                return output._replace(body=dict(progress.variables))
            progress.lost.add((node.index, completed["run"]))
        return output

    def _seen(self, node: PlanNode, run: int) -> View:
        _, inputs = self._waiting.pop((node.index, run), (None, Inputs()))
        return self.progress.seen_by(node, inputs)

    def _advance(self) -> None:
        progress = self.progress
        while progress.ticks:
            self._notices += (c for c in progress.advance() if not isinstance(c, schedule.RunNode))
        while progress.ready:
            command, inputs = progress.ready.popleft()
            self._waiting[command.node, command.run] = command, inputs

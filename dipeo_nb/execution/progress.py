"""What a run knows at a moment: what is ready, what was given, what is set. Pure: no store, no task, no clock.

The scheduler depends on its ticks alone, and everything here on the ticks and on what the nodes gave. The engine calls
these methods as nodes finish, `recovery` as it reads their log; so a run that goes live and one that is resumed are one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dipeo_nb.common.redaction import HIDDEN
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.payloads import ErrorInfo, NodeOutput
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.spending import Spending
from dipeo_nb.errors import RunError
from dipeo_nb.execution import code_state, schedule
from dipeo_nb.execution.conversation import ConversationLog
from dipeo_nb.execution.inputs import Arrived, Inputs, Output
from dipeo_nb.execution.run_errors import error_value
from dipeo_nb.execution.run_options import NodeRunKey

_new = tuple.__new__
"""Makes a named tuple in half the time."""
RunNode, Done = schedule.RunNode, schedule.Done
KEPT_OUTPUTS = 16
"""Outputs of a node from which on those that no edge can ask for any more are dropped."""


@dataclass(slots=True)
class BegunWork:
    """What runs of nodes had done before they finished, by node run."""

    children: dict[NodeRunKey, dict[int, str]] = field(default_factory=dict[NodeRunKey, dict[int, str]])
    """Runs of sub-diagrams that were begun: item → run id."""
    items: dict[NodeRunKey, dict[int, Mapping[str, Any]]] = field(
        default_factory=dict[NodeRunKey, dict[int, Mapping[str, Any]]]
    )
    """What finished items of batches gave: `output` and `meta`."""
    charged: dict[NodeRunKey, dict[str, Spending]] = field(default_factory=dict[NodeRunKey, dict[str, Spending]])
    """What a node was charged for its runs of sub-diagrams, by run id."""

    def take(self, key: NodeRunKey, output: NodeOutput) -> None:
        """Take in what is recorded of it; other output is only shown."""
        match output["kind"]:
            case "run":
                self.children.setdefault(key, {})[output["data"]["index"]] = output["data"]["run_id"]
            case "item":
                if not holds_hidden(output["data"]):
                    given = {name: value for name, value in output["data"].items() if name != "index"}
                    self.items.setdefault(key, {})[output["data"]["index"]] = given
            case "usage":
                data = output["data"]
                if child := data.get("run_id"):
                    before = self.charged.setdefault(key, {}).setdefault(child, Spending())
                    before.add(TokenUsage.from_dict(data["usage"]), data.get("cost_usd"), data.get("calls", 1))
            case _:
                pass


class RunProgress:
    """The state of one run.

    Args:
        variables: inputs of the run.
        log: its conversation.
        max_visits: as for `schedule.Scheduler`.
    """

    def __init__(self, plan: Plan, *, variables: Mapping[str, Any], log: ConversationLog, max_visits: int) -> None:
        self.plan = plan
        self.variables: dict[str, Any] = dict(variables)
        """Global variables: start data under run inputs, then what nodes publish."""
        self.log = log
        self.ticks: deque[schedule.Tick] = deque()
        """What the scheduler has not seen yet."""
        self.ready: deque[tuple[schedule.RunNode, Inputs]] = deque()
        """Runs of nodes that may begin, in the order in which they became ready."""
        self._last_waiting: schedule.RunNode | None = None
        self.outputs: defaultdict[int, dict[int, Output]] = defaultdict(dict)
        """By node and run, as long as an edge can ask for them."""
        self.begun: BegunWork = BegunWork()
        self.attempts: Counter[NodeRunKey] = Counter()
        """How often runs were begun that were cut off."""
        self.lost: set[NodeRunKey] = set()
        """Runs before the run was cut off whose output held a secret, and so is not known any more."""
        self.working: dict[int, schedule.RunNode] = {}
        """Nodes at work, and which run of theirs."""
        self.finish: schedule.Finish | None = None
        self.worked_ms: float = 0.0
        """Milliseconds at work before the run was cut off."""
        self.max_visits = max_visits
        self.scheduler: schedule.Scheduler = schedule.Scheduler(plan, max_visits=max_visits)
        self.shares_code: bool = code_state.any_shares(plan)
        """Whether the code of a node may assign what others see."""
        self._assigned: dict[int, code_state.View] = {}
        """What code had assigned when a node last finished or passed its output on; empty without such code."""
        self.completed: dict[int, int] = {}
        """Latest finished run of each node."""
        self.latest: NodeRunKey | None = None
        """The run of a node that finished last."""
        self.at_limit: set[int] = set()
        self.failed: set[int] = set()

    # Changes.

    def begin(self) -> None:
        self.ticks.append(schedule.Begin())

    def advance(self) -> Sequence[schedule.Command]:
        """Let the scheduler see the next tick, and take in what it commands.

        Returns:
            What there is more to do about: all but runs of nodes, which are `ready`; of these, those that need what is lost.
        """
        notices: list[schedule.Command] = []
        for command in self.scheduler.step(self.ticks.popleft()):
            if type(command) is RunNode:
                self.ready.append((command, self.inputs_for(command)))
                if not self.lost:
                    continue
            notices.append(command)
            match command:
                case schedule.PassOn(node=index, run=run):
                    self.at_limit.add(index)
                    if self.shares_code:
                        code_state.pass_on(self.plan, self._assigned, self.outputs, index, run)
                case schedule.Finish():
                    self.finish = command
                case _:
                    pass
        return notices

    def start(self) -> tuple[schedule.RunNode, Inputs, int | None]:
        """The next run that is ready begins: it, its inputs, and which attempt it is when it was begun before."""
        command, inputs = self.ready.popleft()
        attempt: int | None = None
        if self.attempts and (before := self.attempts.get(key := (command.node, command.run))):
            attempt = self.attempts[key] = before + 1
        self.working[command[0]] = command
        return command, inputs, attempt

    def newly_waiting(self) -> Sequence[tuple[PlanNode, int]]:
        """What is ready, as far as an earlier call has not given it. Call it when nothing of that can begin."""
        new: list[schedule.RunNode] = []
        for command, _ in reversed(self.ready):  # what became ready last is at the end
            if command is self._last_waiting:
                break
            new.append(command)
        if new:
            self._last_waiting = new[0]
        return [(self.plan.nodes[command.node], command.run) for command in reversed(new)]

    def complete(self, node: PlanNode, run: int, output: Output, seen: code_state.View) -> None:
        """A run of a node is finished.

        Args:
            seen: what code had assigned, as the run of the node could know it.
        """
        index = node.index
        self.working.pop(index, None)
        if self.shares_code:
            view = self._assigned[index] = code_state.after(seen, node, run, output.meta)
            output = output._replace(assigned=view)
        self.completed[index] = run
        self.latest = index, run
        kept = self.outputs[index]
        kept[run] = output
        if len(kept) > KEPT_OUTPUTS:
            needed = self.scheduler.needed_outputs(index) | {run}
            # Inputs are resolved when a run becomes ready, so what is only ready or running needs nothing kept.
            for old in [r for r in kept if r not in needed]:
                del kept[old]
        self.ticks.append(_new(Done, (index, tuple(output.handles))))

    def fail(self, node: PlanNode, run: int, error: ErrorInfo, seen: code_state.View, *, handled: bool) -> None:
        """A run of a node has failed.

        Args:
            handled: the run continues with the error as the node's output.
            seen: as for `complete`.
        """
        self.working.pop(node.index, None)
        self.failed.add(node.index)
        if handled:
            self.complete(node, run, error_output(self.plan, node, error), seen)

    # Questions.

    def inputs_for(self, command: schedule.RunNode) -> Inputs:
        """The inputs of a run, from the outputs that its command names."""
        edges, nodes, outputs = self.plan.edges, self.plan.nodes, self.outputs
        arrived: list[Arrived] = []
        for e, run, fresh in command[3]:
            edge = edges[e]
            source = nodes[index := edge.source]
            arrived.append(_new(Arrived, (edge, source.id, source.label, run, fresh, outputs[index][run])))
        return Inputs(tuple(arrived))

    def seen_by(self, node: PlanNode, inputs: Inputs) -> code_state.View:
        """What code has assigned, as a run of *node* with these inputs can know it."""
        return code_state.before(self._assigned, node, inputs.arrived) if self.shares_code else code_state.EMPTY

    def assigned(self) -> code_state.View:
        """What code has assigned anywhere in the run so far."""
        return code_state.merged(self._assigned.values())

    def completed_runs(self, node: PlanNode) -> int:
        """How often a node has finished."""
        return self.completed.get(node.index, 0)

    def result(self) -> Any:
        """What the run gave: the value of its only endpoint, a mapping when several were reached, the last output without any."""
        ends = {
            node.label: self.outputs[node.index][self.completed[node.index]].body
            for node in self.plan.nodes
            if node.type == "endpoint" and node.index in self.completed
        }
        if ends:
            return next(iter(ends.values())) if len(ends) == 1 else ends
        if self.latest is None:
            return None
        index, run = self.latest
        return self.outputs[index][run].body

    def statuses(self) -> dict[str, str]:
        """Final status of every node that did not simply complete or fail, by id."""
        nodes = self.plan.nodes
        statuses = {nodes[i].id: str(Status.MAXITER_REACHED) for i in self.at_limit - self.failed}
        statuses |= {nodes[i].id: str(Status.ABORTED) for i in self.working}
        skipped = self.finish.skipped if self.finish is not None else ()
        return statuses | {nodes[i].id: str(Status.SKIPPED) for i in skipped}

    def lacking(self, command: schedule.RunNode) -> RunError | None:
        """The error of a run of a node that needs an output which held a secret; None when it needs none."""
        for e, run, _ in command.inputs if self.lost else ():
            source = self.plan.nodes[self.plan.edges[e].source]
            if (source.index, run) in self.lost:
                return RunError(
                    f"'{self.plan.nodes[command.node].label}' needs the output of '{source.label}', which held a secret and so is "
                    "not recorded.",
                    hint=f"Fork the run at '{source.label}', or run the diagram again.",
                    node=source.label,
                )
        return None


def goes_on(plan: Plan, node: PlanNode) -> bool:
    """Whether the run continues when the node fails: it says so, or an arrow leads from its error output."""
    return node.spec.on_error == "continue" or _error_wired(plan, node)


def _error_wired(plan: Plan, node: PlanNode) -> bool:
    return any(plan.edges[e].source_handle == "error" for e in node.outgoing)


def error_output(plan: Plan, node: PlanNode, error: ErrorInfo) -> Output:
    """What a failed node hands on when the run continues."""
    wired = _error_wired(plan, node)
    return Output(error_value(error), error["message"], ("error",) if wired else ("default", "error"))


def holds_hidden(value: Any) -> bool:
    """Whether a recorded value held a secret."""
    if isinstance(value, str):
        return HIDDEN in value
    if isinstance(value, Mapping):
        return any(map(holds_hidden, value)) or any(map(holds_hidden, value.values()))
    return isinstance(value, (list, tuple)) and any(map(holds_hidden, value))

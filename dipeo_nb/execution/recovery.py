"""From a run's log back to the run: what `resume` goes on from, and what `fork` need not do again.

The scheduler is a pure function of its ticks, and the ticks stand in the log: `node_completed`, and `node_error` with
`handled`. So everything the engine held in memory is worked out again by going through the log in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dipeo_nb.common.scrub import HIDDEN
from dipeo_nb.domain.chat import Message, TokenUsage
from dipeo_nb.domain.enums import EventType, MessageType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import ConditionNode, SubDiagramNode
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import RunError, UserError
from dipeo_nb.execution import code_state, schedule
from dipeo_nb.execution.fold import Spent
from dipeo_nb.execution.inputs import Arrived, Inputs, Output
from dipeo_nb.execution.memory import ConversationLog

Run = tuple[int, int]
"""(index of a node, 1-based number of its run)."""


@dataclass
class Recovered:
    """What a run knew when its log ended."""

    run_id: str
    events: Sequence[Event]
    scheduler: schedule.State = field(default_factory=schedule.initial)
    ready: list[tuple[schedule.RunNode, Inputs]] = field(default_factory=list[Any])
    """Runs of nodes that had not finished, in the order in which they became ready."""
    notices: list[schedule.Command] = field(default_factory=list[schedule.Command])
    """`PassOn`, `Finish` and `Exhausted` that the log does not show yet."""
    outputs: dict[int, dict[int, Output]] = field(default_factory=dict[int, dict[int, Output]])
    completed: dict[int, int] = field(default_factory=dict[int, int])
    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    assigned: dict[int, code_state.View] = field(default_factory=dict[int, code_state.View])
    """What code had assigned when each node last finished or passed its output on."""
    log: ConversationLog = field(default_factory=ConversationLog)
    passed: set[int] = field(default_factory=set[int])
    """Nodes at their limit."""
    failed: set[int] = field(default_factory=set[int])
    attempts: Counter[Run] = field(default_factory=Counter[Run])
    """How often each unfinished run was begun."""
    children: dict[Run, dict[int, str]] = field(default_factory=dict[Run, dict[int, str]])
    """Runs of sub-diagrams that a node began: item → run id."""
    items: dict[Run, dict[int, Mapping[str, Any]]] = field(default_factory=dict[Run, dict[int, Mapping[str, Any]]])
    """What finished items of batches gave."""
    charged: dict[Run, dict[str, Spent]] = field(default_factory=dict[Run, dict[str, Spent]])
    """What a node was charged for each of its runs of sub-diagrams, by run id."""
    latest: Run | None = None
    """The run of a node that finished last."""
    lost: set[Run] = field(default_factory=set[Run])
    """Runs whose output held a secret, and so is not recorded whole."""
    worked_ms: float = 0.0
    """Milliseconds from start to end of all stretches of the run."""

    @property
    def seq(self) -> int:
        return self.events[-1].seq


def recovered(plan: Plan, events: Sequence[Event], *, variables: Mapping[str, Any], max_visits: int) -> Recovered:
    """The state at the end of *events*, the whole log of a run of *plan*.

    Args:
        variables: inputs of the run that were secrets and so are not in the log; given again.
        max_visits: as `schedule.step`.

    Raises:
        UserError: inputs of the run, or variables, were secrets and are not known any more.
        RunError: what is to run next needs an output that held one.
    """
    first = events[0]
    found = Recovered(first.run_id, events)
    found.variables = {**first.payload.get("variables", {}), **variables}
    if lost := sorted(name for name, value in found.variables.items() if _lost(value)):
        raise UserError(
            f"The run was given secrets, which are not recorded: {', '.join(lost)}.",
            hint=f"Give them again: dp.resume(run_id, {lost[0]}=…).",
            names=lost,
        )
    waiting: dict[Run, tuple[schedule.RunNode, Inputs]] = {}
    shares_code = code_state.any_shares(plan)
    passes: Counter[int] = Counter()

    def tick(one: schedule.Tick) -> None:
        found.scheduler, commands = schedule.step(plan, found.scheduler, one, max_visits=max_visits)
        for command in commands:
            if isinstance(command, schedule.RunNode):
                waiting[command.node, command.run] = command, gathered(plan, found.outputs, command)
            else:
                found.notices.append(command)
                if shares_code and isinstance(command, schedule.PassOn):
                    code_state.pass_on(plan, found.assigned, found.outputs, command.node, command.run)

    def keep(node: PlanNode, run: int, output: Output) -> None:
        """As `Execution._keep`."""
        _, inputs = waiting.pop((node.index, run), (None, Inputs()))
        if shares_code:
            view = code_state.before(found.assigned, node, inputs.arrived)
            view = found.assigned[node.index] = code_state.after(view, node, run, output.meta)
            output = output._replace(assigned=view)
        found.outputs.setdefault(node.index, {})[run] = output
        found.completed[node.index] = run
        found.latest = node.index, run
        tick(schedule.Done(node.index, output.handles))

    tick(schedule.Begin())
    began = last = first.occurred_at
    for event in events:
        if event.type is EventType.EXECUTION_STARTED:
            found.worked_ms += max(0.0, last - began) * 1000
            began = event.occurred_at
        last = event.occurred_at
        if event.node_id is None or event.node_id not in plan.by_id:
            continue
        node = plan.nodes[plan.by_id[event.node_id]]
        place = node.index, event.payload.get("run", 0)
        match event.type:
            case EventType.NODE_STARTED:
                found.attempts[place] += 1
            case EventType.NODE_OUTPUT if event.payload.get("kind") in ("run", "item", "usage"):
                _in_part(found, place, event)
            case EventType.NODE_COMPLETED if event.payload.get("status") == Status.MAXITER_REACHED:
                passes[node.index] += 1
                found.passed.add(node.index)
            case EventType.NODE_COMPLETED:
                keep(node, place[1], _finished(found, node, event))
            case EventType.NODE_ERROR:
                found.failed.add(node.index)
                if event.payload.get("handled"):
                    keep(node, place[1], error_output(plan, node, event.payload["error"]))
                else:
                    found.failed.discard(node.index)  # it is tried again
            case _:
                pass
    found.worked_ms += max(0.0, last - began) * 1000
    found.variables.update({name: value for name, value in variables.items() if _lost(found.variables.get(name))})
    hidden = {name for name, value in found.variables.items() if _lost(value)}
    assigned = code_state.merged(found.assigned.values()).names
    hidden |= {name for name, change in assigned.items() if _lost(change.of(name))}
    if lost := sorted(hidden):
        raise UserError(
            f"Variables of the run held secrets, which are not recorded: {', '.join(lost)}.",
            hint="Run the diagram again, or fork the run before they were set.",
            names=lost,
        )
    found.ready = list(waiting.values())
    for command, _ in found.ready:
        if error := needs_lost(plan, command, found.lost):
            raise error
    found.notices = [c for c in found.notices if not (isinstance(c, schedule.PassOn) and _told(passes, c.node))]
    return found


def _in_part(found: Recovered, place: Run, event: Event) -> None:
    """Take in what a run of a node had done before it finished."""
    data = event.payload["data"]
    match event.payload["kind"]:
        case "run":
            found.children.setdefault(place, {})[data["index"]] = data["run_id"]
        case "item":
            for record in data.get("meta", {}).get("messages", ()):
                found.log.restore(message_of(record))
            if not _lost(data):
                found.items.setdefault(place, {})[data["index"]] = {k: v for k, v in data.items() if k != "index"}
        case _ if child := data.get("run_id"):
            charged = found.charged.setdefault(place, {})
            spent = Spent(TokenUsage.from_dict(data["usage"]), data.get("cost_usd"), data.get("calls", 1))
            charged.setdefault(child, Spent()).add(spent.usage, spent.cost_usd, spent.calls)
        case _:
            pass


def begun_work(plan: Plan, events: Iterable[Event], *, without: Iterable[int]) -> Recovered:
    """What nodes had done before they finished, as children, items and charges; not that of the nodes *without* and of what
    depends on them."""
    events = list(events)
    found = Recovered(events[0].run_id, events)
    changed = downstream(plan, without)
    for event in events:
        index = plan.by_id.get(event.node_id or "")
        if event.type is not EventType.NODE_OUTPUT or index is None or index in changed:
            continue
        if event.payload.get("kind") in ("run", "item", "usage"):
            _in_part(found, (index, event.payload.get("run", 0)), event)
    return found


def _told(passes: Counter[int], node: int) -> bool:
    """Whether the log shows that pass; the oldest ones first."""
    if passes[node]:
        passes[node] -= 1
        return True
    return False


def needs_lost(plan: Plan, command: schedule.RunNode, lost: Collection[Run]) -> RunError | None:
    """The error of a run of a node that needs an output which held a secret; None when it needs none."""
    for e, run, _ in command.inputs:
        source = plan.nodes[plan.edges[e].source]
        if (source.index, run) in lost:
            return RunError(
                f"'{plan.nodes[command.node].label}' needs the output of '{source.label}', which held a secret and so is not "
                "recorded.",
                hint=f"Fork the run at '{source.label}', or run the diagram again.",
                node=source.label,
            )
    return None


def _finished(found: Recovered, node: PlanNode, event: Event) -> Output:
    payload = event.payload
    run = payload["run"]
    for record in payload.get("meta", {}).get("messages", ()):
        found.log.restore(message_of(record))
    found.variables.update(published(node, event))
    output = output_of(event, found.log)
    if _lost(output.body) or _lost(output.text):
        if node.type == "start":  # its output is the run's variables, which were given again
            output = output._replace(body=dict(found.variables))
        else:
            found.lost.add((node.index, run))
    return output


def gathered(plan: Plan, outputs: Mapping[int, Mapping[int, Output]], command: schedule.RunNode) -> Inputs:
    """The inputs of a run, from the outputs that its command names."""
    arrived: list[Arrived] = []
    for e, run, fresh in command.inputs:
        edge = plan.edges[e]
        source = plan.nodes[edge.source]
        arrived.append(Arrived(edge, source.id, source.label, run, fresh, outputs[edge.source][run]))
    return Inputs(arrived=tuple(arrived))


def published(node: PlanNode, event: Event) -> Mapping[str, Any]:
    """Global variables that a finished run of a node set."""
    payload = event.payload
    if "globals" in payload:
        return payload["globals"]
    # Logs of 0.1 do not say; these are the two that did.
    if node.type == "start" and isinstance(payload.get("output"), Mapping):
        return payload["output"]
    if isinstance(node.spec, ConditionNode):
        index = {node.spec.expose_index_as: payload["run"] - 1} if node.spec.expose_index_as else {}
        return {**index, f"branch[{node.id}]": payload.get("meta", {}).get("branch")}
    return {}


def output_of(event: Event, log: ConversationLog) -> Output:
    """The output that a `node_completed` records; its messages are in *log*."""
    payload = event.payload
    said = payload.get("conversation")
    return Output(
        payload.get("output"),
        payload.get("text"),
        tuple(payload.get("handles", ("default",))),
        payload.get("meta", {}),
        None if said is None else log.conversation(**said),
    )


def goes_on(plan: Plan, node: PlanNode) -> bool:
    """Whether the run goes on when the node fails: it says so, or an arrow leads from its error output."""
    return node.spec.on_error == "continue" or _error_wired(plan, node)


def _error_wired(plan: Plan, node: PlanNode) -> bool:
    return any(plan.edges[e].source_handle == "error" for e in node.outgoing)


def error_output(plan: Plan, node: PlanNode, described: Mapping[str, Any]) -> Output:
    """What a failed node hands on when the run goes on."""
    wired = _error_wired(plan, node)
    return Output(error_value(described), described["message"], ("error",) if wired else ("default", "error"))


def error_value(described: Mapping[str, Any]) -> dict[str, Any]:
    """An error, as an event describes it, as a value that nodes work with."""
    return {"error": described["message"], "type": described["type"], **described.get("details", {})}


def message_of(record: Mapping[str, Any]) -> Message:
    """A message as events carry it, as the log keeps it."""
    return Message(
        record["id"],
        record["from_person_id"],
        record["to_person_id"],
        record["content"],
        MessageType(record["message_type"]),
        record["timestamp"],
        record.get("node_id"),
    )


def _lost(value: Any) -> bool:
    if isinstance(value, str):
        return HIDDEN in value
    if isinstance(value, Mapping):
        return any(map(_lost, value)) or any(map(_lost, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_lost, value))


# Forks.


def downstream(plan: Plan, nodes: Iterable[int]) -> set[int]:
    """Those nodes and all that get something from them, loops included."""
    found = set(nodes)
    waiting = list(found)
    while waiting:
        for e in plan.nodes[waiting.pop()].outgoing:
            if (target := plan.edges[e].target) not in found:
                found.add(target)
                waiting.append(target)
    return found


def changed_nodes(
    before: Plan, after: Plan, *, moved: Collection[str] = (), model: bool = False, inputs: bool = False
) -> set[int]:
    """Nodes of *after* that would not do what the nodes of the same id did in *before*.

    Args:
        moved: ids of persons that have another model.
        model: the run has another model, which its sub-diagrams have, too.
        inputs: the inputs of the run are others.
    """
    changed: set[int] = set()
    for node in after.nodes:
        index = before.by_id.get(node.id)
        old = before.nodes[index] if index is not None else None
        person = getattr(node.spec, "person", None)
        if (
            old is None
            or (old.type, old.spec, old.label) != (node.type, node.spec, node.label)
            or arrows_into(before, old) != arrows_into(after, node)
            or (model and isinstance(node.spec, SubDiagramNode))
            or (person and (person in moved or before.persons.get(person) != after.persons.get(person)))
            or (inputs and node.index in after.roots)
        ):
            changed.add(node.index)
    return changed


def arrows_into(plan: Plan, node: PlanNode) -> set[tuple[Any, ...]]:
    """What its arrows bring to a node, whatever their order."""
    edges = (plan.edges[e] for e in node.incoming)
    return {(plan.nodes[e.source].id, e.source_handle, e.target_handle, e.label, e.content_type) for e in edges}


def reusable(
    plan: Plan, events: Sequence[Event], *, at: PlanNode | None, run: int = 1, changed: Iterable[int] = ()
) -> dict[Run, Event]:
    """The finished runs of nodes that a fork takes over from the log of another run.

    Args:
        plan: the plan of the fork; nodes are the same when their ids are.
        at: the node from whose run number *run* on everything that depends on it is done again.
        changed: nodes that differ from those of the log. Without *at*, all that depends on them is done again, from the beginning;
            with it, so are those that *at* does not lead to, and those that it leads to (in a loop) are others from there on.

    Raises:
        UserError: the log has no such run of *at*, or that run depends on a changed node that comes before it.
    """
    later = downstream(plan, [at.index]) if at is not None else set[int]()
    before = set(changed) - later
    new = downstream(plan, before)
    cut = 0
    if at is not None:
        if run > 1:
            _check_run_of(plan, events, at, run, before, set(changed) & later)
        starts = (e for e in events if e.type is EventType.NODE_STARTED and e.node_id == at.id)
        cut = next((e.seq for e in starts if e.payload.get("run") == run), 0)
        if not cut:
            raise UserError(
                f"'{at.label}' has no run {run} in that run.",
                hint="See run.nodes for what ran how often.",
                node=at.label,
            )
    found: dict[Run, Event] = {}
    for event in events:
        if event.type is not EventType.NODE_COMPLETED or event.payload.get("status") != Status.COMPLETED:
            continue
        index = plan.by_id.get(str(event.node_id))
        if index is None or index in new or (index in later and event.seq > cut):
            continue
        if not (_lost(event.payload.get("output")) or _lost(event.payload.get("text"))):
            found[index, event.payload["run"]] = event
    return found


def _check_run_of(
    plan: Plan, events: Sequence[Event], at: PlanNode, run: int, before: Collection[int], within: Collection[int]
) -> None:
    """See to it that the runs of *at* before the number *run* can be taken over although nodes are changed.

    Args:
        before: changed nodes that *at* does not lead to.
        within: changed nodes that it leads to.

    Raises:
        UserError: they cannot.
    """
    known = {event.node_id for event in events if event.type is EventType.NODE_STARTED}
    upstream = [index for index in before if at.index in downstream(plan, [index])]
    added = [i for i in within if plan.nodes[i].id not in known and at.index in downstream(plan, [i])]
    if upstream or added:
        cause = plan.nodes[min(upstream or added)]
        how = "is changed and comes before it" if upstream else "did not run in its rounds"
        raise UserError(
            f"Run {run} of '{at.label}' depends on '{cause.label}', which {how}.",
            hint="Leave `at` and `of` out: then all that depends on the change runs again.",
            node=cause.label,
        )

"""What a fork takes over from the log of another run, and what it does again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.domain.payloads import NodeCompleted, NodeOutput, NodeStarted
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import UserError
from dipeo_nb.execution.progress import BegunWork, holds_hidden
from dipeo_nb.execution.run_options import NodeRunKey


def begun_work(plan: Plan, events: Iterable[Event], *, without: Iterable[int]) -> BegunWork:
    """What nodes had done before they finished; not that of the nodes *without* and of what depends on them."""
    found = BegunWork()
    changed = downstream(plan, without)
    for event in events:
        index = plan.by_id.get(event.node_id or "")
        if event.type is not EventType.NODE_OUTPUT or index is None or index in changed:
            continue
        output = cast(NodeOutput, event.payload)
        found.take((index, output.get("run", 0)), output)
    return found


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


def upstream(plan: Plan, node: int) -> set[int]:
    """That node and all that it gets something from, loops included."""
    found = {node}
    waiting = [node]
    while waiting:
        for e in plan.nodes[waiting.pop()].incoming:
            if (source := plan.edges[e].source) not in found:
                found.add(source)
                waiting.append(source)
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
) -> dict[NodeRunKey, Event]:
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
        cut = next((e.seq for e in starts if cast(NodeStarted, e.payload).get("run") == run), 0)
        if not cut:
            raise UserError(
                f"'{at.label}' has no run {run} in that run.",
                hint="See run.nodes for what ran how often.",
                node=at.label,
            )
    found: dict[NodeRunKey, Event] = {}
    for event in events:
        if event.type is not EventType.NODE_COMPLETED:
            continue
        completed = cast(NodeCompleted, event.payload)
        if completed.get("status") != Status.COMPLETED:
            continue
        index = plan.by_id.get(str(event.node_id))
        if index is None or index in new or (index in later and event.seq > cut):
            continue
        if not (holds_hidden(completed.get("output")) or holds_hidden(completed.get("text"))):
            found[index, completed["run"]] = event
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
    leading = upstream(plan, at.index)
    earlier = [index for index in before if index in leading]
    added = [index for index in within if index in leading and plan.nodes[index].id not in known]
    if earlier or added:
        cause = plan.nodes[min(earlier or added)]
        how = "is changed and comes before it" if earlier else "did not run in its rounds"
        raise UserError(
            f"Run {run} of '{at.label}' depends on '{cause.label}', which {how}.",
            hint="Leave `at` and `of` out: then all that depends on the change runs again.",
            node=cause.label,
        )

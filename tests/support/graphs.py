"""Small graphs for tests: nodes by label, arrows by labels, and a driver that plays the engine for the scheduler."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dipeo_nb.diagram.graph import link
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.nodes import CodeJobNode, ConditionNode, EndpointNode, NodeSpec, PersonJobNode, StartNode
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.execution import schedule

START = StartNode()
WORK = CodeJobNode(code="x = 1")
COND = ConditionNode(expression="True")
SKIPPABLE = ConditionNode(expression="True", skippable=True)
END = EndpointNode()


def person(limit: int = 1) -> PersonJobNode:
    return PersonJobNode(person="p", default_prompt="hi", max_iteration=limit)


def plan_of(nodes: dict[str, NodeSpec], arrows: Sequence[str]) -> Plan:
    """Arrows are written `A -> B`, with handles as `C[condtrue] -> P[first]` and a label as `A -> B : name`."""
    domain = [(DomainNode(label, spec.META.type, label), spec) for label, spec in nodes.items()]
    drawn: list[DomainArrow] = []
    for i, text in enumerate(arrows):
        ends, _, label = text.partition(" : ")
        (source, out), (target, into) = (_end(part) for part in ends.split(" -> "))
        drawn.append(DomainArrow(f"arrow_{i}", source, target, out, into, label or None))
    plan_nodes, edges = link(domain, drawn)
    diagram = DomainDiagram(tuple(n for n, _ in domain), tuple(drawn))
    return Plan("test", plan_nodes, edges, {}, diagram, by_id={n.id: n.index for n in plan_nodes})


def _end(text: str) -> tuple[str, str]:
    label, _, handle = text.strip().partition("[")
    return label, handle.rstrip("]") or "default"


class Ran(NamedTuple):
    """One run as the driver saw it: who, which time, and what it was given as {source: source's run}."""

    label: str
    run: int
    inputs: dict[str, int]
    fresh: frozenset[str]


Decide = Callable[[PlanNode, dict[str, int]], str]


class Played(NamedTuple):
    runs: list[Ran]
    passes: list[str]
    end: schedule.Finish | schedule.Exhausted

    def count(self, label: str) -> int:
        return sum(r.label == label for r in self.runs)

    def inputs(self, label: str, run: int = 1) -> dict[str, int]:
        return next(r.inputs for r in self.runs if r.label == label and r.run == run)


def play(
    plan: Plan,
    decide: Decide | None = None,
    *,
    seed: int | None = None,
    limit: int = 100,
    scheduler: type[schedule.Scheduler] = schedule.Scheduler,
) -> Played:
    """Run a plan on the bare scheduler. `decide(node, finished runs by label)` names a condition's branch; *seed* ends
    running nodes in a random order instead of first come, first served."""
    order = random.Random(seed)
    finished: dict[str, int] = {}
    runs: list[Ran] = []
    passes: list[str] = []
    running: list[schedule.RunNode] = []
    ends: list[schedule.Finish | schedule.Exhausted] = []

    def take(commands: list[schedule.Command]) -> None:
        for command in commands:
            match command:
                case schedule.RunNode(node=index, run=run, inputs=inputs):
                    sources = {plan.nodes[plan.edges[e].source].label: run for e, run, _ in inputs}
                    fresh = frozenset(plan.nodes[plan.edges[e].source].label for e, _, fresh in inputs if fresh)
                    runs.append(Ran(plan.nodes[index].label, run, sources, fresh))
                    running.append(command)
                case schedule.PassOn(node=index):
                    passes.append(plan.nodes[index].label)
                case schedule.Finish() | schedule.Exhausted():
                    ends.append(command)

    driven = scheduler(plan, max_visits=limit)
    take(driven.step(schedule.Begin()))
    while running and not ends:
        command = running.pop(order.randrange(len(running)) if seed is not None else 0)
        node = plan.nodes[command.node]
        finished[node.label] = finished.get(node.label, 0) + 1
        handle = "default"
        if node.type == "condition":
            handle = decide(node, finished) if decide else "condtrue"
        take(driven.step(schedule.Done(node.index, (handle,))))
    assert len(ends) == 1, "the scheduler says exactly once how the run ended"
    return Played(runs, passes, ends[0])

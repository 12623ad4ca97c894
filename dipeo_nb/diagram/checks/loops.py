"""Checks of loops: which nodes wait for their end, and which would not end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from dipeo_nb.common.text import shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.domain.enums import ConditionType, Severity
from dipeo_nb.domain.nodes import ConditionNode
from dipeo_nb.domain.plan import PlanEdge, PlanNode


class Finding(NamedTuple):
    """One finding on a node."""

    severity: Severity
    code: str
    message: str
    hint: str | None
    node: str
    """Id."""


def check_loops(state: CheckState) -> None:
    """Report on the loops of a diagram that has no errors: only one that can be linked has loops."""
    for severity, code, message, hint, node in _findings(*state.link()):
        state.report(severity, code, message, hint, node=state.nodes[node])


Members = Mapping[int, Sequence[PlanNode]]
"""The nodes of each loop."""
NAMED = 10
"""Nodes that one message names."""


def _findings(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> Iterator[Finding]:
    members: dict[int, list[PlanNode]] = {}
    for node in nodes:
        for loop in node.loops:
            members.setdefault(loop, []).append(node)
    for node in nodes:
        yield from _waits(nodes, edges, members, node)
        if isinstance(node.spec, ConditionNode) and node.spec.condition_type is ConditionType.DETECT_MAX_ITERATIONS:
            yield from _endless(nodes, node)
    yield from _large_limits(nodes, members, get_settings().max_iterations)


def _waits(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge], members: Members, node: PlanNode) -> Iterator[Finding]:
    """A node behind a loop that also takes values of the loop's body."""
    taken = [edges[e] for e in node.incoming if edges[e].gathered >= 0]
    newest = dict.fromkeys(_quoted(nodes[e.source]) for e in taken if e.data)
    if newest:
        loops = dict.fromkeys(e.gathered for e in taken)
        inside = ", then that of ".join(_members(members[loop], loop) for loop in loops)
        yield Finding(
            Severity.INFO,
            "waits-for-loop",
            f"This node runs when the loop of {inside} is over, with the newest value of {_some(newest)}.",
            None,
            node.id,
        )


def _endless(nodes: Sequence[PlanNode], condition: PlanNode) -> Iterator[Finding]:
    """A condition that waits for limits that are not set."""
    unlimited = [nodes[i] for i in condition.judged if nodes[i].written_limit is None]
    if unlimited:
        names = _some([_quoted(n) for n in unlimited])
        yield Finding(
            Severity.WARNING,
            "no-limit",
            f"The loop repeats until {names} {'has' if len(unlimited) == 1 else 'have'} run {unlimited[0].max_runs} times, "
            "the default max_iteration: this condition becomes true when every person_job of its loop has reached its own.",
            f"Give {names} a max_iteration, or use `condition_type: custom`.",
            condition.id,
        )


def _large_limits(nodes: Sequence[PlanNode], members: Members, max_iterations: int) -> Iterator[Finding]:
    """Limits in a loop that are larger than what the run allows by itself."""
    for node in nodes:
        if node.loops and (node.written_limit or 0) > max_iterations:
            yield Finding(
                Severity.INFO,
                "large-limit",
                f"max_iteration is {node.written_limit}, more than the {max_iterations} visits that a run allows a node in a "
                f"loop; in the loop of {_members(members[node.loops[-1]], node.loops[-1])} it allows {max_iterations + node.limit}.",
                None,
                node.id,
            )


def _members(inside: Sequence[PlanNode], loop: int) -> str:
    """A loop by its conditions, or by its nodes when it has none."""
    own = [n for n in inside if n.loops[-1] == loop] or inside
    shown = [n for n in own if n.any_join] or own
    return _some([_quoted(n) for n in shown], 3)


def _some(names: Collection[str], limit: int = NAMED) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(islice(names, limit)) + more


def _quoted(node: PlanNode) -> str:
    return f"'{shorten(node.label)}'"

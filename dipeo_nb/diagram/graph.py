"""The shape of a diagram: loops, what comes after them, and which nodes can still send a token to which.

A *loop* is a strongly connected component. It has one *header*, the node where it is entered; its arrows into the header
are its *back arrows*, and the components that remain without them are the loops inside it. All other arrows are
*forward*; they form no cycle.

A *branch* is the arrows of a node that fire together: `condtrue` or `condfalse` of a condition; `error`, or everything
else, of a node from whose `error` an arrow leads. An *exit* of a loop is an arrow that leaves it and whose branch has no
arrow that stays inside. What an exit leads to is *behind* the loop, and so does what follows from there: it runs when
the loop is over. A node outside that is fed by other arrows of the loop's body runs in every round; it *follows* the loop.

Tokens carry a *stamp*, one counter for each loop whose rounds their node counts (its *chain*): the loops that it follows,
then those that it is in, outermost first. Every loop is behind the same loops in all chains that have it, so what two
chains have in common is a common beginning of both.

An arrow into a node that is behind a loop, from a node that counts its rounds, is *gathered*: the newest value counts.
An arrow from a branch means "only if": into a node with such an arrow, an arrow from elsewhere (neither from the node that
decides nor from what comes after it) brings *data* and starts nothing; nor does a gathered arrow that is not an exit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dipeo_nb.diagram.graph_loops import (
    Ends,
    behind_loops,
    common_length,
    discovery_ranks,
    entered_elsewhere,
    exits_of,
    find_loops,
    only_if_arrows,
    reachable_nodes,
    sequence_of,
)
from dipeo_nb.domain.diagram import DomainArrow, DomainNode
from dipeo_nb.domain.nodes import NodeSpec
from dipeo_nb.domain.plan import NOTHING, Awaited, PlanEdge, PlanNode

Way = tuple[int, int, tuple[int, ...]]
"""Change of a stamp `t` between two nodes: `t[:keep]`, its last counter raised by `add`, then `rest`, then zeros. `rest` has no
zeros at its end: in loops nested a hundred deep there would be a hundred of them in each of thousands of ways."""
Ways = dict[Way, int]
"""Bit mask of the nodes from which each way leads."""
PERSON = "person_job"
ONLY_IF = -1
"""The key of data arrows in `PlanNode.gathers`."""


def link(
    nodes: Sequence[tuple[DomainNode, NodeSpec]], arrows: Sequence[DomainArrow]
) -> tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]]:
    """Turn typed nodes and checked arrows into the plan's nodes and edges.

    Every arrow must name existing nodes (the compiler ensures it).
    """
    index = {node.id: i for i, (node, _) in enumerate(nodes)}
    specs = [spec for _, spec in nodes]
    ends = [(index[a.source], index[a.target]) for a in arrows]
    count = len(nodes)
    incoming: list[list[int]] = [[] for _ in range(count)]
    outgoing: list[list[int]] = [[] for _ in range(count)]
    for e, (source, target) in enumerate(ends):
        outgoing[source].append(e)
        incoming[target].append(e)
    for edges in outgoing:
        edges.sort(key=lambda e: -arrows[e].execution_priority)

    conditions = {i for i, spec in enumerate(specs) if spec.META.type == "condition"}
    order = discovery_ranks(count, ends, incoming, outgoing)
    loops, headers, back = find_loops(count, ends, incoming, conditions, order)
    sequence = sequence_of(ends, loops, back)
    branches = [_branch(arrow, ends[e][0] in conditions) for e, arrow in enumerate(arrows)]
    split = {ends[e][0] for e, branch in enumerate(branches) if branch is not None} | conditions
    skippable = {i for i in conditions if getattr(specs[i], "skippable", False)}

    exits = exits_of(ends, loops, branches, outgoing)
    only_if = only_if_arrows(sequence, ends, incoming, back, split - skippable)
    behind, behind_next = behind_loops(sequence, ends, outgoing, loops, back, exits)
    chains = _chains(sequence, ends, loops, back, behind, only_if)
    gathered = _gathered(ends, chains, back, behind, behind_next)

    first = [_is_first(a, specs[ends[e][1]]) for e, a in enumerate(arrows)]
    data = [e in only_if or (gathered[e] >= 0 and gathered[e] not in exits[e]) for e in range(len(arrows))]
    optional = [source in skippable and gathered[e] < 0 for e, (source, _) in enumerate(ends)]
    collects = [data[e] or gathered[e] >= 0 for e in range(len(arrows))]
    several = entered_elsewhere(ends, loops, headers)
    settled = [
        i not in several and not any(collects[e] or (e in back and chains[ends[e][0]] != chains[i]) for e in into)
        for i, into in enumerate(incoming)
    ]
    alone: set[int] = set()
    for i, into in enumerate(incoming):
        backs = [e for e in into if e in back and not optional[e]]
        if any(collects[e] for e in into):
            continue
        if len(into) == 1:
            alone.update(into)
        elif len(backs) == 1 and i in headers and settled[i] and i not in conditions and not any(first[e] for e in into):
            alone.update(backs)

    plan_edges: list[PlanEdge] = []
    for e, arrow in enumerate(arrows):
        source, target = ends[e]
        keep = len(chains[target]) if e in back else common_length(chains[source], chains[target])
        plan_edges.append(
            PlanEdge(
                index=e,
                arrow_id=arrow.id,
                source=source,
                target=target,
                source_handle=arrow.source_handle,
                target_handle=arrow.target_handle,
                label=arrow.label,
                content_type=arrow.content_type,
                priority=arrow.execution_priority,
                back=e in back,
                optional=optional[e],
                required=not (e in back or optional[e] or first[e] or collects[e]),
                first=first[e],
                gathered=gathered[e],
                data=data[e],
                collects=collects[e],
                alone=e in alone,
                keep=None if chains[source] == chains[target] and e not in back else keep,
            )
        )

    components = [around[0] if around else len(headers) + n for n, around in enumerate(loops)]
    sizes = Counter(components)
    reached = reachable_nodes(count, ends, incoming, outgoing)
    persons = _persons_of_loops(specs, loops)
    limits = {i: _written_limit(node, spec) for i, (node, spec) in enumerate(nodes)}
    largest = _largest_limits(loops, limits)

    waits = _waits(sequence, components, plan_edges, chains, incoming, outgoing, conditions, settled, reached)

    plan_nodes: list[PlanNode] = []
    for i, (node, spec) in enumerate(nodes):
        into = [plan_edges[e] for e in incoming[i]]
        plan_nodes.append(
            PlanNode(
                index=i,
                id=node.id,
                type=spec.META.type,
                label=node.label,
                spec=spec,
                incoming=tuple(incoming[i]),
                outgoing=tuple(outgoing[i]),
                any_join=i in conditions,
                max_runs=getattr(spec, "max_iteration", None),
                written_limit=limits[i],
                loops=loops[i],
                chain=chains[i],
                heads_loop=i in headers,
                entry=chains[i].index(loops[i][-1]) if loops[i] else 0,
                limit=largest[loops[i][-1]] if loops[i] else 0,
                component=components[i],
                component_size=sizes[components[i]],
                required=tuple(e.index for e in into if e.required),
                backs=tuple(e.index for e in into if e.back and not e.optional),
                first=tuple(e.index for e in into if e.first),
                settled=settled[i],
                awaited=waits[i].awaited,
                first_awaited=waits[i].first,
                gathers=waits[i].gathers,
                judged=next((persons[loop] for loop in reversed(loops[i]) if loop in persons), ()) if i in conditions else (),
            )
        )
    return tuple(plan_nodes), tuple(plan_edges)


def judged_by(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge], condition: PlanNode) -> list[PlanNode]:
    """The person_jobs whose limits a `detect_max_iterations` condition watches: those of the innermost loop around it that
    holds any; outside such loops, those from which arrows lead to it."""
    if condition.judged:
        return [nodes[i] for i in condition.judged]
    before = {condition.index}
    waiting = [condition.index]
    while waiting:
        for e in nodes[waiting.pop()].incoming:
            if (source := edges[e].source) not in before:
                before.add(source)
                waiting.append(source)
    return [nodes[i] for i in sorted(before) if nodes[i].type == PERSON]


def _persons_of_loops(specs: Sequence[NodeSpec], loops: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for n, spec in enumerate(specs):
        if spec.META.type == PERSON:
            for loop in loops[n]:
                found.setdefault(loop, []).append(n)
    return {loop: tuple(persons) for loop, persons in found.items()}


def _is_first(arrow: DomainArrow, target: NodeSpec) -> bool:
    return target.META.type == PERSON and (arrow.target_handle == "first" or bool(arrow.data.get("requires_first_execution")))


def _branch(arrow: DomainArrow, condition: bool) -> str | None:
    """The branch that an arrow belongs to; None for the branch of everything that is not an error."""
    return arrow.source_handle if condition or arrow.source_handle == "error" else None


def _written_limit(node: DomainNode, spec: NodeSpec) -> int | None:
    """`max_iteration` of a node where it was set explicitly, rather than the default."""
    limit = getattr(spec, "max_iteration", None)
    if limit is None or (
        "max_iteration" not in node.data and limit == type(spec).__dataclass_fields__["max_iteration"].default
    ):
        return None
    return int(limit)


def _largest_limits(loops: Sequence[tuple[int, ...]], limits: Mapping[int, int | None]) -> dict[int, int]:
    largest: dict[int, int] = {}
    for n, around in enumerate(loops):
        for loop in around:
            largest[loop] = max(largest.get(loop, 0), limits[n] or 0)
    return largest


def _chains(
    sequence: Sequence[int],
    ends: Ends,
    loops: Sequence[tuple[int, ...]],
    back: set[int],
    behind: Sequence[int],
    only_if: set[int],
) -> list[tuple[int, ...]]:
    """The loops whose rounds each node counts.

    Of the chains that arrows bring, one that begins another is a constant to it; of those that part, the common
    beginning counts. A loop as a whole follows what arrows from outside bring to any of its nodes.
    """
    chains: list[tuple[int, ...]] = [()] * len(loops)
    entering: dict[tuple[int, ...] | int, list[int]] = {}
    """Arrows by what they enter: a loop (with those around it), or a node."""
    for e, (source, target) in enumerate(ends):
        if e in back or e in only_if:
            continue
        depth = common_length(loops[source], loops[target])
        entering.setdefault(loops[target][: depth + 1] if depth < len(loops[target]) else target, []).append(e)
    inside: dict[tuple[int, ...], tuple[int, ...]] = {(): ()}
    """The chain of every node in a loop: the loop with those around it."""

    def followed(place: tuple[int, ...] | int, base: tuple[int, ...], target: int) -> tuple[int, ...]:
        brought: set[tuple[int, ...]] = set()
        for e in entering.get(place, ()):
            chain = chains[ends[e][0]]
            cut = next((i for i, loop in enumerate(chain) if behind[target] >> loop & 1), len(chain))
            brought.add(chain[:cut])
        longest = sorted(brought)
        # Sorted, a chain comes right before those that begin with it.
        parted = [a for a, b in pairwise(longest) if b[: len(a)] != a] + longest[-1:]
        shared = parted[0][: common_length(parted[0], parted[-1])] if parted else ()
        return shared if len(shared) > len(base) else base

    for n in sequence:
        around = loops[n]
        known = next(depth for depth in range(len(around), -1, -1) if around[:depth] in inside)
        for depth in range(known + 1, len(around) + 1):
            base = inside[around[: depth - 1]]
            inside[around[:depth]] = (*followed(around[:depth], base, n), around[depth - 1])
        chains[n] = followed(n, inside[around], n)
    return chains


def _gathered(
    ends: Ends,
    chains: Sequence[tuple[int, ...]],
    back: set[int],
    behind: Sequence[int],
    behind_next: Mapping[int, int],
) -> list[int]:
    """Of each arrow, the outermost loop that its target is behind and whose rounds its source counts; -1: none."""
    found: list[int] = []
    for e, (source, target) in enumerate(ends):
        left = behind_next.get(target, 0) if e in back else behind[target]
        found.append(next((loop for loop in chains[source] if left >> loop & 1), -1) if left else -1)
    return found


# Who can still bring a token.


class _Waits(NamedTuple):
    """Whom a node waits for; see the fields of `PlanNode`."""

    awaited: Awaited = NOTHING
    first: Awaited = NOTHING
    gathers: Mapping[int, Awaited] = {}


def _waits(
    sequence: Sequence[int],
    components: Sequence[int],
    edges: Sequence[PlanEdge],
    chains: Sequence[tuple[int, ...]],
    incoming: Sequence[Sequence[int]],
    outgoing: Sequence[Sequence[int]],
    conditions: set[int],
    settled: Sequence[bool],
    reached: set[int],
) -> list[_Waits]:
    """Whom each node waits for.

    Goes from component to component, in an order in which arrows lead ahead. The ways to a node are forgotten as soon as no
    arrow asks for them any more: they are as long as the diagram, and there is one for each node.
    """
    found = [_Waits()] * len(sequence)
    members: dict[int, list[int]] = {}
    for n in sequence:
        members.setdefault(components[n], []).append(n)
    asking = [sum(components[edges[e].target] != components[n] for e in out) for n, out in enumerate(outgoing)]
    ways: dict[int, Ways] = {}

    def awaited(into: Sequence[PlanEdge]) -> Awaited:
        return _awaited(into, ways, reached)

    for inside in members.values():
        _add_component(inside, ways, edges, chains, incoming)
        for n in inside:
            into = [edges[e] for e in incoming[n]]
            if n in conditions:
                found[n] = _Waits(gathers=_gathers(into, awaited))
            elif len(into) == 1 and into[0].required and settled[n]:
                # A token on its only arrow is all that it can wait for.
                found[n] = _Waits(Awaited(0, (), _unreachable(into, reached)))
            else:
                later = [e for e in into if not e.first and not e.optional]
                firsts = [e for e in into if e.first or e.data] if any(e.first for e in into) else []
                found[n] = _Waits(awaited(later), awaited(firsts))
        for n in inside:
            for e in incoming[n]:
                source = edges[e].source
                if components[source] != components[n]:
                    asking[source] -= 1
                    if not asking[source]:
                        del ways[source]
            if not asking[n]:
                del ways[n]
    return found


def _add_component(
    inside: Sequence[int],
    ways: dict[int, Ways],
    edges: Sequence[PlanEdge],
    chains: Sequence[tuple[int, ...]],
    incoming: Sequence[Sequence[int]],
) -> None:
    """Add, for each node of a component, the nodes that can make it run, with the shortest ways in rounds from there; itself is
    one. Those of the components before are known."""
    for n in inside:
        ways[n] = {(len(chains[n]), 0, ()): 1 << n}
    loop = any(edges[e].back for n in inside for e in incoming[n])
    changed = True
    while changed:
        changed = False
        for n in inside:
            found = dict(ways[n])
            for e in incoming[n]:
                if not edges[e].data:
                    _add_ways(found, edges[e], ways)
            found = _shortest(found)
            if found != ways[n]:
                ways[n] = found
                changed = loop  # else one walk in order is enough


def _add_ways(found: Ways, edge: PlanEdge, ways: Mapping[int, Ways]) -> None:
    """Add the ways that end with an arrow."""
    for way, nodes in ways[edge.source].items():
        longer = _extended(way, edge)
        if longer is not None:
            known = found.get(longer)
            found[longer] = known | nodes if known else nodes


def _extended(way: Way, edge: PlanEdge) -> Way | None:
    """A way and one more arrow; None when it goes through the same header twice, so that there is a shorter one."""
    keep, add, rest = way
    if edge.keep is None:
        return way
    if edge.keep < keep:
        keep, add, rest = edge.keep, 0, ()
    counters = edge.keep - keep
    if edge.back:
        if not counters:
            add, rest = add + 1, ()
        elif len(rest) < counters:
            rest = (*rest, *(0,) * (counters - len(rest) - 1), 1)
        else:
            rest = (*rest[: counters - 1], rest[counters - 1] + 1)
        if add > 1 or (rest and rest[-1] > 1):
            return None
    elif len(rest) > counters:
        while counters and not rest[counters - 1]:
            counters -= 1
        rest = rest[:counters]
    return keep, add, rest


def _shortest(ways: Ways) -> Ways:
    """Without those that bring a node's tokens later than another way, whatever the stamp."""
    if len(ways) == 1:
        return ways
    seen: dict[tuple[int, int], int] = {}
    constant = 0
    found: Ways = {}
    for (keep, add, rest), nodes in sorted(ways.items()):
        # In this order a way with the same `keep` and a smaller `add` or `rest` came before. One that keeps less, and
        # brings nothing but zeros behind, is never later.
        nodes &= ~(constant | seen.get((keep, 0), 0) | seen.get((keep, 1), 0))
        if not nodes:
            continue
        found[keep, add, rest] = nodes
        seen[keep, add] = seen.get((keep, add), 0) | nodes
        if not add and not rest:
            constant |= nodes
    return found


def _awaited(edges: Sequence[PlanEdge], ways: Mapping[int, Ways], reached: set[int]) -> Awaited:
    """Whom a node waits for that waits for these of its arrows."""
    if not edges:
        return Awaited(0)
    found: Ways = {}
    n = edges[0].target
    for edge in edges:
        _add_ways(found, edge, ways)
    sources = 0
    kept: list[tuple[int, int, tuple[int, ...], int]] = []
    for (keep, add, rest), nodes in _shortest(found).items():
        if nodes := nodes & ~(1 << n):
            sources = sources | nodes if sources else nodes  # the same object where there is one way
            kept.append((keep, add, rest, nodes))
    return Awaited(sources, tuple(kept), _unreachable(edges, reached))


def _unreachable(edges: Sequence[PlanEdge], reached: set[int]) -> tuple[int, ...]:
    return tuple(e.index for e in edges if e.source not in reached)


def _gathers(edges: Sequence[PlanEdge], awaited: Callable[[Sequence[PlanEdge]], Awaited]) -> dict[int, Awaited]:
    """The arrows a condition waits for, by the loop that it is behind; data arrows are always waited for."""
    data = [e for e in edges if e.data and e.gathered < 0]
    found = {ONLY_IF: awaited(data)} if data else {}
    for loop in {e.gathered for e in edges if e.gathered >= 0}:
        found[loop] = awaited([*data, *(e for e in edges if e.gathered == loop)])
    return found

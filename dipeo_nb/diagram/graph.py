"""The shape of a diagram: loops, back edges and who can hold whom back (diagram-spec §5.3 "Do").

Loops are found as nested strongly connected components. Each loop has one *header*, the node where it is entered;
the edges of the loop into its header are its *back edges*, and without them the graph has no cycle. Every node
follows the rounds of a *chain* of loops: those around it, and those whose exits feed it alone. Tokens carry one
counter per loop of that chain (a *stamp*), so a join can tell the rounds apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dipeo_nb.domain.diagram import DomainArrow, DomainNode
from dipeo_nb.domain.nodes import NodeSpec
from dipeo_nb.domain.plan import PlanEdge, PlanNode


def link(
    nodes: Sequence[tuple[DomainNode, NodeSpec]], arrows: Sequence[DomainArrow]
) -> tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]]:
    """Turn typed nodes and checked arrows into the plan's nodes and edges.

    Every arrow must name existing nodes (the compiler sees to it).
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
    order = _discovery(count, ends, incoming, outgoing)
    loops, headers, back = _loops(count, ends, incoming, conditions, order)
    forward = [e for e in range(len(ends)) if e not in back]
    sequence = _topological(count, ends, forward)
    chains = _chains(sequence, ends, forward, loops)

    first = [_is_first(a, specs[ends[e][1]]) for e, a in enumerate(arrows)]
    optional = [
        ends[e][0] in conditions and bool(getattr(specs[ends[e][0]], "skippable", False)) for e in range(len(ends))
    ]
    required = [tuple(e for e in edges if e not in back and not optional[e] and not first[e]) for edges in incoming]
    required_edges = {e for edges in required for e in edges}
    firsts = [tuple(e for e in edges if first[e]) for edges in incoming]
    # What can still bring a token: sources of required edges and everything before them on forward edges.
    upstream = [0] * count
    held = [0] * count
    held_first = [0] * count
    for n in sequence:
        for e in incoming[n]:
            if e in back:
                continue
            before = upstream[ends[e][0]] | (1 << ends[e][0])
            upstream[n] |= before
            if first[e]:
                held_first[n] |= before
            elif not optional[e]:
                held[n] |= before

    components = {
        n: number
        for number, members in enumerate(_components(range(count), ends, set(range(len(ends)))))
        for n in members
    }
    sizes: dict[int, int] = {}
    for number in components.values():
        sizes[number] = sizes.get(number, 0) + 1
    reached = _reached(count, ends, incoming, outgoing)

    plan_nodes = tuple(
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
            chain=chains[i],
            bump=chains[i].index(headers[i]) if i in headers else None,
            component=components[i],
            component_size=sizes[components[i]],
            required=required[i],
            first=firsts[i],
            ancestors=held[i],
            first_ancestors=held_first[i],
            reachable=i in reached,
        )
        for i, (node, spec) in enumerate(nodes)
    )
    plan_edges = tuple(
        PlanEdge(
            index=e,
            arrow_id=arrow.id,
            source=ends[e][0],
            target=ends[e][1],
            source_handle=arrow.source_handle,
            target_handle=arrow.target_handle,
            label=arrow.label,
            content_type=arrow.content_type,
            priority=arrow.execution_priority,
            back=e in back,
            optional=optional[e],
            required=e in required_edges,
            first=first[e],
            take=_take(chains[ends[e][0]], chains[ends[e][1]]),
        )
        for e, arrow in enumerate(arrows)
    )
    return plan_nodes, plan_edges


def with_limits(nodes: Iterable[PlanNode], limits: dict[int, int]) -> tuple[PlanNode, ...]:
    """The same nodes with other run limits, by index."""
    return tuple(replace(n, max_runs=limits[n.index]) if n.index in limits else n for n in nodes)


def _is_first(arrow: DomainArrow, target: NodeSpec) -> bool:
    return target.META.type == "person_job" and (
        arrow.target_handle == "first" or bool(arrow.data.get("requires_first_execution"))
    )


def _take(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    if source == target:
        return None
    return tuple(source.index(loop) if loop in source else -1 for loop in target)


def _discovery(
    count: int, ends: Sequence[tuple[int, int]], incoming: Sequence[Sequence[int]], outgoing: Sequence[Sequence[int]]
) -> list[int]:
    """Rank of each node in a walk from the roots, in file order; nodes never reached come last."""
    rank = [-1] * count
    number = 0
    roots = [n for n in range(count) if not incoming[n]]
    for root in [*roots, *range(count)]:
        stack = [root]
        while stack:
            n = stack.pop()
            if rank[n] >= 0:
                continue
            rank[n] = number
            number += 1
            stack.extend(ends[e][1] for e in reversed(outgoing[n]) if rank[ends[e][1]] < 0)
    return rank


def _reached(
    count: int, ends: Sequence[tuple[int, int]], incoming: Sequence[Sequence[int]], outgoing: Sequence[Sequence[int]]
) -> set[int]:
    stack = [n for n in range(count) if not incoming[n]]
    seen = set(stack)
    while stack:
        for e in outgoing[stack.pop()]:
            if (target := ends[e][1]) not in seen:
                seen.add(target)
                stack.append(target)
    return seen


def _loops(
    count: int,
    ends: Sequence[tuple[int, int]],
    incoming: Sequence[Sequence[int]],
    conditions: set[int],
    order: Sequence[int],
) -> tuple[list[tuple[int, ...]], dict[int, int], set[int]]:
    """Loops around each node (outermost first), header node → loop, and the back edges."""
    around: list[tuple[int, ...]] = [()] * count
    headers: dict[int, int] = {}
    back: set[int] = set()
    work: list[tuple[list[int], set[int]]] = [(list(range(count)), set(range(len(ends))))]
    number = 0
    while work:
        members, edges = work.pop()
        components = _components(members, ends, edges)
        place = {n: i for i, component in enumerate(components) for n in component}
        inside_of: dict[int, set[int]] = {}
        for e in edges:
            source, target = ends[e]
            if place[source] == place[target]:
                inside_of.setdefault(place[source], set()).add(e)
        for i, inner in sorted(inside_of.items()):
            component = components[i]
            inside = set(component)
            entries = {n for n in component if any(ends[e][0] not in inside for e in incoming[n])} or inside
            header = _header(entries, inner, ends, conditions, order)
            closing = {e for e in inner if ends[e][1] == header}
            for n in component:
                around[n] = (*around[n], number)
            headers[header] = number
            number += 1
            back |= closing
            work.append((component, inner - closing))
    return around, headers, back


def _header(
    entries: set[int], inner: set[int], ends: Sequence[tuple[int, int]], conditions: set[int], order: Sequence[int]
) -> int:
    """Where a loop is entered. Of several entries the one that a condition of the loop leads back to, as its author
    drew the closing edge there; else the first one met from the roots."""
    closed_by_condition = {ends[e][1] for e in inner if ends[e][0] in conditions and ends[e][1] in entries}
    return min(closed_by_condition or entries, key=lambda n: order[n])


def _components(members: Iterable[int], ends: Sequence[tuple[int, int]], edges: set[int]) -> list[list[int]]:
    """Strongly connected components of a subgraph (Tarjan, without recursion)."""
    members = list(members)
    next_nodes: dict[int, list[int]] = {n: [] for n in members}
    for e in edges:
        source, target = ends[e]
        if source in next_nodes and target in next_nodes:
            next_nodes[source].append(target)
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    found: list[list[int]] = []
    for root in members:
        if root in number:
            continue
        path = [(root, iter(next_nodes[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while path:
            n, following = path[-1]
            for target in following:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    on_stack.add(target)
                    path.append((target, iter(next_nodes[target])))
                    break
                if target in on_stack:
                    low[n] = min(low[n], number[target])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[n])
                if low[n] == number[n]:
                    component: list[int] = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == n:
                            break
                    found.append(component)
    return found


def _topological(count: int, ends: Sequence[tuple[int, int]], forward: Sequence[int]) -> list[int]:
    waiting = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for e in forward:
        waiting[ends[e][1]] += 1
        after[ends[e][0]].append(ends[e][1])
    ready = [n for n in range(count) if not waiting[n]]
    for n in ready:  # grows while it is walked
        for target in after[n]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return ready


def _chains(
    sequence: Sequence[int], ends: Sequence[tuple[int, int]], forward: Sequence[int], loops: Sequence[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Loops whose rounds a node follows: those that all its forward sources follow, then those around it."""
    sources: list[list[int]] = [[] for _ in loops]
    for e in forward:
        sources[ends[e][1]].append(ends[e][0])
    chains = list(loops)
    for n in sequence:
        shared: tuple[int, ...] = ()
        if sources[n]:
            shared = chains[sources[n][0]]
            for s in sources[n][1:]:
                if shared != chains[s]:
                    shared = tuple(loop for loop in shared if loop in chains[s])
        chains[n] = (*shared, *(loop for loop in loops[n] if loop not in shared))
    return chains

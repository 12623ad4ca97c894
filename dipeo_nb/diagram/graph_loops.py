"""Loops of a graph of nodes and arrows by number: components, headers, exits, and the nodes after a loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Ends = Sequence[tuple[int, int]]
"""(source, target) of each arrow, by index."""


def entered_elsewhere(ends: Ends, loops: Sequence[tuple[int, ...]], headers: Mapping[int, int]) -> set[int]:
    """Headers of loops that are entered at other nodes, too: there a round may come back before the first one began."""
    entered = {
        loop
        for source, target in ends
        for loop in loops[target][common_length(loops[source], loops[target]) :]
        if headers.get(target) != loop
    }
    return {header for header, loop in headers.items() if loop in entered}


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common beginning."""
    if one == other:
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# What comes after a loop, and what follows it.


def exits_of(
    ends: Ends, loops: Sequence[tuple[int, ...]], branches: Sequence[str | None], outgoing: Sequence[Sequence[int]]
) -> list[frozenset[int]]:
    """Of each arrow, the loops that it is an exit of."""
    staying: dict[tuple[int, str | None], set[int]] = {}
    """Loops in which some arrow of a branch stays."""
    for e, (source, target) in enumerate(ends):
        if loops[source]:
            shared = loops[source][: common_length(loops[source], loops[target])]
            staying.setdefault((source, branches[e]), set()).update(shared)
    found: list[frozenset[int]] = []
    for e, (source, target) in enumerate(ends):
        if not loops[source]:
            found.append(frozenset())
            continue
        left = loops[source][common_length(loops[source], loops[target]) :]
        found.append(frozenset(left) - staying[source, branches[e]])
    return found


def only_if_arrows(
    sequence: Sequence[int],
    ends: Ends,
    incoming: Sequence[Sequence[int]],
    back: set[int],
    deciding: set[int],
) -> set[int]:
    """Arrows that start nothing, because others decide whether their target runs."""
    number = {n: i for i, n in enumerate(n for n in sequence if n in deciding)}
    above = [0] * len(sequence)
    """Bit mask of the deciding nodes before each node (over forward arrows) and of itself, as long as arrows ask for it."""
    asking = [0] * len(sequence)
    for e, (source, _) in enumerate(ends):
        asking[source] += e not in back
    found: set[int] = set()
    for n in sequence:
        forward = [e for e in incoming[n] if e not in back]
        before = deciders = 0
        for e in forward:
            source = ends[e][0]
            before = before | above[source] if before else above[source]
            if source in deciding:
                deciders |= 1 << number[source]
        if deciders:
            found.update(e for e in forward if not above[ends[e][0]] & deciders)
        above[n] = before | 1 << number[n] if n in deciding else before
        for e in forward:
            source = ends[e][0]
            asking[source] -= 1
            if not asking[source]:
                above[source] = 0
    return found


def behind_loops(
    sequence: Sequence[int],
    ends: Ends,
    outgoing: Sequence[Sequence[int]],
    loops: Sequence[tuple[int, ...]],
    back: set[int],
    exits: Sequence[frozenset[int]],
) -> tuple[list[int], dict[int, int]]:
    """The loops that each node comes after; and, by header, those that the next iteration of its loop comes after: bit masks of
    the loops' numbers."""
    nodes = [0] * len(loops)
    if not any(exits):
        return nodes, {}
    whole = {loop: 0 for around in loops for loop in around}
    following: dict[int, int] = {}
    # All that leads to a node, or into a loop around it, stands before it.
    for n in sequence:
        here = nodes[n]
        for loop in loops[n]:
            if whole[loop]:
                here |= whole[loop]
        nodes[n] = here
        for e in outgoing[n]:
            brought, target = here, ends[e][1]
            for loop in exits[e]:
                brought |= 1 << loop
            if not brought:
                continue
            if e in back:
                following[target] = following.get(target, 0) | brought
                continue
            depth = common_length(loops[n], loops[target])
            if depth < len(loops[target]):
                entered = loops[target][depth]
                whole[entered] = whole[entered] | brought if whole[entered] else brought
            else:
                nodes[target] = nodes[target] | brought if nodes[target] else brought
    return nodes, following


# Loops.


def discovery_ranks(count: int, ends: Ends, incoming: Sequence[Sequence[int]], outgoing: Sequence[Sequence[int]]) -> list[int]:
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


def reachable_nodes(count: int, ends: Ends, incoming: Sequence[Sequence[int]], outgoing: Sequence[Sequence[int]]) -> set[int]:
    """Nodes that a node without incoming arrows leads to."""
    stack = [n for n in range(count) if not incoming[n]]
    seen = set(stack)
    while stack:
        for e in outgoing[stack.pop()]:
            if (target := ends[e][1]) not in seen:
                seen.add(target)
                stack.append(target)
    return seen


def find_loops(
    count: int,
    ends: Ends,
    incoming: Sequence[Sequence[int]],
    conditions: set[int],
    order: Sequence[int],
) -> tuple[list[tuple[int, ...]], dict[int, int], set[int]]:
    """Loops around each node (outermost first), header node → loop, and the back edges."""
    around: list[list[int]] = [[] for _ in range(count)]
    headers: dict[int, int] = {}
    back: set[int] = set()
    work: list[tuple[list[int], set[int]]] = [(list(range(count)), set(range(len(ends))))]
    number = 0
    while work:
        members, edges = work.pop()
        components = components_of(members, ends, edges)
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
                around[n].append(number)
            headers[header] = number
            number += 1
            back |= closing
            work.append((component, inner - closing))
    return [tuple(loops) for loops in around], headers, back


def _header(entries: set[int], inner: set[int], ends: Ends, conditions: set[int], order: Sequence[int]) -> int:
    """The node where a loop is entered. Of several entries the one that a condition of the loop leads back to, as its author
    drew the closing edge there; else the first one met from the roots."""
    closed_by_condition = {ends[e][1] for e in inner if ends[e][0] in conditions and ends[e][1] in entries}
    return min(closed_by_condition or entries, key=lambda n: order[n])


def components_of(members: Iterable[int], ends: Ends, edges: set[int]) -> list[list[int]]:
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


def sequence_of(ends: Ends, loops: Sequence[tuple[int, ...]], back: set[int]) -> list[int]:
    """The nodes in an order in which forward arrows lead ahead; a loop begins when all that leads into it is placed."""
    waiting = [0] * len(loops)
    closed: dict[int, int] = {loop: 0 for around in loops for loop in around}
    """Arrows that lead into each loop and whose source is not placed yet."""
    inside: dict[int, list[int]] = {loop: [] for loop in closed}
    for n, around in enumerate(loops):
        for loop in around:
            inside[loop].append(n)
    after: list[list[int]] = [[] for _ in loops]
    for e, (source, target) in enumerate(ends):
        if e in back:
            continue
        waiting[target] += 1
        after[source].append(target)
        for loop in loops[target][common_length(loops[source], loops[target]) :]:
            closed[loop] += 1

    def ready(n: int) -> bool:
        return not waiting[n] and not any(closed[loop] for loop in loops[n])

    placed = [n for n in range(len(loops)) if ready(n)]
    seen = set(placed)
    for n in placed:  # grows while it is walked
        candidates: list[int] = []
        for target in after[n]:
            waiting[target] -= 1
            candidates.append(target)
            for loop in loops[target][common_length(loops[n], loops[target]) :]:
                closed[loop] -= 1
                if not closed[loop]:
                    candidates.extend(inside[loop])
        for m in candidates:
            if m not in seen and ready(m):
                seen.add(m)
                placed.append(m)
    return placed

"""The scheduler: `step(plan, state, tick) → (state, commands)`, a pure function over frozen data.

How a run moves (what loops, exits, chains, gathered and data arrows are, `diagram.graph` says):

1. A run's output goes as one token on each arrow of the branch that fires. Each edge is a queue of tokens; a token carries
   its *stamp* and which run of its source made it. Each token is consumed by exactly one run. Nodes without arrows in
   run once, at the start.
2. A node may run for the smallest stamp among its waiting tokens (data arrows aside) as soon as nothing can still come to
   it for that stamp or an earlier one: no node that is ready, running or holds such a token is left from which a path of
   arrows, back arrows included, brings one. This is the join, the dead branch, the order of rounds and the waiting
   behind a loop. Not waited for: arrows from a skippable condition, unless they are gathered; on the first run of a
   person_job with a token on a `first` arrow everything but these and data arrows; on its later runs the `first` arrows.
3. Conditions do not wait: each run of a source that reaches one is a run of its own, in the order of arrival. Only what is
   gathered from one loop is waited for and taken as one, and so are data arrows.
4. A run consumes from each arrow its oldest token if that has the stamp of the run; from a gathered or data arrow all
   tokens up to that stamp, of which the newest counts. An arrow without a token gives its last value again (`first` arrows
   never do). The first run of a person_job with a token on a `first` arrow takes `first` and data arrows only.
5. A node to which nothing came, or only data, is skipped.
6. A node at its run limit consumes its tokens and passes its last output on within its outermost loop, so that the loop's
   condition can decide; a token that has been passed on as often as the loop has nodes is dropped.
7. What a run consumes is fixed when it becomes ready, not when it starts, so the outcome does not depend on timing.
8. A node in a loop may be visited (runs and passes) as often as the limit of the run and the largest limit written in its
   innermost loop allow together, each time the loop is entered; one visit more, and the loop counts as endless.
9. The run is over when nothing is active. Tokens left then, other than data, mean a deadlock: an input is awaited from
   a node that no start leads to.

Cost: a step touches the nodes it wakes, never the whole diagram. A waiting join watches one active ancestor at a time.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from rpds import HashTrieMap

from dipeo_nb.domain.plan import Awaited, Plan, PlanEdge, PlanNode

Stamp = tuple[int, ...]


class Token(NamedTuple):
    """One output travelling along one edge."""

    stamp: Stamp
    run: int
    """Run of the source node whose output it carries (1-based)."""
    passes: int = 0
    """How often nodes at their limit have handed it on since the last real run."""
    order: int = 0
    """Its place among the tokens that reached a condition."""


class Input(NamedTuple):
    """One edge's contribution to a run."""

    edge: int
    run: int
    """Run of the edge's source."""
    fresh: bool
    """False: the value was consumed by an earlier run and is still valid."""


class Begin(NamedTuple):
    """Tick: start the run."""


class Done(NamedTuple):
    """Tick: the run of a node ended and its output leaves on these handles."""

    node: int
    handles: tuple[str, ...]


Tick = Begin | Done


class RunNode(NamedTuple):
    """Command: run a node."""

    node: int
    run: int
    """1-based."""
    stamp: Stamp
    inputs: tuple[Input, ...]


class PassOn(NamedTuple):
    """Command (a notice): the node is at its limit; its last output went on (or was dropped) instead of a run."""

    node: int
    run: int
    """The run whose output is passed on."""


class Finish(NamedTuple):
    """Command: nothing is active any more."""

    skipped: tuple[int, ...]
    """Nodes that no token ever reached."""
    blocked: tuple[tuple[int, tuple[int, ...]], ...]
    """Deadlock: node → edges it still waits for; empty when all is well."""


class Exhausted(NamedTuple):
    """Command: a node was visited more often than the limit allows; the loop does not end."""

    node: int
    visits: int


Command = RunNode | PassOn | Finish | Exhausted


# What the scheduler knows of one node and of one edge. Plain tuples, always unpacked whole: they are made several times
# in every step, and a named tuple costs ten times as much to make.
NodeState = tuple[int, int, Stamp, Stamp | None, int, int, int, Stamp | None]
"""(runs made ready so far, visits (runs and passes) since its innermost loop was entered, which entry of that loop this is,
stamp of the run that is ready or running or None, required edges with a token, tokens waiting, the active ancestor it
watches or -1, smallest stamp among the tokens next on their edges). Tokens on data edges do not count."""
EdgeState = tuple[tuple[Token, ...], int]
"""(tokens waiting, oldest first; run of its source last consumed, 0 for none)"""


class State(NamedTuple):
    """The scheduler's whole memory; equal states behave alike."""

    nodes: HashTrieMap[int, NodeState]
    edges: HashTrieMap[int, EdgeState]
    watchers: HashTrieMap[int, tuple[int, ...]]
    active: int
    """Bit mask of the nodes that are ready, running or hold tokens (other than data)."""
    busy: int
    """How many are ready or running."""
    arrivals: int
    """Tokens that have reached conditions."""
    finished: bool


_FRESH: NodeState = (0, 0, (), None, 0, 0, -1, None)
_EMPTY: EdgeState = ((), 0)
_PASSED_HANDLES: tuple[str, ...] = ("default", "success", "results")


def initial() -> State:
    """The state before `Begin`."""
    return State(HashTrieMap(), HashTrieMap(), HashTrieMap(), 0, 0, 0, False)


def step(plan: Plan, state: State, tick: Tick, *, max_visits: int = 100) -> tuple[State, tuple[Command, ...]]:
    """Advance by one tick.

    Args:
        max_visits: visits of one node (runs and passes) after which its loop counts as endless; limits that are written
            in the loop are added.

    Returns:
        The next state and what is to be done, in order. `Finish` or `Exhausted` come last and at most once.
    """
    work = _Step(plan, state, max_visits)
    if isinstance(tick, Begin):
        for node in plan.nodes:
            if not node.incoming:
                work.start(node, (0,) * len(node.chain), [])
    else:
        work.done(tick)
    work.settle()
    return work.result()


def needed_outputs(plan: Plan, state: State, node: int) -> set[int]:
    """Runs of *node* whose output an edge can still ask for."""
    needed: set[int] = set()
    for e in plan.nodes[node].outgoing:
        tokens, last = state.edges.get(e, _EMPTY)
        needed.update(token.run for token in tokens)
        needed.add(last)
    return needed


Taken = tuple[int, Token, int]
"""(edge, the token that counts, how many tokens leave the queue)"""


class _Step:
    """The working copy of one step: persistent maps are replaced, never changed."""

    __slots__ = (
        "active",
        "arrivals",
        "busy",
        "commands",
        "direct",
        "edges",
        "finished",
        "limit",
        "nodes",
        "plan",
        "todo",
        "watchers",
    )

    def __init__(self, plan: Plan, state: State, max_visits: int) -> None:
        self.plan = plan
        self.nodes, self.edges, self.watchers, self.active, self.busy, self.arrivals, self.finished = state
        self.limit = max_visits
        self.commands: list[Command] = []
        self.todo: deque[int] = deque()
        self.direct: dict[int, tuple[int, Token]] = {}
        """Tokens that reach an idle node with one edge: consumed within the step, they never stand in a queue."""

    def result(self) -> tuple[State, tuple[Command, ...]]:
        state = State(self.nodes, self.edges, self.watchers, self.active, self.busy, self.arrivals, self.finished)
        return state, tuple(self.commands)

    def done(self, tick: Done) -> None:
        n = tick.node
        runs, visits, entry, stamp, have, queued, _, low = self.nodes[n]
        if stamp is None:
            raise ValueError(f"node {n} was not running")
        self.nodes = self.nodes.insert(n, (runs, visits, entry, None, have, queued, -1, low))
        self.busy -= 1
        self.emit(self.plan.nodes[n], tick.handles, Token(stamp, runs), only_inside=False)
        self.left(n)

    def left(self, n: int) -> None:
        """A run or a pass of *n* is over."""
        if self.nodes[n][5]:  # its own token may have come back to it
            self.todo.append(n)
        else:
            self.active &= ~(1 << n)
        self.wake(n)

    def emit(self, node: PlanNode, handles: tuple[str, ...], token: Token, *, only_inside: bool) -> None:
        edges = self.plan.edges
        for e in node.outgoing:
            edge = edges[e]
            if edge.source_handle not in handles:
                continue
            target = self.plan.nodes[edge.target]
            if only_inside and target.component != node.component:
                continue
            stamp = token.stamp
            if edge.keep is not None:
                stamp = stamp[: edge.keep]
                if edge.back:
                    stamp = (*stamp[:-1], stamp[-1] + 1)
                elif len(target.chain) > edge.keep:
                    stamp += (0,) * (len(target.chain) - edge.keep)
            self.push(target, edge, Token(stamp, token.run, token.passes))

    def push(self, target: PlanNode, edge: PlanEdge, token: Token) -> None:
        n, e = target.index, edge.index
        runs, visits, entry, busy, have, queued, watched, low = self.nodes.get(n, _FRESH)
        collects = edge.data or edge.gathered >= 0
        if busy is None and not queued and not collects and n not in self.direct and len(target.incoming) == 1:
            self.direct[n] = (e, token)
            self.active |= 1 << n
            self.todo.append(n)
            return
        if target.any_join:
            self.arrivals += 1
            token = token._replace(order=self.arrivals)
        tokens, last = self.edges.get(e, _EMPTY)
        before = len(tokens)
        if collects:  # only the newest counts: the others need not be kept
            while tokens and tokens[-1].stamp >= token.stamp:
                tokens = tokens[:-1]
        tokens = (*tokens, token)
        self.edges = self.edges.insert(e, (tokens, last))
        if edge.data:
            return
        queued += len(tokens) - before
        if not before and edge.required:
            have += 1
        if low is None or tokens[0].stamp < low or edge.first:
            watched = -1  # what it waited for may not hold it back now
        if low is None or tokens[0].stamp < low:
            low = tokens[0].stamp
        self.nodes = self.nodes.insert(n, (runs, visits, entry, busy, have, queued, watched, low))
        self.active |= 1 << n
        if busy is None:
            self.todo.append(n)

    def wake(self, n: int) -> None:
        """The activity of *n* changed: those who watched it look again."""
        watching = self.watchers.get(n)
        if watching:
            self.watchers = self.watchers.remove(n)
            for waiting in watching:
                state = self.nodes[waiting]
                if state[6] == n:
                    self.nodes = self.nodes.insert(waiting, (*state[:6], -1, state[7]))
                    self.todo.append(waiting)
                elif self.plan.nodes[waiting].any_join:
                    self.todo.append(waiting)

    def watch(self, waiting: int, n: int) -> None:
        state = self.nodes[waiting]
        self.nodes = self.nodes.insert(waiting, (*state[:6], n, state[7]))
        watching = self.watchers.get(n) or ()
        if waiting not in watching:
            self.watchers = self.watchers.insert(n, (*watching, waiting))

    def settle(self) -> None:
        while self.todo and not self.finished:
            self.consider(self.todo.popleft())
        if not self.busy and not self.finished:
            self.finish()

    def consider(self, n: int) -> None:
        """Make *n* ready if nothing holds it back."""
        node = self.plan.nodes[n]
        direct = self.direct.pop(n, None)
        if direct is not None:
            self.start(node, direct[1].stamp, [(*direct, 0)], queue=False)
            return
        runs, _, _, busy, have, queued, watched, stamp = self.nodes.get(n, _FRESH)
        if busy is not None or not queued:
            return
        if node.any_join:
            self.decide(node)
            return
        assert stamp is not None  # it holds a token
        opening = runs == 0 and bool(node.first)
        firsts = [q[0].stamp for e in node.first if (q := self.waiting(e))] if opening else []
        if firsts:
            stamp = min(firsts)
            needed, awaited = node.first, node.first_awaited
        elif node.heads_loop and stamp[-1]:
            needed, awaited = node.backs, node.awaited
        else:
            needed, awaited = node.required, node.awaited
            if watched >= 0 and have < len(needed):
                return  # still watching; it is called again when the blocker moves
        # Rounds of an earlier entry may still come back to the header of a loop that is entered again; and what enters the
        # loop may still come where a `first` arrow has begun it.
        settled = node.settled and not (node.heads_loop and any(stamp) and (node.first or not stamp[-1]))
        if not (settled and self.complete(needed, stamp) and bool(firsts) == opening):
            if watched >= 0:
                return
            blocker = self.blocker(awaited, stamp)
            if blocker < 0 and opening and not firsts:
                awaited = node.first_awaited
                blocker = self.blocker(awaited, stamp)
            if blocker >= 0:
                self.watch(n, blocker)
                return
            if awaited.unreachable:
                return  # for ever: reported when the run ends
        taken: list[Taken] = []
        for e in node.incoming:
            edge = self.plan.edges[e]
            if firsts and not (edge.first or edge.data):
                continue
            if one := self.next(edge, stamp):
                taken.append(one)
        self.start(node, stamp, taken)

    def decide(self, node: PlanNode) -> None:
        """Make a condition ready for what reached it first and does not wait."""
        edges = self.plan.edges
        heads = sorted((q[0].order, e) for e in node.incoming if not edges[e].data and (q := self.waiting(e)))
        for _, e in heads:
            token, loop = self.waiting(e)[0], edges[e].gathered
            awaited = node.gathers.get(loop)
            if awaited is not None:
                blocker = self.blocker(awaited, token.stamp)
                if blocker >= 0:
                    self.watch(node.index, blocker)
                    continue
                if awaited.unreachable:
                    continue
            taken: list[Taken] = []
            for other in node.incoming:
                edge = edges[other]
                if edge.gathered == loop >= 0 or (edge.data and edge.gathered < 0):
                    if one := self.next(edge, token.stamp):
                        taken.append(one)
                elif edge.gathered == loop < 0 and edge.source == edges[e].source:
                    tokens = self.waiting(other)
                    if tokens and tokens[0].run == token.run:
                        taken.append((other, tokens[0], 1))
            self.start(node, token.stamp, taken)
            return

    def next(self, edge: PlanEdge, stamp: Stamp) -> Taken | None:
        """What a run for *stamp* takes from an edge."""
        tokens = self.waiting(edge.index)
        if not tokens:
            return None
        if edge.data or edge.gathered >= 0:
            many = sum(token.stamp <= stamp for token in tokens)
            return (edge.index, tokens[many - 1], many) if many else None
        return (edge.index, tokens[0], 1) if tokens[0].stamp == stamp else None

    def complete(self, awaited: tuple[int, ...], stamp: Stamp) -> bool:
        for e in awaited:
            tokens = self.waiting(e)
            if not tokens or tokens[0].stamp != stamp:
                return False
        return True

    def waiting(self, e: int) -> tuple[Token, ...]:
        return self.edges.get(e, _EMPTY)[0]

    def earliest(self, n: int) -> Stamp | None:
        """The smallest stamp at which a node is active; None when it is not."""
        _, _, _, busy, _, _, _, low = self.nodes.get(n, _FRESH)
        direct = self.direct[n][1].stamp if n in self.direct else None
        return min((stamp for stamp in (busy, low, direct) if stamp is not None), default=None)

    def blocker(self, awaited: Awaited, stamp: Stamp) -> int:
        """An active node that may still bring a token for *stamp* or an earlier one; -1 when there is none."""
        if not awaited.sources & self.active:
            return -1
        for keep, add, rest, nodes in awaited.ways:
            mask = nodes & self.active
            while mask:
                n = mask.bit_length() - 1  # the last in file order tends to end last: few look again for nothing
                if not keep and not any(rest):
                    return n
                theirs = self.earliest(n)
                if theirs is None or _brought(theirs, keep, add, rest) <= stamp:
                    return n
                mask ^= 1 << n
        return -1

    def start(self, node: PlanNode, stamp: Stamp, taken: list[Taken], *, queue: bool = True) -> None:
        n = node.index
        runs, visits, entry, _, have, queued, _, low = self.nodes.get(n, _FRESH)
        opening = runs == 0
        inputs: list[Input] = []
        if runs and len(taken) < len(node.incoming):
            fresh = {e for e, _, _ in taken}
            inputs = [
                Input(e, run, False)
                for e in node.incoming
                if e not in fresh and not self.plan.edges[e].first and (run := self.edges.get(e, _EMPTY)[1])
            ]
        for e, token, many in taken:
            inputs.append(Input(e, token.run, True))
            if queue:
                tokens = self.edges[e][0][many:]
                self.edges = self.edges.insert(e, (tokens, token.run))
                edge = self.plan.edges[e]
                if not edge.data:
                    queued -= many
                if not tokens and edge.required:
                    have -= 1
        if queue:
            heads = (q[0].stamp for e in node.incoming if not self.plan.edges[e].data and (q := self.waiting(e)))
            low = min(heads, default=None) if queued else None
        if node.loops:
            here = stamp[: node.entry]
            visits = visits + 1 if here <= entry or not visits else 1
            entry = max(entry, here)
            if visits > self.limit + node.limit:
                self.finished = True
                self.commands.append(Exhausted(n, visits - 1))
                return
        if node.max_runs is not None and not opening and runs >= node.max_runs:
            passes = max(token.passes for e, token, _ in taken if not self.plan.edges[e].data) + 1
            self.pass_on(node, stamp, (runs, visits, entry, None, have, queued, -1, low), passes)
            return
        self.nodes = self.nodes.insert(n, (runs + 1, visits, entry, stamp, have, queued, -1, low))
        self.active |= 1 << n
        self.busy += 1
        self.commands.append(RunNode(n, runs + 1, stamp, tuple(inputs)))

    def pass_on(self, node: PlanNode, stamp: Stamp, state: NodeState, passes: int) -> None:
        n = node.index
        self.nodes = self.nodes.insert(n, state)
        self.commands.append(PassOn(n, state[0]))
        if passes <= node.component_size:
            self.emit(node, _PASSED_HANDLES, Token(stamp, state[0], passes), only_inside=True)
        self.left(n)

    def finish(self) -> None:
        self.finished = True
        blocked: list[tuple[int, tuple[int, ...]]] = []
        skipped: list[int] = []
        for node in self.plan.nodes:
            runs, _, _, _, _, queued, _, _ = self.nodes.get(node.index, _FRESH)
            if queued:
                missing = (node.first_awaited if runs == 0 and node.first else node.awaited).unreachable
                missing += tuple(e for gathers in node.gathers.values() for e in gathers.unreachable)
                blocked.append((node.index, tuple(dict.fromkeys(missing))))
            elif not runs:
                skipped.append(node.index)
        # Others that wait for those need not be named.
        blocked = [one for one in blocked if one[1]] or blocked
        self.commands.append(Finish(tuple(skipped), tuple(blocked)))


def _brought(theirs: Stamp, keep: int, add: int, rest: Stamp) -> Stamp:
    """The stamp of a token that comes a certain way from a node with the stamp *theirs*."""
    if add:
        return (*theirs[: keep - 1], theirs[keep - 1] + 1, *rest)
    return (*theirs[:keep], *rest)

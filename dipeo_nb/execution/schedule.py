"""The scheduler: `Scheduler(plan).step(tick) → commands`. It depends on nothing but the plan and the ticks it has seen: equal ticks
give equal commands, so a run that is resumed continues where its log ends once the ticks in it have been gone through again.

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
from typing import Any, NamedTuple

from dipeo_nb.domain.plan import Awaited, Plan, PlanEdge, PlanNode, Route

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


Input = tuple[int, int, bool]
"""One edge's contribution to a run: the edge, the run of its source, and whether it is fresh; else the value was consumed by an
earlier run and is still valid. (A plain tuple, since one is made in every step.)"""


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
    """Command (a notice): the node is at its limit; its last output was passed on (or dropped) instead of a run."""

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


_PASSED_HANDLES: tuple[str, ...] = ("default", "success", "results")
_new = tuple.__new__
"""Makes a named tuple in half the time; several are made in every step."""
_NOTHING: Any = ()
"""What stands for an empty list: most nodes and arrows never need one, and the collector of cycles looks through each."""


class _Node:
    """What the scheduler knows of a node. Tokens on data edges do not count."""

    __slots__ = ("busy", "direct", "entry", "have", "low", "plan", "queued", "runs", "visits", "watched", "watchers")

    def __init__(self, node: PlanNode) -> None:
        self.plan = node
        self.runs = self.visits = self.have = self.queued = 0
        """Runs made ready so far; runs and passes since its innermost loop was entered; required edges with a token; tokens waiting."""
        self.entry: Stamp = ()
        """Which entry of that loop this is."""
        self.busy: Stamp | None = None
        """Stamp of the run that is ready or running."""
        self.direct: Token | None = None
        """A token on the way to an idle node: consumed within the step, it never stands in a queue."""
        self.watched = -1
        """The active ancestor it watches."""
        self.watchers: dict[_Node, None] = _NOTHING
        self.low: Stamp | None = None
        """Smallest stamp among the tokens next on their edges."""

    @property
    def earliest(self) -> Stamp | None:
        """The smallest stamp at which it is active; None when it is not."""
        direct = self.direct.stamp if self.direct is not None else None
        return min((stamp for stamp in (self.busy, self.low, direct) if stamp is not None), default=None)


Taken = tuple[PlanEdge, Token, int]
"""(edge, the token that counts, how many tokens leave the queue)"""


class Scheduler:
    """What is ready in one run.

    Args:
        max_visits: visits of one node (runs and passes) after which its loop counts as endless; limits that are written
            in the loop are added.
    """

    def __init__(self, plan: Plan, *, max_visits: int = 100) -> None:
        self._nodes = [_Node(node) for node in plan.nodes]
        self._edges, self._routes = plan.edges, plan.routes
        self._max_visits = max_visits
        self._tokens: list[list[Token]] = [_NOTHING] * len(plan.edges)
        """By arrow, those that wait, oldest first."""
        self._last = [0] * len(plan.edges)
        """By arrow, the run of its source that was last consumed; 0: none."""
        self._active = 0
        """Bit mask of the nodes that are ready, running or hold tokens (other than data)."""
        self._busy = 0
        """How many are ready or running."""
        self._arrivals = 0
        """Tokens that have reached conditions."""
        self._finished = False
        self._todo: deque[_Node] = deque()
        """Nodes that may be ready."""
        self._commands: list[Command] = []

    def step(self, tick: Tick) -> list[Command]:
        """Advance by one tick.

        Returns:
            What is to be done, in order. `Finish` or `Exhausted` come last and at most once.

        Raises:
            ValueError: a node is done that was not running.
        """
        self._commands = commands = []
        todo = self._todo
        if type(tick) is Done:
            nodes = self._nodes
            node = nodes[tick[0]]
            stamp = node.busy
            if stamp is None:
                raise ValueError(f"node {tick[0]} was not running")
            node.busy = None
            node.watched = -1
            self._busy -= 1
            edges, edge, others = self._routes[tick[0]].get(tick[1]) or self._route(node.plan, tick[1])
            if edge is not None and (target := nodes[edge.target]).busy is None and not target.queued:
                # Nothing else can be ready before it: the token need not be put anywhere.
                if node.queued or node.watchers:
                    self._left(node)
                else:
                    self._active &= ~(1 << tick[0])
                e, run, last = edge.index, node.runs, self._last
                inputs: tuple[Input, ...] = ((e, run, True),)
                if others:
                    inputs = (*[(i, last[i], False) for i in others if last[i]], *inputs)
                last[e] = run
                self._begin(target, stamp if edge.keep is None else self._stamp_on(edge, stamp), inputs, 0)
            else:
                for edge in edges:
                    self._push(edge, stamp, node.runs, 0)
                self._left(node)
        else:
            for node in self._nodes:
                if not node.plan.incoming:
                    self._start(node, (0,) * len(node.plan.chain), [])
        while todo and not self._finished:
            node = todo.popleft()
            if (direct := node.direct) is not None:
                node.direct = None
                self._begin(node, direct[0], ((node.plan.incoming[0], direct[1], True),), direct[2])
            else:
                self._consider(node)
        if not self._busy and not self._finished:
            self._finish()
        return commands

    def needed_outputs(self, node: int) -> set[int]:
        """Runs of a node whose output an edge can still ask for."""
        outgoing = self._nodes[node].plan.outgoing
        return {run for e in outgoing for run in (self._last[e], *(token.run for token in self._tokens[e]))}

    def _route(self, node: PlanNode, handles: tuple[str, ...]) -> Route:
        """Where an output with these handles goes."""
        edges = tuple(edge for e in node.outgoing if (edge := self._edges[e]).source_handle in handles)
        only: PlanEdge | None = edges[0] if len(edges) == 1 and edges[0].alone else None
        others = () if only is None else tuple(e for e in self._nodes[only.target].plan.incoming if e != only.index)
        route = self._routes[node.index][handles] = edges, only, others
        return route

    def _stamp_on(self, edge: PlanEdge, stamp: Stamp) -> Stamp:
        """The stamp of a token that leaves a run with *stamp* on an arrow that does not keep it."""
        keep = edge.keep
        assert keep is not None
        if edge.back:
            return (*stamp[: keep - 1], stamp[keep - 1] + 1)
        return (*stamp[:keep], *(0,) * (len(self._nodes[edge.target].plan.chain) - keep))

    def _next(self, e: int, stamp: Stamp) -> Taken | None:
        """What a run for *stamp* takes from an arrow."""
        edge, tokens = self._edges[e], self._tokens[e]
        if edge.collects:
            many = sum(token.stamp <= stamp for token in tokens)
            return (edge, tokens[many - 1], many) if many else None
        return (edge, tokens[0], 1) if tokens and tokens[0][0] == stamp else None

    def _left(self, node: _Node) -> None:
        """A run or a pass of a node is over."""
        if node.queued:  # its own token may have come back to it
            self._todo.append(node)
        else:
            self._active &= ~(1 << node.plan.index)
        if node.watchers:
            self._wake(node)

    def _push(self, edge: PlanEdge, stamp: Stamp, run: int, passes: int) -> None:
        """Put an output of a run with *stamp* on an arrow."""
        e, node = edge.index, self._nodes[edge.target]
        plan = node.plan
        if edge.keep is not None:
            stamp = self._stamp_on(edge, stamp)
        if edge.alone and len(plan.incoming) == 1 and node.busy is None and not node.queued and node.direct is None:
            node.direct = _new(Token, (stamp, run, passes, 0))
            self._active |= 1 << edge.target
            self._todo.append(node)
            return
        self._arrivals = order = self._arrivals + plan.any_join
        if (tokens := self._tokens[e]) is _NOTHING:
            tokens = self._tokens[e] = []
        before = len(tokens)
        if edge.collects:  # only the newest counts: the others need not be kept
            while tokens and tokens[-1].stamp >= stamp:
                tokens.pop()
        tokens.append(_new(Token, (stamp, run, passes, order)))
        if edge.data:
            return
        node.queued += len(tokens) - before
        if not before and edge.required:
            node.have += 1
        earlier = node.low is None or tokens[0].stamp < node.low
        if earlier or edge.first:
            node.watched = -1  # what it waited for may not hold it back now
        if earlier:
            node.low = tokens[0].stamp
        self._active |= 1 << edge.target
        if node.busy is None:
            self._todo.append(node)

    def _wake(self, node: _Node) -> None:
        """The activity of a node changed: those who watched it look again."""
        watching, node.watchers = node.watchers, _NOTHING
        for waiting in watching:
            if waiting.watched == node.plan.index:
                waiting.watched = -1
                self._todo.append(waiting)
            elif waiting.plan.any_join:
                self._todo.append(waiting)

    def _watch(self, waiting: _Node, n: int) -> None:
        waiting.watched = n
        watchers = self._nodes[n].watchers = self._nodes[n].watchers or {}
        watchers[waiting] = None

    def _consider(self, node: _Node) -> None:
        """Make a node whose tokens wait ready if nothing holds it back."""
        if node.busy is not None or not node.queued:
            return
        if node.plan.any_join:
            self._decide(node)
            return
        plan, stamp = node.plan, node.low
        assert stamp is not None  # it holds a token
        opening = node.runs == 0 and bool(plan.first)
        firsts = [tokens[0].stamp for e in plan.first if (tokens := self._tokens[e])] if opening else []
        if firsts:
            stamp = min(firsts)
            needed, awaited = plan.first, plan.first_awaited
        elif plan.heads_loop and stamp[-1]:
            needed, awaited = plan.backs, plan.awaited
        else:
            needed, awaited = plan.required, plan.awaited
            if node.watched >= 0 and node.have < len(needed):
                return  # still watching; it is called again when the blocker moves
        # Rounds of an earlier entry may still come back to the header of a loop that is entered again; and what enters the
        # loop may still come where a `first` arrow has begun it.
        settled = plan.settled and not (plan.heads_loop and any(stamp) and (plan.first or not stamp[-1]))
        if not (settled and self._complete(needed, stamp) and bool(firsts) == opening):
            if node.watched >= 0:
                return
            blocker = self._blocker(awaited, stamp)
            if blocker < 0 and opening and not firsts:
                awaited = plan.first_awaited
                blocker = self._blocker(awaited, stamp)
            if blocker >= 0:
                self._watch(node, blocker)
                return
            if awaited.unreachable:
                return  # forever: reported when the run ends
        into, edges = plan.incoming, self._edges
        if firsts:
            into = [e for e in into if edges[e].first or edges[e].data]
        self._start(node, stamp, [one for e in into if (one := self._next(e, stamp))])

    def _decide(self, node: _Node) -> None:
        """Make a condition ready for what reached it first and does not wait."""
        edges, tokens, into = self._edges, self._tokens, node.plan.incoming
        heads = sorted((tokens[e][0].order, e) for e in into if not edges[e].data and tokens[e])
        for _, e in heads:
            chosen, token = edges[e], tokens[e][0]
            loop = chosen.gathered
            awaited = node.plan.gathers.get(loop)
            if awaited is not None:
                blocker = self._blocker(awaited, token.stamp)
                if blocker >= 0:
                    self._watch(node, blocker)
                    continue
                if awaited.unreachable:
                    continue
            taken: list[Taken] = []
            for edge in [edges[e] for e in into]:
                if edge.gathered == loop >= 0 or (edge.data and edge.gathered < 0):
                    if one := self._next(edge.index, token.stamp):
                        taken.append(one)
                elif edge.gathered == loop < 0 and edge.source == chosen.source:
                    waiting = tokens[edge.index]
                    if waiting and waiting[0].run == token.run:
                        taken.append((edge, waiting[0], 1))
            self._start(node, token.stamp, taken)
            return

    def _complete(self, awaited: tuple[int, ...], stamp: Stamp) -> bool:
        for e in awaited:
            tokens = self._tokens[e]
            if not tokens or tokens[0][0] != stamp:
                return False
        return True

    def _blocker(self, awaited: Awaited, stamp: Stamp) -> int:
        """An active node that may still bring a token for *stamp* or an earlier one; -1 when there is none."""
        if not awaited.sources & self._active:
            return -1
        for keep, add, rest, nodes in awaited.ways:
            mask = nodes & self._active
            while mask:
                n = mask.bit_length() - 1  # the last in file order tends to end last: few look again for nothing
                if not keep and not any(rest):
                    return n
                theirs = self._nodes[n].earliest
                if theirs is None:
                    return n
                brought = (*theirs[: keep - 1], theirs[keep - 1] + 1, *rest) if add else (*theirs[:keep], *rest)
                if brought <= stamp:
                    return n
                mask ^= 1 << n
        return -1

    def _start(self, node: _Node, stamp: Stamp, taken: list[Taken]) -> None:
        """A node takes tokens, and is ready."""
        inputs: list[Input] = []
        plan, edges, queues, last = node.plan, self._edges, self._tokens, self._last
        if node.runs and len(taken) < len(plan.incoming):
            fresh = {edge.index for edge, _, _ in taken}
            inputs += [(e, last[e], False) for e in plan.incoming if last[e] and not edges[e].first and e not in fresh]
        for edge, token, many in taken:
            e, run = edge.index, token[1]
            inputs.append((e, run, True))
            last[e] = run
            tokens = queues[e]
            if many < len(tokens):
                del tokens[:many]
            else:
                queues[e] = _NOTHING
                if edge.required:
                    node.have -= 1
            if not edge.data:
                node.queued -= many
        heads = [queues[e][0].stamp for e in plan.incoming if queues[e] and not edges[e].data] if node.queued else None
        node.low = min(heads) if heads else None
        passes = 0
        if plan.max_runs is not None:
            passes = max((token.passes for edge, token, _ in taken if not edge.data), default=0)
        self._begin(node, stamp, tuple(inputs), passes)

    def _begin(self, node: _Node, stamp: Stamp, inputs: tuple[Input, ...], passes: int) -> None:
        """A node is ready, unless it is at a limit."""
        plan, runs = node.plan, node.runs
        node.watched = -1
        if plan.loops:
            if not (length := plan.entry) or (here := stamp[:length]) == node.entry:
                node.visits += 1
            else:
                node.visits = node.visits + 1 if here < node.entry or not node.visits else 1
                node.entry = max(node.entry, here)
            if node.visits > self._max_visits + plan.limit:
                self._finished = True
                self._commands.append(Exhausted(plan.index, node.visits - 1))
                return
        if plan.max_runs is not None and runs and runs >= plan.max_runs:
            self._pass_on(node, stamp, passes + 1)
            return
        node.runs = runs + 1
        node.busy = stamp
        self._active |= 1 << plan.index
        self._busy += 1
        self._commands.append(_new(RunNode, (plan.index, runs + 1, stamp, inputs)))

    def _pass_on(self, node: _Node, stamp: Stamp, passes: int) -> None:
        """A node at its limit hands its last output on, within its outermost loop."""
        node.busy = None
        plan, nodes = node.plan, self._nodes
        self._commands.append(PassOn(plan.index, node.runs))
        if passes <= plan.component_size:
            for edge in (self._routes[plan.index].get(_PASSED_HANDLES) or self._route(plan, _PASSED_HANDLES))[0]:
                if nodes[edge.target].plan.component == plan.component:
                    self._push(edge, stamp, node.runs, passes)
        self._left(node)

    def _finish(self) -> None:
        self._finished = True
        blocked: list[tuple[int, tuple[int, ...]]] = []
        skipped: list[int] = []
        for node in self._nodes:
            plan = node.plan
            if node.queued:
                missing = (plan.first_awaited if node.runs == 0 and plan.first else plan.awaited).unreachable
                missing += tuple(e for gathers in plan.gathers.values() for e in gathers.unreachable)
                blocked.append((plan.index, tuple(dict.fromkeys(missing))))
            elif not node.runs:
                skipped.append(plan.index)
        # Others that wait for those need not be named.
        blocked = [one for one in blocked if one[1]] or blocked
        self._commands.append(Finish(tuple(skipped), tuple(blocked)))

"""The scheduler: `step(plan, state, tick) → (state, commands)`, a pure function over frozen data.

How a run moves (diagram-spec §5.3 "Do"; the rules by number):

1. Each edge is a queue of tokens; a token carries its *stamp* (a counter per loop around it, see `diagram.graph`) and
   which run of its source made it. Nothing is overwritten: each token is consumed by exactly one run.
2. A node runs when it holds a token and no node that could still bring one for the same or an earlier stamp, over
   forward edges, is active. An edge that can bring none any more is *dead*: the join goes on without it. So joins wait
   for all sources of a round, branches not taken hold nobody back, and rounds never mix.
3. Conditions run on any token. Edges that leave a skippable condition hold nobody back.
4. On the first run of a person_job with edges into `first`, only these hold it back.
5. A token on a back edge runs the loop's header at once. Inputs without a fresh token keep their last value.
6. A node at its run limit consumes its tokens and passes its last output on within its loop, so that the loop's
   condition can decide; a token that has only been passed on all the way round is dropped.
7. What a run consumes is fixed when it becomes ready, not when it starts, so the outcome does not depend on timing.
8. The run is over when nothing is active. Tokens left then mean a deadlock: an input was awaited from a node
   that no start leads to.

Cost: a step touches the nodes it wakes, never the whole diagram. A waiting join watches one active ancestor at a time.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import NamedTuple

from rpds import HashTrieMap

from dipeo_nb.domain.plan import Plan, PlanNode

Stamp = tuple[int, ...]


class Token(NamedTuple):
    """One output travelling along one edge."""

    stamp: Stamp
    run: int
    """Run of the source node whose output it carries (1-based)."""
    passes: int = 0
    """How often nodes at their limit have handed it on since the last real run."""


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
NodeState = tuple[int, int, Stamp | None, int, int, int, Stamp | None]
"""(runs made ready so far, visits (runs and passes), stamp of the run that is ready or running or None, required edges
with a token, tokens waiting, the active ancestor it watches or -1, smallest stamp among the tokens next on their edges)"""
EdgeState = tuple[tuple[Token, ...], int]
"""(tokens waiting, oldest first; run of its source last consumed, 0 for none)"""


class State(NamedTuple):
    """The scheduler's whole memory; equal states behave alike."""

    nodes: HashTrieMap[int, NodeState]
    edges: HashTrieMap[int, EdgeState]
    watchers: HashTrieMap[int, tuple[int, ...]]
    active: int
    """Bit mask of the nodes that are ready, running or hold tokens."""
    busy: int
    """How many are ready or running."""
    finished: bool


_FRESH: NodeState = (0, 0, None, 0, 0, -1, None)
_EMPTY: EdgeState = ((), 0)
_PASSED_HANDLES: tuple[str, ...] = ("default", "success", "results")


def initial() -> State:
    """The state before `Begin`."""
    return State(HashTrieMap(), HashTrieMap(), HashTrieMap(), 0, 0, False)


def step(plan: Plan, state: State, tick: Tick, *, max_visits: int = 100) -> tuple[State, tuple[Command, ...]]:
    """Advance by one tick.

    Args:
        max_visits: visits of one node (runs and passes) after which its loop counts as endless; a node's own
            larger run limit raises it.

    Returns:
        The next state and what is to be done, in order. `Finish` or `Exhausted` come last and at most once.
    """
    work = _Step(plan, state, max_visits)
    if isinstance(tick, Begin):
        for node in plan.nodes:
            if not node.incoming:
                work.start(node, (0,) * len(node.chain), ())
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


class _Step:
    """The working copy of one step: persistent maps are replaced, never changed."""

    __slots__ = (
        "active",
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
        self.nodes, self.edges, self.watchers, self.active, self.busy, self.finished = state
        self.limit = max_visits
        self.commands: list[Command] = []
        self.todo: deque[int] = deque()
        self.direct: dict[int, tuple[int, Token]] = {}
        """Tokens that reach an idle node with one edge: consumed within the step, they never stand in a queue."""

    def result(self) -> tuple[State, tuple[Command, ...]]:
        state = State(self.nodes, self.edges, self.watchers, self.active, self.busy, self.finished)
        return state, tuple(self.commands)

    def done(self, tick: Done) -> None:
        n = tick.node
        runs, visits, stamp, have, queued, _, low = self.nodes[n]
        if stamp is None:
            raise ValueError(f"node {n} was not running")
        self.nodes = self.nodes.insert(n, (runs, visits, None, have, queued, -1, low))
        self.busy -= 1
        self.emit(self.plan.nodes[n], tick.handles, Token(stamp, runs), only_inside=False)
        if queued:
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
            if edge.take is not None:
                stamp = tuple([stamp[i] if i >= 0 else 0 for i in edge.take])
            if edge.back:
                place = target.bump
                assert place is not None  # the compiler gives every target of a back edge a place
                stamp = (*stamp[:place], stamp[place] + 1, *(0 for _ in stamp[place + 1 :]))
            self.push(edge.target, e, Token(stamp, token.run, token.passes))

    def push(self, n: int, e: int, token: Token) -> None:
        runs, visits, busy, have, queued, blocker, low = self.nodes.get(n, _FRESH)
        if busy is None and not queued and n not in self.direct and len(self.plan.nodes[n].incoming) == 1:
            self.direct[n] = (e, token)
            self.active |= 1 << n
            self.todo.append(n)
            return
        tokens, last = self.edges.get(e, _EMPTY)
        self.edges = self.edges.insert(e, ((*tokens, token), last))
        if not tokens and self.plan.edges[e].required:
            have += 1
        if not tokens and (low is None or token.stamp < low):
            low = token.stamp
        self.nodes = self.nodes.insert(n, (runs, visits, busy, have, queued + 1, blocker, low))
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
                if state[5] == n:
                    runs, visits, busy, have, queued, _, low = state
                    self.nodes = self.nodes.insert(waiting, (runs, visits, busy, have, queued, -1, low))
                    self.todo.append(waiting)

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
            self.start(node, direct[1].stamp, (direct,), queue=False)
            return
        runs, visits, busy, have, queued, watched, stamp = self.nodes.get(n, _FRESH)
        if busy is not None or not queued:
            return
        opening = runs == 0 and bool(node.first)
        full = have == len(node.required)
        if not node.any_join and watched >= 0 and (opening or not full):
            return  # still watching; it is called again when the blocker moves
        assert stamp is not None  # it holds a token
        if not node.any_join and not (node.bump is not None and stamp[node.bump] > 0):
            awaited = node.first if opening else node.required
            if not ((opening or full) and self.complete(awaited, stamp)):
                blocker = self.blocker(node, node.first_ancestors if opening else node.ancestors, stamp)
                if blocker >= 0:
                    self.nodes = self.nodes.insert(n, (runs, visits, busy, have, queued, blocker, stamp))
                    self.watchers = self.watchers.insert(blocker, (*(self.watchers.get(blocker) or ()), n))
                    return
                if any(
                    not self.plan.nodes[self.plan.edges[e].source].reachable for e in awaited if not self.waiting(e)
                ):
                    return  # for ever: reported when the run ends
        heads = [(e, q[0]) for e in node.incoming if (q := self.waiting(e))]
        self.start(node, stamp, tuple((e, token) for e, token in heads if token.stamp == stamp))

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
        _, _, busy, _, _, _, low = self.nodes.get(n, _FRESH)
        direct = self.direct[n][1].stamp if n in self.direct else None
        return min((stamp for stamp in (busy, low, direct) if stamp is not None), default=None)

    def blocker(self, node: PlanNode, ancestors: int, stamp: Stamp) -> int:
        """An active node that may still bring *node* a token for *stamp* or an earlier one; -1 when there is none."""
        mask = ancestors & self.active & ~(1 << node.index)
        while mask:
            n = mask.bit_length() - 1  # the last in file order tends to end last: few look again for nothing
            other = self.plan.nodes[n]
            if not other.chain or not node.chain:
                return n
            pairs = _shared_places(other.chain, node.chain)
            theirs = self.earliest(n)
            if theirs is None or [theirs[i] for i, _ in pairs] <= [stamp[j] for _, j in pairs]:
                return n
            mask ^= 1 << n
        return -1

    def start(
        self, node: PlanNode, stamp: Stamp, consumed: tuple[tuple[int, Token], ...], *, queue: bool = True
    ) -> None:
        n = node.index
        runs, visits, _, have, queued, _, low = self.nodes.get(n, _FRESH)
        visits += 1
        opening = runs == 0
        inputs: list[Input] = []
        if runs and len(consumed) < len(node.incoming):
            fresh = {e for e, _ in consumed}
            inputs = [
                Input(e, run, False)
                for e in node.incoming
                if e not in fresh and not self.plan.edges[e].first and (run := self.edges.get(e, _EMPTY)[1])
            ]
        for e, token in consumed:
            inputs.append(Input(e, token.run, True))
            if queue:
                tokens = self.edges[e][0][1:]
                self.edges = self.edges.insert(e, (tokens, token.run))
                if not tokens and self.plan.edges[e].required:
                    have -= 1
        if queue:
            queued -= len(consumed)
            low = min((q[0].stamp for e in node.incoming if (q := self.waiting(e))), default=None) if queued else None
        if visits > self.limit + (node.max_runs or 0):
            self.finished = True
            self.commands.append(Exhausted(n, visits - 1))
            return
        if node.max_runs is not None and not opening and runs >= node.max_runs:
            self.pass_on(
                node,
                stamp,
                (runs, visits, None, have, queued, -1, low),
                max(t.passes for _, t in consumed) + 1,
            )
            return
        self.nodes = self.nodes.insert(n, (runs + 1, visits, stamp, have, queued, -1, low))
        self.active |= 1 << n
        self.busy += 1
        self.commands.append(RunNode(n, runs + 1, stamp, tuple(inputs)))

    def pass_on(self, node: PlanNode, stamp: Stamp, state: NodeState, passes: int) -> None:
        n = node.index
        runs = state[0]
        self.nodes = self.nodes.insert(n, state)
        self.commands.append(PassOn(n, runs))
        if passes <= node.component_size:
            self.emit(node, _PASSED_HANDLES, Token(stamp, runs, passes), only_inside=True)
        if self.nodes[n][4]:
            self.todo.append(n)
        else:
            self.active &= ~(1 << n)
        self.wake(n)

    def finish(self) -> None:
        self.finished = True
        blocked: list[tuple[int, tuple[int, ...]]] = []
        skipped: list[int] = []
        for node in self.plan.nodes:
            runs, _, _, _, queued, _, _ = self.nodes.get(node.index, _FRESH)
            if queued:
                awaited = node.first if runs == 0 and node.first else node.required
                blocked.append((node.index, tuple(e for e in awaited if not self.waiting(e))))
            elif not runs:
                skipped.append(node.index)
        self.commands.append(Finish(tuple(skipped), tuple(blocked)))


@lru_cache(maxsize=4096)
def _shared_places(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Places of the loops that both chains follow, in the order of *b*."""
    return tuple((a.index(loop), j) for j, loop in enumerate(b) if loop in a)

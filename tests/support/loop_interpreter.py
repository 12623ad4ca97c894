"""Diagrams in one line, and a plain interpreter of when their nodes run.

    s > w/3; w > ?c; c- > w; c+ > f; w! > alarm

`?c` is a condition (at its first mention) and `?~c` a skippable one, `c+` and `c-` are its branches; `p/2` is a person_job with
that limit, `p^` its `first` handle, `a!` the error branch; `x:name` labels the arrow; `s` and `t` are starts.

What a condition decides (`+`, `-`) and whether a node fails (`!`, `.`) is given run by run; the last one stays. What a run got
is written as source and its run: `a2`, `c-1` (a condition's first run, which chose `-`), `a!1` (the first run, which failed).

`interpret` follows the rules of `dipeo_nb.execution.schedule` word for word, by brute force, and shares no code with it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import CodeJobNode, ConditionNode, NodeSpec, PersonJobNode, StartNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import DeadlockError, DipeoError, MaxIterationsError, NodeExecutionError
from dipeo_nb.execution import handlers, schedule
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.engine import Execution, RunOptions
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.recovery import recovered
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.gate import Gate
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of

_END = re.compile(r"(\?~?)?(\w+?)(?:/(\d+))?([+^!-])?(?::(\w+))?\Z")
_HANDLES = {"+": "condtrue", "-": "condfalse", "!": "error"}
MOST_RUNS = 100
"""Visits of a node in a loop."""


class Arrow(NamedTuple):
    source: str
    branch: str
    """`+`, `-`, `!` or nothing."""
    target: str
    first: bool
    label: str | None


@dataclass
class Shape:
    """A diagram in one line, parsed."""

    kinds: dict[str, str] = field(default_factory=dict)
    """Node → start, work, condition, skippable or person; in the order of their mention."""
    limits: dict[str, int] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)

    def plan(self) -> Plan:
        specs: dict[str, NodeSpec] = {}
        for node, kind in self.kinds.items():
            match kind:
                case "start":
                    specs[node] = StartNode()
                case "person":
                    specs[node] = PersonJobNode(person="x", default_prompt="hi", max_iteration=self.limits[node])
                case "work":
                    specs[node] = CodeJobNode(code="x = 1")
                case _:
                    specs[node] = ConditionNode(expression="True", skippable=kind == "skippable")
        return plan_of(specs, [self._drawn(arrow) for arrow in self.arrows])

    @staticmethod
    def _drawn(arrow: Arrow) -> str:
        out = f"[{_HANDLES[arrow.branch]}]" if arrow.branch else ""
        into = "[first]" if arrow.first else ""
        return f"{arrow.source}{out} -> {arrow.target}{into}" + (f" : {arrow.label}" if arrow.label else "")


def parse(text: str) -> Shape:
    shape = Shape()
    for part in text.split(";"):
        ends: list[tuple[str, str, str | None]] = []
        for end in part.split(">"):
            match = _END.match(end.strip())
            assert match is not None, end
            kind, name, limit, mark, label = match.groups()
            known = shape.kinds.setdefault(name, "start" if name in ("s", "t") else "work")
            if kind:
                shape.kinds[name] = "skippable" if kind == "?~" else "condition"
            elif limit:
                shape.kinds[name], shape.limits[name] = "person", int(limit)
            assert known
            ends.append((name, mark or "", label))
        (source, branch, _), (target, mark, label) = ends
        shape.arrows.append(Arrow(source, branch, target, mark == "^", label))
    return shape


def choices(text: str) -> dict[str, str]:
    """What is decided, by node: `c=-+ a=!.`."""
    return dict(word.split("=") for word in text.split())


def choice(decided: Mapping[str, str], node: str, run: int) -> str:
    """`+`, `-`, `!` or `.` for a run; the last one stays."""
    word = decided.get(node, "")
    return word[min(run, len(word)) - 1] if word else ""


class Outcome(NamedTuple):
    runs: dict[str, list[list[str]]]
    """Node → for each run what it got, in the order of the arrows."""
    skipped: set[str]
    end: str
    """Nothing, `endless`, or `deadlock: NODE …`."""

    def __str__(self) -> str:
        told = "; ".join(f"{n}: " + " | ".join(" ".join(r) for r in runs) for n, runs in self.runs.items())
        return f"{told} skipped: {' '.join(sorted(self.skipped))} {self.end}"


def name(shape: Shape, decided: Mapping[str, str], node: str, run: int) -> str:
    """How the table writes a run of a node."""
    chosen = choice(decided, node, run)
    mark = chosen if shape.kinds[node] in ("condition", "skippable") or chosen == "!" else ""
    return f"{node}{mark}{run}"


# The product's scheduler, driven by hand.


def play(
    shape: Shape,
    decided: Mapping[str, str],
    *,
    seed: int | None = None,
    limit: int = MOST_RUNS,
    plan: Plan | None = None,
) -> Outcome:
    """The outcome by the scheduler; running nodes end in a random order, by *seed*."""
    plan = plan or shape.plan()
    order = random.Random(seed)
    runs: dict[str, list[list[str]]] = {}
    running: list[schedule.RunNode] = []
    ends: list[schedule.Command] = []
    scheduler = schedule.Scheduler(plan, max_visits=limit)
    tick: schedule.Tick = schedule.Begin()
    while True:
        for command in scheduler.step(tick):
            if isinstance(command, schedule.RunNode):
                running.append(command)
                got = sorted((edge, run) for edge, run, _ in command.inputs)
                texts = [name(shape, decided, plan.nodes[plan.edges[e].source].label, run) for e, run in got]
                runs.setdefault(plan.nodes[command.node].label, []).append(texts)
            elif not isinstance(command, schedule.PassOn):
                ends.append(command)
        if ends:
            break
        assert running, "the scheduler says how the run ended"
        command = running.pop(order.randrange(len(running)) if seed is not None else 0)
        tick = schedule.Done(command.node, _handles(shape, decided, plan.nodes[command.node].label, command.run))
    end = ends[0]
    if isinstance(end, schedule.Exhausted):
        return Outcome(runs, set(), "endless")
    assert isinstance(end, schedule.Finish)
    blocked = " ".join(sorted(plan.nodes[n].label for n, _ in end.blocked))
    return Outcome(runs, {plan.nodes[n].label for n in end.skipped}, f"deadlock: {blocked}" if blocked else "")


def _handles(shape: Shape, decided: Mapping[str, str], node: str, run: int) -> tuple[str, ...]:
    chosen = choice(decided, node, run)
    if shape.kinds[node] in ("condition", "skippable"):
        return (_HANDLES[chosen or "+"],)
    return ("error",) if chosen == "!" else ("default", "success", "results")


# The reference.

Stamp = tuple[int, ...]


class _Graph:
    """Loops, exits, what stands behind them, and chains; each worked out from its definition."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.arrows = shape.arrows
        self.nodes = list(shape.kinds)
        self.all = set(range(len(self.arrows)))
        self.loops: list[tuple[frozenset[str], str]] = []
        """(members, header), outer ones first."""
        self.back: set[int] = set()
        self._find_loops(set(self.nodes), self.all)
        self.forward = self.all - self.back
        self.exits = {e: {i for i in range(len(self.loops)) if self._is_exit(e, i)} for e in self.all}
        self.only_if = {e for e in self.forward if self._is_only_if(e)}
        self._find_behind()
        self._count: dict[object, Stamp] = {}
        self._carried: dict[tuple[int, Stamp], Stamp] = {}
        self.out_of = {n: [e for e, a in enumerate(self.arrows) if a.source == n] for n in self.nodes}
        self.counts = {n: self._counted(n) for n in self.nodes}
        self.gathered = {e: self._gathered(e) for e in self.all}
        self.data = {
            e for e in self.all if e in self.only_if or (self.gathered[e] is not None and self.gathered[e] not in self.exits[e])
        }

    def walk(self, start: str, arrows: set[int]) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            n = todo.pop()
            for e in arrows:
                if self.arrows[e].source == n and self.arrows[e].target not in seen:
                    seen.add(self.arrows[e].target)
                    todo.append(self.arrows[e].target)
        return seen

    def _discovered(self) -> list[str]:
        found: list[str] = []

        def visit(n: str) -> None:
            if n not in found:
                found.append(n)
                for arrow in self.arrows:
                    if arrow.source == n:
                        visit(arrow.target)

        targets = {arrow.target for arrow in self.arrows}
        for n in [n for n in self.nodes if n not in targets] + self.nodes:
            visit(n)
        return found

    def _find_loops(self, members: set[str], arrows: set[int]) -> None:
        left = set(members)
        for n in self.nodes:
            if n not in left:
                continue
            inside = {a for a in arrows if self.arrows[a].source in members and self.arrows[a].target in members}
            circle = {m for m in self.walk(n, inside) if n in self.walk(m, inside)}
            if not circle:
                left.discard(n)
                continue
            left -= circle
            own = {e for e in inside if self.arrows[e].source in circle and self.arrows[e].target in circle}
            entries = {a.target for a in self.arrows if a.target in circle and a.source not in circle} or circle
            led = {
                self.arrows[e].target
                for e in own
                if self.arrows[e].target in entries and self.shape.kinds[self.arrows[e].source] in ("condition", "skippable")
            }
            header = min(led or entries, key=self._discovered().index)
            self.loops.append((frozenset(circle), header))
            closing = {e for e in own if self.arrows[e].target == header}
            self.back |= closing
            self._find_loops(circle, own - closing)

    def around(self, n: str) -> list[int]:
        """Loops around a node, outermost first."""
        return sorted((i for i, (members, _) in enumerate(self.loops) if n in members), key=lambda i: -len(self.loops[i][0]))

    def branch(self, e: int) -> str:
        return self.arrows[e].branch

    def _is_exit(self, e: int, loop: int) -> bool:
        members = self.loops[loop][0]
        arrow = self.arrows[e]
        if arrow.source not in members or arrow.target in members:
            return False
        return not any(o.source == arrow.source and o.branch == arrow.branch and o.target in members for o in self.arrows)

    def _decides(self, n: str) -> bool:
        if self.shape.kinds[n] in ("condition", "skippable"):
            return self.shape.kinds[n] == "condition"
        return any(a.source == n and a.branch == "!" for a in self.arrows)

    def _is_only_if(self, e: int) -> bool:
        arrow = self.arrows[e]
        deciders = {
            self.arrows[o].source
            for o in self.forward
            if self.arrows[o].target == arrow.target and self._decides(self.arrows[o].source)
        }
        if not deciders or arrow.source in deciders:
            return False
        return not any(arrow.source in self.walk(d, self.forward) for d in deciders)

    def _place(self, e: int) -> object:
        """What an arrow leads into on the level where its ends lie side by side: a node, or a loop as a whole."""
        arrow = self.arrows[e]
        for loop in self.around(arrow.target):
            if arrow.source not in self.loops[loop][0]:
                return loop
        return arrow.target

    def behind(self, n: str) -> set[int]:
        return {loop for place, loop in self._behind if place == n or place in self.around(n)}

    def _find_behind(self) -> None:
        self._behind: set[tuple[object, int]] = set()
        before = -1
        while before != len(self._behind):
            before = len(self._behind)
            for e in self.forward:
                for loop in self.exits[e] | self.behind(self.arrows[e].source):
                    self._behind.add((self._place(e), loop))

    def _brought(self, e: int) -> Stamp:
        """The chain of an arrow's source, cut where its target stands behind."""
        chain = self._counted(self.arrows[e].source)
        for i, loop in enumerate(chain):
            if loop in self.behind(self.arrows[e].target):
                return chain[:i]
        return chain

    def _counted(self, place: object) -> Stamp:
        """The loops that a node counts, or that every node of a loop counts."""
        if place in self._count:
            return self._count[place]
        if isinstance(place, str):
            around = self.around(place)
            outer = around[-1] if around else None
        else:
            assert isinstance(place, int)
            around = self.around(self.loops[place][1])
            index = around.index(place)
            outer = around[index - 1] if index else None
        base = () if outer is None else self._counted(outer)
        lists = {self._brought(e) for e in self.forward - self.only_if if self._place(e) == place} | {base}
        longest = [a for a in lists if not any(b != a and b[: len(a)] == a for b in lists)]
        common = longest[0]
        for other in longest[1:]:
            while other[: len(common)] != common:
                common = common[:-1]
        self._count[place] = common if isinstance(place, str) else (*common, place)
        return self._count[place]

    def _gathered(self, e: int) -> int | None:
        arrow = self.arrows[e]
        if e in self.back:
            left: set[int] = set()
            for o in self.back:
                if self.arrows[o].target == arrow.target:
                    left |= self.exits[o] | self.behind(self.arrows[o].source)
        else:
            left = self.behind(arrow.target)
        return next((loop for loop in self.counts[arrow.source] if loop in left), None)

    def optional(self, e: int) -> bool:
        return self.shape.kinds[self.arrows[e].source] == "skippable" and self.gathered[e] is None

    def collects(self, e: int) -> bool:
        return e in self.data or self.gathered[e] is not None

    def carried(self, e: int, stamp: Stamp) -> Stamp:
        """The stamp of a token that goes over an arrow from a run with *stamp*."""
        if (e, stamp) not in self._carried:
            self._carried[e, stamp] = self._carry(e, stamp)
        return self._carried[e, stamp]

    def _carry(self, e: int, stamp: Stamp) -> Stamp:
        source, target = self.counts[self.arrows[e].source], self.counts[self.arrows[e].target]
        counter = dict(zip(source, stamp, strict=True))
        if e not in self.back:
            return tuple(counter.get(loop, 0) for loop in target)
        loop = next(i for i in self.around(self.arrows[e].target) if self.loops[i][1] == self.arrows[e].target)
        place = target.index(loop)
        return (*(counter[i] for i in target[:place]), counter[loop] + 1, *(0 for _ in target[place + 1 :]))


def is_settled(shape: Shape) -> bool:
    """Whether nothing in a diagram depends on what comes first by design: conditions with several arrows in, and arrows from
    a skippable condition into a join, which is not waited for."""
    graph = _Graph(shape)
    many = {a.target for a in shape.arrows if sum(o.target == a.target for o in shape.arrows) > 1}
    return not any(
        arrow.target in many and (graph.optional(e) or shape.kinds[arrow.target] in ("condition", "skippable"))
        for e, arrow in enumerate(shape.arrows)
    )


class _Token(NamedTuple):
    stamp: Stamp
    run: int
    passes: int
    arrival: int


def interpret(shape: Shape, decided: Mapping[str, str], *, seed: int | None = None, limit: int = MOST_RUNS) -> Outcome:
    """The outcome by the rules; what may run and what ends next is chosen at random, by *seed*."""
    return _Interpreter(shape, decided, random.Random(seed), limit).outcome()


class _Interpreter:
    def __init__(self, shape: Shape, decided: Mapping[str, str], order: random.Random, limit: int) -> None:
        self.graph = _Graph(shape)
        self.shape, self.decided, self.order, self.limit = shape, decided, order, limit
        self.arrows = shape.arrows
        self.into = {n: [e for e, a in enumerate(self.arrows) if a.target == n] for n in self.graph.nodes}
        self.tokens: dict[int, list[_Token]] = {e: [] for e in self.graph.all}
        self.last: dict[int, int] = {}
        self.running: dict[str, tuple[Stamp, int]] = {}
        self.done: dict[str, int] = dict.fromkeys(self.graph.nodes, 0)
        self.visits: dict[tuple[str, Stamp], int] = {}
        self.runs: dict[str, list[list[str]]] = {}
        self.arrivals = 0
        self.endless = False

    def outcome(self) -> Outcome:
        for n in self.graph.nodes:
            if not self.into[n]:
                self.begin(n, (0,) * len(self.graph.counts[n]), {})
        while not self.endless:
            ready = [(n, plan) for n in self.graph.nodes if (plan := self.may_run(n)) is not None]
            moves: list[tuple[str, object]] = [*ready, *((n, None) for n in self.running)]
            if not moves:
                break
            n, plan = self.order.choice(moves)
            if plan is None:
                self.finish(n)
            else:
                stamp, taken = plan  # type: ignore[misc]
                self.begin(n, stamp, taken)
        waiting = {n for n in self.graph.nodes if self.stamps(n)}
        skipped = {n for n in self.graph.nodes if not self.done[n] and n not in waiting and n not in self.running}
        if self.endless:
            return Outcome(self.runs, set(), "endless")
        stuck = " ".join(sorted(n for n in waiting if self.waits_for_ever(n)))
        return Outcome(self.runs, skipped, f"deadlock: {stuck}" if waiting else "")

    # Waiting.

    def stamps(self, n: str) -> list[Stamp]:
        return [t.stamp for e in self.into[n] if e not in self.graph.data for t in self.tokens[e]]

    def firsts(self, n: str) -> list[int]:
        return [e for e in self.into[n] if self.arrows[e].first]

    def awaited(self, n: str) -> set[int]:
        into = set(self.into[n])
        if self.done[n]:
            into -= set(self.firsts(n))
        elif any(self.tokens[e] for e in self.firsts(n)):
            return {e for e in into if self.arrows[e].first or e in self.graph.data}
        return {e for e in into if not self.graph.optional(e)}

    def waits_for_ever(self, n: str) -> bool:
        starts = [m for m in self.graph.nodes if not self.into[m]]
        reached = set(starts).union(*(self.graph.walk(m, self.graph.all) for m in starts))
        awaited = self.awaited(n)
        if self.shape.kinds[n] in ("condition", "skippable"):
            awaited = {e for e in awaited if self.graph.collects(e)}
        return any(self.arrows[e].source not in reached for e in awaited)

    def can_come(self, n: str, awaited: set[int], stamp: Stamp) -> bool:
        """Whether something active can bring a token for *stamp* or an earlier one over one of these arrows."""
        for m in self.graph.nodes:
            if m == n:
                continue
            active = self.stamps(m)
            if m in self.running:
                active.append(self.running[m][0])
            if not active:
                continue
            most = max(max(stamp, default=0), *(max(s, default=0) for s in active)) + 2
            todo = [(m, s) for s in set(active)]
            seen = set(todo)
            while todo:
                x, there = todo.pop()
                for e in self.graph.out_of[x]:
                    arrow = self.arrows[e]
                    came = self.graph.carried(e, there)
                    if arrow.target == n and e in awaited and came <= stamp:
                        return True
                    place = arrow.target, came
                    if e not in self.graph.data and place not in seen and max(came, default=0) <= most:
                        seen.add(place)
                        todo.append(place)
        return False

    # Running.

    def may_run(self, n: str) -> tuple[Stamp, dict[int, tuple[int, int]]] | None:
        """(stamp, arrow → (run that counts, how many tokens are consumed, passes)) of a run that may begin now."""
        if n in self.running or not self.stamps(n):
            return None
        if self.shape.kinds[n] in ("condition", "skippable"):
            return self.may_decide(n)
        opened = not self.done[n] and any(self.tokens[e] for e in self.firsts(n))
        heads = self.firsts(n) if opened else [e for e in self.into[n] if e not in self.graph.data]
        stamp = min(self.tokens[e][0].stamp for e in heads if self.tokens[e])
        if self.waits_for_ever(n) or self.can_come(n, self.awaited(n), stamp):
            return None
        edges = [e for e in self.into[n] if not opened or self.arrows[e].first or e in self.graph.data]
        return stamp, self.taken(edges, stamp)

    def may_decide(self, n: str) -> tuple[Stamp, dict[int, tuple[int, int]]] | None:
        heads = [(self.tokens[e][0].arrival, e) for e in self.into[n] if self.tokens[e] and e not in self.graph.data]
        constants = {e for e in self.into[n] if e in self.graph.data and self.graph.gathered[e] is None}
        for _, e in sorted(heads):
            token, loop = self.tokens[e][0], self.graph.gathered[e]
            if loop is None:
                if self.can_come(n, constants, token.stamp):
                    continue
                together = [
                    o
                    for o in self.into[n]
                    if self.arrows[o].source == self.arrows[e].source
                    and not self.graph.collects(o)
                    and self.tokens[o]
                    and self.tokens[o][0].run == token.run
                ]
                return token.stamp, {
                    **dict.fromkeys(together, (token.run, 1)),
                    **self.taken(sorted(constants), token.stamp),
                }
            gathering = {o for o in self.into[n] if self.graph.gathered[o] == loop} | constants
            if not self.can_come(n, gathering, token.stamp):
                return token.stamp, self.taken(sorted(gathering), token.stamp)
        return None

    def taken(self, edges: list[int], stamp: Stamp) -> dict[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        for e in edges:
            tokens = self.tokens[e]
            if self.graph.collects(e):
                old = [t for t in tokens if t.stamp <= stamp]
                if old:
                    found[e] = old[-1].run, len(old)
            elif tokens and tokens[0].stamp == stamp:
                found[e] = tokens[0].run, 1
        return found

    def begin(self, n: str, stamp: Stamp, taken: dict[int, tuple[int, int]]) -> None:
        got = dict(taken)
        passes = max((self.tokens[e][many - 1].passes for e, (_, many) in taken.items() if e not in self.graph.data), default=0)
        for e, (run, many) in taken.items():
            del self.tokens[e][:many]
            self.last[e] = run
        if self.done[n]:
            got = {e: (self.last[e], 0) for e in self.into[n] if e in taken or (e in self.last and not self.arrows[e].first)}
        around = self.graph.around(n)
        if around:
            place = n, stamp[: self.graph.counts[n].index(around[-1])]
            self.visits[place] = self.visits.get(place, 0) + 1
            members = self.graph.loops[around[-1]][0]
            written = max((self.shape.limits.get(m, 0) for m in members), default=0)
            if self.visits[place] > self.limit + written:
                self.endless = True
                return
        if self.done[n] >= self.shape.limits.get(n, 10**9):
            self.send(n, "", stamp, self.done[n], passes + 1)
            return
        self.done[n] += 1
        self.running[n] = stamp, self.done[n]
        texts = [name(self.shape, self.decided, self.arrows[e].source, got[e][0]) for e in sorted(got)]
        self.runs.setdefault(n, []).append(texts)

    def finish(self, n: str) -> None:
        stamp, run = self.running.pop(n)
        chosen = choice(self.decided, n, run)
        if self.shape.kinds[n] in ("condition", "skippable"):
            self.send(n, chosen or "+", stamp, run, 0)
        else:
            self.send(n, "!" if chosen == "!" else "", stamp, run, 0)

    def send(self, n: str, branch: str, stamp: Stamp, run: int, passes: int) -> None:
        around = self.graph.around(n)
        if passes and (not around or passes > len(self.graph.loops[around[0]][0])):
            return
        for e, arrow in enumerate(self.arrows):
            if arrow.source != n or arrow.branch != branch:
                continue
            if passes and arrow.target not in self.graph.loops[around[0]][0]:
                continue
            self.arrivals += 1
            self.tokens[e].append(_Token(self.graph.carried(e, stamp), run, passes, self.arrivals))


# The real engine.


class Record(NamedTuple):
    """What a run of the engine shows."""

    events: list[Event]
    given: dict[tuple[str, int], list[Any]]
    """What each handler was given: (node, run) → (source, its run, value), in the order of the arrows."""
    error: DipeoError | None
    statuses: dict[str, str]

    def outcome(self, shape: Shape, decided: Mapping[str, str]) -> Outcome:
        runs: dict[str, list[list[str]]] = {}
        for (node, _), inputs in sorted(self.given.items(), key=lambda item: item[0][1]):
            runs.setdefault(node, []).append([name(shape, decided, source, run) for source, run, _ in inputs])
        skipped = {node for node, status in self.statuses.items() if status == "skipped"}
        if isinstance(self.error, MaxIterationsError):
            return Outcome(runs, set(), "endless")
        return Outcome(runs, skipped, f"deadlock: {self.error.node}" if isinstance(self.error, DeadlockError) else "")  # type: ignore[attr-defined]

    def story(self) -> dict[tuple[str, int], Any]:
        """(node, run) → where its inputs came from, and what it gave, by the log."""
        found: dict[tuple[str, int], Any] = {}
        for event in self.events:
            payload = event.payload
            if event.type is EventType.NODE_STARTED:
                arrived = payload.get("arrived") or list(payload["inputs"].values())
                found[payload["label"], payload["run"]] = sorted(map(tuple, arrived)), None
            elif event.type is EventType.NODE_COMPLETED and payload.get("status") == "completed":
                place = payload["label"], payload["run"]
                found[place] = found[place][0], payload["output"]
        return found


VALUES: tuple[Any, ...] = (
    "text",
    3,
    None,
    [1, {"a": [True]}],
    {"deep": {"er": [0.5, "ü"]}},
    False,
    '{"looks": "like JSON"}',
    "",
)
"""What work nodes give, run by run: values of all JSON kinds."""


def carry_out(
    shape: Shape, decided: Mapping[str, str], *, limit: int = MOST_RUNS, after: Sequence[Event] = (), **options: Any
) -> Record:
    """Run a shape by the engine.

    Args:
        after: the log of a run that was cut off; it is resumed.
        options: more `RunOptions`.
    """
    records: list[Record] = []

    async def work() -> None:
        records.append(await _carry_out(shape, decided, limit, after, options))

    asyncio.run(work())  # it returns nothing: asyncio.run makes a text of its task, the whole result included
    return records[0]


async def _carry_out(
    shape: Shape, decided: Mapping[str, str], limit: int, after: Sequence[Event], options: dict[str, Any]
) -> Record:
    plan = shape.plan()
    given: dict[tuple[str, int], list[Any]] = {}

    def kept(context: NodeContext) -> None:
        arrived = sorted(context.inputs.arrived, key=lambda a: a.edge.index)
        given[context.node.label, context.run] = [(a.source_label, a.run, a.output.body) for a in arrived]

    def decide(context: NodeContext) -> Output:
        kept(context)
        chosen = choice(decided, context.node.label, context.run) or "+"
        return Output(plain(context.inputs.body), handles=(_HANDLES[chosen],))

    async def work(context: NodeContext) -> Output:
        kept(context)
        await asyncio.sleep(0)
        if choice(decided, context.node.label, context.run) == "!":
            raise NodeExecutionError("It fails.")
        return Output(VALUES[(context.node.index * 3 + context.run) % len(VALUES)])

    def start(context: NodeContext) -> Output:
        kept(context)
        return Output(f"{context.node.label}{context.run}")

    real = handlers.get
    chosen = {"start": start, "condition": decide, "code_job": work, "person_job": work}
    async with Runtime(get_settings(), llm=scripted(), store=InMemoryRunStore()) as runtime:
        found = None
        if after:
            found = recovered(plan, after, variables={}, max_visits=limit)
            await runtime.services.store.append(list(after))
            await runtime.services.store.claim(after[0].run_id, owned=True)
        execution = Execution(plan, Gate.open(runtime.services), RunOptions(max_iterations=limit, **options), recovered=found)
        handlers.get = lambda kind: chosen.get(kind) or real(kind)  # the engine asks this module for every node
        try:
            await execution.run()
        finally:
            handlers.get = real
        events = await runtime.services.store.events(execution.run_id)
    statuses = {execution.state.label(i): str(n.status) for i, n in execution.state.nodes.items()}
    return Record(events, given, execution.error, statuses)

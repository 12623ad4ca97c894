"""The executable form of a diagram: what the compiler makes and the scheduler reads. Indexes instead of ids, for speed."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainDiagram, DomainPerson
from dipeo_nb.domain.nodes import NodeSpec


@dataclass(frozen=True, slots=True)
class PlanEdge:
    """An arrow between two nodes."""

    index: int
    arrow_id: str
    source: int
    target: int
    source_handle: str
    target_handle: str
    label: str | None
    content_type: str | None
    priority: float = 0
    back: bool = False
    """Closes a loop: what it brings belongs to the next round."""
    optional: bool = False
    """Leaves a skippable condition, inside its loops: never waited for."""
    required: bool = False
    """Brings a token for every round of its target, unless its branch is not taken: forward, neither optional nor
    `first` nor gathered nor data."""
    first: bool = False
    """Feeds the first run of a person_job."""
    gathered: int = -1
    """The loop whose rounds the arrow leaves behind: its target is behind that loop and takes the newest value once
    the loop is over. -1: none."""
    data: bool = False
    """Brings a value and never starts its target."""
    collects: bool = False
    """It gathers or brings data: of the tokens up to the stamp of a run, the newest counts."""
    alone: bool = False
    """A token on it is all that its idle target waits for: it is the only arrow there, or the only one back to the header of a loop, and
    none there gathers or brings data."""
    keep: int | None = None
    """Number of leading counters of the source's stamp that the token keeps; counters behind them begin at 0. None: the stamp
    stays as it is. A back arrow counts the last one it keeps up by one."""


Route = tuple[tuple[PlanEdge, ...], PlanEdge | None, tuple[int, ...]]
"""Where an output goes: the arrows on which it leaves; the only one, when its target waits for nothing else (`PlanEdge.alone`); and the
other arrows of that target. (A plain tuple, since one is looked at in every step.)"""


@dataclass(frozen=True, slots=True)
class Awaited:
    """The nodes that can still bring a token to some arrows of a node, by what becomes of their stamp on the way there.

    A node with the stamp `t` brings `t[:keep]`, with the last of these counters raised by `add`, then `rest`, then zeros.
    """

    sources: int
    """Bit mask of all these nodes."""
    ways: tuple[tuple[int, int, tuple[int, ...], int], ...] = ()
    """(keep, add, rest, bit mask of the nodes). Those with the shortest way in rounds only."""
    unreachable: tuple[int, ...] = ()
    """Arrows that can never bring anything, since no start leads to their source: their node waits forever."""


NOTHING = Awaited(0)
_TYPE = operator.attrgetter("type")


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node, typed."""

    index: int
    id: str
    type: str
    label: str
    spec: NodeSpec
    incoming: tuple[int, ...] = ()
    """Edges by index, in file order."""
    outgoing: tuple[int, ...] = ()
    """Edges by index, siblings with a higher priority first."""
    any_join: bool = False
    """Runs once for each run of a source (conditions) instead of waiting for all sources."""
    max_runs: int | None = None
    """Runs after which the node passes its last output on (person_job: max_iteration)."""
    written_limit: int | None = None
    """`max_runs` where the file names it."""
    loops: tuple[int, ...] = ()
    """The loops (by number, outermost first) that the node is in."""
    chain: tuple[int, ...] = ()
    """The loops whose rounds the node counts: those that it follows, then those that it is in; its stamp has one counter
    for each."""
    heads_loop: bool = False
    """Whether back arrows lead here; they count the last counter of the stamp."""
    entry: int = 0
    """Number of leading counters of its stamp that distinguish the entries of its innermost loop."""
    limit: int = 0
    """The largest `max_iteration` that is written in its innermost loop, which raises the visits allowed there."""
    component: int = 0
    """Number of its outermost loop (strongly connected component); another number for each node in none."""
    component_size: int = 1
    required: tuple[int, ...] = ()
    """Its incoming edges that are `required`."""
    backs: tuple[int, ...] = ()
    """Its incoming edges that are `back`."""
    first: tuple[int, ...] = ()
    """Edges into the `first` handle."""
    settled: bool = True
    """Whether a token on each required (or each back) edge is all that can come for a round: no edge gathers, none comes back
    from within an inner loop, which may turn several times, and its loop is entered nowhere else."""
    awaited: Awaited = NOTHING
    """The arrows a run waits for; nobody is named where a token on the only arrow is all that there is to wait for."""
    first_awaited: Awaited = NOTHING
    """The arrows that the first run of a person_job with `first` edges waits for."""
    gathers: Mapping[int, Awaited] = field(default_factory=dict[int, Awaited])
    """The arrows a condition waits for, which otherwise does not wait: before it takes what leaves a loop (by loop), and for
    its data edges (-1)."""
    judged: tuple[int, ...] = ()
    """Of a condition, the person_jobs of the innermost loop around it that holds any."""

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled diagram, ready to run."""

    name: str
    nodes: tuple[PlanNode, ...]
    edges: tuple[PlanEdge, ...]
    persons: Mapping[str, DomainPerson]
    """By id."""
    diagram: DomainDiagram
    diagnostics: tuple[Diagnostic, ...] = ()
    source_path: str | None = None
    """The file it came from; relative names in the diagram are also looked up next to it."""
    by_id: Mapping[str, int] = field(default_factory=dict[str, int])
    routes: defaultdict[int, dict[tuple[str, ...], Route]] = field(
        default_factory=lambda: defaultdict(dict), init=False, compare=False, repr=False
    )
    """Where outputs go, by node and handles, as runs have found it."""

    __repr__ = bounded_repr

    def node(self, reference: str) -> PlanNode:
        """The node with that id or label; KeyError if there is none."""
        if reference in self.by_id:
            return self.nodes[self.by_id[reference]]
        for node in self.nodes:
            if node.label == reference:
                return node
        raise KeyError(reference)

    @property
    def types(self) -> frozenset[str]:
        """Types of its nodes."""
        return frozenset(map(_TYPE, self.nodes))

    @property
    def roots(self) -> tuple[int, ...]:
        """Nodes that start by themselves: start nodes, and nodes without incoming edges (each runs once)."""
        return tuple(n.index for n in self.nodes if not n.incoming)

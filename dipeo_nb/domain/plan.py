"""The executable form of a diagram: what the compiler makes and the scheduler reads. Indexes instead of ids, for speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """Closes a loop: never holds the first run of its target back."""
    optional: bool = False
    """Leaves a skippable condition: never holds a join back."""
    required: bool = False
    """Holds its target back until it has a token or can get none: forward, not optional, not `first`."""
    first: bool = False
    """Feeds the first run of a person_job."""
    take: tuple[int, ...] | None = None
    """Where each place of the target's stamp comes from: a place of the source's stamp, or -1 for a loop that starts
    afresh. None: the stamp stays as it is."""


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
    """Runs on any token (conditions) instead of waiting for all."""
    max_runs: int | None = None
    """Runs after which the node passes its last output on (person_job: max_iteration)."""
    chain: tuple[int, ...] = ()
    """The loops (by number, outermost first) whose rounds the node follows; its stamp has one counter for each."""
    bump: int | None = None
    """Place of the stamp that a back edge into this node counts up; None when the node heads no loop."""
    component: int = 0
    """Number of the strongly connected component."""
    component_size: int = 1
    required: tuple[int, ...] = ()
    """Its incoming edges that are `required`."""
    first: tuple[int, ...] = ()
    """Edges into the `first` handle: they alone hold the first run back."""
    ancestors: int = 0
    """Bit mask of the nodes that can still bring a token to a required edge."""
    first_ancestors: int = 0
    """The same for the `first` edges."""
    reachable: bool = True
    """Whether a root (start node, or node without incoming edges) leads here."""


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
    """The file it came from; relative names in the diagram are also looked up beside it."""
    by_id: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def all_reachable(self) -> bool:
        """Whether every node can be reached from a root."""
        return all(n.reachable for n in self.nodes)

    def node(self, reference: str) -> PlanNode:
        """The node with that id or label; KeyError if there is none."""
        if reference in self.by_id:
            return self.nodes[self.by_id[reference]]
        for node in self.nodes:
            if node.label == reference:
                return node
        raise KeyError(reference)

    @property
    def roots(self) -> tuple[int, ...]:
        """Nodes that start by themselves: start nodes, and nodes without incoming edges (each runs once)."""
        return tuple(n.index for n in self.nodes if not n.incoming)

"""Where a run's time and money went: the figures. `counting.measure` makes them from events, `metrics` puts them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.execution.node_runs import NodeRuns

BOTTLENECK = 0.1
"""Share of the run's time from which on a node on the critical path is called a bottleneck."""
NOTABLE_S = 0.05
"""Seconds of waiting that are worth a sentence, when they are also a twentieth of the run."""


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """All runs of one node."""

    node_id: str
    label: str
    type: str
    runs: int
    failed: int
    cut_off: int
    """Runs that were lost, because the process ended or the run was stopped."""
    working_s: float
    longest_s: float
    waiting_s: float
    asked_s: float
    first_text_s: float | None
    """Mean, over the runs in which a model wrote."""
    usage: TokenUsage
    cost_usd: float | None
    """None: nothing was spent, or a price is unknown (then there are `calls`)."""
    calls: int
    retries: int

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class Bottleneck:
    node_id: str
    label: str
    seconds: float
    """On the critical path."""
    share: float
    """Of the run's time."""
    runs: int

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Where a run's time and money went."""

    run_id: str
    diagram: str
    status: str
    error: Mapping[str, Any] | None
    duration_s: float
    """Seconds that the run was running, without those between an interruption and the resume."""
    working_s: float
    """Sum over the nodes; more than `duration_s` when several worked at once."""
    waiting_s: float
    asked_s: float
    most_at_once: int
    parallelism: int | None
    """How many may be at work at once."""
    usage: TokenUsage
    cost_usd: float | None
    calls: int
    models: Mapping[str, int]
    """Model → calls; those of sub-diagrams are under ""."""
    retries: int
    resumed: int
    lost_s: float
    """Seconds of work that was cut off, and done again or given up."""
    reused: int
    """Node runs taken over from another run."""
    children: int
    """Runs of sub-diagrams."""
    skipped: Sequence[str]
    """Labels of nodes that never ran."""
    at_limit: Sequence[str]
    """Labels of nodes that reached the limit of their runs."""
    nodes: Sequence[NodeMetrics]
    """Longest work first."""
    runs: NodeRuns
    """In the order in which they started."""
    critical_path: NodeRuns
    bottlenecks: Sequence[Bottleneck]
    """Nodes that take `BOTTLENECK` of the time or more, on the critical path; the largest first."""

    __repr__ = bounded_repr

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per node, as tables show it: node, runs, working_s, waiting_s, share of the run's time, tokens, cost_usd, retries."""
        return [
            {
                "node": node.label,
                "runs": node.runs,
                "working_s": round(node.working_s, 3),
                "waiting_s": round(node.waiting_s + node.asked_s, 3),
                "share": f"{node.working_s / self.duration_s:.0%}" if self.duration_s else "",
                "tokens": node.usage.total,
                "cost_usd": node.cost_usd,
                "retries": node.retries,
            }
            for node in self.nodes
        ]

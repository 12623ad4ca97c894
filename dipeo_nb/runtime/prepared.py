"""The decisions about a run before it starts, or continues."""

from __future__ import annotations

from typing import NamedTuple

from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import RunGate, Services
from dipeo_nb.execution.recovery import Recovered
from dipeo_nb.security.gate import Gate


class Prepared(NamedTuple):
    """A plan that can run, and what it may do."""

    plan: Plan
    gate: RunGate

    @classmethod
    def own(cls, plan: Plan, services: Services) -> Prepared:
        """A plan that was made in code, so the user's own: it may do everything."""
        return cls(plan, Gate.open(services))


class Recovery(NamedTuple):
    """A run that this process has claimed and can continue."""

    document: Diagram
    prepared: Prepared
    recovered: Recovered
    max_iterations: int
    model: str | None
    """The model that the whole run was moved to; None: each person has its own."""
    own_models: frozenset[str]
    """Ids of persons that *model* does not move."""

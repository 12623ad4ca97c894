"""The options of a run, with all defaults filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import InteractionPort

NodeRunKey = tuple[int, int]
"""(index of a node, 1-based number of its run)."""


class RunLimits(TypedDict, total=False):
    """Limits that users set wherever runs begin: notebooks, the command line, the server. Without a value, the setting holds."""

    timeout: float | None
    """Seconds for the run; for the rest of one that is resumed."""
    max_iterations: int | None
    """Visits of one node after which its loop counts as endless."""
    budget: Budget | None
    """What the run may spend on models."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one run is to be run; `runtime.Runtime` fills the defaults from the settings."""

    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Inputs of the run: global variables for templates, expressions and code."""
    model: str | None = None
    """Moves every person: `local`, `echo`, `openai:NAME`; None leaves the diagram's models."""
    own_models: frozenset[str] = frozenset()
    """Ids of persons that `model` does not move: a fork has given them a model by name."""
    timeout: float = 3600.0
    """Seconds for the run."""
    node_timeout: float = 600.0
    """Seconds for one run of one node that names no own limit."""
    parallelism: int = 20
    """Nodes at work at the same time."""
    max_iterations: int = 100
    """Visits of one node before its loop counts as endless."""
    interaction: InteractionPort | None = None
    """Who answers user_response nodes; None: `Execution.answer` (a form in the live view)."""
    parent_run_id: str | None = None
    budget: Budget | None = None
    """What the run may spend on models; shared by all its nodes."""
    pass_env: tuple[str, ...] = ()
    """Names of variables of the environment that programs of nodes get besides the harmless ones."""
    delta_interval: float = 1 / 30
    """Seconds between two commits of streamed text."""
    source: Mapping[str, Any] | None = None
    """The diagram in native form, recorded with the run."""
    reuse: Mapping[NodeRunKey, Event] = field(default_factory=dict[NodeRunKey, Event])
    """Finished runs of nodes, from the log of another run of the diagram: they are taken over instead of done."""
    forked_from: Mapping[str, Any] | None = None
    """When the run is a fork: a `ForkOrigin`, recorded."""
    instead: Callable[[str], Callable[[Any], Any] | None] | None = None
    """Type of a node → what does its work in this run in place of its handler; None: the handler does (`runtime.dry_run`)."""

"""One node of a run, as the log tells it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.payloads import NodeMeta, UsageData
from dipeo_nb.domain.spending import Spending


class Accounted:
    """Usage and cost, read from `spent`."""

    __slots__ = ()

    spent: Spending

    @property
    def usage(self) -> TokenUsage:
        return self.spent.usage

    @property
    def cost_usd(self) -> float | None:
        """Sum of the prices of its calls; None without any, and when one is unknown (`cost_complete`)."""
        return self.spent.cost_usd

    @property
    def cost_complete(self) -> bool:
        """False when the price of one of its calls is unknown."""
        return self.spent.complete


class _Nothing(dict[str, Any]):
    """An empty mapping that stays empty."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("this mapping is shared")


class Children(list[str]):
    """Ids of runs in order, each once: a batch may begin thousands."""

    __slots__ = ("_known",)

    def __init__(self, ids: Iterable[str] = ()) -> None:
        super().__init__(ids)
        self._known = set(self)

    def add(self, run_id: str) -> None:
        if run_id not in self._known:
            self._known.add(run_id)
            self.append(run_id)


NOTHING: Any = _Nothing()
NONE: Any = ()
UNSPENT = Spending()
"""What nodes have as long as there is nothing: a run has a `NodeState` of each, and most of them never need containers of their own."""
_nothing: Callable[[], Any] = repeat(NOTHING).__next__
_unspent: Callable[[], Spending] = repeat(UNSPENT).__next__


@dataclass(slots=True)
class NodeState(Accounted):
    """One node as the log tells it."""

    status: str = Status.PENDING
    runs: int = 0
    """Finished runs."""
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float = 0.0
    """Seconds worked, over all runs."""
    error: Mapping[str, Any] | None = None
    """type, message, hint."""
    output: Any = None
    """Body of the last run."""
    text: str = ""
    """Text streamed by the run in flight, else by the last one."""
    progress: dict[str, str] = field(default_factory=_nothing)
    """What the run in flight says of how far it is, each line by what it is about: the nodes of a sub-diagram, or only "how far"."""
    meta: NodeMeta = field(default_factory=_nothing)
    spent: Spending = field(default_factory=_unspent)
    retries: int = 0
    reused: bool = False
    """Whether its last run was taken over from the run that this one is a fork of."""
    children: list[str] = NONE
    """Ids of the runs of sub-diagrams that it began."""
    waiting_since: float | None = None
    """Since when a run of it is ready and waits for a place; None: none does."""
    sent: dict[str, Mapping[str, Any]] = field(default_factory=_nothing)
    """What models were sent by the run in flight, else by the last one: prompt, system, memory, template, variables, model, person_id.
    By the item of a batch (from "0"), else by ""."""
    pieces: int = 0
    """Pieces of text that came since its last call of a model was accounted for: about as many tokens."""
    estimated: int = 0
    """Tokens of answers that were cut off, an estimate: `pieces` of each. They are not in `spent`."""
    paid: list[UsageData] = NONE
    """Usage and cost of the calls of the run in flight; accounted for when it ends, or is found to have been cut off."""

    __repr__ = bounded_repr

    def snapshot(self) -> NodeState:
        """A copy that nothing changes any more."""
        made = copy.copy(self)
        made.progress, made.sent = dict(self.progress) or NOTHING, dict(self.sent) or NOTHING
        made.children, made.paid = list(self.children) or NONE, list(self.paid) or NONE
        made.spent = copy.copy(self.spent) if self.spent is not UNSPENT else UNSPENT
        return made

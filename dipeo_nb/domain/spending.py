"""What calls of models took: tokens, and a cost that may be unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.chat import TokenUsage

_NONE = TokenUsage()


@dataclass(slots=True)
class Spending:
    """A sum of calls. Its cost is None while there is none, and when the price of one is unknown: a part is never passed off as the
    whole."""

    usage: TokenUsage = _NONE
    known_usd: float | None = None
    """Sum of the prices that are known; None without any."""
    complete: bool = True
    """False when the price of a call is unknown."""
    calls: int = 0

    __repr__ = bounded_repr

    @classmethod
    def of(cls, usage: TokenUsage, cost_usd: float | None, calls: int = 1) -> Spending:
        """That of calls whose cost is *cost_usd*; None: it is unknown."""
        return cls(usage, cost_usd, cost_usd is not None, calls)

    @property
    def cost_usd(self) -> float | None:
        return self.known_usd if self.complete else None

    def add(self, usage: TokenUsage, cost_usd: float | None, calls: int = 1) -> None:
        """Add calls; a cost of None is unknown."""
        self.usage = self.usage + usage
        self.calls += calls
        if cost_usd is None:
            self.complete = False
        else:
            self.known_usd = (self.known_usd or 0.0) + cost_usd

    def since(self, before: Spending) -> Spending:
        """What was spent after *before*, an earlier sum of the same account."""
        earlier = before.usage.to_dict()
        rest = {name: count - earlier.get(name, 0) for name, count in self.usage.to_dict().items() if name != "total"}
        cost = self.cost_usd
        if cost is not None and before.complete:
            cost -= before.known_usd or 0.0
        return Spending.of(TokenUsage.from_dict(rest), cost, self.calls - before.calls)


def total_cost(costs: Iterable[float | None]) -> float | None:
    """The sum; None without any, and when one is unknown."""
    known: list[float] = []
    for cost in costs:
        if cost is None:
            return None
        known.append(cost)
    return sum(known) if known else None

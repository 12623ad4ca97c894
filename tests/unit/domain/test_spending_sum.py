"""Sums of usage and of a cost that may be unknown."""

from __future__ import annotations

import pytest

from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.spending import Spending, total_cost

ONE = TokenUsage(input=1, output=2)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [((), None), ((None,), None), ((0.0,), 0.0), ((1.0, 2.0), 3.0), ((1.0, None, 2.0), None), ((None, 1.0), None)],
)
def test_an_unknown_price_makes_the_sum_unknown(costs: tuple[float | None, ...], expected: float | None) -> None:
    """Of calls added one by one, and of a list; nothing spent has no price, a free call has."""
    spent = Spending()
    for cost in costs:
        spent.add(ONE, cost)
    assert (spent.cost_usd, spent.calls, spent.usage.input) == (expected, len(costs), len(costs) or None)
    assert spent.complete is (None not in costs)
    assert total_cost(costs) == expected


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [(0.0, 1.5, 1.5), (1.0, 1.5, 0.5), (None, 1.5, 1.5), (1.0, None, None), (None, None, None)],
)
def test_what_was_spent_since(before: float | None, now: float | None, new: float | None) -> None:
    """Tokens, calls and cost of the difference; unknown where the later sum is."""
    spent = Spending.of(ONE + ONE, now, 3).since(Spending.of(ONE, before, 1))
    assert (spent.cost_usd, spent.calls, spent.usage.to_dict()) == (new, 2, {"input": 1, "output": 2, "total": 3})

"""How many examples of a property are tried."""

from __future__ import annotations

from hypothesis import settings


def examples(number: int) -> settings:
    """*number* examples; fewer with the profile of `make quick`, as it has fewer than the 100 of other profiles."""
    return settings(max_examples=max(1, number * settings().max_examples // 100))

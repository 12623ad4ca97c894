"""What the making of a value may take, and how it ends without one."""

from __future__ import annotations

MOST = 100_000
"""Characters and values of one candidate, and steps of its making, at most."""


class ImpossibleError(ValueError):
    """No value was found that fits."""


class TooLargeError(ImpossibleError):
    """What would fit has more than `MOST` characters or parts."""


class Room:
    """What one candidate may still take."""

    def __init__(self) -> None:
        self.left: int = MOST

    def take(self, amount: int) -> None:
        """Raises TooLargeError when so much is not left."""
        self.left -= max(amount, 1)
        if self.left < 0:
            raise TooLargeError(f"the value would have more than {MOST:,} characters or parts")

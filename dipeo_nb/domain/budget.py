"""Limits of what may be spent on models: tokens, US dollars, calls, seconds. They stop work before the next call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

from dipeo_nb.common.calls import checked_call
from dipeo_nb.errors import BudgetExceededError, ConfigurationError, ValidationError

CHARACTERS_PER_TOKEN = 4
"""For estimates of what a prompt will take."""


@dataclass(slots=True)
class Budget:
    """A limit on spending, shared by all calls that carry it and charged as they are made.

    Args:
        tokens: of all kinds together; the prompt of the next call is estimated at four characters a token.
        usd: US dollars. Models whose price is unknown are then refused, as the limit could not be kept; and so is every call after
            one whose cost turned out to be unknown.
        calls: on the wire, repeated ones included.
        seconds: since the first call.
    """

    tokens: int | None = None
    usd: float | None = None
    calls: int | None = None
    seconds: float | None = None
    used_tokens: int = field(default=0, init=False)
    used_usd: float = field(default=0.0, init=False)
    used_calls: int = field(default=0, init=False)
    unpriced_calls: int = field(default=0, init=False)
    """Calls whose cost is unknown; `used_usd` does not count them."""
    _held: int = field(default=0, init=False, repr=False)
    """Tokens that running calls may take."""
    _started: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("tokens", "usd", "calls", "seconds"):
            limit: Any = getattr(self, name)
            if limit is not None and (type(limit) is bool or not isinstance(limit, (Real, Decimal)) or not float(limit) >= 0):
                raise ValidationError(
                    f"The limit {name}={limit!r:.80} is not a number >= 0.", hint=f"Use e.g. Budget({name}=1)."
                )

    def renewed(self) -> Budget:
        """Another budget with these limits, of which nothing is used."""
        return Budget(tokens=self.tokens, usd=self.usd, calls=self.calls, seconds=self.seconds)

    @property
    def used_seconds(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def before_call(self, characters: int, *, model: str, priced: bool, answer: int = 0) -> int:
        """Count a call that is about to be made.

        Args:
            characters: of its messages.
            answer: limit of its answer in tokens, when it has one: calls at the same time then keep the limit together.
            model: for the error's words.
            priced: whether the price of the model is known.

        Returns:
            Tokens that the call holds; give them back with `release` when it is over.

        Raises:
            BudgetExceededError: the call would go beyond a limit. It is not counted.
            ConfigurationError: a limit in dollars, and a model without a known price.
        """
        if self.usd is not None and not priced:
            raise ConfigurationError(
                f"The price of '{model}' is not known, so a budget of {self.usd:g} USD cannot be kept.",
                hint="Limit tokens or calls instead, or use a model with a listed price.",
            )
        estimate = characters // CHARACTERS_PER_TOKEN
        limits = (
            ("calls", self.calls, self.used_calls + 1, self.used_calls),
            ("tokens", self.tokens, self.used_tokens + self._held + max(estimate, 1), self.used_tokens + self._held),
            ("seconds", self.seconds, self.used_seconds, self.used_seconds),
        )
        for name, limit, needed, used in limits:
            if limit is not None and needed > limit:
                if name == "tokens" and used < limit:
                    raise self._too_large(max(estimate, 1), int(used), limit)
                raise self._exceeded(name, f"{used:,.6g} of {limit:,.6g} {name} are used")
        if self.usd is not None and self.unpriced_calls:
            raise self._exceeded(
                "usd", f"what an earlier call cost is not known, so a limit of {self.usd:g} USD cannot be kept any longer"
            )
        if self.usd is not None and self.used_usd >= self.usd:
            raise self._exceeded("usd", f"{self.used_usd:.6f} of {self.usd:g} USD are spent")
        self.used_calls += 1
        if self._started is None:
            self._started = time.monotonic()
        held = estimate + answer
        self._held += held
        return held

    def release(self, held: int) -> None:
        """A call is over: what it held is free, what it took was charged."""
        self._held -= held

    def charge(self, tokens: int | None, usd: float | None) -> None:
        """Count what a call took; None is an unknown amount."""
        self.used_tokens += tokens or 0
        self.used_usd += usd or 0.0
        self.unpriced_calls += usd is None

    def _too_large(self, estimate: int, used: int, limit: float) -> BudgetExceededError:
        """A prompt that takes more than what is left."""
        left = (
            f"which allows {limit:,.6g} tokens" if not used else f"of which {limit - used:,.6g} of {limit:,.6g} tokens are left"
        )
        return BudgetExceededError(
            f"The next prompt is too large for the budget, {left}: it takes about {estimate:,} tokens. The call was not made.",
            hint="Raise the budget (tokens), or shorten the prompt.",
            limit="tokens",
        )

    def _exceeded(self, kind: str, what: str) -> BudgetExceededError:
        return BudgetExceededError(
            f"The budget is used up: {what}. The next call was not made.",
            hint=f"Raise the budget ({kind}), or ask for less.",
            limit=kind,
        )


Budget.__init__ = checked_call(Budget.__init__, "Budget")

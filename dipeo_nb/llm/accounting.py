"""What calls take: of one call while it comes, and of all calls for one answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dipeo_nb.domain.budget import CHARACTERS_PER_TOKEN
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, Meter, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMError


@dataclass
class CallProgress:
    """What came of one call."""

    meter: Meter = field(default_factory=Meter)
    """What the provider has reported so far; a usage without counts: that the model works."""
    characters: int = 0
    spoke: bool = False
    answered: bool = False

    @property
    def begun(self) -> bool:
        """Whether the model had begun to work. It may do so in vain, when the server then refuses."""
        return self.spoke or self.meter.usage is not None

    @property
    def gave(self) -> bool:
        """Whether there is something that is paid for: a piece of an answer, or a count of tokens."""
        return self.spoke or (self.meter.usage is not None and self.meter.usage.total is not None)

    def take(self, event: StreamEvent) -> None:
        self.answered = event.response is not None
        if event.kind in ("text", "reasoning", "tool_call_start", "tool_call_delta"):
            self.spoke = True
            self.characters += len(event.text)

    def estimate(self, request: LLMRequest) -> TokenUsage:
        """The tokens of the call: those that were reported, for others what the texts are likely to have."""
        known = self.meter.usage or TokenUsage()
        put_in = sum(len(m.content) for m in request.messages) // CHARACTERS_PER_TOKEN
        put_out = max(self.characters // CHARACTERS_PER_TOKEN - (known.reasoning or 0), known.output or 0)
        return replace(known, input=put_in if known.input is None else known.input, output=put_out, bill=())


@dataclass
class Spent:
    """What the calls for one answer took together."""

    usage: TokenUsage = field(default_factory=TokenUsage)
    cost: float | None = 0.0
    saved: float | None = None
    live: int = 0
    calls: int = 0

    def add(self, response: LLMResponse) -> None:
        self.calls += 1
        self.live += not response.cached
        self.usage = response.usage if self.calls == 1 else self.usage + response.usage
        self.cost = None if self.cost is None or response.cost_usd is None else self.cost + response.cost_usd
        if response.saved_usd is not None:
            self.saved = (self.saved or 0.0) + response.saved_usd

    def merge(self, other: Spent) -> None:
        """Add what further calls took."""
        if not other.calls:
            return
        self.usage = self.usage + other.usage if self.calls else other.usage
        self.calls, self.live = self.calls + other.calls, self.live + other.live
        self.cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        if other.saved is not None:
            self.saved = (self.saved or 0.0) + other.saved

    def including(self, response: LLMResponse) -> LLMResponse:
        """A response as if it had taken these calls, too."""
        if not self.calls:
            return response
        known = self.cost is not None and response.cost_usd is not None
        return replace(
            response,
            usage=self.usage + response.usage,
            cost_usd=(self.cost or 0.0) + (response.cost_usd or 0.0) if known else None,
        )

    def add_failed(self, error: LLMError, request: LLMRequest) -> None:
        """An answer that does not fit; one that was counted already (by its response) is not counted twice."""
        if error.charged:
            usage = error.usage or TokenUsage()
            paid = LLMResponse("", request.service, request.model, usage, cost_usd=error.cost_usd)
            self.add(replace(paid, cached=error.cached, saved_usd=error.saved_usd))

    def within(self, error: LLMError) -> LLMError:
        """The error with what all calls took: nobody else will say it."""
        if self.calls:
            error.usage, error.cost_usd, error.charged = self.usage, self.cost, True
            error.cached, error.saved_usd = not self.live, self.saved
        return error

    def note(self, meter: Meter | None) -> None:
        """Leave with the caller what all calls took."""
        if meter is not None and self.calls:
            meter.usage, meter.cost_usd = self.usage, self.cost

    def total(self, response: LLMResponse) -> LLMResponse:
        return replace(
            response,
            usage=self.usage,
            cost_usd=self.cost,
            cached=self.calls > 0 and not self.live,
            saved_usd=self.saved,
        )

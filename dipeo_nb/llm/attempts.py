"""Attempts at a call of a model: budget, circuit breaker, limits of concurrency and of time, retries; then the provider's client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMConnectionError, LLMError
from dipeo_nb.llm.accounting import CallProgress, Spent
from dipeo_nb.llm.client_pool import ClientManager
from dipeo_nb.llm.core.retry import pause
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.endings import ANSWERED, without_keys
from dipeo_nb.llm.pricing import cost_usd, is_priced
from dipeo_nb.llm.streaming import SPOKEN, TimeLimits, incomplete_stream_error


class Attempts:
    """Calls one model until it answers, and books what each attempt took.

    Args:
        sleep: waits between two attempts.
    """

    def __init__(
        self, settings: Settings, clients: ClientManager, retries: RetryConfig, sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._retries = retries
        self._sleep = sleep

    async def run(self, request: LLMRequest, spent: Spent) -> AsyncGenerator[StreamEvent]:
        """The answer of one model; failures that may pass are tried again. A stream that had begun is restarted visibly."""
        assert request.timeout is not None
        limits: TimeLimits | None = None
        """From the first turn on, once the client is ready: waiting for either is not the call's fault."""
        circuit, concurrency = self._clients.guards(request)
        attempt = 1
        while True:
            spoken = False
            try:
                circuit.before_call(request.model)
                async with concurrency.slot() as ended:
                    held = self._book(request)
                    progress = CallProgress()
                    try:
                        async with self._clients.client(request) as client:
                            # A registered client may be older than this method, or no subclass of the port.
                            if (prepare := getattr(client, "prepare", None)) is not None:
                                await prepare()
                            limits = limits or TimeLimits(request.timeout, self._settings.llm_idle_timeout)
                            stream = limits.guard(client.stream(replace(request, meter=progress.meter)), request)
                            async with contextlib.aclosing(stream) as events:
                                async for event in events:
                                    progress.take(event)
                                    if event.response is not None:
                                        event = replace(event, response=self._charged(event.response, request, progress))
                                        ended(None)
                                        circuit.succeeded()
                                        yield event
                                        return
                                    spoken = spoken or event.kind in SPOKEN
                                    yield event
                        raise incomplete_stream_error(request)
                    except LLMError as error:
                        redactor.error(error)
                        self._charge_failed(error, request, progress)
                        if isinstance(error, ANSWERED):
                            ended(None)
                            circuit.succeeded()
                            raise
                        ended(error)
                        circuit.failed(error)
                        raise
                    except BaseException:  # nobody waits for the answer any more
                        if progress.begun and not progress.answered:
                            spent.add(self._cut_off(request, progress))
                        raise
                    finally:
                        if request.budget is not None:
                            request.budget.release(held)
            except LLMError as error:
                wait = pause(error, attempt, self._retries)
                if limits is None or wait is None or wait >= limits.left or getattr(error, "circuit_open", False):
                    raise
                spent.add_failed(error, request)
                yield StreamEvent(
                    "error", error.message, data={"code": error.code, "attempt": attempt, "retry_in_s": round(wait, 3)}
                )
                if spoken:
                    yield StreamEvent("stream_restarted", data={"reason": error.message})
            attempt += 1
            await self._sleep(wait)

    def _book(self, request: LLMRequest) -> int:
        """Tokens that the call holds of the budget until it is charged."""
        if request.budget is None:
            return 0
        size = sum(len(m.content) for m in request.messages)
        base_url = self._clients.base_url(request)
        tools = [tool.type for tool in request.tools]
        priced = request.budget.usd is None or is_priced(request.service, request.model, base_url=base_url, tools=tools)
        return request.budget.before_call(
            size, answer=request.max_tokens or 0, model=request.model or request.service, priced=priced
        )

    def _charged(self, response: LLMResponse, request: LLMRequest, progress: CallProgress) -> LLMResponse:
        """The response with its price, booked. What the server says about it (not the answer itself) may repeat a key."""
        if response.cost_usd is None:
            response = replace(response, cost_usd=self._price(request, response.model, response.usage))
        if request.budget is not None:
            tokens = response.usage.total
            request.budget.charge(progress.estimate(request).total if tokens is None else tokens, response.cost_usd)
        return without_keys(response, request)

    def _price(self, request: LLMRequest, model: str | None, usage: TokenUsage) -> float | None:
        asked, base_url = request.model, self._clients.base_url(request)
        return cost_usd(request.service, model or asked, usage, base_url=base_url, requested=asked)

    def _charge_failed(self, error: LLMError, request: LLMRequest, progress: CallProgress) -> None:
        """A refusal and an answer that does not fit were paid for all the same, and so was what came of one that broke off."""
        if error.usage is not None and error.usage.total is not None:
            error.cost_usd, error.charged = self._price(request, error.model, error.usage), True
            if request.budget is not None:
                request.budget.charge(error.usage.total, error.cost_usd)
        elif error.usage is not None or progress.gave or (progress.begun and isinstance(error, LLMConnectionError)):
            paid = self._cut_off(request, progress)
            error.usage, error.cost_usd, error.charged = paid.usage, paid.cost_usd, True

    def _cut_off(self, request: LLMRequest, progress: CallProgress) -> LLMResponse:
        """A call whose end was not reported, booked: the tokens that were. Its cost is unknown, unless calls cost nothing; a budget
        is charged with an estimate, so that its limits are kept."""
        usage = progress.meter.usage or TokenUsage()
        cost = self._price(request, request.model, TokenUsage())
        if request.budget is not None:
            estimate = progress.estimate(request)
            request.budget.charge(estimate.total, self._price(request, request.model, estimate))
        return LLMResponse("", request.service, request.model, usage, cost_usd=cost)

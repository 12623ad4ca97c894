"""All models behind one door."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, normalize_service
from dipeo_nb.domain.ports import APIKeyPort, LLMClient
from dipeo_nb.errors import (
    LLMConnectionError,
    LLMError,
    ProviderError,
    RateLimitError,
    StructureError,
    ValidationError,
)
from dipeo_nb.llm import providers
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.stream import SPOKEN, TimeLimits, broken_off, collected
from dipeo_nb.llm.structured import prepare, repair_request

ATTEMPTS = 4
"""Tries of one call, the first included."""
BACKOFF_S = 0.5
"""Seconds before the second try; doubled for each further one, with jitter."""
RETRY_AFTER_LIMIT_S = 60.0
"""A provider that asks for a longer pause than this is reported instead of waited for."""
DEFAULT_MODEL_SERVICE = "openai"
"""Service of the settings' default model; other services have a default of their own."""
PROMPT_LIMIT = 10_000_000
"""Characters of one request at most."""


class LLMService:
    """`LLMServicePort` over the registered providers: one client per service, made on first use.

    Owns what no client should repeat: defaults, time limits, retries before the first piece of text, one repair of a
    structured answer, and cost.
    """

    def __init__(self, settings: Settings, keys: APIKeyPort) -> None:
        self._settings = settings
        self._keys = keys
        self._clients: dict[str, LLMClient] = {}

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMServicePort.stream`; `stream_restarted` means: forget the text so far, the model answers anew."""
        request = asked = self._filled(request)
        assert request.timeout is not None
        client = self._client(request.service)
        await prepare(request.response_format)
        limits = TimeLimits(request.timeout, self._settings.llm_idle_timeout)
        spent = TokenUsage()
        started = repaired = False
        attempt = 1
        while True:
            spoken = False
            try:
                async with contextlib.aclosing(limits.applied(client.stream(asked), asked)) as events:
                    async for event in events:
                        if event.kind == "start" and started:
                            continue
                        started = True
                        spoken = spoken or event.kind in SPOKEN
                        yield event if event.response is None else self._accounted(event, request, spent)
                        if event.kind == "end":
                            return
                raise broken_off(request)
            except StructureError as error:
                if repaired or not error.repairable:
                    raise
                spent, repaired, attempt = spent + (error.usage or TokenUsage()), True, 1
                asked = repair_request(request, error)
                yield StreamEvent("stream_restarted", data={"reason": error.problem})
            except LLMError as error:
                pause = _pause(error, attempt)
                if spoken or pause is None or pause >= limits.left:
                    raise
                attempt += 1
                await asyncio.sleep(pause)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await collected(self.stream(request), request)

    async def cleanup(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.cleanup()

    def _client(self, service: str) -> LLMClient:
        # Nothing is awaited in between, so that two callers can never make two.
        if service not in self._clients:
            self._clients[service] = providers.create(service, self._settings, self._keys)
        return self._clients[service]

    def _filled(self, request: LLMRequest) -> LLMRequest:
        """The request with defaults, checked."""
        service = normalize_service(request.service)
        if not any(m.content.strip() or m.tool_result for m in request.messages):
            raise ValidationError("The request has no message.", hint="Give the person a prompt.")
        size = sum(len(m.content) for m in request.messages)
        if size > PROMPT_LIMIT:
            raise ValidationError(
                f"The request has {size:,} characters, more than {PROMPT_LIMIT:,}.",
                hint="Remember less (memorize_to, at_most), or shorten the inputs.",
            )
        model = request.model or (self._settings.default_llm_model if service == DEFAULT_MODEL_SERVICE else "")
        timeout = self._settings.llm_timeout if request.timeout is None else request.timeout
        return replace(request, service=service, model=model, timeout=timeout)

    def _accounted(self, event: StreamEvent, request: LLMRequest, spent: TokenUsage) -> StreamEvent:
        """The end event with what earlier calls for it used, and the price of all."""
        response = event.response
        assert response is not None
        if spent.total:
            response = replace(response, usage=spent + response.usage, cost_usd=None)
        if response.cost_usd is None:
            base_url = request.base_url or (self._settings.openai_base_url if request.service == "openai" else None)
            cost = cost_usd(request.service, response.model or request.model, response.usage, base_url=base_url)
            response = replace(response, cost_usd=cost)
        return replace(event, response=response)


def _pause(error: LLMError, attempt: int) -> float | None:
    """Seconds to wait before the next try; None when another try is no use."""
    if attempt >= ATTEMPTS:
        return None
    if isinstance(error, RateLimitError) and error.retry_after is not None:
        return error.retry_after if error.retry_after <= RETRY_AFTER_LIMIT_S else None
    retried = isinstance(error, (RateLimitError, LLMConnectionError)) or (
        isinstance(error, ProviderError) and (error.status in (408, 409) or (error.status or 0) >= 500)
    )
    return BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.8, 1.2) if retried else None

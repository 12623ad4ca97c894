"""All models behind one door."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, normalize_service
from dipeo_nb.domain.ports import APIKeyPort, LLMClient
from dipeo_nb.errors import (
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    ValidationError,
)
from dipeo_nb.llm import providers
from dipeo_nb.llm.pricing import cost_usd

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

    Owns what no client should repeat: defaults, time limits (whole call, and silence between two pieces), retries before
    the first piece of text, and cost.
    """

    def __init__(self, settings: Settings, keys: APIKeyPort) -> None:
        self._settings = settings
        self._keys = keys
        self._clients: dict[str, LLMClient] = {}

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        request = self._filled(request)
        client = self._client(request.service)
        for attempt in range(1, ATTEMPTS + 1):
            shown = False
            try:
                async with contextlib.aclosing(self._limited(client, request)) as events:
                    async for event in events:
                        shown = shown or event.kind in ("text", "reasoning")
                        yield self._priced(event, request)
            except LLMError as error:
                pause = _pause(error, attempt)
                if shown or pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def complete(self, request: LLMRequest) -> LLMResponse:
        response: LLMResponse | None = None
        async for event in self.stream(request):
            response = event.response or response
        if response is None:
            raise LLMConnectionError(
                f"The answer of {request.service} ended before it was complete.",
                hint="Try again.",
                provider=request.service,
                model=request.model,
            )
        return response

    async def cleanup(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.cleanup()

    def _client(self, service: str) -> LLMClient:
        if service not in self._clients:
            self._clients[service] = providers.create(service, self._settings, self._keys)
        return self._clients[service]

    def _filled(self, request: LLMRequest) -> LLMRequest:
        """The request with defaults, checked."""
        service = normalize_service(request.service)
        if not request.messages or not any(m.content.strip() or m.tool_result for m in request.messages):
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

    async def _limited(self, client: LLMClient, request: LLMRequest) -> AsyncGenerator[StreamEvent]:
        """The client's stream with its time limits. A model being fetched or loaded (`progress`) does not count."""
        assert request.timeout is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        idle = self._settings.llm_idle_timeout
        events = client.stream(request)
        first = True
        try:
            while True:
                left = deadline - loop.time()
                # The first piece may take as long as the whole call: models think before they speak.
                limit = left if first else min(left, idle)
                try:
                    async with asyncio.timeout(max(limit, 0.0)):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    total = limit >= left
                    what = f"no complete answer within {request.timeout:g} s" if total else f"silence for {idle:g} s"
                    raise LLMTimeoutError(
                        f"{request.service} ({request.model or 'default model'}): {what}.",
                        hint="Raise DIPEO_LLM_TIMEOUT." if total else "Raise DIPEO_LLM_IDLE_TIMEOUT, or try again.",
                        provider=request.service,
                        model=request.model,
                    ) from None
                if event.kind == "progress":
                    deadline = loop.time() + request.timeout
                elif event.kind != "start":
                    first = False
                yield event
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _priced(self, event: StreamEvent, request: LLMRequest) -> StreamEvent:
        response = event.response
        if response is None or response.cost_usd is not None:
            return event
        cost = cost_usd(request.service, response.model or request.model, response.usage)
        return replace(event, response=replace(response, cost_usd=cost))


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

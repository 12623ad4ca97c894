"""Models for tests: instant, scripted, failing, slow. Use them for your own diagrams:

from dipeo_nb.testing import scripted

result = dp.Session(services=…, llm=scripted({"Judge": "Ada wins."})).run("debate.light.yaml")
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMError, ProviderError
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.llm.structured import validated

__all__ = ["EchoClient", "FailingClient", "ScriptedClient", "SlowClient", "scripted"]

Answer = Any
"""A text, a value for a structured answer, an exception to raise, or a function of the request that gives one."""
Script = Answer | Sequence[Answer] | Mapping[str, Answer | Sequence[Answer]]


class ScriptedClient:
    """A model that says what it was told to say; it serves as a client and as the whole LLM service.

    Args:
        script: one answer for every call; a list of answers in turn (the last one serves further calls); or a mapping of
            person or node label to either. A label that the mapping lacks falls back to `"*"`.

    `requests` holds every request it got, in order.
    """

    provider = "scripted"

    def __init__(self, script: Script = "ok") -> None:
        self._script = (
            {k: _turns(v) for k, v in script.items()} if isinstance(script, Mapping) else {"*": _turns(script)}
        )
        self.requests: list[LLMRequest] = []

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.requests.append(request)
        answer = self._next(request)
        if isinstance(answer, BaseException):
            raise answer
        yield StreamEvent("start")
        structured = None
        text = answer if isinstance(answer, str) else ""
        if request.response_format is not None and not isinstance(answer, str):
            text, structured = validated(answer, request.response_format)
        for piece in re.findall(r"\s*\S+\s*$|\s*\S+", text):
            await self._pause()
            yield StreamEvent("text", piece)
        usage = TokenUsage(input=sum(len(m.content.split()) for m in request.messages), output=len(text.split()))
        model = request.model or "scripted"
        yield StreamEvent("end", response=LLMResponse(text, self.provider, model, usage, structured, cost_usd=0.0))

    async def complete(self, request: LLMRequest) -> LLMResponse:
        response: LLMResponse | None = None
        async for event in self.stream(request):
            response = event.response or response
        assert response is not None
        return response

    async def cleanup(self) -> None:
        """Nothing to close."""

    async def _pause(self) -> None:
        await asyncio.sleep(0)

    def _next(self, request: LLMRequest) -> Answer:
        for label in (request.context.get("node"), request.context.get("person"), "*"):
            if label in self._script:
                turns = self._script[label]
                answer = turns.pop(0) if len(turns) > 1 else turns[0]
                return answer(request) if isinstance(answer, Callable) and not isinstance(answer, type) else answer
        raise ProviderError(
            f"The script has no answer for node '{request.context.get('node')}', person '{request.context.get('person')}'.",
            hint=f"It has: {', '.join(self._script)}. Add the label, or '*' for all others.",
            provider=self.provider,
        )


class FailingClient(ScriptedClient):
    """A model that raises *error* for the first *times* calls (for every call by default), then answers `ok`."""

    def __init__(self, error: LLMError | None = None, times: int | None = None) -> None:
        error = error or ProviderError(
            "The model fails on purpose.", hint="It is a FailingClient.", provider="scripted"
        )
        super().__init__([error] if times is None else [*[error] * times, "ok"])


class SlowClient(ScriptedClient):
    """A scripted model that pauses *delay* seconds before each word."""

    def __init__(self, script: Script = "one two three four five", *, delay: float = 0.05) -> None:
        super().__init__(script)
        self.delay = delay
        self.cancelled = 0
        """Answers that were cut off."""

    async def _pause(self) -> None:
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def scripted(script: Script = "ok") -> ScriptedClient:
    """A whole LLM service that follows a script, whatever service and model the diagram names."""
    return ScriptedClient(script)


def _turns(script: Answer | Sequence[Answer]) -> list[Answer]:
    return list(script) if isinstance(script, (list, tuple)) else [script]

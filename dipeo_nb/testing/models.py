"""Models for tests: instant, scripted, failing, slow. Each is a client and a whole LLM service at once:

import dipeo_nb as dp
from dipeo_nb.testing import scripted

session = dp.Session(llm=scripted({"Judge": "Ada wins.", "*": ["First.", "Second."]}))
result = session.run("debate.light.yaml")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from dipeo_nb.common import user_code
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.errors import LLMError, ProviderError, StructureError
from dipeo_nb.llm.providers.echo import EchoClient, counted, words
from dipeo_nb.llm.streaming import collect
from dipeo_nb.llm.structured import parsed, validated

__all__ = ["EchoClient", "FailingClient", "ScriptedClient", "SlowClient", "scripted"]

Answer = Any
"""A text; a value (dict, list, pydantic instance …) for a structured answer; an exception to raise; or a function of the
request, plain or async, that gives one of these."""
Script = Answer | Sequence[Answer] | Mapping[str, Answer | Sequence[Answer]]


class ScriptedClient:
    """A model with scripted answers; it serves as an `LLMClient` and as the whole LLM service.

    Args:
        script: one answer for every call; a list of answers in turn (the last one serves further calls); or a mapping of
            node or person label to either, with `"*"` for all others. An answer that is itself a list or a dict goes
            inside a list: `[{"winner": "Ada"}]`.

    `requests` holds every request it got, in order.
    """

    provider = "scripted"
    services: tuple[()] = ()

    def __init__(self, script: Script = "ok") -> None:
        by_label = script if isinstance(script, Mapping) else {"*": script}
        self._script = {str(label): _turns(answers) for label, answers in by_label.items()}
        self.requests: list[LLMRequest] = []

    async def prepare(self) -> None:
        """Nothing to load."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.requests.append(request)
        answer = self._next(request)
        if callable(answer) and not isinstance(answer, type):
            answer = await user_code.call(answer, request)
        if isinstance(answer, BaseException):
            raise answer
        yield StreamEvent("start")
        text, structured = self._answered(answer, request)
        for word in words(text):
            await self._pause()
            yield StreamEvent("text", word)
        usage = counted(request, text)
        yield StreamEvent("usage", data=usage.to_dict())
        yield StreamEvent(
            "end",
            response=LLMResponse(
                text,
                self.provider,
                request.model or "scripted",
                usage,
                structured,
                finish_reason="stop",
                cost_usd=0.0,
                output_mode=None if structured is None else "native",
            ),
        )

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; same errors."""
        return await collect(self.stream(request), request)

    async_chat = complete

    async def cleanup(self) -> None:
        """Nothing to close."""

    async def _pause(self) -> None:
        await asyncio.sleep(0)

    def _next(self, request: LLMRequest) -> Answer:
        node, person = str(request.context.get("node")), str(request.context.get("person"))
        for label in (node, person, "*"):
            if turns := self._script.get(label):
                return turns.pop(0) if len(turns) > 1 else turns[0]
        raise ProviderError(
            f"The script has no answer for node '{node}', person '{person}'.",
            hint=f"It has: {', '.join(self._script)}. Add the label, or '*' for all others.",
            provider=self.provider,
        )

    def _answered(self, answer: Answer, request: LLMRequest) -> tuple[str, Any]:
        """(text, structured value) of an answer; StructureError when it does not fit what was asked for."""
        shape = request.response_format
        if shape is None:
            return (answer if isinstance(answer, str) else _json(answer)), None
        text = answer if isinstance(answer, str) else _json(answer)
        try:
            if isinstance(answer, str):
                return text, parsed(text, shape, provider=self.provider, model=request.model or "scripted")
            return validated(answer, shape)
        except StructureError:
            if request.allow_prose:
                return text, None
            raise
        except ValueError:
            if request.allow_prose:
                return text, None
            return text, parsed(text, shape, provider=self.provider, model=request.model or "scripted")


class FailingClient(ScriptedClient):
    """A model that raises *error* for the first *times* calls (for every call by default), then answers *answer*."""

    def __init__(self, error: LLMError | None = None, times: int | None = None, answer: Answer = "ok") -> None:
        error = error or ProviderError("The model fails on purpose.", hint="It is a FailingClient.", provider=self.provider)
        super().__init__([error] if times is None else [*[error] * times, answer])


class SlowClient(ScriptedClient):
    """A scripted model that pauses *delay* seconds before each word."""

    def __init__(self, script: Script = "one two three four five", *, delay: float = 0.05) -> None:
        super().__init__(script)
        self.delay = delay
        self.cancelled: int = 0
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


def _json(value: Any) -> str:
    return value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value, ensure_ascii=False)

"""A model that costs nothing and knows nothing: it repeats what it was asked. For tests, for trying a diagram's flow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.structured import name_of, sample, schema_of, validated

ECHO_LIMIT = 200
"""Characters of the question that are repeated."""
REMEMBERED = 5
"""Messages it selects when it is asked to select memories: the last ones listed."""


class EchoClient(UnifiedClient):
    """`LLMClient` without a model, instant and deterministic.

    Text: `[person] ` and the last user message, cut to 200 characters. Structure: the smallest valid instance of the
    schema (true, 0, "", the first choice, empty lists). Memory selection: the last five ids listed. Usage counts words
    and says so in `raw`; the cost is 0.
    """

    provider = "echo"

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        text, structured = _answer(request)
        yield StreamEvent("start")
        for word in words(text):
            yield StreamEvent("text", word)
        usage = counted(request, text)
        yield StreamEvent("usage", data=usage.to_dict())
        yield StreamEvent(
            "end",
            response=LLMResponse(
                text,
                self.provider,
                request.model or "echo",
                usage,
                structured,
                finish_reason="stop",
                cost_usd=0.0,
                rung=None if request.response_format is None else "native",
            ),
        )


def words(text: str) -> list[str]:
    """A text word by word, as models stream it; together they are the text."""
    return re.findall(r"\s*\S+\s*\Z|\s*\S+", text)


def counted(request: LLMRequest, text: str) -> TokenUsage:
    """Words instead of tokens, marked as an estimate."""
    asked = sum(len(m.content.split()) for m in request.messages)
    return TokenUsage(input=asked, output=len(text.split()), raw={"estimated": True})


def _answer(request: LLMRequest) -> tuple[str, Any]:
    shape = request.response_format
    if shape is None:
        return _echo(request), None
    value = sample(schema_of(shape))
    if request.phase is ExecutionPhase.MEMORY_SELECTION and isinstance(value, dict):
        value = {**value, "message_ids": _listed(request)[-REMEMBERED:]}
    try:
        return validated(value, shape)
    except ValueError as error:
        raise UnsupportedError(
            f"The echo model cannot make up an answer for '{name_of(shape)}': {error}.",
            hint="Use dipeo_nb.testing.scripted with an answer of your own, or --model local.",
            provider="echo",
            model=request.model or "echo",
        ) from error


def _echo(request: LLMRequest) -> str:
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    person: Any = request.context.get("person") if isinstance(request.context, Mapping) else None
    text = " ".join(question.split())
    return f"[{person or 'echo'}] {text[:ECHO_LIMIT]}{'…' if len(text) > ECHO_LIMIT else ''}"


def _listed(request: LLMRequest) -> list[str]:
    text = request.messages[-1].content if request.messages else ""
    return re.findall(r"^- (\S+) \(", text, re.MULTILINE)

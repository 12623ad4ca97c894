"""A model that costs nothing and knows nothing: it repeats what it was asked. For tests, for trying a diagram's flow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.llm.structured import sample, schema_of, validated

ECHO_LIMIT = 200
"""Characters of the question that are repeated."""
REMEMBERED = 5
"""Messages it selects when it is asked to select memories: the last ones listed."""


class EchoClient:
    """`LLMClient` without a model, instant and deterministic.

    Text: `[person] ` and the last user message, cut to 200 characters. Structure: the smallest valid instance of the
    schema (true, 0, "", the first choice, empty lists). Memory selection: the last five ids listed. Usage counts words
    and says so in `raw`; the cost is 0.
    """

    provider = "echo"

    def __init__(self, settings: Settings | None = None, keys: APIKeyPort | None = None) -> None:
        pass

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        yield StreamEvent("start")
        structured = None
        if request.response_format is not None:
            schema = schema_of(request.response_format)
            value = sample(schema)
            if request.phase is ExecutionPhase.MEMORY_SELECTION and isinstance(value, dict):
                value = {**value, "message_ids": _listed(request)[-REMEMBERED:]}
            text, structured = validated(value, request.response_format)
        else:
            text = _echo(request)
        for piece in re.findall(r"\s*\S+\s*$|\s*\S+", text):
            yield StreamEvent("text", piece)
        usage = TokenUsage(
            input=sum(len(m.content.split()) for m in request.messages),
            output=len(text.split()),
            raw={"estimated": True},
        )
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
                rung="native" if structured is not None else None,
            ),
        )

    async def cleanup(self) -> None:
        """Nothing to close."""


def _echo(request: LLMRequest) -> str:
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    person: Any = request.context.get("person") if isinstance(request.context, Mapping) else None
    text = " ".join(question.split())
    return f"[{person or 'echo'}] {text[:ECHO_LIMIT]}{'…' if len(text) > ECHO_LIMIT else ''}"


def _listed(request: LLMRequest) -> list[str]:
    text = request.messages[-1].content if request.messages else ""
    return re.findall(r"^- (\S+) \(", text, re.MULTILINE)

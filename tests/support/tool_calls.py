"""A scripted client that calls tools, and a service with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from tests.support.wire_openai import settings_with


class Calls:
    """A client that calls tools: each turn is a list of calls, or a text."""

    provider = "openai"

    def __init__(self, *turns: list[ToolCall] | str) -> None:
        self.turns = list(turns)
        self.asked: list[LLMRequest] = []

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.asked.append(request)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        yield StreamEvent("start")
        text, calls = (turn, ()) if isinstance(turn, str) else ("", tuple(turn))
        for call in calls:
            yield StreamEvent("tool_call_start", call.name, data={"id": call.id})
            yield StreamEvent("tool_call_end", call.name, data={"id": call.id, "arguments": dict(call.arguments)})
        usage = TokenUsage(10, 5, raw={"n": len(self.asked)})
        yield StreamEvent("usage", data=usage.to_dict())
        raw = {"provider": "openai", "content": [{"turn": len(self.asked)}]} if calls else None
        yield StreamEvent("end", response=LLMResponse(text, "openai", "gpt-4o", usage, tool_calls=calls, raw=raw))

    async def cleanup(self) -> None:
        pass


def service(client: Any, monkeypatch: pytest.MonkeyPatch) -> LLMService:
    monkeypatch.setattr(providers, "create", lambda config, settings: client)
    keys = InMemoryAPIKeyService({"openai": "sk-test"})
    return LLMService(settings_with(), keys, retries=RetryConfig(initial_delay=0.001))

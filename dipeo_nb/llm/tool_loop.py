"""Rounds of tools within an answer: the calls that are run here, their results, and what is asked next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolCall
from dipeo_nb.errors import ProviderError, ToolLoopError
from dipeo_nb.llm.tools import run_tool


def are_ours(calls: Sequence[ToolCall], request: LLMRequest) -> bool:
    """Whether the called tools are run here; calls of a tool without a function are the caller's to answer."""
    theirs = {t.name for t in request.tools if t.type == "function" and t.function is None}
    return any(t.function is not None for t in request.tools) and not any(c.name in theirs for c in calls)


def after_first(choice: str | None) -> str | None:
    """A tool that had to be called was called; after that the model is free, or it would call it forever."""
    return choice if choice in (None, "auto", "none") else "auto"


async def results_of(calls: Sequence[ToolCall], request: LLMRequest) -> AsyncGenerator[tuple[StreamEvent, ChatMessage]]:
    """The results of calls, run at the same time, as they come."""
    running = {asyncio.ensure_future(run_tool(call, request.tools)): call for call in calls}
    try:
        for done in asyncio.as_completed(running):
            result = await done
            call = next(c for c in calls if c.id == result.call_id)
            data = {"id": call.id, "name": call.name, "is_error": result.is_error}
            message = ChatMessage("tool", result.content, call.name, tool_result=result)
            yield StreamEvent("tool_result", result.content, data=data), message
    finally:
        for task in running:
            task.cancel()


def check_round(response: LLMResponse, rounds: int, request: LLMRequest) -> None:
    """Refuse to go into one more round of tools.

    Args:
        response: the turn that calls tools.
        rounds: of tools so far, this one included.

    Raises:
        ToolLoopError: there were as many as the request allows.
        ProviderError: the turn was cut off within a call.
    """
    facts: dict[str, Any] = {"provider": response.provider, "model": response.model}
    if rounds > request.tool_rounds:
        raise ToolLoopError(
            f"The model called tools {rounds} rounds in a row without giving an answer.",
            hint="Raise tool_rounds, or say in the prompt when to stop.",
            **facts,
        )
    if response.finish_reason == "length" and any(c.unreadable is not None for c in response.tool_calls):
        raise ProviderError(
            "The answer was cut off at its limit of tokens, within a call of a tool.", hint="Raise max_tokens.", **facts
        )

"""Answers of Ollama's chat, while they come and when they are finished."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.llm.core.http import drained
from dipeo_nb.llm.providers.ollama.request import called
from dipeo_nb.llm.providers.ollama.sdk import NO_OBJECT
from dipeo_nb.llm.streaming import incomplete_stream_error, named, words
from dipeo_nb.llm.structured import parsed
from dipeo_nb.llm.tools import call_id_of, call_of
from dipeo_nb.llm.usage import count

_COMPLETE = (None, "", "stop", "length")


def _ended_otherwise(reason: str) -> str:
    if reason in ("load", "unload"):
        return f"Ollama gave no answer: it only {reason}ed the model (done_reason '{reason}'), as it does without a prompt."
    return f"Ollama ended its answer with '{reason}'."


class IncomingAnswer:
    """An answer while it comes."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._end: Any = None

    def take(self, chunk: Any) -> Iterator[StreamEvent]:
        message = chunk.message
        if thought := words(message.thinking):
            self._thoughts.append(thought)
            yield StreamEvent("reasoning", thought)
        if text := words(message.content):
            self._text.append(text)
            yield StreamEvent("text", text)
        for said in message.tool_calls or ():
            call = _call(said.function)
            self._calls.append(call)
            arguments = json.dumps(call.arguments, ensure_ascii=False) if call.unreadable is None else call.unreadable
            yield StreamEvent("tool_call_start", call.name, data={"id": call.id})
            yield StreamEvent("tool_call_delta", arguments, data={"id": call.id})
            yield StreamEvent("tool_call_end", call.name, data={"id": call.id, "arguments": arguments})
        if chunk.done:
            self._end = chunk

    def finished(self) -> LLMResponse:
        """The whole answer.

        Raises:
            LLMConnectionError: it was not complete.
            StructureError: it does not fit the requested structure.
        """
        request, end = self._request, self._end
        if end is None:
            raise incomplete_stream_error(request)
        text, cut = "".join(self._text), end.done_reason == "length"
        usage = _usage(end)
        structured = mode = None
        if request.response_format is not None and not self._calls:
            structured = parsed(text, request.response_format, provider="ollama", model=request.model, usage=usage, cut=cut)
            mode = "json_mode" if request.output_mode == "json_mode" else "grammar"
        return LLMResponse(
            text,
            "ollama",
            end.model or request.model,
            usage,
            structured,
            tuple(self._calls),
            "length" if cut else "tool_calls" if self._calls else "stop",
            output_mode=mode,
            raw=self._raw(text) if self._calls and self._thoughts else None,
            warnings=() if end.done_reason in _COMPLETE else (_ended_otherwise(end.done_reason),),
        )

    def _raw(self, text: str) -> dict[str, Any]:
        """The turn with its thoughts, which some models want back while they call tools."""
        calls = [called(call) for call in self._calls]
        turn = {"role": "assistant", "content": text, "thinking": "".join(self._thoughts), "tool_calls": calls}
        return {"provider": "ollama", "content": [turn]}


def _call(function: Any) -> ToolCall:
    """A call of a tool. Its id is ours: the SDK drops Ollama's, and older servers have none."""
    call_id, given = call_id_of(None, ()), dict(function.arguments)
    if given.keys() != {NO_OBJECT}:
        return ToolCall(call_id, named(function.name), given)
    text = given[NO_OBJECT]
    return call_of(call_id, named(function.name), text if isinstance(text, str) else "" if text is None else json.dumps(text))


async def events_of(client: Any, body: Mapping[str, Any], answer: IncomingAnswer) -> AsyncGenerator[StreamEvent]:
    async with contextlib.aclosing(await client.chat_as_it_is(body)) as chunks:
        async for chunk in chunks:
            for event in answer.take(chunk):
                yield event
            if chunk.done:
                await drained(chunks)
                break


def _usage(end: Any) -> TokenUsage:
    """Ollama tells neither cached tokens nor thoughts apart; what it does not say is unknown."""
    counts = (
        "prompt_eval_count",
        "eval_count",
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
    )
    raw = {name: value for name in counts if (value := getattr(end, name)) is not None}
    return TokenUsage(count(end.prompt_eval_count), count(end.eval_count), raw=raw)

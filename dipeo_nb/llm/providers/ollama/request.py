"""Requests in the form of Ollama's chat: messages and tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, ToolCall, ToolConfig
from dipeo_nb.errors import UnsupportedError


def messages_of(messages: Sequence[ChatMessage]) -> Iterator[dict[str, Any]]:
    names: dict[str, str] = {}
    for message in messages:
        if message.tool_result is not None:
            result = message.tool_result
            content = f"Error: {result.content}" if result.is_error else result.content
            name = message.name or names.get(result.call_id, "")
            yield {"role": "tool", "tool_name": name, "tool_call_id": result.call_id, "content": content}
        elif message.raw is not None and message.raw.get("provider") == "ollama":
            yield from message.raw["content"]
        else:
            item: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.tool_calls:
                item["tool_calls"] = [called(call) for call in message.tool_calls]
            yield item
        names |= {call.id: call.name for call in message.tool_calls}


def called(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}


def tools_of(request: LLMRequest) -> list[dict[str, Any]]:
    for tool in request.tools:
        if tool.type != "function":
            raise unsupported(
                request,
                f"Ollama has no built-in tool '{tool.type}'.",
                "It calls your own functions; openai, anthropic and gemini search the web.",
            )
    match request.tool_choice:
        case None | "auto":
            return [_function(tool) for tool in request.tools]
        case "none":
            return []
        case choice:
            raise unsupported(
                request,
                f"Ollama cannot be made to call a tool (tool_choice '{choice}').",
                "Leave tool_choice out and say it in the prompt, or use openai, anthropic or gemini.",
            )


def _function(tool: ToolConfig) -> dict[str, Any]:
    parameters = dict(tool.parameters or {"type": "object", "properties": {}})
    function = {"name": tool.name, "description": tool.description or "", "parameters": parameters}
    return {"type": "function", "function": function}


def unsupported(request: LLMRequest, message: str, hint: str) -> UnsupportedError:
    return UnsupportedError(message, hint=hint, provider="ollama", model=request.model)

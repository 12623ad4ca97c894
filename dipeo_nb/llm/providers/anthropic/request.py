"""Requests in the form of the Messages API: turns, tools, and schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, ToolConfig
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.providers.anthropic.sdk import load_sdk
from dipeo_nb.llm.structured import is_object, name_of, schema_of

SEARCH_TOOL = "web_search_20250305"
"""The version of the built-in search that all models with it take."""


def messages_of(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Turns of user and assistant; what one side says in a row is one turn, results of tools belong to the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message))
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "Continue."}]})
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last["type"] == "text":  # the beginning of an answer must not end in blanks
        turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}
    return turns


def without_thoughts(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turns without thoughts: none of them may be left out alone."""
    thoughts = ("thinking", "redacted_thinking")
    found = [{**turn, "content": [block for block in turn["content"] if block["type"] not in thoughts]} for turn in turns]
    return [turn for turn in found if turn["content"]]


def _blocks(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.raw is not None and message.raw.get("provider") == "anthropic":
        for block in message.raw["content"]:
            if block.get("type") != "text" or str(block.get("text", "")).strip():  # blank blocks are refused
                yield block
        return
    if message.tool_result is not None:
        result = message.tool_result
        block = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.content}
        yield {**block, "is_error": True} if result.is_error else block
        return
    if message.content.strip():  # blank blocks are refused
        yield {"type": "text", "text": message.content}
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}


def schema_for(request: LLMRequest) -> dict[str, Any]:
    """The schema in the dialect of structured outputs (closed objects, limits moved into descriptions and checked here)."""
    schema = schema_of(request.response_format)
    try:
        if not is_object(schema) or _free_form(schema):
            raise ValueError("it is not a closed object")
        return load_sdk().transform_schema(schema)
    except ValueError as error:
        raise UnsupportedError(
            f"anthropic's structured outputs cannot say '{name_of(request.response_format)}': {error}.",
            hint="Use an object with named fields, or leave the way to structure open.",
            provider="anthropic",
            model=request.model,
        ) from error


def _free_form(node: Any) -> bool:
    """Whether a schema has objects whose fields are not all named."""
    if isinstance(node, list):
        return any(map(_free_form, node))
    if not isinstance(node, Mapping):
        return False
    is_object_node = node.get("type") == "object" or "properties" in node
    if is_object_node and (not node.get("properties") or node.get("additionalProperties") not in (None, False)):
        return True
    return any(_free_form(v) for v in node.values())


def tool_of(tool: ToolConfig, model: str) -> dict[str, Any]:
    if tool.type == "function":
        return {
            "name": tool.name,
            "description": tool.description or "",
            "input_schema": tool.parameters or {"type": "object", "properties": {}},
        }
    if tool.type in ("web_search", "web_search_preview"):
        return {"type": SEARCH_TOOL, "name": "web_search", **(tool.config or {})}
    raise UnsupportedError(
        f"anthropic has no built-in tool '{tool.type}'.",
        hint="It has web_search, and your own functions; openai makes images.",
        provider="anthropic",
        model=model,
    )

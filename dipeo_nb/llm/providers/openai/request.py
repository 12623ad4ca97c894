"""Requests in the form of the Responses API: items, formats, and tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, ToolConfig
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.structured import is_object, name_of, schema_of, strict_schema

BUILT_IN_TOOLS = ("web_search", "web_search_preview", "image_generation")


def items_of(message: ChatMessage, system: str, model: str) -> Iterator[dict[str, Any]]:
    """A message as items of `input`. The sealed thoughts of another model are left out: models that do not reason refuse them."""
    if message.raw is not None and message.raw.get("provider") == "openai":
        items = message.raw["content"]
        yield from items if message.raw.get("model") in (None, model) else without_thoughts(items)
        return
    if message.tool_result is not None:
        yield {
            "type": "function_call_output",
            "call_id": message.tool_result.call_id,
            "output": message.tool_result.content,
        }
        return
    if message.content.strip():  # a blank message says nothing
        yield {"role": system if message.role == "system" else message.role, "content": message.content}
    for call in message.tool_calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(dict(call.arguments)),
        }


def format_of(request: LLMRequest) -> dict[str, Any]:
    """Strict where the schema allows it; a looser schema is sent as it is, and the answer checked here."""
    schema = schema_of(request.response_format)
    if not is_object(schema):
        raise UnsupportedError(
            f"openai answers in JSON objects; the requested structure is '{name_of(request.response_format)}' "
            f"of type {schema.get('type', 'any')}.",
            hint="Put it into a field of an object: {'type': 'object', 'properties': {'value': …}, 'required': ['value']}.",
            provider="openai",
            model=request.model,
        )
    strict = strict_schema(request.response_format)
    return {
        "type": "json_schema",
        "name": name_of(request.response_format),
        "schema": schema if strict is None else strict,
        "strict": strict is not None,
    }


def tool_of(tool: ToolConfig, model: str) -> dict[str, Any]:
    if tool.type == "function":
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
            "strict": False,
        }
    if tool.type not in BUILT_IN_TOOLS:
        raise UnsupportedError(
            f"openai has no built-in tool '{tool.type}'.",
            hint=f"It has {', '.join(BUILT_IN_TOOLS)}, and your own functions.",
            provider="openai",
            model=model,
        )
    return {"type": tool.type, **(tool.config or {})}


def without_thoughts(items: Sequence[dict[str, Any]], *, sealed: bool = True) -> list[dict[str, Any]]:
    """The items of a turn without thoughts, and what follows them without ids.

    Args:
        sealed: whether those that hold their own text, encrypted, are left out as well.
    """
    kept = [item for item in items if item.get("type") != "reasoning" or (item.get("encrypted_content") and not sealed)]
    if len(kept) == len(items):
        return kept
    found: list[dict[str, Any]] = []
    for item in kept:
        if item.get("type") == "message":
            text = "".join(part.get("text") or "" for part in item.get("content") or ())
            found += [{"role": "assistant", "content": text}] if text.strip() else []
        elif item.get("type") == "function_call":
            found.append({name: value for name, value in item.items() if name != "id"})
        else:
            found.append(item)
    return found

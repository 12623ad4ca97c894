"""Requests in the form of the Gemini API: the conversation, tools, and schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, ToolConfig
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.structured import name_of, schema_of

THOUGHT = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
"""Efforts as budgets of tokens, for models that know no levels."""
SEARCH_TOOLS = ("web_search", "web_search_preview")
UNSIGNED = b"skip_thought_signature_validator"
"""Stands for the signature of a call that another model made: Gemini 3 refuses unsigned ones
(https://ai.google.dev/gemini-api/docs/thought-signatures, FAQ)."""
OWN_ID = "gemini-"
"""Beginning of the ids given to calls that came without one; these are not sent back."""


# What models can do, beyond `capabilities.toml`.


def is_generation_3(model: str) -> bool:
    """Whether structure goes together with tools, and search with functions; `-latest` names are of today's generation."""
    number = re.match(r"(?:models/)?gemini-(\d+)", model)
    return int(number[1]) >= 3 if number else model.endswith("-latest")


def shows_thoughts(model: str) -> bool:
    """Whether summaries of its thoughts can be had, which cost nothing more; older models refuse to be asked for them."""
    name = model.removeprefix("models/")
    special = ("image", "tts", "audio", "live", "robotics", "computer")
    return name.startswith(("gemini-2.5-", "gemini-3")) and not any(word in name for word in special)


def system_of(messages: Sequence[ChatMessage]) -> str | None:
    """The instructions; Gemini knows them for the whole conversation only."""
    return "\n\n".join(m.content for m in messages if m.role == "system" and m.content.strip()) or None


def contents_of(request: LLMRequest, types: Any) -> Iterator[Any]:
    """The conversation; results of parallel calls are one turn, as the calls were."""
    results: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in request.messages:
        if message.tool_result is not None:
            results.append(_result(message, names))
            continue
        if results:
            yield {"role": "user", "parts": results}
            results = []
        names |= {call.id: call.name for call in message.tool_calls}
        raw = message.raw if message.raw is not None and message.raw.get("provider") == "gemini" else None
        if raw is not None and raw.get("model") in (None, request.model):  # another model does not know the signatures
            # Signatures are bytes, which only JSON carries as base64.
            parts = [types.Part.model_validate_json(json.dumps(part)) for part in raw["content"] if not _is_blank(part)]
            yield types.Content(role="model", parts=parts)
        elif message.role == "assistant":
            if parts := _said(message, request.model):  # a turn without parts is refused, and so is a blank part
                yield {"role": "model", "parts": parts}
        elif message.role != "system" and message.content.strip():
            yield {"role": "user", "parts": [{"text": message.content}]}
    if results:
        yield {"role": "user", "parts": results}


def _is_blank(part: Mapping[str, Any]) -> bool:
    """Whether a part of a turn says nothing and is not signed: such parts are refused."""
    return part.keys() <= {"text", "thought"} and not str(part.get("text", "")).strip()


def _said(message: ChatMessage, model: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if message.content.strip():
        parts.append({"text": message.content})
    for index, call in enumerate(message.tool_calls):
        part: dict[str, Any] = {"function_call": {**_id(call.id), "name": call.name, "args": dict(call.arguments)}}
        if index == 0 and is_generation_3(model):  # only the first of parallel calls is signed
            part["thought_signature"] = UNSIGNED
        parts.append(part)
    return parts


def _result(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    result = message.tool_result
    assert result is not None
    name = message.name or names.get(result.call_id, "")
    answer = {"error" if result.is_error else "output": result.content}
    return {"function_response": {**_id(result.call_id), "name": name, "response": answer}}


def _id(call_id: str) -> dict[str, str]:
    return {} if call_id.startswith(OWN_ID) else {"id": call_id}


def tools_of(request: LLMRequest) -> dict[str, Any]:
    functions: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.type == "function":
            functions.append(_function(tool))
        elif tool.type in SEARCH_TOOLS:
            tools.append({"google_search": dict(tool.config or {})})
        elif tool.type == "image_generation":  # no tool here: the model itself draws
            config["response_modalities"] = ["TEXT", "IMAGE"]
            config |= {"image_config": dict(tool.config)} if tool.config else {}
        else:
            raise _unsupported(
                request,
                f"gemini has no built-in tool '{tool.type}'.",
                "It has web_search, image_generation (image models), and your own functions.",
            )
    if functions and tools and not is_generation_3(request.model):
        raise _unsupported(
            request,
            f"{request.model} does not take web_search together with functions.",
            "Use one of them per node, or a Gemini 3 model.",
        )
    choice: dict[str, Any] = {}
    if request.tool_choice is not None and not functions and request.tool_choice not in ("auto", "none"):
        raise _unsupported(
            request,
            f"gemini cannot be made to use '{request.tool_choice}'; only functions can be chosen.",
            "Leave tool_choice out, or set it to 'auto'.",
        )
    if request.tool_choice is not None and functions:
        modes = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
        choice["function_calling_config"] = (
            {"mode": modes[request.tool_choice]}
            if request.tool_choice in modes
            else {"mode": "ANY", "allowed_function_names": [request.tool_choice]}
        )
    if functions and tools:
        choice["include_server_side_tool_invocations"] = True
    if functions:
        tools.append({"function_declarations": functions})
    if tools and (functions or request.tool_choice != "none"):
        config["tools"] = tools
    return {**config, "tool_config": choice} if choice else config


def _function(tool: ToolConfig) -> dict[str, Any]:
    parameters = {"parameters_json_schema": dict(tool.parameters)} if tool.parameters else {}
    return {"name": tool.name, "description": tool.description, **parameters}


def _unsupported(request: LLMRequest, message: str, hint: str) -> UnsupportedError:
    return UnsupportedError(message, hint=hint, provider="gemini", model=request.model)


_KNOWN = frozenset({
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems",
    "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required", "propertyOrdering",
})  # fmt: skip
"""Keywords of `responseJsonSchema` (https://ai.google.dev/api/generate-content#GenerationConfig)."""
_NEEDED = frozenset({"allOf", "not", "if", "patternProperties", "propertyNames", "dependentSchemas", "contains"})
"""Keywords that say so much that an answer made without them would seldom fit."""


def json_schema(response_format: Any) -> dict[str, Any]:
    """The schema in the part of JSON Schema that Gemini takes.

    Limits that it does not know (`pattern`, `minLength` …) are left out; the answer is checked against the whole schema here.
    A reference with something beside it is replaced by what it refers to, `const` by an `enum` of one.

    Raises:
        UnsupportedError: the schema combines or excludes others.
    """
    schema = schema_of(response_format)
    definitions: Mapping[str, Any] = schema.get("$defs", {})

    def walk(node: Any, inside: tuple[str, ...] = ()) -> Any:
        if isinstance(node, list):
            return [walk(item, inside) for item in node]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(node, Mapping):
            return node
        if lost := sorted(_NEEDED & set(node)):  # pyright: ignore[reportUnknownArgumentType]
            raise UnsupportedError(
                f"gemini's native structure has no '{lost[0]}', which '{name_of(response_format)}' uses.",
                hint="Leave out output_mode (then another way is taken), or write the schema without it.",
                provider="gemini",
            )
        reference = str(node.get("$ref", ""))
        beside = {k: v for k, v in node.items() if not str(k).startswith("$")}
        if reference and beside:
            name = reference.removeprefix("#/$defs/")
            if name in definitions and reference not in inside:
                return walk({**definitions[name], **beside}, (*inside, reference))
            return {"$ref": reference}
        result: dict[str, Any] = {}
        for key, value in node.items():  # pyright: ignore[reportUnknownVariableType]
            if key in ("properties", "$defs"):
                result[key] = {name: walk(part, inside) for name, part in value.items()}
            elif key == "const":
                result |= _choices([value])
            elif key == "enum":
                result |= _choices(value)
            elif key in _KNOWN:
                result[key] = walk(value, inside)
        return result

    return walk(schema)


def _choices(values: Sequence[Any]) -> dict[str, Any]:
    """Gemini chooses among texts and numbers; other values are narrowed to their types."""
    if all(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values):
        kind = {} if not all(isinstance(v, str) for v in values) else {"type": "string"}
        return {**kind, "enum": list(values)}
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    kinds = list(dict.fromkeys(names.get(type(v), "") for v in values))
    return {} if "" in kinds else {"type": kinds[0] if len(kinds) == 1 else kinds}

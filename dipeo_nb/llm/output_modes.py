"""Ways to ask for a structured answer: which of them a model and its server take; and those that need nothing of the provider, a tool or words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dipeo_nb.common.moved import renamed
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, OutputMode, TokenUsage, ToolConfig
from dipeo_nb.errors import ContextLengthError, LLMError, ProviderError, StructureError, UnsupportedError
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.endings import ANSWERED
from dipeo_nb.llm.structured import is_object, parsed, schema_of


def in_prose(error: StructureError, request: LLMRequest) -> LLMResponse:
    """The answer that did not fit, as an answer in words (`LLMRequest.allow_prose`)."""
    return LLMResponse(
        error.text,
        error.provider or request.service,
        error.model or request.model,
        error.usage or TokenUsage(),
        finish_reason="stop",
        request_id=error.request_id,
        cost_usd=error.cost_usd,
        cached=error.cached,
        saved_usd=error.saved_usd,
    )


ANSWER_TOOL = "give_answer"
"""Name of the tool through which a structured answer is asked for."""


def with_output_mode(request: LLMRequest, mode: OutputMode | None) -> LLMRequest:
    """The request as it goes to a client in this mode: `tool` and `prompt` need no support for structure."""
    if mode is None or request.response_format is None:
        return request
    if mode in ("grammar", "native"):
        return replace(request, output_mode=mode)
    schema = schema_of(request.response_format)
    if mode == "tool":
        answer = ToolConfig("function", ANSWER_TOOL, "Give the answer in this form.", _as_arguments(schema))
        choice = ANSWER_TOOL if not request.tools else "required"
        return replace(request, response_format=None, output_mode=None, tools=(*request.tools, answer), tool_choice=choice)
    ask = f"Answer with nothing but JSON that fits this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"
    before = [m for m in request.messages if m.role == "system"]
    after = [m for m in request.messages if m.role != "system"]
    messages = (*before, ChatMessage("system", ask), *after)
    if mode == "json_mode":
        return replace(request, messages=messages, output_mode=mode)
    return replace(request, messages=messages, response_format=None, output_mode=None)


def parse_output(response: LLMResponse, request: LLMRequest, mode: OutputMode | None) -> LLMResponse:
    """The response with the value that the mode brought; *request* is the one before `with_output_mode`.

    Raises:
        StructureError: it does not fit.
    """
    if request.response_format is None or response.structured is not None:
        return response
    facts: dict[str, Any] = {
        "provider": response.provider,
        "model": response.model,
        "usage": response.usage,
        "cut": response.finish_reason == "length",
    }
    given = next((c for c in response.tool_calls if c.name == ANSWER_TOOL), None)
    if mode == "tool" and given is not None:
        value: Any = dict(given.arguments)
        value = value if is_object(schema_of(request.response_format)) else value.get("value")
        text = json.dumps(value, ensure_ascii=False)
        structured = parsed(text, request.response_format, **facts)
        return replace(
            response, text=text, structured=structured, output_mode=mode, tool_calls=(), finish_reason="stop", raw=None
        )
    if response.tool_calls:
        return response
    structured = parsed(response.text, request.response_format, **facts)
    return replace(response, structured=structured, output_mode="prompt" if mode == "tool" else mode)


def _as_arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema as that of a tool's arguments, which are an object: anything else goes into its field `value`."""
    if is_object(schema):
        return dict(schema)
    inner = {k: v for k, v in schema.items() if k != "$defs"}
    outer = {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False}
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer


def repair_request(request: LLMRequest, error: StructureError) -> LLMRequest:
    """The request that asks once more after an answer that did not fit: the answer, what is wrong with it, the schema."""
    schema = json.dumps(schema_of(request.response_format), ensure_ascii=False)
    ask = f"That does not fit: {error.problem}. Answer again, with nothing but JSON that fits this JSON schema:\n{schema}"
    said = [ChatMessage("assistant", error.text)] if error.text.strip() else []
    return replace(request, messages=[*request.messages, *said, ChatMessage("user", ask)])


REFUSALS_KEPT = 256
"""Refused ways to structure that are remembered."""


class OutputModes:
    """The ways to ask a model for structure, in order, without those that its server has refused.

    Args:
        base_url: the address of the server that a request goes to; None: the provider's own.
    """

    def __init__(self, base_url: Callable[[LLMRequest], str | None]) -> None:
        self._base_url = base_url
        self._refused: dict[tuple[str, ...], None] = {}
        """Ways to structure that servers refused; see `_refusal`."""

    def of(self, request: LLMRequest) -> tuple[OutputMode, ...]:
        """The ways to structure that are tried, in order."""
        if request.response_format is None:
            return ()
        if request.output_mode is not None:
            return (request.output_mode,)
        modes = capabilities_of(request.service, request.model).structured
        if not self._refused:
            return modes

        def refused(mode: OutputMode) -> bool:
            return not self._refused.keys().isdisjoint(
                (self._refusal(request, mode), self._refusal(request, mode, schema=True))
            )

        return tuple([mode for mode in modes if not refused(mode)]) or modes[-1:]

    def remember(self, request: LLMRequest, mode: OutputMode, error: LLMError) -> None:
        """A server refused a way to structure: for that schema, if it says so, else for all."""
        if error.status is None:
            return  # refused before the call, which costs nothing
        said = error.message.lower()
        of_schema = "schema" in said and any(
            word in said for word in ("invalid", "not a valid", "not permitted", "must be", "is required")
        )
        self._refused[self._refusal(request, mode, schema=of_schema)] = None
        if len(self._refused) > REFUSALS_KEPT:
            del self._refused[next(iter(self._refused))]

    def _refusal(self, request: LLMRequest, mode: OutputMode, *, schema: bool = False) -> tuple[str, ...]:
        """What a refusal is remembered by: model, server, way to structure, and the schema when it is to blame."""
        text = json.dumps(schema_of(request.response_format), sort_keys=True, default=str) if schema else ""
        return request.service, str(self._base_url(request)), request.model, mode, text


def refuses_structure(error: LLMError) -> bool:
    """Whether a server refused the way to structure, not the request as such."""
    if isinstance(error, (*ANSWERED, ContextLengthError)):
        return False
    if isinstance(error, UnsupportedError):
        return True
    said = error.message.lower()
    words = (
        "response_format",
        "text.format",
        "json_schema",
        "schema",
        "structured",
        "output_config",
        "output_format",
        "tool",
    )
    return isinstance(error, ProviderError) and error.status in (400, 404, 422, 501) and any(w in said for w in words)


__getattr__: Callable[[str], Any] = renamed(__name__, {"laddered": "with_output_mode", "unladdered": "parse_output"})

"""Requests before the first call: names, defaults, and checks."""

from __future__ import annotations

from dataclasses import replace

from dipeo_nb.common.values import is_plain, well_formed
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import (
    DEFAULT_MODEL_SERVICE,
    ChatMessage,
    LLMRequest,
    ToolResult,
    normalize_service,
    parse_model,
)
from dipeo_nb.errors import UnsupportedError, ValidationError
from dipeo_nb.llm import providers
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.catalogue import BY_DEFAULT, is_successor, model_of, named
from dipeo_nb.llm.options import check_options

PROMPT_LIMIT = 10_000_000
"""Characters of one request at most."""


def with_results(request: LLMRequest) -> LLMRequest:
    """The request with a result for every call of a tool: providers refuse a conversation that leaves one open."""
    results = {m.tool_result.call_id for m in request.messages if m.tool_result is not None}
    if all(call.id in results for m in request.messages for call in m.tool_calls):
        return request
    messages: list[ChatMessage] = []
    for message in request.messages:
        messages.append(message)
        for call in message.tool_calls:
            if call.id not in results:
                said = "This call was not answered."
                messages.append(ChatMessage("tool", said, call.name, tool_result=ToolResult(call.id, said, is_error=True)))
    return replace(request, messages=tuple(messages))


def _check_able(request: LLMRequest) -> None:
    """Refuses before the call what the model cannot do."""
    check_options(request)
    able = capabilities_of(request.service, request.model)
    name = f"{request.service}:{request.model}" if request.model else request.service
    for tool in request.tools:
        kind = {"function": "tools", "web_search": "web search", "image_generation": "image generation"}.get(tool.type)
        flags = {
            "function": able.supports_tools,
            "web_search": able.supports_web_search,
            "image_generation": able.supports_image_generation,
        }
        if kind is not None and not flags[tool.type]:
            others = {
                "function": "openai, anthropic, gemini and ollama call functions",
                "web_search": "openai, anthropic and gemini search the web",
                "image_generation": "openai makes images",
            }
            raise UnsupportedError(
                f"{name} has no {kind}.",
                hint=f"Remove the tool, or use another model: {others[tool.type]}.",
                provider=request.service,
                model=request.model,
            )


class RequestDefaults:
    """Completes and checks requests, by the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def named(self, request: LLMRequest) -> LLMRequest:
        """The request with its service by its own name, and a model: without one, the default of its service. Without a service, a
        model and a server it is the default of the settings."""
        if not (request.service or request.model or request.base_url):
            service, model = named(None, self._settings)
        else:
            service = normalize_service(request.service or DEFAULT_MODEL_SERVICE)
            model = request.model or model_of(service, self._settings)
        if request.model or not is_successor(service, self._settings):
            return replace(request, service=service, model=model)
        return replace(request, service=service, model=model, context={**request.context, BY_DEFAULT: True})

    def filled(self, request: LLMRequest) -> LLMRequest:
        """The request with defaults, checked."""
        if not any(m.content.strip() or m.tool_result or m.raw for m in request.messages):
            raise ValidationError("The request has no message.", hint="Give the person a prompt.")
        size = sum(len(m.content) for m in request.messages)
        if size > PROMPT_LIMIT:
            raise ValidationError(
                f"The request has {size:,} characters, more than {PROMPT_LIMIT:,}.",
                hint="Remember less (memorize_to, at_most), or shorten the inputs.",
            )
        settings = self._settings
        if not all(is_plain(m.content) for m in request.messages):  # half characters cannot be sent
            whole = (m if is_plain(m.content) else replace(m, content=well_formed(m.content)) for m in request.messages)
            request = replace(request, messages=tuple(whole))
        request = with_results(request)
        filled = replace(
            request,
            timeout=settings.llm_timeout if request.timeout is None else request.timeout,
            temperature=settings.llm_temperature if request.temperature is None else request.temperature,
            max_tokens=settings.llm_max_tokens if request.max_tokens is None else request.max_tokens,
            fallbacks=request.fallbacks or self._fallbacks(),
        )
        _check_able(filled)
        for name in filled.fallbacks:
            parse_model(name, providers.services())  # a wrong name is found before anything is asked
        return filled

    def _fallbacks(self) -> list[str]:
        """The settings' fallbacks; none while they are a suggestion of the folder that nobody approved."""
        if self._settings.waits("llm_fallbacks"):
            return []
        return [name.strip() for name in self._settings.llm_fallbacks.split(",") if name.strip()]

"""OpenAI, and everything that speaks its Responses API, through the official SDK."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    AuthError,
    ConfigurationError,
    ContentFilteredError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    MissingDependencyError,
    ProviderError,
    RateLimitError,
)
from dipeo_nb.llm.structured import name_of, parsed, schema_of, strict

_LOG = logging.getLogger(__name__)
NO_TEMPERATURE = ("o1", "o3", "o4", "gpt-5")
"""Model names (by prefix) that refuse `temperature`. Source: OpenAI, Reasoning models, "unsupported parameters"."""
TAKES_TEMPERATURE = ("gpt-5-chat",)
"""Exceptions to `NO_TEMPERATURE`."""
CONNECT_TIMEOUT_S = 20.0
"""Seconds to reach the server."""


class UnifiedOpenAIClient:
    """`LLMClient` over the Responses API (`input`, `max_output_tokens`, `text.format`).

    One SDK client, so one pool of connections, per key and base URL. The SDK's own retries are off: the service retries.
    """

    provider = "openai"

    def __init__(self, settings: Settings, keys: APIKeyPort) -> None:
        self._settings = settings
        self._keys = keys
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._told: set[str] = set()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = await self._key(request)
        client = self._client(secret, request.base_url or self._settings.openai_base_url)
        yield StreamEvent("start")
        final: Any = None
        with _translated(request.model, secret):
            events = await client.responses.create(**self._body(request), stream=True)
            async with contextlib.aclosing(events) if hasattr(events, "aclose") else events:
                async for event in events:
                    match event.type:
                        case "response.output_text.delta":
                            yield StreamEvent("text", event.delta)
                        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                            yield StreamEvent("reasoning", event.delta)
                        case "response.completed" | "response.incomplete":
                            final = event.response
                        case "response.failed":
                            raise _failure(event.response.error, request.model)
                        case "error":
                            raise _failure(event, request.model)
                        case _:
                            continue
        if final is None:
            raise LLMConnectionError(
                "The answer of openai ended before it was complete.",
                hint="Try again.",
                provider=self.provider,
                model=request.model,
            )
        response = _response(final, request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def async_chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once."""
        response: LLMResponse | None = None
        async for event in self.stream(request):
            response = event.response or response
        assert response is not None  # a stream that ends without one raises
        return response

    async def cleanup(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    async def _key(self, request: LLMRequest) -> SecretStr:
        """The key by its id, else the service's; a server of the user's own may need none."""
        if request.api_key_id:
            with contextlib.suppress(APIKeyNotFoundError):  # ids of other machines; then the service's key
                return await self._keys.get_api_key(request.api_key_id)
        try:
            return await self._keys.get_api_key(self.provider)
        except APIKeyNotFoundError:
            if request.base_url or self._settings.openai_base_url:
                return SecretStr("not-needed")
            raise

    def _client(self, secret: SecretStr, base_url: str | None) -> Any:
        key = (secret.get_secret_value(), base_url)
        if key not in self._clients:
            try:
                import openai
            except ImportError as error:
                raise MissingDependencyError(
                    "The package 'openai' is not installed.", hint="Run: pip install openai"
                ) from error
            if base_url is not None and not base_url.startswith(("http://", "https://")):
                raise ConfigurationError(
                    f"The base URL '{base_url}' is no http(s) address.",
                    hint="Set e.g. OPENAI_BASE_URL=http://localhost:8080/v1.",
                )
            self._clients[key] = openai.AsyncOpenAI(
                api_key=key[0],
                base_url=base_url,
                max_retries=0,
                timeout=openai.Timeout(self._settings.llm_timeout, connect=CONNECT_TIMEOUT_S),
            )
        return self._clients[key]

    def _body(self, request: LLMRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": request.model, "input": [item for m in request.messages for item in _items(m)]}
        if request.max_tokens is not None:
            body["max_output_tokens"] = request.max_tokens
        if request.temperature is not None:
            if accepts_temperature(request.model):
                body["temperature"] = request.temperature
            elif request.model not in self._told:
                self._told.add(request.model)
                _LOG.warning("%s takes no temperature; it is left out", request.model)
        if request.response_format is not None:
            body["text"] = {"format": _format(request.response_format)}
        if request.tools:
            body["tools"] = [_tool(t) for t in request.tools]
        return body


def accepts_temperature(model: str) -> bool:
    """Whether a model takes `temperature`."""
    return model.startswith(TAKES_TEMPERATURE) or not model.startswith(NO_TEMPERATURE)


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """A message as items of `input`."""
    if message.tool_result is not None:
        yield {
            "type": "function_call_output",
            "call_id": message.tool_result.call_id,
            "output": message.tool_result.content,
        }
        return
    if message.content or not message.tool_calls:
        yield {"role": "developer" if message.role == "system" else message.role, "content": message.content}
    for call in message.tool_calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(dict(call.arguments)),
        }


def _format(response_format: Any) -> dict[str, Any]:
    schema = schema_of(response_format)
    closed = strict(schema)
    # Strict mode needs every field required; a schema of the user's that says otherwise is sent as it is.
    is_class = isinstance(response_format, type)
    return {
        "type": "json_schema",
        "name": name_of(response_format),
        "schema": closed if is_class or closed == schema else schema,
        "strict": is_class or closed == schema,
    }


def _tool(tool: ToolConfig) -> dict[str, Any]:
    if tool.type == "function":
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
            "strict": False,
        }
    return {"type": tool.type, **(tool.config or {})}


def _response(final: Any, request: LLMRequest) -> LLMResponse:
    texts: list[str] = []
    calls: list[ToolCall] = []
    for item in final.output:
        if item.type == "message":
            for part in item.content:
                if part.type == "refusal":
                    raise ContentFilteredError(
                        f"The model refused: {part.refusal}",
                        hint="Change the prompt.",
                        provider="openai",
                        model=request.model,
                    )
                texts.append(part.text)
        elif item.type == "function_call":
            calls.append(ToolCall(item.call_id, item.name, json.loads(item.arguments or "{}")))
    text = "".join(texts)
    finish = (
        "stop" if final.status == "completed" else (getattr(final.incomplete_details, "reason", None) or final.status)
    )
    if finish == "content_filter":
        raise ContentFilteredError(
            "The provider filtered the answer.", hint="Change the prompt.", provider="openai", model=request.model
        )
    structured = None
    if request.response_format is not None and not calls:
        if finish == "max_output_tokens":
            raise ProviderError(
                "The structured answer was cut off at its limit of tokens.",
                hint="Raise max_tokens, or ask for fewer fields.",
                provider="openai",
                model=request.model,
            )
        structured = parsed(text, request.response_format, provider="openai", model=request.model)
    return LLMResponse(
        text,
        "openai",
        str(final.model or request.model),
        _usage(final.usage),
        structured,
        tuple(calls),
        finish,
        request_id=final.id,
        rung="native" if request.response_format is not None else None,
    )


def _usage(usage: Any) -> TokenUsage:
    """OpenAI counts cached tokens within the input and reasoning within the output; our buckets are disjoint."""
    if usage is None:
        return TokenUsage()
    cached = getattr(usage.input_tokens_details, "cached_tokens", None) or 0
    reasoning = getattr(usage.output_tokens_details, "reasoning_tokens", None) or 0
    return TokenUsage(
        usage.input_tokens - cached,
        usage.output_tokens - reasoning,
        cached,
        None,
        reasoning,
        raw=usage.model_dump(mode="json"),
    )


# Errors.


@contextlib.contextmanager
def _translated(model: str, secret: SecretStr) -> Iterator[None]:
    """The SDK's errors as ours; the key never leaves in a message."""
    import openai

    facts: dict[str, Any] = {"provider": "openai", "model": model}
    try:
        yield
    except openai.APITimeoutError as error:
        raise LLMTimeoutError("openai did not answer in time.", hint="Raise DIPEO_LLM_TIMEOUT.", **facts) from error
    except openai.APIStatusError as error:
        raise _status_error(error, _without(_said(error), secret), facts) from error
    except openai.APIConnectionError as error:
        raise LLMConnectionError(
            f"openai cannot be reached: {_without(str(error.__cause__ or error), secret)}.",
            hint="Check the network and OPENAI_BASE_URL, or run on the embedded model: --model local.",
            **facts,
        ) from error
    except openai.APIError as error:
        raise ProviderError(f"openai: {_without(str(error.message), secret)}", hint="Try again.", **facts) from error
    except json.JSONDecodeError as error:
        raise ProviderError(
            "openai sent something that is not JSON.", hint="Check OPENAI_BASE_URL.", **facts
        ) from error
    except Exception as error:
        # What the HTTP layer raises in the middle of a stream is no class of the SDK's.
        if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise LLMConnectionError(
                f"The connection to openai broke: {type(error).__name__}.", hint="Try again.", **facts
            ) from error
        raise


def _status_error(error: Any, said: str, facts: dict[str, Any]) -> LLMError:
    facts |= {"status": error.status_code, "request_id": error.request_id}
    code = str(getattr(error, "code", "") or "")
    match error.status_code:
        case 401 | 403:
            return AuthError(
                f"openai refused the key: {said}",
                hint="Set a valid OPENAI_API_KEY, or run with --model local.",
                **facts,
            )
        case 429:
            after = retry_after(error.response.headers)
            wait = f" It asks to wait {after:g} s." if after is not None else ""
            return RateLimitError(
                f"openai: too many requests: {said}{wait}",
                hint="Wait, or run fewer nodes at once (DIPEO_EXECUTION_PARALLELISM).",
                retry_after=after,
                **facts,
            )
        case 404:
            return ProviderError(
                f"openai: {said}", hint=f"Check the model's name ('{facts['model']}') and OPENAI_BASE_URL.", **facts
            )
    if code == "context_length_exceeded" or "context length" in said or "context window" in said:
        return ContextLengthError(
            f"openai: {said}", hint="Remember less (at_most), or use a model with a larger context.", **facts
        )
    if code in ("content_filter", "content_policy_violation"):
        return ContentFilteredError(f"openai: {said}", hint="Change the prompt.", **facts)
    hint = "Try again later." if error.status_code >= 500 else "Check the request; the message says what is wrong."
    return ProviderError(f"openai answered {error.status_code}: {said}", hint=hint, **facts)


def _said(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return str(message or error.message)[:500]


def _failure(error: Any, model: str) -> LLMError:
    code, message = str(getattr(error, "code", "") or ""), str(getattr(error, "message", "") or "no reason given")
    facts: dict[str, Any] = {"provider": "openai", "model": model}
    if code == "rate_limit_exceeded":
        return RateLimitError(f"openai: {message}", hint="Wait and try again.", **facts)
    if code == "context_length_exceeded":
        return ContextLengthError(f"openai: {message}", hint="Remember less (at_most).", **facts)
    return ProviderError(
        f"openai: {message}", hint="Try again.", status=500 if code == "server_error" else None, **facts
    )


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `Retry-After` asks for, in either of its forms (RFC 9110 §10.2.3); None without one."""
    value = headers.get("retry-after-ms")
    if value is not None:
        with contextlib.suppress(ValueError):
            return max(0.0, float(value) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # then it is a date
    try:
        return max(0.0, (parsedate_to_datetime(value) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None


def _without(text: str, secret: SecretStr) -> str:
    value = secret.get_secret_value()
    return text.replace(value, "…") if value else text

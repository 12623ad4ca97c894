"""OpenAI, and everything that speaks its Responses API, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

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
    UnsupportedError,
)
from dipeo_nb.llm.stream import broken_off, collected
from dipeo_nb.llm.structured import name_of, parsed, schema_of, strict_schema

NO_TEMPERATURE = ("o1", "o3", "o4", "gpt-5")
"""Model names (by prefix) that refuse `temperature`. Source: OpenAI, Reasoning models, "unsupported parameters"."""
TAKES_TEMPERATURE = ("gpt-5-chat",)
"""Exceptions to `NO_TEMPERATURE`."""
CONNECT_TIMEOUT_S = 20.0
"""Seconds to reach the server."""
NO_KEY = SecretStr("not-needed")
"""Sent where no key is: the SDK wants some text."""


class UnifiedOpenAIClient:
    """`LLMClient` over the Responses API (`input`, `max_output_tokens`, `text.format`).

    One SDK client, so one pool of connections, per key and base URL. The SDK's own retries are off: the service retries.

    A key of the environment is sent to OpenAI, to the server that OPENAI_BASE_URL names and to this machine; never to a
    server that only a diagram names.
    """

    provider = "openai"

    def __init__(self, settings: Settings, keys: APIKeyPort) -> None:
        self._settings = settings
        self._keys = keys
        self._clients: dict[tuple[SecretStr, str | None], Any] = {}
        self._told: set[str] = set()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        base_url = request.base_url or self._settings.openai_base_url
        body = _body(request, system="developer" if _is_openai(base_url) else "system")
        secret = await self._key(request, base_url)
        client = await self._client(secret, base_url)
        yield StreamEvent("start", data={"notice": notice} if (notice := self._notice(request)) else None)
        final: Any = None
        request_id: str | None = None
        with _translated(request.model, secret):
            async with await client.responses.create(**body, stream=True) as events:
                request_id = events.response.headers.get("x-request-id")
                async for event in events:
                    match event.type:
                        case "response.output_text.delta":
                            yield StreamEvent("text", event.delta)
                        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                            yield StreamEvent("reasoning", event.delta)
                        case "response.completed" | "response.incomplete":
                            final = event.response
                        case "response.failed":
                            raise _failure(event.response.error, request.model, secret)
                        case "error":
                            raise _failure(event, request.model, secret)
                        case _:
                            continue
        if final is None:
            raise broken_off(request)
        try:
            response = _response(final, request, request_id)
        except (AttributeError, TypeError) as error:  # the SDK does not check what servers send
            raise ProviderError(
                "openai sent an answer of an unknown form.",
                hint="Check that OPENAI_BASE_URL speaks the Responses API.",
                provider=self.provider,
                model=request.model,
                request_id=request_id,
            ) from error
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def async_chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; errors as `LLMClient.stream`."""
        return await collected(self.stream(request), request)

    async def cleanup(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    async def _key(self, request: LLMRequest, base_url: str | None) -> SecretStr:
        """The key by its id, else the service's; none for a server that is not trusted with it or that may need none."""
        if not self._trusted(base_url):
            return NO_KEY
        if request.api_key_id:
            with contextlib.suppress(APIKeyNotFoundError):  # ids of other machines; then the service's key
                return await self._keys.get_api_key(request.api_key_id)
        try:
            return await self._keys.get_api_key(self.provider)
        except APIKeyNotFoundError:
            if base_url is not None:
                return NO_KEY
            raise

    def _trusted(self, base_url: str | None) -> bool:
        """Whether a server may have a key of the environment."""
        if _is_openai(base_url) or base_url == self._settings.openai_base_url:
            return True
        return urlsplit(base_url or "").hostname in ("localhost", "127.0.0.1", "::1")

    async def _client(self, secret: SecretStr, base_url: str | None) -> Any:
        key = (secret, base_url)
        if key not in self._clients:
            openai = await asyncio.to_thread(_sdk)  # its import takes up to a second
            if base_url is not None and not _is_address(base_url):
                raise ConfigurationError(
                    f"The base URL '{base_url[:200]}' is no http(s) address.",
                    hint="Set e.g. OPENAI_BASE_URL=http://localhost:8080/v1.",
                )
            # Asked again: another call may have made it while the SDK was imported.
            if key not in self._clients:
                self._clients[key] = openai.AsyncOpenAI(
                    api_key=secret.get_secret_value(),
                    base_url=base_url,
                    max_retries=0,
                    timeout=openai.Timeout(self._settings.llm_timeout, connect=CONNECT_TIMEOUT_S),
                )
        return self._clients[key]

    def _notice(self, request: LLMRequest) -> str | None:
        """What the user should know about the request, once per model."""
        if request.temperature is None or accepts_temperature(request.model) or request.model in self._told:
            return None
        self._told.add(request.model)
        return f"{request.model} takes no temperature; {request.temperature:g} is left out."


def accepts_temperature(model: str) -> bool:
    """Whether a model takes `temperature`."""
    name = model.removeprefix("ft:")
    return name.startswith(TAKES_TEMPERATURE) or not name.startswith(NO_TEMPERATURE)


def _is_openai(base_url: str | None) -> bool:
    if base_url is None:
        return True
    address = urlsplit(base_url)
    host = address.hostname or ""
    return address.scheme == "https" and (host == "openai.com" or host.endswith(".openai.com"))


def _is_address(base_url: str) -> bool:
    try:
        address = urlsplit(base_url)
        return address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        return False


def _sdk() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'openai' is not installed.", hint="Run: pip install openai"
        ) from error
    return openai


# The request.


def _body(request: LLMRequest, *, system: str) -> dict[str, Any]:
    """The request on the wire; *system* is the role that the server gives to system messages."""
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for m in request.messages for item in _items(m, system)],
        "store": False,  # nothing of a run is kept elsewhere
    }
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.temperature is not None and accepts_temperature(request.model):
        body["temperature"] = request.temperature
    if request.response_format is not None:
        body["text"] = {"format": _format(request)}
    if request.tools:
        body["tools"] = [_tool(t) for t in request.tools]
    return body


def _items(message: ChatMessage, system: str) -> Iterator[dict[str, Any]]:
    """A message as items of `input`."""
    if message.tool_result is not None:
        yield {
            "type": "function_call_output",
            "call_id": message.tool_result.call_id,
            "output": message.tool_result.content,
        }
        return
    if message.content or not message.tool_calls:
        yield {"role": system if message.role == "system" else message.role, "content": message.content}
    for call in message.tool_calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(dict(call.arguments)),
        }


def _format(request: LLMRequest) -> dict[str, Any]:
    """Strict where the schema allows it; a looser schema is sent as it is, and the answer checked here."""
    schema = schema_of(request.response_format)
    if schema.get("type", "object") != "object" or not {"$ref", "anyOf", "oneOf", "enum", "const"}.isdisjoint(schema):
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


# The answer.


def _response(final: Any, request: LLMRequest, request_id: str | None) -> LLMResponse:
    facts: dict[str, Any] = {"provider": "openai", "model": request.model, "request_id": request_id or final.id}
    texts: list[str] = []
    calls: list[ToolCall] = []
    for item in final.output:  # reasoning may come before the message
        if item.type == "message":
            for part in item.content:
                if part.type == "refusal":
                    raise ContentFilteredError(f"The model refused: {part.refusal}", hint="Change the prompt.", **facts)
                texts.append(part.text)
        elif item.type == "function_call":
            calls.append(_call(item, facts))
    text = "".join(texts)
    reason = getattr(final.incomplete_details, "reason", None)
    if reason == "content_filter":
        raise ContentFilteredError("The provider filtered the answer.", hint="Change the prompt.", **facts)
    cut = reason == "max_output_tokens"
    usage = _usage(final.usage)
    structured = rung = None
    if request.response_format is not None and not calls:
        structured = parsed(text, request.response_format, provider="openai", model=request.model, usage=usage, cut=cut)
        rung = "native" if strict_schema(request.response_format) is not None else "json_mode"
    finish = "length" if cut else "tool_calls" if calls else (reason or "stop")
    return LLMResponse(
        text,
        "openai",
        str(final.model or request.model),
        usage,
        structured,
        tuple(calls),
        finish,
        request_id=facts["request_id"],
        rung=rung,
    )


def _call(item: Any, facts: Mapping[str, Any]) -> ToolCall:
    try:
        arguments = json.loads(item.arguments or "{}")
    except ValueError as error:
        raise ProviderError(
            f"The model called the tool '{item.name}' with arguments that are not JSON: {item.arguments[:120]!r}.",
            hint="Try again, or use a larger model.",
            **facts,
        ) from error
    return ToolCall(item.call_id, item.name, arguments)


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
        mapped = _status_error(error, _without(_said(error), secret), facts, keyless=secret == NO_KEY)
        raise mapped from _harmless(error, secret)
    except openai.APIConnectionError as error:
        raise LLMConnectionError(
            f"openai cannot be reached: {_without(str(error.__cause__ or error), secret)}.",
            hint="Check the network and OPENAI_BASE_URL, or run on the embedded model: --model local.",
            **facts,
        ) from error
    except openai.APIError as error:
        raise _failure(error, model, secret) from _harmless(error, secret)
    except json.JSONDecodeError as error:
        raise ProviderError(
            "openai sent something that is not JSON.", hint="Check OPENAI_BASE_URL.", **facts
        ) from error
    except Exception as error:
        # Some of what the HTTP layer raises in the middle of a stream is no class of the SDK's.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise LLMConnectionError(
            f"The connection to openai broke: {type(error).__name__}.", hint="Try again.", **facts
        ) from error


def _status_error(error: Any, said: str, facts: dict[str, Any], *, keyless: bool) -> LLMError:
    facts |= {"status": error.status_code, "request_id": error.request_id}
    code = str(getattr(error, "code", "") or "")
    match error.status_code:
        case 401 | 403 if keyless:
            return AuthError(
                f"The server wants a key: {said}",
                hint="Keys of the environment go to OpenAI and to the server of OPENAI_BASE_URL only: set OPENAI_BASE_URL to its "
                "address if you trust it, or run with --model local.",
                **facts,
            )
        case 401 | 403:
            return AuthError(
                f"openai refused the key: {said}",
                hint="Set a valid OPENAI_API_KEY, or run with --model local.",
                **facts,
            )
        case 429 if code == "insufficient_quota":  # waiting does not help
            return ProviderError(f"openai: {said}", hint="Check plan and billing, or run with --model local.", **facts)
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


def _failure(error: Any, model: str, secret: SecretStr) -> LLMError:
    """The error of an answer that failed after it had begun."""
    code = str(getattr(error, "code", "") or "")
    said = _without(str(getattr(error, "message", "") or "no reason given"), secret)
    facts: dict[str, Any] = {"provider": "openai", "model": model}
    if code == "rate_limit_exceeded":
        return RateLimitError(f"openai: {said}", hint="Wait and try again.", **facts)
    if code == "context_length_exceeded":
        return ContextLengthError(f"openai: {said}", hint="Remember less (at_most).", **facts)
    return ProviderError(f"openai: {said}", hint="Try again.", status=500 if code == "server_error" else None, **facts)


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


def _harmless(error: Exception, secret: SecretStr) -> Exception | None:
    """The vendor's error as a cause to show, unless the server repeated the key in it."""
    return None if secret.get_secret_value() in str(error) else error


def _without(text: str, secret: SecretStr) -> str:
    value = secret.get_secret_value()
    return text.replace(value, "…") if value else text

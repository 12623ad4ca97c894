"""The base of the unified clients: one provider, one key, one server; made, used and closed on the library's loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.calls import did_you_mean_option
from dipeo_nb.common.loop import iterate_on_loop, iterate_sync, on_library_loop, run_on_loop, run_sync
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Settings, ambient_headers, get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolCall, ToolResult
from dipeo_nb.domain.lifecycle import lifecycle
from dipeo_nb.domain.llm_providers import BUILT_IN, OF_CLASSES, Pricing
from dipeo_nb.errors import APIKeyNotFoundError, AuthError, ConfigurationError, LLMError, ValidationError
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.core.errors import ErrorContext
from dipeo_nb.llm.core.http import make_client
from dipeo_nb.llm.core.retry import pause
from dipeo_nb.llm.core.types import AdapterConfig, ProviderCapabilities, RetryConfig
from dipeo_nb.llm.endings import ended, without_keys
from dipeo_nb.llm.options import left_out
from dipeo_nb.llm.streaming import TimeLimits, collect, with_notices
from dipeo_nb.llm.structured import prepare_request
from dipeo_nb.llm.tools import call_of

Messages = LLMRequest | str | Sequence[ChatMessage | Mapping[str, Any]]
"""A whole request, one user message, or messages as `ChatMessage` or `{"role": …, "content": …}`."""
BATCH_CONCURRENCY = 8
"""Calls at the same time of a batch without a batch API."""


class UnifiedClient:
    """`LLMClient` of one provider. A provider is a subclass with `provider`, `stream` and `cleanup`.

    `stream` makes one attempt; `async_chat` and `batch_chat` repeat failed ones by `config.max_retries`; `LLMService` adds
    phases, tools, budgets, recordings and the rest. Every async method has a blocking twin that works in any notebook cell.

    Args:
        config: key, server and defaults; None: as the settings say.
        settings: None: those of the process.
    """

    provider: ClassVar[str]
    # The facts: see `domain.llm_providers.ProviderFacts`. Those of built-in providers are set from their entry there.
    sdk_module: ClassVar[str] = ""
    sdk_package: ClassVar[str] = ""
    key_variable: ClassVar[str] = ""
    other_key_variables: ClassVar[tuple[str, ...]] = ()
    key_optional: ClassVar[bool] = False
    key_prefixes: ClassVar[tuple[str, ...]] = ()
    own_login: ClassVar[bool] = False
    base_url_variable: ClassVar[str] = ""
    base_url_setting: ClassVar[str] = ""
    hosts: ClassVar[tuple[str, ...]] = ()
    headers_variable: ClassVar[str] = ""
    ambient_headers: ClassVar[tuple[str, ...]] = ()
    own_prompt: ClassVar[bool] = False
    model_names: ClassVar[tuple[str, ...]] = ()
    models_of: ClassVar[str] = ""
    price_id: ClassVar[str] = ""
    pricing: ClassVar[Pricing] = "list"
    telemetry_name: ClassVar[str] = ""
    abilities: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    added_paths: ClassVar[tuple[str, ...]] = ()
    """Ends of addresses that the provider's SDK adds itself."""
    base_url_example: ClassVar[str] = "http://localhost:8080/v1"
    _ON_LOOP: ClassVar = ("cleanup", "check_key", "submit_batch", "poll_batch", "cancel_batch", "batch_results")

    def __init_subclass__(cls, **options: Any) -> None:
        """Connections belong to one event loop: what a provider does runs on the library's, whichever loop it is called from."""
        super().__init_subclass__(**options)
        own = vars(cls)
        facts = BUILT_IN.get(own.get("provider", ""))
        if facts is not None and facts.client == f"{cls.__module__}:{cls.__qualname__}":
            for name in OF_CLASSES:
                setattr(cls, name, getattr(facts, name))
        if "stream" in own:
            cls.stream = _streamed_on_loop(own["stream"])
        for name in cls._ON_LOOP:
            if inspect.iscoroutinefunction(own.get(name)):
                setattr(cls, name, _run_on_loop(own[name]))

    def __init__(self, config: AdapterConfig | None = None, *, settings: Settings | None = None) -> None:
        self.settings: Settings = settings or get_settings()
        self.config: AdapterConfig = config or AdapterConfig(provider_type=self.provider)
        self._noticed: set[str] = set()

    # What a provider does.

    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMClient.stream`: one attempt, errors as ours."""
        raise NotImplementedError(f"{type(self).__name__} has no stream()")

    async def prepare(self) -> None:
        """As `LLMClient.prepare`."""

    async def cleanup(self) -> None:
        """Close connections. Safe to call twice."""

    # What all of them do.

    async def async_chat(self, messages: Messages, **options: Any) -> LLMResponse:
        """The whole answer at once.

        Args:
            messages: see `Messages`.
            options: fields of `LLMRequest` (temperature, max_tokens, response_format, tools …).

        Raises:
            LLMError: the last failure; transient ones are repeated first.
            ValidationError: there is no message, or an option is unknown.
        """
        return await run_on_loop(self._answered(self.request(messages, **options)))

    async def _answered(self, request: LLMRequest) -> LLMResponse:
        await prepare_request(request)
        await self.prepare()
        timeout = request.timeout or self.settings.llm_timeout
        limits = TimeLimits(timeout, self.settings.llm_idle_timeout)
        policy = RetryConfig(self.config.max_retries + 1, self.config.retry_delay, exponential_base=self.config.retry_backoff)
        notices: list[str] = []
        attempt = 1
        while True:
            try:
                response = await collect(limits.guard(self.stream(request), request), request, notices)
                return with_notices(ended(without_keys(response, request), request), notices)
            except LLMError as error:
                redactor.error(error)
                wait = pause(error, attempt, policy)
                if wait is None or wait >= limits.left:
                    raise
            attempt += 1
            await asyncio.sleep(wait)

    async def batch_chat(
        self, batch: Sequence[Messages], *, max_concurrent: int = BATCH_CONCURRENCY, **options: Any
    ) -> list[LLMResponse | LLMError]:
        """The answers of many requests, in their order; failed ones are the error itself.

        `LLMService.batch` uses the provider's own batch API where there is one.
        """
        return await run_on_loop(self._answers([self.request(messages, **options) for messages in batch], max_concurrent))

    async def _answers(self, requests: Sequence[LLMRequest], max_concurrent: int) -> list[LLMResponse | LLMError]:
        async def answer(request: LLMRequest) -> LLMResponse | LLMError:
            try:
                return await self._answered(request)
            except LLMError as error:
                return error

        return await gather_limited(answer, requests, max_concurrent)

    def chat(self, messages: Messages, **options: Any) -> LLMResponse:
        """`async_chat`, blocking."""
        return run_sync(self.async_chat(messages, **options))

    def batch(self, batch: Sequence[Messages], **options: Any) -> list[LLMResponse | LLMError]:
        """`batch_chat`, blocking."""
        return run_sync(self.batch_chat(batch, **options))

    def iter_stream(self, messages: Messages, **options: Any) -> Iterator[StreamEvent]:
        """`stream`, blocking: events as they come. Leaving the loop early closes the connection."""
        return iterate_sync(self.stream(self.request(messages, **options)))

    def close(self) -> None:
        """`cleanup`, blocking."""
        run_sync(self.cleanup())

    def request(self, messages: Messages, **options: Any) -> LLMRequest:
        """A request with this client's defaults."""
        config = self.config
        asked = as_request(messages, service=self.provider, **options)
        return replace(
            asked,
            service=self.provider,
            model=asked.model or config.model,
            temperature=config.temperature if asked.temperature is None else asked.temperature,
            max_tokens=config.max_tokens if asked.max_tokens is None else asked.max_tokens,
            timeout=config.timeout if asked.timeout is None else asked.timeout,
        )

    def capabilities(self, model: str = "") -> ProviderCapabilities:
        """What *model* (default: the client's) can do."""
        return capabilities_of(self.provider, model or self.config.model)

    default_model: ClassVar[str] = ""
    """The model of requests that name none, as overviews and completions show it; empty: one must be named, or the server has one."""

    @classmethod
    def usual_model(cls, settings: Settings) -> str:
        """`default_model`, where settings decide."""
        return cls.default_model

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str:
        """What is missing on this machine beyond the SDK and the key, and what to do; empty when nothing is. Sends nothing to other
        machines."""
        return ""

    def output_mode(self, request: LLMRequest) -> str | None:
        """The way to structure this request goes; None without a structure."""
        if request.response_format is None:
            return None
        return request.output_mode or self.capabilities(request.model).structured[0]

    # For subclasses.

    def notices(self, request: LLMRequest) -> list[str]:
        """Sentences for the user about a request that is answered nevertheless: options that are left out, a model that ends soon."""
        return left_out(request)

    def started(self, request: LLMRequest) -> StreamEvent:
        """The first event of an answer, with those `notices` that this client has not given yet."""
        new = [notice for notice in self.notices(request) if notice not in self._noticed]
        self._noticed.update(new)
        return StreamEvent("start", data={"notice": " ".join(new)} if new else None)

    def given_key(self) -> SecretStr | None:
        """The key that was given; None without one.

        Raises:
            AuthError: it cannot be right: an HTTP header holds visible ASCII characters (RFC 9110, section 5.5), and no key has quotes.
        """
        text = self.config.api_key.get_secret_value().strip() if self.config.api_key is not None else ""
        if not text:
            return None
        redactor.add(text)  # from here on it stands in no event and no log line
        if (wrong := next((at for at, c in enumerate(text) if not "!" <= c <= "~" or c in _QUOTES), None)) is not None:
            redactor.add(*re.split(rf"[\s{_QUOTES}]+", text))
            raise AuthError(
                f"The API key for '{self.provider}' cannot be sent: character {wrong + 1} of {len(text)} is {_named(text[wrong])}.",
                hint=f"Copy it again, in one piece and without quotes, to {self.key_variable or 'the settings'}, or with "
                f"`dipeo-nb keys set {self.provider}`.",
                provider=self.provider,
                model=self.config.model,
            )
        return SecretStr(text)

    def secret(self) -> SecretStr:
        """The key.

        Raises:
            APIKeyNotFoundError: there is none, and the provider's own server wants one.
            AuthError: see `given_key`.
        """
        if (given := self.given_key()) is not None:
            return given
        if self.config.base_url is not None:
            return NO_KEY  # a server of one's own may need none
        raise APIKeyNotFoundError(
            f"There is no API key for '{self.provider}'.",
            hint=f"Set {self.key_variable}, or store the key with `dipeo-nb keys set {self.provider}`, or run without a key on the "
            "embedded model: --model local (model='local').",
            key_id=self.provider,
            variable=self.key_variable,
        )

    def base_url(self) -> str | None:
        """The server's address; None for the provider's own.

        Raises:
            ConfigurationError: it is not an http(s) address.
        """
        address = self.config.base_url
        if address is not None:
            for added in self.added_paths:  # an address with them is a common slip
                address = address.rstrip("/").removesuffix(added)
        if address is not None and not is_address(address):
            example = f" Set e.g. {self.base_url_variable}={self.base_url_example}." if self.base_url_variable else ""
            raise ConfigurationError(
                f"The base URL '{address[:200]}' is not an http(s) address.", hint=f"Write it as http://host:port.{example}"
            )
        return address

    def http(self, library: Any, address: str, **options: Any) -> Any:
        """The connections to the server, which get what the environment adds to requests only where the key goes, too.

        Args:
            options: of `core.http.make_client`.

        Raises:
            ConfigurationError: a proxy or certificates that the environment names cannot be used.
        """
        withheld = () if self.config.ambient_headers else ambient_headers(self.headers_variable) | {*self.ambient_headers}
        return make_client(library, address, self.settings.llm_timeout, withheld=withheld, **options)

    def error_context(self, request: LLMRequest, secret: SecretStr | None = None) -> ErrorContext:
        """What errors of this call may say (`core.errors`)."""
        return ErrorContext(
            self.provider,
            request.model,
            secret,
            keyless=secret == NO_KEY,
            variable=self.key_variable,
            base_url_variable=self.base_url_variable,
            lifecycle=lifecycle(self.provider, request.model),
        )

    def caller(self, request: LLMRequest, secret: SecretStr | None = None) -> ErrorContext:
        """The former name of `error_context`."""
        warnings.warn("client.caller() is deprecated; it is called error_context().", DeprecationWarning, stacklevel=2)
        return self.error_context(request, secret)


def _streamed_on_loop(method: Callable[..., AsyncIterator[StreamEvent]]) -> Callable[..., AsyncIterator[StreamEvent]]:
    @functools.wraps(method)
    def stream(self: Any, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        events = method(self, request)
        return events if on_library_loop() else iterate_on_loop(events)

    return stream


def _run_on_loop(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    def called(self: Any, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        work = method(self, *args, **options)
        return work if on_library_loop() else run_on_loop(work)

    return called


_QUOTES = "\"'`"


def _named(character: str) -> str:
    """What a character of a key is, without showing it."""
    if character in _QUOTES:
        return "a quotation mark"
    if character in "\r\n":
        return "a line break"
    return "a blank" if character.isspace() else "not an ASCII character" if character > "~" else "a control character"


NO_KEY = SecretStr("not-needed")
"""Sent where no key is: the SDKs want some text."""


def is_address(base_url: str) -> bool:
    """Whether a base URL is an http(s) address."""
    try:
        address = urlsplit(base_url)
        return address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        return False


_FIELDS = frozenset(f.name for f in fields(LLMRequest)) - {"messages", "meter"}
_INTERNAL = frozenset({"allow_prose", "context", "output_mode", "phase"})
"""Fields that the package sets itself, and recommends to nobody."""


def as_request(messages: Messages, *, service: str = "", **options: Any) -> LLMRequest:
    """A request out of what users give; see `Messages`.

    Args:
        options: fields of `LLMRequest`; `system` becomes the first message.

    Raises:
        ValidationError: no message, a message of another shape, an unknown option.
    """
    system = options.pop("system", None)
    if "rung" in options:
        warnings.warn("The option rung is deprecated; it is called output_mode.", DeprecationWarning, stacklevel=3)
        options["output_mode"] = options.pop("rung")
    if unknown := sorted(set(options) - _FIELDS):
        known = sorted({*_FIELDS, "system"} - _INTERNAL)
        raise ValidationError(
            f"A request has no option {', '.join(unknown)}.",
            hint=did_you_mean_option(unknown[0], known, f"It has: {', '.join(known)}."),
        )
    if isinstance(messages, LLMRequest):
        asked = replace(messages, **options)
    else:
        if not isinstance(messages, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(
                f"A prompt is a text or a list of messages, not {type(messages).__name__}.",
                hint='Write it in quotes, or as [{"role": "user", "content": "…"}].',
            )
        items = [messages] if isinstance(messages, str) else list(messages)
        options = {"service": service, "model": "", **options}
        asked = LLMRequest(messages=tuple(map(as_message, items)), **options)
    if system:
        asked = replace(asked, messages=(ChatMessage("system", str(system)), *asked.messages))
    if not any(m.content.strip() or m.tool_result or m.tool_calls or m.raw for m in asked.messages):
        raise ValidationError("The request has no message.", hint="Give a prompt that is not empty.")
    return asked


def as_message(value: ChatMessage | Mapping[str, Any] | str) -> ChatMessage:
    """A message out of a text (the user's), a mapping with role and content, or a message.

    A mapping may have the form of OpenAI's chats: `content` None or a list of parts of text, calls as `{"id", "function": {"name",
    "arguments": JSON}}`.

    Raises:
        ValidationError: it is none, or has parts that are not text.
    """
    if isinstance(value, ChatMessage):
        return value
    if isinstance(value, str):
        return ChatMessage("user", value)
    if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _no_message(repr(value))
    role = {"developer": "system", "model": "assistant", "function": "tool"}.get(str(value.get("role")), value.get("role"))
    if role not in ("system", "user", "assistant", "tool"):
        raise _no_message(str(dict(value)))
    content = _text_of(value.get("content"), value)
    calls = tuple(_call_of(call, value) for call in value.get("tool_calls") or ())
    result = ToolResult(str(value["tool_call_id"]), content) if role == "tool" and "tool_call_id" in value else None
    return ChatMessage(role, content, value.get("name"), calls, result)


_TEXT_PARTS = ("text", "input_text", "output_text")


def _text_of(content: Any, message: Mapping[str, Any]) -> str:
    """The text of a message's content."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise _no_message(str(dict(message)))
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part if isinstance(part, str) else part.get("text") if kind in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise ValidationError(
                f"A message has a part of type '{kind or type(part).__name__}'; only parts of text can be sent.",
                hint="Leave it out, or put what it says into words.",
            )
        texts.append(text)
    return "".join(texts)


def _call_of(call: Any, message: Mapping[str, Any]) -> ToolCall:
    """A call of a tool, in our form or in OpenAI's."""
    if isinstance(call, ToolCall):
        return call
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValidationError(
            f"A call of a tool has an id, a name and arguments, not {str(call)[:120]}.",
            hint="Write {'id': 'c1', 'name': 'weather', 'arguments': {'city': 'Bern'}}.",
        )
    given = inner.get("arguments") or {}
    call_id = str(call.get("id") or inner["name"])
    if isinstance(given, str):
        return call_of(call_id, inner["name"], given)
    if not isinstance(given, Mapping):
        return ToolCall(call_id, inner["name"], {}, json.dumps(given, default=str))
    return ToolCall(call_id, inner["name"], dict(given))


def _no_message(shown: str) -> ValidationError:
    return ValidationError(
        f"A message is a role and a text, not {shown[:120]}.",
        hint="Write {'role': 'user', 'content': '…'}; roles: system, user, assistant, tool.",
    )

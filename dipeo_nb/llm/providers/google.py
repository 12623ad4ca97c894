"""Google's Gemini models through the official SDK (`google-genai`) and the Gemini API; Vertex AI is not used."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from pydantic import SecretStr
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.config import OWN_HOSTS
from dipeo_nb.domain.chat import (
    BillItem,
    ChatMessage,
    LLMRequest,
    LLMResponse,
    StreamEvent,
    TokenUsage,
    ToolCall,
    ToolConfig,
)
from dipeo_nb.domain.lifecycle import warn_of_end
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import (
    ContentFilteredError,
    LLMError,
    MissingDependencyError,
    ProviderError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.core.errors import HTTP_LIBRARIES, Caller, reading, said_by, said_in_stream, status_error, translated
from dipeo_nb.llm.core.http import escaped
from dipeo_nb.llm.core.types import BatchStatus
from dipeo_nb.llm.google_batches import RPC_STATUS, created, readable, status_of, within
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.stream import broken_off, named, words
from dipeo_nb.llm.structured import made, name_of, parsed, schema_of
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import merged_counts, of_google, record

SERVER = "https://generativelanguage.googleapis.com/"
API_VERSION = "v1beta"
THOUGHT = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
"""Efforts as budgets of tokens, for models that know no levels."""
SEARCH_TOOLS = ("web_search", "web_search_preview")
UNSIGNED = b"skip_thought_signature_validator"
"""Stands for the signature of a call that another model made: Gemini 3 refuses unsigned ones
(https://ai.google.dev/gemini-api/docs/thought-signatures, FAQ)."""
OWN_ID = "gemini-"
"""Beginning of the ids given to calls that came without one; these are not sent back."""
COMPLETE = frozenset({"STOP", "MAX_TOKENS", "FUNCTION_CALL"})
"""Reasons to end an answer that was given; Google says STOP after calls too, servers that imitate it FUNCTION_CALL."""
PASSING = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "OTHER"})
"""Reasons that are a slip of the model: it seldom happens twice."""
FILTERED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
"""Reasons to end an answer that are about its content."""


class UnifiedGoogleClient(UnifiedClient):
    """`LLMClient` over `streamGenerateContent` of the Gemini API, one pool of connections each.

    Requests go through `httpx`, also where aiohttp is installed, so that time limits and closing work the same everywhere.
    """

    provider = "gemini"
    key_variable = "GOOGLE_API_KEY"
    base_url_variable = "GOOGLE_BASE_URL"
    base_url_setting = "google_base_url"
    base_url_example = "http://localhost:8080"
    hosts = OWN_HOSTS["google"]
    added_paths = ("/openai", "/v1beta")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sdk: Any = None
        self._http: Any = None
        self._making = asyncio.Lock()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        client = await self._client(secret)
        call = self._call(request)
        yield StreamEvent("start")
        answer = _Answer(request)
        with reading(caller := self.caller(request, secret), _vendor(caller), hint=_HINT) as progress:
            try:
                async with contextlib.aclosing(_chunks(client, call)) as chunks:
                    async for chunk in chunks:
                        for event in answer.take(chunk):
                            yield event
                        progress.begun = True
            except Exception as error:
                if not answer.is_complete or not _is_broken(error):
                    raise
            finally:
                if (usage := answer.usage).total is not None:
                    request.note(usage)
            response = await made(answer.finished, request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for a list of models. Raises AuthError when the key is refused, other LLMErrors when it cannot be asked."""
        secret = self.secret()
        client = await self._client(secret)
        with translated(caller := self.caller(self.request("-"), secret), _vendor(caller)):
            await client.aio.models.list(config={"page_size": 1})

    # The batch API, with the requests in the call itself.

    async def submit_batch(self, requests: Mapping[str, LLMRequest]) -> BatchStatus:
        """Hand requests (by an id of ours) to the provider's batch API; all of one model."""
        models = {request.model for request in requests.values()}
        if len(models) != 1:
            raise ValidationError(
                f"A batch of gemini is for one model, not for {', '.join(sorted(models))}.",
                hint="Submit one batch for each.",
            )
        items = []
        for name, request in requests.items():
            call = self._call(request)
            items.append({"contents": call["contents"], "config": call["config"], "metadata": {"key": name}})
        async with self._batches() as batches:
            return created(await batches.create(model=models.pop(), src=items))

    async def poll_batch(self, batch_id: str) -> BatchStatus:
        """How far it is."""
        return status_of(await self._job(batch_id), batch_id)

    async def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Stop it; what is done stays."""
        async with self._batches() as batches:
            await batches.cancel(name=batch_id)
        return status_of(await self._job(batch_id), batch_id)

    async def batch_results(
        self, batch_id: str, requests: Mapping[str, LLMRequest]
    ) -> dict[str, LLMResponse | LLMError]:
        """The answers, and the errors, that there are; in the order of the requests where they carry no id."""
        entries = within(await self._job(batch_id), "metadata", "output", "inlinedResponses", "inlinedResponses")
        found: dict[str, LLMResponse | LLMError] = {}
        for name, entry in zip(requests, entries if isinstance(entries, list) else (), strict=False):
            key = within(entry, "metadata", "key")
            if not isinstance(key, str):
                key = name
                if key in found:
                    continue
            if (request := requests.get(key)) is not None:
                found[key] = self._batch_result(entry, request)
        return found

    def _batch_result(self, entry: Any, request: LLMRequest) -> LLMResponse | LLMError:
        caller = self.caller(request)
        answer = _Answer(request)
        try:
            with reading(caller):
                if (error := entry.get("error")) is not None:
                    code, said = said_by({"error": error})
                    return status_error(caller, RPC_STATUS.get(int(code or 0), 500), said)
                # As the SDK does, which leaves out what it does not know yet.
                response = _sdk().types.GenerateContentResponse._from_response(response=entry["response"], kwargs={})
                for _ in answer.take(response):
                    continue
                return answer.finished()
        except LLMError as error:
            return error

    async def _job(self, batch_id: str) -> Any:
        """What the server says of a batch, as `_readable` reads it: the SDK reads all of its answers or, when one is malformed, none."""
        responses: list[Any] = []
        token = _opened.set(responses)
        try:
            with reading(self.caller(self.request("-"))):
                try:
                    async with self._batches() as batches:
                        await batches.get(name=batch_id)
                except Exception:
                    if not any(response.is_success for response in responses):
                        raise
                return readable(escaped(responses[-1].content, whole=True).decode("utf-8-sig"))
        finally:
            _opened.reset(token)

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        with translated(caller := self.caller(self.request("-"), secret), _vendor(caller)):
            yield client.aio.batches

    async def prepare(self) -> None:
        if self._sdk is None:
            await asyncio.to_thread(_sdk)  # its import takes up to a second

    async def cleanup(self) -> None:
        http, self._sdk, self._http = self._http, None, None
        if http is not None:
            await http.aclose()

    async def _client(self, secret: SecretStr) -> Any:
        base_url = self.base_url() or SERVER
        async with self._making:
            if self._sdk is None:
                # The import takes a third of a second, reading the system's certificates some of another.
                self._sdk, self._http = await asyncio.to_thread(self._connected, secret, base_url)
        return self._sdk

    def _connected(self, secret: SecretStr, base_url: str) -> tuple[Any, Any]:
        """The SDK's client and the connections it uses. Nothing is left for it to look up in the environment."""
        import httpx2

        async def limited(request: Any) -> None:
            request.extensions["timeout"] = http.timeout.as_dict()  # the SDK sends each request without a limit of time

        async def noted(response: Any) -> None:
            _opened.get([]).append(response)

        http = self.http(httpx2, base_url, bare=True, whole=_as_events, whole_texts=True, event_hooks={"request": [limited], "response": [noted]})
        # Values that the SDK does not know yet are legal; under `-W error` its warning of them would cost the answer.
        warnings.filterwarnings("ignore", ".* is not a valid ", UserWarning, r"google\.genai\._common")
        sdk = _sdk().Client(
            api_key=secret.get_secret_value(),
            vertexai=False,
            http_options={
                "base_url": base_url.rstrip("/").removesuffix(f"/{API_VERSION}"),
                "api_version": API_VERSION,
                "httpx_async_client": http,
            },
        )
        return sdk, http

    def _call(self, request: LLMRequest) -> dict[str, Any]:
        """The arguments of the SDK's call.

        Raises:
            UnsupportedError: the model cannot do that.
            ValidationError: no model, or settings of a tool that it does not have.
        """
        if not request.model:
            raise ValidationError(
                "No model is named for gemini.", hint="Write gemini:NAME, as in gemini:gemini-3.5-flash-lite."
            )
        check_options(request)
        types = _sdk().types
        config: dict[str, Any] = {
            "system_instruction": _system(request.messages),
            "max_output_tokens": request.max_tokens,
            "automatic_function_calling": {"disable": True},
            **_tools(request),
            **self._structure(request),
        }
        if request.temperature is not None and self.capabilities(request.model).supports_temperature:
            config["temperature"] = request.temperature
        config |= {name: value for name, value in (("top_p", request.top_p), ("seed", request.seed)) if value is not None}
        if request.stop:
            config["stop_sequences"] = list(request.stop)
        if thinking := self._thinking(request):
            config["thinking_config"] = thinking
        if extra := merged(self.config.extra_params, request.extra):
            config["http_options"] = {"extra_body": extra}
        contents = list(_contents(request, types))
        if not contents:  # instructions alone are no conversation
            contents = [{"role": "user", "parts": [{"text": config.pop("system_instruction")}]}]
        try:
            return {"model": request.model, "contents": contents, "config": types.GenerateContentConfig(**config)}
        except PydanticValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            raise ValidationError(
                f"gemini has no such setting: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}.",
                hint="Check the settings of the tools.",
            ) from error

    def _thinking(self, request: LLMRequest) -> dict[str, Any]:
        """Whether thoughts are shown, and how much is thought."""
        thinking: dict[str, Any] = {"include_thoughts": True} if _shows_thoughts(request.model) else {}
        able, wanted = self.capabilities(request.model), request.reasoning
        if wanted is None or (way := able.reasoning) is None:
            return thinking
        if way == "level":
            level = nearest_effort(wanted, able.efforts)
            return {**thinking, "thinking_level": level.upper()}
        return {**thinking, "thinking_budget": THOUGHT[wanted]}

    def _structure(self, request: LLMRequest) -> dict[str, Any]:
        if (rung := self.rung(request)) is None:
            return {}
        if request.tools and not _is_generation_3(request.model):
            raise UnsupportedError(
                f"{request.model} gives no native structure together with tools.",
                hint="Leave out rung (then the answer is a tool's arguments), or use a Gemini 3 model.",
                provider=self.provider,
                model=request.model,
            )
        schema = {} if rung == "json_mode" else {"response_json_schema": json_schema(request.response_format)}
        return {"response_mime_type": "application/json", **schema}


def _as_events(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The events of an answer that came whole."""
    return [body] if "candidates" in body or "promptFeedback" in body or "usageMetadata" in body else None


def _sdk() -> Any:
    try:
        import google.genai.errors
        import google.genai.types
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'google-genai' is not installed.", hint="Run: pip install google-genai"
        ) from error
    return google.genai


_opened: ContextVar[list[Any]] = ContextVar("_opened")
"""Where the responses of a call in progress are noted."""


async def _chunks(client: Any, call: Mapping[str, Any]) -> AsyncGenerator[Any]:
    """The chunks of an answer; closing the iterator closes the connection.

    The SDK leaves that to the garbage collector (its HttpResponse refers to itself), which may be minutes later.
    """
    responses: list[Any] = []
    try:
        async with contextlib.aclosing(await client.aio.models.generate_content_stream(**call)) as chunks:
            while True:
                token = _opened.set(responses)
                try:
                    chunk = await anext(chunks, None)
                finally:
                    _opened.reset(token)
                if chunk is None:
                    return
                yield chunk
    finally:
        for response in responses:
            await response.aclose()


# What models can do, beyond `capabilities.toml`.


def _is_generation_3(model: str) -> bool:
    """Whether structure goes together with tools, and search with functions; `-latest` names are of today's generation."""
    number = re.match(r"(?:models/)?gemini-(\d+)", model)
    return int(number[1]) >= 3 if number else model.endswith("-latest")


def _shows_thoughts(model: str) -> bool:
    """Whether summaries of its thoughts can be had, which cost nothing more; older models refuse to be asked for them."""
    name = model.removeprefix("models/")
    special = ("image", "tts", "audio", "live", "robotics", "computer")
    return name.startswith(("gemini-2.5-", "gemini-3")) and not any(word in name for word in special)


# The request.


def _system(messages: Sequence[ChatMessage]) -> str | None:
    """The instructions; Gemini knows them for the whole conversation only."""
    return "\n\n".join(m.content for m in messages if m.role == "system" and m.content.strip()) or None


def _contents(request: LLMRequest, types: Any) -> Iterator[Any]:
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
        raw = message.raw if message.raw is not None and message.raw.get("provider") == UnifiedGoogleClient.provider else None
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
        if index == 0 and _is_generation_3(model):  # only the first of parallel calls is signed
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


def _tools(request: LLMRequest) -> dict[str, Any]:
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
    if functions and tools and not _is_generation_3(request.model):
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
                hint="Leave out rung (then another way is taken), or write the schema without it.",
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


# The answer.


class _Answer:
    """An answer while it comes."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._parts: list[dict[str, Any]] = []
        """The turn in Google's own form."""
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._outputs: list[Mapping[str, Any]] = []
        self._counts: dict[str, Any] = {}
        self._queries: list[str] = []
        """Searches that were made."""
        self._tier: str | None = None
        """The class of service, where the answer names it."""
        self._grounded = False
        """Whether the answer names pages that were found."""
        self._maps = False
        """Whether it names places of Google Maps, which have a fee of their own."""
        self._reason: str | None = None
        self._id: str | None = None
        self._model: str | None = None

    def take(self, chunk: Any) -> Iterator[StreamEvent]:
        self._id = chunk.response_id or self._id
        if self._tier is None and chunk.sdk_http_response is not None:
            self._tier = (chunk.sdk_http_response.headers or {}).get("x-gemini-service-tier")
        self._model = chunk.model_version or self._model
        if chunk.model_status is not None:
            warn_of_end("gemini", self._request.model, chunk.model_status.retirement_time)
        if chunk.usage_metadata is not None:  # each is the sum so far
            self._counts = merged_counts(self._counts, record(chunk.usage_metadata, by_alias=True))
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            reason = _word(chunk.prompt_feedback.block_reason)
            raise self._filtered(f"gemini blocked the prompt: {reason}.")
        for candidate in (chunk.candidates or ())[:1]:
            for part in (candidate.content.parts if candidate.content else None) or ():
                yield from self._part(part)
            self._cite(candidate)
            if candidate.finish_reason is not None:
                self._reason = _word(candidate.finish_reason)

    @property
    def is_complete(self) -> bool:
        """Whether its end was said, after which only the end of the connection comes."""
        return self._reason in COMPLETE and bool(self._counts)

    @property
    def usage(self) -> TokenUsage:
        """What the answer took so far."""
        images = sum(output["type"] == "image" for output in self._outputs)
        old = re.match(r"(models/)?gemini-[12]\b", self._model or self._request.model) is not None
        usage = of_google(
            self._counts, queries=self._queries, grounded=self._grounded, per_prompt=old, images=images, tier=self._tier
        )
        return usage if not self._maps else replace(usage, bill=(*usage.bill, BillItem({"maps": 1})))

    def finished(self) -> LLMResponse:
        """The whole answer.

        Raises:
            LLMConnectionError: it was not complete.
            ContentFilteredError: filtered.
            StructureError: it does not fit the requested structure.
            ProviderError: it ended for another reason.
        """
        request, reason = self._request, self._reason
        if reason is None:
            raise broken_off(request)
        if reason in FILTERED:
            raise self._filtered(f"gemini stopped its answer: {reason}.")
        if reason not in COMPLETE:
            raise ProviderError(
                f"gemini ended its answer with {reason}.",
                hint=_HINTS.get(reason, "Try again."),
                retryable=reason in PASSING or None,
                usage=self.usage,
                **self._facts,
            )
        text, cut, usage = "".join(self._texts), reason == "MAX_TOKENS", self.usage
        structured = rung = None
        if request.response_format is not None and not self._calls:
            structured = parsed(
                text, request.response_format, provider="gemini", model=request.model, usage=usage, cut=cut
            )
            rung = "json_mode" if request.rung == "json_mode" else "native"
        signed = any("thoughtSignature" in part or "functionCall" in part for part in self._parts)
        return LLMResponse(
            text,
            "gemini",
            self._model or request.model,
            usage,
            structured,
            tuple(self._calls),
            "length" if cut else "tool_calls" if self._calls else "stop",
            self._id,
            rung=rung,
            tool_outputs=tuple(self._outputs),
            raw={"provider": "gemini", "model": request.model, "content": self._parts} if signed else None,
        )

    def _part(self, part: Any) -> Iterator[StreamEvent]:
        if (call := part.function_call) is not None:
            given = ToolCall(call_id_of(call.id, [c.id for c in self._calls], OWN_ID), named(call.name), dict(call.args or {}))
            call.id = call.id if given.id == call.id else None
            self._keep(_as_sent(part))
            self._calls.append(given)
            arguments = json.dumps(given.arguments, ensure_ascii=False)
            yield StreamEvent("tool_call_start", given.name, data={"id": given.id})
            yield StreamEvent("tool_call_delta", arguments, data={"id": given.id})
            yield StreamEvent("tool_call_end", given.name, data={"id": given.id, "arguments": arguments})
            return
        self._keep(_as_sent(part))
        if part.inline_data is not None and part.inline_data.data and not part.thought:
            kind = part.inline_data.mime_type or "application/octet-stream"
            data = base64.b64encode(part.inline_data.data).decode()
            self._outputs.append({"type": kind.partition("/")[0], "media_type": kind, "data": data})
        elif part.text and part.thought:
            yield StreamEvent("reasoning", words(part.text))
        elif part.text:
            self._texts.append(text := words(part.text))
            yield StreamEvent("text", text)

    def _keep(self, part: dict[str, Any]) -> None:
        """Pieces of one text become one part; signed ones stay alone, as Google asks."""
        last = self._parts[-1] if self._parts else None
        plain = {"text", "thought"}
        if last and "text" in last and "text" in part and plain >= {*last, *part} and _thought(last) == _thought(part):
            last["text"] += part["text"]
        else:
            self._parts.append(part)

    def _cite(self, candidate: Any) -> None:
        grounding = candidate.grounding_metadata
        if grounding is not None:
            self._queries += [*(grounding.web_search_queries or ()), *(grounding.image_search_queries or ())]
            for found in grounding.grounding_chunks or ():
                self._grounded = self._grounded or found.web is not None or found.image is not None
                self._maps = self._maps or found.maps is not None
        pages = [c.web for c in (grounding.grounding_chunks if grounding else None) or () if c.web is not None]
        quoted = (candidate.citation_metadata.citations if candidate.citation_metadata else None) or ()
        for page in (*pages, *quoted):
            citation = {"type": "citation", "url": page.uri, "title": page.title}
            if page.uri and citation not in self._outputs:
                self._outputs.append(citation)

    @property
    def _facts(self) -> dict[str, Any]:
        return {"provider": "gemini", "model": self._request.model, "request_id": self._id}

    def _filtered(self, message: str) -> ContentFilteredError:
        return ContentFilteredError(message, hint="Change the prompt.", usage=self.usage, **self._facts)


_HINTS = {
    "MALFORMED_FUNCTION_CALL": "The model wrote a call that cannot be read. Try again, or simplify the tool's parameters.",
    "UNEXPECTED_TOOL_CALL": "The model called a tool that it does not have. Try again, or offer the tool.",
    "TOO_MANY_TOOL_CALLS": "Say in the prompt when to stop calling tools.",
    "LANGUAGE": "Ask in another language.",
    "NO_IMAGE": "Ask for an image more plainly.",
}


def _word(value: Any) -> str:
    """An enumeration's word; the SDK passes on words that it does not know."""
    return str(getattr(value, "value", value))


def _as_sent(part: Any) -> dict[str, Any]:
    """A part in the API's own form."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def _thought(part: Mapping[str, Any]) -> bool:
    return bool(part.get("thought"))


# Failures.


def _is_broken(error: Exception) -> bool:
    """Whether a connection broke."""
    return type(error).__module__.partition(".")[0] in HTTP_LIBRARIES or isinstance(error, OSError)


def _vendor(caller: Caller) -> Callable[[Any], LLMError | None]:
    """What `translated` needs to know of the SDK."""
    errors = _sdk().errors

    def vendor(error: Any) -> LLMError | None:
        if isinstance(error, errors.APIError):
            return _refused(error, caller)
        return None

    return vendor


_HINT = "Check that GOOGLE_BASE_URL speaks the Gemini API."


def _refused(error: Any, caller: Caller) -> LLMError:
    """The error of an answer that is one; its details are those of https://google.aip.dev/193."""
    body: Any = error.details if isinstance(error.details, Mapping) else {}
    inner: Any = body.get("error") if isinstance(body.get("error"), Mapping) else body
    found: Any = inner.get("details")
    details = [d for d in found if isinstance(d, Mapping)] if isinstance(found, list) else []
    said = said_by(error.details)[1] or str(error.message or "")
    if not isinstance(error.code, int):
        return said_in_stream(caller, str(error.status or ""), said)
    status, code = error.code, str(error.status or "")
    reasons = {d.get("reason") for d in details}
    if status == 400 and "API_KEY_INVALID" in reasons:  # Google's way to say 401
        status = 401
    if status == 429 and any("PerDay" in str(v.get("quotaId")) for d in details for v in d.get("violations") or ()):
        code = "insufficient_quota"  # until tomorrow
    headers = dict(error.response.headers) if hasattr(error.response, "headers") else {}
    return status_error(caller, status, said, code=code, headers={**_asked_to_wait(details), **headers})


def _asked_to_wait(details: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`RetryInfo` as the header that it stands for: `"retryDelay": "34.07s"`."""
    for detail in details:
        if delay := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay"))):
            return {"retry-after": delay[1]}
    return {}

"""OpenAI, and everything that speaks its Responses API, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.config import OWN_HOSTS
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import ContentFilteredError, LLMError, MissingDependencyError, ProviderError, UnsupportedError
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.core.errors import said_in_stream, stainless, status_error, translated
from dipeo_nb.llm.core.types import BatchState, BatchStatus
from dipeo_nb.llm.options import check_options
from dipeo_nb.llm.stream import broken_off
from dipeo_nb.llm.structured import is_object, name_of, parsed, schema_of, strict_schema
from dipeo_nb.llm.tools import call_of

SERVER = "https://api.openai.com/v1"
BUILT_IN_TOOLS = ("web_search", "web_search_preview", "image_generation")


class UnifiedOpenAIClient(UnifiedClient):
    """`LLMClient` over the Responses API (`input`, `max_output_tokens`, `text.format`), one pool of connections each."""

    provider = "openai"
    key_variable = "OPENAI_API_KEY"
    base_url_variable = "OPENAI_BASE_URL"
    base_url_setting = "openai_base_url"
    hosts = OWN_HOSTS["openai"]
    added_paths = ("/responses", "/chat/completions", "/chat")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sdk: Any = None
        self._told: set[str] = set()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        body = self._body(request)
        client = await self._client(secret)
        yield StreamEvent("start", data={"notice": notice} if (notice := self._notice(request)) else None)
        caller = self.caller(request, secret)
        final: Any = None
        request_id: str | None = None
        calls: dict[str, tuple[str, str]] = {}
        """Item id → (call id, name of the tool)."""
        items: dict[int, Any] = {}
        """Finished items of the output, by their place: some servers leave them out of the final response."""
        said: list[str] = []
        """The text that came."""
        with translated(caller, stainless(_sdk(), caller)):
            async with await client.responses.create(**body, stream=True) as events:
                request_id = events.response.headers.get("x-request-id")
                async for event in events:
                    match event.type:
                        case "response.output_text.delta":
                            said.append(event.delta)
                            yield StreamEvent("text", event.delta)
                        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                            yield StreamEvent("reasoning", event.delta)
                        case "response.output_item.added" if event.item.type == "function_call":
                            calls[event.item.id] = event.item.call_id, event.item.name
                            yield StreamEvent("tool_call_start", event.item.name, data={"id": event.item.call_id})
                        case "response.function_call_arguments.delta" if event.item_id in calls:
                            yield StreamEvent("tool_call_delta", event.delta, data={"id": calls[event.item_id][0]})
                        case "response.function_call_arguments.done" if event.item_id in calls:
                            call_id, name = calls[event.item_id]
                            yield StreamEvent("tool_call_end", name, data={"id": call_id, "arguments": event.arguments})
                        case "response.output_item.done":
                            items[event.output_index] = event.item
                        case "response.completed" | "response.incomplete":
                            final = event.response
                        case "response.failed":
                            problem = getattr(event.response, "error", None)
                            words = str(getattr(problem, "message", None) or "the answer failed, no reason given")
                            raise said_in_stream(caller, str(getattr(problem, "code", None) or "server_error"), words)
                        case "error":
                            raise said_in_stream(caller, str(event.code or ""), str(event.message))
                        case _:
                            continue
        if final is None:
            raise broken_off(request)
        if not final.output and items:
            final.output = [items[at] for at in sorted(items)]
        response = response_of(final, request, request_id, "".join(said))
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises AuthError when the key is refused, other LLMErrors when it cannot be asked."""
        secret = self.secret()
        client = await self._client(secret)
        caller = self.caller(self.request("-"), secret)
        with translated(caller, stainless(_sdk(), caller)):
            await client.models.list()

    # The batch API: a file of requests, and a file of answers within a day.

    async def submit_batch(self, requests: Mapping[str, LLMRequest]) -> BatchStatus:
        """Hand requests (by an id of ours) to the provider's batch API."""
        lines: list[str] = []
        for name, request in requests.items():
            body = self._body(request)
            body |= body.pop("extra_body", {})
            lines.append(json.dumps({"custom_id": name, "method": "POST", "url": "/v1/responses", "body": body}))
        async with self._batches() as client:
            file = await client.files.create(file=("batch.jsonl", "\n".join(lines).encode()), purpose="batch")
            made = await client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
        return _batch_status(made)

    async def poll_batch(self, batch_id: str) -> BatchStatus:
        """How far it is."""
        async with self._batches() as client:
            return _batch_status(await client.batches.retrieve(batch_id))

    async def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Stop it; what is done stays."""
        async with self._batches() as client:
            return _batch_status(await client.batches.cancel(batch_id))

    async def batch_results(
        self, batch_id: str, requests: Mapping[str, LLMRequest]
    ) -> dict[str, LLMResponse | LLMError]:
        """The answers, and the errors, that there are."""
        found: dict[str, LLMResponse | LLMError] = {}
        async with self._batches() as client:
            batch = await client.batches.retrieve(batch_id)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                text = (await client.files.content(file)).text
                for line in filter(str.strip, text.split("\n")):  # nothing else ends a line of JSON
                    try:
                        entry = json.loads(line)
                        name = entry["custom_id"]
                    except (ValueError, KeyError, TypeError):
                        continue  # whose answer it was is not known; it is missing, then
                    if (request := requests.get(name)) is not None:
                        found[name] = self._batch_result(entry, request)
        return found

    def _batch_result(self, entry: Mapping[str, Any], request: LLMRequest) -> LLMResponse | LLMError:
        caller = self.caller(request)
        answer = entry.get("response") or {}
        body = answer.get("body") or {}
        if entry.get("error") or answer.get("status_code", 500) >= 400:
            said = entry.get("error") or body.get("error") or {}
            status = answer.get("status_code") or 500
            return status_error(caller, status, str(said.get("message", "")), code=str(said.get("code") or ""))
        try:
            return response_of(_sdk().types.responses.Response.construct(**body), request, answer.get("request_id"))
        except LLMError as error:
            return error

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        caller = self.caller(self.request("-"), secret)
        with translated(caller, stainless(_sdk(), caller)):
            yield client

    async def cleanup(self) -> None:
        client, self._sdk = self._sdk, None
        if client is not None:
            await client.close()

    async def _client(self, secret: SecretStr) -> Any:
        if self._sdk is None:
            base_url = self.base_url()
            await asyncio.to_thread(_sdk)  # its import takes up to a second
            if self._sdk is None:  # another call may have made it meanwhile
                self._sdk = self._connected(secret, base_url or SERVER)
        return self._sdk

    def _connected(self, secret: SecretStr, base_url: str) -> Any:
        import httpx2  # the SDK's own library

        http = self.http(httpx2, base_url, whole=_as_event)
        return _sdk().AsyncOpenAI(
            api_key=secret.get_secret_value(), base_url=base_url, max_retries=0, timeout=http.timeout, http_client=http
        )

    def _notice(self, request: LLMRequest) -> str | None:
        """What the user should know about the request, once per model."""
        if request.temperature is None or self._takes_temperature(request) or request.model in self._told:
            return None
        self._told.add(request.model)
        return f"{request.model} takes no temperature; {request.temperature:g} is left out."

    def _takes_temperature(self, request: LLMRequest) -> bool:
        return self.capabilities(request.model).supports_temperature

    def _body(self, request: LLMRequest) -> dict[str, Any]:
        """The request on the wire.

        Raises:
            UnsupportedError: the model does not take an option, or cannot give that structure or tool.
        """
        check_options(request)
        theirs = is_openai(self.config.base_url)
        system = "developer" if theirs else "system"
        body: dict[str, Any] = {
            "model": request.model,
            "input": [item for m in request.messages for item in _items(m, system)],
            "store": False,  # nothing of a run is kept elsewhere
        }
        if request.max_tokens is not None:
            body["max_output_tokens"] = request.max_tokens
        if request.temperature is not None and self._takes_temperature(request):
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.reasoning is not None and self.capabilities(request.model).reasoning is not None:
            body["reasoning"] = {"effort": request.reasoning}
        if (rung := self.rung(request)) is not None:
            body["text"] = {"format": {"type": "json_object"} if rung == "json_mode" else _format(request)}
        if request.tools:
            body["tools"] = [_tool(t, request.model) for t in request.tools]
            if not self._takes_temperature(request) or "reasoning" in body:
                # Nothing is stored there, so what a reasoning model thought before its calls travels with them.
                body["include"] = ["reasoning.encrypted_content"]
        if request.tool_choice is not None:
            body["tool_choice"] = (
                request.tool_choice
                if request.tool_choice in ("auto", "required", "none")
                else {"type": "function", "name": request.tool_choice}
            )
        extra = merged(self.config.extra_params, request.extra)
        return {**body, "extra_body": {name: merged(body.get(name), value) for name, value in extra.items()}} if extra else body


def is_openai(base_url: str | None) -> bool:
    """Whether an address is OpenAI's own; None is."""
    if base_url is None:
        return True
    address = urlsplit(base_url)
    host = address.hostname or ""
    return address.scheme == "https" and (host == "openai.com" or host.endswith(".openai.com"))


def _as_event(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The event of an answer that came whole."""
    return {"type": "response.completed", "response": body} if body.get("object") == "response" else None


def _sdk() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'openai' is not installed.", hint="Run: pip install openai"
        ) from error
    return openai


_BATCH_STATES: Mapping[str, BatchState] = {
    "validating": "submitted",
    "in_progress": "running",
    "finalizing": "running",
    "cancelling": "running",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}


def _batch_status(batch: Any) -> BatchStatus:
    counts = batch.request_counts
    done = (counts.completed, counts.failed) if counts is not None else (0, 0)
    return BatchStatus(batch.id, _BATCH_STATES.get(batch.status, "running"), *done)


# The request.


def _items(message: ChatMessage, system: str) -> Iterator[dict[str, Any]]:
    """A message as items of `input`."""
    if message.raw is not None and message.raw.get("provider") == UnifiedOpenAIClient.provider:
        yield from message.raw["content"]
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


def _format(request: LLMRequest) -> dict[str, Any]:
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


def _tool(tool: ToolConfig, model: str) -> dict[str, Any]:
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


# The answer.


def response_of(final: Any, request: LLMRequest, request_id: str | None, streamed: str = "") -> LLMResponse:
    """A finished Responses API object as ours.

    Args:
        streamed: the text that came before it, which counts when the object has none.

    Raises:
        ContentFilteredError: refused or filtered.
        StructureError: it does not fit the requested structure.
        ProviderError: the server sent something else (the SDK does not check).
    """
    facts: dict[str, Any] = {"provider": "openai", "model": request.model, "request_id": request_id}
    try:
        return _response(final, request, facts, streamed)
    except (AttributeError, TypeError) as error:
        raise ProviderError(
            "openai sent an answer of an unknown form.",
            hint="Check that OPENAI_BASE_URL speaks the Responses API.",
            **facts,
        ) from error


def _response(final: Any, request: LLMRequest, facts: dict[str, Any], streamed: str) -> LLMResponse:
    facts["request_id"] = facts["request_id"] or final.id
    texts: list[str] = []
    calls: list[ToolCall] = []
    outputs: list[Mapping[str, Any]] = []
    usage = _usage(final.usage)
    for item in final.output:  # reasoning may come before the message
        match item.type:
            case "message":
                for part in item.content:
                    if part.type == "refusal":
                        raise ContentFilteredError(
                            f"The model refused: {part.refusal}", hint="Change the prompt.", usage=usage, **facts
                        )
                    texts.append(part.text or "")
                    outputs += [
                        {"type": "citation", "url": a.url, "title": a.title}
                        for a in getattr(part, "annotations", None) or ()
                        if a.type == "url_citation"
                    ]
            case "function_call":
                calls.append(call_of(item.call_id, item.name, item.arguments))
            case "image_generation_call" if item.result:
                kind = getattr(item, "output_format", None) or "png"
                outputs.append({"type": "image", "media_type": f"image/{kind}", "data": item.result})
            case _:
                continue
    text = "".join(texts) or ("" if calls else streamed)
    reason = getattr(getattr(final, "incomplete_details", None), "reason", None)
    if reason == "content_filter":
        raise ContentFilteredError("The provider filtered the answer.", hint="Change the prompt.", usage=usage, **facts)
    cut = reason == "max_output_tokens"
    structured = rung = None
    if request.response_format is not None and not calls:
        structured = parsed(text, request.response_format, provider="openai", model=request.model, usage=usage, cut=cut)
        loose = request.rung == "json_mode" or strict_schema(request.response_format) is None
        rung = "json_mode" if loose else "native"
    return LLMResponse(
        text,
        "openai",
        str(final.model or request.model),
        usage,
        structured,
        tuple(calls),
        "length" if cut else "tool_calls" if calls else (reason or "stop"),
        facts["request_id"],
        rung=rung,
        tool_outputs=tuple(outputs),
        raw={"provider": "openai", "content": _kept(final.output)} if calls else None,
    )


def _kept(output: Sequence[Any]) -> list[dict[str, Any]]:
    """The items of a turn as they may be sent back. Thoughts that only a server that stored them could find again are left out; what
    was said and called after them then loses its id, by which a server would ask for them."""
    items = [item.model_dump(mode="json", exclude_none=True, exclude={"status"}) for item in output]
    for item in items:
        if item.get("type") == "function_call" and call_of("", "", item.get("arguments") or "").unreadable is not None:
            item["arguments"] = "{}"  # some servers read what is sent back
    kept = [item for item in items if item.get("type") != "reasoning" or item.get("encrypted_content")]
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


def _usage(usage: Any) -> TokenUsage:
    """OpenAI counts cached tokens, read and written, within the input and reasoning within the output; our buckets are disjoint.
    What a server does not say is unknown, and not 0."""
    if usage is None:
        return TokenUsage()
    put_in, put_out = getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None)
    inner, outer = getattr(usage, "input_tokens_details", None), getattr(usage, "output_tokens_details", None)
    read, written = getattr(inner, "cached_tokens", None), getattr(inner, "cache_write_tokens", None)
    reasoning = getattr(outer, "reasoning_tokens", None)
    beside = put_out is not None and (reasoning or 0) > put_out  # as xAI counts
    return TokenUsage(
        None if put_in is None else max(0, put_in - (read or 0) - (written or 0)),
        put_out if put_out is None or beside else put_out - (reasoning or 0),
        read,
        written,
        reasoning,
        raw=usage.model_dump(mode="json"),
    )

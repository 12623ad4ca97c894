"""Claude models through Anthropic's Messages API and the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, cast

from pydantic import SecretStr

from dipeo_nb.config import OWN_HOSTS
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.domain.lifecycle import ends_of
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import ContentFilteredError, LLMError, MissingDependencyError, ProviderError, UnsupportedError
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.core.errors import Caller, reading, said_by, said_in_stream, stainless, translated
from dipeo_nb.llm.core.http import drained
from dipeo_nb.llm.core.types import BatchState, BatchStatus
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.stream import TextPieces, batch_lines, broken_off, named, words
from dipeo_nb.llm.structured import is_object, made, name_of, parsed, schema_of
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import merged_counts, record
from dipeo_nb.llm.usage import of_anthropic as usage_of

SERVER = "https://api.anthropic.com"
MAX_TOKENS = 32_000
"""Limit of an answer when the request names none, as far as the model can; the API wants one."""
LEAST_THOUGHT = 1024
"""Tokens that a budget of thoughts has at least."""
THOUGHT = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
"""Efforts as budgets of tokens, for models that know no efforts; half of the limit of the answer at most."""
SEARCH_TOOL = "web_search_20250305"
"""The version of the built-in search that all models with it take."""
UNREADABLE = "dipeo_unreadable"
"""Our field of a call's block: what the model gave that is no JSON."""
PAUSES = 5
"""Times a long turn of a built-in tool is continued (`pause_turn`)."""
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
"""Anthropic's stop reasons → ours."""
BOUND = "bound to a different conversation"
"""Words of the refusal of thoughts whose conversation has changed before them since: by other instructions or tools, or a shorter memory
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking)."""
FULL = "The answer ended where the model's context is full; remember less, or shorten the inputs."


class UnifiedAnthropicClient(UnifiedClient):
    """`LLMClient` over `/v1/messages`. Raw events are read, which costs a third of the SDK's accumulating helper."""

    provider = "anthropic"
    key_variable = "ANTHROPIC_API_KEY"
    base_url_variable = "ANTHROPIC_BASE_URL"
    base_url_setting = "anthropic_base_url"
    base_url_example = "http://localhost:8080"
    hosts = OWN_HOSTS["anthropic"]
    added_paths = ("/messages", "/v1")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sdk: Any = None
        self._told: set[str] = set()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        caller = self.caller(request, secret)
        client = await self._client(secret)
        body = self._body(request)
        yield StreamEvent("start", data={"notice": notice} if (notice := self._notice(request)) else None)
        turn = _Turn(request)
        vendor = stainless(_sdk(), caller)
        for _ in range(PAUSES + 1):
            try:
                with translated(caller, vendor):
                    opened = await client.messages.create(**body, stream=True)
            except LLMError as error:
                if error.status != 400 or BOUND not in error.message:
                    raise
                body["messages"] = _without_thoughts(body["messages"])
                with translated(caller, vendor):
                    opened = await client.messages.create(**body, stream=True)
            with reading(caller, vendor) as progress:
                async with opened as events:
                    turn.begin(events.response.headers.get("request-id"))
                    try:
                        async for event in events:
                            said = turn.take(event)
                            progress.begun = True
                            if said is not None:
                                yield said
                            if event.type == "message_stop":
                                await drained(events)
                                break
                    finally:
                        if (usage := turn.usage).total is not None:
                            request.note(usage)
            if not turn.complete:
                raise broken_off(request)
            if turn.stop_reason != "pause_turn":
                break
            body["messages"] = [*body["messages"], {"role": "assistant", "content": list(map(_kept, turn.blocks))}]
        with reading(caller) as progress:
            progress.begun = True
            response = await made(lambda: turn.response(caller), request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises AuthError when the key is refused, other LLMErrors when it cannot be asked."""
        secret = self.secret()
        client = await self._client(secret)
        caller = self.caller(self.request("-"), secret)
        with translated(caller, stainless(_sdk(), caller)):
            await client.models.list(limit=1)

    async def announced_ends(self) -> dict[str, date]:
        """When models are retired, as the provider's list of models says; errors as `check_key`."""
        secret = self.secret()
        client = await self._client(secret)
        caller = self.caller(self.request("-"), secret)
        with translated(caller, stainless(_sdk(), caller)):
            listed = await client.models.list(limit=1000)
            return ends_of((m.id, getattr(m, "retires_at", None)) for m in listed.data or ())

    # The Message Batches API: answers within a day.

    async def submit_batch(self, requests: Mapping[str, LLMRequest]) -> BatchStatus:
        """Hand requests (by an id of ours) to the provider's batch API."""
        items: list[dict[str, Any]] = []
        for name, request in requests.items():
            body = self._body(request)
            items.append({"custom_id": name, "params": body | body.pop("extra_body", {})})
        async with self._batches() as batches:
            return _batch_status(await batches.create(requests=items))

    async def poll_batch(self, batch_id: str) -> BatchStatus:
        """How far it is."""
        async with self._batches() as batches:
            return _batch_status(await batches.retrieve(batch_id))

    async def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Stop it; what is done stays."""
        async with self._batches() as batches:
            return _batch_status(await batches.cancel(batch_id))

    async def batch_results(
        self, batch_id: str, requests: Mapping[str, LLMRequest]
    ) -> dict[str, LLMResponse | LLMError]:
        """The answers, and the errors, that there are."""
        found: dict[str, LLMResponse | LLMError] = {}
        async with self._batches() as batches:
            # The lines themselves: the SDK's reader ends at the first one that is damaged.
            opened = await batches.with_raw_response.results(batch_id)
            for name, entry in batch_lines(await opened.http_response.aread(), requests):
                found[name] = self._batch_result(entry, requests[name])
        return found

    def _batch_result(self, entry: Mapping[str, Any], request: LLMRequest) -> LLMResponse | LLMError:
        caller = self.caller(request)
        try:
            with reading(caller):
                result = entry["result"]
                kind = named(result["type"])
                if kind == "errored":
                    return said_in_stream(caller, *said_by(result["error"]))
                if kind != "succeeded":
                    return ProviderError(f"anthropic: the request was {kind}.", hint="Submit it again.", **caller.facts)
                message = result["message"]
                blocks: list[dict[str, Any]] = []
                for block in map(record, message["content"]):
                    given = {"id": call_id_of(block.get("id"), _ids(blocks), "toolu_")} if block["type"] == "tool_use" else {}
                    blocks.append({**block, **given})
                model, stop = words(message.get("model")) or request.model, words(message.get("stop_reason")) or None
                usage = usage_of(record(message.get("usage")))
                return response_of(blocks, stop, usage, request, model, words(message.get("id")) or None, caller)
        except LLMError as error:
            return error

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        caller = self.caller(self.request("-"), secret)
        with translated(caller, stainless(_sdk(), caller)):
            yield client.messages.batches

    async def prepare(self) -> None:
        if self._sdk is None:
            await asyncio.to_thread(_sdk)  # its import takes up to a second

    async def cleanup(self) -> None:
        client, self._sdk = self._sdk, None
        if client is not None:
            await client.close()

    async def _client(self, secret: SecretStr) -> Any:
        if self._sdk is None:
            base_url = self.base_url()
            await asyncio.to_thread(_sdk)  # its import takes up to a second
            if self._sdk is None:  # another call may have made it meanwhile
                # Never what the SDK finds in the environment; it adds the version of the API itself.
                self._sdk = self._connected(secret, (base_url or SERVER).rstrip("/").removesuffix("/v1"))
        return self._sdk

    def _connected(self, secret: SecretStr, base_url: str) -> Any:
        import httpx2  # the SDK's own library

        # Notices of the answer and diagnostics say when models end; under `-W error` the SDK's warning would cost the answer.
        warnings.filterwarnings("ignore", "(The model 'claude|Using Claude ).* is deprecated", Warning)
        http = self.http(httpx2, base_url, typed=True, whole=_as_events)
        return _sdk().AsyncAnthropic(
            api_key=secret.get_secret_value(), base_url=base_url, max_retries=0, timeout=http.timeout, http_client=http
        )

    def _notice(self, request: LLMRequest) -> str | None:
        """What the user should know about the request, once per model."""
        notices: list[str] = []
        if request.temperature is not None and not self.capabilities(request.model).supports_temperature:
            notices.append(f"{request.model} takes no temperature; {request.temperature:g} is left out.")
        if until := _retired(request.model):
            notices.append(f"{request.model} is deprecated and ends on {until}.")
        if not notices or request.model in self._told:
            return None
        self._told.add(request.model)
        return " ".join(notices)

    def _body(self, request: LLMRequest) -> dict[str, Any]:
        """The request on the wire.

        Raises:
            UnsupportedError: the model does not take an option, or cannot give that structure or tool.
        """
        check_options(request)
        able = self.capabilities(request.model)
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_tokens or min(MAX_TOKENS, able.max_output_tokens or MAX_TOKENS),
            "messages": _messages(request.messages),
        }
        thinks = self._think(request, body)
        if system := "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content.strip()):
            body["system"] = system
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        sampling: dict[str, Any] = {}  # the SDK has no names for these any more
        if request.temperature is not None and able.supports_temperature and not thinks:
            sampling["temperature"] = request.temperature
        if request.top_p is not None:
            sampling["top_p"] = request.top_p
        if self.rung(request) is not None:
            shape = {"format": {"type": "json_schema", "schema": _schema(request)}}
            body["output_config"] = {**body.get("output_config", {}), **shape}
        if request.tools:
            body["tools"] = [_tool(t, request.model) for t in request.tools]
        if request.tool_choice is not None:
            kinds = {"auto": "auto", "required": "any", "none": "none"}
            kind = kinds.get(request.tool_choice)
            body["tool_choice"] = {"type": kind} if kind else {"type": "tool", "name": request.tool_choice}
            if thinks and kind not in ("auto", "none"):  # a model that thinks cannot be made to call a tool
                body["tool_choice"] = {"type": "auto"}
        extra = merged(self.config.extra_params, request.extra)
        extra = {**sampling, **{name: merged(body.get(name), value) for name, value in extra.items()}}
        return {**body, "extra_body": extra} if extra else body

    def _think(self, request: LLMRequest, body: dict[str, Any]) -> bool:
        """Say how much the model is to think; whether it thinks now where it otherwise would not.

        Raises:
            UnsupportedError: the limit of the answer leaves no room for thoughts.
        """
        able, wanted = self.capabilities(request.model), request.reasoning
        if wanted is None or (way := able.reasoning) is None:
            return False
        if wanted == "none":
            body["thinking"] = {"type": "disabled"}
            return False
        if way == "adaptive":
            body["thinking"] = {"type": "adaptive"}
            body["output_config"] = {"effort": nearest_effort(wanted, able.efforts)}
            return True
        room = body["max_tokens"] // 2
        if room < LEAST_THOUGHT:
            raise UnsupportedError(
                f"{request.model} thinks with {LEAST_THOUGHT:,} tokens at least, and max_tokens={body['max_tokens']} limits both.",
                hint=f"Raise max_tokens to {2 * LEAST_THOUGHT:,} or more, or leave reasoning out.",
                provider="anthropic",
                model=request.model,
            )
        body["thinking"] = {"type": "enabled", "budget_tokens": min(THOUGHT[wanted], room)}
        return True


def _as_events(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The events of an answer that came whole."""
    blocks = body.get("content")
    if body.get("type") != "message" or not isinstance(blocks, list):
        return None
    found: list[Mapping[str, Any]] = [{"type": "message_start", "message": {**body, "content": [], "stop_reason": None}}]
    for index, block in enumerate(cast("list[Any]", blocks)):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": body.get("stop_reason"), "stop_sequence": body.get("stop_sequence")}
    return [*found, {"type": "message_delta", "delta": end, "usage": body.get("usage")}, {"type": "message_stop"}]


def _sdk() -> Any:
    try:
        import anthropic
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'anthropic' is not installed.", hint="Run: pip install anthropic"
        ) from error
    return anthropic


def _retired(model: str) -> str | None:
    """When a model ends, as the SDK knows it."""
    from anthropic.resources.messages import messages

    return getattr(messages, "DEPRECATED_MODELS", {}).get(model)


def _batch_status(batch: Any) -> BatchStatus:
    """`ended` says that it is over; how, the counts say."""
    counts = batch.request_counts
    failed = counts.errored + counts.canceled + counts.expired
    state: BatchState = "running"
    if batch.processing_status == "ended":
        state = "completed"
        if not counts.succeeded and not counts.errored:
            state = "cancelled" if counts.canceled else "expired" if counts.expired else "completed"
    return BatchStatus(batch.id, state, counts.succeeded, failed)


# The request.


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
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


def _without_thoughts(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turns without thoughts: none of them may be left out alone."""
    thoughts = ("thinking", "redacted_thinking")
    found = [{**turn, "content": [block for block in turn["content"] if block["type"] not in thoughts]} for turn in turns]
    return [turn for turn in found if turn["content"]]


def _blocks(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.raw is not None and message.raw.get("provider") == UnifiedAnthropicClient.provider:
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


def _schema(request: LLMRequest) -> dict[str, Any]:
    """The schema in the dialect of structured outputs (closed objects, limits moved into descriptions and checked here)."""
    schema = schema_of(request.response_format)
    try:
        if not is_object(schema) or _free_form(schema):
            raise ValueError("it is no closed object")
        return _sdk().transform_schema(schema)
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


def _tool(tool: ToolConfig, model: str) -> dict[str, Any]:
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


# The answer.


class _Turn:
    """A turn of the model while it comes; one that pauses goes on."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self.blocks: list[dict[str, Any]] = []
        """Content so far, as it may be sent back."""
        self.stop_reason: str | None = None
        self.complete = False
        self._at: dict[int, dict[str, Any]] = {}
        """Blocks of the response that comes, by the server's numbers, which may have gaps."""
        self._json: dict[int, list[str]] = {}
        self._texts: dict[int, TextPieces] = {}
        self._request_id: str | None = None
        self._model = request.model
        self._usage: dict[str, Any] = {}
        self._spent: list[TokenUsage] = []

    def begin(self, request_id: str | None) -> None:
        """A (further) response begins."""
        self._request_id = request_id
        self._at, self._json, self._texts = {}, {}, {}
        self.complete = False
        self._usage = {}

    def take(self, event: Any) -> StreamEvent | None:
        """What an event of the API means for the reader."""
        if (usage := getattr(event, "usage", None)) is not None:  # of message_delta; elsewhere on servers that imitate it
            self._usage = merged_counts(self._usage, record(usage))
        match event.type:
            case "content_block_delta":
                return self._delta(event.index, event.delta)
            case "content_block_start":
                block = record(event.content_block)
                kind = words(block["type"])
                if kind == "tool_use":
                    block |= {"id": call_id_of(block.get("id"), _ids(self.blocks), "toolu_"), "name": named(block.get("name"))}
                elif kind == "text":
                    block["text"] = words(block.get("text"))
                self._at[event.index] = block
                self._texts[event.index] = TextPieces()
                self.blocks.append(block)
                if kind == "tool_use":
                    return StreamEvent("tool_call_start", block["name"], data={"id": block["id"]})
                if kind == "text" and block["text"]:
                    return StreamEvent("text", block["text"])
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start":
                self._model = words(event.message.model) or self._model
                self._usage = merged_counts(self._usage, record(getattr(event.message, "usage", None)))
            case "message_delta":
                self.stop_reason = words(event.delta.stop_reason) or None
            case "message_stop":
                self.complete = True
                self._spent.append(usage_of(self._usage))
                self._usage = {}
            case _:
                pass  # pings, and what later versions add
        return None

    def _delta(self, at: int, delta: Any) -> StreamEvent | None:
        block = self._at[at]
        match delta.type:
            case "text_delta" if block["type"] == "text":
                piece = self._texts[at].add(delta.text)
                block["text"] += piece
                return StreamEvent("text", piece)
            case "thinking_delta":
                piece = self._texts[at].add(delta.thinking)
                block["thinking"] = words(block.get("thinking")) + piece
                return StreamEvent("reasoning", piece)
            case "input_json_delta":
                piece = words(delta.partial_json)
                self._json.setdefault(at, []).append(piece)
                if block["type"] == "tool_use":
                    return StreamEvent("tool_call_delta", piece, data={"id": block["id"]})
            case "signature_delta":
                block["signature"] = words(delta.signature)
            case "text_delta":
                raise TypeError(f"text in a block of type {block['type']}")
            case "citations_delta":
                block.setdefault("citations", []).append(record(delta.citation))
            case _:
                pass
        return None

    def _stop(self, at: int) -> StreamEvent | None:
        block = self._at[at]
        text = "".join(self._json.pop(at, ()))
        if block["type"] not in ("tool_use", "server_tool_use"):
            return None
        if text:
            try:
                block["input"] = json.loads(text)
            except (ValueError, RecursionError):
                block["input"], block[UNREADABLE] = {}, text
        if block["type"] == "server_tool_use":
            return None
        given = block.get(UNREADABLE, block.get("input"))
        return StreamEvent("tool_call_end", block["name"], data={"id": block["id"], "arguments": given})

    def response(self, caller: Caller) -> LLMResponse:
        """The finished answer."""
        return response_of(
            self.blocks, self.stop_reason, self.usage, self._request, self._model, self._request_id, caller
        )

    @property
    def usage(self) -> TokenUsage:
        """What all responses took so far."""
        parts = [*self._spent, usage_of(self._usage)] if self._usage else self._spent
        return parts[0] if len(parts) == 1 else sum(parts, TokenUsage())


def response_of(
    blocks: Sequence[Mapping[str, Any]],
    stop_reason: str | None,
    usage: TokenUsage,
    request: LLMRequest,
    model: str,
    request_id: str | None,
    caller: Caller,
) -> LLMResponse:
    """The content of a finished message as our response.

    Raises:
        ContentFilteredError: the model refused.
        StructureError: it does not fit the requested structure.
    """
    if stop_reason == "refusal":
        raise ContentFilteredError(
            "The model refused to answer.", hint="Change the prompt.", request_id=request_id, usage=usage, **caller.facts
        )
    text = "".join(words(b.get("text")) for b in blocks if b["type"] == "text")
    calls = tuple(_call(b) for b in blocks if b["type"] == "tool_use")
    finish = FINISH.get(stop_reason or "", stop_reason or "stop")
    structured = rung = None
    if request.response_format is not None and not calls:
        structured = parsed(
            text,
            request.response_format,
            provider="anthropic",
            model=request.model,
            usage=usage,
            cut=finish == "length",
        )
        rung = "native"
    cited = (c for b in blocks for c in b.get("citations") or () if c.get("url"))
    return LLMResponse(
        text,
        "anthropic",
        model,
        usage,
        structured,
        calls,
        finish,
        request_id,
        rung=rung,
        tool_outputs=tuple({"type": "citation", "url": words(c["url"]), "title": words(c.get("title"))} for c in cited),
        raw={"provider": "anthropic", "content": list(map(_kept, blocks))} if calls else None,
        warnings=(FULL,) if stop_reason == "model_context_window_exceeded" else (),
    )


def _ids(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the calls of a turn."""
    return [block["id"] for block in blocks if block["type"] == "tool_use"]


def _call(block: Mapping[str, Any]) -> ToolCall:
    given = block.get("input")
    if UNREADABLE in block or not isinstance(given, Mapping):
        return ToolCall(block["id"], named(block.get("name")), {}, str(block.get(UNREADABLE, given)))
    return ToolCall(block["id"], named(block.get("name")), cast("Mapping[str, Any]", given))


def _kept(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block as it may be sent back."""
    given = {name: value for name, value in block.items() if name != UNREADABLE}
    return given | ({"input": {}} if "input" in given and not isinstance(given["input"], Mapping) else {})

"""Claude models through Anthropic's Messages API and the official SDK."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import Any, ClassVar

from pydantic import SecretStr

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.domain.lifecycle import ends_of
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import LLMError, ProviderError, UnsupportedError
from dipeo_nb.llm.core.errors import map_sdk_error, reading, said_by, said_in_stream, translate_errors
from dipeo_nb.llm.core.http import drained, events_of
from dipeo_nb.llm.core.sdk_client import SDKClient, open_stream
from dipeo_nb.llm.core.types import BatchState, BatchStatus
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.providers.anthropic.answer import Turn, as_events, ids_of, kept, response_of
from dipeo_nb.llm.providers.anthropic.request import messages_of, schema_for, tool_of, without_thoughts
from dipeo_nb.llm.providers.anthropic.sdk import load_sdk, retired
from dipeo_nb.llm.streaming import batch_lines, incomplete_stream_error, named, words
from dipeo_nb.llm.structured import made
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import of_anthropic as usage_of
from dipeo_nb.llm.usage import record

SERVER = "https://api.anthropic.com"
MAX_TOKENS = 32_000
"""Limit of an answer when the request names none, as far as the model can; the API wants one."""
LEAST_THOUGHT = 1024
"""Tokens that a budget of thoughts has at least."""
THOUGHT = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
"""Efforts as budgets of tokens, for models that know no efforts; half of the limit of the answer at most."""
PAUSES = 5
"""Times a long turn of a built-in tool is continued (`pause_turn`)."""
BOUND = "bound to a different conversation"
"""Words of the refusal of thoughts whose conversation has changed before them since: by other instructions or tools, or a shorter memory
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking)."""


class UnifiedAnthropicClient(SDKClient):
    """`LLMClient` over `/v1/messages`. The stream is read here (`events_of`)."""

    provider = "anthropic"
    base_url_example = "http://localhost:8080"
    added_paths: ClassVar[tuple[str, ...]] = ("/messages", "/v1")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        context = self.error_context(request, secret)
        client = await self._client(secret)
        body = self._body(request)
        yield self.started(request)
        turn = Turn(request)
        vendor = map_sdk_error(load_sdk(), context)
        for _ in range(PAUSES + 1):
            try:
                with translate_errors(context, vendor):
                    opened = await open_stream(client, "/v1/messages", body, load_sdk().AsyncStream)
            except LLMError as error:
                if error.status != 400 or BOUND not in error.message:
                    raise
                body["messages"] = without_thoughts(body["messages"])
                with translate_errors(context, vendor):
                    opened = await open_stream(client, "/v1/messages", body, load_sdk().AsyncStream)
            with reading(context, vendor) as progress:
                turn.begin(opened.headers.get("request-id"))
                async with contextlib.aclosing(events_of(opened)) as events:
                    try:
                        async for event in events:
                            if error := event.get("error"):
                                raise said_in_stream(context, *said_by(error))
                            said = turn.take(event)
                            progress.begun = True
                            if said is not None:
                                yield said
                            if event["type"] == "message_stop":
                                await drained(events)
                                break
                    finally:
                        if (usage := turn.usage).total is not None:
                            request.note(usage)
            if not turn.complete:
                raise incomplete_stream_error(request)
            if turn.stop_reason != "pause_turn":
                break
            body["messages"] = [*body["messages"], {"role": "assistant", "content": list(map(kept, turn.blocks))}]
        with reading(context) as progress:
            progress.begun = True
            response = await made(lambda: turn.response(context), request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises AuthError when the key is refused, other LLMErrors when it cannot be asked."""
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
            await client.models.list(limit=1)

    async def announced_ends(self) -> dict[str, date]:
        """When models are retired, as the provider's list of models says; errors as `check_key`."""
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
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

    async def batch_results(self, batch_id: str, requests: Mapping[str, LLMRequest]) -> dict[str, LLMResponse | LLMError]:
        """The answers, and the errors, that there are."""
        found: dict[str, LLMResponse | LLMError] = {}
        async with self._batches() as batches:
            # The lines themselves: the SDK's reader ends at the first one that is damaged.
            opened = await batches.with_raw_response.results(batch_id)
            for name, entry in batch_lines(await opened.http_response.aread(), requests):
                found[name] = self._batch_result(entry, requests[name])
        return found

    def _batch_result(self, entry: Mapping[str, Any], request: LLMRequest) -> LLMResponse | LLMError:
        context = self.error_context(request)
        try:
            with reading(context):
                result = entry["result"]
                kind = named(result["type"])
                if kind == "errored":
                    return said_in_stream(context, *said_by(result["error"]))
                if kind != "succeeded":
                    return ProviderError(f"anthropic: the request was {kind}.", hint="Submit it again.", **context.facts)
                message = result["message"]
                blocks: list[dict[str, Any]] = []
                for block in map(record, message["content"]):
                    given = {"id": call_id_of(block.get("id"), ids_of(blocks), "toolu_")} if block["type"] == "tool_use" else {}
                    blocks.append({**block, **given})
                model, stop = words(message.get("model")) or request.model, words(message.get("stop_reason")) or None
                usage = usage_of(record(message.get("usage")))
                return response_of(blocks, stop, usage, request, model, words(message.get("id")) or None, context)
        except LLMError as error:
            return error

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
            yield client.messages.batches

    def _load_sdk(self) -> Any:
        return load_sdk()

    async def _client(self, secret: SecretStr) -> Any:
        if self._sdk is None:
            # Never what the SDK finds in the environment; it adds the version of the API itself.
            return await self.made(self._connected, secret, (self.base_url() or SERVER).rstrip("/").removesuffix("/v1"))
        return self._sdk

    def _connected(self, secret: SecretStr, base_url: str) -> Any:
        import httpx2  # the SDK's own library

        http = self.http(httpx2, base_url, whole=as_events, unread=True)
        return load_sdk().AsyncAnthropic(
            api_key=secret.get_secret_value(), base_url=base_url, max_retries=0, timeout=http.timeout, http_client=http
        )

    def notices(self, request: LLMRequest) -> list[str]:
        until = retired(request.model)
        return [*super().notices(request), *([f"{request.model} is deprecated and ends on {until}."] if until else [])]

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
            "messages": messages_of(request.messages),
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
        if self.output_mode(request) is not None:
            shape = {"format": {"type": "json_schema", "schema": schema_for(request)}}
            body["output_config"] = {**body.get("output_config", {}), **shape}
        if request.tools:
            body["tools"] = [tool_of(t, request.model) for t in request.tools]
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

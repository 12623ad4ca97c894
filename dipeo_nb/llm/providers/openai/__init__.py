"""OpenAI, and everything that speaks its Responses API, through the official SDK."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.config import Settings, default_model
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.domain.lifecycle import ends_of
from dipeo_nb.domain.request_options import EFFORTS, merged
from dipeo_nb.errors import LLMError
from dipeo_nb.llm.core import sdk_client
from dipeo_nb.llm.core.errors import map_sdk_error, reading, said_by, said_in_stream, status_error, translate_errors
from dipeo_nb.llm.core.http import drained, events_of
from dipeo_nb.llm.core.sdk_client import SDKClient, as_sent, open_stream
from dipeo_nb.llm.core.types import BatchState, BatchStatus
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.providers.openai.answer import response_of
from dipeo_nb.llm.providers.openai.request import format_of, items_of, tool_of
from dipeo_nb.llm.streaming import TextPieces, batch_lines, incomplete_stream_error, named, words
from dipeo_nb.llm.structured import made
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import of_openai

SERVER = "https://api.openai.com/v1"


class UnifiedOpenAIClient(SDKClient):
    """`LLMClient` over the Responses API (`input`, `max_output_tokens`, `text.format`), one pool of connections each."""

    provider = "openai"
    added_paths: ClassVar[tuple[str, ...]] = ("/responses", "/chat/completions", "/chat")

    @classmethod
    def usual_model(cls, settings: Settings) -> str:
        return default_model()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        body = self._body(request)
        client = await self._client(secret)
        yield self.started(request)
        context = self.error_context(request, secret)
        final: Any = None
        request_id: str | None = None
        calls: dict[str, tuple[str, str]] = {}
        """Item id → (call id, name of the tool)."""
        items: dict[int, Any] = {}
        """Finished items of the output, by their place: some servers leave them out of the final response."""
        said, thoughts = TextPieces(), TextPieces()
        vendor = map_sdk_error(load_sdk(), context)
        with translate_errors(context, vendor):
            opened = await open_stream(client, "/responses", body, load_sdk().AsyncStream)
        with reading(context, vendor) as progress:
            request_id = opened.headers.get("x-request-id")
            async with contextlib.aclosing(events_of(opened)) as events:
                async for event in events:
                    if error := event.get("error"):
                        raise said_in_stream(context, *_error_of(error))
                    match event.get("type"):
                        case "response.output_text.delta":
                            yield StreamEvent("text", said.add(event.get("delta")))
                        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                            yield StreamEvent("reasoning", thoughts.add(event.get("delta")))
                        case "response.output_item.added" if (item := event["item"]).get("type") == "function_call":
                            progress.begun = True
                            call_id, name = (
                                call_id_of(item.get("call_id"), {c for c, _ in calls.values()}),
                                named(item.get("name")),
                            )
                            calls[item.get("id")] = call_id, name
                            yield StreamEvent("tool_call_start", name, data={"id": call_id})
                        case "response.function_call_arguments.delta" if event.get("item_id") in calls:
                            yield StreamEvent(
                                "tool_call_delta", words(event.get("delta")), data={"id": calls[event["item_id"]][0]}
                            )
                        case "response.function_call_arguments.done" if event.get("item_id") in calls:
                            call_id, name = calls[event["item_id"]]
                            yield StreamEvent(
                                "tool_call_end", name, data={"id": call_id, "arguments": words(event.get("arguments"))}
                            )
                        case "response.output_item.done":
                            items[event.get("output_index", len(items))] = event["item"]
                        case "response.created" | "response.in_progress":
                            request.note(of_openai(event["response"]))  # mostly that it works, without any count
                        case "response.completed" | "response.incomplete":
                            final = event["response"]
                            await drained(events)
                            break
                        case "response.failed":
                            answer = event["response"]
                            problem = answer.get("error") or {}
                            reason = str(problem.get("message") or "the answer failed, no reason given")
                            failure = said_in_stream(context, str(problem.get("code") or "server_error"), reason)
                            if answer.get("usage") is not None:
                                failure.usage = of_openai(answer)
                            raise failure
                        case "error":
                            raise said_in_stream(context, str(event.get("code") or ""), str(event.get("message")))
                        case kind if not isinstance(kind, str) and not progress.begun:
                            raise TypeError("an event of another API")
                        case _:
                            pass
                    progress.begun = True
            if final is None:
                raise incomplete_stream_error(request)
            if items and not final.get("output"):
                final["output"] = [items[at] for at in sorted(items)]
            ids = {item: call_id for item, (call_id, _) in calls.items()}
            response = await made(lambda: response_of(final, request, request_id, said.text, ids), request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises AuthError when the key is refused, other LLMErrors when it cannot be asked."""
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
            await client.models.list()

    async def announced_ends(self) -> dict[str, date]:
        """When models are shut down, as the provider's list of models says; errors as `check_key`."""
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
            listed = await client.models.list()
            return ends_of((m.id, getattr(m, "shutdown_date", None)) for m in listed.data or ())

    # The batch API: a file of requests, and a file of answers within a day.

    async def submit_batch(self, requests: Mapping[str, LLMRequest]) -> BatchStatus:
        """Hand requests (by an id of ours) to the provider's batch API."""
        lines: list[str] = []
        for name, request in requests.items():
            body = self._body(request)
            lines.append(json.dumps({"custom_id": name, "method": "POST", "url": "/v1/responses", "body": as_sent(body)}))
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

    async def batch_results(self, batch_id: str, requests: Mapping[str, LLMRequest]) -> dict[str, LLMResponse | LLMError]:
        """The answers, and the errors, that there are."""
        found: dict[str, LLMResponse | LLMError] = {}
        async with self._batches() as client:
            batch = await client.batches.retrieve(batch_id)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                for name, entry in batch_lines((await client.files.content(file)).content, requests):
                    found[name] = self._batch_result(entry, requests[name])
        return found

    def _batch_result(self, entry: Mapping[str, Any], request: LLMRequest) -> LLMResponse | LLMError:
        context = self.error_context(request)
        try:
            with reading(context):
                answer = entry.get("response") or {}
                body = answer.get("body") or {}
                status = answer.get("status_code") or 500
                if entry.get("error") or status >= 400:
                    code, said = said_by({"error": entry.get("error") or body.get("error")})
                    return status_error(context, status, said, code=code)
                return response_of(body, request, words(answer.get("request_id")) or None)
        except LLMError as error:
            return error

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        context = self.error_context(self.request("-"), secret)
        with translate_errors(context, map_sdk_error(load_sdk(), context)):
            yield client

    def _load_sdk(self) -> Any:
        return load_sdk()

    async def _client(self, secret: SecretStr) -> Any:
        if self._sdk is None:
            return await self.made(self._connected, secret, self.base_url() or SERVER)
        return self._sdk

    def _connected(self, secret: SecretStr, base_url: str) -> Any:
        import httpx2  # the SDK's own library

        http = self.http(httpx2, base_url, whole=_as_events, unread=True)
        return load_sdk().AsyncOpenAI(
            api_key=secret.get_secret_value(), base_url=base_url, max_retries=0, timeout=http.timeout, http_client=http
        )

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
            "input": [item for m in request.messages for item in items_of(m, system, request.model)],
            "store": False,  # nothing of a run is kept elsewhere
        }
        if request.max_tokens is not None:
            body["max_output_tokens"] = request.max_tokens
        if request.temperature is not None and self._takes_temperature(request):
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.reasoning is not None and (able := self.capabilities(request.model)).reasoning is not None:
            body["reasoning"] = {"effort": nearest_effort(request.reasoning, able.efforts or EFFORTS)}
        if (mode := self.output_mode(request)) is not None:
            body["text"] = {"format": {"type": "json_object"} if mode == "json_mode" else format_of(request)}
        if request.tools:
            body["tools"] = [tool_of(t, request.model) for t in request.tools]
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


def _error_of(error: Any) -> tuple[str, str]:
    """(code, words) of an error that comes as an event."""
    code, said = said_by(error)
    return code, said or "An error occurred during streaming"


def is_openai(base_url: str | None) -> bool:
    """Whether an address is OpenAI's own; None is."""
    if base_url is None:
        return True
    address = urlsplit(base_url)
    host = address.hostname or ""
    return address.scheme == "https" and (host == "openai.com" or host.endswith(".openai.com"))


def _as_events(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The events of an answer that came whole."""
    return [{"type": "response.completed", "response": body}] if body.get("object") == "response" else None


def load_sdk() -> Any:
    return sdk_client.load("openai", "openai")


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

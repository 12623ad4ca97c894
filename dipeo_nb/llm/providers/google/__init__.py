"""Google's Gemini models through the official SDK (`google-genai`) and the Gemini API; Vertex AI is not used."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from pydantic import SecretStr
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import LLMError, UnsupportedError, ValidationError
from dipeo_nb.llm.core.errors import reading, said_by, status_error, translate_errors
from dipeo_nb.llm.core.http import escaped
from dipeo_nb.llm.core.sdk_client import SDKClient
from dipeo_nb.llm.core.types import BatchStatus
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.providers.google.answer import IncomingAnswer
from dipeo_nb.llm.providers.google.batches import RPC_STATUS, created, readable, status_of, within
from dipeo_nb.llm.providers.google.request import (
    THOUGHT,
    contents_of,
    is_generation_3,
    json_schema,
    shows_thoughts,
    system_of,
    tools_of,
)
from dipeo_nb.llm.providers.google.sdk import HINT, chunks_of, is_broken, load_sdk, opened, vendor_errors
from dipeo_nb.llm.structured import made

SERVER = "https://generativelanguage.googleapis.com/"
API_VERSION = "v1beta"


class UnifiedGoogleClient(SDKClient):
    """`LLMClient` over `streamGenerateContent` of the Gemini API, one pool of connections each.

    Requests go through `httpx`, also where aiohttp is installed, so that time limits and closing work the same everywhere.
    """

    provider = "gemini"
    base_url_example = "http://localhost:8080"
    added_paths: ClassVar[tuple[str, ...]] = ("/openai", "/v1beta")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http: Any = None
        self._making = asyncio.Lock()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        secret = self.secret()
        client = await self._client(secret)
        call = self._call(request)
        yield self.started(request)
        answer = IncomingAnswer(request)
        with reading(context := self.error_context(request, secret), vendor_errors(context), hint=HINT) as progress:
            try:
                async with contextlib.aclosing(chunks_of(client, call)) as chunks:
                    async for chunk in chunks:
                        for event in answer.take(chunk):
                            yield event
                        progress.begun = True
            except Exception as error:
                if not answer.is_complete or not is_broken(error):
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
        with translate_errors(context := self.error_context(self.request("-"), secret), vendor_errors(context)):
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

    async def batch_results(self, batch_id: str, requests: Mapping[str, LLMRequest]) -> dict[str, LLMResponse | LLMError]:
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
        context = self.error_context(request)
        answer = IncomingAnswer(request)
        try:
            with reading(context):
                if (error := entry.get("error")) is not None:
                    code, said = said_by({"error": error})
                    return status_error(context, RPC_STATUS.get(int(code or 0), 500), said)
                # As the SDK does, which leaves out what it does not know yet.
                response = load_sdk().types.GenerateContentResponse._from_response(response=entry["response"], kwargs={})
                for _ in answer.take(response):
                    continue
                return answer.finished()
        except LLMError as error:
            return error

    async def _job(self, batch_id: str) -> Any:
        """What the server says of a batch, as `readable` reads it: the SDK reads all of its answers or, when one is malformed, none."""
        responses: list[Any] = []
        token = opened.set(responses)
        try:
            with reading(self.error_context(self.request("-"))):
                try:
                    async with self._batches() as batches:
                        await batches.get(name=batch_id)
                except Exception:
                    if not any(response.is_success for response in responses):
                        raise
                return readable(escaped(responses[-1].content, whole=True).decode("utf-8-sig"))
        finally:
            opened.reset(token)

    @contextlib.asynccontextmanager
    async def _batches(self) -> AsyncIterator[Any]:
        secret = self.secret()
        client = await self._client(secret)
        with translate_errors(context := self.error_context(self.request("-"), secret), vendor_errors(context)):
            yield client.aio.batches

    def _load_sdk(self) -> Any:
        return load_sdk()

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
            opened.get([]).append(response)

        http = self.http(
            httpx2,
            base_url,
            bare=True,
            whole=_as_events,
            whole_texts=True,
            event_hooks={"request": [limited], "response": [noted]},
        )
        # Values that the SDK does not know yet are legal; under `-W error` its warning of them would cost the answer.
        warnings.filterwarnings("ignore", ".* is not a valid ", UserWarning, r"google\.genai\._common")
        sdk = load_sdk().Client(
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
        types = load_sdk().types
        config: dict[str, Any] = {
            "system_instruction": system_of(request.messages),
            "max_output_tokens": request.max_tokens,
            "automatic_function_calling": {"disable": True},
            **tools_of(request),
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
        contents = list(contents_of(request, types))
        if not contents:  # instructions alone are not a conversation
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
        thinking: dict[str, Any] = {"include_thoughts": True} if shows_thoughts(request.model) else {}
        able, wanted = self.capabilities(request.model), request.reasoning
        if wanted is None or (way := able.reasoning) is None:
            return thinking
        if way == "level":
            level = nearest_effort(wanted, able.efforts)
            return {**thinking, "thinking_level": level.upper()}
        return {**thinking, "thinking_budget": THOUGHT[wanted]}

    def _structure(self, request: LLMRequest) -> dict[str, Any]:
        if (mode := self.output_mode(request)) is None:
            return {}
        if request.tools and not is_generation_3(request.model):
            raise UnsupportedError(
                f"{request.model} gives no native structure together with tools.",
                hint="Leave out output_mode (then the answer is a tool's arguments), or use a Gemini 3 model.",
                provider=self.provider,
                model=request.model,
            )
        schema = {} if mode == "json_mode" else {"response_json_schema": json_schema(request.response_format)}
        return {"response_mime_type": "application/json", **schema}


def _as_events(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The events of an answer that came whole."""
    return [body] if "candidates" in body or "promptFeedback" in body or "usageMetadata" in body else None

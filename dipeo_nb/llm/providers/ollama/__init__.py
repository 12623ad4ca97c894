"""Models of an Ollama server, through the official SDK. The server fetches a model that it does not have yet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar

import httpx

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import LLMConnectionError, LLMError, ValidationError
from dipeo_nb.llm.core.client import NO_KEY
from dipeo_nb.llm.core.errors import ErrorContext, reading, translate_errors
from dipeo_nb.llm.core.sdk_client import SDKClient
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.providers.ollama.answer import IncomingAnswer, events_of
from dipeo_nb.llm.providers.ollama.models import Fetch, full_name
from dipeo_nb.llm.providers.ollama.request import messages_of, tools_of, unsupported
from dipeo_nb.llm.providers.ollama.sdk import authorized, client_class, load_sdk, may_listen, refused
from dipeo_nb.llm.structured import made, schema_of


class UnifiedOllamaClient(SDKClient):
    """`LLMClient` over `/api/chat` of an Ollama server (`OLLAMA_HOST`); needs no key.

    A model that the server does not have is fetched first, once for all calls that wait for it, with `progress` events.
    What does not fit into the model's context is an error (`truncate: false`), not silently left out as Ollama would.
    `extra` of a request holds further fields of it: `{"options": {"num_ctx": 16384}}`, `{"keep_alive": "1h"}`.
    """

    provider = "ollama"
    base_url_example = "http://localhost:11434"
    added_paths: ClassVar[tuple[str, ...]] = ("/chat/completions", "/chat", "/api", "/v1")

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str:
        address = str(settings.peek(cls.base_url_setting) or cls.base_url_example)
        if settings.waits(cls.base_url_setting):  # an overview connects to no server that only the folder names
            return f"{settings.origin(cls.base_url_setting).file} names {address}, which was not called: dipeo-nb trust ."
        return "" if may_listen(address) else f"no server at {address}: start it with `ollama serve`"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.config.base_url is None:
            self.config = self.config.model_copy(update={"base_url": self.settings.ollama_host})
        self._present: set[str] = set()
        """Models that the server is known to have."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        body = self._body(request)
        client = await self._client()
        yield self.started(request)
        answer = IncomingAnswer(request)
        hint = f"Check that an Ollama server runs at {self.base_url()} (OLLAMA_HOST, without /v1)."
        with reading(context := self.error_context(request, self.config.api_key), self._vendor(context), hint=hint) as progress:
            name = full_name(request.model)
            known = name in self._present
            if not known:
                async for event in self._fetched(request.model, context):
                    yield event
            try:
                async for event in events_of(client, body, answer):
                    progress.begun = True
                    yield event
            except load_sdk().ResponseError as error:
                if error.status_code != 404 or not known:
                    raise
                self._present.discard(name)  # removed meanwhile
                async for event in self._fetched(request.model, context):
                    yield event
                async for event in events_of(client, body, answer):
                    progress.begun = True
                    yield event
            response = await made(answer.finished, request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises LLMErrors when it cannot be asked."""
        client = await self._client()
        with translate_errors(context := self.error_context(self.request("-"), self.config.api_key), self._vendor(context)):
            await client.list()

    def _load_sdk(self) -> Any:
        return load_sdk()

    async def _client(self) -> Any:
        if self._sdk is None:
            self.base_url()  # what is wrong with it, or with the key, is said before anything is asked
            self.given_key()
            return await self.made(self._connected)
        return self._sdk

    def _connected(self) -> Any:
        address = self.base_url()
        assert address is not None
        secret = self.given_key()
        key = secret.get_secret_value() if secret is not None and secret != NO_KEY else ""

        def connections(**options: Any) -> Any:
            ours = {name: value for name, value in options.items() if name not in ("timeout", "follow_redirects")}
            return self.http(httpx, address, lines=True, whole=lambda body: [body] if "message" in body else None, **ours)

        # Said in any case: else the SDK sends OLLAMA_API_KEY to whatever server this is.
        return client_class()(connections, address, auth=authorized(key))

    async def _fetched(self, model: str, context: ErrorContext) -> AsyncGenerator[StreamEvent]:
        """Progress until the server has the model."""
        address = self.base_url() or ""
        async with contextlib.aclosing(Fetch.joined(address, model, self._connected, context)) as events:
            async for event in events:
                yield event
        self._present.add(full_name(model))

    def _vendor(self, context: ErrorContext) -> Callable[[Any], LLMError | None]:
        """What `translate_errors` needs to know of the SDK."""
        sdk, address = load_sdk(), self.base_url()

        def vendor(error: Any) -> LLMError | None:
            if isinstance(error, sdk.ResponseError):
                return refused(error, context)
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)) or type(error) is ConnectionError:
                return LLMConnectionError(
                    f"No Ollama server answers at {address}.",
                    hint="Start it with: ollama serve (from https://ollama.com/download), set OLLAMA_HOST if it runs elsewhere, "
                    "or use the embedded model: --model local.",
                    **context.facts,
                )
            return None

        return vendor

    def _body(self, request: LLMRequest) -> dict[str, Any]:
        """The request on the wire.

        Raises:
            UnsupportedError: Ollama cannot do that.
            ValidationError: no model is named.
        """
        if not request.model:
            raise ValidationError(
                "No model is named for ollama.",
                hint="Write ollama:NAME, as in ollama:llama3.2; `ollama list` shows them.",
            )
        check_options(request)
        options = {
            "temperature": request.temperature,
            "num_predict": request.max_tokens,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
        }
        body: dict[str, Any] = {
            "model": request.model,
            "messages": list(messages_of(request.messages)),
            "stream": True,
            "truncate": False,
            "shift": False,
        }
        if options := {k: v for k, v in options.items() if v is not None}:
            body["options"] = options
        if request.reasoning is not None:
            thinks = request.reasoning != "none"
            body["think"] = nearest_effort(request.reasoning, ("low", "medium", "high")) if thinks else False
        if tools := tools_of(request):
            body["tools"] = tools
        if (mode := self.output_mode(request)) is not None:
            if tools:
                raise unsupported(
                    request,
                    "Ollama's grammar leaves a model no way to call tools.",
                    "Leave out output_mode (then structure is asked for in words), or do the tools in a node before.",
                )
            body["format"] = "json" if mode == "json_mode" else schema_of(request.response_format)
        return merged(body, merged(self.config.extra_params, request.extra))

"""Models of an Ollama server, through the official SDK. The server fetches a model that it does not have yet."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import httpx

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import (
    AuthError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    MissingDependencyError,
    ModelUnavailableError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.core.client import NO_KEY, UnifiedClient
from dipeo_nb.llm.core.errors import SAID_LIMIT, Caller, reading, said_by, said_in_stream, status_error, translated
from dipeo_nb.llm.core.http import drained
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.stream import broken_off, named, words
from dipeo_nb.llm.structured import made, parsed, schema_of
from dipeo_nb.llm.tools import call_id_of, call_of
from dipeo_nb.llm.usage import count

NO_OBJECT = "dipeo_no_object"
"""Where arguments of a call stand that are no object."""
LISTED = 12
"""Models of the server that an error names at most."""


class UnifiedOllamaClient(UnifiedClient):
    """`LLMClient` over `/api/chat` of an Ollama server (`OLLAMA_HOST`); needs no key.

    A model that the server does not have is fetched first, once for all calls that wait for it, with `progress` events.
    What does not fit into the model's context is an error (`truncate: false`), not silently left out as Ollama would.
    `extra` of a request holds further fields of it: `{"options": {"num_ctx": 16384}}`, `{"keep_alive": "1h"}`.
    """

    provider = "ollama"
    key_optional = True
    base_url_variable = "OLLAMA_HOST"
    base_url_setting = "ollama_host"
    base_url_example = "http://localhost:11434"
    added_paths = ("/chat/completions", "/chat", "/api", "/v1")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.config.base_url is None:
            self.config = self.config.model_copy(update={"base_url": self.settings.ollama_host})
        self._sdk: Any = None
        self._present: set[str] = set()
        """Models that the server is known to have."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        body = self._body(request)
        client = await self._client()
        yield StreamEvent("start")
        answer = _Answer(request)
        hint = f"Check that an Ollama server runs at {self.base_url()} (OLLAMA_HOST, without /v1)."
        with reading(caller := self.caller(request, self.config.api_key), self._vendor(caller), hint=hint) as progress:
            name = full_name(request.model)
            known = name in self._present
            if not known:
                async for event in self._fetched(request.model, caller):
                    yield event
            try:
                async for event in _events(client, body, answer):
                    progress.begun = True
                    yield event
            except _sdk().ResponseError as error:
                if error.status_code != 404 or not known:
                    raise
                self._present.discard(name)  # removed meanwhile
                async for event in self._fetched(request.model, caller):
                    yield event
                async for event in _events(client, body, answer):
                    progress.begun = True
                    yield event
            response = await made(answer.finished, request)
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def check_key(self) -> None:
        """Ask for the list of models. Raises LLMErrors when it cannot be asked."""
        client = await self._client()
        with translated(caller := self.caller(self.request("-"), self.config.api_key), self._vendor(caller)):
            await client.list()

    async def prepare(self) -> None:
        if self._sdk is None:
            await asyncio.to_thread(_sdk)  # its import takes up to a second

    async def cleanup(self) -> None:
        client, self._sdk = self._sdk, None
        if client is not None:
            await client.close()

    async def _client(self) -> Any:
        if self._sdk is None:
            self.base_url()  # what is wrong with it, or with the key, is said before anything is asked
            self.given_key()
            await asyncio.to_thread(_sdk)
            if self._sdk is None:  # another call may have made it meanwhile
                self._sdk = self._connected()
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
        return _client_class()(connections, address, auth=_authorized(key))

    async def _fetched(self, model: str, caller: Caller) -> AsyncGenerator[StreamEvent]:
        """Progress until the server has the model."""
        address = self.base_url() or ""
        async with contextlib.aclosing(_Fetch.joined(address, model, self._connected, caller)) as events:
            async for event in events:
                yield event
        self._present.add(full_name(model))

    def _vendor(self, caller: Caller) -> Callable[[Any], LLMError | None]:
        """What `translated` needs to know of the SDK."""
        sdk, address = _sdk(), self.base_url()

        def vendor(error: Any) -> LLMError | None:
            if isinstance(error, sdk.ResponseError):
                return _refused(error, caller)
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)) or type(error) is ConnectionError:
                return LLMConnectionError(
                    f"No Ollama server answers at {address}.",
                    hint="Start it with: ollama serve (from https://ollama.com/download), set OLLAMA_HOST if it runs elsewhere, "
                    "or use the embedded model: --model local.",
                    **caller.facts,
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
            "messages": list(_messages(request.messages)),
            "stream": True,
            "truncate": False,
            "shift": False,
        }
        if options := {k: v for k, v in options.items() if v is not None}:
            body["options"] = options
        if request.reasoning is not None:
            thinks = request.reasoning != "none"
            body["think"] = nearest_effort(request.reasoning, ("low", "medium", "high")) if thinks else False
        if tools := _tools(request):
            body["tools"] = tools
        if (rung := self.rung(request)) is not None:
            if tools:
                raise _unsupported(
                    request,
                    "Ollama's grammar leaves a model no way to call tools.",
                    "Leave out rung (then structure is asked for in words), or do the tools in a node before.",
                )
            body["format"] = "json" if rung == "json_mode" else schema_of(request.response_format)
        return merged(body, merged(self.config.extra_params, request.extra))


# The SDK.


def _sdk() -> Any:
    try:
        import ollama
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'ollama' is not installed.", hint="Run: pip install ollama"
        ) from error
    return ollama


@cache
def _client_class() -> Any:
    sdk = _sdk()

    class Client(sdk.AsyncClient):
        """The SDK's client, with a chat that sends tools as they are.

        `AsyncClient.chat` (0.6) keeps of a tool's parameters only their type, items, description and enum: nested objects,
        choices and limits are lost. It has no `truncate` either.
        """

        def __init__(self, connections: Callable[..., Any], address: str, **options: Any) -> None:
            super(sdk.AsyncClient, self).__init__(connections, address, **options)

        async def chat_as_it_is(self, body: Mapping[str, Any]) -> AsyncIterator[Any]:
            return self._lines(body)

        async def _lines(self, body: Mapping[str, Any]) -> AsyncGenerator[Any]:
            # As `AsyncClient._request` does, whose errors within a stream can only be texts.
            async with self._client.stream("POST", "/api/chat", json=body) as response:
                try:
                    response.raise_for_status()
                except httpx.HTTPStatusError as error:
                    await response.aread()
                    raise sdk.ResponseError(response.text, response.status_code) from error
                async for line in response.aiter_lines():
                    part = json.loads(line)
                    if error := part.get("error"):
                        raise sdk.ResponseError(json.dumps({"error": error}))
                    yield _line(**part)

    def _line(**line: Any) -> Any:
        """A line of an answer. Arguments of a call that are no object, which the SDK's class refuses, are put into one."""
        message = line.get("message")
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and not isinstance(function.get("arguments"), dict):
                function["arguments"] = {NO_OBJECT: function.get("arguments")}
        return sdk.ChatResponse(**line)

    return Client


def _authorized(key: str) -> Callable[[httpx.Request], httpx.Request]:
    def auth(request: httpx.Request) -> httpx.Request:
        request.headers.pop("authorization", None)
        if key:
            request.headers["authorization"] = f"Bearer {key}"
        return request

    return auth


# Models.


def full_name(model: str) -> str:
    """A model's name as Ollama compares it: with its tag, without the default registry, in lower case.

    The rules are those of Ollama's types/model/name.go.
    """
    name = model.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class _Fetch:
    """One look for a model, and its download if the server does not have it; shared by all calls that wait for it.

    It ends when nobody waits any more: Ollama keeps what came and goes on from there next time.
    """

    _running: ClassVar[dict[tuple[asyncio.AbstractEventLoop, str, str], _Fetch]] = {}

    def __init__(self, work: Callable[[_Fetch], Any]) -> None:
        self._news = asyncio.Event()
        self._text = ""
        self._done = self._total = 0
        self._waiting = 0
        self._task = asyncio.create_task(work(self))
        self._task.add_done_callback(self._ended)

    @classmethod
    async def joined(
        cls, address: str, model: str, connected: Callable[[], Any], caller: Caller
    ) -> AsyncGenerator[StreamEvent]:
        """Progress until the server has the model.

        Raises:
            ModelUnavailableError: the server cannot fetch it.
        """
        key = asyncio.get_running_loop(), address, full_name(model)
        fetch = cls._running.get(key)
        if fetch is None or fetch._task.done():
            fetch = cls._running[key] = cls(lambda fetch: fetch._work(connected, model, caller))
        fetch._waiting += 1
        try:
            while not fetch._task.done():
                news = fetch._news
                await news.wait()
                if fetch._text and not fetch._task.done():
                    yield StreamEvent(
                        "progress", fetch._text, data={"done": fetch._done, "total": fetch._total or None}
                    )
            fetch._task.result()
        finally:
            fetch._waiting -= 1
            if fetch._task.done() or not fetch._waiting:
                if cls._running.get(key) is fetch:
                    del cls._running[key]
                fetch._task.cancel()

    async def _work(self, connected: Callable[[], Any], model: str, caller: Caller) -> None:
        client = connected()  # its own, as the one of the first call may be closed before the download ends
        try:
            present = [str(m.model) for m in (await client.list()).models]
            if full_name(model) not in {full_name(name) for name in present}:
                await self._pull(client, model, present, caller)
        finally:
            await client.close()

    async def _pull(self, client: Any, model: str, present: Sequence[str], caller: Caller) -> None:
        layers: dict[str, tuple[int, int]] = {}
        status = ""
        try:
            async with contextlib.aclosing(await client.pull(model, stream=True)) as steps:
                async for step in steps:
                    status = step.status or ""
                    if step.digest and step.total:
                        layers[step.digest] = step.completed or 0, step.total
                    self._done, self._total = (sum(n) for n in zip((0, 0), *layers.values(), strict=True))
                    self._text = f"Fetching {model}" if step.digest else f"Fetching {model}: {status}"
                    self._tell()
        except _sdk().ResponseError as error:
            raise _unavailable(model, caller.harmless(str(error.error)), present, caller) from caller.cause(error)
        if status != "success":
            raise _unavailable(model, f"the download ended with '{status}'", present, caller)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen, even if the last who waited has just gone
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _unavailable(model: str, said: str, present: Sequence[str], caller: Caller) -> ModelUnavailableError:
    names = ", ".join(sorted(present)[:LISTED]) + (" …" if len(present) > LISTED else "")
    has = f"This server has {names}" if names else "This server has no models yet"
    return ModelUnavailableError(
        f"Ollama cannot fetch the model '{model}': {said.strip().rstrip('.')[:300]}.",
        hint=f"Check the name at https://ollama.com/library. {has}. Or use the embedded model: --model local.",
        **caller.facts,
    )


# The request.


def _messages(messages: Sequence[ChatMessage]) -> Iterator[dict[str, Any]]:
    names: dict[str, str] = {}
    for message in messages:
        if message.tool_result is not None:
            result = message.tool_result
            content = f"Error: {result.content}" if result.is_error else result.content
            name = message.name or names.get(result.call_id, "")
            yield {"role": "tool", "tool_name": name, "tool_call_id": result.call_id, "content": content}
        elif message.raw is not None and message.raw.get("provider") == UnifiedOllamaClient.provider:
            yield from message.raw["content"]
        else:
            item: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.tool_calls:
                item["tool_calls"] = [_called(call) for call in message.tool_calls]
            yield item
        names |= {call.id: call.name for call in message.tool_calls}


def _called(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}


def _tools(request: LLMRequest) -> list[dict[str, Any]]:
    for tool in request.tools:
        if tool.type != "function":
            raise _unsupported(
                request,
                f"Ollama has no built-in tool '{tool.type}'.",
                "It calls your own functions; openai, anthropic and gemini search the web.",
            )
    match request.tool_choice:
        case None | "auto":
            return [_function(tool) for tool in request.tools]
        case "none":
            return []
        case choice:
            raise _unsupported(
                request,
                f"Ollama cannot be made to call a tool (tool_choice '{choice}').",
                "Leave tool_choice out and say it in the prompt, or use openai, anthropic or gemini.",
            )


def _function(tool: ToolConfig) -> dict[str, Any]:
    parameters = dict(tool.parameters or {"type": "object", "properties": {}})
    function = {"name": tool.name, "description": tool.description or "", "parameters": parameters}
    return {"type": "function", "function": function}


def _unsupported(request: LLMRequest, message: str, hint: str) -> UnsupportedError:
    return UnsupportedError(message, hint=hint, provider="ollama", model=request.model)


# The answer.


_COMPLETE = (None, "", "stop", "length")


def _ended_otherwise(reason: str) -> str:
    if reason in ("load", "unload"):
        return f"Ollama gave no answer: it only {reason}ed the model (done_reason '{reason}'), as it does without a prompt."
    return f"Ollama ended its answer with '{reason}'."


class _Answer:
    """An answer while it comes."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._end: Any = None

    def take(self, chunk: Any) -> Iterator[StreamEvent]:
        message = chunk.message
        if thought := words(message.thinking):
            self._thoughts.append(thought)
            yield StreamEvent("reasoning", thought)
        if text := words(message.content):
            self._text.append(text)
            yield StreamEvent("text", text)
        for said in message.tool_calls or ():
            call = _call(said.function)
            self._calls.append(call)
            arguments = json.dumps(call.arguments, ensure_ascii=False) if call.unreadable is None else call.unreadable
            yield StreamEvent("tool_call_start", call.name, data={"id": call.id})
            yield StreamEvent("tool_call_delta", arguments, data={"id": call.id})
            yield StreamEvent("tool_call_end", call.name, data={"id": call.id, "arguments": arguments})
        if chunk.done:
            self._end = chunk

    def finished(self) -> LLMResponse:
        """The whole answer.

        Raises:
            LLMConnectionError: it was not complete.
            StructureError: it does not fit the requested structure.
        """
        request, end = self._request, self._end
        if end is None:
            raise broken_off(request)
        text, cut = "".join(self._text), end.done_reason == "length"
        usage = _usage(end)
        structured = rung = None
        if request.response_format is not None and not self._calls:
            structured = parsed(
                text, request.response_format, provider="ollama", model=request.model, usage=usage, cut=cut
            )
            rung = "json_mode" if request.rung == "json_mode" else "grammar"
        return LLMResponse(
            text,
            "ollama",
            end.model or request.model,
            usage,
            structured,
            tuple(self._calls),
            "length" if cut else "tool_calls" if self._calls else "stop",
            rung=rung,
            raw=self._raw(text) if self._calls and self._thoughts else None,
            warnings=() if end.done_reason in _COMPLETE else (_ended_otherwise(end.done_reason),),
        )

    def _raw(self, text: str) -> dict[str, Any]:
        """The turn with its thoughts, which some models want back while they call tools."""
        calls = [_called(call) for call in self._calls]
        turn = {"role": "assistant", "content": text, "thinking": "".join(self._thoughts), "tool_calls": calls}
        return {"provider": "ollama", "content": [turn]}


def _call(function: Any) -> ToolCall:
    """A call of a tool. Its id is ours: the SDK drops Ollama's, and older servers have none."""
    call_id, given = call_id_of(None, ()), dict(function.arguments)
    if given.keys() != {NO_OBJECT}:
        return ToolCall(call_id, named(function.name), given)
    text = given[NO_OBJECT]
    return call_of(call_id, named(function.name), text if isinstance(text, str) else "" if text is None else json.dumps(text))


async def _events(client: Any, body: Mapping[str, Any], answer: _Answer) -> AsyncGenerator[StreamEvent]:
    async with contextlib.aclosing(await client.chat_as_it_is(body)) as chunks:
        async for chunk in chunks:
            for event in answer.take(chunk):
                yield event
            if chunk.done:
                await drained(chunks)
                break


def _usage(end: Any) -> TokenUsage:
    """Ollama tells neither cached tokens nor thoughts apart; what it does not say is unknown."""
    counts = (
        "prompt_eval_count",
        "eval_count",
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
    )
    raw = {name: value for name in counts if (value := getattr(end, name)) is not None}
    return TokenUsage(count(end.prompt_eval_count), count(end.eval_count), raw=raw)


# Failures.


def _refused(error: Any, caller: Caller) -> LLMError:
    said = (said_by({"error": error.error})[1] or str(error.error))[:SAID_LIMIT]
    if error.status_code < 0:  # said within the stream: the request was taken, then the server failed
        return said_in_stream(caller, "server_error", said)
    low = said.lower()
    if error.status_code == 401:
        return AuthError(
            f"ollama: {caller.harmless(said)}.",
            hint="Models at ollama.com want an account: run `ollama signin`, or use a model of your own server.",
            status=401,
            **caller.facts,
        )
    if error.status_code == 400 and "context" in low and "exceed" in low:
        return ContextLengthError(
            f"ollama: {caller.harmless(said)}",
            hint="Remember less (at_most), or give models more context: OLLAMA_CONTEXT_LENGTH=16384 ollama serve, "
            "or extra={'options': {'num_ctx': 16384}} (in a diagram: `extra` of the person).",
            status=400,
            **caller.facts,
        )
    if error.status_code == 400 and "does not support" in low:
        return UnsupportedError(
            f"ollama: {caller.harmless(said)}",
            hint=f"Use a model that does; `ollama show {caller.model}` lists what this one can.",
            status=400,
            **caller.facts,
        )
    # The SDK's error has no headers; the one of the HTTP library that it was made of has.
    cause = error.__context__
    headers = cause.response.headers if isinstance(cause, httpx.HTTPStatusError) else {}
    return status_error(caller, error.status_code, said, headers=headers)

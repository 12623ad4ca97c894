"""Models that run inside this process: llama.cpp through `xllamacpp` (the extra `local`).

A model is loaded once per process and shared by all runs. Generation happens in worker threads; its pieces are handed to
the event loop, and cancelling the stream makes the next piece the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import (
    ContextLengthError,
    MissingDependencyError,
    ModelUnavailableError,
    ProviderError,
    UnsupportedError,
)
from dipeo_nb.llm import model_store
from dipeo_nb.llm.structured import parsed, schema_of

CONTEXT = 8192
"""Tokens of context in all; each of the parallel generations has its share."""
PARALLEL = 2
"""Generations at the same time."""
MAX_TOKENS = 256
"""Tokens of an answer when the request names no limit: small models do not know when to stop."""
MAX_TOKENS_STRUCTURED = 1024
"""The same for structured answers, which end by their grammar."""
SAMPLING = {"top_p": 0.9, "repeat_penalty": 1.15, "cache_prompt": True}
"""Small models repeat themselves without a penalty."""


class UnifiedLocalClient:
    """`LLMClient` over GGUF models in this process.

    Args:
        settings: `local_model` names the model of requests that name none; `cache_dir` is where models are kept.
    """

    provider = "local"

    def __init__(self, settings: Settings, keys: APIKeyPort | None = None) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(PARALLEL)

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        if request.tools:
            raise UnsupportedError(
                "The embedded model takes no tools.",
                hint="Remove the node's tools, or use another service for this person.",
                provider=self.provider,
                model=request.model,
            )
        yield StreamEvent("start")
        name = request.model or self._settings.local_model
        model: _Model | None = None
        async for step in self._ready(name):
            if isinstance(step, StreamEvent):
                yield step
            else:
                model = step
        assert model is not None  # `_ready` ends with the model or raises
        async with self._slots, contextlib.aclosing(model.generate(_payload(request))) as chunks:
            text: list[str] = []
            usage, finish = TokenUsage(), None
            async for chunk in chunks:
                if "usage" in chunk:
                    usage = _usage(chunk["usage"])
                for choice in chunk.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
                    if piece := (choice.get("delta") or {}).get("content"):
                        text.append(piece)
                        yield StreamEvent("text", piece)
        yield StreamEvent("usage", data=usage.to_dict())
        yield StreamEvent("end", response=_response(request, name, "".join(text), usage, finish))

    async def async_chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once."""
        response: LLMResponse | None = None
        async for event in self.stream(request):
            response = event.response or response
        assert response is not None  # a stream that ends without one raises
        return response

    async def cleanup(self) -> None:
        """Nothing of this client's own: the loaded models belong to the process."""

    async def _ready(self, name: str) -> AsyncIterator[StreamEvent | _Model]:
        """Progress while the model is fetched and loaded, then the model."""
        loaded = _models.get(name)
        if loaded is not None:
            yield loaded
            return
        steps: asyncio.Queue[StreamEvent] = asyncio.Queue()

        def report(text: str, done: int | None, total: int | None) -> None:
            steps.put_nowait(StreamEvent("progress", text, data={"done": done, "total": total}))

        work = asyncio.create_task(_load(self._settings, name, report))
        try:
            while not work.done() or not steps.empty():
                waiting = asyncio.create_task(steps.get())
                await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield waiting.result()
                else:
                    waiting.cancel()
            yield work.result()
        finally:
            work.cancel()


def _payload(request: LLMRequest) -> dict[str, Any]:
    """The request in the words of llama.cpp's chat completions."""
    structured = request.response_format is not None
    payload: dict[str, Any] = {
        "messages": [_message(m) for m in request.messages],
        "max_tokens": request.max_tokens or (MAX_TOKENS_STRUCTURED if structured else MAX_TOKENS),
        "stream": True,
        "stream_options": {"include_usage": True},
        **SAMPLING,
    }
    if request.temperature is not None:
        payload["temperature"] = request.temperature
    if structured:
        schema = {"name": "answer", "schema": schema_of(request.response_format)}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    return payload


def _message(message: ChatMessage) -> dict[str, str]:
    return {"role": "user" if message.role == "tool" else message.role, "content": message.content}


def _usage(raw: Mapping[str, Any]) -> TokenUsage:
    cached = (raw.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return TokenUsage(raw["prompt_tokens"] - cached, raw["completion_tokens"], cached, raw=dict(raw))


def _response(request: LLMRequest, name: str, text: str, usage: TokenUsage, finish: str | None) -> LLMResponse:
    structured = None
    if request.response_format is not None:
        if finish == "length":
            raise ProviderError(
                f"The structured answer of {name} was cut off at its limit of tokens.",
                hint="Raise max_tokens, or ask for fewer fields.",
                provider="local",
                model=name,
            )
        structured = parsed(text, request.response_format, provider="local", model=name)
    rung = "grammar" if request.response_format is not None else None
    return LLMResponse(text.strip(), "local", name, usage, structured, finish_reason=finish, cost_usd=0.0, rung=rung)


class _Model:
    """One loaded model."""

    def __init__(self, path: Path) -> None:
        xllamacpp = _library()
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = PARALLEL
        # Half of the cores: llama.cpp spins while it waits, so a thread too many makes it ten times slower (measured here,
        # on two cores with a browser beside it: 79 tokens/s with one thread, 4 to 8 with two).
        parameters.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
        parameters.verbosity = -1  # llama.cpp's own log does not belong into notebooks
        parameters.warmup = False
        # The library also listens on the loopback; nobody but us may use that.
        parameters.api_keys = [secrets.token_hex(16)]
        parameters.ui = False
        try:
            self._server = xllamacpp.Server(parameters)
        except Exception as error:
            raise ModelUnavailableError(
                f"The model {path.name} cannot be loaded: {error}.",
                hint="Choose another file (--model local:/path/to/model.gguf), or free some memory.",
                provider="local",
                model=path.name,
            ) from error

    async def generate(self, payload: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of one answer; closing the iterator ends the generation with the next piece.

        Raises:
            ContextLengthError: the messages do not fit.
            ProviderError: llama.cpp refused for another reason.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        stop = threading.Event()

        def hand_over(chunk: dict[str, Any] | None) -> None:
            # The loop is gone only when the process ends; then nobody waits for chunks.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        def on_chunk(chunk: dict[str, Any]) -> bool:
            hand_over(chunk)
            return stop.is_set()

        def work() -> None:
            try:
                result = self._server.handle_chat_completions(payload, on_chunk)
                if result is not None:
                    hand_over(result)
            except Exception as error:  # noqa: BLE001 - carried over to the caller
                hand_over({"error": {"message": str(error)}})
            finally:
                hand_over(None)

        threading.Thread(target=work, name="dipeo-local-model", daemon=True).start()
        try:
            while (chunk := await chunks.get()) is not None:
                if "error" in chunk:
                    raise _refused(chunk["error"])
                yield chunk
        finally:
            stop.set()


def _refused(error: Mapping[str, Any]) -> ProviderError | ContextLengthError:
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthError(
            f"The messages have {error.get('n_prompt_tokens', 'too many')} tokens; the embedded model takes {error.get('n_ctx', CONTEXT // PARALLEL)}.",
            hint="Remember less (memorize_to: GOLDFISH, at_most), shorten the inputs, or use a larger model.",
            provider="local",
        )
    return ProviderError(
        f"The embedded model refused: {error.get('message', 'no reason given')}.",
        hint="Check text_format and the prompt.",
        provider="local",
        status=error.get("code"),
    )


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingDependencyError.for_extra("xllamacpp", "local") from error
    return xllamacpp


_models: dict[str, _Model] = {}
_loading: dict[str, asyncio.Task[_Model]] = {}


async def _load(settings: Settings, name: str, report: model_store.Progress) -> _Model:
    """Fetch and load a model once, however many ask at the same time.

    The work is shielded: when one of several askers gives up, the others still get their model.
    """
    _library()  # before 93 MB are fetched for nothing
    task = _loading.get(name)
    if task is None or task.done():
        task = _loading[name] = asyncio.create_task(_load_now(settings, name, report))
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return await asyncio.shield(task)


async def _load_now(settings: Settings, name: str, report: model_store.Progress) -> _Model:
    path = await model_store.ensure(settings, name, on_progress=report)
    report(f"Loading model {name}", None, None)
    model = await asyncio.to_thread(_Model, path)
    _models[name] = model
    return model

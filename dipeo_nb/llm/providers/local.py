"""Models that run inside this process: llama.cpp through `xllamacpp` (the extra `local`).

A model is loaded once per process and file, and shared by all runs. Generation happens in worker threads; its pieces are
handed to the event loop, and closing the stream makes the next piece (or the next part of a long prompt) the last one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common import loop as library_loop
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.request_options import merged
from dipeo_nb.errors import (
    ContextLengthError,
    LLMError,
    MissingDependencyError,
    ModelUnavailableError,
    ProviderError,
    UnsupportedError,
)
from dipeo_nb.llm import model_store
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.options import check_options
from dipeo_nb.llm.streaming import incomplete_stream_error
from dipeo_nb.llm.structured import made, parsed, schema_of
from dipeo_nb.llm.usage import of_tokens, record

CONTEXT = 8192
"""Tokens of context in all; each of the parallel generations has its share."""
PARALLEL = 2
"""Generations at the same time."""
BATCH = 256
"""Tokens of a prompt read at once: between two batches a generation can be stopped."""
MAX_TOKENS = 256
"""Tokens of an answer when the request names no limit: small models do not know when to stop."""
MAX_TOKENS_STRUCTURED = 1024
"""The same for structured answers, which end by their grammar."""
SAMPLING = {"top_p": 0.9, "repeat_penalty": 1.15}
"""Small models repeat themselves without a penalty."""
TURN_S = 5.0
"""Seconds between two notices of a request that waits for its turn."""
END_S = 10.0
"""Seconds that the end of the process waits for the last chunk of a generation."""


class UnifiedLocalClient(UnifiedClient):
    """`LLMClient` over GGUF models in this process.

    Structured answers are constrained by a grammar made of the schema. Costs nothing; no key, no network after the model
    was fetched.

    `settings.local_model` names the model of requests that name none; `settings.cache_dir` is where models are kept.
    """

    provider = "local"

    @classmethod
    def usual_model(cls, settings: Settings) -> str:
        return str(settings.peek("local_model"))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = asyncio.Semaphore(PARALLEL)

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        if request.tools:
            raise UnsupportedError(
                "The embedded model takes no tools.",
                hint="Remove the node's tools, or use another service for this person.",
                provider=self.provider,
                model=request.model,
            )
        payload = _payload(request, merged(self.config.extra_params, request.extra))
        yield self.started(request)
        name = request.model or self.settings.local_model
        steps: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        loading = asyncio.create_task(_load(self.settings, name, steps))
        loading.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (step := await steps.get()) is not None:
                yield step
            model = loading.result()
        finally:
            loading.cancel()
        while not await self._took_turn():
            yield StreamEvent("progress", "Waiting for the embedded model's other answers")
        text: list[str] = []
        usage, finish = TokenUsage(), None
        try:
            async with contextlib.aclosing(model.generate(payload)) as chunks:
                async for chunk in chunks:
                    if "usage" in chunk:
                        usage = of_tokens(record(chunk["usage"]))
                    for choice in chunk.get("choices", ()):
                        finish = choice.get("finish_reason") or finish
                        delta = choice.get("delta") or {}
                        if piece := delta.get("reasoning_content"):
                            yield StreamEvent("reasoning", piece)
                        if piece := delta.get("content"):
                            text.append(piece)
                            yield StreamEvent("text", piece)
        finally:
            self._turns.release()
        if finish is None:
            raise incomplete_stream_error(request)
        response = await made(lambda: _response(request, name, "".join(text), usage, finish), request)
        yield StreamEvent("usage", data=usage.to_dict())
        yield StreamEvent("end", response=response)

    async def cleanup(self) -> None:
        """Nothing of this client's own: the loaded models belong to the process."""

    async def _took_turn(self) -> bool:
        """Whether one of the parallel turns came free within `TURN_S`; the caller gives it back."""
        try:
            async with asyncio.timeout(TURN_S):
                return await self._turns.acquire()
        except TimeoutError:
            return False


# The request and the answer in llama.cpp's words.


def _payload(request: LLMRequest, extra: Mapping[str, Any]) -> dict[str, Any]:
    check_options(request)
    structured = request.response_format is not None
    payload: dict[str, Any] = {
        "messages": _messages(request.messages),
        "max_tokens": request.max_tokens or (MAX_TOKENS_STRUCTURED if structured else MAX_TOKENS),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # a chance to stop within a long prompt
        **SAMPLING,
    }
    if request.temperature is not None:
        payload["temperature"] = request.temperature
    payload |= {name: value for name, value in (("top_p", request.top_p), ("seed", request.seed)) if value is not None}
    if request.stop:
        payload["stop"] = list(request.stop)
    if structured:
        schema = {"name": "answer", "schema": schema_of(request.response_format)}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    return merged(payload, extra)


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Roles that alternate, as the chat templates of many models demand: what one role says in a row is one message."""
    result: list[dict[str, str]] = []
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        if result and result[-1]["role"] == role:
            result[-1]["content"] += f"\n\n{message.content}"
        else:
            result.append({"role": role, "content": message.content})
    return result


def _response(request: LLMRequest, name: str, text: str, usage: TokenUsage, finish: str) -> LLMResponse:
    structured = mode = None
    if request.response_format is not None:
        structured = parsed(text, request.response_format, provider="local", model=name, usage=usage, cut=finish == "length")
        mode = "grammar"
    return LLMResponse(text.strip(), "local", name, usage, structured, finish_reason=finish, cost_usd=0.0, output_mode=mode)


def _refused(error: Mapping[str, Any]) -> LLMError:
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthError(
            f"The messages have {error.get('n_prompt_tokens', 'too many')} tokens; "
            f"the embedded model takes {error.get('n_ctx', CONTEXT // PARALLEL)}.",
            hint="Remember less (memorize_to: GOLDFISH, at_most), shorten the inputs, or use a larger model.",
            provider="local",
        )
    return ProviderError(
        f"The embedded model refused: {error.get('message', 'no reason given')}.",
        hint="Check text_format and the prompt.",
        provider="local",
    )


# Models.


_models: dict[Path, _Model] = {}
_loading = threading.Lock()


async def _load(settings: Settings, name: str, steps: asyncio.Queue[StreamEvent | None]) -> _Model:
    """The model of that name or path, fetched and loaded when it is not yet."""

    def report(text: str, done: int | None, total: int | None) -> None:
        steps.put_nowait(StreamEvent("progress", text, data={"done": done, "total": total}))

    _library()  # before 93 MB are fetched for nothing
    path = await model_store.ensure(settings, name, on_progress=report)
    if path in _models:
        return _models[path]
    report(f"Loading model {name}", None, None)
    return await asyncio.to_thread(_loaded, path)


def _loaded(path: Path) -> _Model:
    with _loading:
        if path not in _models:
            _models[path] = _Model(path)
        return _models[path]


class _Model:
    """One loaded model, shared by everyone in this process."""

    def __init__(self, path: Path) -> None:
        xllamacpp = _library()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = PARALLEL
        parameters.n_batch = BATCH
        # Measured with the default model on two shared cores: one thread 95–135 tokens/s, two 65–80, as they wait for each
        # other at every step and for whatever else wants a core. Several generations at a time run on the threads of batches;
        # with both cores wanted by others, five of them made 1.3 tokens/s on two threads and 13 on one.
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = max(1, cores // 2)
        parameters.verbosity = -1  # llama.cpp's own log does not belong into notebooks
        parameters.warmup = False
        # The library also listens on the loopback; nobody but us may use that.
        parameters.api_keys = [secrets.token_hex(16)]
        parameters.ui = False
        try:
            self._server = xllamacpp.Server(parameters)
        except Exception as error:
            raise ModelUnavailableError(
                f"The model {path.name} cannot be loaded: {str(error).rstrip('.')}.",
                hint="Choose another file (--model local:/path/to/model.gguf), or free some memory.",
                provider="local",
                model=path.name,
            ) from error
        # xllamacpp 2026.10 crashes or hangs when a model is freed, or the process ends, while its threads are still starting.
        # One token says that they run; 20 ms.
        self._server.handle_completions({"prompt": " ", "max_tokens": 1})

    def keep(self) -> None:
        """Never free it: freeing waits for its threads, which a forked child does not have."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))

    async def generate(self, payload: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of one answer; closing the iterator ends the generation with the next chunk.

        Raises:
            ContextLengthError: the messages do not fit.
            ProviderError: llama.cpp refused for another reason.
        """
        generation = _Generation(self._server, payload)
        generation.start()
        try:
            while True:
                await generation.news.wait()
                generation.news.clear()
                while generation.chunks:
                    chunk = generation.chunks.popleft()
                    if chunk is None:
                        return
                    if "error" in chunk:
                        raise _refused(chunk["error"])
                    yield chunk
        finally:
            generation.stopped.set()


class _Generation(threading.Thread):
    """One answer in the making, in a thread of its own; wakes the event loop once for all chunks that wait."""

    def __init__(self, server: Any, payload: dict[str, Any]) -> None:
        super().__init__(name="dipeo-local-model", daemon=True)
        self.chunks: deque[dict[str, Any] | None] = deque()
        """None is the end."""
        self.news = asyncio.Event()
        self.stopped = threading.Event()
        self._server = server
        self._payload = payload
        self._loop = asyncio.get_running_loop()
        self._told = False
        _generations.add(self)

    def run(self) -> None:
        try:
            self._server.handle_chat_completions(self._payload, self._take)
        except Exception as error:  # noqa: BLE001 - carried over to the caller
            self._hand_over({"error": {"message": str(error)}})
        finally:
            self._hand_over(None)
            _generations.discard(self)

    def _take(self, chunk: dict[str, Any]) -> bool:
        """llama.cpp's callback; True ends the generation."""
        self._hand_over(chunk)
        return self.stopped.is_set()

    def _hand_over(self, chunk: dict[str, Any] | None) -> None:
        self.chunks.append(chunk)
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._told = False
        self.news.set()


_generations: set[_Generation] = set()


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingDependencyError.for_extra("xllamacpp", extra="local") from error
    return xllamacpp


@atexit.register
def _end() -> None:
    """Nothing of llama.cpp may work when the interpreter ends, or the process crashes (seen: exit code 139)."""
    library_loop.shut_down()  # what runs there closes its streams
    running = list(_generations)
    for generation in running:
        generation.stopped.set()
    for generation in running:
        generation.join(END_S)
    _models.clear()


def _forget() -> None:
    """After a fork: the child has none of llama.cpp's threads, so it loads the model again."""
    global _loading
    _loading = threading.Lock()
    for model in _models.values():
        model.keep()
    _models.clear()
    _generations.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

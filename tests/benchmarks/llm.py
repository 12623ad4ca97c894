"""Tokens and calls: ours against the providers' SDKs, and against other libraries over OpenAI's.

A server on the loopback, in a process of its own, sends 20,000 deltas at once, or one word, in the API that it is asked by. What is
measured is the CPU time of this process.

Usage: python -m tests.benchmarks.llm [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from dipeo_nb.testing import ScriptedClient
from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, main
from tests.support.wire_openai import delta, final, message

COUNT = 20_000
WORD = "word "
MODEL, SMALL = "gpt-4o", "gpt-4o-mini"
"""What is asked for a long answer, and for a word."""
PROMPT = "Go on."
CALLS = 200
AT_ONCE = 20
KEY = "x"
ASKED: Any = [{"role": "user", "content": PROMPT}]

Count = Callable[[str], Awaitable[int]]
"""URL of the server → how many deltas came."""
Stream = Callable[[str], AsyncIterator[str]]
"""Model → the pieces of its answer."""
Ask = Callable[[str], Awaitable[str]]
"""Model → its answer."""
Client = Callable[[AsyncExitStack, str], Awaitable[tuple[Stream, Ask]]]
"""URL of the server → how to ask it."""


# The server.


def _sse(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()


def _anthropic() -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 1}
    start = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
        "usage": usage,
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return _sse(
        [
            {"type": "message_start", "message": {**start, "stop_reason": None, "stop_sequence": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *[delta] * COUNT,
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": COUNT}},
            {"type": "message_stop"},
        ]
    )


def _google() -> bytes:
    def chunk(**more: Any) -> str:
        candidate = {"content": {"role": "model", "parts": [{"text": WORD}]}, "index": 0, **more}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": COUNT, "totalTokenCount": COUNT + 10}
        return f"data: {json.dumps({'candidates': [candidate], 'usageMetadata': usage, 'modelVersion': 'gemini-2.5-flash'})}\r\n\r\n"

    return (chunk() * (COUNT - 1) + chunk(finishReason="STOP")).encode()


def _ollama() -> bytes:
    piece = {
        "model": "llama3.2",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": WORD},
    }
    end = {**piece, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    lines = [{**piece, "done": False}] * COUNT + [{**end, "prompt_eval_count": 10, "eval_count": COUNT}]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _chat(words: list[str], stream: bool) -> tuple[str, bytes]:
    """An answer of OpenAI's Chat Completions API."""
    head = {"id": "chat_1", "created": 1, "model": MODEL}
    usage = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": len(words) + 10}
    if not stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": "stop"}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return "application/json", json.dumps(whole).encode()

    def chunk(delta: dict[str, str], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice], **more})}\n\n"

    pieces = [chunk({"role": "assistant", "content": word}) for word in words]
    return "text/event-stream", "".join([*pieces, chunk({}, "stop", usage=usage), "data: [DONE]\n\n"]).encode()


@cache
def _body(path: str, model: str, stream: bool) -> tuple[str, bytes]:
    """What is answered: `SMALL` says a word, every other model `COUNT` of them."""
    words = ["word ", "text "] * (COUNT // 2) if model != SMALL else [WORD]  # a peer takes repeated pieces for a fault
    if "chat/completions" in path:
        return _chat(words, stream)
    if "responses" in path and not stream:
        return "application/json", json.dumps(final(message("".join(words)))["response"]).encode()
    if "responses" in path:
        return "text/event-stream", _sse([*map(delta, words), final(message("".join(words)))])
    if "messages" in path:
        return "text/event-stream", _anthropic()
    if "streamGenerateContent" in path:
        return "text/event-stream", _google()
    if "tags" in path:
        model_of_ollama = {
            "model": "llama3.2:latest",
            "name": "llama3.2:latest",
            "size": 1,
            "digest": "x",
            "modified_at": "2026-01-01T00:00:00Z",
        }
        return "application/json", json.dumps({"models": [model_of_ollama]}).encode()
    return "application/x-ndjson", _ollama()


async def serve() -> None:
    """Answers whatever is asked, for as long as stdin is open; prints its port first."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                size = 0
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    size = int(value) if name.lower() == "content-length" else size
                asked = json.loads(await reader.readexactly(size) or b"{}")
                kind, body = _body(path, asked.get("model", ""), bool(asked.get("stream")))
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the reader has seen enough, or nobody asks any more
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def server() -> Iterator[str]:
    """The URL of the server, which runs in a process of its own meanwhile."""
    command = [sys.executable, "-m", "tests.benchmarks.llm", "serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


# The SDKs, used as leanly as is correct: text collected, usage kept.


async def sdk_openai(url: str) -> int:
    import openai

    async with openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0) as client:
        count = 0
        async with await client.responses.create(model="gpt-4o", input=PROMPT, stream=True) as events:
            async for event in events:
                if event.type == "response.output_text.delta":
                    count += len(event.delta) > 0
        return count


async def sdk_anthropic(url: str) -> int:
    import anthropic

    async with anthropic.AsyncAnthropic(api_key="x", base_url=url, max_retries=0) as client:
        count = 0
        said: Any = [{"role": "user", "content": PROMPT}]
        stream = await client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=said, stream=True)
        async with stream as events:
            async for event in events:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    count += len(event.delta.text) > 0
        return count


async def sdk_google(url: str) -> int:
    from google import genai

    options = genai.types.HttpOptions(base_url=url, api_version="v1beta")
    client = genai.Client(api_key="x", vertexai=False, http_options=options)
    count = 0
    async for chunk in await client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents=PROMPT):
        for candidate in chunk.candidates or ():
            for part in (candidate.content.parts if candidate.content else None) or ():
                count += len(part.text or "") > 0
    await client.aio.aclose()
    return count


async def sdk_ollama(url: str) -> int:
    import ollama

    client = ollama.AsyncClient(host=url)
    count = 0
    said = [{"role": "user", "content": PROMPT}]
    async for chunk in await client.chat(model="llama3.2", messages=said, stream=True):
        count += len(chunk.message.content or "") > 0
    return count


# Ours, over each of them.


def _request(service: str, model: str, url: str) -> LLMRequest:
    return LLMRequest(service, model, (ChatMessage("user", PROMPT),), base_url=url, timeout=120)


def our_client(service: str, model: str, path: str = "") -> Count:
    async def count(url: str) -> int:
        config = AdapterConfig(provider_type=service, base_url=url + path, api_key=SecretStr(KEY))
        client = providers.create(config, get_settings())
        seen = 0
        async for event in client.stream(_request(service, model, url + path)):
            seen += event.kind == "text"
        await client.cleanup()
        return seen

    return count


def our_service(service: str, model: str, path: str = "") -> Count:
    async def count(url: str) -> int:
        served = LLMService(get_settings(), InMemoryAPIKeyService({service: KEY}))
        seen = 0
        async for event in served.stream(_request(service, model, url + path)):
            seen += event.kind == "text"
        await served.cleanup()
        return seen

    return count


def counted(work: Count, url: str) -> Make:
    async def make(stack: AsyncExitStack, n: int) -> Run:
        async def run() -> None:
            seen = await work(url)
            assert seen == n, f"{seen} deltas instead of {n}"

        return run

    return make


# Other libraries, over OpenAI's API.


async def ours(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
    service = LLMService(get_settings(), InMemoryAPIKeyService({"openai": KEY}))
    stack.push_async_callback(service.cleanup)

    def request(model: str) -> LLMRequest:
        return LLMRequest("openai", model, (ChatMessage("user", PROMPT),), base_url=f"{url}/v1", timeout=120)

    async def stream(model: str) -> AsyncIterator[str]:
        async for event in service.stream(request(model)):
            if event.kind == "text":
                yield event.text

    async def ask(model: str) -> str:
        return (await service.complete(request(model))).text

    return stream, ask


async def _openai(stack: AsyncExitStack, url: str) -> Any:
    import openai

    return await stack.enter_async_context(openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0))


async def sdk_responses(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
    client = await _openai(stack, url)

    async def stream(model: str) -> AsyncIterator[str]:
        async with await client.responses.create(model=model, input=ASKED, stream=True) as events:
            async for event in events:
                if event.type == "response.output_text.delta":
                    yield event.delta

    async def ask(model: str) -> str:
        return (await client.responses.create(model=model, input=ASKED)).output_text

    return stream, ask


async def sdk_chat(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
    client = await _openai(stack, url)

    async def stream(model: str) -> AsyncIterator[str]:
        async with await client.chat.completions.create(model=model, messages=ASKED, stream=True) as chunks:
            async for chunk in chunks:
                if text := chunk.choices[0].delta.content:
                    yield text

    async def ask(model: str) -> str:
        return (await client.chat.completions.create(model=model, messages=ASKED)).choices[0].message.content

    return stream, ask


def _pydantic_ai(kind: str) -> Client:
    async def make(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
        from pydantic_ai import direct
        from pydantic_ai.messages import ModelRequest, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
        from pydantic_ai.models import openai as models
        from pydantic_ai.providers.openai import OpenAIProvider

        provider = OpenAIProvider(openai_client=await _openai(stack, url))
        known: Any = {name: getattr(models, kind)(name, provider=provider) for name in (MODEL, SMALL)}
        messages = [ModelRequest.user_text_prompt(PROMPT)]

        async def stream(model: str) -> AsyncIterator[str]:
            async with direct.model_request_stream(known[model], messages) as events:
                async for event in events:
                    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                        yield event.delta.content_delta
                    elif isinstance(event, PartStartEvent) and isinstance(event.part, TextPart) and event.part.content:
                        yield event.part.content

        async def ask(model: str) -> str:
            part = (await direct.model_request(known[model], messages)).parts[0]
            assert isinstance(part, TextPart)
            return part.content

        return stream, ask

    return make


async def litellm_chat(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks a server
    import litellm

    options: Any = {"messages": ASKED, "api_key": KEY, "api_base": f"{url}/v1", "max_retries": 0}

    async def stream(model: str) -> AsyncIterator[str]:
        chunks: Any = await litellm.acompletion(f"openai/{model}", stream=True, **options)
        async for chunk in chunks:
            if text := chunk.choices[0].delta.content:
                yield text

    async def ask(model: str) -> str:
        answer: Any = await litellm.acompletion(f"openai/{model}", **options)
        return answer.choices[0].message.content

    return stream, ask


async def any_llm_chat(stack: AsyncExitStack, url: str) -> tuple[Stream, Ask]:
    from any_llm import AnyLLM

    client: Any = AnyLLM.create("openai", api_key=KEY, api_base=f"{url}/v1")

    async def stream(model: str) -> AsyncIterator[str]:
        async for chunk in await client.acompletion(model=model, messages=ASKED, stream=True):
            if text := chunk.choices[0].delta.content:
                yield text

    async def ask(model: str) -> str:
        return (await client.acompletion(model=model, messages=ASKED)).choices[0].message.content

    return stream, ask


CLIENTS: dict[str, Client] = {
    OURS: ours,
    "openai, Responses": sdk_responses,
    "openai, Chat Completions": sdk_chat,
    "pydantic-ai, Responses": _pydantic_ai("OpenAIResponsesModel"),
    "pydantic-ai, Chat Completions": _pydantic_ai("OpenAIChatModel"),
    "litellm, Chat Completions": litellm_chat,
    "any-llm, Chat Completions": any_llm_chat,
}


def tokens(client: Client, url: str) -> Make:
    async def make(stack: AsyncExitStack, n: int) -> Run:
        stream, _ = await client(stack, url)

        async def run() -> None:
            count = 0
            async for text in stream(MODEL):
                count += len(text) == len(WORD)
            assert count == n, f"{count} pieces instead of {n}"

        return run

    return make


def calls(client: Client, url: str, at_once: int) -> Make:
    async def make(stack: AsyncExitStack, n: int) -> Run:
        _, ask = await client(stack, url)

        async def some() -> None:
            for _ in range(n // at_once):
                assert await ask(SMALL) == WORD

        async def run() -> None:
            await asyncio.gather(*(some() for _ in range(at_once)))

        return run

    return make


# The whole way.


class Fast(ScriptedClient):
    """A model that speaks as fast as it is listened to, and lets others have their turn every hundred words."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        yield StreamEvent("start")
        for n in range(COUNT):
            if n % 100 == 0:
                await asyncio.sleep(0)
            yield StreamEvent("text", WORD)
        yield StreamEvent("end", response=LLMResponse(WORD * COUNT, "fast", "fast", TokenUsage(1, COUNT), cost_usd=0.0))


DIAGRAM = {
    "version": "light",
    "persons": {"Ada": {"service": "openai", "model": "gpt-4o"}},
    "nodes": [
        {"label": "Start", "type": "start"},
        {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": PROMPT}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [{"from": "Start", "to": "Say"}, {"from": "Say", "to": "End"}],
}


async def whole_way(_: str) -> int:
    """A run with the SQLite store and a subscriber that sees every event."""
    with tempfile.TemporaryDirectory() as folder:
        settings = get_settings().model_copy(update={"base_dir": Path(folder), "state_store_path": None})
        runtime = Runtime(settings, llm=Fast())
        seen = 0

        def see(event: Any) -> None:
            nonlocal seen
            said = event.type == "node_output" and event.payload["kind"] == "text"
            text = event.payload["text"] if said else ""
            seen += len(text) // len(WORD)

        async with runtime:
            runtime.services.bus.subscribe(see)
            await runtime.run(runtime.execution(runtime.prepare(DIAGRAM)))
            await runtime.services.bus.drain()
        return seen


PROVIDERS: dict[str, tuple[str, Count, str]] = {
    "openai": (MODEL, sdk_openai, "/v1"),
    "anthropic": ("claude-sonnet-5", sdk_anthropic, ""),
    "gemini": ("gemini-2.5-flash", sdk_google, ""),
    "ollama": ("llama3.2", sdk_ollama, ""),
}
"""Service → its model, its SDK, where its API is."""
RESPONSES = "openai, Responses"


async def rows(stack: AsyncExitStack) -> list[Row]:
    """All rows, with the server that they ask."""
    url = stack.enter_context(server())

    def row(title: str, n: int, per: str, goal: Goal, work: Callable[[Client], Make]) -> Row:
        return Row(title, n, per, {name: work(client) for name, client in CLIENTS.items()}, goal)

    streamed = [
        Row(
            f"streamed token, {service}", COUNT, "token",
            {OURS: counted(our_service(service, model, path), url), "our client alone": counted(our_client(service, model, path), url),
             "SDK": counted(sdk, url)},
            Goal(over={"SDK": 10}),
        )
        for service, (model, sdk, path) in PROVIDERS.items()
    ]  # fmt: skip
    return [
        *streamed,
        Row("whole way of a token: client, event, store, bus, subscriber", COUNT, "token", {OURS: counted(whole_way, url)}, Goal(40)),
        row("streamed token, libraries", COUNT, "token", Goal(over={RESPONSES: 10}), lambda c: tokens(c, url)),
        row("short call, one after another", CALLS, "call", Goal(within={RESPONSES: 1.2}), lambda c: calls(c, url, 1)),
        row(f"short call, {AT_ONCE} at once", CALLS, "call", Goal(within={RESPONSES: 1.2}), lambda c: calls(c, url, AT_ONCE)),
    ]  # fmt: skip


GROUP = "llm"

if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main(GROUP, rows, "Tokens and calls against the SDKs and other libraries.")

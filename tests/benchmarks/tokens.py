"""A token's way, against the leanest correct use of each SDK: `make bench`.

A server on the loopback, in a process of its own, sends 20,000 deltas at once. Each row times, in turn: the SDK alone, our
client over it, the whole service, and (last row) a whole run: client → event → store → bus → a subscriber like the live view's.
The rows show the median CPU time for one event, and what ours adds to the SDK's.

Usage: python -m tests.benchmarks.tokens [--rounds N] [--only WORD]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from dipeo_nb.config import get_settings
from dipeo_nb.container import Runtime
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.memory import InMemoryAPIKeyService
from dipeo_nb.testing import ScriptedClient
from tests.llm_wire import delta, final, message

COUNT = 20_000
WORD = "word "
MODEL, SMALL = "gpt-4o", "gpt-4o-mini"
"""What is asked for a long answer, and for a word."""
PROMPT = "Go on."


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
    command = [sys.executable, "-m", "tests.benchmarks.tokens", "serve"]
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


class Row:
    """One provider: its service, its model, the SDK alone, where its server is."""

    def __init__(self, service: str, model: str, sdk: Callable[[str], Awaitable[int]], path: str = "") -> None:
        self.service, self.model, self.sdk, self.path = service, model, sdk, path

    def request(self, url: str) -> LLMRequest:
        messages = (ChatMessage("user", PROMPT),)
        return LLMRequest(self.service, self.model, messages, base_url=url + self.path, timeout=120)

    async def client(self, url: str) -> int:
        config = AdapterConfig(provider_type=self.service, base_url=url + self.path, api_key=SecretStr("x"))
        client = providers.create(config, get_settings())
        count = 0
        async for event in client.stream(self.request(url)):
            count += event.kind == "text"
        await client.cleanup()
        return count

    async def through_service(self, url: str) -> int:
        service = LLMService(get_settings(), InMemoryAPIKeyService({self.service: "x"}))
        count = 0
        async for event in service.stream(self.request(url)):
            count += event.kind == "text"
        await service.cleanup()
        return count


ROWS = (
    Row("openai", "gpt-4o", sdk_openai, "/v1"),
    Row("anthropic", "claude-sonnet-5", sdk_anthropic),
    Row("gemini", "gemini-2.5-flash", sdk_google),
    Row("ollama", "llama3.2", sdk_ollama),
)


async def microseconds(work: Callable[[str], Awaitable[int]], url: str) -> float:
    """CPU time of this process for one event: waiting for the server, and for a busy machine, does not count."""
    started = time.process_time()
    count = await work(url)
    seconds = time.process_time() - started
    assert count == COUNT, f"{count} deltas instead of {COUNT}"
    return seconds / COUNT * 1e6


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
            text = event.payload.get("text", "") if event.type == "node_output" else ""
            seen += len(text) // len(WORD)

        async with runtime:
            runtime.services.bus.subscribe(see)
            await runtime.run(runtime.execution(runtime.prepare(DIAGRAM)))
            await runtime.services.bus.drain()
        return seen


async def main() -> None:
    parser = argparse.ArgumentParser(description="A token's way against the SDKs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose service holds this word")
    options = parser.parse_args()
    console = Console(width=118)
    with server() as url:
        table = Table(title="µs of CPU an event, median of the rounds (goal: client at most 10 µs over the SDK)", min_width=80)
        for column in ("", "SDK alone", "our client", "adds", "whole service", "adds"):
            table.add_column(column, justify="right" if column else "left")
        for row in ROWS:
            if options.only not in row.service:
                continue
            ways = (row.sdk, row.client, row.through_service)
            taken: list[list[float]] = [[] for _ in ways]
            for _ in range(options.rounds):
                for way, times in zip(ways, taken, strict=True):
                    times.append(await microseconds(way, url))
            sdk, client, service = map(statistics.median, taken)
            cells = (sdk, client, client - sdk, service, service - sdk)
            table.add_row(row.service, *(f"{value:.1f}" for value in cells))
        console.print(table)
        if options.only in "whole way":
            times = [await microseconds(whole_way, url) for _ in range(options.rounds)]
            console.print(f"whole way of a token in a run: {statistics.median(times):.1f} µs of CPU (goal: at most 40)")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else main())

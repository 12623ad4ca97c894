"""Streamed tokens and short calls through the service, against OpenAI's SDK and other libraries over it: `make bench`.

The server of `tests.benchmarks.tokens` answers all of them, in a process of its own, by the API that each speaks: Responses or
Chat Completions. What is measured is the CPU time of this process, in turn, round after round; clients are made once. The table
is read as that of `tests.benchmarks.engine`.

Usage: python -m tests.benchmarks.peers [--rounds N] [--only WORD]
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.memory import InMemoryAPIKeyService
from tests.benchmarks.engine import OURS, Make, Row, Run, main
from tests.benchmarks.tokens import COUNT, MODEL, PROMPT, SMALL, WORD, server

CALLS = 200
AT_ONCE = 20
KEY = "x"
ASKED: Any = [{"role": "user", "content": PROMPT}]

Stream = Callable[[str], AsyncIterator[str]]
"""Model → the pieces of its answer."""
Ask = Callable[[str], Awaitable[str]]
"""Model → its answer."""
Client = Callable[[AsyncExitStack, str], Awaitable[tuple[Stream, Ask]]]
"""URL of the server → how to ask it."""


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


def rows(url: str) -> list[Row]:
    def row(title: str, n: int, unit: str, goal: str, work: Callable[[Client], Make]) -> Row:
        return Row(title, n, unit, {name: work(client) for name, client in CLIENTS.items()}, goal, time.process_time)

    return [
        row("CPU of a streamed token", COUNT, "token", "≤ 10 µs over the SDK", lambda c: tokens(c, url)),
        row("CPU of a short call, one after another", CALLS, "call", "as the SDK", lambda c: calls(c, url, 1)),
        row(f"CPU of a short call, {AT_ONCE} at once", CALLS, "call", "as the SDK", lambda c: calls(c, url, AT_ONCE)),
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # peers warn about their own dependencies
    with server() as address:
        asyncio.run(main(rows(address), "The service against other clients."))

"""What every `LLMClient` keeps, fakes and real ones alike: echo, scripted, the embedded model, OpenAI's SDK on a wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.domain.ports import LLMClient
from dipeo_nb.llm import model_store, providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.llm.providers.local import UnifiedLocalClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.structured import sample
from dipeo_nb.testing import ScriptedClient
from tests.contracts.llm_wires import Anthropic, Google, Ollama
from tests.llm_wire import Call, ScriptedServer, answer, events_of, llama_server, request, run, settings_with

MADE = Callable[[], LLMClient]
SCHEMA = {
    "type": "object",
    "properties": {"decision": {"type": "boolean"}},
    "required": ["decision"],
    "additionalProperties": False,
}


class Reply(BaseModel):
    agreed: bool
    mark: int


@contextlib.contextmanager
def echo() -> Iterator[MADE]:
    yield EchoClient


@contextlib.contextmanager
def scripted() -> Iterator[MADE]:
    def say(asked: LLMRequest) -> Any:
        if asked.response_format is Reply:
            return Reply(agreed=True, mark=3)
        return {"decision": False} if asked.response_format else f"You said: {asked.messages[-1].content} Thank you."

    yield lambda: ScriptedClient(say)


@contextlib.contextmanager
def local() -> Iterator[MADE]:
    run(model_store.ensure(settings_with(), model_store.SMOLLM2.name))
    yield lambda: UnifiedLocalClient()


@contextlib.contextmanager
def openai_on_a_script() -> Iterator[MADE]:
    def say(call: Call) -> None:
        body = server.seen[-1].body
        shape = body.get("text")
        call.stream(answer(json.dumps(sample(shape["format"]["schema"])) if shape else "Hello my dear friend."))

    with ScriptedServer(say) as server:
        config = AdapterConfig(provider_type="openai", base_url=server.url, api_key=SecretStr("sk-test"))
        yield lambda: UnifiedOpenAIClient(config)


def on_a_wire(wire: Any) -> Callable[[], contextlib.AbstractContextManager[MADE]]:
    """A client whose provider is played by a script, through the official SDK."""

    @contextlib.contextmanager
    def made() -> Iterator[MADE]:
        def say(call: Call) -> None:
            body = call.seen.body
            schema = wire.asked_schema(body)
            wire.says(json.dumps(sample(schema)) if schema else "Hello my dear friend.")(call)

        with wire.server(say) as server:
            address = server.url.removesuffix("/v1") + wire.path
            config = AdapterConfig(
                provider_type=wire.service, model=wire.model, base_url=address, api_key=SecretStr("sk-test")
            )
            yield lambda: providers.create(config, settings_with())

    return made


@contextlib.contextmanager
def openai_on_llama() -> Iterator[MADE]:
    config = AdapterConfig(provider_type="openai", base_url=llama_server())
    yield lambda: UnifiedOpenAIClient(config)


REAL = pytest.mark.model
CLIENTS = [
    pytest.param(echo, id="echo"),
    pytest.param(scripted, id="scripted"),
    pytest.param(openai_on_a_script, id="openai-scripted"),
    pytest.param(on_a_wire(Anthropic()), id="anthropic-scripted"),
    pytest.param(on_a_wire(Google()), id="gemini-scripted"),
    pytest.param(on_a_wire(Ollama()), id="ollama-scripted"),
    pytest.param(local, id="local", marks=REAL),
    pytest.param(openai_on_llama, id="openai-llama.cpp", marks=REAL),
]


@pytest.fixture(params=CLIENTS)
def make(request: pytest.FixtureRequest) -> Iterator[MADE]:
    with request.param() as made:
        yield made


def ask(client: LLMClient, prompt: str = "Say hello.", **more: Any) -> LLMRequest:
    """A request that *client* can answer: fewer than twenty tokens, unless more are asked for."""
    model = {
        "openai": "gpt-test",
        "anthropic": Anthropic.model,
        "gemini": Google.model,
        "ollama": Ollama.model,
    }.get(client.provider, "")
    return request(prompt, service=client.provider, model=model, **{"max_tokens": 20, **more})


async def used(make: MADE, work: Callable[[LLMClient], Any]) -> Any:
    """The result of *work* on a new client, which is closed afterwards."""
    client = make()
    try:
        return await work(client)
    finally:
        await client.cleanup()


def test_a_stream_has_one_beginning_and_one_end(make: MADE):
    """`start` first; pieces of text that together are the answer; usage; exactly one `end`, last, with the response."""

    async def work(client: LLMClient) -> list[StreamEvent]:
        assert isinstance(client, LLMClient)
        return [e for e in await events_of(client, ask(client)) if e.kind != "progress"]

    events = run(used(make, work))
    kinds = [e.kind for e in events]
    assert kinds[0] == "start"
    assert kinds[-2:] == ["usage", "end"]
    assert kinds.count("end") == kinds.count("start") == kinds.count("usage") == 1
    assert set(kinds) == {"start", "text", "usage", "end"}
    response = events[-1].response
    assert response is not None
    assert all(e.response is None for e in events[:-1])
    assert response.text
    assert "".join(e.text for e in events).strip() == response.text.strip()
    assert response.provider
    assert response.model
    assert response.finish_reason in ("stop", "length")
    assert response.structured is None


def test_usage_is_the_providers_own(make: MADE):
    """Tokens are counted in disjoint buckets, and what the provider said is kept as it was."""

    async def work(client: LLMClient) -> Any:
        return (await events_of(client, ask(client)))[-1].response

    usage = run(used(make, work)).usage
    assert usage.total > 0
    assert usage.total == sum(
        n or 0 for n in (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
    )
    assert usage.raw


@pytest.mark.parametrize("shape", [Reply, SCHEMA], ids=["pydantic", "schema"])
@pytest.mark.parametrize("make", CLIENTS[:-1], indirect=True)  # llama.cpp's Responses endpoint takes no text.format
def test_structure_is_kept(make: MADE, shape: Any):
    """A pydantic class gives its instance, a JSON schema an object that fits; the response says how it was obtained."""

    async def work(client: LLMClient) -> Any:
        asked = ask(client, "Do you agree? Answer as JSON.", response_format=shape, max_tokens=200)
        return (await events_of(client, asked))[-1].response

    response = run(used(make, work))
    if shape is Reply:
        assert isinstance(response.structured, Reply)
    else:
        assert isinstance(response.structured["decision"], bool)
    assert response.rung in ("native", "grammar")


def test_a_stream_can_be_left_and_the_client_used_again(make: MADE):
    """Closing a stream in the middle ends its work at once; the next call is as good as the first."""

    async def work(client: LLMClient) -> Any:
        stream: AsyncIterator[StreamEvent] = client.stream(ask(client, "Tell a long story.", max_tokens=2000))
        async for event in stream:
            if event.kind == "text":
                break
        async with asyncio.timeout(5):
            await stream.aclose()  # type: ignore[attr-defined]
            return (await events_of(client, ask(client)))[-1].kind

    assert run(used(make, work)) == "end"


def test_streams_do_not_mix(make: MADE):
    """Several answers at the same time each come whole."""

    async def work(client: LLMClient) -> list[list[StreamEvent]]:
        return await asyncio.gather(*(events_of(client, ask(client, f"Number {n}?")) for n in range(4)))

    for events in run(used(make, work)):
        response = events[-1].response
        assert response is not None
        text = "".join(e.text for e in events if e.kind == "text")
        assert text.strip() == response.text.strip()


def test_cleanup_may_be_called_twice(make: MADE):
    """Closing is safe to repeat, before any use and after."""

    async def work(client: LLMClient) -> None:
        await client.cleanup()
        await client.cleanup()

    run(used(make, work))

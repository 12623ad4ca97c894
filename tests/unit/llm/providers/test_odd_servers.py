"""Servers that say things in their own way: what came is used, what is odd is told to the model or is an error of ours."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from dipeo_nb.domain.chat import Budget, ChatMessage, LLMRequest, LLMResponse, TokenUsage, ToolCall
from dipeo_nb.errors import ContentFilteredError, LLMError, ProviderError
from dipeo_nb.llm.providers.anthropic import UnifiedAnthropicClient
from dipeo_nb.llm.providers.anthropic.answer import UNREADABLE
from dipeo_nb.llm.providers.ollama import UnifiedOllamaClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import call_of, run_tool, tool_of, tools_of
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from tests.support import wire_anthropic as wire
from tests.support import wire_ollama
from tests.support.provider_clients import client, with_client
from tests.support.wire_openai import (
    USAGE,
    Call,
    Reply,
    ScriptedServer,
    delta,
    final,
    message,
    run,
    says,
    settings_with,
)


def answered(kind: Any, reply: Reply) -> LLMResponse:
    return with_client(kind, reply, lambda made: made.async_chat("Hi"))


def serviced(service: str, server: ScriptedServer, **options: Any) -> LLMResponse:
    """Through the whole service: tools are run, and what is paid is booked."""
    settings = settings_with(openai_base_url=server.url, anthropic_base_url=server.url.removesuffix("/v1"), llm_max_retries=0)

    async def go() -> LLMResponse:
        made = LLMService(settings, EnvironmentAPIKeyService(settings))
        try:
            return await made.complete(LLMRequest(service, "m", (ChatMessage("user", "Hi"),), **options))
        finally:
            await made.cleanup()

    return run(go())


# Text.


def test_text_that_streamed_is_never_lost():
    """Servers that end with an empty output: the finished items count, else the pieces."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": message("Hello world")}
    for events in (
        [delta("Hello "), delta("world"), final()],
        [delta("Hello "), delta("world"), done, final()],
        [done, final()],
    ):
        found = answered(UnifiedOpenAIClient, lambda c, events=events: c.stream(events))
        assert found.text == "Hello world"


def test_a_failure_without_a_reason():
    with (
        ScriptedServer(lambda c: c.stream([final(status="failed", error=None)])) as server,
        pytest.raises(ProviderError),
    ):
        run(client(UnifiedOpenAIClient, server).async_chat("Hi"))


NO_USAGE = {k: v for k, v in wire.start()["message"].items() if k != "usage"}


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "message_start", "message": NO_USAGE}, *wire.text("Hello"), *wire.end()],
        [wire.start(), *wire.text("Hello"), {**wire.end()[0], "usage": None}, wire.end()[1]],
        [wire.start(), *wire.text("Hello", 1), *wire.end()],
        [wire.start(), *wire.text("Hel", 3), *wire.text("lo", 7), *wire.end()],
        [wire.start(), *wire.block(0, {"type": "text"}, {"type": "text_delta", "text": "Hello"}), *wire.end()],
        [wire.start(), *wire.block(0, {"type": "thinking"}, {"type": "thinking_delta", "thinking": "x"}), *wire.text("Hello", 1), *wire.end()],
    ],
    ids=["no usage at the start", "no usage at the end", "first index 1", "gaps", "no text", "no thinking"],
)  # fmt: skip
def test_servers_like_anthropics(events: list[dict[str, Any]]):
    assert answered(UnifiedAnthropicClient, wire.streams(*events)).text == "Hello"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_batch_files_end_lines_at_line_feeds_only(separator: str):
    """And a line that is broken costs its own answer only."""
    body = final(message(f"a{separator}b"))["response"]
    lines = [
        json.dumps({"custom_id": "one", "response": {"status_code": 200, "body": body}}, ensure_ascii=False),
        "{broken",
    ]

    def reply(call: Call) -> None:
        if call.seen.path.endswith("/content"):
            data = "\n".join(lines).encode()
            call.headers(content_type="application/octet-stream", content_length=str(len(data)))
            call._handler.wfile.write(data)
        else:
            call.json(
                200,
                {"id": "b", "object": "batch", "status": "completed", "output_file_id": "f", "request_counts": None},
            )

    asked = {"one": LLMRequest("openai", "m", (ChatMessage("user", "Hi"),))}
    found = with_client(UnifiedOpenAIClient, reply, lambda made: made.batch_results("b", asked))
    assert isinstance(found["one"], LLMResponse)
    assert found["one"].text == f"a{separator}b"


# Usage.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (USAGE, TokenUsage(20, 8, 10, None, 4)),
        (
            {"input_tokens": 10_000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 9000}},
            TokenUsage(1000, 50, 0, 9000, None),
        ),
        ({"input_tokens": 30, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 200}}, TokenUsage(30, 5, None, None, 200)),
        ({"input_tokens": 30, "output_tokens": 5}, TokenUsage(30, 5, None, None, None)),
        ({"input_tokens": 5, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 9}}, TokenUsage(0, 1, 9, None, None)),
        (None, TokenUsage()),
    ],
)  # fmt: skip
def test_openai_usage(given: dict[str, Any] | None, expected: TokenUsage):
    found = answered(UnifiedOpenAIClient, lambda c: c.stream([final(message("x"), usage=given)])).usage
    assert dataclasses.replace(found, raw=None) == expected


def test_refusals_are_paid_for():
    """And booked, in the budget and on the error."""
    part = {"type": "refusal", "refusal": "No."}
    refusal = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    budget = Budget(tokens=100_000)
    with ScriptedServer(lambda c: c.stream([final(refusal)])) as server, pytest.raises(ContentFilteredError) as caught:
        serviced("openai", server, budget=budget)
    assert caught.value.usage.total == 42
    assert budget.used_tokens == 42
    budget = Budget(tokens=100_000)
    with (
        ScriptedServer(wire.streams(wire.start(), *wire.end("refusal"))) as server,
        pytest.raises(ContentFilteredError),
    ):
        serviced("anthropic", server, budget=budget)
    assert budget.used_tokens == 45


# Tools.


def weather(city: str) -> str:
    return f"Sun in {city}"


def asks_then_says(service: str, arguments: str) -> Reply:
    """A call with these arguments, then the answer."""
    turns: list[Call] = []

    def reply(call: Call) -> None:
        turns.append(call)
        if service == "openai":
            item = {"type": "function_call", "id": "i", "call_id": "c", "name": "weather", "arguments": arguments}
            call.stream([final(item if len(turns) == 1 else message("Done"))])
        else:
            tool = {"type": "tool_use", "id": "c", "name": "weather", "input": {}}
            asked = wire.block(0, tool, {"type": "input_json_delta", "partial_json": arguments})
            said = [*asked, *wire.end("tool_use")] if len(turns) == 1 else [*wire.text("Done"), *wire.end()]
            wire.streams(wire.start(), *said)(call)

    return reply


@pytest.mark.parametrize("service", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "arguments", ['{"city": "Par', '["Paris"]', '"Paris"', "null", "7", '{"town": "Paris"}', "[" * 100_000]
)
def test_arguments_that_are_none_are_told_to_the_model(service: str, arguments: str):
    """It may call again; the chat goes on, and its server never gets back what it cannot read."""
    with ScriptedServer(asks_then_says(service, arguments)) as server:
        assert serviced(service, server, tools=tools_of(weather)).text == "Done"
    sent = json.dumps(server.seen[1].body)
    assert "do not fit" in sent or "not a JSON object" in sent
    if service == "anthropic":
        asked = [b for m in server.seen[1].body["messages"] for b in m["content"] if b["type"] == "tool_use"]
        assert all(isinstance(block["input"], dict) for block in asked)
        assert UNREADABLE not in sent


def test_arguments_that_were_cut_off():
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "weather", "arguments": '{"city": "Par'}
    cut = final(item, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    with ScriptedServer(lambda c: c.stream([cut])) as server, pytest.raises(LLMError, match="cut off") as caught:
        serviced("openai", server, tools=tools_of(weather))
    assert "max_tokens" in (caught.value.hint or "")
    assert caught.value.usage.total == 42


def test_blank_text_is_not_sent_back():
    """Anthropic refuses blank blocks, its own too."""
    first = [
        *wire.block(0, {"type": "text", "text": ""}),
        *wire.tool_use("c", "weather", {"city": "Paris"}, 1),
        *wire.end("tool_use"),
    ]
    turns = iter([first, [*wire.text("Done"), *wire.end()]])
    with ScriptedServer(lambda c: wire.streams(wire.start(), *next(turns))(c)) as server:
        assert serviced("anthropic", server, tools=tools_of(weather)).text == "Done"
    blocks = [b for m in server.seen[1].body["messages"] for b in m["content"]]
    assert all(b["text"].strip() for b in blocks if b["type"] == "text")


@pytest.mark.parametrize("encrypted", [None, "thoughts"])
def test_thoughts_travel_with_a_gateway(encrypted: str | None):
    """A reasoning model is asked for its thoughts wherever it runs, and those that nobody stored are not sent back."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": []} | ({"encrypted_content": encrypted} if encrypted else {})
    call_item = {
        "type": "function_call",
        "id": "i",
        "call_id": "c",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
    }
    turns = iter([final(thought, call_item), final(message("Done"))])
    settings = settings_with(llm_max_retries=0)

    async def go(server: ScriptedServer) -> str:
        made = LLMService(settings.model_copy(update={"openai_base_url": server.url}), EnvironmentAPIKeyService(settings))
        asked = LLMRequest("openai", "gpt-5-nano", (ChatMessage("user", "Hi"),), tools=tools_of(weather))
        try:
            return (await made.complete(asked)).text
        finally:
            await made.cleanup()

    with ScriptedServer(lambda c: c.stream([next(turns)])) as server:
        assert run(go(server)) == "Done"
    assert server.seen[0].body["include"] == ["reasoning.encrypted_content"]
    assert any(item.get("type") == "reasoning" for item in server.seen[1].body["input"]) is bool(encrypted)


class W(BaseModel):
    city: str


@dataclasses.dataclass
class D:
    city: str


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({("a", 1): 2}, '{"[\\"a\\", 1]": 2}'),
        (D("Paris"), '{"city": "Paris"}'),
        ([W(city="Paris")], '[{"city": "Paris"}]'),
        ((n for n in [1, 2]), "[1, 2]"),
        ({1, 2}, "[1, 2]"),
        (None, "null"),
        (float("nan"), "null"),
        ("\ud800", "\\ud800"),
        (b"hi", '{"base64": "aGk="}'),
    ],
)
def test_results_are_json(value: Any, expected: str):
    def give() -> Any:
        return value

    give.__annotations__.clear()
    result = run(run_tool(ToolCall("c", "give", {}), tools_of(give)))
    assert (result.content, result.is_error) == (expected, False)


def test_results_that_have_no_form_are_told_to_the_model():
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for value in (loop, Odd(), object()):
        result = run(run_tool(ToolCall("c", "_give", {}), tools_of(functools.partial(_give, value))))
        assert result.is_error, result
        assert "cannot be written" in result.content


def _give(value: object = None) -> Any:
    return value


class Caller:
    """Says hello."""

    async def __call__(self, _x: int, model_config: str = "a", json: str = "b", schema: int = 1) -> str:
        """Says hello.

        Args:
            _x: a number
        """
        return f"{_x} {model_config} {json} {schema}"


def test_all_callables_and_names_are_tools():
    """Partials, objects that can be called, and names that pydantic keeps for itself."""
    made = tool_of(Caller())
    assert made.name == "caller"
    properties = (made.parameters or {})["properties"]
    assert list(properties) == ["_x", "model_config", "json", "schema"]
    assert properties["_x"]["description"] == "a number"
    call = call_of("c", "caller", '{"_x": 3, "json": "j"}')
    assert run(run_tool(call, [made])).content == "3 a j 1"
    bound = tool_of(functools.partial(weather, city="Rome"))
    assert bound.name == "weather"
    assert run(run_tool(call_of("c", "weather", "{}"), [bound])).content == "Sun in Rome"
    assert call_of("c", "f", "").arguments == {}


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (UnifiedOpenAIClient, says("Hi there.")),
        (UnifiedAnthropicClient, wire.says("Hi there.")),
        (UnifiedOllamaClient, wire_ollama.says("Hi there.")),
    ],
    ids=["openai", "anthropic", "ollama"],
)
def test_a_connection_that_stays_open_after_the_end_is_not_waited_for(kind: Any, reply: Reply):
    """The answer is whole when the server has said so; some gateways leave the stream open then."""
    answered_all = threading.Event()

    def lingering(call: Call) -> None:
        reply(call)
        answered_all.wait(60)

    async def ask(made: Any) -> LLMResponse:
        try:
            return await made.async_chat("Hi")
        finally:
            answered_all.set()

    async def within_time(made: Any) -> LLMResponse:
        async with asyncio.timeout(30):
            return await ask(made)

    script = wire_ollama.Ollama(lingering, models=("m:latest",)) if kind is UnifiedOllamaClient else lingering
    assert with_client(kind, script, within_time).text == "Hi there."

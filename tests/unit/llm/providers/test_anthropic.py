"""The Claude client, through the official SDK, against servers on the loopback: what the contract does not say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolCall, ToolConfig, ToolResult
from dipeo_nb.errors import (
    ContentFilteredError,
    ContextLengthError,
    LLMError,
    ProviderError,
    RateLimitError,
    StructureError,
    UnsupportedError,
)
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.anthropic import UnifiedAnthropicClient
from tests.support import wire_anthropic as wire
from tests.support.loopback_providers import WIRES, through_service
from tests.support.wire_openai import Reply, ScriptedServer, events_of, llama_server, request, run

MODEL = "claude-sonnet-5"
KEY = "sk-ant-canary-7f3a9b2c4d5e6f"


def client_for(url: str, **options: Any) -> UnifiedAnthropicClient:
    config = AdapterConfig(provider_type="anthropic", base_url=url, api_key=SecretStr(KEY), **options)
    return UnifiedAnthropicClient(config)


def stream(server: ScriptedServer, asked: LLMRequest, **options: Any) -> list[StreamEvent]:
    async def go() -> list[StreamEvent]:
        client = client_for(server.url.removesuffix("/v1"), **options)
        try:
            return await events_of(client, asked)
        finally:
            await client.cleanup()

    return run(go())


def ask(server: ScriptedServer, asked: LLMRequest | None = None, **options: Any) -> LLMResponse:
    response = stream(server, asked or said(), **options)[-1].response
    assert response is not None
    return response


def said(*messages: ChatMessage, **more: Any) -> LLMRequest:
    given = messages or (ChatMessage("user", "Say hello."),)
    return LLMRequest(**{"service": "anthropic", "model": MODEL, "messages": given, **more})


WEATHER = ToolConfig("function", "weather", "Tell the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


# The request.


def test_the_body_is_of_the_messages_api():
    """System prompts apart, turns merged, calls and results as blocks, results of one round in one turn; key and version in
    the headers."""
    calls = (ToolCall("c1", "weather", {"city": "Rome"}), ToolCall("c2", "weather", {"city": "Bonn"}))
    asked = said(
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "One."),
        ChatMessage("user", "Two."),
        ChatMessage("assistant", "I look.", tool_calls=calls),
        ChatMessage("tool", "hot", tool_result=ToolResult("c1", "hot")),
        ChatMessage("tool", "no", tool_result=ToolResult("c2", "no", is_error=True)),
        ChatMessage("system", "Be kind."),
        max_tokens=50,
        tools=(WEATHER, ToolConfig("web_search", config={"max_uses": 2})),
        tool_choice="weather",
    )
    with ScriptedServer(wire.says("ok")) as server:
        stream(server, asked)
    seen = server.seen[0]

    assert seen.path == "/v1/messages"
    assert KEY in seen.headers["authorization"]
    assert seen.headers["anthropic-version"]
    assert seen.body == {
        "model": MODEL,
        "max_tokens": 50,
        "stream": True,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Bonn"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "hot"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "no", "is_error": True},
                ],
            },
        ],
        "tools": [
            {"name": "weather", "description": "Tell the weather.", "input_schema": WEATHER.parameters},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ],
        "tool_choice": {"type": "tool", "name": "weather"},
    }


@pytest.mark.parametrize(("choice", "sent"), [("auto", "auto"), ("required", "any"), ("none", "none")])
def test_tool_choice_has_its_own_words(choice: str, sent: str):
    """`required` is `any` there."""
    with ScriptedServer(wire.says("ok")) as server:
        stream(server, said(tools=(WEATHER,), tool_choice=choice))
    assert server.seen[0].body["tool_choice"] == {"type": sent}


@pytest.mark.parametrize(
    ("model", "takes"),
    [("claude-sonnet-4-6", True), ("claude-haiku-4-5", True), (MODEL, False), ("claude-opus-4-8", False)],
)
def test_temperature_goes_only_where_it_is_taken(model: str, takes: bool):
    """Models that refuse sampling parameters do not get them, and the user is told."""
    with ScriptedServer(wire.says("ok")) as server:
        events = stream(server, said(model=model, temperature=0.5))
    assert server.seen[0].body.get("temperature") == (0.5 if takes else None)
    assert ("takes no temperature" in str(events[0].data)) is not takes


@pytest.mark.filterwarnings("ignore:The model")
def test_a_model_that_ends_soon_is_named():
    """The SDK's list of deprecated models becomes a notice."""
    with ScriptedServer(wire.says("ok")) as server:
        events = stream(server, said(model="claude-sonnet-4-5"))
    assert "ends on November 30th, 2026" in str(events[0].data)


def test_a_conversation_begins_with_the_user():
    """Where only the system or the assistant has spoken, the user's turn is made."""
    with ScriptedServer(wire.says("ok")) as server:
        stream(server, said(ChatMessage("system", "Begin."), ChatMessage("assistant", "Once")))
    assert [m["role"] for m in server.seen[0].body["messages"]] == ["user", "assistant"]


def test_further_fields_are_sent_as_they_are():
    """`extra_params` of the configuration are part of the body."""
    with ScriptedServer(wire.says("ok")) as server:
        ask(server, extra_params={"thinking": {"type": "adaptive"}})
    assert server.seen[0].body["thinking"] == {"type": "adaptive"}


# The answer.


def test_signed_thinking_travels_with_the_calls():
    """Thoughts are shown apart; the turn is kept as it was, signature included, and goes back verbatim."""
    turn = [wire.start(), *wire.thinking("Hm.", "sig=="), *wire.text("I look.", 1)]
    turn += [*wire.tool_use("c1", "weather", {"city": "Rome"}, 2), *wire.end("tool_use")]
    with ScriptedServer(wire.streams(*turn), wire.says("Hot.")) as server:
        events = stream(server, said(tools=(WEATHER,)))
        first = events[-1].response
        assert first is not None
        result = ChatMessage("tool", "hot", tool_result=ToolResult("c1", "hot"))
        back = ChatMessage("assistant", first.text, tool_calls=first.tool_calls, raw=first.raw)
        stream(server, said(ChatMessage("user", "Weather?"), back, result, tools=(WEATHER,)))
    assert [e.text for e in events if e.kind == "reasoning"] == ["Hm."]
    assert (first.finish_reason, first.tool_calls) == ("tool_calls", (ToolCall("c1", "weather", {"city": "Rome"}),))
    assert "".join(e.text for e in events if e.kind == "tool_call_delta") == '{"city": "Rome"}'
    assert server.seen[1].body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
    ]


def test_usage_has_all_buckets():
    """Cached, written, thought: apart, and what the provider said verbatim."""
    with ScriptedServer(wire.says("Hello.")) as server:
        usage = ask(server).usage
    assert (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning) == (20, 8, 10, 3, 4)
    assert usage.raw is not None
    assert usage.raw["cache_creation_input_tokens"] == 3


def test_a_long_search_is_continued():
    """A turn that pauses goes on where it was; citations come as outputs of the tool; both calls are counted."""
    found = {
        "type": "web_search_result_location",
        "url": "https://x.example",
        "title": "X",
        "cited_text": "t",
        "encrypted_index": "e",
    }
    use = wire.block(
        0,
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query": "x"}'},
    )
    cited = wire.block(
        0,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Found."},
        {"type": "citations_delta", "citation": found},
    )
    paused = wire.streams(wire.start(), *use, *wire.end("pause_turn"))
    with ScriptedServer(paused, wire.streams(wire.start(), *cited, *wire.end())) as server:
        response = ask(server, said(tools=(ToolConfig("web_search"),)))
    assert response.text == "Found."
    assert response.tool_outputs == ({"type": "citation", "url": "https://x.example", "title": "X"},)
    assert response.usage.input == 40
    assert server.seen[1].body["messages"][-1]["content"][0]["input"] == {"query": "x"}


class Item(BaseModel):
    count: int = Field(ge=1, le=9)
    tag: str | None = None


class Items(BaseModel):
    items: list[Item]


def test_limits_the_dialect_does_not_know_are_checked_here():
    """Numeric limits move into descriptions on the wire; an answer beyond them does not fit."""
    reply = wire.says('{"items": [{"count": 12, "tag": null}]}')
    with ScriptedServer(reply) as server, pytest.raises(StructureError, match="count"):
        ask(server, said(response_format=Items))
    schema = server.seen[0].body["output_config"]["format"]["schema"]
    assert "maximum" not in str(schema["$defs"]["Item"]["properties"]["count"].keys())
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "shape",
    [{"type": "array", "items": {"type": "string"}}, {"type": "object", "additionalProperties": {"type": "integer"}}],
    ids=["list", "free-form"],
)
def test_what_the_dialect_cannot_say_goes_another_way(shape: Any):
    """Lists and free-form mappings are refused before the call, so that the ladder goes on to the tool."""
    with ScriptedServer(wire.says("x")) as server, pytest.raises(UnsupportedError):
        ask(server, said(response_format=shape))
    assert server.seen == []


def test_an_unknown_tool_is_refused_before_the_call():
    """The error says which there are."""
    with ScriptedServer(wire.says("x")) as server, pytest.raises(UnsupportedError, match="image_generation"):
        ask(server, said(tools=(ToolConfig("image_generation"),)))


# Failures.


def test_an_answer_that_is_cut_off_is_an_answer():
    """`max_tokens` is `length`."""
    with ScriptedServer(wire.streams(wire.start(), *wire.text("Once"), *wire.end("max_tokens"))) as server:
        assert ask(server).finish_reason == "length"


def failing(reply: Reply) -> LLMError:
    with ScriptedServer(reply) as server, pytest.raises(LLMError) as caught:
        ask(server)
    return caught.value


def in_stream(kind: str) -> Reply:
    return wire.streams(wire.start(), {"type": "error", "error": {"type": kind, "message": "no more"}})


@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (wire.streams(wire.start(), *wire.end("refusal")), ContentFilteredError, None),
        (wire.error(400, "prompt is too long: 200001 tokens > 200000 maximum"), ContextLengthError, 400),
        (wire.error(413, "Request exceeds the maximum size"), ContextLengthError, 413),
        (in_stream("overloaded_error"), ProviderError, 529),
        (in_stream("rate_limit_error"), RateLimitError, 429),
    ],
    ids=["refusal", "too-long", "too-large", "overloaded", "limited"],
)
def test_failures_are_told_apart(reply: Reply, kind: type[LLMError], status: int | None):
    """Each has its own kind; errors in the middle of a stream have the status they would have had before it."""
    error = failing(reply)
    assert type(error) is kind
    assert error.status == status


def test_reset_headers_say_how_long(monkeypatch: pytest.MonkeyPatch):
    """Without Retry-After the reset of the limit that is used up counts."""
    headers = {
        "anthropic_ratelimit_requests_remaining": "0",
        "anthropic_ratelimit_requests_reset": "2999-01-01T00:00:00Z",
    }
    error = failing(wire.error(429, "slow down", **headers))
    assert isinstance(error, RateLimitError)
    assert (error.retry_after or 0) > 1e6


def test_a_key_can_be_checked():
    """The list of models says whether the key is taken."""
    models = {"data": [], "has_more": False, "first_id": None, "last_id": None}

    async def go(reply: Reply) -> str:
        with ScriptedServer(reply) as server:
            client = client_for(server.url.removesuffix("/v1"))
            try:
                await client.check_key()
            except LLMError as error:
                return error.code
            finally:
                await client.cleanup()
        return "ok"

    assert run(go(lambda call: call.json(200, models))) == "ok"
    assert run(go(wire.error(401, "invalid x-api-key"))) == "llm_auth"


# A real model behind a real wire.


@pytest.mark.model
def test_a_real_server_answers():
    """llama.cpp's Messages endpoint streams a text with counted tokens through the official SDK."""
    asked = request("Hi!", service="anthropic", model="smollm2", max_tokens=12)
    url = llama_server().removesuffix("/v1")

    async def go() -> list[StreamEvent]:
        client = client_for(url)
        try:
            return await events_of(client, asked)
        finally:
            await client.cleanup()

    events = run(go())
    response = events[-1].response
    assert response is not None
    assert "".join(e.text for e in events if e.kind == "text") == response.text != ""
    assert (response.usage.total or 0) > 5


@pytest.mark.parametrize(
    ("model", "extra"),
    [("claude-sonnet-4-5", {}), ("claude-opus-4-6", {"thinking": {"type": "enabled", "budget_tokens": 1024}})],
)
@pytest.mark.filterwarnings("error")
def test_a_model_that_ends_still_answers_where_warnings_are_errors(model: str, extra: dict[str, Any]):
    """What the SDK warns of is said in the answer's notice instead."""
    with ScriptedServer(wire.says("Hello.")) as server:
        assert ask(server, said(model=model, extra=extra)).text == "Hello."


def test_thoughts_of_a_conversation_that_has_changed_are_left_out():
    """Claude refuses them; the rest of the turn goes, once more and without them."""
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    thoughts = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
    messages = (
        ChatMessage("user", "Weather?"),
        ChatMessage(
            "assistant",
            "",
            tool_calls=(ToolCall("t1", "weather", {}),),
            raw={"provider": "anthropic", "content": [*thoughts, call]},
        ),
        ChatMessage("tool", "sunny", tool_result=ToolResult("t1", "sunny")),
    )
    said = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation. Remove the block."
    with ScriptedServer(wire.error(400, said), wire.says("Sunny.")) as server:
        _, found = through_service(server, WIRES[1], messages=messages)
    assert isinstance(found, LLMResponse), found
    first, second = (seen.body["messages"][1]["content"] for seen in server.seen)
    assert (first, second) == ([*thoughts, call], [call])
    with ScriptedServer(wire.error(400, said)) as server:
        _, found = through_service(server, WIRES[1], messages=messages)
        assert len(server.seen) == 2
    assert "bound to a different conversation" in str(found)

"""The Gemini client, through the official SDK, against servers on the loopback."""

from __future__ import annotations

import asyncio
import base64
import enum
import json
import logging
import time
import traceback
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolCall, ToolConfig, ToolResult
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    AuthError,
    ConfigurationError,
    ContentFilteredError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    StructureError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.google import UnifiedGoogleClient, json_schema
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import tool_of
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.wire_google import (
    body,
    chunk,
    error,
    error_info,
    function_call,
    quota,
    retry_info,
    says,
    streams,
    text,
)
from tests.support.wire_openai import Call, Reply, ScriptedServer, events_of, request, run, settings_with

KEY = "AIza-canary-7f3a9b2c4d5e6f"
MODEL = "gemini-2.5-flash"
NEW = "gemini-3-pro-preview"
PIXEL = base64.b64encode(b"\x89PNG-not-really").decode()


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Reason(BaseModel):
    text: str = Field(description="why", min_length=2)


class Verdict(BaseModel):
    winner: str
    mood: Mood = Mood.GOOD
    sure: Literal["yes"] = "yes"
    best: Reason | None = Field(default=None, description="the best one")


def service_for(url: str, **settings: Any) -> LLMService:
    """The service with a key, sent to *url*."""
    chosen = settings_with(**{"google_base_url": url, "google_api_key": SecretStr(KEY), **settings})
    return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(initial_delay=0.01))


def stream(url: str, asked: LLMRequest, **settings: Any) -> list[StreamEvent]:
    """All events of one request through the service."""

    async def go() -> list[StreamEvent]:
        service = service_for(url, **settings)
        try:
            return await events_of(service, asked)
        finally:
            await service.cleanup()

    return run(go())


def ask(url: str, prompt: str = "Say hello.", *, settings: dict[str, Any] | None = None, **more: Any) -> LLMResponse:
    """One call through the service."""
    asked = request(prompt, service="google", **{"model": MODEL, **more})
    response = stream(url, asked, **(settings or {}))[-1].response
    assert response is not None
    return response


# The request.


def test_the_body_is_of_the_gemini_api():
    """Instructions, turns, limits and the key go where the Gemini API wants them; nothing else is sent."""
    asked = LLMRequest(
        "google",
        MODEL,
        (
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "Hi."),
            ChatMessage("assistant", "Hello."),
            ChatMessage("user", "Say hello."),
            ChatMessage("system", "Be kind."),
        ),
        max_tokens=50,
        temperature=0.3,
    )
    with ScriptedServer(says("Hello there.")) as server:
        stream(server.url, asked)
    seen = server.seen[0]
    assert seen.path == f"/v1/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    assert seen.headers["x-goog-api-key"] == KEY
    assert seen.body == {
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}], "role": "user"},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi."}]},
            {"role": "model", "parts": [{"text": "Hello."}]},
            {"role": "user", "parts": [{"text": "Say hello."}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 50,
            "temperature": 0.3,
            "thinkingConfig": {"include_thoughts": True},  # Google's servers take either spelling
        },
    }


def test_the_version_may_stand_in_the_base_url():
    """An address that ends with the API's version does not get it twice."""
    with ScriptedServer(says("ok")) as server:
        ask(server.url.removesuffix("/v1") + "/v1beta/", model="gemini-2.0-flash")
    assert server.seen[0].path == "/v1beta/models/gemini-2.0-flash:streamGenerateContent?alt=sse"
    assert server.seen[0].body["generationConfig"] == {}  # older models have no thoughts to show


def test_instructions_alone_are_the_prompt():
    """A request of instructions only is sent as the user's turn, as Gemini wants one."""
    with ScriptedServer(says("ok")) as server:
        stream(server.url, LLMRequest("gemini", "gemini-2.0-flash", (ChatMessage("system", "Greet."),)))
    assert server.seen[0].body["contents"] == [{"role": "user", "parts": [{"text": "Greet."}]}]
    assert "systemInstruction" not in server.seen[0].body


def test_further_fields_are_merged_into_the_body():
    """`extra_params` of a client reach the wire beside what the client sets itself."""
    config = AdapterConfig(
        provider_type="google",
        model=MODEL,
        api_key=SecretStr(KEY),
        max_tokens=7,
        extra_params={"generationConfig": {"topP": 0.5}, "serviceTier": "flex"},
    )
    with ScriptedServer(says("ok")) as server:
        client = UnifiedGoogleClient(config.model_copy(update={"base_url": server.url}))
        assert client.chat("Hi.").text == "ok"
        client.close()
    sent = server.seen[0].body
    assert (sent["serviceTier"], sent["generationConfig"]["topP"], sent["generationConfig"]["maxOutputTokens"]) == (
        "flex",
        0.5,
        7,
    )


def test_a_model_must_be_named():
    """Gemini has no default model; the error shows how to name one."""
    with ScriptedServer(says("ok")) as server, pytest.raises(ValidationError, match=r"gemini:gemini-3\.5-flash-lite"):
        ask(server.url, model="")
    assert not server.seen


# The answer.


def test_the_answer_streams_word_by_word():
    """Thoughts and text come in pieces; the end carries the answer, the id, the model and disjoint token counts."""
    thought = chunk(text("Let me think.", thought=True))
    pieces = [chunk(text(w)) for w in ("Hello ", "my ")]
    with ScriptedServer(streams(thought, *pieces, chunk(text("friend."), finish="STOP"))) as server:
        events = stream(server.url, request(service="google", model=MODEL))
    assert [e.kind for e in events] == ["start", "reasoning", "text", "text", "text", "usage", "end"]
    assert [e.text for e in events if e.kind == "text"] == ["Hello ", "my ", "friend."]
    assert events[1].text == "Let me think."
    response = events[-1].response
    assert response is not None
    assert (response.text, response.request_id, response.finish_reason) == ("Hello my friend.", "resp_g1", "stop")
    assert (response.provider, response.model, response.raw) == ("gemini", "gemini-2.5-flash-001", None)
    usage = response.usage
    assert (usage.input, usage.cache_read, usage.output, usage.reasoning, usage.total) == (20, 10, 8, 4, 42)
    assert usage.raw is not None
    assert usage.raw["totalTokenCount"] == 42
    assert response.cost_usd is None  # another server's prices are not known


def test_an_answer_without_a_count_has_unknown_usage():
    """A server that counts nothing gives unknown counts, not zeros."""
    last = chunk(text("ok"), finish="STOP")
    del last["usageMetadata"]
    with ScriptedServer(streams(last)) as server:
        usage = ask(server.url).usage
    assert (usage.input, usage.output, usage.total) == (None, None, None)


def test_a_text_that_is_cut_off_is_an_answer():
    """Text that ends at its limit comes with the finish reason `length`."""
    with ScriptedServer(streams(chunk(text("Once upon"), finish="MAX_TOKENS"))) as server:
        assert ask(server.url).finish_reason == "length"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (streams(chunk(text("Well"), finish="SAFETY")), "SAFETY"),
        (streams(chunk(finish="RECITATION")), "RECITATION"),
        (streams({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), "PROHIBITED_CONTENT"),
    ],
    ids=["safety", "recitation", "prompt"],
)
def test_a_filtered_answer_is_an_error_of_its_own(reply: Reply, said: str):
    """What Gemini blocks, in the prompt or in the answer, is neither an answer nor tried again."""
    with ScriptedServer(reply) as server, pytest.raises(ContentFilteredError, match=said):
        ask(server.url)
    assert len(server.seen) == 1


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "SOMETHING_NEW"])
@pytest.mark.filterwarnings("ignore:SOMETHING_NEW is not a valid FinishReason")
def test_an_answer_that_ends_oddly_is_an_error(reason: str):
    """Other reasons to end, also such as are not known yet, are named in an error with a hint."""
    with ScriptedServer(streams(chunk(finish=reason))) as server, pytest.raises(ProviderError, match=reason) as caught:
        ask(server.url)
    assert caught.value.hint


def test_a_search_brings_citations():
    """`web_search` is Google's own search; the pages it used come as citations, each once."""
    page = {"web": {"uri": "https://example.com/a", "title": "A"}}
    found = chunk(text("Sunny."), finish="STOP", groundingMetadata={"groundingChunks": [page, page]})
    tool = ToolConfig("web_search")
    with ScriptedServer(streams(found)) as server:
        response = ask(server.url, tools=(tool,))
    assert server.seen[0].body["tools"] == [{"googleSearch": {}}]
    assert response.tool_outputs == ({"type": "citation", "url": "https://example.com/a", "title": "A"},)


def test_an_image_comes_as_output_of_a_tool():
    """An image model is asked for text and images; the image is kept with its type."""
    image = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    drawn = streams(chunk(text("Here.")), chunk(image, finish="STOP"))
    tool = ToolConfig("image_generation", config={"aspect_ratio": "16:9"})
    with ScriptedServer(drawn) as server:
        response = ask(server.url, model="gemini-2.5-flash-image", tools=(tool,))
    assert server.seen[0].body["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "16:9"},
    }
    assert "tools" not in server.seen[0].body
    assert response.text == "Here."
    assert response.tool_outputs == ({"type": "image", "media_type": "image/png", "data": PIXEL},)


# Tools.


def weather(city: str, days: int | None = None) -> str:
    """The weather.

    Args:
        city: where.
    """
    return f"sunny in {city}"


def test_parallel_calls_go_round_with_their_signatures():
    """Two calls are run, their results go back as one turn after the model's own, whose signature is untouched."""
    signature = base64.urlsafe_b64encode(b"\xfb\xff signed").decode()
    first = function_call("weather", {"city": "Rome"}, id="fc1", thoughtSignature=signature)
    second = function_call("weather", {"city": "Bonn"})
    calls = streams(chunk(text("Hm.", thought=True)), chunk(first), chunk(second, finish="STOP"))
    with ScriptedServer(calls, says("Sunny in both.")) as server:
        asked = request("Weather?", service="google", model=NEW, tools=(tool_of(weather),), tool_choice="required")
        events = stream(server.url, asked)
    kinds = [e.kind for e in events]
    assert kinds[:8] == [
        "start", "reasoning", "tool_call_start", "tool_call_delta", "tool_call_end", "tool_call_start", "tool_call_delta",
        "tool_call_end",
    ]  # fmt: skip
    assert kinds.count("tool_result") == 2
    assert events[4].data == {"id": "fc1", "arguments": '{"city": "Rome"}'}
    response = events[-1].response
    assert response is not None
    assert response.text == "Sunny in both."
    assert response.usage.total == 84
    one, two = (seen.body for seen in server.seen)
    declared = one["tools"][0]["functionDeclarations"][0]
    assert (declared["name"], declared["description"]) == ("weather", "The weather.")
    parameters = declared["parameters_json_schema"]["properties"]
    assert parameters["city"]["type"] == "string"
    assert parameters["days"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert one["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert two["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}
    turn, results = two["contents"][1:]
    assert turn["role"] == "model"
    assert turn["parts"] == [text("Hm.", thought=True), first, second]
    assert results == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "fc1", "name": "weather", "response": {"output": "sunny in Rome"}}},
            {"functionResponse": {"name": "weather", "response": {"output": "sunny in Bonn"}}},
        ],
    }


@pytest.mark.parametrize("of", [NEW, MODEL, None])
def test_signatures_go_back_only_to_the_model_that_gave_them(of: str | None):
    """Another one (a fallback, a person's new model) gets the turn without, with the mark for unsigned calls; recordings of before name none."""
    part = function_call("weather", {"city": "Rome"}, id="c1", thoughtSignature="c2lnbmVk")
    raw = {"provider": "gemini", "content": [text("Hm.", thought=True), part], **({"model": of} if of else {})}
    messages = (
        ChatMessage("user", "Weather?"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Rome"}),), raw=raw),
        ChatMessage("tool", "sunny", tool_result=ToolResult("c1", "sunny")),
    )
    with ScriptedServer(says("Sunny.")) as server:
        stream(server.url, LLMRequest("google", NEW, messages))
    parts = server.seen[0].body["contents"][1]["parts"]
    mark = base64.urlsafe_b64encode(b"skip_thought_signature_validator").decode()
    assert parts == (raw["content"] if of != MODEL else [{**part, "thoughtSignature": mark}])


@pytest.mark.parametrize(("model", "signed"), [(MODEL, False), (NEW, True), ("gemini-flash-latest", True)])
def test_calls_of_another_model_are_told(model: str, signed: bool):
    """A history of another provider has calls and results; Gemini 3 gets the mark that it wants for unsigned calls."""
    messages = (
        ChatMessage("user", "Weather?"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Rome"}),)),
        ChatMessage("tool", "", tool_result=ToolResult("c1", "no such city", is_error=True)),
    )
    tool = ToolConfig("function", name="weather", description="d", parameters={"type": "object", "properties": {}})
    again = function_call("weather", {"city": "Bonn"}, id="c2")
    with ScriptedServer(streams(chunk(again, finish="STOP"))) as server:
        events = stream(server.url, LLMRequest("google", model, messages, tools=(tool,), tool_choice="weather"))
    sent = server.seen[0].body
    call = sent["contents"][1]["parts"][0]
    assert call["functionCall"] == {"id": "c1", "name": "weather", "args": {"city": "Rome"}}
    mark = base64.urlsafe_b64decode(call["thoughtSignature"]) if signed else None
    assert mark == (b"skip_thought_signature_validator" if signed else None)
    assert sent["contents"][2]["parts"][0]["functionResponse"] == {
        "id": "c1",
        "name": "weather",
        "response": {"error": "no such city"},
    }
    assert sent["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    response = events[-1].response
    assert response is not None
    assert response.tool_calls == (ToolCall("c2", "weather", {"city": "Bonn"}),)
    assert response.finish_reason == "tool_calls"


def test_search_and_functions_go_together_from_gemini_3_on():
    """Older models are refused before the call, with what would work."""
    tools = (ToolConfig("web_search"), tool_of(weather))
    with ScriptedServer(says("ok")) as server:
        with pytest.raises(UnsupportedError, match="Gemini 3"):
            ask(server.url, tools=tools)
        assert not server.seen
        ask(server.url, model=NEW, tools=tools)
    sent = server.seen[0].body
    assert [next(iter(t)) for t in sent["tools"]] == ["googleSearch", "functionDeclarations"]
    assert sent["toolConfig"] == {"includeServerSideToolInvocations": True}


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"tools": (ToolConfig("code_interpreter"),)}, UnsupportedError, "web_search"),
        ({"tools": (ToolConfig("image_generation"),)}, UnsupportedError, "image"),
        ({"tools": (ToolConfig("web_search"),), "tool_choice": "required"}, UnsupportedError, "tool_choice"),
        ({"tools": (ToolConfig("web_search", config={"sites": 3}),)}, ValidationError, "sites"),
    ],
    ids=["unknown-tool", "no-image-model", "forced-search", "unknown-setting"],
)
def test_what_it_cannot_do_is_refused_before_the_call(more: dict[str, Any], kind: type[Exception], said: str):
    """Nothing is sent; the error says what would work."""
    with ScriptedServer(says("ok")) as server, pytest.raises(kind, match=said):
        ask(server.url, **more)
    assert not server.seen


def test_tool_choice_none_takes_the_tools_away():
    """Functions are declared but not to be called; a search is not offered at all."""
    with ScriptedServer(says("ok")) as server:
        ask(server.url, tools=(tool_of(weather),), tool_choice="none")
        ask(server.url, tools=(ToolConfig("web_search"),), tool_choice="none")
    assert server.seen[0].body["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}
    assert "tools" not in server.seen[1].body


# Structure.


def test_a_pydantic_class_comes_back_as_an_instance():
    """The class is sent as the JSON schema that Gemini knows, and the answer is an instance of it."""
    answer = '{"winner": "Ada", "mood": "bad", "sure": "yes", "best": {"text": "facts"}}'
    with ScriptedServer(says(answer)) as server:
        response = ask(server.url, response_format=Verdict)
    assert response.structured == Verdict(winner="Ada", mood=Mood.BAD, best=Reason(text="facts"))
    assert response.output_mode == "native"
    sent = server.seen[0].body["generationConfig"]
    assert sent["responseMimeType"] == "application/json"
    schema = sent["responseJsonSchema"]
    assert schema["required"] == ["winner"]
    assert schema["properties"]["sure"] == {"enum": ["yes"], "title": "Sure", "type": "string"}
    # A reference may have nothing beside it; limits of length are checked here.
    assert schema["properties"]["mood"] == {"enum": ["good", "bad"], "title": "Mood", "type": "string"}
    assert schema["$defs"]["Reason"]["properties"]["text"] == {"description": "why", "title": "Text", "type": "string"}


def test_a_schema_of_a_list_comes_back_as_a_list():
    """Gemini's native structure is not bound to objects."""
    shape = {"type": "array", "items": {"type": "integer"}}
    with ScriptedServer(says("[1, 2]")) as server:
        response = ask(server.url, response_format=shape)
    assert (response.structured, response.output_mode) == ([1, 2], "native")
    assert server.seen[0].body["generationConfig"]["responseJsonSchema"] == shape


def test_schemas_are_brought_into_its_dialect():
    """Choices among other values than texts and numbers become types; recursion stays; what cannot be said is refused."""
    shape = {
        "$defs": {
            "N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N", "description": "next"}}},
        },
        "type": "object",
        "properties": {
            "n": {"$ref": "#/$defs/N"},
            "flag": {"const": True},
            "kind": {"enum": ["a", None]},
            "pattern": {"type": "string", "pattern": "^a", "default": "a"},
        },
        "additionalProperties": False,
    }
    result = json_schema(shape)
    assert result["properties"] == {
        "n": {"$ref": "#/$defs/N"},
        "flag": {"type": "boolean"},
        "kind": {"type": ["string", "null"]},
        "pattern": {"type": "string"},
    }
    assert result["$defs"]["N"]["properties"]["n"]["properties"]["n"] == {"$ref": "#/$defs/N"}
    assert result["additionalProperties"] is False
    with pytest.raises(UnsupportedError, match="allOf"):
        json_schema({"allOf": [shape]})


def test_what_it_cannot_say_goes_another_way():
    """A schema beyond its dialect, and structure beside tools on older models, are asked for through a tool."""
    shape = {"type": "object", "properties": {"n": {"not": {"type": "null"}}}, "required": ["n"]}
    given = streams(chunk(function_call("give_answer", {"n": 3}), finish="STOP"))
    with ScriptedServer(given) as server:
        plain = ask(server.url, response_format=shape)
        beside = ask(server.url, response_format=Verdict.model_json_schema() | {"required": []}, tools=(tool_of(weather),))
    assert (plain.structured, plain.output_mode) == ({"n": 3}, "tool")
    assert (beside.structured, beside.output_mode) == ({"n": 3}, "tool")
    names = [d["name"] for d in server.seen[1].body["tools"][0]["functionDeclarations"]]
    assert names == ["weather", "give_answer"]
    assert "generationConfig" not in server.seen[0].body or "responseMimeType" not in server.seen[0].body["generationConfig"]


def test_json_mode_asks_for_json_only():
    """The output mode `json_mode` sends the type of the answer without a schema, which the prompt then has."""
    with ScriptedServer(says('{"winner": "Ada"}')) as server:
        response = ask(server.url, response_format=Verdict, output_mode="json_mode")
    assert (response.structured.winner, response.output_mode) == ("Ada", "json_mode")
    sent = server.seen[0].body
    assert "responseJsonSchema" not in sent["generationConfig"]
    assert "winner" in sent["systemInstruction"]["parts"][0]["text"]


def test_a_structured_answer_that_is_cut_off_is_not_repaired():
    """An answer that ends at its limit of tokens is an error that names the limit and has the tokens it took."""
    cut = streams(chunk(text('{"winner": "A'), finish="MAX_TOKENS"))
    with ScriptedServer(cut) as server, pytest.raises(StructureError, match="cut off") as caught:
        ask(server.url, response_format=Verdict)
    assert caught.value.usage.total == 42
    assert len(server.seen) == 1


# Failures.


def failing(*replies: Reply, **more: Any) -> tuple[LLMError, ScriptedServer]:
    """The error of a call, and the server."""
    with ScriptedServer(*replies) as server, pytest.raises(LLMError) as caught:
        ask(server.url, settings={"llm_timeout": 5.0}, **more)
    return caught.value, server


BAD_KEY = error(400, f"API key not valid: {KEY}", "INVALID_ARGUMENT", error_info("API_KEY_INVALID"))
TOO_LONG = error(400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")
HTML = "<html>\n<body>Hello</body>\n</html>"


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        (error(400, "bad field", "INVALID_ARGUMENT"), ProviderError, 1),
        (TOO_LONG, ContextLengthError, 1),
        (BAD_KEY, AuthError, 1),
        (error(401, f"what is {KEY}?", "UNAUTHENTICATED"), AuthError, 1),
        (error(403, "not allowed", "PERMISSION_DENIED"), AuthError, 1),
        (error(404, "models/gemini-x is not found", "NOT_FOUND"), ProviderError, 1),
        (error(429, "slow down", "RESOURCE_EXHAUSTED", retry_info("0.01s")), RateLimitError, 4),
        (error(429, "slow down", "RESOURCE_EXHAUSTED", retry_after="0.01"), RateLimitError, 4),
        (error(429, "slow down", "RESOURCE_EXHAUSTED", retry_info("3600s")), RateLimitError, 1),
        (error(429, "no more", "RESOURCE_EXHAUSTED", quota("RequestsPerDayPerModel")), ProviderError, 1),
        (error(500, "oops", "INTERNAL"), ProviderError, 4),
        (error(503, "overloaded", "UNAVAILABLE"), ProviderError, 4),
        (error(529, "overloaded"), ProviderError, 4),
        (lambda c: c.json(500, ["what"]), ProviderError, 4),
        (streams(chunk(text("Once ")), {"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}), ProviderError, 4),
        (streams({"error": {"message": "no code"}}), ProviderError, 1),
        (lambda c: c.json(200, {"hello": "world"}), ProviderError, 1),
        (lambda c: c.headers(200, content_length="0"), LLMConnectionError, 4),
        (lambda c: (c.headers(200, content_length=str(len(HTML))), c.send(HTML)), ProviderError, 1),
        (streams({"candidates": 7}), ProviderError, 1),
        (streams({"candidates": [{"content": {"parts": "x"}}]}), ProviderError, 1),
        (lambda c: (c.headers(connection="close"), c.send("data: {nonsense\n\n")), ProviderError, 1),
        (lambda c: c.headers(302, location="http://127.0.0.1:1/", content_length="0"), ProviderError, 1),
    ],
    ids=[
        "400", "context", "bad-key", "401", "403", "404", "429-details", "429-header", "429-long", "daily-quota", "500",
        "503", "529", "odd-body", "error-in-stream", "error-without-code", "not-a-stream", "empty", "html", "wrong-form",
        "wrong-parts", "malformed", "redirect",
    ],
)  # fmt: skip
def test_failures_are_told_apart(reply: Reply, kind: type[LLMError], tries: int):
    """Each failure is our error of its kind, with provider and model; only passing ones are tried again; no key leaks."""
    caught, server = failing(reply)
    assert isinstance(caught, kind), repr(caught)
    assert len(server.seen) == tries
    assert (caught.provider, caught.model) == ("gemini", MODEL)
    assert caught.hint
    assert KEY not in "".join(traceback.format_exception(caught))


def test_the_delay_in_the_body_is_read():
    """`RetryInfo` says how long to wait, in seconds with decimals."""
    caught, _ = failing(error(429, "slow down", "RESOURCE_EXHAUSTED", retry_info("74.5s")))
    assert isinstance(caught, RateLimitError)
    assert caught.retry_after == 74.5


def test_it_is_waited_and_then_it_works():
    """A 429 with a delay in its body and a 500 are followed by the answer, as if nothing had been."""
    busy = error(429, "slow down", "RESOURCE_EXHAUSTED", retry_info("0.2s"))
    with ScriptedServer(busy, error(500, "oops"), says("Here.")) as server:
        before = time.monotonic()
        assert ask(server.url).text == "Here."
        assert time.monotonic() - before >= 0.2
    assert len(server.seen) == 3


def test_a_server_that_is_not_there_is_a_connection_error():
    """The error names the address's variable and the way without a network."""
    with ScriptedServer(says("x")) as server:
        url = server.url
    with pytest.raises(LLMConnectionError) as caught:
        ask(url)
    assert "GOOGLE_BASE_URL" in str(caught.value)
    assert "--model local" in str(caught.value)


def test_a_connection_that_breaks_after_text_restarts_the_stream():
    """The text that was shown is taken back before the second try; the answer is that of the second try alone."""

    def breaks(call: Call) -> None:
        call.headers(content_type="text/event-stream", content_length="100000")
        call.send(body([chunk(text("Once ")), chunk(text("upon "))]))
        call.break_off()

    with ScriptedServer(breaks, says("Here.")) as server:
        events = stream(server.url, request(service="google", model=MODEL))
    kinds = [e.kind for e in events]
    assert kinds == ["start", "text", "text", "error", "stream_restarted", "text", "usage", "end"]
    assert events[-1].response is not None
    assert events[-1].response.text == "Here."


def test_a_stream_without_end_is_a_connection_error():
    """A stream that stops without a reason to end is no answer."""
    caught, _ = failing(streams(chunk(text("Once "))))
    assert isinstance(caught, LLMConnectionError)


def wait_until_lost(call: Call) -> None:
    """Send empty lines until the reader goes away."""
    for _ in range(500):
        call.send("\n")
        time.sleep(0.02)


def test_silence_is_a_timeout():
    """A stream that falls silent ends after the idle limit and the connection is closed."""

    def silent(call: Call) -> None:
        streams(chunk(text("Once ")))(call)
        time.sleep(1.0)
        wait_until_lost(call)

    with ScriptedServer(silent) as server, pytest.raises(LLMTimeoutError, match="silence"):
        ask(server.url, settings={"llm_idle_timeout": 0.3})
    assert server.lost.wait(5)


@pytest.mark.parametrize("how", ["cancelled", "left"])
def test_stopping_closes_the_connection(how: str):
    """A stopped run, and a reader that leaves the stream early, stop the provider's work: the server sees them go."""

    def endless(call: Call) -> None:
        streams(chunk(text("Once ")))(call)
        wait_until_lost(call)

    with ScriptedServer(endless) as server:

        async def go() -> None:
            service = service_for(server.url)
            spoken = asyncio.Event()

            async def listen() -> None:
                events: Any = service.stream(request(service="google", model=MODEL))
                async for event in events:
                    if event.kind == "text":
                        spoken.set()
                        if how == "left":
                            await events.aclose()

            task = asyncio.create_task(listen())
            await spoken.wait()
            if how == "cancelled":
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await asyncio.to_thread(server.lost.wait, 5)
            await service.cleanup()

        run(go())


# Keys and addresses.


def test_a_missing_key_names_the_variable_and_the_keyless_way():
    """Without a key nothing is sent; the error says what to set and what works without."""

    async def go() -> None:
        chosen = settings_with()
        await LLMService(chosen, EnvironmentAPIKeyService(chosen)).complete(request(service="google", model=MODEL))

    with pytest.raises(APIKeyNotFoundError) as caught:
        run(go())
    assert "GOOGLE_API_KEY" in str(caught.value)
    assert "--model local" in str(caught.value)


def test_the_sdk_finds_no_key_or_server_by_itself(monkeypatch: pytest.MonkeyPatch):
    """Variables that the SDK would read are not: the key and the server are those of the settings."""
    variables = {
        "GEMINI_API_KEY": "AIza-other",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_GENAI_API_VERSION": "v7",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ScriptedServer(says("ok")) as server:
        assert ask(server.url, settings={"google_api_key": None}).text == "ok"
        assert ask(server.url).text == "ok"
    assert [s.headers["x-goog-api-key"] for s in server.seen] == ["not-needed", KEY]
    assert all("/v1beta/" in s.path for s in server.seen)


def test_aiohttp_is_not_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    """The SDK would take it; ours is one way for time limits and closing."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    with ScriptedServer(says("ok")) as server:
        assert ask(server.url).text == "ok"


def test_many_first_calls_make_one_client():
    """Calls that start together share the client that the first of them makes."""
    with ScriptedServer(says("ok")) as server:

        async def go() -> set[int]:
            config = AdapterConfig(provider_type="gemini", model=MODEL, base_url=server.url, api_key=SecretStr(KEY))
            client = UnifiedGoogleClient(config)
            made = await asyncio.gather(*(client._client(client.secret()) for _ in range(10)))
            await client.cleanup()
            return {id(one) for one in made}

        assert len(run(go())) == 1


@pytest.mark.parametrize("variable", ["GOOGLE_BASE_URL", "GOOGLE_GEMINI_BASE_URL"])
def test_both_variables_name_the_server(variable: str, monkeypatch: pytest.MonkeyPatch):
    """Ours and that of Google's SDK."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert Settings().google_base_url == "http://127.0.0.1:9"


def test_a_key_is_not_sent_to_a_server_that_only_a_diagram_names():
    """A diagram's own base URL gets no key of the environment."""
    with ScriptedServer(says("ok"), error(403, "no key")) as server:
        foreign = server.url.replace("127.0.0.1", "0.0.0.0")
        asked = request(service="google", model=MODEL, base_url=foreign)

        async def go() -> None:
            chosen = settings_with(google_api_key=SecretStr(KEY))
            service = LLMService(chosen, EnvironmentAPIKeyService(chosen))
            await service.complete(asked)
            try:
                await service.complete(asked)
            finally:
                await service.cleanup()

        with pytest.raises(AuthError, match="GOOGLE_BASE_URL"):
            run(go())
    assert all(KEY not in json.dumps(seen.headers) for seen in server.seen)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/v1", "http://", "not a url"])
def test_an_address_that_is_none_is_refused(url: str):
    """A base URL that is no http(s) address is a mistake of the settings, said before any call."""
    with pytest.raises(ConfigurationError, match="not an http"):
        ask(url)


def test_a_key_can_be_checked():
    """The list of models says whether a key is taken."""
    models = {"models": [{"name": "models/gemini-2.5-flash"}]}
    with ScriptedServer(lambda c: c.json(200, models), BAD_KEY) as server:

        async def go() -> list[bool]:
            service = service_for(server.url)
            both = [await service.validate_api_key("google"), await service.validate_api_key("gemini")]
            await service.cleanup()
            return both

        assert run(go()) == [True, False]
    assert server.seen[0].method == "GET"
    assert server.seen[0].path.startswith("/v1/v1beta/models?")


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture):
    """Neither logs at DEBUG, nor errors with their whole chain of causes, nor reprs hold the key."""
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(says("ok"), error(400, f"what is {KEY}?")) as server:

        async def go() -> str:
            service = service_for(server.url)
            asked = request(service="google", model=MODEL)
            response = await service.complete(asked)
            shown = f"{service!r} {service.__dict__!r} {service._clients.__dict__!r} {response!r}"
            for entry in service._clients._entries.values():
                shown += f"{entry.client!r} {entry.client.__dict__!r}"
            try:
                await service.complete(asked)
            except ProviderError as caught:
                shown += f"{caught!r} {caught} {caught.facts} {''.join(traceback.format_exception(caught))}"
            await service.cleanup()
            return shown

        shown = run(go())
    assert KEY not in shown
    assert KEY not in caplog.text


def test_connections_are_reused():
    """Many calls go through one TCP connection."""
    ports: set[int] = set()

    def keep(call: Call) -> None:
        ports.add(call.port)
        said = body([chunk(text("ok"), finish="STOP")])
        call.headers(content_type="text/event-stream", content_length=str(len(said)))
        call.send(said)

    with ScriptedServer(keep) as server:

        async def go() -> None:
            service = service_for(server.url)
            for _ in range(20):
                await service.complete(request(service="google", model=MODEL))
            await service.cleanup()
            await service.cleanup()  # safe to call twice

        run(go())
    assert len(ports) == 1

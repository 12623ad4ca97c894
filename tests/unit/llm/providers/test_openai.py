"""The OpenAI client, through the official SDK, against servers on the loopback."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import enum
import json
import logging
import time
import traceback
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

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
)
from dipeo_nb.llm.core.errors import retry_after
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import tools_of
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.wire_openai import (
    Call,
    Reply,
    ScriptedServer,
    answer,
    delta,
    events_of,
    final,
    llama_server,
    message,
    request,
    run,
    says,
    settings_with,
)

KEY = "sk-canary-7f3a9b2c4d5e6f"


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Reason(BaseModel):
    text: str = Field(description="why")


class Verdict(BaseModel):
    winner: str
    mood: Mood = Mood.GOOD
    reasons: list[Reason] = []
    best: Reason | None = Field(default=None, description="the best one")


def service_for(url: str, **settings: Any) -> LLMService:
    """The service with a key, sent to *url*."""
    chosen = settings_with(**{"openai_base_url": url, "openai_api_key": SecretStr(KEY), **settings})
    return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(initial_delay=0.01))


def ask(url: str, prompt: str = "Say hello.", *, settings: dict[str, Any] | None = None, **more: Any) -> LLMResponse:
    """One call through the service."""

    async def call() -> LLMResponse:
        service = service_for(url, **(settings or {}))
        try:
            return await service.complete(request(prompt, service="openai", **more))
        finally:
            await service.cleanup()

    return run(call())


# The request.


def test_the_body_is_of_the_responses_api():
    """`input` with roles, `max_output_tokens`, the model and the key go out; chat's `messages` and `max_tokens` do not."""
    with ScriptedServer(says("Hello there.")) as server:
        ask(server.url, model="gpt-4o", max_tokens=50, temperature=0.3)
    seen = server.seen[0]
    assert seen.path == "/v1/responses"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "Say hello."}],
        "max_output_tokens": 50,
        "temperature": 0.3,
        "store": False,
        "stream": True,
    }


def test_the_default_model_is_the_setting():
    """A person that names no model gets the settings' one."""
    with ScriptedServer(says("ok")) as server:
        ask(server.url, settings={"default_llm_model": "gpt-test"})
    assert server.seen[0].body["model"] == "gpt-test"


def test_tools_and_their_results_are_sent():
    """Function tools, the model's calls and the tools' answers have the shapes of the Responses API."""
    messages = (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Weather?"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Rome"}),)),
        ChatMessage("tool", "", tool_result=ToolResult("c1", "sunny")),
    )
    tool = ToolConfig("function", name="weather", description="d", parameters={"type": "object", "properties": {}})
    call = {"type": "function_call", "id": "f", "call_id": "c2", "name": "weather", "arguments": '{"city": "Bonn"}'}
    with ScriptedServer(lambda c: c.stream([final(call)])) as server:

        async def go() -> LLMResponse:
            service = service_for(server.url)
            response = await service.complete(LLMRequest("openai", "gpt-4o", messages, tools=(tool,)))
            await service.cleanup()
            return response

        response = run(go())
    body = server.seen[0].body
    assert [m.get("role", m.get("type")) for m in body["input"]] == [
        "system",
        "user",
        "function_call",
        "function_call_output",
    ]
    assert body["input"][2]["arguments"] == '{"city": "Rome"}'
    assert body["tools"][0]["name"] == "weather"
    assert response.tool_calls == (ToolCall("c2", "weather", {"city": "Bonn"}),)
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("model", "takes"),
    [("gpt-4o", True), ("gpt-5-nano", False), ("o3-mini", False), ("gpt-5-chat-latest", True), ("llama", True)],
)
def test_temperature_goes_only_where_it_is_taken(model: str, takes: bool):
    """Models that refuse `temperature` do not get it, and the user is told once."""
    assert UnifiedOpenAIClient().capabilities(model).supports_temperature is takes
    with ScriptedServer(says("ok")) as server:

        async def go() -> list[list[StreamEvent]]:
            service = service_for(server.url)
            asked = request(service="openai", model=model, temperature=0.2)
            both = [await events_of(service, asked), await events_of(service, asked)]
            await service.cleanup()
            return both

        first, second = run(go())
    assert ("temperature" in server.seen[0].body) is takes
    notices = [e.data["notice"] for e in (*first, *second) if e.kind == "start" and e.data]
    assert notices == ([] if takes else [f"{model} takes no temperature; 0.2 is left out."])


# The answer.


def test_the_answer_streams_word_by_word():
    """Text comes in pieces; the end carries the whole answer, the request id, and disjoint token counts."""
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    with ScriptedServer(says("Hello my friend.", reasoning, x_request_id="req_42")) as server:

        async def go() -> list[StreamEvent]:
            service = service_for(server.url)
            events = await events_of(service, request(service="openai", model="gpt-5-nano"))
            await service.cleanup()
            return events

        events = run(go())
    assert [e.kind for e in events] == ["start", "text", "text", "text", "usage", "end"]
    assert [e.text for e in events if e.kind == "text"] == ["Hello ", "my ", "friend."]
    response = events[-1].response
    assert response is not None
    assert (response.text, response.request_id, response.finish_reason) == ("Hello my friend.", "req_42", "stop")
    usage = response.usage
    assert (usage.input, usage.cache_read, usage.output, usage.reasoning, usage.total) == (20, 10, 8, 4, 42)
    assert usage.raw is not None
    assert usage.raw["total_tokens"] == 42


def test_a_pydantic_class_comes_back_as_an_instance():
    """The class is sent as a strict schema, and the answer is an instance of it, nested values and enums included."""
    text = '{"winner": "Ada", "mood": "bad", "reasons": [{"text": "facts"}], "best": null}'
    with ScriptedServer(says(text)) as server:
        response = ask(server.url, response_format=Verdict)
    assert response.structured == Verdict(winner="Ada", mood=Mood.BAD, reasons=[Reason(text="facts")])
    assert response.output_mode == "native"
    sent = server.seen[0].body["text"]["format"]
    assert (sent["type"], sent["name"], sent["strict"]) == ("json_schema", "Verdict", True)
    assert sent["schema"]["required"] == ["winner", "mood", "reasons", "best"]
    assert sent["schema"]["additionalProperties"] is False
    assert sent["schema"]["$defs"]["Reason"]["additionalProperties"] is False
    assert "default" not in json.dumps(sent["schema"])


def test_a_json_schema_comes_back_as_a_dict():
    """A closed schema is sent as it is and strict; one with optional fields is not called strict, and is checked here."""
    closed = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    loose = {"type": "object", "properties": {"n": {"type": "integer"}}}
    with ScriptedServer(says('{"n": 3}')) as server:
        first = ask(server.url, response_format=closed)
        second = ask(server.url, response_format=loose)
    assert (first.structured, first.output_mode) == ({"n": 3}, "native")
    assert (second.structured, second.output_mode) == ({"n": 3}, "json_mode")
    formats = [s.body["text"]["format"] for s in server.seen]
    assert [f["strict"] for f in formats] == [True, False]
    assert [f["schema"] for f in formats] == [closed, loose]


def test_an_answer_that_does_not_fit_is_asked_for_again_once():
    """The model is told what does not fit; the stream says that it starts anew; the tokens of both calls are counted."""
    with ScriptedServer(says('{"mood": "fine"}'), says('{"winner": "Ada"}')) as server:

        async def go() -> list[StreamEvent]:
            service = service_for(server.url)
            events = await events_of(service, request(service="openai", response_format=Verdict))
            await service.cleanup()
            return events

        events = run(go())
    assert [e.kind for e in events if e.kind not in ("text", "partial")] == ["start", "stream_restarted", "usage", "end"]
    response = events[-1].response
    assert response is not None
    assert response.structured.winner == "Ada"
    assert response.usage.total == 84
    again = server.seen[1].body["input"]
    assert [m["role"] for m in again] == ["user", "assistant", "user"]
    assert "winner" in again[2]["content"]


def test_a_second_unfitting_answer_is_an_error():
    """After one repair the error says what does not fit."""
    with ScriptedServer(says("I would rather not.")) as server, pytest.raises(StructureError) as caught:
        ask(server.url, response_format=Verdict)
    assert len(server.seen) == 2
    assert "holds no JSON" in caught.value.message


def test_a_structured_answer_that_is_cut_off_is_not_repaired():
    """An answer that ends at its limit of tokens is an error that names the limit; asking again would not help."""
    cut = final(message('{"winner": "A'), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    with ScriptedServer(lambda c: c.stream([cut])) as server, pytest.raises(StructureError, match="cut off") as caught:
        ask(server.url, response_format=Verdict)
    assert "max_tokens" in str(caught.value.hint)
    assert len(server.seen) == 1


def test_a_text_that_is_cut_off_is_an_answer():
    """Text that ends at its limit comes with the finish reason `length`."""
    cut = final(message("Once upon"), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    with ScriptedServer(lambda c: c.stream([delta("Once upon"), cut])) as server:
        assert ask(server.url).finish_reason == "length"


def test_a_structure_that_is_no_object_goes_through_a_tool():
    """OpenAI answers in objects; a list is asked for as the argument of a tool, and the response says so."""
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "give_answer",
        "arguments": '{"value": ["a", "b"]}',
    }
    shape = {"type": "array", "items": {"type": "string"}}
    with ScriptedServer(lambda c: c.stream([final(call)])) as server:
        response = ask(server.url, response_format=shape)
    assert (response.structured, response.output_mode, response.tool_calls) == (["a", "b"], "tool", ())
    body = server.seen[0].body
    assert body["tools"][0]["parameters"]["properties"]["value"] == shape
    assert body["tool_choice"] == {"type": "function", "name": "give_answer"}
    assert "text" not in body


@pytest.mark.parametrize(
    "ending",
    [
        final({**message(""), "content": [{"type": "refusal", "refusal": "I cannot help with that."}]}),
        final(message("x"), status="incomplete", incomplete_details={"reason": "content_filter"}),
    ],
    ids=["refusal", "filter"],
)
def test_a_refusal_is_an_error_of_its_own(ending: dict[str, Any]):
    """A model that refuses, or a provider that filters, is neither an answer nor tried again."""
    with ScriptedServer(lambda c: c.stream([ending])) as server, pytest.raises(ContentFilteredError):
        ask(server.url)
    assert len(server.seen) == 1


# Failures.


def failing(*replies: Reply) -> tuple[LLMError, ScriptedServer]:
    """The error of a call, and the server."""
    with ScriptedServer(*replies) as server, pytest.raises(LLMError) as caught:
        ask(server.url, model="gpt-x", settings={"llm_timeout": 5.0})
    return caught.value, server


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        (lambda c: c.error(400, "bad field"), ProviderError, 1),
        (lambda c: c.error(400, "too long", "context_length_exceeded"), ContextLengthError, 1),
        (lambda c: c.error(401, f"Incorrect API key provided: {KEY}"), AuthError, 1),
        (lambda c: c.error(403, "not allowed"), AuthError, 1),
        (lambda c: c.error(404, "no such model"), ProviderError, 1),
        (lambda c: c.error(429, "slow down", retry_after="0.01"), RateLimitError, 4),
        (lambda c: c.error(429, "slow down", retry_after="3600"), RateLimitError, 1),
        (lambda c: c.error(429, "no money", "insufficient_quota"), ProviderError, 1),
        (lambda c: c.error(500, "oops"), ProviderError, 4),
        (lambda c: c.error(503, "oops"), ProviderError, 4),
        (lambda c: c.json(200, {"hello": "world"}), ProviderError, 1),
        (lambda c: c.headers(204), LLMError, 4),
        (lambda c: c.stream([{"type": "error", "message": "broken", "code": "server_error"}]), ProviderError, 4),
        (lambda c: c.stream([{"type": "error", "error": {"message": "broken", "code": "bad"}}]), ProviderError, 1),
        (lambda c: c.stream([final(status="failed", error={"code": "bad", "message": "no"})]), ProviderError, 1),
        (lambda c: c.stream([{"type": "response.completed", "response": {"output": None}}]), ProviderError, 1),
        (lambda c: (c.headers(content_type="text/event-stream"), c.send("data: {nonsense\n\n")), ProviderError, 1),
    ],
    ids=[
        "400", "context", "401", "403", "404", "429", "429-long", "quota", "500", "503", "not-a-stream", "empty",
        "error-event", "error-object", "failed", "wrong-form", "malformed",
    ],
)  # fmt: skip
def test_failures_are_told_apart(reply: Reply, kind: type[LLMError], tries: int):
    """Each failure is our error of its kind, with provider and model; only passing ones are tried again; no key leaks."""
    error, server = failing(reply)
    assert isinstance(error, kind), repr(error)
    assert len(server.seen) == tries
    assert (error.provider, error.model) == ("openai", "gpt-x")
    assert error.hint
    assert KEY not in "".join(traceback.format_exception(error))


def test_retry_after_is_waited_for_and_then_it_works():
    """A 429 and a 500 are followed by the answer, as if nothing had been."""
    with ScriptedServer(
        lambda c: c.error(429, "slow down", retry_after="0.2"), lambda c: c.error(500, "oops"), says("Here.")
    ) as server:
        before = time.monotonic()
        assert ask(server.url).text == "Here."
        assert time.monotonic() - before >= 0.2
    assert len(server.seen) == 3


def test_both_forms_of_retry_after_are_read():
    """Seconds, milliseconds and HTTP dates are understood; nonsense is no answer."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    date = email.utils.format_datetime(now + datetime.timedelta(seconds=7), usegmt=True)
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": date}, now) == 7
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_a_server_that_is_not_there_is_a_connection_error():
    """The error names the address's variable and the way without a network."""
    with ScriptedServer(says("x")) as server:
        url = server.url
    with pytest.raises(LLMConnectionError) as caught:
        ask(url)
    assert "OPENAI_BASE_URL" in str(caught.value)
    assert "--model local" in str(caught.value)


def test_a_connection_that_breaks_after_text_restarts_the_stream():
    """The text that was shown is taken back before the second try; the answer is that of the second try alone."""

    def breaks(call: Call) -> None:
        call.headers(content_type="text/event-stream", content_length="100000")
        call.events([delta("Once "), delta("upon ")])
        call.break_off()

    with ScriptedServer(breaks, says("Here.")) as server:

        async def go() -> list[StreamEvent]:
            service = service_for(server.url)
            events = await events_of(service, request(service="openai"))
            await service.cleanup()
            return events

        events = run(go())
    kinds = [e.kind for e in events]
    assert kinds == ["start", "text", "text", "error", "stream_restarted", "text", "usage", "end"]
    assert events[-1].response is not None
    assert events[-1].response.text == "Here."


def test_a_stream_without_end_is_a_connection_error():
    """A stream that stops without its final event is no answer."""
    error, _ = failing(lambda c: c.stream([delta("Once ")]))
    assert isinstance(error, LLMConnectionError)


def test_silence_is_a_timeout():
    """A stream that falls silent ends after the idle limit and the connection is closed."""

    def silent(call: Call) -> None:
        call.stream([delta("Once ")])
        time.sleep(1.0)
        call.wait_until_lost()

    with ScriptedServer(silent) as server, pytest.raises(LLMTimeoutError, match="silence"):
        ask(server.url, settings={"llm_idle_timeout": 0.3})
    assert server.lost.wait(5)


def test_a_slow_answer_is_a_timeout():
    """An answer that is not there within the limit of the call is an error that names the setting."""
    with (
        ScriptedServer(lambda c: c.stream(answer("a b c d e f g h i j"), pause=0.2)) as server,
        pytest.raises(LLMTimeoutError, match="DIPEO_LLM_TIMEOUT"),
    ):
        ask(server.url, timeout=0.5)


def test_cancelling_closes_the_connection():
    """A stopped run stops the provider's work: the server sees the reader go away."""

    def endless(call: Call) -> None:
        call.stream([delta("Once ")])
        call.wait_until_lost()

    with ScriptedServer(endless) as server:

        async def go() -> None:
            service = service_for(server.url)
            spoken = asyncio.Event()

            async def listen() -> None:
                async for event in service.stream(request(service="openai")):
                    if event.kind == "text":
                        spoken.set()

            task = asyncio.create_task(listen())
            await spoken.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.lost.wait, 5)
            await service.cleanup()

        run(go())


# Keys and addresses.


def test_a_missing_key_names_the_variable_and_the_keyless_way():
    """Without a key nothing is sent; the error says what to set and what works without."""

    async def go() -> None:
        chosen = settings_with()
        await LLMService(chosen, EnvironmentAPIKeyService(chosen)).complete(request(service="openai"))

    with pytest.raises(APIKeyNotFoundError) as caught:
        run(go())
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "--model local" in str(caught.value)


def test_a_key_is_not_sent_to_a_server_that_only_a_diagram_names():
    """A diagram's own base URL gets no key of the environment; one that the user trusts does."""
    with ScriptedServer(says("ok"), lambda c: c.error(401, "no key")) as server:
        foreign = server.url.replace("127.0.0.1", "0.0.0.0")
        chosen = settings_with(openai_api_key=SecretStr(KEY))

        async def go() -> None:
            service = LLMService(chosen, EnvironmentAPIKeyService(chosen))
            await service.complete(request(service="openai", base_url=foreign))
            try:
                await service.complete(request(service="openai", base_url=foreign))
            finally:
                await service.cleanup()

        with pytest.raises(AuthError, match="OPENAI_BASE_URL"):
            run(go())
    assert all(KEY not in json.dumps(seen.headers) for seen in server.seen)


def test_a_server_of_ones_own_needs_no_key():
    """OPENAI_BASE_URL with no key works, as local servers want none."""
    with ScriptedServer(says("ok")) as server:
        assert ask(server.url, settings={"openai_api_key": None}).text == "ok"


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/v1", "http://", "http://x:99999/", "not a url"])
def test_an_address_that_is_none_is_refused(url: str):
    """A base URL that is no http(s) address is a mistake of the settings, said before any call."""
    with pytest.raises(ConfigurationError, match="not an http"):
        ask(url)


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture):
    """Neither logs at DEBUG, nor errors with their whole chain of causes, nor reprs hold the key."""
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(says("ok"), lambda c: c.error(400, f"what is {KEY}?")) as server:

        async def go() -> str:
            service = service_for(server.url)
            await service.complete(request(service="openai"))
            shown = f"{service!r} {service.__dict__!r} {service._clients.__dict__!r}"
            try:
                await service.complete(request(service="openai"))
            except ProviderError as error:
                shown += f"{error!r} {error} {error.facts}"
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
        body = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in answer("ok"))
        call.headers(content_type="text/event-stream", content_length=str(len(body)))
        call.send(body)

    with ScriptedServer(keep) as server:

        async def go() -> None:
            service = service_for(server.url)
            for _ in range(20):
                await service.complete(request(service="openai"))
            await service.cleanup()
            await service.cleanup()  # safe to call twice

        run(go())
    assert len(ports) == 1


# A real model behind a real wire.


@pytest.mark.model
def test_a_real_server_answers():
    """llama.cpp's Responses endpoint streams a text with counted tokens through the official SDK."""

    settings = settings_with(openai_base_url=llama_server())

    async def go() -> list[StreamEvent]:
        client = UnifiedOpenAIClient(
            AdapterConfig(provider_type="openai", base_url=settings.openai_base_url), settings=settings
        )
        asked = LLMRequest("openai", "smollm2", (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi!")), max_tokens=12)
        events = await events_of(client, asked)
        await client.cleanup()
        return events

    events = run(go())
    response = events[-1].response
    assert response is not None
    assert "".join(e.text for e in events if e.kind == "text") == response.text != ""
    assert (response.usage.total or 0) > 12


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
SIGNED = {**THOUGHT, "encrypted_content": "xyz"}


@pytest.mark.parametrize(
    ("model", "said", "expected"),
    [
        ("gpt-5-nano", [SIGNED, CALL], [SIGNED, CALL]),
        ("my-deployment", [SIGNED, CALL], [SIGNED, CALL]),
        ("my-deployment", [THOUGHT, CALL], [{k: v for k, v in CALL.items() if k != "id"}]),
        ("gpt-5-nano", [THOUGHT, message("Let me see."), CALL], [{"role": "assistant", "content": "Let me see."}, {k: v for k, v in CALL.items() if k != "id"}]),
        ("gpt-5-nano", [{**THOUGHT, "encrypted_content": ""}, message(" "), CALL], [{k: v for k, v in CALL.items() if k != "id"}]),
        ("gpt-oss-120b", [{**THOUGHT, "content": [{"type": "reasoning_text", "text": "hm"}]}, CALL], [{k: v for k, v in CALL.items() if k != "id"}]),
        ("qwen3", [{**CALL, "arguments": '{"city": "Par'}], [{**CALL, "arguments": "{}"}]),
    ],
    ids=["own", "gateway", "gateway, not signed", "with words", "blank", "open", "unreadable"],
)  # fmt: skip
def test_a_turn_goes_back_as_it_may(model: str, said: list[Any], expected: list[Any]):
    """Nothing is stored at the server: thoughts go back only when they are signed; without them, nothing asks for them by its id."""

    def weather(city: str) -> str:
        """The weather."""
        return "warm"

    first = [
        {"type": "response.output_item.done", "output_index": n, "item": item, "sequence_number": n}
        for n, item in enumerate(said)
    ]
    with ScriptedServer(lambda call: call.stream([*first, final(*said)]), says("Warm.")) as server:
        config = settings_with(openai_base_url=server.url, openai_api_key=SecretStr("sk-test"))
        service = LLMService(config, EnvironmentAPIKeyService(config))
        answer = run(service.complete(request("Weather?", service="openai", model=model, tools=tools_of([weather]))))
        sent = server.seen[-1].body["input"]
    assert answer.text == "Warm."
    assert sent[1:-1] == expected
    assert sent[-1]["call_id"] == "c1"


@pytest.mark.parametrize(("following", "kept"), [("gpt-5-nano", True), ("gpt-6-sol", False), ("gpt-4o", False)])
def test_sealed_thoughts_go_back_only_to_the_model_that_had_them(following: str, kept: bool):
    """Another model cannot open them, and one that does not reason refuses them: here a fallback between two rounds of tools."""

    def weather(city: str) -> str:
        """The weather."""
        return "warm"

    first = [
        {"type": "response.output_item.done", "output_index": n, "item": item, "sequence_number": n}
        for n, item in enumerate([SIGNED, CALL])
    ]
    replies: list[Reply] = [
        lambda call: call.stream([*first, final(SIGNED, CALL)]),
        lambda call: call.error(500, "down"),
        says("Warm."),
    ]
    with ScriptedServer(*replies) as server:
        config = settings_with(openai_base_url=server.url, openai_api_key=SecretStr("sk-test"))
        service = LLMService(config, EnvironmentAPIKeyService(config), retries=RetryConfig(1))
        asked = request(
            "Weather?", service="openai", model="gpt-5-nano", tools=tools_of([weather]), fallbacks=[f"openai:{following}"]
        )
        assert run(service.complete(asked)).text == "Warm."
        sent = [seen.body["input"][1:-1] for seen in server.seen[1:]]
    assert sent == [[SIGNED, CALL], [SIGNED, CALL] if kept else [{k: v for k, v in CALL.items() if k != "id"}]]


def test_turns_recorded_before_go_back_whole():
    """They do not say which model they are of."""
    turn = ChatMessage("assistant", "", raw={"provider": "openai", "content": [SIGNED, CALL]})
    client = UnifiedOpenAIClient(AdapterConfig(provider_type="openai", api_key=SecretStr(KEY)))
    assert client._body(LLMRequest("openai", "gpt-6-sol", (turn,)))["input"] == [SIGNED, CALL]

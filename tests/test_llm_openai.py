"""The OpenAI client through the official SDK against a real HTTP server: what it sends, and what it makes of answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, ToolCall, ToolConfig, ToolResult
from dipeo_nb.errors import (
    AuthError,
    ContentFilteredError,
    ContextLengthError,
    DipeoError,
    LLMConnectionError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    ValidationError,
)
from dipeo_nb.llm import service as service_module
from dipeo_nb.llm.providers.openai import accepts_temperature, retry_after
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.wire import Wire, answers, openai_response, refuses, serve

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(service_module, "BACKOFF_S", 0.001)


def service(wire: Wire | str, **settings: Any) -> LLMService:
    url = wire if isinstance(wire, str) else wire.url
    chosen = Settings(openai_api_key=SecretStr(KEY), openai_base_url=url, **settings)
    return LLMService(chosen, EnvironmentAPIKeyService(chosen))


def ask(
    wire: Wire | str, *messages: ChatMessage, settings: dict[str, Any] | None = None, **request: Any
) -> LLMResponse:
    async def go() -> LLMResponse:
        llm = service(wire, **(settings or {}))
        try:
            given = {
                "service": "openai",
                "model": "gpt-4.1-nano",
                "messages": list(messages) or [ChatMessage("user", "hi")],
            }
            return await llm.complete(LLMRequest(**{**given, **request}))
        finally:
            await llm.cleanup()

    return run_sync(go())


def test_the_request_and_the_answer():
    """`input`, `max_output_tokens`, developer role and temperature go out; text and disjoint usage come back."""
    with serve(answers("Hello", " there")) as wire:
        response = ask(
            wire, ChatMessage("system", "Be kind."), ChatMessage("user", "hi"), max_tokens=50, temperature=0.3
        )
    [request] = wire.requests
    assert request.path == "/v1/responses"
    assert request.body == {
        "model": "gpt-4.1-nano",
        "input": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "max_output_tokens": 50,
        "temperature": 0.3,
        "stream": True,
    }
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert response.text == "Hello there"
    usage = response.usage
    assert (usage.input, usage.cache_read, usage.output, usage.reasoning, usage.total) == (40, 60, 10, 20, 130)
    assert usage.raw is not None
    assert usage.raw["input_tokens"] == 100
    assert response.cost_usd == pytest.approx((40 * 0.05 + 60 * 0.005 + 30 * 0.4) / 1e6, rel=0.2)
    assert response.request_id == "resp_1"


def test_streaming_arrives_piece_by_piece():
    """Tokens come as they are produced, then usage, then one end."""

    async def go(wire: Wire) -> tuple[list[str], float, float]:
        llm = service(wire)
        begin, first, kinds = time.monotonic(), 0.0, []
        async for event in llm.stream(LLMRequest("openai", "m", [ChatMessage("user", "x")])):
            kinds.append(event.kind)
            if event.kind == "text" and not first:
                first = time.monotonic() - begin
        await llm.cleanup()
        return kinds, first, time.monotonic() - begin

    with serve(answers("a", "b", "c", "d", delay=0.1)) as wire:
        kinds, first, total = run_sync(go(wire))
    assert kinds == ["start", "text", "text", "text", "text", "usage", "end"]
    assert first < total - 0.25


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gpt-5-nano-2025-08-07", False),
        ("o3-mini", False),
        ("gpt-5-chat-latest", True),
        ("gpt-4.1", True),
        ("llama", True),
    ],
)
def test_temperature_only_where_it_is_taken(model: str, takes: bool, caplog: pytest.LogCaptureFixture):
    """Models that refuse a temperature do not get one, and one notice says so."""
    assert accepts_temperature(model) is takes
    with serve(answers("x")) as wire, caplog.at_level(logging.WARNING):
        ask(wire, model=model, temperature=0.5)
    assert ("temperature" in wire.requests[0].body) is takes
    assert len(caplog.records) == (0 if takes else 1)


class Color(Enum):
    RED = "red"


class Inner(BaseModel):
    n: int


class Shape(BaseModel):
    name: str
    color: Color = Color.RED
    inner: Inner


def test_structured_answers_with_a_pydantic_class():
    """The class's closed schema goes out in strict mode; an instance comes back, nested models and enums included."""
    with serve(answers('{"name": "x", "color": "red", ', '"inner": {"n": 3}}')) as wire:
        response = ask(wire, response_format=Shape)
    form = wire.requests[0].body["text"]["format"]
    assert (form["type"], form["strict"], form["name"]) == ("json_schema", True, "Shape")
    assert form["schema"]["required"] == ["name", "color", "inner"]
    assert form["schema"]["additionalProperties"] is False
    assert form["schema"]["$defs"]["Inner"]["additionalProperties"] is False
    assert response.structured == Shape(name="x", inner=Inner(n=3))
    assert response.rung == "native"


def test_structured_answers_with_a_schema():
    """A JSON schema goes out as it is when it is not closed; an object comes back, checked."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
    with serve(answers('{"a": 1}'), answers('{"a": "one"}')) as wire:
        assert ask(wire, response_format=schema).structured == {"a": 1}
        assert wire.requests[0].body["text"]["format"]["strict"] is False
        with pytest.raises(ProviderError, match=r"does not fit.*a: 'one' is not of type 'integer'"):
            ask(wire, response_format=schema)


def test_tools():
    """Functions go out with their schema; parallel calls come back; results are told with their call's id."""
    final = openai_response("")
    final["output"] = [
        {
            "type": "function_call",
            "id": f"fc_{n}",
            "call_id": f"c{n}",
            "name": "add",
            "arguments": f'{{"n": {n}}}',
            "status": "completed",
        }
        for n in (1, 2)
    ]
    add = ToolConfig("function", "add", "Adds.", {"type": "object", "properties": {"n": {"type": "integer"}}})
    with serve(answers(final=final), answers("3")) as wire:
        response = ask(wire, tools=(add, ToolConfig("web_search")))
        assert response.tool_calls == (ToolCall("c1", "add", {"n": 1}), ToolCall("c2", "add", {"n": 2}))
        said = ChatMessage("assistant", "", tool_calls=response.tool_calls)
        ask(wire, ChatMessage("user", "x"), said, ChatMessage("tool", "", tool_result=ToolResult("c1", "2")))
    tools = wire.requests[0].body["tools"]
    assert [t["type"] for t in tools] == ["function", "web_search"]
    assert tools[0]["parameters"]["properties"] == {"n": {"type": "integer"}}
    assert wire.requests[1].body["input"][1:] == [
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"n": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"n": 2}'},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_tried_again(status: int):
    """Failures that may pass are tried again until an answer comes."""
    with serve(refuses(status), refuses(status), answers("fine")) as wire:
        assert ask(wire).text == "fine"
    assert len(wire.requests) == 3


def test_retry_after_is_honoured():
    """A 429 is tried again when the provider said, not before."""
    with serve(refuses(429, Retry_After="0.3"), answers("fine")) as wire:
        begin = time.monotonic()
        ask(wire)
    assert time.monotonic() - begin >= 0.3


def test_retry_after_in_all_its_forms():
    """Seconds, milliseconds and a date are understood; nonsense is not."""
    from datetime import UTC, datetime

    now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, now) == 30
    assert retry_after({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, now) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("script", "error", "tries"),
    [
        (refuses(401, f"Incorrect API key provided: {KEY}"), AuthError, 1),
        (refuses(403), AuthError, 1),
        (refuses(404, "The model does not exist"), ProviderError, 1),
        (refuses(400, "too long", code="context_length_exceeded"), ContextLengthError, 1),
        (refuses(400, "bad words", code="content_filter"), ContentFilteredError, 1),
        (refuses(400, "what?"), ProviderError, 1),
        (refuses(500), ProviderError, 4),
        (refuses(429, Retry_After="3600"), RateLimitError, 1),
        (lambda reply, request: reply.json(200, b"<html>not json</html>", Content_Type="text/html"), LLMConnectionError, 4),
        (lambda reply, request: reply.stream(iter(["data: {broken\n\n"])), ProviderError, 1),
        (lambda reply, request: reply.stream(iter([])), LLMConnectionError, 4),
    ],
    ids=["401", "403", "404", "context", "filter", "400", "500", "429-long", "html", "broken-json", "empty"],
)  # fmt: skip
def test_errors(script: Any, error: type[DipeoError], tries: int):
    """Each failure is one of our classes, with a hint and without the key; final ones are not tried again."""
    with serve(script) as wire, pytest.raises(error) as caught:
        ask(wire)
    assert len(wire.requests) == tries
    assert caught.value.hint
    shown = f"{caught.value} {caught.value!r} {caught.value.facts}"
    cause: BaseException | None = caught.value
    assert KEY not in shown
    while cause is not None:
        cause = cause.__cause__
    assert caught.value.facts["provider"] == "openai"


def test_a_broken_stream_is_not_told_twice():
    """A connection that breaks after text was shown is an error, not a second answer."""

    def half(reply: Any, request: Any) -> None:
        from tests.wire import openai_events

        events = openai_events("one", "two")
        reply.stream(e for _, e in zip(range(2), events, strict=False))

    with serve(half) as wire, pytest.raises(LLMConnectionError):
        ask(wire)
    assert len(wire.requests) == 1


def test_silence_is_cut_off():
    """A stream that falls silent ends after the idle limit; a slow first token does not."""

    def silent(reply: Any, request: Any) -> None:
        from tests.wire import openai_events

        def events():
            for n, event in enumerate(openai_events("one", "two", "three")):
                if n == 3:
                    time.sleep(2)
                yield event

        reply.stream(events())

    with serve(silent) as wire:
        begin = time.monotonic()
        with pytest.raises(LLMTimeoutError, match=r"silence for 0\.3 s"):
            ask(wire, settings={"llm_idle_timeout": 0.3})
        assert time.monotonic() - begin < 1.5
    with serve(answers("one", delay=0.5)) as wire:
        assert ask(wire, settings={"llm_idle_timeout": 0.8}).text == "one"


def test_the_whole_call_has_a_limit():
    """DIPEO_LLM_TIMEOUT ends a call that goes on and on."""
    late = pytest.raises(LLMTimeoutError, match=r"no complete answer within 0\.4 s")
    with serve(answers(*["x"] * 100, delay=0.05)) as wire, late:
        ask(wire, settings={"llm_timeout": 0.4})


def test_cancelling_closes_the_connection():
    """When the reader gives up, the server loses the connection."""

    async def go(wire: Wire) -> None:
        llm = service(wire)
        stream = llm.stream(LLMRequest("openai", "m", [ChatMessage("user", "x")]))
        async for event in stream:
            if event.kind == "text":
                break
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
        await llm.cleanup()

    with serve(answers(*["word "] * 1000, delay=0.01)) as wire:
        run_sync(go(wire))
        deadline = time.monotonic() + 5
        while not wire.replies[0].lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert wire.replies[0].lost


def test_refusals_and_cut_answers():
    """A refusal and a filtered answer are errors; a text cut at its limit says so; a cut structure is an error."""
    refusal = openai_response("")
    refusal["output"][1]["content"] = [{"type": "refusal", "refusal": "I will not."}]
    cut = openai_response("half", status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    with serve(answers(final=refusal)) as wire, pytest.raises(ContentFilteredError, match="I will not"):
        ask(wire)
    with serve(answers("half", final=cut)) as wire:
        assert ask(wire).finish_reason == "max_output_tokens"
        with pytest.raises(ProviderError, match="cut off"):
            ask(wire, response_format=Shape)


def test_bad_input():
    """Nothing to say, a server that is none, and no such address are clear errors."""
    with pytest.raises(ValidationError, match="no message"):
        ask("http://127.0.0.1:9/v1", ChatMessage("user", "  "))
    with pytest.raises(ValidationError, match="more than"):
        ask("http://127.0.0.1:9/v1", ChatMessage("user", "x" * 10_000_001))
    with pytest.raises(LLMConnectionError, match="cannot be reached"):
        ask("http://127.0.0.1:9/v1")
    with pytest.raises(DipeoError, match="no http"):
        ask("localhost:8080")


def test_the_key_is_looked_up_by_id_then_by_service():
    """An unknown key id falls back to the service's key; no key with a server of one's own is fine."""
    with serve(answers("x")) as wire:
        ask(wire, api_key_id="APIKEY_52609F")
        assert wire.requests[0].headers["Authorization"] == f"Bearer {KEY}"

        async def keyless() -> None:
            chosen = Settings(openai_api_key=None, openai_base_url=wire.url)
            llm = LLMService(chosen, EnvironmentAPIKeyService(chosen))
            await llm.complete(LLMRequest("openai", "m", [ChatMessage("user", "x")]))
            await llm.cleanup()

        run_sync(keyless())


def test_connections_are_reused():
    """Fifty calls go over one connection."""

    async def go(wire: Wire) -> None:
        llm = service(wire)
        for _ in range(50):
            await llm.complete(LLMRequest("openai", "m", [ChatMessage("user", "x")]))
        await llm.cleanup()

    def reply(r: Any, request: Any) -> None:
        from tests.wire import openai_events

        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in openai_events("ok"))
        r.json(200, text.encode(), Content_Type="text/event-stream")

    with serve(reply) as wire:
        run_sync(go(wire))
        assert len(wire.requests) == 50
        assert len(wire.connections) == 1


def test_nothing_shows_the_key(caplog: pytest.LogCaptureFixture):
    """At DEBUG, with failures and successes, no log record holds the key."""
    with caplog.at_level(logging.DEBUG), serve(refuses(500, KEY), answers("x")) as wire:
        ask(wire)
    assert KEY not in caplog.text

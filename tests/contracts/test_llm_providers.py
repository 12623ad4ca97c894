"""What every provider's client keeps on its wire, through the official SDK and the whole service: the same for all of them."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    AuthError,
    ConfigurationError,
    DipeoError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    ValidationError,
)
from dipeo_nb.llm import phases
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import tools_of
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.wire_openai import Call, ScriptedServer, request, run, settings_with
from tests.support.wire_protocols import WIRES, Wire

T = TypeVar("T")
KEY = "sk-ant-canary-4Qx9Zr7Lw2Tn8Vb"


@pytest.fixture(params=WIRES, ids=lambda wire: wire.service)
def wire(request: pytest.FixtureRequest) -> Any:
    return request.param


def root(server: ScriptedServer, wire: Any) -> str:
    return server.url.removesuffix("/v1") + wire.path


def service_for(wire: Any, url: str, **settings: Any) -> LLMService:
    keys = {wire.key_setting: SecretStr(KEY)} if wire.key_setting else {}
    chosen = settings_with(**{wire.url_setting: url, **keys, **settings})
    return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(initial_delay=0.01))


def using(wire: Any, server: ScriptedServer, work: Callable[[LLMService], Coroutine[Any, Any, T]], **settings: Any) -> T:
    """The result of *work* on a service whose provider is *server*."""

    async def go() -> T:
        service = service_for(wire, root(server, wire), **settings)
        try:
            return await work(service)
        finally:
            await service.cleanup()

    return run(go())


def asked(wire: Any, prompt: str = "Say hello.", **more: Any) -> LLMRequest:
    return request(prompt, **{"service": wire.service, "model": wire.model, **more})


async def events(service: LLMService, wanted: LLMRequest) -> list[StreamEvent]:
    return [e async for e in service.stream(wanted)]


def posts(server: ScriptedServer) -> list[Any]:
    """The requests for an answer."""
    return [s for s in server.seen if s.body]


def failure(wire: Any, server: ScriptedServer, **options: Any) -> DipeoError:
    with pytest.raises(DipeoError) as caught:
        using(wire, server, lambda s: s.complete(asked(wire)), **options)
    assert caught.value.hint, "every error says what to do"
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


# Answers.


def test_text_comes_word_by_word_with_the_providers_usage(wire: Any):
    """Pieces that together are the answer; tokens in disjoint buckets, what the provider said verbatim, a known price or None."""
    with wire.server(wire.says("Hello my dear friend.")) as server:
        seen = using(wire, server, lambda s: events(s, asked(wire)))
    pieces = [e.text for e in seen if e.kind == "text"]
    assert len(pieces) == 4
    response = seen[-1].response
    assert response is not None
    assert "".join(pieces) == response.text == "Hello my dear friend."
    assert (response.provider, response.finish_reason) == (wire.service, "stop")
    usage = response.usage
    assert usage.cache_read == wire.cached
    assert usage.output == wire.output
    assert usage.input == 20
    assert usage.raw
    assert seen[-2].data == usage.to_dict()


def test_tools_are_called_in_parallel_and_answered(wire: Any):
    """Two calls of one turn run, both results go back in order, the model's words after that are the answer."""

    def weather(city: str) -> str:
        """The weather of a city."""
        return f"{city}: {len(city)} degrees"

    calls = [("c1", "weather", {"city": "Rome"}), ("c2", "weather", {"city": "Bonn am Rhein"})]
    with wire.server(wire.calls(calls), wire.says("Warm.")) as server:
        seen = using(wire, server, lambda s: events(s, asked(wire, tools=tools_of([weather]))))
    kinds = [e.kind for e in seen]
    assert kinds.count("tool_call_start") == kinds.count("tool_call_end") == kinds.count("tool_result") == 2
    ended = [e.data["arguments"] for e in seen if e.kind == "tool_call_end" and e.data]
    assert [a if isinstance(a, dict) else json.loads(a) for a in ended] == [c[2] for c in calls]
    assert seen[-1].response is not None
    assert seen[-1].response.text == "Warm."
    first, second = (s.body for s in posts(server))
    assert "weather" in json.dumps(first["tools"])
    assert wire.results(second) == ["Rome: 4 degrees", "Bonn am Rhein: 13 degrees"]


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Reason(BaseModel):
    text: str


class Verdict(BaseModel):
    winner: str
    mood: Mood
    reasons: list[Reason]


VERDICT = '{"winner": "Ada", "mood": "good", "reasons": [{"text": "clear"}]}'


@pytest.mark.parametrize("shape", [Verdict, Verdict.model_json_schema()], ids=["pydantic", "schema"])
def test_structure_is_native(wire: Any, shape: Any):
    """Nested models and enums: a class gives an instance, a schema an object; the response says how it was obtained."""
    with wire.server(wire.says(VERDICT)) as server:
        response = using(wire, server, lambda s: s.complete(asked(wire, response_format=shape)))
    expected = Verdict.model_validate_json(VERDICT)
    assert response.structured == (expected if shape is Verdict else json.loads(VERDICT))
    assert response.output_mode == wire.output_mode
    assert "winner" in wire.schema(posts(server)[0].body)["properties"]


def test_structure_that_does_not_fit_is_asked_for_once_more(wire: Any):
    """One repair, told as a restart; then the error is typed."""
    with wire.server(wire.says('{"winner": 3}'), wire.says(VERDICT)) as server:
        seen = using(wire, server, lambda s: events(s, asked(wire, response_format=Verdict)))
    assert [e.kind for e in seen].count("stream_restarted") == 1
    assert seen[-1].response is not None
    assert seen[-1].response.structured == Verdict.model_validate_json(VERDICT)
    with wire.server(wire.says("no idea")) as server, pytest.raises(ProviderError) as caught:
        using(wire, server, lambda s: s.complete(asked(wire, response_format=Verdict)))
    assert caught.value.code == "llm_structure"
    assert len(posts(server)) == 2


@pytest.mark.parametrize("phase", [ExecutionPhase.MEMORY_SELECTION, ExecutionPhase.DECISION_EVALUATION])
def test_a_phase_reaches_the_wire(wire: Any, phase: ExecutionPhase):
    """Its prompt, its schema and its limit are in the request."""
    field, text = (
        ("message_ids", '{"message_ids": []}')
        if phase is ExecutionPhase.MEMORY_SELECTION
        else ("decision", '{"decision": true}')
    )
    with wire.server(wire.says(text)) as server:
        response = using(wire, server, lambda s: s.complete(asked(wire, phase=phase)))
    body = posts(server)[0].body
    assert phases.PHASES[phase].prompt in wire.system(body)
    assert field in wire.schema(body)["properties"]
    assert wire.limit(body) == 4096
    assert response.structured == json.loads(text)


# Failures.


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (401, AuthError, 1),
        (404, ProviderError, 1),
        (429, RateLimitError, 4),
        (500, ProviderError, 4),
        (529, ProviderError, 4),
    ],
)
def test_refusals_are_told_apart(wire: Any, status: int, kind: type[LLMError], tries: int):
    """Each status has its error with provider, model and status; what may pass is tried four times in all, the rest once."""
    said = f"because of {KEY}" if wire.key_setting else "because"
    with wire.server(wire.refuses(status, said)) as server:
        error = failure(wire, server)
    assert type(error) is kind
    assert isinstance(error, LLMError)
    assert (error.provider, error.model, error.status) == (wire.service, wire.model, status)
    assert len(posts(server)) == tries


def test_retry_after_is_waited_for(wire: Any):
    """The pause that a server asks for is kept, and the second try succeeds; the wait is told."""
    with wire.server(
        wire.refuses(429, "slow down", retry_after="0.3"), wire.refuses(500, "oops"), wire.says("Here.")
    ) as server:
        started = time.monotonic()
        seen = using(wire, server, lambda s: events(s, asked(wire)))
    assert time.monotonic() - started >= 0.3
    waits = [e.data["retry_in_s"] for e in seen if e.kind == "error" and e.data]
    assert len(waits) == 2
    assert waits[0] >= 0.3
    assert seen[-1].response is not None
    assert seen[-1].response.text == "Here."


def test_a_pause_that_is_too_long_is_reported(wire: Any):
    """An hour is not waited for: the error says how long."""
    with wire.server(wire.refuses(429, "slow down", retry_after="3600")) as server:
        error = failure(wire, server)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3600
    assert len(posts(server)) == 1


def test_malformed_answers_are_errors(wire: Any):
    """JSON that is none is an error of the provider or the connection, never a crash of the SDK."""

    def garbage(call: Call) -> None:
        body = "data: {oops\n\n{oops\n"
        call.headers(content_type="text/event-stream", content_length=str(len(body)))
        call.send(body)

    with wire.server(garbage) as server:
        assert isinstance(failure(wire, server), (ProviderError, LLMConnectionError))


def test_a_broken_stream_is_restarted(wire: Any):
    """Text that was shown is taken back; the answer is that of the second try alone."""

    def breaks(call: Call) -> None:
        wire.begins(call, "Once upon")
        call.break_off()

    with wire.server(breaks, wire.says("Here.")) as server:
        seen = using(wire, server, lambda s: events(s, asked(wire)))
    assert [e.kind for e in seen] == ["start", "text", "error", "stream_restarted", "text", "usage", "end"]
    assert seen[-1].response is not None
    assert seen[-1].response.text == "Here."


def test_silence_is_a_timeout(wire: Any):
    """No further token within the idle limit: an error that names the limit; the connection is closed."""

    def silent(call: Call) -> None:
        wire.begins(call, "Once")
        time.sleep(0.6)
        call.wait_until_lost(wire.piece(" more"))

    with wire.server(silent) as server:
        error = failure(wire, server, llm_idle_timeout=0.2, llm_timeout=5.0)
        assert isinstance(error, LLMTimeoutError)
        assert server.lost.wait(5)


def test_slow_tokens_are_no_silence(wire: Any):
    """Tokens that come slowly, each within the limit, are an answer."""

    def slow(call: Call) -> None:
        time.sleep(0.2)
        wire.says("One two three.")(call)

    with wire.server(slow) as server:
        response = using(wire, server, lambda s: s.complete(asked(wire)), llm_idle_timeout=0.15)
    assert response.text == "One two three."


def test_cancelling_closes_the_connection(wire: Any):
    """The server sees its reader go within seconds."""

    def endless(call: Call) -> None:
        wire.begins(call, "Once")
        call.wait_until_lost(wire.piece(" more"))

    async def leave(service: LLMService) -> None:
        spoken = asyncio.Event()

        async def listen() -> None:
            async for event in service.stream(asked(wire)):
                if event.kind == "text":
                    spoken.set()

        task = asyncio.create_task(listen())
        await asyncio.wait_for(spoken.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(server.lost.wait, 5)

    with wire.server(endless) as server:
        using(wire, server, leave)


def test_one_connection_serves_fifty_calls(wire: Any):
    """Calls one after the other go through one TCP connection."""
    ports: set[int] = set()

    def keep(call: Call) -> None:
        ports.add(call.port)
        call.keep_alive(wire.says("ok"))

    async def many(service: LLMService) -> None:
        for _ in range(50):
            assert (await service.complete(asked(wire))).text == "ok"

    with wire.server(keep) as server:
        using(wire, server, many)
    assert len(ports) == 1


# Bad input.


@pytest.mark.parametrize("messages", [(), (ChatMessage("user", "  \n"),)], ids=["none", "blank"])
def test_empty_messages_are_refused(wire: Any, messages: Any):
    """Nothing is sent."""
    with wire.server(wire.says("x")) as server, pytest.raises(ValidationError, match="no message"):
        using(wire, server, lambda s: s.complete(LLMRequest(wire.service, wire.model, messages)))
    assert server.seen == []


def test_ten_megabytes_are_the_limit(wire: Any):
    """A prompt of ten million characters goes through whole; one more character is refused before the call."""
    with wire.server(wire.says("Long.")) as server:
        response = using(wire, server, lambda s: s.complete(asked(wire, "x" * 10_000_000)))
        assert response.text == "Long."
        assert len(json.dumps(posts(server)[0].body)) > 10_000_000
        with pytest.raises(ValidationError, match=r"10,000,001 characters"):
            using(wire, server, lambda s: s.complete(asked(wire, "x" * 10_000_001)))


def test_an_unknown_model_is_named(wire: Any):
    """The provider's 404 becomes an error with the model's name and what to check."""
    with wire.server(wire.refuses(404, "model not found")) as server:
        error = failure(wire, server)
    assert wire.model in str(error)


def test_a_missing_key_says_what_to_do(wire: Any):
    """It names the variable and the keyless way; nothing is sent."""
    if wire.key_setting is None:
        pytest.skip("not here: the provider needs no key")

    async def go() -> LLMResponse:
        chosen = settings_with(**{wire.key_setting: None})
        return await LLMService(chosen, EnvironmentAPIKeyService(chosen)).complete(asked(wire))

    with pytest.raises(APIKeyNotFoundError) as caught:
        run(go())
    assert wire.key_setting.upper() in str(caught.value)
    assert "--model local" in str(caught.value)


def test_an_expired_key_says_what_to_do(wire: Any):
    """401 and 403 are the key's; the error names the variable."""
    for status in (401, 403):
        with wire.server(wire.refuses(status, "expired")) as server:
            error = failure(wire, server)
        assert isinstance(error, AuthError)
        if wire.key_setting:
            assert wire.key_setting.upper() in str(error)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("This service is not available in your country", "does not serve this region"),
        ("This account has no credits: billing is not set up", "billing"),
        ("You are not allowed to use this model", "does not allow the use of"),
    ],
)
def test_a_refusal_for_another_reason_than_the_key(wire: Any, said: str, message: str):
    """With status 403 the error names the reason, not the key."""
    with wire.server(wire.refuses(403, said)) as server:
        error = failure(wire, server)
    assert message in error.message
    assert "the key:" not in error.message
    assert "wants a key" not in error.message


@pytest.mark.parametrize("url", ["ftp://example.com", "not an address", "http://", "http://x:99999"])
def test_a_base_url_that_is_none_is_refused(wire: Any, url: str):
    """The error shows how one looks; nothing is sent."""

    async def go() -> LLMResponse:
        service = service_for(wire, "http://127.0.0.1:9")
        try:
            return await service.complete(asked(wire, base_url=url))
        finally:
            await service.cleanup()

    with pytest.raises((ConfigurationError, LLMConnectionError)) as caught:
        run(go())
    assert caught.value.hint


def test_a_server_that_is_none_is_a_connection_error(wire: Any):
    """Nobody listens there, or something listens that speaks no HTTP: one error, with what to check."""
    with wire.server(wire.says("x")) as server:
        gone = root(server, wire)

    async def go() -> LLMResponse:
        service = service_for(wire, gone)
        try:
            return await service.complete(asked(wire))
        finally:
            await service.cleanup()

    with pytest.raises(LLMConnectionError) as caught:
        run(go())
    assert "--model local" in str(caught.value)


def test_the_key_is_nowhere(wire: Any, caplog: pytest.LogCaptureFixture):
    """At DEBUG, after answers and failures, it is in no log, repr, event or error; only in the request's header."""
    if wire.key_setting is None:
        pytest.skip("not here: the provider needs no key")
    caplog.set_level(logging.DEBUG)

    async def go(service: LLMService) -> str:
        shown = [repr(await events(service, asked(wire)))]
        for _ in range(2):
            try:
                await service.complete(asked(wire))
            except LLMError as error:
                shown += [repr(error), str(error), repr(error.facts), "".join(traceback.format_exception(error))]
        shown += [repr(service), repr(vars(service)), repr(vars(service._clients))]
        return "\n".join(shown)

    replies = wire.says("ok"), wire.refuses(400, f"what is {KEY}?"), wire.refuses(401, f"bad key {KEY}")
    with wire.server(*replies) as server:
        shown = using(wire, server, go)
        assert KEY in json.dumps([s.headers for s in server.seen])
    assert KEY not in shown
    assert KEY not in caplog.text


def test_a_wire_is_there_for_every_provider():
    """The contract forgets none of the services that speak HTTP."""
    assert {w.service for w in WIRES} == {"openai", "anthropic", "gemini", "ollama"}
    assert all(isinstance(w, Wire) for w in WIRES)

"""The LLM service: which client, which defaults, when to try again, how long to wait, what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import SERVICE_ALIASES
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import (
    AuthError,
    ConfigurationError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from dipeo_nb.testing import FailingClient, ScriptedClient, SlowClient
from tests.support.wire_openai import events_of, request, run, settings_with


class Steps:
    """A client that follows written steps: seconds to wait, events to give, errors to raise."""

    provider = "echo"

    def __init__(self, *calls: list[Any]) -> None:
        self.calls = list(calls)
        self.asked: list[LLMRequest] = []
        self.closed = 0

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.asked.append(request)
        for step in self.calls.pop(0) if len(self.calls) > 1 else self.calls[0]:
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
            elif isinstance(step, BaseException):
                raise step
            else:
                yield step

    async def cleanup(self) -> None:
        self.closed += 1


START, PROGRESS = StreamEvent("start"), StreamEvent("progress", "loading")


def text(piece: str) -> StreamEvent:
    return StreamEvent("text", piece)


def end(**more: Any) -> StreamEvent:
    return StreamEvent("end", response=LLMResponse(**{"text": "ok", "provider": "echo", "model": "m", **more}))


Serve = Callable[..., LLMService]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A service in which one client answers for every service name."""

    def made(client: Any, **settings: Any) -> LLMService:
        chosen = settings_with(openai_api_key=SecretStr("sk-test"), **settings)
        monkeypatch.setattr(providers, "create", lambda config, settings: client)
        return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(initial_delay=0.001))

    return made


def service(**settings: Any) -> LLMService:
    chosen = settings_with(**settings)
    return LLMService(chosen, EnvironmentAPIKeyService(chosen))


# Which client.


def test_it_is_the_port():
    """Every method of the port is there."""
    assert isinstance(service(), LLMServicePort)


def test_a_service_is_found_by_any_spelling():
    """Case, underscores and aliases do not matter."""

    async def go() -> list[str]:
        return [(await service().complete(request("hi", service=name))).provider for name in ("echo", "ECHO", " Echo ")]

    assert run(go()) == ["echo"] * 3
    assert SERVICE_ALIASES["chatgpt"] == "openai"


@pytest.mark.parametrize(("name", "near"), [("opnai", "openai"), ("locl", "local"), ("mistrall", None), ("qqq", None)])
def test_an_unknown_service_lists_the_choices(name: str, near: str | None):
    """A service that is not there is refused with those that are, the nearest, and the keyless way."""
    with pytest.raises(UnsupportedError) as caught:
        run(service().complete(request(service=name)))
    said = str(caught.value)
    assert "it has anthropic, claude-code, claude-code-custom, echo, gemini, local, ollama, openai" in said
    assert "--model local" in said
    assert ("Did you mean" in said) is (near is not None)
    if near:
        assert f"'{near}'" in said


def test_a_third_party_adds_a_service(monkeypatch: pytest.MonkeyPatch):
    """An entry point is enough; a broken one says which package to repair."""
    good = EntryPoint("my_echo", "dipeo_nb.llm.providers.echo:EchoClient", llm_providers.GROUP)
    bad = EntryPoint("broken", "no_such_package:Client", llm_providers.GROUP)
    monkeypatch.setattr(llm_providers, "installed", lambda: {"my-echo": good, "broken": bad})
    assert run(service().complete(request("hi", service="My_Echo"))).text == "[echo] hi"
    assert "my-echo" in providers.services()
    with pytest.raises(ConfigurationError, match="no_such_package"):
        run(service().complete(request("hi", service="broken")))


def test_one_client_serves_all_calls(monkeypatch: pytest.MonkeyPatch):
    """Fifty calls at once make one client; it is closed once, and closing twice is safe."""
    made: list[Steps] = []

    def create(*_: Any) -> Steps:
        made.append(Steps([START, end()]))
        return made[-1]

    monkeypatch.setattr(providers, "create", create)

    async def go() -> None:
        shared = service()
        await asyncio.gather(*(shared.complete(request()) for _ in range(50)))
        await shared.cleanup()
        await shared.cleanup()

    run(go())
    assert [(len(c.asked), c.closed) for c in made] == [(50, 1)]


# Which defaults.


def test_defaults_are_filled(serve: Serve):
    """OpenAI gets the settings' model, other services choose theirs; the time limit is the settings'."""
    client = Steps([START, end()])
    shared = serve(client, default_llm_model="gpt-default", llm_timeout=7.0)

    async def go() -> None:
        await shared.complete(request(service="gpt"))
        await shared.complete(request(service="local"))
        await shared.complete(request(service="openai", model="o3", timeout=2.0))

    run(go())
    assert [(r.service, r.model, r.timeout) for r in client.asked] == [
        ("openai", "gpt-default", 7.0),
        ("local", "", 7.0),
        ("openai", "o3", 2.0),
    ]


@pytest.mark.parametrize("messages", [(), (ChatMessage("user", " \n"),)], ids=["none", "blank"])
def test_nothing_to_say_is_refused(messages: tuple[ChatMessage, ...]):
    """A request without words is the caller's mistake, said before any call."""
    with pytest.raises(ValidationError, match="no message"):
        run(service().complete(LLMRequest("echo", "", messages)))


def test_a_prompt_of_ten_megabytes_is_refused():
    """A prompt beyond all models is refused with its size."""
    with pytest.raises(ValidationError, match="10,000,001"):
        run(service().complete(request("x" * 10_000_001)))


# Trying again.


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (RateLimitError("slow down"), 4),
        (RateLimitError("slow down", retry_after=0.01), 4),
        (RateLimitError("slow down", retry_after=1000.0), 1),
        (LLMConnectionError("gone"), 4),
        (ProviderError("oops", status=500), 4),
        (ProviderError("conflict", status=409), 4),
        (ProviderError("bad", status=400), 1),
        (ProviderError("odd"), 1),
        (AuthError("no", status=401), 1),
        (LLMTimeoutError("slow"), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_passes_is_tried_again(serve: Serve, error: LLMError, tries: int):
    """Passing failures are tried four times in all, others once; the error comes through as it is."""
    client = Steps([START, error])
    with pytest.raises(type(error)):
        run(serve(client).complete(request()))
    assert len(client.asked) == tries


def test_a_second_try_looks_like_the_first(serve: Serve):
    """A failure before any text shows nothing: one start, one answer."""
    client = Steps([START, LLMConnectionError("gone")], [START, text("ok"), end()])
    events = run(events_of(serve(client), request()))
    assert [e.kind for e in events] == ["start", "error", "text", "usage", "end"]
    assert events[1].data is not None
    assert events[1].data["attempt"] == 1
    assert events[1].data["retry_in_s"] < 0.01
    assert run(serve(FailingClient(RateLimitError("x"), times=2)).complete(request())).text == "ok"


@pytest.mark.parametrize("kind", ["text", "reasoning", "tool_call_start"])
def test_what_was_shown_is_taken_back(serve: Serve, kind: Any):
    """A failure in the middle of an answer restarts the stream visibly; the answer is that of the last try alone."""
    client = Steps([START, StreamEvent(kind, "x"), LLMConnectionError("gone")], [START, text("ok"), end()])
    events = run(events_of(serve(client), request()))
    assert [e.kind for e in events] == ["start", kind, "error", "stream_restarted", "text", "usage", "end"]
    assert events[3].data == {"reason": "gone"}


def test_a_pause_beyond_the_limit_is_not_waited_for(serve: Serve):
    """A provider that asks to wait longer than the call may take is reported at once."""
    client = Steps([START, RateLimitError("slow down", retry_after=30.0)])
    with pytest.raises(RateLimitError):
        run(serve(client).complete(request(timeout=0.5)))
    assert len(client.asked) == 1


def test_an_answer_without_end_is_an_error(serve: Serve):
    """A client whose stream just stops has not answered."""
    with pytest.raises(LLMConnectionError, match="before it was complete"):
        run(serve(Steps([START, text("x")])).complete(request()))


# How long.


@pytest.mark.parametrize(
    ("steps", "limits", "message"),
    [
        ([START, 5], {"llm_timeout": 0.1}, "no complete answer within 0.1 s"),
        ([START, text("a"), 5], {"llm_idle_timeout": 0.1}, "silence for 0.1 s"),
        ([START, *[text("a"), 0.05] * 20], {"llm_timeout": 0.3, "llm_idle_timeout": 0.2}, "no complete answer"),
        ([PROGRESS, 5], {"llm_timeout": 0.1}, "no complete answer"),
    ],
    ids=["never", "silent", "endless", "stuck-loading"],
)
def test_time_limits(serve: Serve, steps: list[Any], limits: dict[str, float], message: str):
    """A call ends within its limit, and within the limit of silence once it has begun to speak."""
    with pytest.raises(LLMTimeoutError, match=message) as caught:
        run(serve(Steps(steps), **limits).complete(request(service="openai", model="gpt-x")))
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-x")


def test_thinking_and_loading_are_not_silence(serve: Serve):
    """The first piece may take longer than the limit of silence; fetching a model does not count at all."""
    steps = [START, PROGRESS, 0.2, PROGRESS, 0.2, PROGRESS, 0.2, text("a"), end()]
    assert run(serve(Steps(steps), llm_timeout=0.4, llm_idle_timeout=0.05).complete(request())).text == "ok"


def test_all_tries_share_one_limit(serve: Serve):
    """Trying again does not start the clock anew."""
    client = Steps([START, 0.15, LLMConnectionError("gone")])
    with pytest.raises((LLMTimeoutError, LLMConnectionError)):
        run(serve(client).complete(request(timeout=0.4)))
    assert 2 <= len(client.asked) <= 3


def test_a_timeout_and_a_left_stream_reach_the_client(serve: Serve):
    """The client's work ends when the time is up, and when nobody listens any more."""
    slow = SlowClient(delay=30)
    with pytest.raises(LLMTimeoutError):
        run(serve(slow, llm_timeout=0.05).complete(request()))
    assert slow.cancelled == 1

    async def leave() -> list[str]:
        closed: list[str] = []

        class Closing(Steps):
            async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
                try:
                    yield START
                    yield text("a")
                finally:
                    closed.append("client")

        stream = serve(Closing([])).stream(request())
        async for event in stream:
            if event.kind == "text":
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return closed

    assert run(leave()) == ["client"]


# What it cost.


def test_known_prices_are_charged(serve: Serve):
    """Input, cached input, output and reasoning are charged by the price list, without counting a token twice."""
    usage = TokenUsage(input=1_000_000, output=1_000_000)
    price = cost_usd("openai", "gpt-4o-mini", usage)
    assert price == pytest.approx(0.75, rel=0.5)
    cached = cost_usd("openai", "gpt-4o-mini", TokenUsage(input=0, output=1_000_000, cache_read=1_000_000))
    thinking = cost_usd("openai", "gpt-4o-mini", TokenUsage(input=1_000_000, output=0, reasoning=1_000_000))
    assert cached is not None
    assert price is not None
    assert cached < price
    assert thinking == pytest.approx(price)
    answered = run(serve(Steps([START, end(model="gpt-4o-mini", usage=usage)])).complete(request(service="openai", model="x")))
    assert answered.cost_usd == pytest.approx(price)


@pytest.mark.parametrize(
    ("service", "model", "usage", "base_url"),
    [
        ("openai", "no-such-model", TokenUsage(1, 1), None),
        ("openai", "gpt-4o-mini", TokenUsage(), None),
        ("openai", "gpt-4o-mini", TokenUsage(1, 1), "http://localhost:8080/v1"),
        ("openai", "gpt-4o-mini", TokenUsage(1, 1), "https://openai.com.example.org/v1"),
        ("someone", "x", TokenUsage(1, 1), None),
    ],
    ids=["model", "usage", "own-server", "look-alike", "service"],
)
def test_unknown_prices_are_none(service: str, model: str, usage: TokenUsage, base_url: str | None):
    """What is not known is None, never 0; another server's price is not OpenAI's."""
    assert cost_usd(service, model, usage, base_url=base_url) is None


def test_what_costs_nothing_is_zero():
    """The embedded model and the echo cost nothing, and that is known."""
    assert cost_usd("local", "x", TokenUsage()) == cost_usd("echo", "x", TokenUsage()) == 0.0
    assert run(service().complete(request("hi"))).cost_usd == 0.0


def test_a_repair_costs_both_answers(serve: Serve):
    """When a structured answer had to be asked for twice, both are counted; the stream says that it starts anew."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    client = ScriptedClient(["no idea", '{"n": 3}'])
    events = run(events_of(serve(client), request("Count.", response_format=schema)))
    assert "stream_restarted" in [e.kind for e in events]
    response = events[-1].response
    assert response is not None
    assert response.structured == {"n": 3}
    assert "JSON schema" in client.requests[1].messages[-1].content


def test_the_registry_makes_each_client():
    """Every built-in service can be made without a key and without its model."""
    chosen = settings_with()
    assert isinstance(providers.create(AdapterConfig(provider_type="echo"), chosen), EchoClient)
    for name in providers.BUILT_IN:
        assert providers.create(AdapterConfig(provider_type=name), chosen).provider == name

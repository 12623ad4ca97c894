"""The Ollama client, through the official SDK, against servers on the loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import traceback
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    StreamEvent,
    TokenUsage,
    ToolCall,
    ToolConfig,
    ToolResult,
)
from dipeo_nb.errors import (
    AuthError,
    ConfigurationError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ModelUnavailableError,
    ProviderError,
    RateLimitError,
    StructureError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.providers.ollama import UnifiedOllamaClient, full_name
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import tool_of
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.wire_ollama import DOWNLOAD, Ollama, chunk, end, error, layer, lines, says, tool_call
from tests.support.wire_openai import Call, Reply, ScriptedServer, events_of, request, run, settings_with

KEY = "ollama-canary-7f3a9b2c4d5e6f"
MODEL = "llama3.2"


class Reason(BaseModel):
    text: str = Field(min_length=2)


class Verdict(BaseModel):
    winner: str
    best: Reason | None = None


def root(server: ScriptedServer) -> str:
    """The server's address without a path."""
    return server.url.removesuffix("/v1")


def service_for(server: ScriptedServer, **settings: Any) -> LLMService:
    """The service with this server as OLLAMA_HOST."""
    chosen = settings_with(**{"ollama_host": root(server), **settings})
    return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(initial_delay=0.01))


def stream(server: ScriptedServer, *asked: LLMRequest, **settings: Any) -> list[StreamEvent]:
    """All events of requests, one after the other, through one service."""

    async def go() -> list[StreamEvent]:
        service = service_for(server, **settings)
        try:
            return [event for one in asked for event in await events_of(service, one)]
        finally:
            await service.cleanup()

    return run(go())


def ask(server: ScriptedServer, prompt: str = "Say hello.", *, settings: Any = None, **more: Any) -> LLMResponse:
    """One call through the service."""
    asked = request(prompt, service="ollama", **{"model": MODEL, **more})
    response = stream(server, asked, **(settings or {}))[-1].response
    assert response is not None
    return response


def body(server: ScriptedServer, index: int = -1) -> dict[str, Any]:
    """What was sent to `/api/chat`."""
    return [s for s in server.seen if s.path == "/api/chat"][index].body


# The request and the answer.


def test_the_body_is_of_ollamas_chat():
    """Roles, limits and the wish that nothing be cut silently go out; no key does."""
    messages = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hi."), ChatMessage("assistant", "Hello."))
    asked = LLMRequest("ollama", MODEL, (*messages, ChatMessage("user", "Bye.")), temperature=0.3, max_tokens=50)
    with ScriptedServer(Ollama(says("Bye."))) as server:
        stream(server, asked)
    assert [s.path for s in server.seen] == ["/api/tags", "/api/chat"]
    assert all("authorization" not in s.headers for s in server.seen)
    assert body(server) == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye."},
        ],
        "options": {"temperature": 0.3, "num_predict": 50},
        "stream": True,
        "truncate": False,
        "shift": False,
    }


def test_the_answer_streams_word_by_word():
    """Thoughts and text come in pieces; the end carries the answer and what Ollama counts; on this machine it is free."""
    said = lines(chunk(thinking="Let me think."), chunk("Hello "), chunk("friend."), end())
    with ScriptedServer(Ollama(said)) as server:
        events = stream(server, request(service="ollama", model=MODEL))
    assert [e.kind for e in events] == ["start", "reasoning", "text", "text", "usage", "end"]
    response = events[-1].response
    assert response is not None
    assert (response.text, response.provider, response.model) == ("Hello friend.", "ollama", MODEL)
    assert (response.finish_reason, response.cost_usd, response.raw) == ("stop", 0.0, None)
    usage = response.usage
    assert (usage.input, usage.output, usage.cache_read, usage.reasoning, usage.total) == (20, 9, None, None, 29)
    assert usage.raw is not None
    assert usage.raw["total_duration"] == 5_000_000


def test_a_count_that_is_missing_is_unknown():
    """Older servers leave out the prompt's count when they had it cached: unknown, not zero."""
    last = end()
    del last["prompt_eval_count"]
    with ScriptedServer(Ollama(lines(chunk("ok"), last))) as server:
        usage = ask(server).usage
    assert (usage.input, usage.output) == (None, 9)


def test_further_fields_are_merged_into_the_body():
    """`extra_params` of a client reach the wire beside its own options."""
    more = {"options": {"num_ctx": 16384}, "think": False, "keep_alive": "1h"}
    with ScriptedServer(Ollama(says("ok"))) as server:
        config = AdapterConfig(provider_type="ollama", model=MODEL, base_url=root(server), extra_params=more)
        client = UnifiedOllamaClient(config)
        assert client.chat("Hi.", max_tokens=5).text == "ok"
        client.close()
    sent = body(server)
    assert (sent["think"], sent["keep_alive"]) == (False, "1h")
    assert sent["options"] == {"num_predict": 5, "num_ctx": 16384}


def test_a_text_that_is_cut_off_is_an_answer():
    """Text that ends at its limit comes with the finish reason `length`."""
    with ScriptedServer(Ollama(lines(chunk("Once upon"), end("length")))) as server:
        assert ask(server).finish_reason == "length"


def test_a_model_must_be_named():
    """Ollama has no default model; the error shows how to name one."""
    with ScriptedServer(Ollama(says("ok"))) as server, pytest.raises(ValidationError, match=r"ollama:llama3\.2"):
        ask(server, model="")
    assert not server.seen


# Tools.


class Place(BaseModel):
    city: str
    zone: str | None = None


def weather(place: Place, days: int = 1) -> str:
    """The weather."""
    return f"sunny in {place.city}"


def test_parallel_calls_go_round():
    """Two calls are run and their results go back by name, with the model's own turn, its thoughts included."""
    calls = [tool_call("weather", {"place": {"city": c}}) for c in ("Rome", "Bonn")]
    first = lines(chunk(thinking="Hm."), chunk(tool_calls=[calls[0]]), chunk(tool_calls=[calls[1]]), end())
    with ScriptedServer(Ollama(first, says("Sunny in both."))) as server:
        events = stream(server, request("Weather?", service="ollama", model=MODEL, tools=(tool_of(weather),)))
    kinds = [e.kind for e in events]
    assert kinds[1:8] == [
        "reasoning", "tool_call_start", "tool_call_delta", "tool_call_end", "tool_call_start", "tool_call_delta",
        "tool_call_end",
    ]  # fmt: skip
    assert kinds.count("tool_result") == 2
    response = events[-1].response
    assert response is not None
    assert (response.text, response.usage.total, response.finish_reason) == ("Sunny in both.", 58, "stop")
    tool = body(server, 0)["tools"][0]
    assert (tool["type"], tool["function"]["name"]) == ("function", "weather")
    schema = tool["function"]["parameters"]
    assert schema["$defs"]["Place"]["properties"]["zone"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert schema["additionalProperties"] is False
    turn, *results = body(server, 1)["messages"][1:]
    assert (turn["role"], turn["thinking"]) == ("assistant", "Hm.")
    assert [c["function"] for c in turn["tool_calls"]] == [c["function"] for c in calls]
    assert [(r["role"], r["tool_name"], r["content"]) for r in results] == [
        ("tool", "weather", "sunny in Rome"),
        ("tool", "weather", "sunny in Bonn"),
    ]
    assert [r["tool_call_id"] for r in results] == [c["id"] for c in turn["tool_calls"]]


def test_calls_of_another_model_are_told():
    """A history of another provider has calls and results; a failed tool is told as an error."""
    messages = (
        ChatMessage("user", "Weather?"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Rome"}),)),
        ChatMessage("tool", "", tool_result=ToolResult("c1", "no such city", is_error=True)),
    )
    tool = ToolConfig("function", name="weather")
    with ScriptedServer(Ollama(lines(chunk(tool_calls=[tool_call("weather", {"city": "Bonn"})]), end()))) as server:
        response = stream(server, LLMRequest("ollama", MODEL, messages, tools=(tool,)))[-1].response
    assert body(server)["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
        ]},
        {"role": "tool", "tool_name": "weather", "tool_call_id": "c1", "content": "Error: no such city"},
    ]  # fmt: skip
    assert response is not None
    assert [(c.name, c.arguments) for c in response.tool_calls] == [("weather", {"city": "Bonn"})]
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": (ToolConfig("web_search"),)}, "search"),
        ({"tools": (ToolConfig("code_interpreter"),)}, "functions"),
        ({"tools": (tool_of(weather),), "tool_choice": "required"}, "tool_choice"),
        ({"tools": (tool_of(weather),), "tool_choice": "weather"}, "tool_choice"),
        ({"tools": (tool_of(weather),), "response_format": Verdict, "output_mode": "grammar"}, "in words"),
    ],
    ids=["search", "unknown", "required", "named", "grammar-with-tools"],
)
def test_what_it_cannot_do_is_refused_before_the_call(more: dict[str, Any], said: str):
    """Nothing is sent; the error says what would work."""
    with ScriptedServer(Ollama(says("ok"))) as server, pytest.raises(UnsupportedError, match=said):
        ask(server, **more)
    assert not server.seen


def test_tool_choice_none_takes_the_tools_away():
    """A model that must not call tools is not told of them."""
    with ScriptedServer(Ollama(says("ok"))) as server:
        ask(server, tools=(tool_of(weather),), tool_choice="none")
    assert "tools" not in body(server)


# Structure.


def test_structure_is_made_by_a_grammar():
    """The class or the schema goes into `format` whole; the answer is an instance, or the object."""
    shape = {"type": "array", "items": {"type": "integer"}}
    with ScriptedServer(Ollama(says('{"winner": "Ada", "best": {"text": "facts"}}'), says("[1, 2]"))) as server:
        one = ask(server, response_format=Verdict)
        two = ask(server, response_format=shape)
    assert (one.structured, one.output_mode) == (Verdict(winner="Ada", best=Reason(text="facts")), "grammar")
    assert (two.structured, two.output_mode) == ([1, 2], "grammar")
    assert body(server, 0)["format"] == Verdict.model_json_schema()
    assert body(server, 1)["format"] == shape


def test_json_mode_asks_for_json_only():
    """The output mode `json_mode` is Ollama's format `json`; the prompt has the schema."""
    with ScriptedServer(Ollama(says('{"winner": "Ada"}'))) as server:
        response = ask(server, response_format=Verdict, output_mode="json_mode")
    assert (response.structured, response.output_mode) == (Verdict(winner="Ada"), "json_mode")
    assert body(server)["format"] == "json"
    assert "winner" in body(server)["messages"][0]["content"]


def test_structure_beside_tools_is_asked_for_in_words():
    """A grammar would keep the model from calling tools, so the next way is taken."""
    with ScriptedServer(Ollama(says('{"winner": "Ada"}'))) as server:
        response = ask(server, response_format=Verdict, tools=(tool_of(weather),))
    assert (response.structured, response.output_mode) == (Verdict(winner="Ada"), "prompt")
    assert "format" not in body(server)
    assert "tools" in body(server)


def test_a_structured_answer_that_is_cut_off_is_not_repaired():
    """An answer that ends at its limit of tokens is an error that names the limit and has the tokens it took."""
    cut = Ollama(lines(chunk('{"winner": "A'), end("length")))
    with ScriptedServer(cut) as server, pytest.raises(StructureError, match="cut off") as caught:
        ask(server, response_format=Verdict)
    assert caught.value.usage.total == 29
    assert cut.times("/api/chat") == 1


# Models.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("LLama3.2:Latest", "llama3.2"),
        ("library/llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("hf.co/bartowski/Llama-GGUF", "hf.co/bartowski/Llama-GGUF:latest"),
        ("host:5000/me/model", "host:5000/me/model:latest"),
    ],
)
def test_names_are_compared_as_ollama_does(one: str, other: str):
    """The tag `latest`, the default registry and upper case make no other model."""
    assert full_name(one) == full_name(other)
    assert full_name(one) != full_name("llama3.2:3b")


@pytest.mark.parametrize("name", ["llama3.2", "llama3.2:latest"])
def test_a_model_that_is_there_is_not_fetched(name: str):
    """The list of models is asked for once per client, and not again for further calls."""
    ollama = Ollama(says("ok"))
    with ScriptedServer(ollama) as server:
        stream(server, *[request(service="ollama", model=name)] * 3)
    assert ollama.asked == ["/api/tags", "/api/chat", "/api/chat", "/api/chat"]


def test_an_absent_model_is_fetched_with_progress():
    """The download's bytes are told, all layers together; then the call goes on."""
    told = threading.Semaphore(0)  # the server goes on when a step was told: steps that come faster are told as one
    ollama = Ollama(says("ok"), models=["other:1b"], between=lambda: told.acquire(timeout=60))

    async def go(service: LLMService) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        async for event in service.stream(request(service="ollama", model=MODEL)):
            events.append(event)
            if event.kind == "progress":
                told.release()
        await service.cleanup()
        return events

    with ScriptedServer(ollama) as server:
        events = run(go(service_for(server)))
    assert ollama.asked == ["/api/tags", "/api/pull", "/api/chat"]
    steps = [(e.text, dict(e.data or {})) for e in events if e.kind == "progress"]
    assert steps[:6] == [
        ("Fetching llama3.2: pulling manifest", {"done": 0, "total": None}),
        ("Fetching llama3.2", {"done": 50, "total": 100}),
        ("Fetching llama3.2", {"done": 100, "total": 100}),
        ("Fetching llama3.2", {"done": 110, "total": 110}),
        ("Fetching llama3.2: verifying sha256 digest", {"done": 110, "total": 110}),
        ("Fetching llama3.2: writing manifest", {"done": 110, "total": 110}),
    ]
    assert [e.kind for e in events if e.kind != "progress"] == ["start", "text", "usage", "end"]
    assert body(server)["model"] == MODEL
    pulled = next(s for s in server.seen if s.path == "/api/pull")
    assert pulled.body == {"model": MODEL, "insecure": False, "stream": True}


@pytest.mark.parametrize("shared", [True, False], ids=["one-client", "ten-clients"])
def test_ten_calls_at_once_fetch_it_once(shared: bool):
    """Whoever needs the same model of the same server waits for the one download, and sees its progress."""
    ollama = Ollama(says("ok"), models=[], between=lambda: time.sleep(0.05))
    with ScriptedServer(ollama) as server:

        async def go() -> list[list[StreamEvent]]:
            config = AdapterConfig(provider_type="ollama", model=MODEL, base_url=root(server))
            clients = [UnifiedOllamaClient(config)] * 10 if shared else [UnifiedOllamaClient(config) for _ in range(10)]
            names = [MODEL, f"{MODEL}:latest"] * 5
            found = await asyncio.gather(
                *(events_of(c, request(service="ollama", model=n)) for c, n in zip(clients, names, strict=True))
            )
            for client in clients:
                await client.cleanup()
            return found

        answers = run(go())
    assert ollama.times("/api/pull") == 1
    assert ollama.times("/api/tags") == 1
    assert ollama.times("/api/chat") == 10
    assert all(any(e.kind == "progress" for e in events) for events in answers)
    assert all(events[-1].response is not None for events in answers)


def test_a_model_that_was_removed_is_fetched_again():
    """A 404 says that the list is out of date: the model is fetched, and the call is made once more."""
    ollama = Ollama(says("ok"))
    with ScriptedServer(ollama) as server:

        async def go() -> None:
            service = service_for(server)
            await service.complete(request(service="ollama", model=MODEL))
            ollama.models.clear()
            await service.complete(request(service="ollama", model=MODEL))
            await service.cleanup()

        run(go())
    assert ollama.asked == [
        "/api/tags", "/api/chat", "/api/chat", "/api/tags", "/api/pull", "/api/chat",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("download", "said"),
    [
        (
            [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}],
            "file does not exist",
        ),
        ([{"status": "pulling manifest"}, layer("aaa", 1, 100)], "pulling aaa"),
    ],
    ids=["unknown", "ended-early"],
)
def test_a_model_that_cannot_be_fetched_is_one_clear_error(download: list[dict[str, Any]], said: str):
    """All calls that waited get the error, which names the model, the reason and what the server has; none is repeated."""
    ollama = Ollama(says("ok"), models=["qwen3:4b"], download=download, between=lambda: time.sleep(0.05))
    with ScriptedServer(ollama) as server:

        async def go() -> list[Any]:
            service = service_for(server)
            asked = request(service="ollama", model="lama")
            found = await asyncio.gather(*(service.complete(asked) for _ in range(3)), return_exceptions=True)
            await service.cleanup()
            return found

        found = run(go())
    assert ollama.times("/api/pull") == 1
    for caught in found:
        assert isinstance(caught, ModelUnavailableError), repr(caught)
        assert "'lama'" in caught.message
        assert said in caught.message
        assert "qwen3:4b" in str(caught.hint)
        assert "--model local" in str(caught.hint)
        assert (caught.provider, caught.model) == ("ollama", "lama")


def test_a_download_that_nobody_waits_for_ends():
    """The download lives as long as one of the calls that wait; the last one that goes ends it."""
    ollama = Ollama(
        says("ok"), models=[], download=[layer("aaa", n, 1000) for n in range(1000)], between=lambda: time.sleep(0.02)
    )
    with ScriptedServer(ollama) as server:

        async def go() -> None:
            service = service_for(server)
            begun = [asyncio.Event(), asyncio.Event()]

            async def listen(index: int) -> None:
                async for event in service.stream(request(service="ollama", model=MODEL)):
                    if event.kind == "progress":
                        begun[index].set()

            tasks = [asyncio.create_task(listen(i)) for i in range(2)]
            await asyncio.gather(*(b.wait() for b in begun))
            tasks[0].cancel()
            assert not await asyncio.to_thread(server.lost.wait, 0.3)
            tasks[1].cancel()
            assert await asyncio.to_thread(server.lost.wait, 5)
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.cleanup()

        run(go())
    assert ollama.times("/api/pull") == 1


def test_a_long_download_is_no_timeout():
    """The time of the download is not that of the call."""
    ollama = Ollama(says("ok"), models=[], download=[*DOWNLOAD[:1] * 8, *DOWNLOAD], between=lambda: time.sleep(0.1))
    with ScriptedServer(ollama) as server:
        before = time.monotonic()
        assert ask(server, timeout=1.0).text == "ok"
        assert time.monotonic() - before > 1.2


# Failures.


def failing(reply: Reply) -> tuple[LLMError, ScriptedServer]:
    """The error of a call, and the server."""
    with ScriptedServer(reply) as server, pytest.raises(LLMError) as caught:
        ask(server, settings={"llm_timeout": 5.0})
    return caught.value, server


TOO_LONG = "the request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it"


@pytest.mark.parametrize(
    ("answer", "kind", "tries"),
    [
        (error(400, "invalid options"), ProviderError, 1),
        (error(400, TOO_LONG), ContextLengthError, 1),
        (error(400, "the input length exceeds the context length"), ContextLengthError, 1),
        (error(400, '"llama3.2" does not support tools'), UnsupportedError, 1),
        (error(401, "unauthorized"), AuthError, 1),
        (error(404, "model 'llama3.2' not found"), ProviderError, 1),
        (lambda c: c.json(429, {"error": "busy"}, retry_after="0.01"), RateLimitError, 4),
        (error(500, "llama runner process has terminated"), ProviderError, 4),
        (error(503, "server busy, please try again.  maximum pending requests exceeded"), ProviderError, 4),
        (error(529, "overloaded"), ProviderError, 4),
        (lambda c: c.json(500, ["what"]), LLMError, 1),
        (lines(chunk("Once "), {"error": "an error was encountered while running the model"}), ProviderError, 4),
        (lines({"hello": "world"}), ProviderError, 1),
        (lines(chunk("Once ")), LLMConnectionError, 4),
        (lambda c: c.headers(200, content_length="0"), LLMConnectionError, 4),
        (lambda c: (c.headers(connection="close"), c.send("{nonsense\n")), ProviderError, 1),
    ],
    ids=[
        "400", "context", "context-old", "no-tools", "401", "404", "429", "500", "503", "529", "odd-body",
        "error-in-stream", "wrong-form", "no-end", "empty", "malformed",
    ],
)  # fmt: skip
def test_failures_are_told_apart(answer: Reply, kind: type[LLMError], tries: int):
    """Each failure is our error of its kind, with provider and model; only passing ones are tried again."""
    ollama = Ollama(answer)
    caught, _ = failing(ollama)
    assert isinstance(caught, kind), repr(caught)
    assert ollama.times("/api/chat") == tries
    assert (caught.provider, caught.model) == ("ollama", MODEL)
    assert caught.hint


@pytest.mark.parametrize(
    "error",
    [
        {"message": "the runner has stopped", "code": 500},
        {"type": "api_error", "message": "the runner has stopped"},
        {"detail": "the runner has stopped"},
        "the runner has stopped",
    ],
)
def test_an_error_within_a_stream_has_the_words_of_the_server(error: Any):
    """Also where it is an object, as servers beside Ollama's own send it."""
    caught, _ = failing(ollama := Ollama(lines(chunk("Once "), {"error": error})))
    assert isinstance(caught, ProviderError)
    assert "the runner has stopped" in str(caught)
    assert "form" not in str(caught)
    assert ollama.times("/api/chat") == 4


def test_retry_after_is_read():
    """A server (or what stands before it) that asks to wait is heard, though the SDK's error does not say it."""
    caught, _ = failing(Ollama(lambda c: c.json(429, {"error": "busy"}, retry_after="74.5")))
    assert isinstance(caught, RateLimitError)
    assert caught.retry_after == 74.5


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda c: c.json(404, {"error": "404 page not found"}), "OLLAMA_HOST"),
        (lambda c: c.json(200, {"hello": "world"}), "OLLAMA_HOST"),
        (lambda c: c.json(200, [1]), "OLLAMA_HOST"),
        (lambda c: (c.headers(200, content_length="6"), c.send("<html>")), "OLLAMA_HOST"),
    ],
    ids=["404", "other-json", "list", "html"],
)
def test_a_server_that_is_no_ollama_is_told(reply: Reply, said: str):
    """A base URL of something else is an error that names the variable."""
    caught, _ = failing(reply)
    assert isinstance(caught, ProviderError)
    assert said in str(caught)


def test_a_server_that_does_not_run_says_how_to_start_it():
    """The error has the address, the command, and the way without a server."""
    with ScriptedServer(says("x")) as server:
        pass
    with pytest.raises(LLMConnectionError) as caught:
        ask(server)
    assert root(server) in caught.value.message
    assert "ollama serve" in str(caught.value.hint)
    assert "--model local" in str(caught.value.hint)


def test_a_connection_that_breaks_after_text_restarts_the_stream():
    """The text that was shown is taken back before the second try; the answer is that of the second try alone."""

    def breaks(call: Call) -> None:
        call.headers(content_type="application/x-ndjson", content_length="100000")
        call.send(json.dumps(chunk("Once ")) + "\n")
        call.break_off()

    with ScriptedServer(Ollama(breaks, says("Here."))) as server:
        events = stream(server, request(service="ollama", model=MODEL))
    kinds = [e.kind for e in events]
    assert kinds == ["start", "text", "error", "stream_restarted", "text", "usage", "end"]
    assert events[-1].response is not None
    assert events[-1].response.text == "Here."


def wait_until_lost(call: Call) -> None:
    """Send pieces until the reader goes away."""
    for _ in range(500):
        call.send(json.dumps(chunk("on ")) + "\n")
        time.sleep(0.02)


def test_silence_is_a_timeout():
    """A stream that falls silent ends after the idle limit and the connection is closed."""

    def silent(call: Call) -> None:
        lines(chunk("Once "))(call)
        time.sleep(1.0)
        wait_until_lost(call)

    with ScriptedServer(Ollama(silent)) as server, pytest.raises(LLMTimeoutError, match="silence"):
        ask(server, settings={"llm_idle_timeout": 0.3})
    assert server.lost.wait(5)


@pytest.mark.parametrize("how", ["cancelled", "left"])
def test_stopping_closes_the_connection(how: str):
    """A stopped run, and a reader that leaves the stream early, stop the model's work: the server sees them go."""

    def endless(call: Call) -> None:
        lines(chunk("Once "))(call)
        wait_until_lost(call)

    with ScriptedServer(Ollama(endless)) as server:

        async def go() -> None:
            service = service_for(server)
            spoken = asyncio.Event()

            async def listen() -> None:
                events: Any = service.stream(request(service="ollama", model=MODEL))
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


# Keys, addresses, prices.


def test_the_sdk_sends_no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    """OLLAMA_API_KEY does not go to any server; a key that is given does, and shows nowhere else."""
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    with ScriptedServer(Ollama(says("ok"))) as server:
        ask(server)
        config = AdapterConfig(provider_type="ollama", model=MODEL, base_url=root(server), api_key=SecretStr(KEY))
        client = UnifiedOllamaClient(config)
        client.chat("Hi.")
        shown = f"{client!r} {client.__dict__!r}"
        client.close()
    assert [s.headers.get("authorization") for s in server.seen] == [None, None, f"Bearer {KEY}", f"Bearer {KEY}"]
    assert KEY not in shown


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture):
    """Neither logs at DEBUG nor errors with their whole chain of causes hold a key that was given."""
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(Ollama(error(400, f"what is {KEY}?"))) as server:
        config = AdapterConfig(provider_type="ollama", model=MODEL, base_url=root(server), api_key=SecretStr(KEY))
        client = UnifiedOllamaClient(config)
        with pytest.raises(ProviderError) as caught:
            client.chat("Hi.")
        client.close()
    shown = f"{caught.value!r} {caught.value.facts} {''.join(traceback.format_exception(caught.value))}"
    assert KEY not in shown
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "http://localhost:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":5000", "http://localhost:5000"),
        ("gpu-box", "http://gpu-box:11434"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://example.com", "http://example.com"),
        ("https://example.com/ollama/", "https://example.com/ollama"),
    ],
)
def test_ollama_host_is_read_as_ollama_does(given: str, address: str, monkeypatch: pytest.MonkeyPatch):
    """Scheme and port may be left out, and the address that a server listens at is one to call."""
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert Settings().ollama_host == address


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999"])
def test_an_address_that_is_none_is_refused(url: str):
    """An OLLAMA_HOST that is no http(s) address is a mistake of the settings, said before any call."""
    with ScriptedServer(says("x")) as server, pytest.raises(ConfigurationError, match="not an http") as caught:
        ask(server, settings={"ollama_host": url})
    assert "OLLAMA_HOST=http://localhost:11434" in str(caught.value.hint)


def test_the_server_can_be_checked():
    """There is no key to check; that the server answers is enough."""
    with ScriptedServer(Ollama(says("ok"))) as server:

        async def go() -> bool:
            service = service_for(server)
            try:
                return await service.validate_api_key("ollama")
            finally:
                await service.cleanup()

        assert run(go())


@pytest.mark.parametrize(
    ("model", "url", "cost"),
    [
        ("llama3.2", None, 0.0),
        ("llama3.2", "http://localhost:11434", 0.0),
        ("llama3.2", "http://192.168.1.7:11434", 0.0),
        ("llama3.2", "http://gpu-box:11434", 0.0),
        ("llama3.2", "https://ollama.com", None),
        ("llama3.2", "http://93.184.216.34:11434", None),
        ("gpt-oss:120b-cloud", "http://localhost:11434", None),
    ],
)
def test_only_ones_own_server_is_free(model: str, url: str | None, cost: float | None):
    """Models on this machine or in a private network cost nothing; what others charge is unknown."""
    assert cost_usd("ollama", model, TokenUsage(10, 10), base_url=url) == cost


def test_connections_are_reused():
    """Many calls go through one TCP connection, beside that of the look for the model."""
    ports: set[int] = set()

    def keep(call: Call) -> None:
        ports.add(call.port)
        said = "".join(json.dumps(item) + "\n" for item in (chunk("ok"), end()))
        call.headers(content_type="application/x-ndjson", content_length=str(len(said)))
        call.send(said)

    with ScriptedServer(Ollama(keep)) as server:
        stream(server, *[request(service="ollama", model=MODEL)] * 20)
    assert len(ports) == 1

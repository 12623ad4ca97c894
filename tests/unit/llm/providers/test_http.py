"""The connections to models: event streams in all legal forms, answers that are none, proxies, headers, errors in all wordings."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import re
import traceback
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import (
    AuthError,
    ConfigurationError,
    ContextLengthError,
    LLMError,
    ProviderError,
    RateLimitError,
)
from dipeo_nb.integrations.http import HTTPClient
from dipeo_nb.llm.core.errors import ErrorContext, retry_after, said_by, said_in_stream, status_error
from dipeo_nb.llm.core.http import DRAIN_S, EventLines, JsonLines, events_of
from dipeo_nb.llm.core.retry import pause, transient
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.anthropic import UnifiedAnthropicClient
from dipeo_nb.llm.providers.claude_code import UnifiedClaudeCodeClient
from dipeo_nb.llm.providers.google import UnifiedGoogleClient
from dipeo_nb.llm.providers.ollama import UnifiedOllamaClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from tests.support.wire_openai import Call, ScriptedServer, run

KEY = "sk-canary-0123456789abcdefghij"
CONTEXT = ErrorContext("openai", "gpt-x", SecretStr(KEY))


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: " + e["type"].encode() + b"\ndata: " + json.dumps(e).encode() + b"\n\n" for e in events)


def read(data: bytes, sizes: random.Random | None = None) -> list[Any]:
    """The data of the events that the SDKs get to see, when the bytes come in pieces."""
    cleaner, out = EventLines(), b""
    while data:
        size = sizes.randint(1, 40) if sizes else len(data)
        out += cleaner.feed(data[:size])
        data = data[size:]
    out += cleaner.end()
    for event in out.split(b"\n\n")[:-1]:
        lines = event.split(b"\n")
        assert [line.partition(b": ")[0] for line in lines] in ([b"data"], [b"event", b"data"])
        assert not any(c in event.decode() for c in "\r\u2028\u2029\u0085")
    texts = [event.rpartition(b"data: ")[2] for event in out.split(b"\n\n")[:-1]]
    return [text if text == b"[DONE]" else json.loads(text) for text in texts]


EVENTS = [{"type": "a", "text": "Hello"}, {"type": "b", "text": "wörld \u2028 \u2029 \x85 \n end"}, {"type": "c"}]
STREAMS = {
    "plain": sse(*EVENTS),
    "comments": b": ping\n\n" + sse(*EVENTS).replace(b"\n\n", b"\n\n: keep-alive\n\n"),
    "numbered": b"".join(b"id: %d\n" % n + sse(e) + b":\n\n" for n, e in enumerate(EVENTS)),
    "crlf": sse(*EVENTS).replace(b"\n", b"\r\n"),
    "cr": sse(*EVENTS).replace(b"\n", b"\r"),
    "bom": b"\xef\xbb\xbf" + sse(*EVENTS),
    "no names": b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in EVENTS),
    "no blanks": sse(*EVENTS).replace(b"data: ", b"data:"),
    "raw separators": b"".join(b"data: " + json.dumps(e, ensure_ascii=False).encode() + b"\n\n" for e in EVENTS),
    "lines": b"".join(b"data: " + json.dumps(e, indent=1).encode().replace(b"\n", b"\ndata: ") + b"\n\n" for e in EVENTS),
    "empty events": b"event: ping\n\n" + sse(*EVENTS) + b"data:\n\nretry: 5\n\n",
    "no last line": sse(*EVENTS).rstrip(b"\n"),
    "cut": sse(*EVENTS) + b'event: d\ndata: {"type": "d", "te',
}


@pytest.mark.parametrize("form", STREAMS)
def test_all_forms_of_event_streams_are_read(form: str):
    """Whole, byte by byte and in random pieces."""
    assert read(STREAMS[form]) == EVENTS
    for seed in range(20):
        assert read(STREAMS[form], random.Random(seed)) == EVENTS


def test_the_end_of_a_stream():
    """`[DONE]` stays; what is no JSON in the middle stays for the reader to refuse."""
    assert read(sse(EVENTS[0]) + b"data: [DONE]\n\n") == [EVENTS[0], b"[DONE]"]
    assert read(sse(EVENTS[0]) + b"data: [DONE]") == [EVENTS[0], b"[DONE]"]
    assert EventLines().feed(b"data: {nonsense\n\n") == b"data: {nonsense\n\n"


def objects(data: bytes, sizes: random.Random | None = None) -> list[Any]:
    """The events that a reader of ours sees, when the bytes come in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        left = data
        while left:
            size = sizes.randint(1, 40) if sizes else len(left)
            yield left[:size]
            left = left[size:]

    async def go() -> list[Any]:
        response = httpx2.Response(200, content=pieces())
        found = [event async for event in events_of(response)]
        assert response.is_closed
        return found

    return asyncio.run(go())


@pytest.mark.parametrize("form", STREAMS)
def test_our_own_reader_reads_all_forms_of_event_streams(form: str):
    """As the SDKs get to see them; half of a surrogate pair and bytes that are no UTF-8 are for whoever takes the text."""
    assert objects(STREAMS[form]) == EVENTS
    for seed in range(5):
        assert objects(STREAMS[form], random.Random(seed)) == EVENTS


def test_what_our_own_reader_refuses():
    assert objects(b'data: {"a": "\xff"}\n\n') == [{"a": "\ufffd"}]
    assert objects(rb'data: {"a": "\ud83d"}' + b"\n\n") == [{"a": "\ud83d"}]
    with pytest.raises(ValueError, match="Expecting"):
        objects(b"data: {nonsense\n\n" + sse(EVENTS[0]))
    for other in (b"[1]", b"1", b'"text"', b"null"):
        with pytest.raises(TypeError, match="not an object"):
            objects(b"data: " + other + b"\n\n")


def test_a_stream_that_says_it_is_done():
    """What follows is read, as the connection can only then be used again; nobody waits long for it."""
    assert objects(sse(EVENTS[0]) + b"data: [DONE]\n\n" + sse(EVENTS[1])) == [EVENTS[0]]
    read_on: list[str] = []

    async def pieces(rest: float) -> AsyncIterator[bytes]:
        yield sse(EVENTS[0]) + b"data: [DONE]\n\n"
        await asyncio.sleep(rest)
        read_on.append("the rest")
        yield b": bye\n\n"

    async def go(rest: float) -> None:
        response = httpx2.Response(200, content=pieces(rest))
        assert [event async for event in events_of(response)] == [EVENTS[0]]
        assert response.is_closed

    asyncio.run(go(0))
    assert read_on == ["the rest"]
    asyncio.run(asyncio.wait_for(go(600), DRAIN_S + 30))
    assert read_on == ["the rest"]


def test_lines_of_json():
    """Empty lines go, and separators within texts break no line."""
    text = {"text": "a\u2028b\u0085c"}
    raw = json.dumps(text, ensure_ascii=False).encode()
    lines = JsonLines()
    out = lines.feed(b"\n\n" + raw + b"\n\r\n\n" + raw[:5]) + lines.feed(raw[5:]) + lines.end()
    assert [json.loads(line) for line in out.decode().splitlines()] == [text, text]


# The clients.

ANSWER = {
    "id": "resp_1", "object": "response", "model": "gpt-x", "status": "completed", "created_at": 1, "tools": [],
    "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "Hello world", "annotations": []}]}],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5,
              "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}  # fmt: skip


def openai(url: str, **options: Any) -> UnifiedOpenAIClient:
    given = {"provider_type": "openai", "base_url": url, "api_key": SecretStr(KEY), "model": "gpt-x", "max_retries": 0}
    return UnifiedOpenAIClient(AdapterConfig(**given, **options))


def say(client: Any) -> str:
    async def go() -> str:
        try:
            return (await client.async_chat("Hi")).text
        finally:
            await client.cleanup()

    return run(go())


@pytest.mark.parametrize("between", [b": ping\n\n", b": ping\n", b"id: 7\n", b"retry: 3\n\n", b"event: keepalive\n\n"])
def test_keep_alives_and_numbers(between: bytes):
    """Gateways send them; the answer is the same."""

    def reply(call: Call) -> None:
        call.headers(content_type="text/event-stream", connection="close")
        deltas = [{"type": "response.output_text.delta", "delta": d} for d in ("Hello ", "world")]
        for event in (*deltas, {"type": "response.completed", "response": ANSWER}):
            call.send((between + sse(event)).decode())

    with ScriptedServer(reply) as server:
        assert say(openai(server.url)) == "Hello world"


def test_an_answer_that_comes_whole_is_one():
    """A gateway that does not stream."""
    with ScriptedServer(lambda call: call.json(200, ANSWER)) as server:
        assert say(openai(server.url)) == "Hello world"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"error": {"message": "Insufficient credits", "code": 402}}, ProviderError, "Insufficient credits"),
        ({"error": {"message": "Slow down", "code": "429"}}, RateLimitError, "Slow down"),
        ({"error": "out of money"}, ProviderError, "out of money"),
        ({"detail": [{"msg": "field required", "loc": ["body"]}]}, ProviderError, "field required"),
        ({"message": "no such route"}, ProviderError, "no such route"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_errors_in_json(body: dict[str, Any], kind: type[LLMError], words: str, status: int):
    """Also with the status of success: what the server said is told, at once."""
    with ScriptedServer(lambda call: call.json(status, body)) as server:
        with pytest.raises(LLMError, match=words) as caught:
            say(openai(server.url))
        assert isinstance(caught.value, kind if status == 200 else LLMError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("client", [UnifiedOpenAIClient, UnifiedAnthropicClient, UnifiedGoogleClient, UnifiedOllamaClient])
def test_the_environment(client: Any, monkeypatch: pytest.MonkeyPatch):
    """No proxy for this machine; for others a clear word about one that cannot be used, and about certificates."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    made = client(AdapterConfig(provider_type=client.provider, model="m", api_key=SecretStr(KEY), max_retries=0))
    import httpx2

    def mounts(address: str) -> Any:
        return made.http(httpx2, address)._mounts

    assert not mounts("http://127.0.0.1:1/v1")
    assert not mounts("http://localhost:1")
    assert mounts("https://models.example.com")
    monkeypatch.setenv("ALL_PROXY", "socks://me:canary-password@10.0.0.1:1")
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        mounts("https://models.example.com")
    assert "canary-password" not in str(caught.value)
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        mounts("https://models.example.com")


def test_the_environment_means_the_same_to_api_jobs(monkeypatch: pytest.MonkeyPatch):
    """This machine is called without a proxy; a proxy and certificates that cannot be used are the same clear word."""

    def ask(url: str) -> Any:
        return asyncio.run(HTTPClient().request("GET", url, max_retries=0, timeout=5))

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ScriptedServer(lambda call: call.json(200, {"direct": True})) as server:
        assert json.loads(ask(server.url).content) == {"direct": True}
    monkeypatch.setenv("HTTP_PROXY", "socks://me:canary-password@10.0.0.1:1")
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        ask("http://models.example.com")
    assert "canary-password" not in str(caught.value)
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        ask("https://models.example.com")


@pytest.mark.parametrize(
    ("header", "said", "cost"),
    [
        ("0.00123", {}, 0.00123),
        ("4.5e-06", {}, 4.5e-06),
        ("0.5", {"cost": 0.25}, 0.25),  # the usage is nearer to the bill
        ("0.0", {}, None),  # gateways say 0 of what they have no price for
        ("", {}, None),
        ("-1", {}, None),
        ("nan", {}, None),
        ("inf", {}, None),
        ("free", {}, None),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_a_gateway_says_in_a_header_that_an_answer_cost(
    header: str, said: dict[str, float], cost: float | None, whole: bool
):
    """It counts for an answer that came whole; the header of a stream was sent before the answer was there."""
    answer = {**ANSWER, "usage": {**ANSWER["usage"], **said}}

    def reply(call: Call) -> None:
        if whole:
            call.json(200, answer, x_litellm_response_cost=header)
        else:
            call.stream([{"type": "response.completed", "response": answer}], x_litellm_response_cost=header)

    async def go(url: str) -> Any:
        service = LLMService(get_settings(), InMemoryAPIKeyService({"openai": KEY}))
        try:
            request = LLMRequest("openai", "gpt-x", (ChatMessage("user", "Hi"),), base_url=url)
            return await service.complete(request)
        finally:
            await service.cleanup()

    with ScriptedServer(reply) as server:
        response = run(go(server.url))
    assert response.cost_usd == (cost if whole else said.get("cost"))
    assert response.usage.total == 5


@pytest.mark.parametrize("allowed", [True, False])
def test_headers_of_the_environment_go_where_they_may(allowed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: canary-gateway\nX-Team: blue")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-canary")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-canary")
    with ScriptedServer(lambda call: call.json(200, ANSWER)) as server:
        assert say(openai(server.url, ambient_headers=allowed)) == "Hello world"
    sent = json.dumps(server.seen[0].headers)
    for canary in ("canary-gateway", "org-canary", "proj-canary"):
        assert (canary in sent) is allowed


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-AAAABBBBCCCC\nEEEEFFFFGGGG1", "sk-…abcdef1234567890", "“sk-abcdef1234567890”", "sk abcdef 123456789",
        "sk-proj-AAAABBBBCCCC\tEEEEFFFFGGGG1", "sk-proj-AAAABBBBCCCC\r\nX-Other: EEEEFFFFGGGG1", "sk-proj-AAAABBBBключEEEEFFFFGGGG1",
        '"sk-abcdef1234567890"', "'sk-abcdef1234567890'", "b'sk-abcdef1234567890'", "`sk-abcdef1234567890`", "sk-abcdef\x0012345678901",
        "sk-abcdef\xa012345678901", "sk-abcdef\u200b12345678901", "sk-abcdef\udce912345678901", "Bearer sk-abcdef1234567890", "sk-abc\x1b[0mdef12345678",
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(
    "client", [UnifiedOpenAIClient, UnifiedAnthropicClient, UnifiedGoogleClient, UnifiedOllamaClient, UnifiedClaudeCodeClient]
)
def test_a_key_that_cannot_be_sent(client: Any, key: str):
    """Is refused before anything is sent, and shown in no form."""
    made = client(AdapterConfig(provider_type=client.provider, model="m", api_key=SecretStr(key)))
    with pytest.raises(AuthError, match="cannot be sent") as caught:
        made.chat("Hi")
    shown = "".join(traceback.format_exception(caught.value)) + f"{caught.value!r} {caught.value.facts} {redactor.text(key)}"
    pieces = (piece for piece in re.split(r"[^\w-]+", key) if len(piece) >= 6 and piece != "Bearer")
    assert not any(piece in shown for piece in (repr(key)[1:-1], *pieces))


def test_redirects_are_not_followed():
    """The key goes to the server that was named."""
    with ScriptedServer(lambda call: call.json(200, ANSWER)) as other:
        with (
            ScriptedServer(lambda c: c.headers(307, location=f"{other.url}/responses", content_length="0")) as server,
            pytest.raises(ProviderError, match="sends its callers elsewhere"),
        ):
            say(openai(server.url))
        assert not other.seen


# Errors.


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190123 + 32000 > 200000",
        "the request exceeds the available context size, try increasing it (exceed_context_size_error)",
        "Input is too long for requested model.",
        "inputs tokens + max_new_tokens must be <= 4096",
        "The input token count (1200000) exceeds the maximum number of tokens allowed",
    ],
)
def test_a_prompt_that_is_too_long(said: str):
    assert isinstance(status_error(CONTEXT, 400, said), ContextLengthError)


def test_statuses_and_codes():
    assert isinstance(status_error(CONTEXT, 413, "Payload too large"), ContextLengthError)
    assert isinstance(status_error(CONTEXT, 429, "Request too large for gpt-x on tokens per min (TPM)"), ContextLengthError)
    assert "refused the key" not in status_error(CONTEXT, 403, "Your region is not supported").message
    assert "refused the key" in status_error(CONTEXT, 401, "Invalid key").message
    for code, status in (("429", 429), ("502", 502), ("503", 503), ("timeout_error", 504), ("overloaded_error", 529)):
        error = said_in_stream(CONTEXT, code, "busy")
        assert (error.status, transient(error)) == (status, True)
    assert not transient(said_in_stream(CONTEXT, "bad_thing", "no"))
    assert said_by({"error": {"message": "m", "metadata": {"error_type": "provider_unavailable"}}}) == (
        "provider_unavailable",
        "m",
    )
    assert said_by([{"error": {"message": "m", "code": 5}}]) == ("5", "m")
    assert said_by("<html>") == ("", "")


def test_what_a_server_says_about_trying_again():
    no = status_error(CONTEXT, 500, "oops", headers={"X-Should-Retry": "false"})
    yes = status_error(CONTEXT, 400, "oops", headers={"x-should-retry": "true"})
    assert (transient(no), transient(yes)) == (False, True)
    policy = RetryConfig(4, 1.0, max_delay=60)
    for header in ("0", "-3"):
        error = status_error(CONTEXT, 429, "slow", headers={"Retry-After": header})
        wait = pause(error, 1, policy)
        assert wait is not None
        assert wait >= 0.25
    now = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
    stamp = now.timestamp()
    assert retry_after({"retry-after": "nan"}, now) is None
    assert retry_after({"retry-after": "1e400"}, now) is None
    assert retry_after({"x-ratelimit-reset": str(stamp + 7), "x-ratelimit-remaining": "0"}, now) == pytest.approx(7)
    assert retry_after({"x-ratelimit-reset": str((stamp + 7) * 1000), "x-ratelimit-remaining": "0"}, now) == pytest.approx(7)
    assert retry_after({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, now) == 360

"""Malformed answers through the whole service: they are repeated, go to fallbacks, count for the circuit, and show no text twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from dipeo_nb.domain.chat import Budget, LLMResponse, StreamEvent
from dipeo_nb.errors import DipeoError, LLMConnectionError, LLMError, LLMTimeoutError, ProviderError, RateLimitError
from dipeo_nb.llm.core.errors import ErrorContext, reading, translate_errors
from tests.support import wire_google as google
from tests.support import wire_openai as openai
from tests.support.loopback_providers import FAST, WIRES, through_service
from tests.support.wire_openai import Call, Reply, ScriptedServer, delta, final, message


def sends(*texts: str) -> Reply:
    """A stream of these events, verbatim."""

    def reply(call: Call) -> None:
        call.headers(content_type="text/event-stream", connection="close")
        for text in texts:
            call.send(f"data: {text}\n\n")

    return reply


HELLO = json.dumps(delta("Hello"))
MALFORMED = {
    "no JSON": sends(HELLO, "{nonsense"),
    "text that is a number": sends(HELLO, json.dumps({**delta(""), "delta": 5})),
    "no object": sends(HELLO, "[1]"),
    "nested deeply": sends(HELLO, "[" * 50_000 + "]" * 50_000),
    "an item that is none": sends(HELLO, json.dumps({"type": "response.output_item.added", "item": None})),
    "a response that is none": sends(HELLO, json.dumps({"type": "response.completed", "response": 7})),
}


def asked(
    server: ScriptedServer, service: str = "openai", **options: Any
) -> tuple[list[StreamEvent], LLMResponse | DipeoError]:
    return through_service(server, next(wire for wire in WIRES if wire.service == service), **options)


def shown(events: list[StreamEvent]) -> str:
    """The text that a reader sees in the end: `stream_restarted` takes back what came before."""
    text = ""
    for event in events:
        text = "" if event.kind == "stream_restarted" else text + event.text * (event.kind == "text")
    return text


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_another_try_follows_what_had_begun_well(reply: Reply):
    budget = Budget(tokens=100_000)
    with ScriptedServer(reply, openai.says("Hello world")) as server:
        events, answer = asked(server, budget=budget)
    assert isinstance(answer, LLMResponse)
    assert answer.text == shown(events) == "Hello world"
    assert [e.kind for e in events if e.kind in ("error", "stream_restarted")] == ["error", "stream_restarted"]
    assert budget.used_tokens >= 42


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_a_fallback_follows_a_server_that_never_says_anything_else(reply: Reply):
    with ScriptedServer(reply) as server:
        events, answer = asked(server, fallbacks=["echo"])
    assert len(server.seen) == FAST.max_attempts
    assert isinstance(answer, LLMResponse)
    assert answer.provider == "echo"
    assert answer.text == shown(events)


def test_a_server_of_another_kind_is_asked_once():
    """Nothing of its answer was understood: another try would not be either, and the hint says what to check."""
    with ScriptedServer(sends('{"choices": [{"delta": {"content": "Hello"}}]}')) as server:
        _, answer = asked(server)
    assert len(server.seen) == 1
    assert isinstance(answer, ProviderError)
    assert "OPENAI_BASE_URL" in (answer.hint or "")


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
def test_a_call_that_gemini_wrote_badly_is_asked_for_again(reason: str):
    """A bounded number of times."""
    badly: Callable[[Call], None] = google.streams(google.chunk(google.text("I look.")), google.chunk(finish=reason))
    with ScriptedServer(badly, google.says("Sun")) as server:
        events, answer = asked(server, "gemini")
        assert isinstance(answer, LLMResponse)
        assert shown(events) == answer.text == "Sun"
    with ScriptedServer(badly) as server:
        _, answer = asked(server, "gemini")
        assert isinstance(answer, ProviderError)
        assert reason in answer.message
        assert len(server.seen) == FAST.max_attempts


def test_halves_of_a_character_are_joined():
    """Gateways that cut texts by UTF-16 send the halves of a surrogate pair in two pieces; one alone is its escape sequence."""
    pieces = [{**delta(""), "delta": half} for half in ("Hi \ud83d", "\ude00", "\udc00!")]
    with ScriptedServer(lambda c: c.stream([*pieces, final(message("Hi \ud83d\ude00\udc00!"))])) as server:
        events, answer = asked(server)
    assert isinstance(answer, LLMResponse)
    assert [e.text for e in events if e.kind == "text"] == ["Hi ", "😀", "\\udc00!"]
    assert answer.text == "Hi 😀\\udc00!"


GROUPED: list[tuple[list[Exception], type[LLMError]]] = [
    ([httpx.ReadTimeout("slow")], LLMTimeoutError),
    ([ConnectionResetError("gone")], LLMConnectionError),
    ([anyio.BrokenResourceError()], LLMConnectionError),
    ([json.JSONDecodeError("x", "y", 0)], ProviderError),
    ([RuntimeError("of the SDK"), httpx.ReadTimeout("slow")], LLMTimeoutError),
    ([RuntimeError("of the SDK")], LLMConnectionError),
    ([ConnectionResetError("gone"), RateLimitError("slow down", provider="p")], RateLimitError),
]


@pytest.mark.parametrize("entry", [reading, translate_errors])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize(("errors", "kind"), GROUPED)
def test_groups_of_errors_from_task_groups_are_one_of_ours(
    entry: Any, levels: int, errors: list[Exception], kind: type[LLMError]
):
    group = ExceptionGroup("unhandled errors in a TaskGroup", errors)
    for _ in range(levels - 1):
        group = ExceptionGroup("unhandled errors in a TaskGroup", [group])
    with pytest.raises(LLMError) as raised, entry(ErrorContext("p", "m")):
        raise group
    assert type(raised.value) is kind
    assert raised.value.provider == "p"


def test_a_group_whose_error_repeats_the_key_is_no_cause():
    with pytest.raises(LLMError) as raised, reading(ErrorContext("p", "m", SecretStr("sk-canary"))):
        raise ExceptionGroup("unhandled errors", [ConnectionError("refused sk-canary")])
    assert raised.value.__cause__ is None
    assert "sk-canary" not in str(raised.value)

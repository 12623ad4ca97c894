"""What every service keeps, whatever it is: endings are said, options checked, conversations sent as they may be, any event loop."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, ToolCall
from dipeo_nb.domain.request_options import checked_option
from dipeo_nb.errors import EmptyAnswerError, LLMError, StructureError, UnsupportedError, ValidationError
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.providers import services
from dipeo_nb.llm.streaming import TimeLimits
from tests.support.simulated_services import SERVICES, Answer, Player, playing

T = TypeVar("T")
SHAPE = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"], "additionalProperties": False}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return request.param


def using(player: Player, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """The result of *work* on the whole service."""

    async def go() -> T:
        llm = player.llm()
        try:
            return await work(llm)
        finally:
            await llm.cleanup()

    return run_sync(go())


def asked(player: Player, *messages: ChatMessage, **options: Any) -> LLMRequest:
    given = messages or (ChatMessage("user", "Say hello."),)
    return LLMRequest(player.service, player.model, given, **options)


def test_no_service_is_forgotten():
    assert {*SERVICES, "echo", "claude-code-custom"} == set(services())


# Endings.

CUT: Answer = ("It is 5 o", "length")
NOTHING: Answer = ("", "length")
EMPTY: Answer = (" ", "stop")


def warned(answer: LLMResponse) -> list[str]:
    """The warnings, but for the one that a service takes no max_tokens (claude-code)."""
    return [warning for warning in answer.warnings if not warning.endswith("takes no max_tokens; 200 is left out.")]


def test_an_answer_that_was_cut_says_so(service: str):
    """The text is there, with a warning that names the limit and what to raise; streamed, whole and in a batch alike."""
    with playing(service, CUT) as player:
        request = asked(player, max_tokens=200)
        answers = using(player, lambda llm: llm.batch([request, request]))
        answers.append(player.client().chat(request))
    for answer in answers:
        assert isinstance(answer, LLMResponse)
        assert (answer.text, answer.finish_reason) == ("It is 5 o", "length")
        assert warned(answer) == [f"The answer of {answer.model} was cut off at its limit of 200 tokens; raise max_tokens."]


def test_a_limit_that_is_reached_before_the_first_word_is_an_error(service: str):
    """It names the limit, says what to raise and what was paid, and is booked; the same in a batch and from the bare client."""
    budget = Budget(tokens=10_000)
    with playing(service, NOTHING) as player:
        request = asked(player, max_tokens=200, budget=budget)
        errors: list[Any] = using(player, lambda llm: llm.batch([request]))
        with pytest.raises(EmptyAnswerError) as caught:
            player.client().chat(request)
    for error in (*errors, caught.value):
        assert isinstance(error, EmptyAnswerError)
        assert "200 tokens" in error.message
        assert "max_tokens" in str(error.hint)
        assert error.usage.total > 0
    assert budget.used_tokens == errors[0].usage.total


def test_an_answer_that_is_empty_says_so(service: str):
    with playing(service, EMPTY) as player:
        answer = using(player, lambda llm: llm.complete(asked(player)))
    assert not answer.text.strip()
    assert len(answer.warnings) == 1
    assert "empty answer" in answer.warnings[0]


def test_a_whole_answer_has_no_warning(service: str):
    with playing(service, ("Hello my friend.", "stop")) as player:
        answer = using(player, lambda llm: llm.complete(asked(player, max_tokens=200)))
    assert (answer.text, warned(answer)) == ("Hello my friend.", [])


def test_structure_that_was_cut_names_the_limit(service: str):
    """And is not asked for once more, which would be cut again."""
    with playing(service, ('{"year": 19', "length")) as player:
        with pytest.raises(StructureError, match="limit of tokens") as caught:
            using(player, lambda llm: llm.complete(asked(player, response_format=SHAPE)))
        assert len(player.sent) == 1
    assert "max_tokens" in str(caught.value.hint)


def test_a_fallback_answers_for_a_model_that_thought_too_long(service: str):
    """What both took is counted."""
    budget = Budget(tokens=10_000)
    with playing(service, NOTHING) as player:
        answer = using(player, lambda llm: llm.complete(asked(player, max_tokens=50, fallbacks=["echo"], budget=budget)))
    assert answer.provider == "echo"
    assert answer.usage.total == budget.used_tokens > 12


# Requests.


def test_blank_messages_are_not_sent(service: str):
    """Providers refuse blank blocks and turns: what was empty in a conversation is left out."""
    turns = (
        ChatMessage("system", " "), ChatMessage("user", "Hi."), ChatMessage("assistant", ""), ChatMessage("user", " \n"),
        ChatMessage("assistant", "Yes."), ChatMessage("user", "And?"),
    )  # fmt: skip
    with playing(service) as player:
        assert using(player, lambda llm: llm.complete(asked(player, *turns))).text == "Fine."
        sent = player.sent[-1]
    if service in ("openai", "anthropic", "gemini"):
        items = sent.get("input") or sent.get("messages") or sent.get("contents")
        assert "" not in [text.strip() for text in texts(items)]
        assert not sent.get("system")
        assert not sent.get("systemInstruction")
    assert "And?" in json.dumps(sent)


def texts(node: Any) -> list[str]:
    """The texts of messages, in any provider's form."""
    if isinstance(node, list):
        return [text for item in node for text in texts(item)]
    if not isinstance(node, dict):
        return []
    found = [v for k, v in node.items() if k in ("text", "content") and isinstance(v, str)]
    return found + [text for value in node.values() for text in texts(value)]


def test_half_characters_are_sent_escaped(service: str):
    """They cannot be encoded: no crash of a library, and the rest of the prompt arrives."""
    with playing(service) as player:
        assert using(player, lambda llm: llm.complete(asked(player, ChatMessage("user", "x \ud83d y")))).text == "Fine."
        assert r"x \\ud83d y" in json.dumps(player.sent[-1])


def test_a_call_that_nobody_answered_gets_a_result(service: str):
    """Providers refuse a conversation with an open call."""
    if service in ("claude-code", "local"):
        pytest.skip("not here: it has no calls of functions")
    open_call = ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Bern"}),))
    with playing(service) as player:
        request = asked(player, ChatMessage("user", "Weather?"), open_call, ChatMessage("user", "Never mind."))
        assert using(player, lambda llm: llm.complete(request)).text == "Fine."
        assert "was not answered" in json.dumps(player.sent[-1])


WRONG = [("timeout", "5"), ("max_tokens", 0), ("max_tokens", "100"), ("temperature", 9), ("temperature", float("nan")), ("extra", {"model": "x"}), ("extra", {"tools": []})]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_wrong_options_are_refused_by_the_bare_client(service: str, name: str, value: Any):
    """Before anything is sent."""
    with playing(service) as player:
        with pytest.raises(ValidationError, match=name):
            player.client().chat("Hi.", **{name: value})
        assert len(player.sent) == 0


OPTIONS = {"stop": "END", "top_p": 0.5, "seed": 3, "reasoning": "low"}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_sent_or_refused(service: str, name: str):
    """Never left out without a word."""
    with playing(service) as player:
        able = capabilities_of(service, player.model)
        taken = able.reasoning is not None if name == "reasoning" else name in able.options
        before = using(player, lambda llm: llm.complete(asked(player)))
        assert before.text == "Fine."
        plain = player.sent[-1]
        if not taken:
            with pytest.raises(UnsupportedError, match=name):
                using(player, lambda llm: llm.complete(asked(player, **{name: OPTIONS[name]})))
            assert len(player.sent) == 1
            return
        using(player, lambda llm: llm.complete(asked(player, **{name: checked_option(name, OPTIONS[name])})))
        assert player.sent[-1] != plain


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"$ref": "#/$defs/No"}, {"$ref": "https://example.com/x"}, {"a": object()}], ids=str
)
def test_a_schema_that_is_none_is_refused_before_the_call(service: str, schema: Any):
    with playing(service) as player:
        with pytest.raises(ValidationError) as caught:
            using(player, lambda llm: llm.complete(asked(player, response_format=schema)))
        with pytest.raises(ValidationError):
            player.client().chat("Hi.", response_format=schema)
        assert len(player.sent) == 0
    assert caught.value.hint


# The first call.


def test_the_time_limit_begins_once_the_package_is_loaded(service: str, monkeypatch: pytest.MonkeyPatch):
    """The import of a provider's package is no part of a call's time, and the event loop goes on meanwhile. It needs no key, and asks
    nothing of the provider."""
    with playing(service) as player:
        client = player.client()
        module = importlib.import_module(type(client).__module__)
        order: list[str] = []
        limited = TimeLimits.__init__

        def begun(self: TimeLimits, *limits: float) -> None:
            order.append("limits")
            limited(self, *limits)

        monkeypatch.setattr(TimeLimits, "__init__", begun)
        if service != "local":  # which reports how far the model is loaded, and its time begins anew then
            load = module.load_sdk

            def loaded() -> Any:
                order.append(
                    "load" if threading.current_thread() is threading.main_thread() or _on_a_loop() else "load in a thread"
                )
                return load()

            monkeypatch.setattr(module, "load_sdk", loaded)

        async def twice() -> None:
            await client.prepare()
            await client.prepare()

        asyncio.run(twice())
        assert len(player.sent) == 0
        prepared = [*order]
        assert set(prepared) == ({"load in a thread"} if service != "local" else set())
        order.clear()
        assert using(player, lambda llm: llm.complete(asked(player))).text
        assert order[: order.index("limits")].count("load in a thread") == (service != "local")
        asyncio.run(client.cleanup())


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Event loops.


def test_a_client_serves_any_loop_and_thread(service: str):
    """Two loops one after the other, the blocking form between, and threads at once; streams, too."""
    with playing(service) as player:
        client = player.client()

        async def twice() -> list[str]:
            whole = [(await client.async_chat("Hi.")).text, (await client.async_chat("Hi.")).text]
            streamed = [e.text async for e in client.stream(client.request("Hi.")) if e.kind == "text"]
            return [*whole, "".join(streamed)]

        found = [*asyncio.run(twice()), client.chat("Hi.").text, *asyncio.run(twice())]
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(asyncio.run(client.async_chat("Hi.")).text)
            except LLMError as error:
                answers.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        asyncio.run(client.cleanup())
    assert found == ["Fine."] * 7
    assert answers == ["Fine."] * 4

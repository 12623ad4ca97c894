"""Diagrams, chats and recordings say what is wrong with an answer; messages and addresses are taken in the forms that people use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.diagram.document import load_text
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.errors import EmptyAnswerError, RunError, ValidationError
from dipeo_nb.llm import endings
from dipeo_nb.llm.core.client import as_message
from dipeo_nb.llm.providers import create_adapter
from dipeo_nb.llm.service import LLMService
from dipeo_nb.notebook import answer as look
from dipeo_nb.notebook.answer import of_response
from dipeo_nb.testing import ScriptedClient
from tests.support import wire_openai as wire
from tests.support.simulated_services import playing
from tests.support.wire_openai import Call, ScriptedServer

ASKING = """
version: light
persons:
  Ann: {service: openai, model: gpt-4o}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, person: Ann, default_prompt: Hi, max_tokens: 200, props: {%s}}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: End}
"""


def service_of(player: Any) -> LLMService:
    return player.llm()


# Diagrams.


def test_a_run_logs_that_an_answer_was_cut(tmp_path: Path):
    """As a warning of the node, which has it in its record, too."""
    with playing("openai", ("It is 5 o", "length")) as player, dp.Session(tmp_path, llm=service_of(player)) as session:
        result = session.run(load_text(ASKING % ""), view=False)
    logged = [e.payload for e in result.events if str(e.type) == "execution_log"]
    assert [p["level"] for p in logged] == ["WARNING"]
    assert "200 tokens" in logged[0]["message"]
    meta = next(
        e.payload["meta"] for e in result.events if str(e.type) == "node_completed" and "warnings" in e.payload.get("meta", {})
    )
    assert meta["warnings"] == [logged[0]["message"]]


def test_a_node_that_got_no_word_fails(tmp_path: Path):
    with (
        playing("openai", ("", "length")) as player,
        dp.Session(tmp_path, llm=service_of(player)) as session,
        pytest.raises(EmptyAnswerError, match=r"200 tokens.*Raise max_tokens"),
    ):
        session.run(load_text(ASKING % ""), view=False)


@pytest.mark.parametrize(
    "tools",
    ["tools: [{type: function, name: weather, parameters: {type: object}}]", "tools: {type: function, name: weather}",
     "tools: [websearch, {type: function, function: {name: weather}}]"],
)  # fmt: skip
def test_a_function_that_nobody_runs_is_found(tools: str):
    """With where it can run; tools that are built in, or switched off, are none."""
    found = [d for d in load_text(ASKING % tools).check() if d.code == "function-tool"]
    assert len(found) == 1
    assert "'weather'" in found[0].message
    assert "code_job" in str(found[0].hint)
    assert (found[0].node, found[0].field) == ("Ask", "tools")
    off = tools.replace("type: function,", "type: function, enabled: false,")
    assert not [d for d in load_text(ASKING % off).check() if d.code == "function-tool"]


@pytest.mark.parametrize(("text", "status"), [("", None), ("I would look.", "completed")])
def test_a_call_that_nobody_answers_is_no_success(tmp_path: Path, text: str, status: str | None):
    """Without a word besides it fails; with one, it is logged."""

    class Calling(ScriptedClient):
        async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
            async for event in super().stream(request):
                if event.response is not None:
                    made = LLMResponse(
                        text, "openai", "gpt-4o", tool_calls=(ToolCall("c", "weather", {}),), finish_reason="tool_calls"
                    )
                    event = StreamEvent("end", response=made)
                yield event

    diagram = load_text(ASKING % "tools: [{type: function, name: weather}]")
    with dp.Session(tmp_path, llm=Calling(text or "x")) as session:
        if status is None:
            with pytest.raises(RunError, match=r"'weather'.*nothing besides"):
                session.run(diagram, view=False)
            return
        result = session.run(diagram, view=False)
    assert result.status == status
    assert any("'weather'" in e.payload["message"] for e in result.events if str(e.type) == "execution_log")


# Endings.


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (LLMResponse("x", "ollama", "m", finish_reason="stop", warnings=("Own words.",)), "Own words."),
        (LLMResponse("x", "anthropic", "m", finish_reason="pause_turn"), "'pause_turn'"),
        (LLMResponse("", "gemini", "m", finish_reason="stop"), "empty answer"),
        (LLMResponse("", "gemini", "m"), "empty answer"),
        (LLMResponse("x", "gemini", "m", finish_reason="length"), "cut off at its limit of tokens"),
        (LLMResponse("", "gemini", "m", tool_calls=(ToolCall("c", "f", {}),), finish_reason="tool_calls"), ""),
        (LLMResponse("", "gemini", "m", structured=[], finish_reason="stop"), ""),
        (LLMResponse("", "gemini", "m", tool_outputs=({"type": "image"},), finish_reason="stop"), ""),
    ],
)
def test_endings_have_their_words(response: LLMResponse, words: str):
    found = endings.ended(response, LLMRequest(response.provider, "m", ())).warnings
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_a_full_context_is_no_limit_of_tokens():
    """The hint is another one."""
    full = LLMResponse("", "anthropic", "m", TokenUsage(5, 5), finish_reason="length", warnings=("The context is full.",))
    with pytest.raises(EmptyAnswerError, match="context is full") as caught:
        endings.ended(full, LLMRequest("anthropic", "m", (), max_tokens=5))
    assert "max_tokens" not in str(caught.value.hint)


def test_a_model_that_was_only_loaded_says_so(tmp_path: Path):
    with playing("ollama", ("", "load")) as player, dp.Session(tmp_path, llm=service_of(player)) as session:
        answer = session.chat("Hi.", model="ollama:llama3.2", display=False)
    assert "done_reason 'load'" in answer.warnings[0]


def test_warnings_are_shown():
    """In the cell, in text, and for programs."""
    shown = of_response(LLMResponse("Hi", "echo", "m", finish_reason="length", warnings=("Cut off.",)))
    assert "⚠ Cut off" in look.markdown(shown)
    assert "⚠ Cut off." in look.plain(shown)
    assert look.facts(shown)["warnings"] == ["Cut off."]
    assert "warnings" not in look.facts(of_response(LLMResponse("Hi", "echo", "m")))


def test_recordings_keep_how_an_answer_ended(tmp_path: Path):
    """What is replayed is warned of, or refused, as it was live."""
    for ending, words in ((("It is", "length"), "cut off"), (("", "load"), "only loaded")):
        with playing("ollama", ending) as player, dp.Session(tmp_path, llm=service_of(player)) as session:
            with dp.recording(tmp_path / words.replace(" ", "-")) as tape:
                first = session.chat("Hi.", model="ollama:llama3.2", display=False)
                again = session.chat("Hi.", model="ollama:llama3.2", display=False)
            assert tape.replayed == 1
        assert words in first.warnings[0]
        assert again.warnings == first.warnings
    with playing("ollama", ("", "length")) as player, dp.Session(tmp_path, llm=service_of(player)) as session:
        for _ in range(2):
            with dp.recording(tmp_path / "empty") as tape, pytest.raises(EmptyAnswerError):
                session.chat("Hi.", model="ollama:llama3.2", display=False)
        assert tape.replayed == 1


# A refused way to structure.

SHAPES = [{"type": "object", "properties": {"a": {"type": "integer"}, name: {"type": "string"}}} for name in ("b", "c", "d")]


@pytest.mark.parametrize(
    ("said", "requests"),
    [("Unknown parameter: 'text.format'", 2 + 1 + 1), ("Invalid schema for response_format 'answer'", 2 + 2 + 1)],
)
def test_a_refused_way_to_structure_is_remembered(tmp_path: Path, said: str, requests: int):
    """For the model on that server; for that schema alone when it is to blame. The third question asks for the first's form again."""

    def reply(call: Call) -> None:
        if "text" in call.seen.body:
            call.error(400, said)
            return
        wire.says('{"a": 1}')(call)

    with ScriptedServer(reply) as server, dp.Session(tmp_path) as session:
        for shape in (SHAPES[0], SHAPES[1], SHAPES[0]):
            found = session.chat("Hi.", model="openai:gpt-4o", base_url=server.url, response_format=shape, display=False)
            assert found.structured == {"a": 1}
        assert len(server.seen) == requests


# Messages.

OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"role": "user", "content": None}, ChatMessage("user", "")),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]}, ChatMessage("user", "abc")),
        ({"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}, ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Bern"}),))),
        ({"role": "assistant", "tool_calls": [{"id": "c1", "name": "f", "arguments": {"a": 1}}]}, ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", {"a": 1}),))),
        ({"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "[1"}}]}, ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", {}, "[1"),))),
        ({"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f"}}]}, ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", {}),))),
        ({"role": "developer", "content": "x"}, ChatMessage("system", "x")),
    ],
)  # fmt: skip
def test_messages_are_taken_in_openais_form(given: Any, expected: ChatMessage):
    assert as_message(given) == expected


def test_a_result_of_a_tool_is_taken_in_openais_form():
    made = as_message({"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "5"}]})
    assert made.tool_result is not None
    assert (made.tool_result.call_id, made.tool_result.content) == ("c1", "5")


@pytest.mark.parametrize(
    "given",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {"role": "user", "content": [5]}, {"role": "user", "content": 5},
        {"role": "user", "content": b"x"}, {"role": "robot", "content": "x"}, {"content": "x"}, 5, {"role": "assistant", "tool_calls": [{"id": "c"}]},
        {"role": "assistant", "tool_calls": ["c"]}, {"role": "user", "content": [{"type": "text", "text": None}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_message_is_refused(given: Any):
    """With one error that says what is wrong, never a KeyError; nothing of a message is dropped."""
    with pytest.raises(ValidationError) as caught:
        as_message(given)
    assert caught.value.hint


# Addresses.


@pytest.mark.parametrize(
    ("service", "base_url", "expected"),
    [
        ("anthropic", "http://h/v1", "http://h"), ("anthropic", "http://h/v1/", "http://h"), ("anthropic", "http://h/v1/messages", "http://h"),
        ("anthropic", "http://h/proxy", "http://h/proxy"), ("openai", "http://h/v1", "http://h/v1"), ("openai", "http://h/v1/responses", "http://h/v1"),
        ("openai", "http://h/v1/chat/completions", "http://h/v1"), ("gemini", "http://h/v1beta", "http://h"), ("gemini", "http://h/v1beta/openai/", "http://h"),
        ("ollama", "http://h:11434/v1", "http://h:11434"), ("ollama", "http://h:11434/api/chat", "http://h:11434"), ("claude-code", "http://h/v1", "http://h"),
    ],
)  # fmt: skip
def test_what_the_sdk_adds_to_an_address_is_not_there_twice(service: str, base_url: str, expected: str):
    assert create_adapter(service, "m", "sk-x", base_url).base_url() == expected  # type: ignore[attr-defined]

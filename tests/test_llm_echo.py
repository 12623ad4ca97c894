"""The echo model and the fakes of `dipeo_nb.testing`."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import ProviderError, RateLimitError, StructureError, UnsupportedError
from dipeo_nb.llm.providers.echo import words
from dipeo_nb.testing import EchoClient, FailingClient, ScriptedClient, SlowClient, scripted
from tests.llm_wire import events_of, request, run


def echo(prompt: str = "Say  hello,\nplease.", **more: Any) -> LLMResponse:
    return run(EchoClient().async_chat(request(prompt, **more)))


def test_echo_repeats_the_last_question():
    """The answer is the person and the question on one line; the same every time."""
    assert echo().text == "[echo] Say hello, please."
    assert echo(context={"person": "Ada"}).text == "[Ada] Say hello, please."
    assert echo("x" * 500).text == f"[echo] {'x' * 200}…"
    messages = (ChatMessage("user", "first"), ChatMessage("assistant", "yes"), ChatMessage("user", "second"))
    assert run(EchoClient().async_chat(LLMRequest("echo", "", messages))).text == "[echo] second"


def test_echo_counts_words_and_says_so():
    """Words stand for tokens, marked as an estimate; the cost is nothing."""
    response = echo("one two three")
    assert (response.usage.input, response.usage.output) == (3, 4)
    assert response.usage.raw == {"estimated": True}
    assert response.cost_usd == 0.0


@given(st.text())
def test_words_are_the_text(text: str):
    """The streamed words together are the text, except for a text of nothing but space."""
    assert "".join(words(text)) == (text if text.strip() else "")


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    size: int = Field(gt=3)
    share: float = Field(ge=0.5, lt=1)
    kind: Literal["big", "small"]


class Thing(BaseModel):
    done: bool
    name: str = Field(min_length=6, max_length=8)
    colour: Colour
    part: Part
    parts: list[Part] = Field(min_length=2)
    pair: tuple[int, str]
    notes: list[str]
    either: str | None
    note: str = "none"
    like: Thing | None = None


def test_echo_makes_the_smallest_instance():
    """A structured answer is a valid instance: true, nearest to zero, the first choice, as few items as allowed."""
    thing = echo(response_format=Thing).structured
    assert isinstance(thing, Thing)
    assert thing.done is True
    assert thing.part == Part(size=4, share=0.5, kind="big")
    assert (len(thing.parts), thing.colour, thing.notes, thing.like) == (2, Colour.RED, [], None)


def test_echo_answers_json_schemas():
    """A JSON schema gives an object that fits it."""
    schema = {
        "type": "object",
        "properties": {"decision": {"type": "boolean"}, "at": {"type": "string", "format": "date"}},
        "required": ["decision", "at"],
    }
    assert echo(response_format=schema).structured == {"decision": True, "at": "2025-01-01"}


def test_echo_says_what_it_cannot_make_up():
    """A pattern is beyond it: the error names the way out."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^[0-9]{4}$"}},
        "required": ["a"],
    }
    with pytest.raises(UnsupportedError, match="scripted"):
        echo(response_format=schema)


def test_echo_remembers_the_last_five():
    """Asked to select memories, it takes the last five that are listed."""
    listing = "\n".join(f"- m{n} (Ada): text" for n in range(9))
    schema = {
        "type": "object",
        "properties": {"message_ids": {"type": "array", "items": {"type": "string"}}},
        "required": ["message_ids"],
    }
    answer = echo(listing, response_format=schema, phase=ExecutionPhase.MEMORY_SELECTION)
    assert answer.structured == {"message_ids": ["m4", "m5", "m6", "m7", "m8"]}


# Scripted models.


def said(client: ScriptedClient, *requests: LLMRequest) -> list[str]:
    async def go() -> list[str]:
        return [(await client.complete(r)).text for r in requests]

    return run(go())


def test_a_script_goes_by_node_person_and_turn():
    """The node's label decides, then the person's, then `*`; lists go on in turn and their last answer stays."""
    client = scripted({"Judge": "Ada wins.", "Ada": ["One.", "Two."], "*": lambda asked: asked.messages[0].content})
    assert isinstance(client, LLMServicePort)
    ada, judge = request(context={"person": "Ada"}), request(context={"node": "Judge", "person": "Ada"})
    assert said(client, ada, judge, ada, ada, request("Hm?")) == ["One.", "Ada wins.", "Two.", "Two.", "Hm?"]
    assert len(client.requests) == 5


def test_a_script_gives_structure():
    """Values and JSON texts both answer a structured request; what does not fit is the error a model would cause."""
    asked = request(response_format=Part)
    good = {"size": 5, "share": 0.5, "kind": "big"}
    client = ScriptedClient([good, Part(**good), '{"size": 5, "share": 0.5, "kind": "big"}', {"size": 1}])

    async def go() -> None:
        for _ in range(3):
            assert (await client.complete(asked)).structured == Part(**good)
        with pytest.raises(StructureError, match="size"):
            await client.complete(asked)

    run(go())
    assert said(ScriptedClient([{"a": 1}]), request()) == ['{"a": 1}']


def test_a_script_without_an_answer_says_what_it_has():
    """A label that the script lacks is an error that names the labels."""
    with pytest.raises(ProviderError, match="Judge"):
        said(scripted({"Judge": "x"}), request(context={"person": "Ada"}))


def test_a_failing_model_recovers_when_told_so():
    """It fails the given number of times, or for ever."""
    error = RateLimitError("slow down", provider="x")
    client = FailingClient(error, times=2, answer="There.")
    for _ in range(2):
        with pytest.raises(RateLimitError):
            said(client, request())
    assert said(client, request()) == ["There."]
    with pytest.raises(ProviderError, match="on purpose"):
        said(FailingClient(), request())


def test_a_slow_model_can_be_stopped():
    """It pauses before each word, and counts the answers that were cut off."""
    client = SlowClient("one two three", delay=0.02)
    before = time.monotonic()
    assert said(client, request()) == ["one two three"]
    assert time.monotonic() - before >= 0.06
    slow = SlowClient(delay=30)

    async def go() -> None:
        task = asyncio.create_task(events_of(slow, request()))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())
    assert slow.cancelled == 1

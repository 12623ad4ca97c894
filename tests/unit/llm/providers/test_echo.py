"""The echo model and the fakes of `dipeo_nb.testing`."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import enum
import json
import struct
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

import dipeo_nb as dp
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import ProviderError, RateLimitError, StructureError, UnsupportedError
from dipeo_nb.llm.providers.echo import words
from dipeo_nb.testing import EchoClient, FailingClient, ScriptedClient, SlowClient, scripted
from tests.support.examples import examples
from tests.support.wire_openai import events_of, request, run


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
    """Where nothing fits, the error names the way out."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "const": 1}}, "required": ["a"]}
    with pytest.raises(UnsupportedError, match="scripted"):
        echo(response_format=schema)


OF_EVERY_KIND: list[Any] = [
    {"type": "string", "pattern": "^[0-9]{4}$"},
    {"type": "string", "pattern": "^(a|b)+c?$", "minLength": 5},
    {"type": "string", "pattern": "[A-Z]{2}", "minLength": 10, "maxLength": 12},
    {"type": "string", "pattern": "^(?=.*\\d)[a-z0-9]{3,5}$"},
    {"type": "string", "minLength": 3, "maxLength": 3, "pattern": "^.*z$"},
    {"type": "string", "format": "ipv6"},
    {"type": "integer", "minimum": 3.5, "multipleOf": 4},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
    {"type": "number", "minimum": 0.7, "multipleOf": 0.1},
    {"type": ["null", "integer"]},
    {"enum": [None, 0]},
    {"const": {"a": [1]}},
    {"not": {"type": "string"}},
    {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]},
    {"anyOf": [{"type": "string", "maxLength": 0}, {"type": "integer"}], "not": {"const": ""}},
    {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}],
     "type": "object"},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "contains": {"type": "integer", "minimum": 5}, "items": {"type": ["integer", "string"]}, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 2},
    {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
    {"type": "object", "patternProperties": {"^x-[a-z]+$": {"type": "number"}}, "additionalProperties": False, "minProperties": 2},
    {"type": "object", "propertyNames": {"pattern": "^[A-Z]+$"}, "minProperties": 1},
    {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"], "dependentRequired": {"a": ["b"]}},
    {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "v": {}}, "required": ["kind"],
     "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["v"], "properties": {"v": {"type": "integer"}}},
     "else": {"required": ["w"]}},
    {"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["next"]}},
     "$ref": "#/$defs/n"},
    {"$defs": {"t": {"$anchor": "tree", "type": "array", "items": {"$ref": "#tree"}}}, "$ref": "#/$defs/t", "minItems": 1},
]  # fmt: skip


@pytest.mark.parametrize("schema", OF_EVERY_KIND, ids=str)
def test_echo_answers_what_a_schema_asks(schema: Any):
    """Patterns, bounds, unions, conditions, references: the answer fits, with and without a seed, and is the same twice."""
    for model in ("", "1", "2", "77"):
        first, second = (echo(response_format=schema, model=model) for _ in range(2))
        Draft202012Validator(schema).validate(first.structured)
        assert json.loads(first.text) == first.structured == second.structured
        assert first.usage.output


NUMBERS = st.integers(-20, 20)
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, {"type": "string", "format": "date"}]),
    st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, NUMBERS, NUMBERS),
    st.builds(lambda a, n: {"type": "number", "exclusiveMinimum": a, "exclusiveMaximum": a + n}, NUMBERS, st.integers(1, 5)),
    st.builds(lambda a, n: {"type": "integer", "minimum": a, "multipleOf": n}, NUMBERS, st.integers(1, 7)),
    st.builds(lambda a, n: {"type": "string", "minLength": a, "maxLength": a + n}, st.integers(0, 9), st.integers(0, 9)),
    st.builds(lambda p: {"type": "string", "pattern": p}, st.sampled_from(["^[a-f]{2,5}$", "^\\d+-\\w+$", "x|y", "^(ab?)+$"])),
    st.builds(lambda v: {"enum": v}, st.lists(st.sampled_from([1, "a", None, True, 2.5]), min_size=1, max_size=3)),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda i, n: {"type": "array", "items": i, "minItems": n, "maxItems": n + 2}, inner, st.integers(0, 3)),
        st.builds(lambda a, b: {"type": "array", "prefixItems": [a, b], "minItems": 2}, inner, inner),
        st.builds(
            lambda p, r: {"type": "object", "properties": p, "required": [k for k in p if k in r], "additionalProperties": False},
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), st.sets(st.sampled_from("abcd")),
        ),
        st.builds(lambda i, n: {"type": "object", "additionalProperties": i, "minProperties": n}, inner, st.integers(0, 2)),
        st.builds(lambda o: {"anyOf": o}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda a: {"allOf": [a, {}]}, inner),
        st.builds(lambda a, b: {"$defs": {"x": a}, "type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": b}, LEAVES, st.integers(0, 2)),
    ),
    max_leaves=8,
)  # fmt: skip


@given(SCHEMAS, st.sampled_from(["", "1", "9"]))
@examples(150)
def test_any_schema_has_an_answer(schema: dict[str, Any], model: str):
    """Random schemas: an answer that fits, the same twice."""
    if "$ref" in str(schema) and "$defs" not in schema:
        return  # references are from the root; this one lost it
    answers = [echo(response_format=schema, model=model).structured for _ in range(2)]
    Draft202012Validator(schema).validate(answers[0])
    assert answers[0] == answers[1]


def test_a_seed_makes_answers_that_depend_on_the_question():
    """Without one the answer is always the smallest; with one it varies from question to question, repeatably."""
    schema = {"type": "object", "properties": {"decision": {"type": "boolean"}}, "required": ["decision"]}

    def decisions(model: str) -> list[bool]:
        return [echo(f"Question {n}?", response_format=schema, model=model).structured["decision"] for n in range(20)]

    assert set(decisions("")) == {True}
    assert set(decisions("7")) == {True, False}
    assert decisions("7") == decisions("7") != decisions("8")


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


# Tools.


def weather(city: str, days: int = 1) -> str:
    """The weather of a city."""
    return f"sunny in {city} for {days}"


def failing(reason: str) -> str:
    """Never works."""
    raise ValueError(reason)


@pytest.mark.parametrize(
    ("prompt", "tools", "results"),
    [
        ('Ask weather {"city": "Bern", "days": 2}.', [weather], " | weather: sunny in Bern for 2"),
        ('weather({"city": "Bern"})', [weather, failing], " | weather: sunny in Bern for 1"),
        ("What does weather say?", [weather], " | weather: sunny in echo for 1"),
        ('weather {"town": 1} and failing {"reason": "no"}', [weather, failing],
         " | weather: The arguments do not fit: city: Field required; town: Extra inputs are not permitted. | failing: ValueError: no"),
        ("How are you? weathers", [weather], ""),
    ],
)  # fmt: skip
def test_echo_calls_the_functions_that_are_named(prompt: str, tools: list[Any], results: str):
    """Each once, with the JSON after its name or with arguments that fit; the answer tells what they gave."""
    answer = dp.chat(prompt, model="echo", tools=tools)
    assert answer.text == f"[echo] {prompt}{results}"
    assert answer.cost_usd == 0.0


def test_echo_calls_what_has_to_be_called():
    """`tool_choice` decides as it does for models; a tool without a function is never called on its own."""
    offered = dp.llm("echo").request("weather?", tools=[weather]).tools
    bare = tuple(dataclasses.replace(t, function=None) for t in offered)
    assert echo("weather?", tools=offered, tool_choice="none").tool_calls == ()
    assert echo("weather?", tools=bare).tool_calls == ()
    assert [c.name for c in echo("Hi", tools=bare, tool_choice="required").tool_calls] == ["weather"]
    assert [c.arguments for c in echo("Hi", tools=bare, tool_choice="weather").tool_calls] == [{"city": "echo"}]


def test_echo_searches_and_draws():
    """Placeholder results and a real, small PNG that depends on the question and is the same each time."""
    answer = dp.chat("A red house", model="echo", tools=["websearch", "image"])
    citations = [o for o in answer.tool_outputs if o["type"] == "citation"]
    (image,) = [o for o in answer.tool_outputs if o["type"] == "image"]
    assert answer.text == "[echo] A red house"
    assert [c["url"] for c in citations] == ["https://example.com/echo/1", "https://example.com/echo/2"]
    data = base64.b64decode(image["data"])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (64, 64)
    again, other = (dp.chat(q, model="echo", tools=["image"]).tool_outputs[0]["data"] for q in ("A red house", "A tree"))
    assert image["data"] == again != other


EVERYTHING = """
version: light
persons:
  Ada: {service: openai, model: gpt-5-nano}
nodes:
- {label: S, type: start}
- {label: Draw, type: person_job, person: Ada, default_prompt: Draw a house, tools: image}
- {label: Search, type: person_job, person: Ada, default_prompt: Find it, tools: [websearch]}
- label: Call
  type: person_job
  person: Ada
  default_prompt: Call lookup now
  tools: [{type: function, name: lookup, description: Looks up, parameters: {type: object}}]
- label: Shape
  type: person_job
  person: Ada
  default_prompt: Give a city
  text_format: |
    class Place(BaseModel):
        name: str = Field(min_length=6)
        zip: str = Field(pattern="^[0-9]{5}$")
        kind: Literal["city", "village"]
        tags: list[str] = Field(min_length=2)
- {label: Remember, type: person_job, person: Ada, default_prompt: Go on, memorize_to: "what matters", at_most: 2}
- {label: Judge, type: condition, condition_type: llm_decision, person: Ada, judge_by: "Good?"}
- {label: Yes, type: endpoint}
- {label: No, type: endpoint}
connections:
- {from: S, to: Draw}
- {from: Draw, to: Search}
- {from: Search, to: Call}
- {from: Call, to: Shape}
- {from: Shape, to: Remember}
- {from: Remember, to: Judge}
- {from: Judge_condtrue, to: "Yes"}
- {from: Judge_condfalse, to: "No"}
"""


@pytest.mark.parametrize("model", ["echo", "echo:1", "echo:2", "echo:3", "echo:4"])
def test_a_diagram_with_everything_runs_on_echo(tmp_path: Path, model: str):
    """Images, search, functions, structure, memory, decisions: all of it offline, the same each time, usage counted."""
    results: list[Any] = []
    for _ in range(2):
        with dp.Session(tmp_path) as session:
            results.append(session.run(EVERYTHING, view=False, model=model))
    first, second = results
    assert first.status == "completed"
    assert first.outputs == second.outputs
    assert list(first.outputs) == ["Yes"] or model != "echo"
    shape = json.loads(next(m["content"] for m in first.conversation if '"zip"' in m["content"]))
    assert len(shape["zip"]) == 5
    assert len(shape["tags"]) >= 2
    assert first.run.usage.total > 20
    assert first.conversation.turns[4]["memory"] == "what matters"
    assert len(first.conversation.turns[4]["saw"]) == 2
    assert not [e for e in first.events if e.type == "execution_log" and e.payload["level"] == "WARNING"]


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

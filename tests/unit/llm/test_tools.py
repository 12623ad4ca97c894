"""Python functions as tools: their schema, the loop in which a model calls them, and where it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from dipeo_nb.domain.chat import LLMRequest, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.errors import ToolLoopError, UnsupportedError, ValidationError
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import run_tool, tool_of, tools_of
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from tests.support.tool_calls import Calls, service
from tests.support.wire_openai import events_of, request, run, settings_with


class Unit(enum.StrEnum):
    C = "celsius"
    F = "fahrenheit"


class Place(BaseModel):
    city: str
    country: str = "IT"


def weather(place: Place, unit: Unit = Unit.C, days: Annotated[int, Field(ge=1, le=7)] = 1) -> dict[str, Any]:
    """Tell the weather.

    Args:
        place: where to look
            exactly.
        unit: of the temperature.

    Returns:
        the weather.
    """
    return {"city": place.city, "unit": unit, "days": days}


# Schema.


class Titled(BaseModel):
    """A book."""

    title: str = Field(alias="bookTitle")


@dataclasses.dataclass
class Point:
    x: int
    y: "int" = 0  # noqa: UP037 - a type that is written as text


@pytest.mark.parametrize(
    ("kind", "given", "answer"),
    [
        (Place, {"city": "Rome"}, '{"city": "Rome", "country": "IT"}'),
        (Titled, {"bookTitle": "It"}, '{"title": "It"}'),
        (Point, {"x": 1}, '{"x": 1, "y": 0}'),
    ],
)
def test_a_class_is_a_tool_that_makes_one(kind: Any, given: dict[str, Any], answer: str):
    tool = tool_of(kind)
    assert set((tool.parameters or {})["required"]) == set(given)
    result = run(run_tool(ToolCall("c", kind.__name__, given), [tool]))
    assert (result.content, result.is_error) == (answer, False)


def test_a_function_becomes_a_schema():
    """Types, defaults, limits and descriptions of a function are those of the tool."""
    tool = tool_of(weather)
    assert (tool.name, tool.description) == ("weather", "Tell the weather.")
    assert tool.parameters is not None
    properties = tool.parameters["properties"]
    assert tool.parameters["required"] == ["place"]
    assert tool.parameters["additionalProperties"] is False
    assert properties["place"]["description"] == "where to look exactly."
    assert properties["days"]["maximum"] == 7
    assert properties["unit"]["default"] == "celsius"


def untyped(x):  # type: ignore[no-untyped-def]
    return x


def many(*xs: int) -> None: ...


def strange(x: Callable[[], int]) -> None: ...


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([untyped], "has no type"),
        ([many], "cannot fill"),
        ([strange], "JSON cannot carry"),
        ([3], "is not a tool"),
        (["webserch"], "is not a tool"),
        ([weather, weather], "Two tools"),
    ],
    ids=["untyped", "star", "callable", "number", "name", "twice"],
)
def test_what_is_no_tool_is_refused(tools: list[Any], said: str):
    """Each refusal names the function and what is wrong with it."""
    with pytest.raises(ValidationError, match=said):
        tools_of(tools)


def test_built_in_tools_have_short_names():
    """`websearch` and `image` are the diagram's words for the providers' own tools."""
    assert [t.type for t in tools_of(["websearch", "image"])] == ["web_search", "image_generation"]


# Running.


def called(name: str, **arguments: Any) -> Any:
    return run(run_tool(ToolCall("c1", name, arguments), tools_of([weather, fails, later])))


def fails(x: int) -> None:
    raise LookupError(f"no {x}")


async def later(x: Literal["a", "b"]) -> str:
    await asyncio.sleep(0)
    return x * 2


def test_arguments_are_validated_and_converted():
    """The function gets pydantic models and enums; its value goes back as JSON, text as it is."""
    assert called("weather", place={"city": "Rome"}, days=2).content == '{"city": "Rome", "unit": "celsius", "days": 2}'
    assert called("later", x="b").content == "bb"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("weather", {}), "place: Field required"),
        (("weather", {"place": {"city": "Rome"}, "days": 9}), "days: Input should be less than or equal to 7"),
        (("weather", {"place": {"city": "Rome"}, "dys": 1}), "dys: Extra inputs"),
        (("later", {"x": "c"}), "x: Input should be 'a' or 'b'"),
        (("fails", {"x": 3}), "LookupError: 'no 3'|LookupError: no 3"),
        (("nothing", {}), "no tool 'nothing'. There are: weather, fails, later"),
    ],
)
def test_the_model_is_told_what_went_wrong(call: tuple[str, dict[str, Any]], said: str):
    """A failing tool does not fail the run: the model reads the reason and may try again."""
    import re

    result = called(call[0], **call[1])
    assert result.is_error
    assert re.search(said, result.content)


# The loop.


def asked(**more: Any) -> LLMRequest:
    return request("Weather?", service="openai", model="gpt-4o", **more)


def test_called_tools_run_together_and_the_model_goes_on(monkeypatch: pytest.MonkeyPatch):
    """Two calls of one turn run at the same time; results go back in the order of the calls with the turn as the provider
    wrote it; each step is an event; usage and cost are those of all rounds."""

    together, second = threading.Barrier(2), threading.Event()

    def slow(n: int) -> str:
        together.wait(10)  # breaks when they run one after the other
        if n == 1:
            second.wait(10)
            time.sleep(0.05)
        else:
            second.set()
        return f"got {n}"

    client = Calls([ToolCall("c1", "slow", {"n": 1}), ToolCall("c2", "slow", {"n": 2})], "Both are in.")
    events = run(events_of(service(client, monkeypatch), asked(tools=tools_of([slow]), tool_choice="required")))
    kinds = [e.kind for e in events]
    assert kinds == [
        "start",
        "tool_call_start",
        "tool_call_end",
        "tool_call_start",
        "tool_call_end",
        "tool_result",
        "tool_result",
        "usage",
        "end",
    ]
    assert [e.data["id"] for e in events if e.kind == "tool_result" and e.data] == ["c2", "c1"]  # as they come
    turn, *results = client.asked[1].messages[1:]
    assert turn.raw == {"provider": "openai", "content": [{"turn": 1}]}
    assert [m.tool_result.call_id for m in results if m.tool_result] == ["c1", "c2"]
    assert client.asked[0].tool_choice == "required"
    assert client.asked[1].tool_choice == "auto"
    response = events[-1].response
    assert response is not None
    assert response.text == "Both are in."
    assert response.usage == TokenUsage(20, 10)
    assert response.cost_usd is not None
    assert response.cost_usd > 0


def test_the_loop_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """A model that calls tools for ever is stopped with an error that says after how many rounds."""
    client = Calls([ToolCall("c1", "later", {"x": "a"})])
    with pytest.raises(ToolLoopError, match="4 rounds"):
        run(service(client, monkeypatch).complete(asked(tools=tools_of([later]), tool_rounds=3)))
    assert len(client.asked) == 4


def test_calls_of_a_tool_without_function_are_the_callers(monkeypatch: pytest.MonkeyPatch):
    """A tool that is only described is not run; the response carries the calls."""
    client = Calls([ToolCall("c1", "mine", {"x": 1})])
    tool = ToolConfig("function", "mine", "It is mine.", {"type": "object", "properties": {}})
    response = run(service(client, monkeypatch).complete(asked(tools=(tool,))))
    assert response.tool_calls == (ToolCall("c1", "mine", {"x": 1}),)
    assert len(client.asked) == 1


def test_a_cancelled_loop_cancels_its_tools(monkeypatch: pytest.MonkeyPatch):
    """Leaving the stream while a tool works ends the tool."""
    ended = []

    async def forever(x: int) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(x)
            raise
        return ""

    async def go() -> None:
        llm = service(Calls([ToolCall("c1", "forever", {"x": 7})]), monkeypatch)
        task = asyncio.create_task(events_of(llm, asked(tools=tools_of([forever]))))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)

    run(go())
    assert ended == [7]


@pytest.mark.parametrize(
    ("name", "tools", "said"),
    [
        ("local", [later], "local has no tools.*openai, anthropic, gemini and ollama"),
        ("local", ["websearch"], "local has no web search"),
        ("gemini", ["image"], "has no image generation.*openai makes images"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_the_call(name: str, tools: list[Any], said: str):
    """The refusal names what is missing and which models have it; no key is looked for."""
    llm = LLMService(settings_with(), InMemoryAPIKeyService())
    with pytest.raises(UnsupportedError, match=said):
        run(llm.complete(request(service=name, tools=tools_of(tools))))

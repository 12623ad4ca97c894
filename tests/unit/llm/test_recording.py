"""Recorded answers: keys, files, replay, cache, and which recordings apply where."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync, submit
from dipeo_nb.common.redaction import HIDDEN, scrubbed
from dipeo_nb.common.root import Root
from dipeo_nb.config import get_settings, override_settings, reset_settings
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.budget import Budget
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
    ConfigurationError,
    DipeoError,
    LLMConnectionError,
    LLMError,
    ProviderError,
    RecordingError,
    RecordingNotFoundError,
    StructureError,
)
from dipeo_nb.llm.cassette import name_of, read, written
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.recording import Recordings, active, content_key, through
from dipeo_nb.testing import ScriptedClient, SlowClient
from tests.support.wire_openai import ScriptedServer, final, request, run, says, settings_with


async def asked(recordings: Recordings | None, client: Any, what: LLMRequest) -> list[StreamEvent]:
    """The events of one call through recordings."""
    return [event async for event in through(recordings, what, client.stream)]


def ask(recordings: Recordings | None, client: Any, what: LLMRequest | str = "Tabs or spaces?") -> LLMResponse:
    """The answer to one call through recordings."""
    events = run(asked(recordings, client, request(what) if isinstance(what, str) else what))
    assert events[-1].response is not None
    return events[-1].response


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


class Fixed:
    """A client whose stream is given event by event; an error at the end is raised."""

    def __init__(self, *events: StreamEvent | Exception) -> None:
        self.events = events

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event


# Keys.

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
schemas = st.dictionaries(st.sampled_from(["type", "title", "enum", "properties", "x"]), json_values, min_size=1)
messages = st.builds(ChatMessage, st.sampled_from(["system", "user", "assistant"]), texts)
requests = st.builds(
    LLMRequest,
    st.sampled_from(["openai", "anthropic", "local"]),
    texts,
    st.lists(messages, max_size=3).map(tuple),
    temperature=st.none() | st.sampled_from([0, 0.5, 1]),
    max_tokens=st.none() | st.integers(1, 9),
    response_format=st.none() | schemas,
    output_mode=st.sampled_from([None, "native", "json_mode"]),
    tools=st.lists(st.builds(ToolConfig, st.just("function"), texts, texts, schemas), max_size=2).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "required"]),
    base_url=st.none() | st.just("http://localhost:1/v1"),
)


def reordered(value: Any) -> Any:
    """The same JSON with every mapping the other way round."""
    if isinstance(value, dict):
        return {k: reordered(value[k]) for k in reversed(value)}
    return [reordered(v) for v in value] if isinstance(value, list) else value


@given(requests)
def test_the_key_does_not_depend_on_order_or_on_what_is_not_asked(what: LLMRequest):
    """Order in dictionaries, kinds of sequences, budget, limits of time, fallbacks, keys and context change no key."""
    other = replace(
        what,
        messages=list(what.messages),
        tools=[ToolConfig(t.type, t.name, t.description, reordered(t.parameters)) for t in what.tools],
        response_format=reordered(what.response_format),
        temperature=None if what.temperature is None else float(what.temperature),
        budget=Budget(calls=3),
        timeout=1.0,
        fallbacks=("local",),
        api_key_id="mine",
        context={"node": "A"},
    )
    assert content_key(other) == content_key(what)


@given(requests, texts)
def test_the_key_depends_on_what_is_asked(what: LLMRequest, text: str):
    """Service, model, server, messages, parameters, tools, choice of a tool, schema and output mode each change the key."""
    others = [
        replace(what, service="gemini"),
        replace(what, model=what.model + "x"),
        replace(what, base_url="http://localhost:2/v1"),
        replace(what, messages=(*what.messages, ChatMessage("user", text))),
        replace(what, temperature=0.25),
        replace(what, max_tokens=77),
        replace(what, tools=(*what.tools, ToolConfig("function", "other"))),
        replace(what, tool_choice="none"),
        replace(what, response_format={"type": "array", "title": "another one"}),
        replace(what, output_mode="grammar"),
    ]
    assert len({content_key(other) for other in [what, *others]}) == len(others) + 1


def test_the_key_is_the_same_in_another_process():
    """Neither hash seeds nor process state are in the key."""
    code = (
        "from dipeo_nb.domain.chat import *; from dipeo_nb.llm.recording import content_key;"
        "print(content_key(LLMRequest('openai', 'm', (ChatMessage('user', 'hé\\nho'),), response_format={'b': 1, 'a': 2})))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = LLMRequest("openai", "m", (ChatMessage("user", "hé\nho"),), response_format={"a": 2, "b": 1})
    assert keys == {content_key(here)}


def test_a_tool_turn_is_part_of_the_key():
    """Calls of tools, their results and a provider's own turn are what the model is told."""
    call = ToolCall("c1", "weather", {"city": "Rome"})
    turns = [
        ChatMessage("assistant", "", tool_calls=(call,)),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", {"city": "Oslo"}),)),
        ChatMessage("tool", "sunny", tool_result=ToolResult("c1", "sunny")),
        ChatMessage("tool", "sunny", tool_result=ToolResult("c1", "sunny", is_error=True)),
        ChatMessage("assistant", "", raw={"provider": "openai", "content": [{"id": "rs_1"}]}),
    ]
    assert len({content_key(LLMRequest("openai", "m", (turn,))) for turn in turns}) == len(turns)


# Record and replay.

USAGE = TokenUsage(3, 4, 1, 0, 2, raw={"prompt_tokens": 4})
TOLD = (
    StreamEvent("start", data={"notice": "temperature is left out"}),
    StreamEvent("progress", data={"done": 1, "total": 2}),
    StreamEvent("reasoning", "hm"),
    StreamEvent("text", "lost"),
    StreamEvent("error", "429", data={"code": "llm_rate_limit", "attempt": 1, "retry_in_s": 0.1}),
    StreamEvent("stream_restarted", data={"reason": "429"}),
    StreamEvent("text", "Tabs"),
    StreamEvent("text", " are\n"),
    StreamEvent("text", "fine."),
    StreamEvent("tool_call_start", "weather", data={"id": "c1"}),
    StreamEvent("tool_call_start", "weather", data={"id": "c2"}),
    StreamEvent("tool_call_delta", '{"city":', data={"id": "c1"}),
    StreamEvent("tool_call_delta", ' "Rome"}', data={"id": "c1"}),
    StreamEvent("tool_call_delta", "{}", data={"id": "c2"}),
    StreamEvent("tool_call_end", "weather", data={"id": "c1", "arguments": {"city": "Rome"}}),
    StreamEvent("usage", data=USAGE.to_dict()),
)
RESPONSE = LLMResponse(
    "Tabs are\nfine.",
    "openai",
    "gpt-5-nano",
    USAGE,
    tool_calls=(ToolCall("c1", "weather", {"city": "Rome"}),),
    finish_reason="tool_calls",
    request_id="req_1",
    cost_usd=0.25,
    tool_outputs=({"type": "citation", "url": "u", "title": "t"},),
    raw={"provider": "openai", "content": [{"type": "reasoning", "id": "rs_1"}]},
)


def test_a_replay_is_the_recorded_stream(tmp_path: Path):
    """The same events piece by piece with the original usage; the start and the response say that they are recorded."""
    live = run(asked(Recordings(tmp_path, "record"), Fixed(*TOLD, StreamEvent("end", response=RESPONSE)), request("Hi")))
    assert live == [*TOLD, StreamEvent("end", response=RESPONSE)]

    again = run(asked(Recordings(tmp_path, "replay"), Fixed(RuntimeError("called")), request("Hi")))
    expected = [event for event in TOLD[1:] if event.kind != "progress"]
    assert again[1:-1] == expected
    assert again[0] == StreamEvent("start", data={"notice": "temperature is left out", "cached": True})
    assert again[-1].response == replace(RESPONSE, cached=True, cost_usd=0.0, saved_usd=0.25)


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "reasoning"]), st.text(alphabet=st.characters(exclude_categories=()), min_size=1))
    )
)
def test_pieces_stay_as_they_came(pieces: list[tuple[Any, str]]):
    """Any texts, also stray surrogates and odd line ends, come back in the same pieces."""
    events = [StreamEvent(kind, text) for kind, text in pieces]
    said = "".join(text for kind, text in pieces if kind == "text")
    end = StreamEvent("end", response=LLMResponse(said, "openai", "m"))
    with tempfile.TemporaryDirectory() as folder:
        run(asked(Recordings(folder, "record"), Fixed(*events, end), request("Hi")))
        again = run(asked(Recordings(folder, "replay"), Fixed(), request("Hi")))
    assert again[1:-1] == events
    assert again[-1].response is not None
    assert again[-1].response.text == said


def test_the_file_reads_well(tmp_path: Path):
    """One file per request, named after what was said; JSON with the request, the events and the response in words."""
    what = request("Tabs — or spaces?\nBe brief.", service="openai", model="gpt-5-nano", temperature=0)
    run(asked(Recordings(tmp_path / "a" / "b", "record"), Fixed(*TOLD, StreamEvent("end", response=RESPONSE)), what))
    [file] = files(tmp_path / "a" / "b")
    assert file.name == f"tabs-or-spaces-be-brief-{content_key(what)[:8]}.json"
    text = file.read_text(encoding="utf-8")
    document = json.loads(text)
    assert document["request"] == {
        "service": "openai",
        "model": "gpt-5-nano",
        "temperature": 0.0,
        "messages": [{"role": "user", "content": ["Tabs — or spaces?", "Be brief."]}],
    }
    [answer] = document["answers"]
    assert {"kind": "text", "text": ["Tabs are", "fine."], "pieces": [4, 5, 5]} in answer["events"]
    assert '"pieces": [4, 5, 5]' in text
    assert "text" not in answer["response"], "the text of the events is the text of the answer"
    assert answer["response"]["usage"] == {
        "input": 3, "output": 4, "cache_read": 1, "cache_write": 0, "reasoning": 2, "raw": {"prompt_tokens": 4},
    }  # fmt: skip
    assert answer["response"]["cost_usd"] == 0.25
    assert answer["response"]["tool_calls"] == [{"id": "c1", "name": "weather", "arguments": {"city": "Rome"}}]
    assert text.endswith("}\n")


def test_recording_again_writes_the_same_bytes(tmp_path: Path):
    """What did not change makes no difference in version control."""
    client = Fixed(*TOLD, StreamEvent("end", response=RESPONSE))
    ask(Recordings(tmp_path, "record"), client)
    [file] = files(tmp_path)
    before = file.read_bytes()
    ask(Recordings(tmp_path, "record"), client)
    assert [file] == files(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize("prompt", ["日本語で答えて", "///", "con", "x" * 300, "Ünïcödé plaît", "../../etc/passwd"])
def test_any_prompt_makes_a_file_name(tmp_path: Path, prompt: str):
    """Names are short, plain and inside the folder."""
    recordings = Recordings(tmp_path / "r", "record")
    ask(recordings, ScriptedClient("yes"), prompt)
    [file] = files(tmp_path / "r")
    assert file.name.isascii()
    assert len(file.name) < 70
    assert ask(Recordings(tmp_path / "r", "replay"), Fixed(), prompt).text == "yes"


def test_a_text_edited_by_hand_is_what_is_replayed(tmp_path: Path):
    """Text stands in the file once; a longer or shorter one needs no other change."""
    ask(Recordings(tmp_path, "record"), ScriptedClient("one two three"))
    [file] = files(tmp_path)
    for text in ("one two three and four", "on", ""):
        document = json.loads(file.read_text())
        next(e for e in document["answers"][0]["events"] if e["kind"] == "text")["text"] = text
        file.write_text(json.dumps(document))
        assert ask(Recordings(tmp_path, "replay"), Fixed()).text == text


class City(BaseModel):
    name: str
    inhabitants: int = Field(alias="people")


@pytest.mark.parametrize("kind", [City, {"type": "object", "required": ["name"]}])
def test_structured_answers_come_back_as_what_was_asked_for(tmp_path: Path, kind: Any):
    """An instance of the class, or the object of the schema."""
    value = City.model_validate({"name": "Rome", "people": 3}) if kind is City else {"name": "Rome"}
    end = StreamEvent("end", response=LLMResponse("{…}", "openai", "m", structured=value, output_mode="native"))
    what = request("A city", response_format=kind)
    live = ask(Recordings(tmp_path, "record"), Fixed(end), what)
    again = ask(Recordings(tmp_path, "replay"), Fixed(), what)
    assert again.structured == live.structured == value
    assert type(again.structured) is type(value)
    assert again.output_mode == "native"


def test_a_structured_value_that_no_longer_fits_is_an_error_with_its_file(tmp_path: Path):
    """The class has another rule now: the recording is named, not a half-valid instance given."""
    ask(Recordings(tmp_path, "record"), Fixed(StreamEvent("end", response=LLMResponse("", "x", "m", structured={"name": 3}))),
        request("A city", response_format={"type": "object"}))  # fmt: skip
    [file] = files(tmp_path)
    document = json.loads(file.read_text())
    document["answers"][0]["response"]["structured"] = "Rome"
    file.write_text(json.dumps(document))
    with pytest.raises(RecordingError, match="is not of type 'object'") as caught:
        ask(Recordings(tmp_path, "replay"), Fixed(), request("A city", response_format={"type": "object"}))
    assert str(file) in str(caught.value)


def test_the_nth_call_gets_the_nth_answer(tmp_path: Path):
    """The same request several times is a sequence; its last answer serves further calls; each `with` begins anew."""
    recordings = Recordings(tmp_path, "record")
    client = ScriptedClient(["red", "green", "blue"])
    assert [ask(recordings, client).text for _ in range(3)] == ["red", "green", "blue"]
    assert len(files(tmp_path)) == 1

    replays = Recordings(tmp_path, "replay")
    for _ in range(2):
        with replays:
            assert [ask(replays, Fixed()).text for _ in range(4)] == ["red", "green", "blue", "blue"]


def test_parallel_calls_are_recorded_in_the_order_of_asking(tmp_path: Path):
    """The first to be asked is the first in the file, whoever answers first."""

    class Late(ScriptedClient):
        async def _pause(self) -> None:
            await asyncio.sleep(0.05 / len(self.requests))

    recordings = Recordings(tmp_path, "record")
    client = Late([lambda r: "slow slow slow", lambda r: "quick"])

    async def both() -> list[str]:
        first = asyncio.ensure_future(asked(recordings, client, request()))
        await asyncio.sleep(0.02)
        found = await asyncio.gather(first, asked(recordings, client, request()))
        return [events[-1].response.text for events in found if events[-1].response]

    live = run(both())
    replays = Recordings(tmp_path, "replay")
    assert [ask(replays, Fixed(), request()).text for _ in range(2)] == live


def test_record_calls_always_and_forgets_what_was(tmp_path: Path):
    """Recording again replaces the answers of the last time."""
    first = Recordings(tmp_path, "record")
    for _ in range(2):
        ask(first, ScriptedClient("old"))
    ask(Recordings(tmp_path, "record"), ScriptedClient("new"))
    assert [ask(Recordings(tmp_path, "replay"), Fixed()).text for _ in range(2)] == ["new", "new"]


def test_auto_is_a_cache(tmp_path: Path):
    """The first call is made and recorded; the same one again is not made."""
    recordings = Recordings(tmp_path, "auto")
    client = ScriptedClient(["first", "second"])
    answers = [ask(recordings, client), ask(recordings, client), ask(Recordings(tmp_path, "auto"), client)]
    assert [(a.text, a.cached) for a in answers] == [("first", False), ("first", True), ("first", True)]
    assert len(client.requests) == 1


def test_live_is_as_if_there_were_no_recordings(tmp_path: Path):
    """Nothing is read and nothing is written."""
    recordings = Recordings(tmp_path / "r", "live")
    assert not ask(recordings, ScriptedClient("a")).cached
    assert not (tmp_path / "r").exists()


# On the wire.


def openai_client(server: ScriptedServer, key: str = "test-key-0001") -> UnifiedOpenAIClient:
    config = AdapterConfig(provider_type="openai", api_key=SecretStr(key), base_url=server.url)
    return UnifiedOpenAIClient(config, settings=settings_with())


def test_a_replay_opens_no_connection_and_bills_nothing(tmp_path: Path):
    """The server sees one call for any number of replays; the answer says what was saved."""
    what = request("Tabs or spaces?", service="openai", model="gpt-5-nano")

    async def call(recordings: Recordings, server: ScriptedServer) -> list[StreamEvent]:
        client = openai_client(server)
        try:
            return await asked(recordings, client, what)
        finally:
            await client.cleanup()

    with ScriptedServer(says("Tabs are fine.")) as server:
        live = run(call(Recordings(tmp_path, "auto"), server))
        replays = Recordings(tmp_path, "replay")
        again = [run(call(replays, server)) for _ in range(3)]
        assert len(server.seen) == 1
    first, second = live[-1].response, again[-1][-1].response
    assert first is not None
    assert second is not None
    assert (second.text, second.usage, second.cost_usd, second.cached) == (first.text, first.usage, 0.0, True)
    for events in again:
        assert [(e.kind, e.text) for e in events] == [(e.kind, e.text) for e in live]
    assert repr(replays) == f"recordings in {tmp_path} (replay): 3 replayed, 0 recorded"


def test_the_repr_adds_up_what_was_saved(tmp_path: Path):
    """Dollars of replayed answers whose price was known."""
    ask(Recordings(tmp_path, "record"), Fixed(StreamEvent("end", response=RESPONSE)))
    replays = Recordings(tmp_path)
    for _ in range(3):
        ask(replays, Fixed())
    ask(replays, ScriptedClient("new"), "Something else")
    assert repr(replays) == f"recordings in {tmp_path} (auto): 3 replayed, 1 recorded, 0.75 USD saved"


def test_an_interrupted_call_records_nothing(tmp_path: Path):
    """Cancelled, broken off or refused: there is no file, and a later call is a first one."""
    recordings = Recordings(tmp_path, "record")

    async def cancelled() -> None:
        task = asyncio.ensure_future(asked(recordings, SlowClient("a b c d e f", delay=0.02), request()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def left() -> None:
        stream = through(recordings, request(), SlowClient("a b c", delay=0).stream)
        async for event in stream:
            if event.kind == "text":
                break
        await stream.aclose()

    run(cancelled())
    run(left())
    with pytest.raises(LLMConnectionError):
        ask(recordings, Fixed(StreamEvent("text", "half"), LLMConnectionError("gone")))
    with pytest.raises(ProviderError):
        ask(recordings, Fixed(ProviderError("bad request", status=400)))
    assert run(asked(recordings, Fixed(StreamEvent("text", "no end")), request())) == [StreamEvent("text", "no end")]
    assert files(tmp_path) == []
    assert ask(recordings, ScriptedClient("whole")).text == "whole"
    assert ask(Recordings(tmp_path, "replay"), Fixed()).text == "whole"


def test_closing_a_stream_early_closes_the_client(tmp_path: Path):
    """Whoever leaves in the middle ends the call, with recordings or without."""
    closed: list[bool] = []

    class Client:
        async def stream(self, what: LLMRequest) -> AsyncIterator[StreamEvent]:
            try:
                while True:
                    yield StreamEvent("text", "x")
            finally:
                closed.append(True)

    async def leave(recordings: Recordings | None) -> None:
        stream = through(recordings, request(), Client().stream)
        async for _ in stream:
            break
        await stream.aclose()

    run(leave(None))
    run(leave(Recordings(tmp_path)))
    assert closed == [True, True]


def test_an_answer_that_does_not_fit_is_replayed_as_such(tmp_path: Path):
    """The service asks once more after it; both calls are needed to replay the answer that ended well."""
    error = StructureError(
        "does not fit", hint="h", provider="openai", model="m", problem="name: missing", text='{\n"a": 1}', usage=USAGE,
        repairable=True, cost_usd=0.5, charged=True,
    )  # fmt: skip
    what = request("A city", response_format={"type": "object"})
    with pytest.raises(StructureError):
        ask(Recordings(tmp_path, "record"), Fixed(StreamEvent("text", '{\n"a": 1}'), error), what)
    replays = Recordings(tmp_path, "replay")
    with pytest.raises(StructureError) as caught:
        ask(replays, Fixed(), what)
    again = caught.value
    assert (again.problem, again.text, again.usage, again.repairable) == (error.problem, error.text, USAGE, True)
    assert (again.cost_usd, again.charged, again.cached, again.saved_usd) == (0.0, True, True, 0.5)
    assert replays.saved_usd == 0.5


def test_a_refused_way_to_structure_is_replayed_but_not_cached(tmp_path: Path):
    """`replay` takes the way the recorded run took; `auto` asks the server again, as a refusal is no answer."""
    what = request("A city", response_format={"type": "object"}, output_mode="native")
    refusal = ProviderError("no json_schema here", hint="h", provider="openai", model="m", status=400)
    with pytest.raises(ProviderError):
        ask(Recordings(tmp_path, "record"), Fixed(refusal), what)
    with pytest.raises(ProviderError, match="no json_schema") as caught:
        ask(Recordings(tmp_path, "replay"), Fixed(), what)
    assert caught.value.status == 400
    assert ask(Recordings(tmp_path, "auto"), ScriptedClient([{"name": "Rome"}]), what).structured == {"name": "Rome"}
    assert ask(Recordings(tmp_path, "replay"), Fixed(), what).structured == {"name": "Rome"}


# Through the whole service.


def call_of(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": arguments}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for recordings; the server of this test has OpenAI's prices."""
    here = replace(llm_providers.BUILT_IN["openai"], hosts=("127.0.0.1",))
    monkeypatch.setattr(llm_providers, "BUILT_IN", {**llm_providers.BUILT_IN, "openai": here})
    return tmp_path / "recordings"


def both_ways(folder: Path, server: ScriptedServer, **options: Any) -> tuple[Any, Any]:
    """The same question recorded and, on another session without a server, replayed."""
    found: list[Any] = []
    for mode in ("record", "replay"):
        settings = settings_with(openai_base_url=server.url, openai_api_key=SecretStr("test-key-0001"))
        with dp.Session(settings=settings) as session, Recordings(folder, mode):
            calls = len(server.seen)
            found.append(session.chat("A city?", model="openai:gpt-4o", display=False, **options))
            assert (len(server.seen) > calls) == (mode == "record")
    live, again = found
    assert (again.text, again.structured, again.usage) == (live.text, live.structured, live.usage)
    assert (again.cached, again.cost_usd, again.saved_usd) == (True, 0.0, live.cost_usd)
    assert live.cost_usd > 0
    return live, again


def test_a_repaired_answer_is_replayed_with_its_repair(folder: Path):
    """The answer that did not fit is part of what happened, and of what is saved."""
    with ScriptedServer(says('{"name": "Rome"}'), says('{"name": "Rome", "people": 3}')) as server:
        _, again = both_ways(folder, server, response_format=City)
        assert len(server.seen) == 2
    assert again.structured == City(name="Rome", people=3)
    assert len(files(folder)) == 2


def test_an_answer_after_a_refused_way_is_replayed(folder: Path):
    """A server that takes no schema: the run goes down the same ladder again, without the server."""
    call = lambda call: call.stream([final(call_of("give_answer", '{"name": "Rome", "people": 3}'))])  # noqa: E731
    refuse = lambda call: call.error(400, "json_schema is not supported here")  # noqa: E731
    with ScriptedServer(refuse, call) as server:
        live, again = both_ways(folder, server, response_format=City)
    assert live.output_mode == again.output_mode == "tool"


def test_tools_run_again_in_a_replay(folder: Path):
    """What the model says is recorded; your functions are run, and what they say must be the same."""
    cities: list[str] = []

    def weather(city: str) -> str:
        cities.append(city)
        return "sunny"

    with ScriptedServer(lambda c: c.stream([final(call_of("weather", '{"city": "Rome"}'))]), says("Sunny.")) as server:
        both_ways(folder, server, tools=[weather])
    assert cities == ["Rome", "Rome"]


def test_a_run_replays_at_no_cost_and_says_what_it_saved(folder: Path):
    """A diagram's persons answer from the folder; tokens are the original ones, dollars are saved."""
    diagram = """
version: light
persons:
  Ada: {service: openai, model: gpt-4o}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, person: Ada, default_prompt: "Tabs or spaces?"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: End}
"""
    results: list[Any] = []
    with ScriptedServer(says("Tabs are fine.")) as server:
        settings = settings_with(openai_base_url=server.url, openai_api_key=SecretStr("test-key-0001"))
        for mode in ("auto", "replay"):
            with dp.Session(settings=settings) as session, Recordings(folder, mode):
                results.append(session.run(diagram, view=False))
        assert len(server.seen) == 1
    live, again = results
    assert again.output == live.output == "Tabs are fine."
    assert again.usage == live.usage
    assert again.cost == 0.0
    assert again.node("Ask").meta["saved_usd"] == live.cost > 0


def test_a_run_that_is_not_recorded_fails_with_the_difference(folder: Path):
    """In `replay` the run stops at the unrecorded call, and its error is the difference."""
    diagram = """
version: light
persons:
  Ada: {service: echo}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, person: Ada, default_prompt: "PROMPT"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: End}
"""
    with dp.recording(folder):
        dp.run(diagram.replace("PROMPT", "Tabs or spaces?"), view=False)
    with dp.recording(folder, mode="replay"), pytest.raises(DipeoError) as caught:
        dp.run(diagram.replace("PROMPT", "Tabs or blanks?"), view=False)
    assert "+Tabs or blanks?" in str(caught.value)


def test_budgets_are_not_charged_for_replays(folder: Path):
    """Nothing was called: calls, tokens and dollars of a budget stay."""
    modes: tuple[tuple[Any, int], ...] = (("record", 1), ("replay", 0))
    for mode, calls in modes:
        budget = Budget(calls=1)
        with dp.recording(folder, mode):
            dp.chat("Hi", model="echo", budget=budget, display=False)
        assert budget.used_calls == calls


def test_streams_and_batches_are_recorded_as_chats_are(folder: Path):
    """Whatever asks, the same request has the same recording."""
    model = dp.llm("echo")
    with dp.recording(folder) as recordings:
        model.chat("one", display=False)
        assert [e.response.cached for e in model.stream("one") if e.response] == [True]
        assert [getattr(a, "cached", a) for a in model.batch(["one", "two"])] == [True, False]
    assert (recordings.replayed, recordings.recorded) == (2, 2)


# What is missing or broken.


def test_a_miss_names_the_nearest_recording_and_what_differs(tmp_path: Path):
    """Folder, file, field, the changed line and the remedy; nothing was called."""
    recordings = Recordings(tmp_path, "record")
    system = ChatMessage("system", "You are brief.\nYou are kind.\nYou are right.")
    ask(recordings, ScriptedClient(), LLMRequest("openai", "gpt-5", (system, ChatMessage("user", "Tabs or spaces?"))))
    ask(
        recordings,
        ScriptedClient(),
        LLMRequest("openai", "gpt-5", (ChatMessage("user", "Write a poem about the sea."),)),
    )
    changed_system = ChatMessage("system", "You are brief.\nYou are rude.\nYou are right.")
    with pytest.raises(RecordingNotFoundError) as caught:
        ask(
            Recordings(tmp_path, "replay"),
            Fixed(RuntimeError("called")),
            LLMRequest("openai", "gpt-5-nano", (changed_system, ChatMessage("user", "Tabs or spaces?"))),
        )
    error = caught.value
    told = str(error)
    assert isinstance(error, LLMError)
    assert str(tmp_path) in told
    assert error.nearest.name.startswith("tabs-or-spaces-")
    assert error.nearest.name in told
    assert "it differs in model, messages:" in told
    assert "model: 'gpt-5' is recorded, 'gpt-5-nano' is asked" in told
    assert "message 1 of 2 (system):" in told
    assert "\n-You are kind.\n+You are rude.\n" in told
    assert "DIPEO_LLM_MODE=record" in told
    assert "poem" not in told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"temperature": 0.5}, "temperature: nothing is recorded, 0.5 is asked"),
        ({"base_url": "http://localhost:9/v1"}, "base_url: nothing is recorded, 'http://localhost:9/v1' is asked"),
        ({"messages": (ChatMessage("user", "Hi"), ChatMessage("assistant", "Yes?"))}, "messages: 1 are recorded, 2 are asked\n+assistant: 'Yes?'"),
        ({"tools": (ToolConfig("function", "f"),)}, '+    "name": "f"'),
        ({"response_format": {"type": "array"}}, '+  "type": "array"'),
        ({"messages": (ChatMessage("user", "Hi" * 300),)}, "+HiHiHi"),
    ],
)  # fmt: skip
def test_differences_are_told_by_field(tmp_path: Path, fields: dict[str, Any], told: str):
    """Every field that counts has its words."""
    ask(Recordings(tmp_path, "record"), ScriptedClient(), "Hi")
    with pytest.raises(RecordingNotFoundError) as caught:
        ask(Recordings(tmp_path, "replay"), Fixed(), replace(request("Hi"), **fields))
    assert told in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 300


def test_a_long_line_is_shown_around_its_difference(tmp_path: Path):
    """A prompt of one long line shows what changed in it, not its beginning."""
    ask(Recordings(tmp_path, "record"), ScriptedClient(), "blah " * 500 + "red " + "blah " * 500)
    with pytest.raises(RecordingNotFoundError) as caught:
        ask(Recordings(tmp_path, "replay"), Fixed(), "blah " * 500 + "green " + "blah " * 500)
    assert "-…" in str(caught.value)
    assert "+…" in str(caught.value)
    assert "red blah" in str(caught.value)
    assert "green blah" in str(caught.value)


def test_an_empty_folder_says_so(tmp_path: Path):
    """The first replay without recordings: what to do is in the message."""
    with pytest.raises(RecordingNotFoundError, match=r"no recordings in that folder.*DIPEO_LLM_MODE=record"):
        ask(Recordings(tmp_path / "none", "replay"), Fixed())


def test_a_request_edited_by_hand_is_told_its_name(tmp_path: Path):
    """The name of a file belongs to its request."""
    ask(Recordings(tmp_path, "record"), ScriptedClient(), "Hello")
    [file] = files(tmp_path)
    file.write_text(file.read_text().replace("Hello", "Good day"))
    name = f"good-day-{content_key(request('Good day'))[:8]}.json"
    with pytest.raises(RecordingNotFoundError, match=f"rename it to {name}"):
        ask(Recordings(tmp_path, "replay"), Fixed(), "Good day")
    file.rename(tmp_path / name)
    assert ask(Recordings(tmp_path, "replay"), Fixed(), "Good day").text == "ok"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"<<<<<<< HEAD\n{}\n=======\n",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'{"recording": 2}',
        b'{"recording": 1, "answers": [{}]}',
        b'{"recording": 1, "request": [], "answers": [{}]}',
        b'{"recording": 1, "request": {"messages": 3}, "answers": [{}]}',
        b'{"recording": 1, "request": {"messages": ["x"]}, "answers": [{}]}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, content: bytes):
    """Cut, merged badly, of another kind: replay and auto name the file; record writes it anew."""
    ask(Recordings(tmp_path, "record"), ScriptedClient())
    [file] = files(tmp_path)
    file.write_bytes(content)
    for mode in ("replay", "auto"):
        with pytest.raises(RecordingError, match="Restore it from version control, or delete it") as caught:
            ask(Recordings(tmp_path, mode), ScriptedClient())
        assert str(file) in str(caught.value)
        assert caught.value.path == file
    with pytest.raises(RecordingNotFoundError, match=f"Not readable: {file.name}"):
        ask(Recordings(tmp_path, "replay"), Fixed(), "Something else")
    ask(Recordings(tmp_path, "record"), ScriptedClient("again"))
    assert [file] == files(tmp_path)
    assert ask(Recordings(tmp_path, "replay"), Fixed()).text == "again"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"events": []},
        {"events": [{}], "response": {"provider": "x"}},
        {"events": [{"kind": "text", "text": 3}], "response": {"provider": "x"}},
        {"events": [], "response": {"provider": "x", "usage": {"inputs": 3}}},
        {"events": [], "response": []},
        {"events": [], "error": {"code": "unheard_of", "message": "m"}},
    ],
)
def test_a_broken_answer_is_named_with_the_remedy(tmp_path: Path, answer: Any):
    """What is missing inside an answer is found before its first event."""
    ask(Recordings(tmp_path, "record"), ScriptedClient())
    [file] = files(tmp_path)
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "answers": [answer]}))
    with pytest.raises(RecordingError, match="Restore it from version control, or delete it"):
        ask(Recordings(tmp_path, "replay"), Fixed())


def test_a_folder_that_cannot_be_written_is_told_before_the_call(tmp_path: Path):
    """The answer is not paid for and then lost."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written"):
        ask(Recordings(tmp_path / "file" / "r", "record"), Fixed(RuntimeError("called")))
    with pytest.raises(ConfigurationError, match="is a file"):
        Recordings(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="Modes: live, record, replay, auto"):
        Recordings(tmp_path, "rewind")  # type: ignore[arg-type]


# Secrets.

CANARY = "canary-3f9c-do-not-write-this-down"


def test_no_secret_reaches_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys of the settings, variables that look like secrets, shapes of keys, telling fields: in prompts, answers (split over
    pieces), tools, results, raw turns and errors. The call is found again all the same."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("MY_SERVICE_TOKEN", "other-canary-777")
    reset_settings()
    shape = "sk-proj-abcdefghijklmnopqrstuvwx"
    what = request(
        f"My key is {CANARY}, hers is {shape}.",
        service="openai",
        base_url="http://me:pass-canary@localhost:1/v1",
        tools=(ToolConfig("web_search", config={"headers": {"Authorization": "field-canary"}}),),
    )
    told = f"{CANARY} other-canary-777 {shape}"
    end = LLMResponse(
        told, "openai", "m",
        tool_calls=(ToolCall("c", "login", {"password": "field-canary"}),),
        tool_outputs=({"type": "citation", "url": f"https://x.y/?key={shape}", "title": CANARY},),
        raw={"provider": "openai", "content": [{"x-api-key": "field-canary", CANARY: told}]},
        usage=TokenUsage(1, raw={"note": told}), request_id=CANARY,
    )  # fmt: skip
    pieces = [told[i : i + 5] for i in range(0, len(told), 5)]
    events = [
        *(StreamEvent("text", piece) for piece in pieces),
        StreamEvent("tool_call_delta", '{"password": "field-', data={"id": "c"}),
        StreamEvent("tool_call_delta", 'canary"}', data={"id": "c"}),
        StreamEvent("error", told, data={"code": CANARY}),
    ]
    ask(Recordings(tmp_path, "record"), Fixed(*events, StreamEvent("end", response=end)), what)
    error = StructureError(told, problem=told, text=told, hint=told)
    with pytest.raises(StructureError):
        ask(Recordings(tmp_path, "record"), Fixed(error), replace(what, temperature=1.0))
    assert len(files(tmp_path)) == 2
    for file in files(tmp_path):
        for canary in ("canary", shape[3:], shape):
            assert canary not in file.name + file.read_text()
    again = ask(Recordings(tmp_path, "replay"), Fixed(), what)
    assert again.text == f"{HIDDEN} {HIDDEN} {HIDDEN}"


def test_keys_of_a_sessions_own_settings_and_given_texts_are_hidden(folder: Path):
    """A key that is in no variable, and whatever the user names."""
    with ScriptedServer(says(f"{CANARY} and Ada Lovelace")) as server:
        settings = settings_with(openai_base_url=server.url, openai_api_key=SecretStr(CANARY))
        with dp.Session(settings=settings) as session, dp.recording(folder).hide("Lovelace"):
            live, again = (session.chat("Hi, Ada Lovelace", model="openai:gpt-4o", display=False) for _ in range(2))
    assert live.text == f"{CANARY} and Ada Lovelace"
    assert again.text == f"{HIDDEN} and Ada {HIDDEN}"
    [file] = files(folder)
    assert file.name.startswith("hi-ada-hidden-")


@pytest.mark.parametrize(
    "text",
    [
        "sk-ant-api03-abcdefghijklmnop_qrst-uvwx",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "xoxb-1234567890-abcdef",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXNpZw",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_known_shapes_of_keys_are_hidden(text: str):
    """Wherever they stand in a text."""
    assert scrubbed(f"before {text} after") == f"before {HIDDEN} after"


@pytest.mark.parametrize(
    "text",
    [
        "A task-oriented-programming-language, sk-learn-compatible-estimators, and risk-management-of-the-sea.",
        "max_tokens: 100, token budgets, keys: a, b; the password is a secret.",
        "client = OpenAI(api_key=settings.key)",
        "http://localhost:8080/v1?page=2",
        "bearer of bad news",
    ],
)
def test_ordinary_texts_stay(text: str):
    """Hiding too much would change what is replayed."""
    assert scrubbed(text) == text
    assert scrubbed({"input_tokens": 3, "token": text, "key": text}) == {"input_tokens": 3, "token": text, "key": text}


# Which recordings apply.


class Service:
    """What an LLM service does with recordings, on the library's loop."""

    def __init__(self) -> None:
        self.client = ScriptedClient("live")

    def chat(self, prompt: str = "Hi") -> LLMResponse:
        async def call() -> LLMResponse:
            events = await asked(active(get_settings()), self.client, request(prompt))
            assert events[-1].response is not None
            return events[-1].response

        return run_sync(call())


def test_a_block_applies_to_what_is_called_in_it(tmp_path: Path):
    """Calls of this thread reach the library's loop with their recordings; after the block there are none."""
    service = Service()
    with dp.recording("r") as recordings:
        assert not service.chat().cached
        assert service.chat().cached
        with pytest.raises(RecordingNotFoundError), dp.recording(tmp_path / "inner", mode="replay"):
            service.chat()
        with dp.recording(mode="live"):
            assert not service.chat().cached
        assert service.chat().cached
    assert not service.chat().cached
    assert repr(recordings) == f"recordings in {tmp_path / 'r'} (auto): 2 replayed, 1 recorded"
    assert active(get_settings()) is None


def test_a_block_may_be_asynchronous_and_ends_with_its_error(tmp_path: Path):
    """`async with` is the same; an error inside ends the block."""

    async def inside() -> None:
        async with dp.recording("r") as recordings:
            assert active(get_settings()) is recordings
            raise KeyError

    with pytest.raises(KeyError):
        run(inside())
    assert active(get_settings()) is None


def test_work_started_in_a_block_keeps_its_recordings(tmp_path: Path):
    """A run goes on after the block; what it calls then still belongs to the folder."""
    go = threading.Event()

    async def work() -> Recordings | None:
        await asyncio.to_thread(go.wait)
        return active(get_settings())

    with dp.recording("r") as recordings:
        future = submit(work())
    go.set()
    assert future.result(10) is recordings


def test_start_applies_to_the_whole_process_until_stop(tmp_path: Path):
    """Cells and threads that come later use it; a block inside wins; stopping twice is safe."""
    recordings = dp.recording("r").start()
    try:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(active(get_settings())))
        thread.start()
        thread.join()
        assert found == [recordings]
        other = dp.recording("other").start()
        assert active(get_settings()) is other
        with dp.recording("inner") as inner:
            assert active(get_settings()) is inner
        recordings.stop()
        assert active(get_settings()) is other
        assert other.stop() is other.stop()
    finally:
        recordings.stop()
    assert active(get_settings()) is None


def test_two_threads_do_not_disturb_each_other(tmp_path: Path):
    """Each thread's block is its own, whatever the order of entering and leaving."""
    barrier = threading.Barrier(2, timeout=30)
    service = Service()
    found: dict[str, list[bool]] = {}

    def work(name: str) -> None:
        with dp.recording(name):
            barrier.wait()
            found[name] = [service.chat(f"{name} {i}").cached for i in (1, 2, 1)]
            barrier.wait()
        barrier.wait()
        assert active(get_settings()) is None

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {"a": [False, False, True], "b": [False, False, True]}
    assert [len(files(tmp_path / name)) for name in "ab"] == [2, 2]


def test_the_environment_says_the_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """DIPEO_LLM_MODE works without a line of code; the folder is below base_dir unless DIPEO_LLM_RECORDINGS names another."""
    service = Service()
    monkeypatch.setenv("DIPEO_LLM_MODE", "auto")
    reset_settings()
    assert [service.chat().cached for _ in range(2)] == [False, True]
    assert len(files(tmp_path / ".dipeo" / "recordings")) == 1
    monkeypatch.setenv("DIPEO_LLM_MODE", "replay")
    monkeypatch.setenv("DIPEO_LLM_RECORDINGS", "mine")
    reset_settings()
    with pytest.raises(RecordingNotFoundError, match="mine"):
        service.chat()
    monkeypatch.setenv("DIPEO_LLM_MODE", "sometimes")
    reset_settings()
    with pytest.raises(ConfigurationError, match=r"llm_mode|DIPEO_LLM_MODE"):
        get_settings()


def test_the_environment_may_be_stricter_than_the_code(tmp_path: Path):
    """With replay in the environment nothing is called but what says live; with record, auto records anew."""
    with override_settings(llm_mode="replay"):
        assert [dp.recording("r", m).mode for m in ("auto", "record", "replay", "live")] == ["replay"] * 3 + ["live"]
    with override_settings(llm_mode="record"):
        assert [dp.recording("r", m).mode for m in ("auto", "record", "replay", "live")] == [
            "record",
            "record",
            "replay",
            "live",
        ]
    with override_settings(llm_mode="auto"):
        assert dp.recording("r", "record").mode == "record"


SHIPPED = sorted(Path(__file__).parents[3].glob("notebooks/recordings/**/*.json"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_recordings_of_our_notebooks_are_whole(file: Path):
    """Readable, named after what they ask, as the writer writes them, without addresses of some machine and without secrets."""
    words, answers = read(Root(file.parent), file.name)
    assert file.name == name_of(words)
    assert file.read_bytes() == written(words, answers)
    assert words.get("base_url") in (None, "http://localhost:11434")
    assert scrubbed({"request": words, "answers": answers}) == {"request": words, "answers": answers}
    assert not re.search(r"127\.0\.0\.1|/home/|/root/|/tmp/|a-key-for", file.read_text(encoding="utf-8"))


def test_a_long_replay_leaves_room_for_others(tmp_path: Path):
    """A long replay lets other tasks run between its events."""
    text = "word " * 2000
    ask(Recordings(tmp_path, "record"), ScriptedClient(text))

    async def both() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await asked(Recordings(tmp_path, "replay"), Fixed(), request("Tabs or spaces?"))
        ticking.cancel()
        return ticks

    assert run(both()) >= 2000

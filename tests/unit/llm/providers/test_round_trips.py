"""Conversations that go from provider to provider and back, with thoughts, signatures and calls of tools: each is sent what its API
takes, and its own words as it said them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import DipeoError
from dipeo_nb.notebook.session import Session
from tests.support import recorded_streams as recorded
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support.recorded_streams import Recording
from tests.support.wire_openai import Reply, ScriptedServer, settings_with

MODELS = {"openai": "gpt-5-nano", "anthropic": "claude-sonnet-5", "gemini": "gemini-3.5-flash", "ollama": "llama3.2"}
RECORDINGS: Mapping[str, Sequence[Recording]] = {
    "openai": recorded.OPENAI, "anthropic": recorded.ANTHROPIC, "gemini": recorded.GOOGLE, "ollama": recorded.OLLAMA,
}  # fmt: skip
KEY = "sk-canary-0123456789abcdefghij"


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sun in {city}"


def says(service: str, name: str) -> Reply:
    """The recorded stream of that name, or a refusal; thoughts of Anthropic come before calls, too."""
    if name == "refused":
        return lambda call: call.json(400, {"error": {"message": "not this time", "type": "invalid_request_error"}})
    events = next(list(r.events) for r in RECORDINGS[service] if r.name == name)
    match service:
        case "openai":
            return lambda call: call.stream(events)
        case "anthropic":
            if name == "tools":
                first, *calls = events
                moved = [{**e, "index": e["index"] + 1} if "index" in e else e for e in calls]
                events = [first, *anthropic.thinking("Two calls.", "c2lnMQ==", 0), *moved]
            return anthropic.streams(*events)
        case "gemini":
            return google.streams(*events)
        case _:
            return ollama.lines(*events)


class Providers:
    """All four, each with a server of its own: first it calls a tool, then it answers, and so on."""

    def __init__(self, stack: contextlib.ExitStack, *names: str) -> None:
        self.servers: dict[str, ScriptedServer] = {}
        for service in MODELS:
            replies = [says(service, name) for name in names or ("tools", "text", "tools", "text")]
            script = [ollama.Ollama(*replies)] if service == "ollama" else replies
            self.servers[service] = stack.enter_context(ScriptedServer(*script))

    def settings(self, folder: Path) -> Any:
        urls = {service: server.url.removesuffix("/v1") for service, server in self.servers.items()}
        return settings_with(
            base_dir=folder, openai_base_url=f"{urls['openai']}/v1", anthropic_base_url=urls["anthropic"], google_base_url=urls["gemini"],
            ollama_host=urls["ollama"], openai_api_key=KEY, anthropic_api_key=KEY, google_api_key=KEY,
        )  # fmt: skip

    def sent(self, service: str) -> list[dict[str, Any]]:
        return [
            seen.body for seen in self.servers[service].seen if seen.method == "POST" and seen.body and seen.path != "/api/show"
        ]


# What each API takes.


def openai_takes(body: dict[str, Any]) -> None:
    items = body["input"]
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    results = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert len(set(calls)) == len(calls)
    assert sorted(calls) == sorted(results)
    for item, following in itertools.pairwise([*items, {}]):
        kind = item.get("type", "message")
        assert kind in ("message", "reasoning", "function_call", "function_call_output")
        if kind == "reasoning":  # belongs to what follows, and is stored nowhere
            assert item["encrypted_content"]
            assert following.get("type") in ("reasoning", "function_call", "message") or following.get("role") == "assistant"
        elif kind == "message":
            assert item["content"]
        elif kind == "function_call":
            assert isinstance(json.loads(item["arguments"]), dict)


def anthropic_takes(body: dict[str, Any]) -> None:
    messages = body["messages"]
    assert [m["role"] for m in messages] == [("user", "assistant")[n % 2] for n in range(len(messages))]
    asked: list[str] = []
    for message in messages:
        blocks = message["content"]
        assert blocks
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        assert results == asked
        assert [b["type"] for b in blocks[: len(results)]] == ["tool_result"] * len(results)
        asked = [b["id"] for b in blocks if b["type"] == "tool_use"]
        for block in blocks:
            assert block["type"] in ("text", "tool_use", "tool_result", "thinking")
            assert block["type"] != "text" or block["text"].strip()
            assert block["type"] != "thinking" or block["signature"] in ("c2ln", "c2lnMQ==")
    assert asked == []


def gemini_takes(body: dict[str, Any]) -> None:
    contents = body["contents"]
    assert contents[0]["role"] == "user"
    asked = 0
    for content in contents:
        assert content["role"] in ("user", "model")
        assert content["parts"]
        results = [p for p in content["parts"] if "functionResponse" in p]
        assert len(results) == asked
        calls = [p for p in content["parts"] if "functionCall" in p]
        asked = len(calls)
        assert not calls or calls[0].get("thoughtSignature"), "the first of the calls of a turn is signed"
        for part in content["parts"]:
            assert part.keys() & {"functionCall", "functionResponse", "thoughtSignature"} or part["text"].strip()
    assert asked == 0


def ollama_takes(body: dict[str, Any]) -> None:
    calls = 0
    for message in body["messages"]:
        assert message["role"] in ("user", "assistant", "tool")
        calls += len(message.get("tool_calls") or ()) - (message["role"] == "tool")
        assert message["content"] or message.get("tool_calls")
    assert calls == 0


TAKES = {"openai": openai_takes, "anthropic": anthropic_takes, "gemini": gemini_takes, "ollama": ollama_takes}


@pytest.mark.parametrize("first", MODELS)
def test_a_conversation_goes_through_all_providers_and_back(first: str, tmp_path: Path):
    others = [service for service in MODELS if service != first]
    with contextlib.ExitStack() as stack:
        providers = Providers(stack)
        with Session(settings=providers.settings(tmp_path)) as session:
            history: list[Any] = []
            for number, service in enumerate((first, *others, first)):
                talk = session.llm(f"{service}:{MODELS[service]}", tools=[weather]).conversation()
                talk.messages = history
                assert talk(f"Question {number}?", display=False).text == recorded.WORDS
                history = talk.messages
        for service in MODELS:
            bodies = providers.sent(service)
            assert len(bodies) == (4 if service == first else 2)
            for body in bodies:
                TAKES[service](body)
        last = json.dumps(providers.sent(first)[-1])
        assert all(f"Question {number}?" in last for number in range(5))
        for service, word in (("openai", "gAAA"), ("anthropic", "c2lnMQ=="), ("gemini", '"c2ln"')):
            assert (word in last) is (service == first) or (service, first) == ("gemini", "anthropic"), (
                "own thoughts, and no others"
            )


DIAGRAM = """
version: light
persons:
  Ada: {service: openai, model: gpt-5-nano}
nodes:
- {label: Start, type: start}
- {label: First, type: person_job, person: Ada, default_prompt: "Question 1?"}
- {label: Second, type: person_job, person: Ada, default_prompt: "Question 2?"}
- {label: Third, type: person_job, person: Ada, default_prompt: "Question 3?"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: First}
- {from: First, to: Second}
- {from: Second, to: Third}
- {from: Third, to: End}
"""


def test_a_person_moves_to_other_providers_and_back_in_forks(tmp_path: Path):
    """What a person remembers is sent to whichever model it has in a fork, in a form that its API takes."""
    with contextlib.ExitStack() as stack:
        providers = Providers(stack, "text")
        with Session(settings=providers.settings(tmp_path)) as session:
            run = session.run(DIAGRAM)
            for service in ("anthropic", "gemini", "ollama", "openai"):
                moved = {"persons.Ada.service": service, "persons.Ada.model": MODELS[service]}
                run = session.fork(run, at="Second", set=moved).result()
                assert run.status == "completed"
                assert run.outputs["End"] == recorded.WORDS
        for service in MODELS:
            bodies = providers.sent(service)
            assert bodies
            for body in bodies:
                TAKES[service](body)
            sent = json.dumps(bodies[-1])
            assert sent.count(json.dumps(recorded.WORDS)[1:-1]) == 2
            assert all(f"Question {number}?" in sent for number in (1, 2, 3))


@pytest.mark.parametrize("service", MODELS)
def test_what_a_person_remembers_is_sent_after_a_resume(service: str, tmp_path: Path):
    """In another session, and exactly as it was sent before the failure."""
    diagram = DIAGRAM.replace("service: openai, model: gpt-5-nano", f"service: {service}, model: {MODELS[service]}")
    with contextlib.ExitStack() as stack:
        providers = Providers(stack, "text", "text", "refused", "text")
        with Session(settings=providers.settings(tmp_path)) as session:
            run = session.start(diagram, view=False)
            with pytest.raises(DipeoError, match="not this time"):
                run.result()
        with Session(settings=providers.settings(tmp_path)) as session:
            resumed = session.resume(run.id, view=False).result()
            assert resumed.outputs["End"] == recorded.WORDS
            assert resumed.run.node("First").runs == resumed.run.node("Second").runs == 1
        *before, refused, again = providers.sent(service)
        assert len(before) == 2
        assert again == refused
        TAKES[service](again)
        sent = json.dumps(again)
        assert sent.count(json.dumps(recorded.WORDS)[1:-1]) == 2
        assert all(f"Question {number}?" in sent for number in (1, 2, 3))

"""Options that a model does not take and that are left out of what is sent: whoever set them hears of it, with the option and the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

import dipeo_nb as dp
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import LLMRequest, StreamEvent, ToolConfig
from dipeo_nb.domain.events import EventType
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.options import left_out
from dipeo_nb.llm.output_modes import with_output_mode
from dipeo_nb.llm.providers import create
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from tests.support import wire_anthropic, wire_google
from tests.support.wire_openai import Reply, ScriptedServer, request, run, says

KEY = "sk-not-a-real-key-1234567890"


class Case(NamedTuple):
    service: str
    model: str
    says: Callable[[str], Reply]
    options: Mapping[str, Any] = MappingProxyType({})
    left_out: str | None = None


NO = "takes no temperature; 0.5 is left out."
THINKS = "takes no temperature while it thinks; 0.5 is left out."
CASES = [
    Case("openai", "gpt-4.1", says),
    Case("openai", "gpt-5", says, left_out=f"gpt-5 {NO}"),
    Case("openai", "o3", says, {"reasoning": "low"}, f"o3 {NO}"),
    Case("anthropic", "claude-haiku-4-5", wire_anthropic.says),
    Case("anthropic", "claude-haiku-4-5", wire_anthropic.says, {"reasoning": "none"}),
    Case("anthropic", "claude-opus-4-8", wire_anthropic.says, left_out=f"claude-opus-4-8 {NO}"),
    Case("anthropic", "claude-haiku-4-5", wire_anthropic.says, {"reasoning": "low"}, f"claude-haiku-4-5 {THINKS}"),
    Case("anthropic", "claude-opus-4-6", wire_anthropic.says, {"reasoning": "high"}, f"claude-opus-4-6 {THINKS}"),
    Case("gemini", "gemini-3.5-flash", wire_google.says),
    Case("gemini", "gemini-3.5-flash", wire_google.says, {"reasoning": "low"}),
]
assert len(CASES) == 10
IDS = [f"{case.model} {dict(case.options)}" for case in CASES]


def asked_of(case: Case, **more: Any) -> LLMRequest:
    return request(service=case.service, model=case.model, **{"temperature": 0.5, **case.options, **more})


def client_for(case: Case, url: str) -> UnifiedClient:
    address = url if case.service == "openai" else url.removesuffix("/v1")
    config = AdapterConfig(provider_type=case.service, model=case.model, base_url=address, api_key=SecretStr(KEY))
    client = create(config, get_settings())
    assert isinstance(client, UnifiedClient)
    return client


async def events_of(client: UnifiedClient, case: Case) -> list[StreamEvent]:
    return [event async for event in client.stream(asked_of(case))]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_it_is_sent_or_said(case: Case):
    """Never neither: the first event of the stream has it, once for each client, and the answers as a whole as a warning."""
    with ScriptedServer(case.says("ok")) as server:

        async def go() -> tuple[list[StreamEvent], list[StreamEvent]]:
            client = client_for(case, server.url)
            both = await events_of(client, case), await events_of(client, case)
            await client.cleanup()
            return both

        first, second = run(go())
        whole = client_for(case, server.url)
        answer = whole.chat("Hi.", temperature=0.5, **case.options)
        whole.close()
    assert first[0].kind == second[0].kind == "start"
    assert (first[0].data or {}).get("notice") == case.left_out
    assert second[0].data is None
    assert answer.warnings == ((case.left_out,) if case.left_out else ())
    sent = server.seen[0].body
    assert (sent.get("temperature", sent.get("generationConfig", {}).get("temperature")) == 0.5) is (case.left_out is None)


def test_each_notice_is_given_for_itself():
    """What was said of one option, or of one model, does not keep back what is to be said of another."""
    client = client_for(CASES[5], "http://127.0.0.1:9/v1")
    said = [
        (client.started(request(service="anthropic", model=model, temperature=temperature)).data or {}).get("notice")
        for model, temperature in [
            ("claude-opus-4-8", None),
            ("claude-opus-4-8", 0.5),
            ("claude-opus-4-7", 0.5),
            ("claude-opus-4-8", 0.5),
        ]
    ]
    assert said == [None, f"claude-opus-4-8 {NO}", f"claude-opus-4-7 {NO}", None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"reasoning": "low", "tool_choice": "required"},
            "claude-haiku-4-5 takes no tool_choice while it thinks; 'required' is left out.",
        ),
        (
            {"reasoning": "low", "tool_choice": "look"},
            "claude-haiku-4-5 takes no tool_choice while it thinks; 'look' is left out.",
        ),
        ({"reasoning": "low", "tool_choice": "auto"}, None),
        ({"reasoning": "low"}, None),
        ({"reasoning": "none", "tool_choice": "required"}, None),
        ({"tool_choice": "required"}, None),
    ],
)
def test_a_tool_that_cannot_be_made_to_be_called(options: dict[str, Any], said: str | None):
    asked = request(service="anthropic", model="claude-haiku-4-5", tools=(ToolConfig("function", "look", "Look."),), **options)
    assert left_out(asked) == ([said] if said else [])


def test_the_tool_of_a_structured_answer_is_not_the_callers():
    """It is asked for by this package; with a model that thinks, the model is free to answer in words."""
    asked = request(
        service="anthropic",
        model="claude-haiku-4-5",
        reasoning="low",
        response_format={"type": "object", "properties": {"a": {}}},
    )
    assert left_out(with_output_mode(asked, "tool")) == []


def test_claude_code_takes_neither_a_temperature_nor_a_limit():
    client = create(AdapterConfig(provider_type="claude-code"), get_settings())
    assert isinstance(client, UnifiedClient)
    assert client.notices(request(service="claude-code", model="sonnet", temperature=0.5, max_tokens=9)) == [
        f"sonnet {NO}", "sonnet takes no max_tokens; 9 is left out."
    ]  # fmt: skip
    assert client.notices(request(service="claude-code", model="sonnet")) == []


@pytest.mark.parametrize("model", ["gpt-5", "gpt-4.1"])
def test_the_service_and_a_notebook_say_it(model: str, tmp_path: Path):
    wanted = [f"{model} {NO}"] if model == "gpt-5" else []
    with ScriptedServer(says("ok"), says("ok")) as server:
        settings = get_settings().model_copy(update={"openai_base_url": server.url, "base_dir": tmp_path})

        async def go() -> tuple[str, ...]:
            service = LLMService(settings, EnvironmentAPIKeyService(settings))
            answer = await service.complete(request(service="openai", model=model, temperature=0.5))
            await service.cleanup()
            return answer.warnings

        assert list(run(go())) == wanted
        with dp.Session(tmp_path) as session:
            answer = session.chat("Hi.", model=f"openai:{model}", base_url=server.url, temperature=0.5, display=False)
    assert list(answer.notices) == wanted


def test_the_log_of_a_run_has_it(tmp_path: Path):
    """As a warning of the node whose person has the option."""
    with ScriptedServer(says("ok")) as server, dp.Session(tmp_path) as session:
        diagram = session.load(
            "version: light\n"
            f"persons: {{Ann: {{service: openai, model: gpt-5, base_url: '{server.url}', temperature: 0.5}}}}\n"
            "nodes:\n- {label: S, type: start}\n- {label: Say, type: person_job, person: Ann, default_prompt: Hi.}\n- {label: E, type: endpoint}\n"
            "connections:\n- {from: S, to: Say}\n- {from: Say, to: E}\n"
        )
        run = session.run(diagram, view=False)
        logged = [str(event.payload) for event in run.events if event.type == EventType.EXECUTION_LOG]
    assert any(f"gpt-5 {NO}" in text and "WARNING" in text for text in logged), logged


def test_what_is_not_set_is_not_left_out():
    for case in CASES:
        assert left_out(asked_of(case, temperature=None)) == []

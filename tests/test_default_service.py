"""A default model that names a service, or is one, is understood everywhere: DIPEO_DEFAULT_LLM_MODEL=anthropic:NAME, ollama:NAME, echo …

Every entry point asks the service of the default, by the model of the default, and nobody else: the servers of the others hear nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.config import reset_settings
from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.llm import providers
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.storage.conversation import default_config

WHOLE = """
version: light
persons:
  Ada: {}
  Bob: {system_prompt: Be brief.}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, props: {person: Ada, default_prompt: "Ask away."}}
- {label: Recall, type: person_job, props: {person: Bob, default_prompt: "Recall it.", memorize_to: "what Ada said", at_most: 1}}
- {label: Good, type: condition, props: {condition_type: llm_decision, person: Bob, judge_by: "Is it good?"}}
- {label: Inner, type: sub_diagram, props: {diagram_name: inner}}
- {label: Yes, type: endpoint}
- {label: "No", type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: Recall}
- {from: Recall, to: Good}
- {from: Good_condtrue, to: Inner}
- {from: Good_condfalse, to: "No"}
- {from: Inner, to: Yes}
"""
INNER = """
version: light
persons: {Cyd: {}}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, props: {person: Cyd, default_prompt: "Inside."}}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(service, model) of every request that reached a client; all of them answer like `echo`."""
    seen: list[tuple[str, str]] = []

    class Listening(EchoClient):
        async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
            seen.append((request.service, request.model))
            async for event in super().stream(request):
                yield event

    monkeypatch.setattr(providers, "create", lambda config, settings: Listening(config, settings=settings))
    return seen


DEFAULTS = [
    ("ollama:llama3", "ollama", "llama3"),
    ("llama3.2:3b", "ollama", "llama3.2:3b"),
    ("echo", "echo", ""),
    ("local", "local", ""),
    ("local:smollm2-135m", "local", "smollm2-135m"),
    ("anthropic:claude-sonnet-5", "anthropic", "claude-sonnet-5"),
    ("claude:claude-sonnet-5", "anthropic", "claude-sonnet-5"),
    ("claude-sonnet-5", "anthropic", "claude-sonnet-5"),
    ("gemini:gemini-3.8-flash", "gemini", "gemini-3.8-flash"),
    ("openai:gpt-6-sol", "openai", "gpt-6-sol"),
    ("gpt-6-sol", "openai", "gpt-6-sol"),
    ("openai", "openai", "gpt-5-nano-2025-08-07"),
]


@pytest.fixture(params=DEFAULTS, ids=lambda row: row[0])
def default(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    given, service, model = request.param
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", given)
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(key, "key-of-the-test")
    reset_settings()
    return service, model


def test_there_are_all_kinds():
    assert len(DEFAULTS) == 12
    assert {service for _, service, _ in DEFAULTS} == {"ollama", "echo", "local", "anthropic", "gemini", "openai"}


def test_every_entry_point(heard: list[tuple[str, str]], default: tuple[str, str], tmp_path: Path):
    """Runs with decisions, memory and sub-diagrams; chats, ready models, batches and conversations; the stored person."""
    (tmp_path / "inner.light.yaml").write_text(INNER)
    (tmp_path / "whole.light.yaml").write_text(WHOLE)
    with dp.Session(tmp_path) as session:
        assert session.run("whole").status == "completed"
        assert len(heard) >= 3
        session.chat("Hi", display=False)
        session.llm().chat("Hi", display=False)
        session.llm().batch(["One", "Two"])
        session.llm().conversation()("Hi", display=False)
        session.llm(default[0]).chat("Hi", display=False)  # the service alone means its model, too
        list(session.llm().stream("Hi"))
    count = len(heard)
    assert set(heard) == {default}
    assert main(["run", str(tmp_path / "whole.light.yaml"), "--base-dir", str(tmp_path), "--quiet"]) == 0
    assert len(heard) > count
    assert set(heard) == {default}
    stored = default_config()
    assert (stored.service, stored.model or "") in (default, (default[0], ""))


def test_a_person_of_the_defaults_service_takes_its_model(heard: list[tuple[str, str]], default: tuple[str, str], tmp_path: Path):
    """`{service: anthropic}` under the default `anthropic:NAME`: that model, in diagrams as in chats."""
    service, model = default
    diagram = INNER.replace("Cyd: {}", f"Cyd: {{service: {service}}}")
    with dp.Session(tmp_path) as session:
        assert session.run(diagram).status == "completed"
    assert heard == [(service, model)]


def test_a_server_of_ones_own_keeps_its_service(heard: list[tuple[str, str]], default: tuple[str, str], tmp_path: Path):
    """A person with a `base_url` and no model is not moved to another service with it."""
    service, model = default
    diagram = INNER.replace("Cyd: {}", "Cyd: {base_url: 'http://127.0.0.1:9/v1'}")
    with dp.Session(tmp_path) as session:
        assert session.run(diagram).status == "completed"
    assert heard == [("openai", model if service == "openai" else "gpt-5-nano-2025-08-07")]

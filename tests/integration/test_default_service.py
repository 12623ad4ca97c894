"""A default model that names a service, or is one, is understood everywhere: DIPEO_DEFAULT_LLM_MODEL=anthropic:NAME, ollama:NAME, echo …

Every entry point asks the service of the default, by the model of the default, and nobody else: the servers of the others hear nothing.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.common import clock
from dipeo_nb.config import DEFAULT_MODEL, DEFAULT_MODEL_AFTER, reset_settings
from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.llm import catalogue, providers
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


def test_a_person_of_the_defaults_service_takes_its_model(
    heard: list[tuple[str, str]], default: tuple[str, str], tmp_path: Path
):
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


# A person that names only a service.

NAMED = ["openai", "anthropic", "gemini", "local", "ollama", "echo"]
OWN = {"openai": "gpt-5-nano-2025-08-07"}
"""The default models of services that the settings do not name; the clients of the others have their own."""


def of_form(form: str, service: str) -> str:
    """The inner diagram in a form, its person with a service."""
    return dp.load(INNER.replace("Cyd: {}", f"Cyd: {{service: {service}}}")).to_text(form)


FORMS = ("light", "native", "readable")


@pytest.mark.parametrize(
    "default", [row for row in DEFAULTS if row[0] in ("anthropic:claude-sonnet-5", "openai:gpt-6-sol", "echo")], indirect=True
)
@pytest.mark.parametrize("service", NAMED)
def test_a_service_alone_means_its_own_default(
    heard: list[tuple[str, str]], default: tuple[str, str], service: str, tmp_path: Path
):
    """`{service: openai}` under the default `anthropic:NAME` is OpenAI's default model, in every form, and does not follow the default."""
    wanted = service, default[1] if service == default[0] else OWN.get(service, "")
    with dp.Session(tmp_path) as session:
        for form in FORMS:
            assert session.run(of_form(form, service)).status == "completed"
        assert session.run(dp.load(INNER).set("persons.Cyd.service", service)).status == "completed"
        assert session.run(INNER, model=service).status == "completed"
        session.chat("Hi", model=service, display=False)
        session.llm(service).chat("Hi", display=False)
        session.llm(service).batch(["One"])
    assert heard == [wanted] * 8


def test_nothing_named_stays_nothing_named(heard: list[tuple[str, str]], default: tuple[str, str], tmp_path: Path):
    """A person without a service keeps none when its diagram is written, so it still follows the default."""
    with dp.Session(tmp_path) as session:
        for form in FORMS:
            text = of_form(form, '""')
            assert "openai" not in text
            assert session.run(text).status == "completed"
    assert heard == [default] * 3


# The default model on and after the day of its end.


@pytest.mark.parametrize(
    ("day", "model", "warned"), [(10, DEFAULT_MODEL, 0), (11, DEFAULT_MODEL_AFTER, 1), (12, DEFAULT_MODEL_AFTER, 1)]
)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_openai_alone_moves_to_the_successor_with_one_warning(
    heard: list[tuple[str, str]], day: int, model: str, warned: int, zone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The day is the same in every time zone; a service that is named alone, and nothing that is named, are warned of once together."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    monkeypatch.setattr(catalogue, "_said", set[str]())
    reset_settings()
    try:
        with clock.on(date(2026, 12, day)), warnings.catch_warnings(record=True) as caught, dp.Session(tmp_path) as session:
            warnings.simplefilter("always")
            for person in ("{}", "{service: openai}"):
                assert session.run(INNER.replace("Cyd: {}", f"Cyd: {person}")).status == "completed"
            assert session.run(INNER, model="openai").status == "completed"
            session.chat("Hi", display=False)
            session.llm("openai").batch(["One", "Two"])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert heard == [("openai", model)] * 6
    assert len([w for w in caught if w.category is catalogue.DefaultModelWarning]) == warned


def test_answers_of_the_old_default_replay_for_the_service_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What was recorded for OpenAI's default before its end answers afterwards, when again only the service is named."""
    monkeypatch.setattr(providers, "create", lambda config, settings: EchoClient(config, settings=settings))
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", "anthropic:claude-sonnet-5")
    diagram = INNER.replace("Cyd: {}", "Cyd: {service: openai}")
    said: list[object] = []
    for day, mode in ((10, "record"), (11, "replay")):
        monkeypatch.setenv("DIPEO_LLM_MODE", mode)
        reset_settings()
        with clock.on(date(2026, 12, day)), warnings.catch_warnings(), dp.Session(tmp_path) as session:
            warnings.simplefilter("ignore")
            said.append(
                [
                    session.run(diagram).output,
                    session.llm("openai").chat("Hi", display=False).text,
                    session.run(INNER, model="openai").output,
                ]
            )
    assert said[0] == said[1]

"""`providers.register`: a class of the user's own as the client of a service, in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.config import get_settings
from dipeo_nb.domain import chat, llm_providers
from dipeo_nb.errors import ConfigurationError, UnsupportedError
from dipeo_nb.llm import catalogue, providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.security.environment import EnvironmentAPIKeyService, variables_of_services


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_providers, "_REGISTERED", {})


class Mine(EchoClient):
    provider = "mine"

    def __init__(self, config: AdapterConfig | None = None, *, settings: Any = None) -> None:
        super().__init__()


class Other(Mine):
    pass


def test_a_registered_service_is_asked_like_any_other():
    """In chats and diagrams, under any spelling of its name; it is listed; a second class takes its place."""
    with pytest.raises(UnsupportedError, match="no LLM service 'my_own'"):
        dp.chat("hello", model="my_own:m", display=False)
    providers.register("My_Own", Mine)
    assert "my-own" in providers.services()
    assert providers.client_class("my-own") is Mine
    with dp.Session() as session:
        assert "hello" in session.chat("hello", model="my_own:m", display=False).text
        diagram = session.load(
            "version: light\npersons: {Ann: {service: my-own}}\nnodes:\n- {label: S, type: start}\n"
            "- {label: Say, type: person_job, person: Ann, default_prompt: good day}\n- {label: E, type: endpoint}\n"
            "connections:\n- {from: S, to: Say}\n- {from: Say, to: E}\n"
        )
        assert "good day" in str(session.run(diagram, view=False).output)
    providers.register("my-own", Other)
    assert providers.client_class("my-own") is Other


class NeedsSDK(Mine):
    sdk_module, sdk_package = "no_such_sdk", "no-such-sdk[all]"
    key_variable = "NO_SUCH_KEY"


class NeedsKey(Mine):
    sdk_module = "json"
    key_variable = "NO_SUCH_KEY"


@pytest.mark.parametrize(
    ("kind", "why_not"), [(Mine, ""), (NeedsSDK, 'pip install "no-such-sdk[all]"'), (NeedsKey, "set NO_SUCH_KEY")]
)
def test_what_a_service_needs_stands_in_its_class(kind: type[Mine], why_not: str):
    """A provider is one class and one entry: the overview of services reads the facts from the class."""
    providers.register("mine", kind)
    settings = get_settings()
    found = asyncio.run(catalogue.services(settings, EnvironmentAPIKeyService(settings)))
    (facts,) = [facts for facts in found if facts.service == "mine"]
    assert (facts.ready, facts.why_not) == (not why_not, why_not)


@pytest.mark.parametrize("service", providers.BUILT_IN)
def test_the_facts_of_the_services_that_are_built_in(service: str):
    """Each class says its name, what its SDK is, and the variable that is looked up first."""
    kind: Any = providers.client_class(service)
    assert kind.provider == service
    assert bool(kind.sdk_module) is bool(kind.sdk_package) is (service != "echo")
    assert not kind.key_variable or variables_of_services()[service][0] == kind.key_variable


def test_a_family_of_ollama_models_can_be_a_service_of_its_own():
    """`mistral` means Ollama's model of that name until somebody registers a service so called; then that, everywhere."""
    text = (
        "version: light\npersons: {Ann: {service: Mistral, model: small}}\nnodes:\n- {label: S, type: start}\n"
        "- {label: Say, type: person_job, person: Ann, default_prompt: good day}\n- {label: E, type: endpoint}\n"
        "connections:\n- {from: S, to: Say}\n- {from: Say, to: E}\n"
    )
    assert chat.parse_model("mistral:7b") == ("ollama", "mistral:7b")
    assert dp.load(text).persons[0].llm.service == "ollama"
    providers.register("mistral", Mine)
    assert providers.client_class("mistral") is Mine
    assert chat.parse_model("mistral:mistral-small-latest") == ("mistral", "mistral-small-latest")
    assert chat.parse_model("gemma:7b") == ("ollama", "gemma:7b")
    with dp.Session() as session:
        diagram = session.load(text)
        assert [d for d in diagram.diagnostics if d.code == "unknown-service"] == []
        assert "good day" in str(session.run(diagram, view=False).output)
        assert "hello" in session.chat("hello", model="mistral", display=False).text


@pytest.mark.parametrize(("name", "says"), [("openai", "is built in"), ("claude", "'claude' means 'anthropic'"), ("ollama", "is built in"), (" ", "no name")])  # fmt: skip
def test_our_services_are_not_replaced(name: str, says: str):
    """A name that means one of ours is one clear error."""
    with pytest.raises(ConfigurationError, match=says):
        providers.register(name, Mine)
    assert llm_providers._REGISTERED == {}

"""`providers.register`: a class of the user's own as the client of a service, in this process."""

from __future__ import annotations

from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import ConfigurationError, UnsupportedError
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.echo import EchoClient


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_REGISTERED", {})


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


@pytest.mark.parametrize(("name", "says"), [("openai", "is built in"), ("mistral", "'mistral' means 'ollama'"), (" ", "no name")])  # fmt: skip
def test_our_services_are_not_replaced(name: str, says: str):
    """A name that means one of ours is one clear error."""
    with pytest.raises(ConfigurationError, match=says):
        providers.register(name, Mine)
    assert providers._REGISTERED == {}

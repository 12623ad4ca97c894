"""The contract of clients of models (`dipeo_nb.testing.contracts.clients`) on fakes and real ones alike: echo, scripted, the embedded
model, the official SDKs on a wire."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.domain.chat import LLMRequest
from dipeo_nb.domain.ports import LLMClient
from dipeo_nb.llm import model_store, providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.llm.providers.local import UnifiedLocalClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.samples import sample
from dipeo_nb.testing import ScriptedClient
from dipeo_nb.testing.contracts import LLMClientContract
from dipeo_nb.testing.contracts.clients import Reply
from tests.support.wire_openai import Call, ScriptedServer, answer, llama_server, run, settings_with
from tests.support.wire_protocols import WIRES, Anthropic, Google, Ollama

MADE = Callable[[], LLMClient]


@contextlib.contextmanager
def echo() -> Iterator[MADE]:
    yield EchoClient


@contextlib.contextmanager
def scripted() -> Iterator[MADE]:
    def say(asked: LLMRequest) -> Any:
        if asked.response_format is Reply:
            return Reply(agreed=True, mark=3)
        return {"decision": False} if asked.response_format else f"You said: {asked.messages[-1].content} Thank you."

    yield lambda: ScriptedClient(say)


@contextlib.contextmanager
def local() -> Iterator[MADE]:
    run(model_store.ensure(settings_with(), model_store.SMOLLM2.name))
    yield lambda: UnifiedLocalClient()


@contextlib.contextmanager
def openai_on_a_script() -> Iterator[MADE]:
    def say(call: Call) -> None:
        body = server.seen[-1].body
        shape = body.get("text")
        call.stream(answer(json.dumps(sample(shape["format"]["schema"])) if shape else "Hello my dear friend."))

    with ScriptedServer(say) as server:
        config = AdapterConfig(provider_type="openai", base_url=server.url, api_key=SecretStr("sk-test"))
        yield lambda: UnifiedOpenAIClient(config)


def on_a_wire(wire: Any) -> Callable[[], contextlib.AbstractContextManager[MADE]]:
    """A client whose provider is played by a script, through the official SDK."""

    @contextlib.contextmanager
    def made() -> Iterator[MADE]:
        def say(call: Call) -> None:
            body = call.seen.body
            schema = wire.asked_schema(body)
            wire.says(json.dumps(sample(schema)) if schema else "Hello my dear friend.")(call)

        with wire.server(say) as server:
            address = server.url.removesuffix("/v1") + wire.path
            config = AdapterConfig(provider_type=wire.service, model=wire.model, base_url=address, api_key=SecretStr("sk-test"))
            yield lambda: providers.create(config, settings_with())

    return made


@contextlib.contextmanager
def openai_on_llama() -> Iterator[MADE]:
    config = AdapterConfig(provider_type="openai", base_url=llama_server())
    yield lambda: UnifiedOpenAIClient(config)


REAL = pytest.mark.model
CLIENTS = [
    pytest.param(echo, id="echo"),
    pytest.param(scripted, id="scripted"),
    pytest.param(openai_on_a_script, id="openai-scripted"),
    pytest.param(on_a_wire(Anthropic()), id="anthropic-scripted"),
    pytest.param(on_a_wire(Google()), id="gemini-scripted"),
    pytest.param(on_a_wire(Ollama()), id="ollama-scripted"),
    pytest.param(local, id="local", marks=REAL),
    pytest.param(openai_on_llama, id="openai-llama.cpp", marks=REAL),
]
WIRE_OF = {wire.service: wire for wire in WIRES}


class TestLLMClients(LLMClientContract):
    timeout = 300.0  # a real model may have a busy machine

    @pytest.fixture(autouse=True, params=CLIENTS)
    def adapter(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with request.param() as made:
            self.make = made
            provider = made().provider
            # llama.cpp's Responses endpoint takes no text.format.
            self.structure = request.param is not openai_on_llama
            if provider not in WIRE_OF:
                yield
                return
            wire: Any = WIRE_OF[provider]
            self.model = "gpt-test" if provider == "openai" else wire.model
            status = 500
            with wire.server(lambda call: wire.refuses(status, "no")(call)) as server:
                config = AdapterConfig(
                    provider_type=provider,
                    model=wire.model,
                    base_url=server.url.removesuffix("/v1") + wire.path,
                    api_key=SecretStr("sk-test"),
                )

                def refused(wanted: int) -> LLMClient:
                    nonlocal status
                    status = wanted
                    return providers.create(config, settings_with())

                self.refused = refused
                yield

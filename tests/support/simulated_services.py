"""All six services that answer, played in this process: the four that speak HTTP on a wire, Claude Code and the embedded model behind
their libraries. An answer is a text and why it ends: `stop` or `length`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers import local
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai
from tests.support.wire_openai import Reply, ScriptedServer, settings_with
from tests.support.wire_protocols import WIRES

Answer = tuple[str, str]
SERVICES = ("openai", "anthropic", "gemini", "ollama", "claude-code", "local")
KEY = "sk-played-0123456789abcdef"
WHAT_THINKING_TOOK = 4


@dataclass
class Player:
    """One service with its answers; `sent` is what it was sent, in its own words."""

    service: str
    model: str
    settings: Settings
    base_url: str | None = None
    sent: list[Any] = field(default_factory=list[Any])

    @property
    def key(self) -> SecretStr | None:
        return None if self.service in ("local", "ollama") else SecretStr(KEY)

    def client(self) -> Any:
        """A new public client."""
        config = AdapterConfig(
            provider_type=self.service, model=self.model, api_key=self.key, base_url=self.base_url, max_retries=0
        )
        return providers.create(config, self.settings)

    def llm(self) -> LLMService:
        """A new service that asks it."""
        return LLMService(self.settings, EnvironmentAPIKeyService(self.settings), retries=RetryConfig(initial_delay=0.01))


def _pieces(text: str) -> list[str]:
    return text.replace(" ", " \0").split("\0") if text else []


def _openai(text: str, reason: str) -> Reply:
    cut: dict[str, Any] = (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}} if reason == "length" else {}
    )
    last = openai.final(*([openai.message(text)] if text else []), **cut)
    return lambda call: call.stream([*map(openai.delta, _pieces(text)), last])


def _anthropic(text: str, reason: str) -> Reply:
    end = anthropic.end(
        "max_tokens" if reason == "length" else "end_turn", output_tokens_details={"thinking_tokens": WHAT_THINKING_TOOK}
    )
    return anthropic.streams(anthropic.start(), *(anthropic.text(text) if text else []), *end)


def _google(text: str, reason: str) -> Reply:
    chunks = [google.chunk(google.text(piece)) for piece in _pieces(text)]
    return google.streams(*chunks, google.chunk(finish="MAX_TOKENS" if reason == "length" else "STOP"))


def _ollama(text: str, reason: str) -> Reply:
    return ollama.lines(*map(ollama.chunk, _pieces(text)), ollama.end(reason))


REPLIES: Mapping[str, Callable[[str, str], Reply]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _google,
    "ollama": _ollama,
}


@contextlib.contextmanager
def _on_a_wire(service: str, answers: list[Answer]) -> Iterator[Player]:
    wire: Any = next(w for w in WIRES if w.service == service)
    server: ScriptedServer
    with wire.server(*(REPLIES[service](*answer) for answer in answers)) as server:
        address = server.url.removesuffix("/v1") + wire.path
        keys = {wire.key_setting: SecretStr(KEY)} if wire.key_setting else {}
        player = Player(service, wire.model, settings_with(**{wire.url_setting: address, **keys}), address)
        player.sent = _Bodies(server)
        yield player


class _Bodies(list[Any]):
    """The bodies that a server was sent."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def _now(self) -> list[Any]:
        return [seen.body for seen in self._server.seen if seen.body]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, at: Any) -> Any:
        return self._now()[at]


@contextlib.contextmanager
def _claude_code(answers: list[Answer]) -> Iterator[Player]:
    import claude_agent_sdk as sdk

    player = Player("claude-code", "claude-sonnet-5", settings_with(anthropic_api_key=SecretStr(KEY)))
    left = list(answers)

    class Program:
        def __init__(self, options: Any) -> None:
            self._options = options

        async def __aenter__(self) -> Program:
            return self

        async def __aexit__(self, *error: object) -> None: ...

        async def query(self, prompt: str) -> None:
            shown = {name: getattr(self._options, name) for name in ("effort", "thinking", "system_prompt")}
            player.sent.append({"prompt": prompt, **shown})

        async def receive_response(self) -> AsyncIterator[Any]:
            text, reason = left.pop(0) if len(left) > 1 else left[0]
            for piece in _pieces(text):
                delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": piece}}
                yield sdk.StreamEvent(uuid="u", session_id="s", event=delta)
            yield sdk.ResultMessage(
                "success", 1, 1, False, 1, "s", "max_tokens" if reason == "length" else "end_turn", 0.01,
                {"input_tokens": 20, "output_tokens": 12, "output_tokens_details": {"thinking_tokens": WHAT_THINKING_TOOK}}, text,
                structured_output=json.loads(text) if self._options.output_format and text.startswith("{") and reason == "stop" else None,
            )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdk, "ClaudeSDKClient", Program)
        yield player


@contextlib.contextmanager
def _local(answers: list[Answer]) -> Iterator[Player]:
    player = Player("local", "", settings_with())
    left = list(answers)

    class Model:
        async def generate(self, payload: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            player.sent.append(payload)
            text, reason = left.pop(0) if len(left) > 1 else left[0]
            for piece in _pieces(text):
                yield {"choices": [{"delta": {"content": piece}}]}
            yield {"choices": [{"delta": {}, "finish_reason": reason}], "usage": {"prompt_tokens": 20, "completion_tokens": 12}}

    async def load(*_: Any) -> Model:
        return Model()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_load", load)
        yield player


def playing(service: str, *answers: Answer) -> contextlib.AbstractContextManager[Player]:
    """A service that gives these answers, the last one again and again."""
    given = list(answers) or [("Fine.", "stop")]
    match service:
        case "claude-code":
            return _claude_code(given)
        case "local":
            return _local(given)
        case _:
            return _on_a_wire(service, given)

"""Every provider with a wire, over the loopback and through the whole service: what is common to their tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.errors import DipeoError
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai
from tests.support.wire_openai import Call, Reply, ScriptedServer, Seen, run, settings_with

FAST = RetryConfig(max_attempts=3, initial_delay=0.01, max_delay=0.02)


def text(body: str, kind: str = "text/event-stream", status: int = 200, **headers: str) -> Reply:
    """A reply of this body, verbatim."""

    def reply(call: Call) -> None:
        call.headers(status, content_type=kind, content_length=str(len(body.encode())), **headers)
        call.send(body)

    return reply


@dataclass(frozen=True)
class Wire:
    """How a provider speaks."""

    service: str
    model: str
    says: Callable[[str], Reply]
    refuses: Callable[..., Reply]
    """(status, words, **headers) → a refusal."""
    malformed: Reply
    """A piece of text, and then what the API does not have."""

    def script(self, *replies: Reply) -> Sequence[Reply]:
        """Replies as a server of this provider gives them."""
        return (ollama.Ollama(*replies),) if self.service == "ollama" else replies

    def asked(self, server: ScriptedServer) -> list[Seen]:
        """The requests for an answer."""
        return [seen for seen in server.seen if seen.path != "/api/tags"]


def _ollama_error(status: int, words: str, **headers: str) -> Reply:
    return lambda call: call.json(status, {"error": words}, **headers)


WIRES = (
    Wire(
        "openai",
        "gpt-4o",
        openai.says,
        lambda status, words, **headers: lambda call: call.error(status, words, **headers),
        text(f"data: {openai.json.dumps(openai.delta('Hel'))}\n\ndata: {{nonsense\n\n"),
    ),
    Wire(
        "anthropic",
        "claude-sonnet-5",
        anthropic.says,
        lambda status, words, **headers: anthropic.error(status, words, **headers),
        text(
            anthropic.body(
                [anthropic.start(), *anthropic.text("Hel")[:2], {"type": "content_block_delta", "index": 0, "delta": None}]
            )
        ),
    ),
    Wire(
        "gemini",
        "gemini-2.5-flash",
        google.says,
        lambda status, words, **headers: google.error(status, words, **headers),
        text(google.body([google.chunk(google.text("Hel"))]) + "data: {nonsense\n\n"),
    ),
    Wire(
        "ollama",
        "llama3.2",
        ollama.says,
        _ollama_error,
        text(ollama.json.dumps(ollama.chunk("Hel")) + "\n{nonsense\n", "application/x-ndjson"),
    ),
)


def settings_for(server: ScriptedServer, **more: Any) -> Settings:
    """The test's settings, with this server behind every provider."""
    root = server.url.removesuffix("/v1")
    return settings_with(openai_base_url=server.url, anthropic_base_url=root, google_base_url=root, ollama_host=root, **more)


def through_service(
    server: ScriptedServer, wire: Wire, *, retries: RetryConfig = FAST, **options: Any
) -> tuple[list[StreamEvent], LLMResponse | DipeoError]:
    """(events, answer or error) of a request through the whole service."""
    settings = settings_for(server)

    async def go() -> tuple[list[StreamEvent], LLMResponse | DipeoError]:
        made = LLMService(settings, EnvironmentAPIKeyService(settings), retries=retries)
        events: list[StreamEvent] = []
        try:
            request = LLMRequest(wire.service, wire.model, **{"messages": (ChatMessage("user", "Hi"),), **options})
            async for event in made.stream(request):
                events.append(event)  # noqa: PERF401 - kept when the stream fails
        except DipeoError as error:
            return events, error
        finally:
            await made.cleanup()
        assert events[-1].response is not None
        return events, events[-1].response

    return run(go())

"""Recorded streams of all providers, cut, split, reordered and garbled, through the real SDKs and our clients.

A small number of cases each; `FUZZ_CASES=10000` makes more of them, `FUZZ_SEED` others. A failure names its case,
which `FUZZ_CASE=NUMBER` repeats alone.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Any, ClassVar

import claude_agent_sdk
import pytest
from claude_agent_sdk import Transport
from pydantic import SecretStr

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolConfig
from dipeo_nb.errors import LLMError
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.core.retry import pause, transient
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.anthropic import UnifiedAnthropicClient
from dipeo_nb.llm.providers.claude_code import UnifiedClaudeCodeClient
from dipeo_nb.llm.providers.google import UnifiedGoogleClient
from dipeo_nb.llm.providers.ollama import UnifiedOllamaClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from tests.support import recorded_streams as recorded
from tests.support.fuzzed_streams import (
    Damaged,
    damaged,
    dumps,
    otherwise_events,
    otherwise_lines,
    split,
    wrong_bytes,
    wrong_value,
)
from tests.support.recorded_streams import Recording

CASES = int(os.environ.get("FUZZ_CASES", "40"))
SEED = os.environ.get("FUZZ_SEED", "1")
ONLY = os.environ.get("FUZZ_CASE")
LIMIT_S = 300.0
"""Seconds after which a case hangs."""
WEATHER = ToolConfig("function", "weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})
OWN_IDS = re.compile(r"(call_|gemini-)[0-9a-f]{12}")


@dataclasses.dataclass
class Reply:
    """What the server says next."""

    pieces: Sequence[bytes]
    kind: str = "text/event-stream"
    status: int = 200
    breaks: bool = False
    headers: dict[str, str] = dataclasses.field(default_factory=dict[str, str])


class Server:
    """A server within this process: a transport of the HTTP libraries that says `reply`."""

    def __init__(self) -> None:
        self.reply = Reply(())
        self.asked: dict[str, Reply] = {}
        """What is said at the ends of other paths."""

    @functools.cache  # noqa: B019 - lives as long as a test
    def transport(self, library: Any) -> Any:
        server = self

        class Body(library.AsyncByteStream):
            def __init__(self, reply: Reply) -> None:
                self._reply = reply

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for piece in self._reply.pieces:
                    yield piece
                if self._reply.breaks:
                    raise library.ReadError("broken")

        class Wire(library.AsyncBaseTransport):
            async def handle_async_request(self, request: Any) -> Any:
                path = request.url.path
                reply = next((r for end, r in server.asked.items() if path.endswith(end)), server.reply)
                headers = {"content-type": reply.kind, **reply.headers}
                return library.Response(reply.status, headers=headers, stream=Body(reply), request=request)

        return Wire()


class Provider:
    """One provider: its client over a `Server`, its recordings, and how they look on the wire."""

    name: ClassVar[str]
    client: ClassVar[type[UnifiedClient]]
    model: ClassVar[str]
    recordings: ClassVar[Sequence[Recording]]
    whole: ClassVar[Sequence[Any]] = ()
    kind: ClassVar = "text/event-stream"

    def __init__(self, server: Server) -> None:
        self.server = server
        kind = self.client

        class OverServer(kind):  # pyright: ignore[reportUntypedBaseClass]
            def http(self, library: Any, address: str, **options: Any) -> Any:
                return super().http(library, address, transport=server.transport(library), **options)

        config = AdapterConfig(provider_type=kind.provider, base_url="http://127.0.0.1:9", api_key=SecretStr("sk-canary"))
        self.made: UnifiedClient = OverServer(config)

    def render(self, event: Any) -> bytes:
        return b"data: " + dumps(event) + b"\n\n"

    def otherwise(self, random: Random, events: Sequence[Any]) -> bytes:
        return otherwise_events(random, events, named=False)

    async def after(self) -> None:
        """What is to be done after each answer."""

    def pieces_of(self, event: Any) -> str:
        """The text of the answer in an event."""
        raise NotImplementedError


class OpenAI(Provider):
    name = "openai"
    client = UnifiedOpenAIClient
    model = "gpt-5-nano"
    recordings = recorded.OPENAI
    whole = recorded.OPENAI_WHOLE

    def render(self, event: Any) -> bytes:
        kind = event.get("type") if isinstance(event, dict) else None
        name = b"event: " + kind.encode() + b"\n" if isinstance(kind, str) and kind.isascii() else b""
        return name + super().render(event)

    def otherwise(self, random: Random, events: Sequence[Any]) -> bytes:
        return otherwise_events(random, events, named=random.random() < 0.5)

    def pieces_of(self, event: Any) -> str:
        return event["delta"] if event["type"] == "response.output_text.delta" else ""


class Anthropic(OpenAI):
    name = "anthropic"
    client = UnifiedAnthropicClient
    model = "claude-sonnet-5"
    recordings = recorded.ANTHROPIC
    whole = recorded.ANTHROPIC_WHOLE

    def pieces_of(self, event: Any) -> str:
        return event.get("delta", {}).get("text", "")


class Google(Provider):
    name = "gemini"
    client = UnifiedGoogleClient
    model = "gemini-2.5-flash"
    recordings = recorded.GOOGLE
    whole = recorded.GOOGLE_WHOLE

    def pieces_of(self, event: Any) -> str:
        parts = [p for c in event.get("candidates", ()) for p in c["content"]["parts"]]
        return "".join(p.get("text", "") for p in parts if not p.get("thought"))


class Ollama(Provider):
    name = "ollama"
    client = UnifiedOllamaClient
    model = "llama3.2"
    recordings = recorded.OLLAMA
    whole = recorded.OLLAMA_WHOLE
    kind = "application/x-ndjson"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        server.asked["/api/tags"] = Reply(
            (b'{"models": [{"model": "llama3.2:latest", "name": "llama3.2:latest"}]}',), "application/json"
        )

    def render(self, event: Any) -> bytes:
        return dumps(event) + b"\n"

    def otherwise(self, random: Random, events: Sequence[Any]) -> bytes:
        return otherwise_lines(random, events)

    def pieces_of(self, event: Any) -> str:
        return event.get("message", {}).get("content", "")


class ClaudeCode(Provider):
    """Claude Code without its program: the SDK reads messages that were parsed already."""

    name = "claude-code"
    client = UnifiedClaudeCodeClient
    model = "claude-sonnet-5"
    recordings = recorded.CLAUDE_CODE
    kind = "application/x-ndjson"

    def __init__(self, server: Server) -> None:
        super().__init__(server)

        class Program(Transport):
            """Answers the SDK's control requests, and a prompt by the server's reply."""

            def __init__(self) -> None:
                self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

            async def connect(self) -> None: ...

            async def write(self, data: str) -> None:
                asked = json.loads(data)
                if asked["type"] == "control_request":
                    answer = {"subtype": "success", "request_id": asked["request_id"], "response": {}}
                    self._out.put_nowait({"type": "control_response", "response": answer})
                elif asked["type"] == "user":
                    for line in b"".join(server.reply.pieces).splitlines():
                        try:
                            self._out.put_nowait(json.loads(line))
                        except (ValueError, RecursionError):
                            continue  # as the SDK's reader of lines does
                    self._out.put_nowait(None)

            async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
                while (message := await self._out.get()) is not None:
                    yield message

            async def close(self) -> None:
                self._out.put_nowait(None)

            def is_ready(self) -> bool:
                return True

            async def end_input(self) -> None: ...

        self.program = Program

    async def after(self) -> None:
        await self.made.cleanup()  # the program ends with its reply

    def render(self, event: Any) -> bytes:
        return dumps(event) + b"\n"

    def otherwise(self, random: Random, events: Sequence[Any]) -> bytes:
        return b"".join(map(self.render, events))

    def pieces_of(self, event: Any) -> str:
        return event.get("event", {}).get("delta", {}).get("text", "")


PROVIDERS = (OpenAI, Anthropic, Google, Ollama, ClaudeCode)


@dataclasses.dataclass
class Outcome:
    """What a client made of an answer."""

    events: list[StreamEvent]
    response: LLMResponse | None = None
    error: LLMError | None = None

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if e.kind == "text")

    def comparable(self) -> Any:
        """Without what is drawn anew each time."""
        said = [(e.kind, e.text) for e in self.events if e.kind in ("text", "reasoning")]
        end = str(dataclasses.asdict(self.response)) if self.response else f"{type(self.error)} {self.error}"
        return said, OWN_IDS.sub("OWN", end)


async def asked(provider: Provider, recording: Recording) -> Outcome:
    """What the client makes of the server's reply. Raises whatever is no LLMError."""
    request = LLMRequest(
        provider.made.provider,
        provider.model,
        (ChatMessage("user", "Hi"),),
        response_format=recorded.SCHEMA if recording.structured else None,
        tools=(WEATHER,) if recording.tools else (),
    )
    found = Outcome([])
    try:
        async with asyncio.timeout(LIMIT_S):
            async for event in provider.made.stream(request):
                found.events.append(event)
                found.response = event.response or found.response
    except LLMError as error:
        found.error = error
    return found


def check(found: Outcome, arrived: str, *, own_end: bool) -> None:
    """What holds of every outcome, whatever was sent.

    Args:
        arrived: the text that came before anything was wrong.
        own_end: whether the last event of the provider says the whole text anew.
    """
    assert (found.response is None) != (found.error is None), "it ends by an answer or an error"
    for event in found.events:
        assert type(event.text) is str, event
        json.dumps(event.data)
        event.text.encode()
    assert found.text.startswith(arrived), f"lost: {arrived!r}, there is {found.text!r}"
    if found.error is not None:
        assert found.error.message.strip(), "an error says something"
        assert found.error.provider
        assert len(found.error.message) < 2_000
        str(found.error).encode()
        counts(found.error.usage)
    if (response := found.response) is not None:
        counts(response.usage)
        for value in (response.text, response.model, response.provider, response.finish_reason, response.request_id or ""):
            assert type(value) is str, response
            value.encode()
        for call in response.tool_calls:
            assert isinstance(call.id, str), call
            assert isinstance(call.name, str), call
            assert call.name, call
            json.dumps(dict(call.arguments)).encode()
        json.dumps([response.usage.to_dict(), *map(dict, response.tool_outputs), response.raw]).encode()
        if response.structured is None:
            assert response.text or response.tool_calls or not found.text or (own_end and response.text), (
                "the text that streamed is lost"
            )
            if not own_end:
                assert response.text == found.text


def counts(usage: Any) -> None:
    if usage is None:
        return
    for name in ("input", "output", "cache_read", "cache_write", "reasoning"):
        value = getattr(usage, name)
        assert value is None or (type(value) is int and 0 <= value < 2**63), (name, value)
    assert json.dumps(usage.to_dict())


def numbers() -> Iterator[int]:
    return iter((int(ONLY),) if ONLY else range(CASES))


async def fuzzed(provider: Provider, case: Callable[[Random, int, list[str]], Awaitable[None]]) -> None:
    """Run the cases; the failure of one says how to have it again."""
    try:
        for number in numbers():
            story: list[str] = []
            try:
                await case(Random(f"{SEED}:{provider.name}:{number}"), number, story)
            except Exception as error:
                raise AssertionError(
                    f"{provider.name}, case {number} of seed {SEED} ({', '.join(story)}): {type(error).__name__}: {error}"
                ) from error
    finally:
        await provider.made.cleanup()


@pytest.mark.timeout(max(1200, CASES))
@pytest.mark.filterwarnings("ignore:.* is not a valid:UserWarning")  # google-genai, of words that it does not know
@pytest.mark.parametrize("kind", PROVIDERS, ids=lambda kind: kind.name)
def test_damaged_streams(kind: type[Provider], monkeypatch: pytest.MonkeyPatch):
    """Only errors of ours, no hang, no text lost that had arrived; what is only written otherwise says the same."""

    async def go() -> None:
        provider = kind(Server())
        if isinstance(provider, ClaudeCode):
            real = claude_agent_sdk.ClaudeSDKClient
            monkeypatch.setattr(claude_agent_sdk, "ClaudeSDKClient", lambda options: real(options, provider.program()))
        usual: dict[str, Any] = {}
        for recording in provider.recordings:
            provider.server.reply = Reply(tuple(map(provider.render, recording.events)), provider.kind)
            usual[recording.name] = (await asked(provider, recording)).comparable()
            await provider.after()

        async def case(random: Random, number: int, story: list[str]) -> None:
            recording = provider.recordings[number % len(provider.recordings)]
            sent: Damaged = damaged(random, recording.events, provider.render, provider.otherwise)
            story.append(f"{recording.name}: {sent.story}")
            provider.server.reply = Reply(sent.pieces, provider.kind, breaks=sent.breaks)
            found = await asked(provider, recording)
            await provider.after()
            arrived = "".join(provider.pieces_of(e) for e in recording.events[: sent.intact])
            check(found, arrived, own_end=kind in (OpenAI, ClaudeCode))
            if sent.harmless:
                assert found.comparable() == usual[recording.name]

        await fuzzed(provider, case)

    asyncio.run(go())


@pytest.mark.timeout(max(1200, CASES))
@pytest.mark.parametrize("kind", PROVIDERS[:4], ids=lambda kind: kind.name)
def test_what_comes_instead_of_a_stream(kind: type[Provider]):
    """Whole answers, errors and other programs' pages, with every status, as they are and damaged."""

    async def go() -> None:
        provider = kind(Server())
        bodies = [*map(dumps, provider.whole), *recorded.ERROR_BODIES]

        async def case(random: Random, number: int, story: list[str]) -> None:
            body = random.choice(bodies)
            status, kept = random.choice(recorded.STATUSES), random.random() < 0.5
            if not kept:
                body = wrong_bytes(random, body)[0]
            sort = random.choice(("application/json", "text/html", "text/plain", provider.kind, ""))
            headers = random.choice(WAITS)
            story.append(f"{status} {sort} {headers} {body!r:.200}")
            provider.server.reply = Reply(split(random, body), sort, status, headers=headers)
            found = await asked(provider, provider.recordings[0])
            check(found, "", own_end=True)
            if found.error is not None:
                pauses(found.error)

        await fuzzed(provider, case)

    asyncio.run(go())


WAITS: Sequence[dict[str, str]] = (
    {},
    *({"retry-after": value} for value in ("0", "-5", "nan", "inf", "1e400", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "3", "")),
    *({"retry-after-ms": value} for value in ("0", "-1", "250", "x")),
    *(
        {"x-ratelimit-reset": value, "x-ratelimit-remaining": "0"}
        for value in ("1796000000", "1796000000000", "6m0s", "-1", "")
    ),
    *({"x-should-retry": value} for value in ("true", "false", "maybe")),
)
"""What servers ask to wait, in words and in nonsense."""


def pauses(error: LLMError) -> None:
    """The pause before another try is none, or one that can be waited and is no hammering."""
    wait = pause(error, 1, RetryConfig())
    assert wait is None or 0.05 <= wait <= 2 * RetryConfig().max_delay, (wait, error)
    if wait is not None:
        assert transient(error)


@pytest.mark.timeout(max(1200, CASES))
@pytest.mark.parametrize("kind", [OpenAI, Anthropic], ids=lambda kind: kind.name)
def test_damaged_results_of_batches(kind: type[Provider]):
    """A line that cannot be read costs its own answer only."""
    lines = recorded.OPENAI_BATCH if kind is OpenAI else recorded.ANTHROPIC_BATCH
    request = LLMRequest(kind.client.provider, kind.model, (ChatMessage("user", "Hi"),))
    if kind is OpenAI:
        job = {"id": "b", "object": "batch", "status": "completed", "output_file_id": "f", "error_file_id": None}
    else:
        counts = {"succeeded": 2, "errored": 1, "canceled": 0, "expired": 0, "processing": 0}
        url = "http://127.0.0.1:9/v1/messages/batches/b/results"
        job = {"id": "b", "type": "message_batch", "processing_status": "ended", "request_counts": counts, "results_url": url}

    async def go() -> None:
        provider = kind(Server())
        client: Any = provider.made
        provider.server.asked["/batches/b"] = Reply((dumps(job),), "application/json")

        async def case(random: Random, _: int, story: list[str]) -> None:
            sent = damaged(random, lines, lambda line: dumps(line) + b"\n", otherwise_lines)
            story.append(sent.story)
            provider.server.reply = Reply(sent.pieces, "application/x-jsonl", breaks=sent.breaks)
            try:
                found: dict[str, Any] = await client.batch_results("b", dict.fromkeys("abc", request))
            except LLMError:
                assert sent.breaks
                return
            assert set(found) <= set("abc")
            for answer in found.values():
                check(Outcome([], *((None, answer) if isinstance(answer, LLMError) else (answer, None))), "", own_end=True)
            for name in "abc"[: sent.intact]:
                assert name in found
            if sent.harmless:
                assert [type(answer) for answer in (found["a"], found["b"], found["c"])][::2] == [LLMResponse] * 2
                assert isinstance(found["b"], LLMError)

        await fuzzed(provider, case)

    asyncio.run(go())


@pytest.mark.timeout(max(600, CASES))
@pytest.mark.filterwarnings("ignore:.* is not a valid:UserWarning")
def test_damaged_answers_in_a_batch_of_gemini():
    """There the answers stand in one JSON: what is wrong with one of them costs that one."""
    request = LLMRequest("gemini", Google.model, (ChatMessage("user", "Hi"),))

    async def go() -> None:
        provider = Google(Server())
        client: Any = provider.made

        async def case(random: Random, _: int, story: list[str]) -> None:
            entries = [copy.deepcopy(entry) for entry in recorded.GOOGLE_BATCH]
            at = random.randrange(3)
            story.append(f"{at}: {wrong_value(random, entries, at)}")
            listed = {"inlinedResponses": {"inlinedResponses": entries}}
            job = {"name": "batches/b", "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": listed}}
            provider.server.reply = Reply(split(random, dumps(job)), "application/json")
            assert (await client.poll_batch("batches/b")).state == "completed"
            found: dict[str, Any] = await client.batch_results("batches/b", dict.fromkeys("abc", request))
            for answer in found.values():
                check(Outcome([], *((None, answer) if isinstance(answer, LLMError) else (answer, None))), "", own_end=True)
            for name, kind in zip("abc", (LLMResponse, LLMError, LLMResponse), strict=True):
                assert isinstance(found.get(name, "missing"), kind) or name == "abc"[at]

        await fuzzed(provider, case)

    asyncio.run(go())

"""The Claude Code client: the real program, talking to a scripted Messages API on the loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolConfig
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.errors import AuthError, LLMError, ProviderError, RateLimitError, UnsupportedError
from dipeo_nb.llm import phases
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.claude_code import UnifiedClaudeCodeClient, UnifiedClaudeCodeCustomClient, turns_of
from dipeo_nb.llm.providers.claude_code.sessions import SESSIONS, first_prompt
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from tests.support import wire_anthropic as wire
from tests.support.wire_openai import Call, Reply, ScriptedServer, events_of, settings_with

T = TypeVar("T")
KEY = "sk-ant-canary-7f3a9b2c4d5e6f"
MODEL = "claude-sonnet-5"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Claude Code keeps its files in a folder of the test; nothing it starts is left behind."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "home/.claude"))
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "canary-inherited-1234567")
    (tmp_path / "home/.claude").mkdir(parents=True)
    yield
    until = time.monotonic() + 10
    while programs() and time.monotonic() < until:
        time.sleep(0.05)
    assert programs() == []


def programs() -> list[psutil.Process]:
    """Processes of Claude Code that this one has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "claude" in " ".join(process.cmdline()[:1]) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def asked_last(body: dict[str, Any]) -> Any:
    """The content of the user's last message; Claude Code puts reminders of its own after it."""
    return next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")


def prompt_of(body: dict[str, Any]) -> str:
    """The user's last words in a request, without what Claude Code adds."""
    content = asked_last(body)
    texts = [content] if isinstance(content, str) else [b.get("text", "") for b in content]
    return " ".join(t for t in texts if not t.startswith("<system-reminder>"))


class Api:
    """The Messages API with answers by the words of the prompt; other requests of the program are answered with `ok`."""

    def __init__(self, **answers: Reply) -> None:
        self.answers = answers

    def __call__(self, call: Call) -> None:
        body = call.seen.body
        if not call.seen.path.startswith("/v1/messages") or not body or "messages" not in body:
            call.json(200, {})
            return
        asked = json.dumps(asked_last(body))
        for words, reply in self.answers.items():
            if words in asked:
                reply(call)
                return
        wire.says(f"You said: {prompt_of(body)[-40:]}")(call)


def bodies(server: ScriptedServer) -> list[dict[str, Any]]:
    """What the model was asked (not the program's own small questions)."""
    found = [s.body for s in server.seen if s.path.startswith("/v1/messages") and s.body and "messages" in s.body]
    return [b for b in found if b.get("stream") and "count_tokens" not in str(b.get("model"))]


def using(
    api: Api,
    work: Callable[[Any], Coroutine[Any, Any, T]],
    kind: type[UnifiedClaudeCodeClient] = UnifiedClaudeCodeClient,
) -> tuple[T, ScriptedServer]:
    """The result of *work* on a client, and the server it talked to."""
    with ScriptedServer(api) as server:
        address = server.url.removesuffix("/v1")
        config = AdapterConfig(provider_type=kind.provider, base_url=address, api_key=SecretStr(KEY))

        async def go() -> T:
            client = kind(config)
            try:
                return await asyncio.wait_for(work(client), 90)
            finally:
                await client.cleanup()
                await client.cleanup()

        return asyncio.run(go()), server


def asked(*texts: str, system: str = "You are brief.", **more: Any) -> LLMRequest:
    """A request whose messages are the user's and the assistant's in turn."""
    said = [ChatMessage("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    messages = (ChatMessage("system", system), *said) if system else tuple(said)
    return LLMRequest(**{"service": "claude-code", "model": MODEL, "messages": messages, **more})


async def answer(client: Any, *texts: str, **more: Any) -> LLMResponse:
    response = (await events_of(client, asked(*texts, **more)))[-1].response
    assert response is not None
    return response


def test_the_real_program_answers():
    """Text streams; the model, the system prompt and the prompt reach the API with the key; usage and cost are reported; no
    tools, no files and nothing secret of the environment are given to it."""

    async def work(client: UnifiedClaudeCodeClient) -> list[StreamEvent]:
        return await events_of(client, asked("Say hello to Ada."))

    events, server = using(Api(hello=wire.says("Hello my dear Ada.")), work)
    assert [e.kind for e in events if e.kind != "progress"][-2:] == ["usage", "end"]
    assert "".join(e.text for e in events if e.kind == "text") == "Hello my dear Ada."
    response = events[-1].response
    assert response is not None
    assert (response.text, response.provider, response.finish_reason) == ("Hello my dear Ada.", "claude-code", "stop")
    assert response.usage.input == 20
    assert response.usage.cache_read == 10
    assert response.cost_usd is not None
    assert response.cost_usd > 0
    body = next(b for b in bodies(server) if "Ada" in json.dumps(b["messages"]))
    assert body["model"].startswith(MODEL)
    assert "You are brief." in json.dumps(body["system"])
    assert not body.get("tools")
    assert "canary-inherited" not in json.dumps(bodies(server))
    assert any(KEY in json.dumps(s.headers) for s in server.seen)


def test_prompts_reach_the_model_verbatim(tmp_path: Path):
    """What looks like a file or a command of the program is text: no file is read, nothing is run, nothing is forgotten."""
    secret = tmp_path / "id_demo"
    secret.write_text("canary-file-8a7b6c")
    prompts = [
        f"Summarise: Nice cats. @{secret} More cats.",
        f"```\n@{secret}\n```",
        "@/etc/hosts",
        "/clear",
        "/cost",
        "/help me please",
        "!echo canary-command",
        "# remember this",
    ]

    async def work(client: UnifiedClaudeCodeClient) -> list[str]:
        said: list[str] = []
        for prompt in prompts:
            said.append((await answer(client, *(t for pair in zip(prompts, said) for t in pair), prompt)).text)  # noqa: B905
        return said

    said, server = using(Api(), work)
    assert len([s for s in said if s.startswith("You said: ")]) == len(prompts), said
    asked_for = [prompt_of(b) for b in bodies(server)]
    for prompt in prompts:
        assert any(prompt in text for text in asked_for), prompt
    everything = json.dumps([s.body for s in server.seen])
    assert "canary-file" not in everything
    assert "canary-command\\n" not in everything
    assert "localhost" not in json.dumps([b["messages"] for b in bodies(server)])


def test_long_prompts_and_answers():
    """Longer than an argument of a program may be, and than the SDK reads by default."""
    system = "Rule: be brief. " * 12_000
    text = ("w" * 99 + " ") * 15_000

    async def work(client: UnifiedClaudeCodeClient) -> str:
        return (await answer(client, "Write", system=system)).text

    said, server = using(Api(Write=wire.says(text)), work)
    assert said.strip() == text.strip()
    assert any(system.strip()[:150_000] in json.dumps(b["system"]) for b in bodies(server))


def test_sessions_are_pooled():
    """A conversation goes on in its own session; a new one takes the spare session that was started meanwhile; ten calls need
    two programs. The times are printed."""

    async def work(client: UnifiedClaudeCodeClient) -> tuple[float, float, float, int]:
        async def timed(*texts: str) -> tuple[float, str]:
            start = time.monotonic()
            text = (await answer(client, *texts)).text
            return time.monotonic() - start, text

        cold, first = await timed("one")
        further, second = await timed("one", first, "two")
        history = ["one", first, "two", second]
        for n in range(6):
            history += [f"number {n}", (await timed(*history, f"number {n}"))[1]]
        started = len(programs())
        spare = next(s for s in client._pool._sessions if not s.turns)
        while not spare.ready:
            await asyncio.sleep(0.05)
        new, _ = await timed("another conversation")
        assert spare.turns[0][0] == "another conversation"
        return cold, further, new, started

    (cold, further, new, started), server = using(Api(), work)
    print(f"cold {cold:.2f} s, same session {further:.2f} s, spare session {new:.2f} s")
    assert started <= 2
    last = bodies(server)[-1]
    assert "number" not in json.dumps(last["messages"])  # nothing of the other conversation
    whole = next(b for b in bodies(server) if prompt_of(b) == "number 5")
    assert [prompt_of({"messages": [m]}) for m in whole["messages"] if m["role"] == "user"][-2:] == [
        "number 4",
        "number 5",
    ]
    assert "The conversation so far" not in json.dumps(whole)


def test_the_pool_is_bounded_and_a_foreign_history_is_told():
    """Eight conversations at once use four programs at most; a history that no session has heard is part of the first prompt."""

    async def work(client: UnifiedClaudeCodeClient) -> int:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(programs()))
                await asyncio.sleep(0.1)

        watcher = asyncio.create_task(watch())
        texts = await asyncio.gather(*(answer(client, f"question {n}") for n in range(8)))
        assert [t.text[-10:] for t in texts] == [f"question {n}" for n in range(8)]
        await answer(client, "What is 1?", "It is one.", "And 2?")
        watcher.cancel()
        return most

    most, server = using(Api(), work)
    assert most <= SESSIONS + 1  # one may be on its way out
    said = prompt_of(bodies(server)[-1])
    assert "[user]: What is 1?" in said
    assert "[you]: It is one." in said
    assert said.endswith("And 2?")


class Verdict(BaseModel):
    decision: bool


def test_structure_is_native():
    """The program's own way to structure gives the instance; lists go another way."""

    def structured(call: Call) -> None:
        if "tool_result" in json.dumps(asked_last(call.seen.body)):
            wire.says("Done.")(call)
            return
        use = wire.tool_use("t1", "StructuredOutput", {"decision": True})
        wire.streams(wire.start(), *use, *wire.end("tool_use"))(call)

    async def work(client: UnifiedClaudeCodeClient) -> LLMResponse:
        with pytest.raises(UnsupportedError, match="objects"):
            await answer(client, "x", response_format={"type": "array", "items": {}})
        return await answer(client, "Decide now.", response_format=Verdict)

    response, server = using(Api(Decide=structured, tool_result=structured), work)
    assert response.structured == Verdict(decision=True)
    assert response.output_mode == "native"
    assert "StructuredOutput" in json.dumps([b.get("tools") for b in bodies(server)])


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthError), (429, RateLimitError), (500, ProviderError), (529, ProviderError)]
)
def test_failures_are_told_apart_and_not_repeated(status: int, kind: type[LLMError], caplog: pytest.LogCaptureFixture):
    """The API's refusal becomes an error of its kind; the program's own retries are off; the key is nowhere."""
    caplog.set_level(logging.DEBUG)

    async def work(client: UnifiedClaudeCodeClient) -> LLMError:
        with pytest.raises(LLMError) as caught:
            await answer(client, "fail please")
        return caught.value

    error, server = using(Api(fail=wire.error(status, "no")), work)
    assert isinstance(error, kind)
    assert error.provider == "claude-code"
    assert KEY not in str(error) + caplog.text
    assert len([b for b in bodies(server) if "fail please" in json.dumps(b["messages"])]) == 1


def test_leaving_an_answer_ends_its_session():
    """A stream that is left in the middle ends its program; the next call is as good as the first."""

    def endless(call: Call) -> None:
        call.headers(content_type="text/event-stream")
        piece = wire.block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Once"})
        call.send(wire.body([wire.start(), *piece[:-1]]))
        call.wait_until_lost(wire.body([{"type": "ping"}]))

    async def work(client: UnifiedClaudeCodeClient) -> str:
        events: Any = client.stream(asked("endless story"))
        async for event in events:
            if event.kind == "text":
                break
        await events.aclose()
        assert await asyncio.to_thread(server_lost, 10)
        return (await answer(client, "hello again")).text

    lost: list[Any] = []

    def server_lost(seconds: float) -> bool:
        return lost[0].wait(seconds)

    api = Api(endless=endless)
    with ScriptedServer(api) as server:
        lost.append(server.lost)
        config = AdapterConfig(provider_type="claude-code", base_url=server.url.removesuffix("/v1"), api_key=SecretStr(KEY))

        async def go() -> str:
            client = UnifiedClaudeCodeClient(config)
            try:
                return await asyncio.wait_for(work(client), 60)
            finally:
                await client.cleanup()

        assert asyncio.run(go()).endswith("hello again")


def test_a_custom_prompt_replaces_the_phases():
    """Through the service: claude-code adds the phase's prompt, claude-code-custom speaks with its own alone."""
    decision = ExecutionPhase.DECISION_EVALUATION
    with ScriptedServer(Api()) as server:
        settings = settings_with(anthropic_base_url=server.url.removesuffix("/v1"))
        keys = InMemoryAPIKeyService({"claude-code": KEY, "claude-code-custom": KEY})

        async def go() -> None:
            service = LLMService(settings, keys, retries=RetryConfig(1))
            for name in ("claude-code", "claude-code-custom"):
                request = asked("Is it so?", system="Be a pirate.", service=name, phase=decision, output_mode="prompt")
                with pytest.raises(ProviderError):  # the mock says neither
                    await service.complete(request)
            await service.cleanup()

        asyncio.run(asyncio.wait_for(go(), 90))
    systems = [json.dumps(b["system"]) for b in bodies(server) if "Be a pirate." in json.dumps(b["system"])]
    prompt = phases.PHASES[decision].prompt
    assert any(prompt in s for s in systems)
    assert any(prompt not in s for s in systems)
    assert UnifiedClaudeCodeCustomClient.provider == "claude-code-custom"


# Without the program.


def test_functions_are_refused_before_anything_starts():
    """It hands no calls out; the error says what does."""

    async def work(client: UnifiedClaudeCodeClient) -> None:
        tool = ToolConfig("function", "f", "x", {"type": "object", "properties": {}})
        with pytest.raises(UnsupportedError, match="anthropic:MODEL"):
            await answer(client, "x", tools=(tool,))
        assert programs() == []

    using(Api(), work)


def test_messages_become_turns():
    """What was asked and answered before, and what is asked now, whatever the order of the messages."""
    user, model = (lambda text: ChatMessage("user", text)), (lambda text: ChatMessage("assistant", text))
    assert turns_of([user("a"), user("b"), model("c"), user("d")]) == ((("a\n\nb", "c"),), "d")
    assert turns_of([model("c"), ChatMessage("system", "s"), user("d")]) == ((("", "c"),), "d")
    assert turns_of([user("a"), model("b")]) == ((("a", "b"),), "Continue.")
    assert first_prompt((), "d") == "d"
    assert "[user]: a" in first_prompt((("a", "b"),), "d")

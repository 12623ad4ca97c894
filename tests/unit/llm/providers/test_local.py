"""The embedded model, in this process."""

from __future__ import annotations

import asyncio
import enum
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, ToolConfig
from dipeo_nb.errors import (
    ContextLengthError,
    LLMConnectionError,
    MissingDependencyError,
    ModelUnavailableError,
    StructureError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.providers import local
from dipeo_nb.llm.providers.local import UnifiedLocalClient, _messages
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support.wire_openai import embedded_model, events_of, request, run, settings_with

pytestmark = pytest.mark.model


def chat(prompt: str = "Say hello.", **more: Any) -> LLMResponse:
    """One call of the embedded model."""
    client = UnifiedLocalClient()
    return run(client.async_chat(request(prompt, service="local", **{"max_tokens": 20, **more})))


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Point(BaseModel):
    mark: int
    mood: Mood


class Review(BaseModel):
    points: list[Point]
    agreed: bool


def test_an_answer_costs_nothing_and_is_counted():
    """Text, the server's own token counts, no cost; an answer at its limit of tokens ends with `length`."""
    response = chat()
    assert response.text
    assert (response.provider, response.model, response.cost_usd) == ("local", "smollm2-135m", 0.0)
    usage = response.usage
    assert usage.output is not None
    assert 0 < usage.output <= 20  # the model may have said it in fewer
    assert (usage.input or 0) + (usage.cache_read or 0) == usage.raw["prompt_tokens"]  # type: ignore[index]
    assert response.finish_reason in ("length", "stop")
    assert response.finish_reason == "stop" or usage.output == 20  # it may end by itself with its last token


def test_an_answer_ends_by_itself_without_a_limit():
    """A request that names no limit has one: small models do not know when to stop."""
    assert (chat("Tell a long story.", max_tokens=None).usage.output or 0) <= local.MAX_TOKENS


def test_a_grammar_makes_structure_certain():
    """Nested classes and enumerations are always answered with a valid instance, however small the model."""
    response = chat("Review the essay in two points, as JSON.", response_format=Review, max_tokens=400)
    assert isinstance(response.structured, Review)
    assert response.output_mode == "grammar"


def test_structure_that_does_not_fit_the_limit_is_an_error():
    """A structured answer that is cut off is not half an instance: the error names max_tokens."""
    with pytest.raises(StructureError, match="max_tokens"):
        chat("Review the essay.", response_format=Review, max_tokens=3)


def test_a_schema_that_is_none_is_refused():
    """Before the model is asked."""
    with pytest.raises(ValidationError, match="nonsense"):
        chat(response_format={"type": "object", "properties": {"a": {"type": "nonsense"}}})


def test_a_prompt_that_is_too_long_says_what_to_do():
    """More tokens than the context has: both numbers, and the ways out."""
    with pytest.raises(ContextLengthError, match="takes 4096") as caught:
        chat("word " * 6000)
    assert "GOLDFISH" in str(caught.value)


def test_tools_are_refused_before_the_call():
    """The embedded model takes no tools; nothing is loaded for it."""
    with pytest.raises(UnsupportedError, match="no tools"):
        chat(tools=(ToolConfig("web_search"),))


def test_roles_alternate():
    """What one role says in a row is one message: many chat templates refuse anything else."""
    given = [
        ChatMessage("system", "s"),
        ChatMessage("user", "a"),
        ChatMessage("tool", "b"),
        ChatMessage("assistant", "c"),
    ]
    assert [(m["role"], m["content"]) for m in _messages(given)] == [
        ("system", "s"),
        ("user", "a\n\nb"),
        ("assistant", "c"),
    ]


def test_a_model_is_loaded_once():
    """Several clients that start at the same time share one loaded model."""
    local._models.clear()

    async def go() -> None:
        clients = [UnifiedLocalClient() for _ in range(3)]
        asked = request(service="local", max_tokens=20)
        await asyncio.gather(*(c.async_chat(asked) for c in clients))

    run(go())
    assert list(local._models) == [Path(embedded_model())]


def test_a_file_of_ones_own_is_a_model():
    """A GGUF file is used by its path."""
    assert chat(model=embedded_model(), max_tokens=20).text is not None


def test_a_broken_file_is_our_error(tmp_path: Path):
    """A GGUF file that llama.cpp cannot load is an error, not a crash."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 1000)
    with pytest.raises(ModelUnavailableError, match=r"broken\.gguf"):
        chat(model=str(broken))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    """Without xllamacpp the error says what to install, and nothing is fetched."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    local._models.clear()
    with pytest.raises(MissingDependencyError, match=r"dipeo-nb\[local\]"):
        chat()


async def nothing_runs() -> bool:
    """Whether all generations end, long before the last one would by itself."""
    for _ in range(1500):
        if not local._generations:
            return True
        await asyncio.sleep(0.02)
    return False


def test_cancelling_ends_the_generation():
    """A stopped run stops the model, in the middle of an answer and in the middle of reading a long prompt."""
    client = UnifiedLocalClient()

    async def go(prompt: str, kinds: set[str], pause: float) -> None:
        begun = asyncio.Event()

        async def listen() -> None:
            async for event in client.stream(request(prompt, service="local", max_tokens=3000)):
                if event.kind in kinds:
                    begun.set()

        task = asyncio.create_task(listen())
        await begun.wait()
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await nothing_runs()

    run(go("Tell a very long story.", {"text"}, 0.05))
    run(go("one two three four five " * 700, {"start"}, 0.3))
    assert chat().text


def test_more_requests_than_turns_wait():
    """Requests beyond the parallel ones wait and say so; each gets its answer."""

    async def go() -> list[list[str]]:
        settings = settings_with(llm_timeout=60.0)
        service = LLMService(settings, EnvironmentAPIKeyService(settings))
        asked = request(service="local", max_tokens=40)
        streams = await asyncio.gather(*(events_of(service, asked) for _ in range(5)))
        await service.cleanup()
        return [[e.kind for e in events] for events in streams]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "TURN_S", 0.05)
        all_kinds = run(go())
    assert all(kinds[-1] == "end" for kinds in all_kinds)
    assert sum("progress" in kinds for kinds in all_kinds) >= 3


def test_the_loop_is_free_while_the_model_works():
    """Generation happens elsewhere: the event loop turns at least once for each token, as it cannot when all of them hold it."""

    async def go() -> tuple[int, int]:
        client = UnifiedLocalClient()
        await client.async_chat(request(service="local", max_tokens=20))
        working = asyncio.create_task(client.async_chat(request("Tell a story.", service="local", max_tokens=60)))
        turns = 0
        while not working.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, (await working).usage.output or 0

    turns, tokens = run(go())
    assert turns > 2 * tokens > 0


def test_an_interrupted_generation_is_no_answer():
    """A generation that ends without its finish (the process is ending) is an error, not half an answer."""

    async def go() -> None:
        client = UnifiedLocalClient()
        async for event in client.stream(request("Tell a story.", service="local", max_tokens=2000)):
            if event.kind == "text":
                for generation in list(local._generations):
                    generation.stopped.set()

    with pytest.raises(LLMConnectionError):
        run(go())


@pytest.mark.parametrize("when", ["progress", "start", "text", "end"])
def test_the_process_may_end_at_any_time(when: str):
    """While the model loads, a prompt is read, an answer is given, after it: exit code 0, and not a word on stderr."""
    code = f"""
import threading
from dipeo_nb.common.loop import submit
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.llm.providers.local import UnifiedLocalClient
here = threading.Event()
async def go():
    words = "one two three " * 900 if {when!r} == "start" else "Tell a story."
    limit = 5 if {when!r} == "end" else 3000
    async for event in UnifiedLocalClient().stream(
        LLMRequest("local", "", [ChatMessage("user", words)], max_tokens=limit)
    ):
        if event.kind == {when!r}:
            here.set()
future = submit(go())
here.wait(30)
if {when!r} == "start":
    import time
    time.sleep(1.5)
print("over")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


def test_a_worker_process_loads_its_own():
    """A process made by fork (multiprocessing) does not hang on the parent's model."""
    code = """
import asyncio, multiprocessing
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.llm.providers.local import UnifiedLocalClient
def ask():
    request = LLMRequest("local", "", [ChatMessage("user", "Hi!")], max_tokens=20)
    print(bool(asyncio.run(UnifiedLocalClient().async_chat(request)).usage.output), flush=True)
ask()
worker = multiprocessing.get_context("fork").Process(target=ask)
worker.start()
worker.join(30)
print(worker.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n0\n"), done.stderr


def test_messages_of_a_whole_conversation():
    """System, user and assistant turns are all heard by the model's chat template."""
    messages = (
        ChatMessage("system", "You are a poet."),
        ChatMessage("user", "Hello."),
        ChatMessage("assistant", "Good morning!"),
        ChatMessage("user", "And now?"),
    )
    client = UnifiedLocalClient()
    usage = run(client.async_chat(LLMRequest("local", "", messages, max_tokens=20))).usage
    assert usage.raw is not None
    assert usage.raw["prompt_tokens"] > 25

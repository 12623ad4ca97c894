"""The providers' batch APIs behind one shape: submitted, polled, collected, also by another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb import config
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.chat import BillItem, ChatMessage, LLMRequest, LLMResponse, TokenUsage, ToolConfig
from dipeo_nb.errors import (
    ConfigurationError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    StructureError,
    UnsupportedError,
    UserError,
    ValidationError,
)
from dipeo_nb.llm import batch, recording
from dipeo_nb.llm.batch import BatchItem, BatchJob
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from dipeo_nb.testing import ScriptedClient
from tests.support import wire_openai as openai_words
from tests.support.batch_apis import FAILING, Anthropic, Google, OpenAI, Provider
from tests.support.wire_openai import Call, ScriptedServer, run, settings_with

KEY = "sk-canary-4Qx9Zr7Lw2Tn8Vb"


KINDS: list[type[Provider]] = [OpenAI, Anthropic, Google]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.service)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


class At:
    """A service whose provider is a scripted batch API."""

    def __init__(self, provider: Any, server: ScriptedServer) -> None:
        root = server.url.removesuffix("/v1")
        provider.port = int(root.rpartition(":")[2])
        urls = {"openai_base_url": server.url, "anthropic_base_url": root, "google_base_url": root}
        keys = {f"{name}_api_key": SecretStr(KEY) for name in ("openai", "anthropic", "google")}
        self.settings = settings_with(**urls, **keys)
        self.provider = provider

    def do(self, work: Any) -> Any:
        async def go() -> Any:
            service = LLMService(self.settings, EnvironmentAPIKeyService(self.settings))
            try:
                return await work(service)
            finally:
                await service.cleanup()

        return run(go())

    def requests(self, count: int, **more: Any) -> list[LLMRequest]:
        kind = self.provider
        return [
            LLMRequest(
                **{
                    "service": kind.service,
                    "model": kind.model,
                    "messages": (ChatMessage("user", f"item {n}"),),
                    **more,
                }
            )
            for n in range(count)
        ]


@contextlib.contextmanager
def at(provider: Any) -> Iterator[At]:
    with ScriptedServer(provider) as server:
        yield At(provider, server)


def test_fifty_items_with_three_failures(kind: type[Provider], tmp_path: Path):
    """Submitted, polled until done, collected: in the order of the requests, failures in their place, usage counted, costs
    unknown; the record holds neither key nor prompt."""
    with at(kind()) as here:
        job: BatchJob = here.do(lambda s: s.submit_batch(here.requests(50)))
        assert job.state in ("submitted", "running")
        assert not job.over
        record = next((tmp_path / ".dipeo/batches").iterdir()).read_text()
        assert KEY not in record
        assert "item 7" not in record
        with pytest.raises(ProviderError, match="not done"):
            here.do(lambda s: s.collect_batch(job))
        job = here.do(lambda s: s.wait_for_batch(job, interval=0.01, timeout=10))
        assert job.state == "completed"
        answers: list[LLMResponse | LLMError] = here.do(lambda s: s.collect_batch(job))
        assert len(answers) == 50
        for n, answer in enumerate(answers):
            if n in FAILING:
                assert isinstance(answer, RateLimitError)
            else:
                assert isinstance(answer, LLMResponse)
                assert answer.text == f"Answer {n}"
                assert (answer.usage.output or 0) > 0
                assert answer.cost_usd is None  # what another server asks is not known
        assert "50" in repr(job)


SUBMIT = """
import asyncio, os, sys
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import BillItem, ChatMessage, LLMRequest
from dipeo_nb.llm.service import LLMService
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from dipeo_nb.testing import ScriptedClient

async def go():
    service = LLMService(get_settings(), EnvironmentAPIKeyService(get_settings()))
    if sys.argv[1] == "submit":
        requests = [LLMRequest(sys.argv[2], sys.argv[3], (ChatMessage("user", f"item {n}"),)) for n in range(10)]
        print((await service.submit_batch(requests)).id, flush=True)
        os._exit(9)  # the kernel dies
    job, = service.batches()
    job = await service.wait_for_batch(job.id, interval=0.01)
    print([getattr(a, "text", type(a).__name__) for a in await service.collect_batch(job.id)])
    await service.cleanup()

asyncio.run(go())
"""


def test_a_job_survives_its_process(kind: type[Provider], tmp_path: Path):
    """One process submits and dies; another finds the job and collects it."""
    with at(kind()) as here:
        urls = {
            "OPENAI_BASE_URL": here.settings.openai_base_url,
            "ANTHROPIC_BASE_URL": here.settings.anthropic_base_url,
            "GOOGLE_BASE_URL": here.settings.google_base_url,
        }
        keys = {f"{name}_API_KEY": KEY for name in ("OPENAI", "ANTHROPIC", "GOOGLE")}
        environment = {**config.code_environment(), **urls, **keys, "DIPEO_BASE_DIR": str(tmp_path)}

        def process(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", SUBMIT, *words]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

        first = process("submit", kind.service, kind.model)
        assert first.returncode == 9, first.stderr
        second = process("collect")
        assert second.returncode == 0, second.stderr
        expected = [f"Answer {n}" if n not in FAILING else "RateLimitError" for n in range(10)]
        assert second.stdout.strip() == str(expected)


class Verdict(BaseModel):
    winner: str


def test_structure_comes_back_as_asked(kind: type[Provider]):
    """A class given at collection makes instances, without it they are objects; what does not fit is an error in its place."""
    with at(kind(looks=1, answer='{"winner": "Ada"}')) as here:
        requests = here.requests(2, response_format=Verdict)
        job = here.do(lambda s: s.submit_batch(requests))
        job = here.do(lambda s: s.wait_for_batch(job, interval=0.01))
        assert [a.structured for a in here.do(lambda s: s.collect_batch(job, response_format=Verdict))] == [
            Verdict(winner="Ada")
        ] * 2
        assert here.do(lambda s: s.collect_batch(job.id))[0].structured == {"winner": "Ada"}
    with at(kind(looks=1, answer='{"loser": "Bob"}')) as here:
        requests = here.requests(1, response_format=Verdict)
        job = here.do(lambda s: s.submit_batch(requests))
        job = here.do(lambda s: s.wait_for_batch(job, interval=0.01))
        (answer,) = here.do(lambda s: s.collect_batch(job, response_format=Verdict))
        assert isinstance(answer, StructureError)


def test_what_was_left_out_is_a_warning_of_the_answer():
    """A batch has no stream that could say it."""
    with at(Anthropic(looks=1)) as here:
        job = here.do(lambda s: s.submit_batch(here.requests(2, model="claude-opus-4-8", temperature=0.5)))
        job = here.do(lambda s: s.wait_for_batch(job, interval=0.01))
        answers = here.do(lambda s: s.collect_batch(job.id))
    assert [a.warnings for a in answers if isinstance(a, LLMResponse)] == [
        ("claude-opus-4-8 takes no temperature; 0.5 is left out.",)
    ] * 2


class Altered(Call):
    """Sends other bytes in place of the text `Answer 1`."""

    other = ""

    def headers(self, status: int = 200, **headers: str) -> None:
        kept = {name: value for name, value in headers.items() if name != "content_length"}
        super().headers(status, **kept, connection="close")

    def json(self, status: int, body: Any, **headers: str) -> None:
        self.headers(status, content_type="application/json", **headers)
        self.send(json.dumps(body))

    def send(self, text: str) -> None:
        super().send(text.replace('"Answer 1"', self.other))


UNREADABLE = {
    "nested too deep": "[" * 100_000 + "]" * 100_000,
    "objects nested too deep": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "nested almost too deep": "[" * 800 + "]" * 800,
    "no JSON": "{nonsense]}",
    "nothing": "",
    "a wrong escape sequence": r'"Answer \x"',
    "an open text": r'"Answer\t 1',
    "a bare tab": '"Answer\t1"',
    "a number": "7",
    "an object": '{"text": "Answer 1"}',
    "a list": '["Answer 1"]',
    "a number out of range": "1e999",
}


@pytest.mark.parametrize("other", UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_that_cannot_be_read_costs_itself_only(kind: type[Provider], other: str):
    """Whether each answer is a line of its own, or all of them are one JSON."""
    provider: Any = kind(looks=1)

    def reply(call: Call) -> None:
        altered = Altered(call._handler, call._server, call.seen)
        altered.other = other
        provider(altered)

    with ScriptedServer(reply) as server:
        here = At(provider, server)
        job = here.do(lambda s: s.submit_batch(here.requests(9)))
        job = here.do(lambda s: s.poll_batch(job))
        assert job.state == "completed"
        answers = here.do(lambda s: s.collect_batch(job))
    texts = [answer.text if isinstance(answer, LLMResponse) else type(answer).__name__ for answer in answers]
    assert texts == [f"Answer {n}" if n not in (1, 7) else texts[n] for n in range(9)]
    assert isinstance(answers[1], LLMError)
    assert isinstance(answers[7], RateLimitError)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_jobs_that_end_otherwise(kind: type[Provider], end: str):
    """Cancelled and expired jobs are told apart; every request that has no answer is an error that says so."""
    with at(kind(looks=1 if end == "cancelled" else 2, end="completed" if end == "cancelled" else end)) as here:
        job = here.do(lambda s: s.submit_batch(here.requests(3)))
        if end == "cancelled":
            job = here.do(lambda s: s.cancel_batch(job))
        job = here.do(lambda s: s.wait_for_batch(job, interval=0.01))
        assert job.state == end
        answers = here.do(lambda s: s.collect_batch(job))
        if not (end == "cancelled" and kind is OpenAI):
            assert all(isinstance(a, ProviderError) for a in answers)
        assert len(answers) == 3


def test_waiting_has_an_end():
    """A job that is not done in time is an error; it continues to work."""
    with at(OpenAI(looks=1000)) as here:
        job = here.do(lambda s: s.submit_batch(here.requests(1)))
        with pytest.raises(LLMTimeoutError, match="continues to work"):
            here.do(lambda s: s.wait_for_batch(job, interval=0.05, timeout=0.1))


def test_what_cannot_be_a_batch_is_refused(tmp_path: Path):
    """No requests, several services, a service without the API, a replay: refused before anything is sent."""
    with at(OpenAI()) as here:
        with pytest.raises(ValidationError, match="empty"):
            here.do(lambda s: s.submit_batch([]))
        mixed = [*here.requests(1), *here.requests(1, service="anthropic", model="claude-sonnet-5")]
        with pytest.raises(ConfigurationError, match="anthropic, openai"):
            here.do(lambda s: s.submit_batch(mixed))
        with pytest.raises(UnsupportedError, match="no batch API"):
            here.do(lambda s: s.submit_batch(here.requests(1, service="echo", model="")))
        with recording.recording(tmp_path / "recordings", mode="replay"), pytest.raises(ConfigurationError):
            here.do(lambda s: s.submit_batch(here.requests(1)))
        with pytest.raises(UserError, match="no batch 'nothing'"):
            here.do(lambda s: s.poll_batch("nothing"))


def test_a_damaged_record_says_what_to_do(tmp_path: Path):
    """The error names the file; the others are still listed."""
    with at(OpenAI()) as here:
        job = here.do(lambda s: s.submit_batch(here.requests(1)))
        (tmp_path / ".dipeo/batches/bad.json").write_text("{oops")

        async def listed(service: LLMService) -> list[str]:
            return [j.id for j in service.batches()]

        assert here.do(listed) == [job.id]
        with pytest.raises(UserError, match="damaged"):
            here.do(lambda s: s.poll_batch("bad"))


def test_passing_failures_of_polling_are_retried():
    """A 503 while asking how far it is does not lose the job."""
    provider = OpenAI(looks=1)
    failures = iter([503, 429])

    def flaky(call: Call) -> None:
        status = next(failures, None) if call.seen.method == "GET" else None
        if status is None:
            provider(call)
        else:
            call.error(status, "not now")

    with ScriptedServer(flaky) as server:
        here = At(provider, server)
        job = here.do(lambda s: s.submit_batch(here.requests(1)))
        assert here.do(lambda s: s.poll_batch(job)).over


def test_asyncio_is_not_blocked():
    """Two jobs are waited for at the same time."""
    with at(OpenAI(looks=4)) as here:

        async def both(service: LLMService) -> list[str]:
            jobs = [await service.submit_batch(here.requests(2)) for _ in range(2)]
            done = await asyncio.gather(*(service.wait_for_batch(j, interval=0.01) for j in jobs))
            return [j.state for j in done]

        assert here.do(both) == ["completed", "completed"]


def test_the_facade_submits_and_finds_again(kind: type[Provider]):
    """`dp.llm(…).submit` gives a job to poll and collect; a new session of the same folder finds it."""
    with at(kind()) as here:
        services = Session(settings=here.settings)
        job = services.llm(f"{kind.service}:{kind.model}").submit([f"item {n}" for n in range(8)])
        assert "running" in repr(job) or "submitted" in repr(job)
        services.close()
        again = Session(settings=here.settings)
        (found,) = again.llm(f"{kind.service}:{kind.model}").submitted()
        assert found.id == job.id
        answers = found.wait(interval=0.01).collect()
        assert [str(a) for a in answers[:3]] == ["Answer 0", "Answer 1", "Answer 2"]
        assert isinstance(answers[7], RateLimitError)
        again.close()
    with pytest.raises(UnsupportedError, match="no batch API"):
        Session(llm=ScriptedClient()).llm("echo").submit(["x"])


@pytest.mark.parametrize(
    ("service", "model"), [("openai", "gpt-5-nano"), ("anthropic", "claude-haiku-4-5"), ("gemini", "gemini-2.5-flash")]
)
def test_a_batch_has_prices_of_its_own(service: str, model: str):
    """Half of the standard price at all three; unknown where the list has no price for batches."""
    usage = TokenUsage(1_000_000, 100_000)
    standard = cost_usd(service, model, usage)
    assert standard
    assert cost_usd(service, model, usage, batch=True) == pytest.approx(standard / 2)
    assert cost_usd(service, "no-such-model", usage, batch=True) is None
    assert cost_usd("openai", "davinci-002", usage, batch=True) is None


def test_schemas_of_tools_are_checked_before_a_batch_is_submitted(tmp_path: Path):
    """As for other calls: the provider would refuse it up to a day later. The public clients check them, too."""
    tool = ToolConfig("function", "weather", "Tell the weather.", {"type": "objekt"})
    asked = openai_words.request("Hi.", service="openai", model="gpt-4o", tools=[tool])
    with ScriptedServer() as server:
        settings = settings_with(base_dir=tmp_path, openai_base_url=server.url, openai_api_key=SecretStr(KEY))
        service = LLMService(settings, EnvironmentAPIKeyService(settings))
        with pytest.raises(ValidationError, match="schema"):
            run(service.submit_batch([asked]))
        client = UnifiedOpenAIClient(AdapterConfig(provider_type="openai", base_url=server.url, api_key=SecretStr(KEY)))
        with pytest.raises(ValidationError, match="schema"):
            client.chat("Hi.", model="gpt-4o", tools=[tool])
        assert server.seen == []


def test_no_key_in_what_a_batch_says():
    """What a server says about answers (the model, how they ended, terms of the bill) and in errors may repeat a key, as elsewhere."""
    key = "sk-canary-of-batches-0123456789"
    redactor.add(key)
    usage = TokenUsage(1, 1, bill=(BillItem({"input_tokens": 1}, {"service_tier": key}),))

    class Repeating:
        async def batch_results(self, batch_id: str, requests: Mapping[str, LLMRequest]) -> dict[str, LLMResponse | LLMError]:
            answer = LLMResponse("Hi", "openai", f"gpt-{key}", usage, finish_reason=key, warnings=(f"limit of {key}",))
            return {"0": answer, "1": ProviderError(f"openai: wrong key {key}", provider="openai")}

    items = tuple(BatchItem(name, "gpt-x") for name in "01")
    job = BatchJob("b", "openai", "completed", 0.0, items)
    said = run(batch.collect(cast(Any, Repeating()), job))
    assert isinstance(said[0], LLMResponse)
    assert said[0].text == "Hi"
    assert key not in repr(said) + str(said[1]) + repr([item.terms for item in said[0].usage.bill])

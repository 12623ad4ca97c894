"""What is booked when calls do not simply succeed: cut off, repeated, refused, stopped; in answers, errors, runs and budgets."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import claude_agent_sdk
import pytest
from genai_prices import data_snapshot
from pydantic import SecretStr

from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import BillItem, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolConfig
from dipeo_nb.errors import (
    BudgetExceededError,
    ContentFilteredError,
    LLMConnectionError,
    LLMError,
    ProviderError,
    StructureError,
)
from dipeo_nb.llm import batch, pricing, providers
from dipeo_nb.llm.batch import BatchItem, BatchJob
from dipeo_nb.llm.core.types import AdapterConfig, RetryConfig
from dipeo_nb.llm.providers.claude_code import UnifiedClaudeCodeClient
from dipeo_nb.llm.providers.claude_code.answer import IncomingAnswer
from dipeo_nb.llm.recording import recording
from dipeo_nb.llm.service import LLMService
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support import wire_anthropic
from tests.support.bills import PRICES
from tests.support.waiting import wait_until
from tests.support.wire_openai import Call, Reply, ScriptedServer, delta, final, request, run, settings_with

MODEL = "claude-opus-5-5"
INPUT = {"input_tokens": 1000, "output_tokens": 1}
BEGINNING = wire_anthropic.body([wire_anthropic.start(model=MODEL, usage=INPUT), *wire_anthropic.text("Once upon a time")[:3]])


def _price(usage: TokenUsage) -> float:
    price = pricing.cost_usd("anthropic", MODEL, usage)
    assert price
    return price


@pytest.fixture(autouse=True)
def prices() -> Iterator[None]:
    """A price list that does not change."""
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(PRICES, from_auto_update=False))
    yield
    data_snapshot.set_custom_snapshot(None)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted server asks list prices."""
    here = {service: replace(facts, hosts=("127.0.0.1",)) for service, facts in llm_providers.BUILT_IN.items()}
    monkeypatch.setattr(llm_providers, "BUILT_IN", here)


def _cut(call: Call) -> None:
    """The beginning of an answer, and the end of the connection."""
    call.headers(content_type="text/event-stream", connection="close")
    call.send(BEGINNING)
    call.break_off()


def _silent(call: Call) -> None:
    call.headers(content_type="text/event-stream", connection="close")
    call.send(BEGINNING)
    with contextlib.suppress(OSError):
        call.wait_until_lost(": ping\n\n")


def _good(call: Call) -> None:
    last, stop = wire_anthropic.end()
    events = [
        wire_anthropic.start(model=MODEL, usage=INPUT),
        *wire_anthropic.text("Done."),
        {**last, "usage": {"output_tokens": 50}},
        stop,
    ]
    call.stream(events)


def _serviced(server: ScriptedServer, asked: LLMRequest, **settings: Any) -> LLMResponse:
    root = server.url.removesuffix("/v1")
    keys = {"anthropic_api_key": SecretStr("sk-ant-x"), "openai_api_key": SecretStr("sk-x")}
    chosen = settings_with(anthropic_base_url=root, openai_base_url=server.url, **keys, **settings)

    async def go() -> LLMResponse:
        service = LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(max_attempts=2, initial_delay=0.001))
        try:
            return await service.complete(asked)
        finally:
            await service.cleanup()

    return run(go())


@pytest.mark.usefixtures("listed")
def test_an_answer_that_broke_off_is_booked_with_the_next():
    """Its tokens as far as they were reported; its cost is unknown, so that of the whole is. A budget takes an estimate."""
    budget = Budget(usd=1.0)
    with ScriptedServer(_cut, _good) as server:
        answer = _serviced(server, request("Tell a story.", service="anthropic", model=MODEL, budget=budget))
    assert answer.text == "Done."
    assert (answer.usage.input, answer.usage.output) == (2000, 51)
    assert answer.cost_usd is None
    assert budget.used_tokens >= 2051
    assert budget.used_usd >= _price(TokenUsage(2000, 51))
    assert (budget.used_calls, budget.unpriced_calls) == (2, 0)


@pytest.mark.usefixtures("listed")
def test_an_answer_that_breaks_off_for_good_is_booked_in_the_error():
    """All tries together."""
    with ScriptedServer(_cut) as server, pytest.raises(LLMError) as caught:
        _serviced(server, request("Tell a story.", service="anthropic", model=MODEL))
    assert isinstance(caught.value.usage, TokenUsage)
    assert caught.value.usage.input == 2000
    assert caught.value.charged
    assert caught.value.cost_usd is None


@pytest.mark.usefixtures("listed")
def test_what_a_model_took_before_its_fallback_answered_is_part_of_the_cost():
    """A failure that says what it took, and the answer of another provider: both are known, so is the sum."""
    failed = final(status="failed", model="gpt-5-nano", error={"code": "invalid_prompt", "message": "no"})

    def first(call: Call) -> None:
        call.stream([delta("Hi"), failed])

    asked = request(service="openai", model="gpt-5-nano", fallbacks=[f"anthropic:{MODEL}"], budget=(budget := Budget()))
    with ScriptedServer(first, _good) as server:
        answer = _serviced(server, asked)
    lost = pricing.cost_usd("openai", "gpt-5-nano", TokenUsage(20, 8, 10, None, 4))
    assert lost
    assert answer.cost_usd == pytest.approx(lost + _price(TokenUsage(1000, 50)))
    assert answer.usage.total == budget.used_tokens == 42 + 1050
    assert budget.used_usd == pytest.approx(answer.cost_usd)


@pytest.mark.usefixtures("listed")
def test_a_recording_holds_what_failed_attempts_and_models_took(tmp_path: Path):
    """A replay has the same tokens as the live answer, and saves all that it cost; each answer is recorded with its own."""
    failed = final(status="failed", model="gpt-5-nano", error={"code": "invalid_prompt", "message": "no"})

    def first(call: Call) -> None:
        call.stream([delta("Hi"), failed])

    asked = request(service="openai", model="gpt-5-nano", fallbacks=[f"anthropic:{MODEL}"])
    with ScriptedServer(first, _good, _good) as server:
        with recording(tmp_path / "r", mode="record"):
            live = _serviced(server, asked)
            plain = _serviced(server, request(service="anthropic", model=MODEL))
        with recording(tmp_path / "r", mode="replay"):
            again = _serviced(server, asked)
            plain_again = _serviced(server, request(service="anthropic", model=MODEL))
        assert len(server.seen) == 3
    assert live.usage.total == 42 + 1050
    assert again.usage.to_dict() == live.usage.to_dict()
    assert again.cached
    assert (again.cost_usd, again.saved_usd) == (0.0, live.cost_usd)
    assert plain_again.saved_usd == plain.cost_usd == pytest.approx(_price(TokenUsage(1000, 50)))


@pytest.mark.usefixtures("listed")
def test_a_repair_and_a_round_of_tools_cost_all_their_answers():
    """An answer that does not fit and the one after it; a call of a tool that cannot be read, and what the model said of it."""

    def said(*blocks: Any, reason: str = "end_turn") -> Reply:
        last, stop = wire_anthropic.end(reason)
        return lambda call: call.stream(
            [wire_anthropic.start(model=MODEL, usage=INPUT), *blocks, {**last, "usage": {"output_tokens": 50}}, stop]
        )

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    both = pytest.approx(2 * _price(TokenUsage(1000, 50)))
    for first, last, more in [
        (said(*wire_anthropic.text("No idea.")), said(*wire_anthropic.text('{"n": 3}')), {"response_format": schema, "output_mode": "prompt"}),
        (
            said(*wire_anthropic.block(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                                       {"type": "input_json_delta", "partial_json": '{"x": "'}), reason="tool_use"),
            said(*wire_anthropic.text("Never mind.")),
            {"tools": [ToolConfig("function", "f", "F.", function=lambda x: x)]},
        ),
    ]:  # fmt: skip
        budget = Budget(usd=1.0)
        with ScriptedServer(first, last) as server:
            answer = _serviced(server, request(service="anthropic", model=MODEL, budget=budget, **more))
        assert (answer.cost_usd, answer.usage.total, budget.used_usd, budget.used_tokens) == (both, 2100, both, 2100)


@pytest.mark.usefixtures("listed")
def test_silence_may_have_been_work():
    """A model that says nothing in time may be paid for what it did, so that the cost is unknown."""
    importlib.import_module("anthropic")  # what takes longest before the call
    with ScriptedServer(_silent) as server, pytest.raises(LLMError) as caught:
        _serviced(server, request(service="anthropic", model=MODEL, timeout=1.5))
    assert isinstance(caught.value.usage, TokenUsage)
    assert caught.value.usage.input == 1000
    assert (caught.value.charged, caught.value.cost_usd) == (True, None)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(("begins", "known"), [(True, False), (False, True)])
def test_an_answer_that_was_being_thought_of_may_be_paid_for(begins: bool, known: bool):
    """A connection that is lost after the model began, before it said anything; one that is lost before costs nothing."""

    def lost(call: Call) -> None:
        call.headers(content_type="text/event-stream", connection="close")
        if begins:
            response = final(status="in_progress", model="gpt-5-nano", usage=None)["response"]
            call.events([{"type": "response.created", "response": response, "sequence_number": 0}])
        call.break_off()

    good: Reply = lambda call: call.stream([delta("Hi"), final(model="gpt-5-nano")])  # noqa: E731
    with ScriptedServer(lost, good) as server:
        answer = _serviced(server, request(service="openai", model="gpt-5-nano"))
    assert answer.usage.total == 42
    assert (answer.cost_usd is not None) == known


@pytest.mark.usefixtures("listed")
def test_a_server_that_refuses_at_once_costs_nothing():
    """Overload, a wrong key and no connection are not work."""
    with ScriptedServer(wire_anthropic.error(529, "busy"), _good) as server:
        answer = _serviced(server, request(service="anthropic", model=MODEL))
    assert answer.cost_usd == pytest.approx(_price(TokenUsage(1000, 50)))
    assert answer.usage.raw is not None


class Steps:
    """A client that gives these events; errors are raised."""

    def __init__(self, *steps: Any, provider: str = "anthropic") -> None:
        self.steps, self.provider = steps, provider

    async def stream(self, request: LLMRequest) -> Any:
        yield StreamEvent("start")
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, TokenUsage):
                request.note(step)
            else:
                yield step

    async def cleanup(self) -> None:
        pass


Serve = Callable[[Any], LLMService]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A service in which one client answers for every service name."""

    def made(client: Any) -> LLMService:
        chosen = settings_with(anthropic_api_key=SecretStr("sk-ant-x"))
        monkeypatch.setattr(providers, "create", lambda config, settings: client)
        return LLMService(chosen, EnvironmentAPIKeyService(chosen), retries=RetryConfig(max_attempts=1))

    return made


def _end(usage: TokenUsage, text: str = "Hello", **more: Any) -> StreamEvent:
    return StreamEvent("end", response=LLMResponse(text, "anthropic", MODEL, usage, **more))


def test_a_reader_who_leaves_pays_for_what_was_read(serve: Serve):
    """A stream that is closed in the middle is charged to the budget, once; one that was read to its end is not charged again."""
    budget = Budget()
    client = Steps(TokenUsage(1000, 1), StreamEvent("text", "x" * 400), _end(TokenUsage(1000, 100)))

    async def read(until: str) -> None:
        async with contextlib.aclosing(
            cast(Any, serve(client).stream(request(service="anthropic", model=MODEL, budget=budget)))
        ) as events:
            async for event in events:
                if event.kind == until:
                    break

    run(read("text"))
    assert budget.used_tokens == 1000 + 100  # 400 characters
    run(read("end"))
    assert budget.used_tokens == 1100 + 1100


def test_a_budget_in_dollars_ends_where_a_cost_is_unknown(serve: Serve):
    """A fee without a price: the limit could not be kept any longer. Limits of other kinds can."""
    odd = TokenUsage(10, 10, bill=(BillItem({"input_tokens": 10, "output_tokens": 10, "moon_landings": 1}),))
    service, asked = serve(Steps(_end(odd))), request(service="anthropic", model=MODEL)
    budget = Budget(usd=1.0)
    assert run(service.complete(LLMRequest("anthropic", MODEL, asked.messages, budget=budget))).cost_usd is None
    with pytest.raises(BudgetExceededError, match="not known") as caught:
        run(service.complete(LLMRequest("anthropic", MODEL, asked.messages, budget=budget)))
    assert "usd" in (caught.value.hint or "")
    assert budget.used_calls == 1
    others = Budget(tokens=1000, calls=5)
    for _ in range(3):
        run(service.complete(LLMRequest("anthropic", MODEL, asked.messages, budget=others)))
    assert (others.used_tokens, others.unpriced_calls) == (60, 3)


def test_a_server_that_counts_nothing_is_estimated_for_the_budget(serve: Serve):
    """Else a limit of tokens would never be reached; the answer's own usage stays unknown."""
    budget = Budget(tokens=1000)
    client = Steps(StreamEvent("text", "y" * 2000), _end(TokenUsage(), "y" * 2000))
    asked = request("x" * 2000, service="anthropic", model=MODEL, budget=budget)
    answer = run(serve(client).complete(asked))
    assert (answer.usage.total, answer.cost_usd) == (None, None)
    assert budget.used_tokens == 1000
    with pytest.raises(BudgetExceededError):
        run(serve(client).complete(asked))


def test_free_models_stay_free_when_they_break_off(serve: Serve):
    """What calls of a service cost is known there, whatever happens."""
    client = Steps(StreamEvent("text", "Hi"), LLMConnectionError("gone"), provider="local")
    with pytest.raises(LLMConnectionError) as caught:
        run(serve(client).complete(request(service="local")))
    assert (caught.value.charged, caught.value.cost_usd) == (True, 0.0)


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (ContentFilteredError("no", usage=TokenUsage(1000, 50), model=MODEL), True),
        (ProviderError("malformed", usage=TokenUsage(1000, 50), model=MODEL), True),
        (StructureError("no JSON", usage=TokenUsage(1000, 50), model=MODEL, repairable=False), True),
        (ContentFilteredError("no", usage=TokenUsage(), model=MODEL), False),
    ],
    ids=["refusal", "malformed", "no structure", "refusal without a count"],
)
def test_answers_that_are_errors_are_paid_for(serve: Serve, error: LLMError, known: bool):
    """In the error and in the budget."""
    budget, cost = Budget(), _price(TokenUsage(1000, 50))
    with pytest.raises(type(error)) as caught:
        run(serve(Steps(error)).complete(request(service="anthropic", model=MODEL, budget=budget)))
    assert caught.value.charged
    assert caught.value.cost_usd == (pytest.approx(cost) if known else None)
    assert budget.used_usd == pytest.approx(cost if known else budget.used_usd)
    assert budget.used_tokens == (1050 if known else 2)  # "Say hello." is ten characters


def test_a_stopped_run_has_what_its_call_took_also_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The input of a call that was going on is paid for: in the run's usage, and in what is read of it later."""
    text = (
        "persons:\n  A: {service: anthropic, model: claude-opus-5-5}\n"
        "nodes:\n- {label: Start, type: start}\n- {label: Ask, type: person_job, props: {person: A, default_prompt: Hi}}\n"
        "- {label: End, type: endpoint}\nconnections:\n- {from: Start, to: Ask}\n- {from: Ask, to: End}\n"
    )
    with ScriptedServer(_silent, _good) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-x")
        session = Session(tmp_path)
        try:
            started = session.start(text)
            wait_until(lambda: any(event.payload.get("kind") == "text" for event in started.events))
            started.stop()
            assert started.wait(10)
            assert (started.usage.input, started.cost) == (1000, None)
            assert started.metrics.usage.input == 1000
            with Session(tmp_path) as other:
                assert other.open_run(started.id).usage.input == 1000
            done = started.resume(view=False)
            assert done.wait(20)
            assert (done.status, done.usage.input, done.usage.output, done.cost) == ("completed", 2000, 51, None)
            assert (done.metrics.usage, done.metrics.cost_usd) == (done.usage, None)
            assert done.node("Ask").cost_usd is None
        finally:
            session.close()


# Claude Code says itself what its session has cost so far.


class _Session:
    def __init__(self, spent: float = 0.0) -> None:
        self.spent_usd, self.session_id = spent, ""


def _result(total: float | None, *, text: str = "Hi.", is_error: bool = False, **usage: int) -> Any:
    counts = {"input_tokens": 10, "output_tokens": 5, **usage}
    return claude_agent_sdk.ResultMessage(
        subtype="success", duration_ms=1, duration_api_ms=1, is_error=is_error, num_turns=1, session_id="s", total_cost_usd=total,
        usage=counts, result=text,
    )  # fmt: skip


def _turn(session: Any, result: Any, **asked: Any) -> LLMResponse:
    client = UnifiedClaudeCodeClient(AdapterConfig(provider_type="claude-code"))
    wanted = request(service="claude-code", model="sonnet", **asked)
    answer = IncomingAnswer(wanted, client.error_context(wanted))
    answer.take(result)
    return answer.finished(session)


def _bill(usage: Any) -> float | None:
    return pricing.cost_usd("claude-code", "sonnet", usage)


def test_claude_codes_own_sum_is_divided_among_its_turns():
    """A turn costs what the sum has grown by, also one that failed or does not fit; a sum that is not told is unknown."""
    session = _Session()
    first = _turn(session, _result(0.25))
    assert (first.cost_usd, _bill(first.usage), first.usage.total) == (0.25, 0.25, 15)
    with pytest.raises(LLMError) as failed:
        _turn(session, _result(0.35, is_error=True))
    assert _bill(failed.value.usage) == pytest.approx(0.10)
    with pytest.raises(StructureError) as unfit:
        _turn(
            session,
            _result(0.45),
            response_format={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        )
    assert _bill(unfit.value.usage) == pytest.approx(0.10)
    assert _turn(session, _result(0.50)).cost_usd == pytest.approx(0.05)
    assert _turn(session, _result(0.45)).cost_usd == 0.0  # never negative
    unknown = _turn(session, _result(None))
    assert unknown.cost_usd is None


# Batches.


def test_refusals_in_a_batch_are_paid_for_at_its_prices():
    """So are answers that do not fit; what failed before it was answered costs nothing."""
    usage = TokenUsage(1000, 50)

    class Provider:
        async def batch_results(self, batch_id: str, requests: Any) -> dict[str, Any]:
            return {
                "item-0": LLMResponse("Hi.", "openai", "gpt-5-nano-2025-08-07", usage),
                "item-1": ContentFilteredError("no", usage=usage, provider="openai", model="gpt-5-nano"),
                "item-2": LLMResponse("Hi.", "openai", "gpt-5-nano", usage),
                "item-3": ProviderError("failed", provider="openai", model="gpt-5-nano"),
            }

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    items = tuple(
        BatchItem(f"item-{n}", "gpt-5-nano", "prompt" if n == 2 else None, schema if n == 2 else None) for n in range(4)
    )
    job = BatchJob("b", "openai", "completed", 0.0, items)
    answers = run(batch.collect(cast(Any, Provider()), job))
    half = pricing.cost_usd("openai", "gpt-5-nano", usage, batch=True)
    whole = pricing.cost_usd("openai", "gpt-5-nano", usage)
    assert half is not None
    assert whole == pytest.approx(2 * half)
    assert [answer.cost_usd for answer in answers] == [pytest.approx(half)] * 3 + [None]
    assert [isinstance(answer, LLMError) and answer.charged for answer in answers] == [False, True, True, False]

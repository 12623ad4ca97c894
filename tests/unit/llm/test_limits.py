"""Circuit breaker, adaptive concurrency, fallback models, budgets, the pool of clients."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import (
    AuthError,
    BudgetExceededError,
    ConfigurationError,
    ContentFilteredError,
    LLMConnectionError,
    LLMError,
    ProviderError,
    RateLimitError,
)
from dipeo_nb.llm import limits, providers
from dipeo_nb.llm.client_pool import ClientManager
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.limits import AdaptiveLimit, CircuitBreaker
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from dipeo_nb.testing import ScriptedClient, SlowClient
from tests.support.wire_openai import events_of, request, run, settings_with

DOWN = LLMConnectionError("nobody there")


class Named(ScriptedClient):
    """A scripted client that keeps the configuration it was made with."""

    def __init__(self, script: Any, config: Any = None) -> None:
        super().__init__(script)
        self.config = config
        self.closed = 0

    async def cleanup(self) -> None:
        self.closed += 1


def service(monkeypatch: pytest.MonkeyPatch, *, retries: int = 0, **clients: Any) -> LLMService:
    """A service over one client per service name (`_` for `-`)."""
    monkeypatch.setattr(providers, "create", lambda config, settings: clients[config.provider_type.replace("-", "_")])
    keys = InMemoryAPIKeyService(dict.fromkeys(("openai", "anthropic", "gemini"), "sk-test"))
    return LLMService(settings_with(), keys, retries=RetryConfig(retries + 1, initial_delay=0.001))


def asked(**more: Any) -> LLMRequest:
    return request(**{"service": "openai", "model": "gpt-4o", **more})


# Circuit.


def test_a_server_that_always_fails_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    """After eight failures in a row no call goes out any more; the error says for how long and what failed last."""
    client = ScriptedClient(DOWN)
    llm = service(monkeypatch, openai=client)

    async def go() -> list[str]:
        said = []
        for _ in range(limits.FAILURES + 3):
            try:
                await llm.complete(asked())
            except LLMError as error:
                said.append(error.message)
        return said

    said = run(go())
    assert len(client.requests) == limits.FAILURES
    assert "left alone for 30 s" in said[-1]
    assert "nobody there" in said[-1]


def test_a_circuit_closes_again():
    """After its rest one trial goes through; its success closes the circuit, its failure opens it again."""
    now = [0.0]
    circuit = CircuitBreaker("openai", lambda: now[0])
    for _ in range(limits.FAILURES):
        circuit.before_call("m")
        circuit.failed(DOWN)
    with pytest.raises(LLMConnectionError):
        circuit.before_call("m")
    now[0] += limits.REST_S
    circuit.before_call("m")  # the trial
    with pytest.raises(LLMConnectionError):
        circuit.before_call("m")  # others wait for it
    circuit.failed(DOWN)
    now[0] += limits.REST_S
    circuit.before_call("m")
    circuit.succeeded()
    circuit.before_call("m")
    circuit.before_call("m")


@pytest.mark.parametrize(
    "error",
    [RateLimitError("slow down"), AuthError("no"), ProviderError("bad", status=400), ContentFilteredError("no")],
)
def test_answers_are_no_failures_of_the_server(error: LLMError):
    """A server that says no works."""
    circuit = CircuitBreaker("openai", lambda: 0.0)
    for _ in range(limits.FAILURES * 2):
        circuit.failed(error)
    circuit.before_call("m")


# Concurrency.


def test_concurrency_grows_until_the_first_refusal_then_slowly():
    """Doubling per round of successes at first; halved by a 429, once for all calls refused together; then one more per round."""

    async def go() -> list[float]:
        limit = AdaptiveLimit(4)
        seen = [limit.limit]
        for _ in range(4):
            async with limit.slot() as ended:
                ended(None)
        seen.append(limit.limit)

        async def refused() -> None:
            async with limit.slot() as ended:
                await asyncio.sleep(0.01)
                ended(RateLimitError("slow down"))

        await asyncio.gather(*(refused() for _ in range(8)))
        seen.append(limit.limit)
        for _ in range(4):
            async with limit.slot() as ended:
                ended(None)
        return [*seen, limit.limit]

    first, grown, cut, after = run(go())
    assert (first, grown, cut) == (4, 8, 4)
    assert 4.8 < after < 5.0


def test_concurrency_keeps_its_limit_and_forgets_the_cancelled():
    """Never more calls than the limit; a caller that gives up while waiting, or just when its turn comes, blocks nobody."""

    async def go() -> tuple[int, int]:
        limit = AdaptiveLimit(3)
        working = most = done = 0

        async def call() -> None:
            nonlocal working, most, done
            async with limit.slot():
                working += 1
                most = max(most, working)
                try:
                    await asyncio.sleep(0.001)
                finally:
                    working -= 1
            done += 1

        tasks = [asyncio.create_task(call()) for _ in range(60)]
        for n, task in enumerate(tasks):
            if n % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(asyncio.gather(*(call() for _ in range(5))), 5)
        assert working == 0
        return most, done

    most, done = run(go())
    assert most <= 3
    assert done >= 40


def test_event_loops_share_a_limit():
    """Calls of two loops that fill one limit all end: a slot freed in one loop wakes the other, which sleeps until it is woken."""
    limit = AdaptiveLimit(1)
    limit.limit = 1.0
    together = threading.Barrier(2)
    done: list[int] = []

    async def calls(name: int) -> None:
        async def call() -> None:
            async with limit.slot():
                await asyncio.sleep(0)
            done.append(name)

        together.wait(10)
        await asyncio.wait_for(asyncio.gather(*(call() for _ in range(100))), 20)

    threads = [threading.Thread(target=asyncio.run, args=(calls(name),), daemon=True) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert Counter(done) == {0: 100, 1: 100}
    assert limit._working == 0


def test_a_slot_freed_in_another_thread_wakes_an_idle_loop():
    """The waiting loop has nothing else to do, so only the wake-up from the other thread can make it go on."""
    limit = AdaptiveLimit(1)
    holding, waiting = threading.Event(), threading.Event()

    async def hold() -> None:
        async with limit.slot():
            holding.set()
            await asyncio.to_thread(waiting.wait, 10)
            while not limit._waiting:
                await asyncio.sleep(0.001)

    async def wait() -> bool:
        waiting.set()
        async with limit.slot():
            return True

    holder = threading.Thread(target=asyncio.run, args=(hold(),), daemon=True)
    holder.start()
    assert holding.wait(10)
    ended: list[bool] = []
    waiter = threading.Thread(target=lambda: ended.append(asyncio.run(wait())), daemon=True)
    waiter.start()
    waiter.join(10)
    assert ended == [True]
    holder.join(10)


def test_a_loop_that_was_closed_while_it_waited_keeps_no_slot():
    """A call whose loop is gone is passed over; the next one in the queue gets the slot."""
    limit = AdaptiveLimit(1)
    gone = asyncio.new_event_loop()

    async def use() -> None:
        async with limit.slot():
            pass

    async def go() -> None:
        async with limit.slot():
            left = use()
            await asyncio.to_thread(_started_and_left, gone, left)
            behind = asyncio.create_task(use())
            while len(limit._waiting) < 2:
                await asyncio.sleep(0)
        await asyncio.wait_for(behind, 10)
        left.close()

    run(go())
    assert limit._working == 0


def _started_and_left(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Take the first step of *work* in *loop*, then close the loop."""

    async def first_step() -> None:
        work.send(None)

    loop.run_until_complete(first_step())
    loop.close()


# Fallbacks.


def test_a_fallback_answers_and_says_why(monkeypatch: pytest.MonkeyPatch):
    """When a model cannot answer, the next one does; the event names it and the reason, the response who answered."""
    llm = service(monkeypatch, openai=ScriptedClient(AuthError("no such key")), anthropic=ScriptedClient("Here."))
    events = run(events_of(llm, asked(fallbacks=["anthropic:claude-sonnet-5"])))
    told = next(e for e in events if e.kind == "error")
    assert told.text == "no such key"
    assert told.data == {"code": "llm_auth", "fallback": "anthropic:claude-sonnet-5"}
    assert events[-1].response is not None
    assert events[-1].response.model == "claude-sonnet-5"


def test_a_missing_key_is_a_reason_to_ask_elsewhere(monkeypatch: pytest.MonkeyPatch):
    """Without a key for a model its fallback answers; the event says what was missing."""
    monkeypatch.setattr(providers, "create", lambda config, settings: ScriptedClient("Here."))
    llm = LLMService(settings_with(), InMemoryAPIKeyService())
    events = run(events_of(llm, asked(fallbacks=["anthropic:claude-sonnet-5", "local"])))
    assert [e.data["fallback"] for e in events if e.kind == "error" and e.data] == [
        "anthropic:claude-sonnet-5",
        "local",
    ]
    assert events[-1].response is not None
    assert events[-1].response.text == "Here."


def test_the_last_fallbacks_error_is_the_calls(monkeypatch: pytest.MonkeyPatch):
    """When nobody can answer, the last failure is reported."""
    llm = service(monkeypatch, openai=ScriptedClient(DOWN), anthropic=ScriptedClient(AuthError("no such key")))
    with pytest.raises(AuthError):
        run(llm.complete(asked(fallbacks=["anthropic:claude-sonnet-5"])))


def test_a_refused_prompt_is_not_asked_elsewhere(monkeypatch: pytest.MonkeyPatch):
    """Content that one provider filters is not shopped around."""
    other = ScriptedClient("Here.")
    llm = service(monkeypatch, openai=ScriptedClient(ContentFilteredError("no")), anthropic=other)
    with pytest.raises(ContentFilteredError):
        run(llm.complete(asked(fallbacks=["anthropic:claude-sonnet-5"])))
    assert other.requests == []


# Ladder.


class Answer(BaseModel):
    n: int


class Picky(ScriptedClient):
    """A server that knows nothing of structure."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        if request.response_format is not None or request.tools:
            self.requests.append(request)
            raise ProviderError("unknown field: json_schema / tools", status=400)
        async for event in super().stream(request):
            yield event


def test_structure_goes_down_the_ladder(monkeypatch: pytest.MonkeyPatch):
    """A server that refuses native structure, tools and JSON mode is asked in words; each step is told, the response says which."""
    client = Picky('Sure: {"n": 3}')
    events = run(events_of(service(monkeypatch, openai=client), asked(response_format=Answer)))
    assert [e.data["rung"] for e in events if e.kind == "error" and e.data] == ["tool", "json_mode", "prompt"]
    response = events[-1].response
    assert response is not None
    assert (response.structured, response.output_mode) == (Answer(n=3), "prompt")
    assert '"n"' in client.requests[-1].messages[0].content


def test_partial_objects_are_seen_while_they_come(monkeypatch: pytest.MonkeyPatch):
    """A structured answer shows its fields as they arrive."""
    shape = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a", "b"]}
    monkeypatch.setattr("dipeo_nb.llm.partial_answer.PARTIAL_S", 0.0)
    client = ScriptedClient('{"a": "one two", "b": "three"}')
    events = run(events_of(service(monkeypatch, openai=client), asked(response_format=shape)))
    seen = [e.data["value"] for e in events if e.kind == "partial" and e.data]
    assert {"a": "one"} in seen
    assert seen[-1] == {"a": "one two", "b": "three"}


# Budgets.


def answer(tokens: int, cost: float | None = None) -> Any:
    class Priced(ScriptedClient):
        async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
            self.requests.append(request)
            yield StreamEvent("start")
            usage = TokenUsage(tokens, 0)
            yield StreamEvent("end", response=LLMResponse("ok", "openai", "gpt-4o", usage, cost_usd=cost))

    return Priced()


@pytest.mark.parametrize(
    ("used", "characters", "words"),
    [
        (0, 1_000_000, "too large for the budget, which allows 200,000 tokens: it takes about 250,000 tokens"),
        (190_000, 44_000, "too large for the budget, of which 10,000 of 200,000 tokens are left: it takes about 11,000 tokens"),
        (200_000, 4, "The budget is used up: 200,000 of 200,000 tokens are used"),
        (200_001, 0, "The budget is used up: 200,001 of 200,000 tokens are used"),
    ],
)
def test_a_budget_says_whether_it_is_used_up_or_the_prompt_is_too_large(used: int, characters: int, words: str):
    """What is said is what has to be changed: nothing was used when one prompt alone is more than the budget allows."""
    budget = Budget(tokens=200_000)
    budget.charge(used, 0.0)
    with pytest.raises(BudgetExceededError) as caught:
        budget.before_call(characters, model="m", priced=True)
    assert words in caught.value.message
    assert caught.value.facts["limit"] == "tokens"
    assert budget.used_calls == 0


@pytest.mark.parametrize(
    ("budget", "tokens", "cost", "calls"),
    [
        (Budget(calls=2), 1, None, 2),
        (Budget(tokens=100), 40, None, 3),  # 80 used, and the next prompt may just fit
        (Budget(usd=0.1), 1, 0.06, 2),
        (Budget(seconds=0.05), 1, None, 1),
    ],
    ids=["calls", "tokens", "usd", "seconds"],
)
def test_a_budget_stops_before_the_call(
    monkeypatch: pytest.MonkeyPatch, budget: Budget, tokens: int, cost: float | None, calls: int
):
    """A call that would go beyond the limit is not made; the error names the limit and what is used."""
    client = answer(tokens, cost)
    llm = service(monkeypatch, openai=client)

    async def go() -> None:
        for _ in range(10):
            await llm.complete(asked(budget=budget))
            await asyncio.sleep(0.06 if budget.seconds else 0)

    with pytest.raises(BudgetExceededError, match="not made"):
        run(go())
    assert len(client.requests) == calls


def test_repeated_calls_count(monkeypatch: pytest.MonkeyPatch):
    """Retries are calls too."""
    client = ScriptedClient(DOWN)
    llm = service(monkeypatch, retries=5, openai=client)
    with pytest.raises(BudgetExceededError):
        run(llm.complete(asked(budget=Budget(calls=3))))
    assert len(client.requests) == 3


def test_calls_at_the_same_time_keep_a_budget_together(monkeypatch: pytest.MonkeyPatch):
    """What calls going on may take counts: of twenty with answers of 40 tokens at most, a budget of 120 lets three through."""
    client = ScriptedClient("one two three")
    llm = service(monkeypatch, openai=client)
    budget = Budget(tokens=120)

    async def go() -> list[Any]:
        calls = (llm.complete(asked(prompt="four", budget=budget, max_tokens=40)) for _ in range(20))
        return await asyncio.gather(*calls, return_exceptions=True)

    results = run(go())
    assert len(client.requests) == 3
    assert sum(isinstance(r, BudgetExceededError) for r in results) == 17
    assert run(llm.complete(asked(budget=budget))).text == "one two three"  # what was held is free again


def test_waiting_for_a_turn_is_not_the_calls_time(monkeypatch: pytest.MonkeyPatch):
    """Thirty calls of 0.1 s with ten at a time and a limit of 0.25 s each all succeed."""
    client = SlowClient("a b", delay=0.05)
    llm = service(monkeypatch, openai=client)

    async def go() -> int:
        answers = await asyncio.gather(*(llm.complete(asked(timeout=0.25)) for _ in range(60)))
        return len(answers)

    assert run(go()) == 60


def test_a_budget_in_dollars_needs_a_price(monkeypatch: pytest.MonkeyPatch):
    """A model of unknown price is refused, as the limit could not be kept."""
    client = answer(1)
    with pytest.raises(ConfigurationError, match="price of 'my-model' is not known"):
        run(service(monkeypatch, openai=client).complete(asked(model="my-model", budget=Budget(usd=1))))
    assert client.requests == []


# Pool.


def pool(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[ClientManager, list[Named], list[float]]:
    made: list[Named] = []
    now = [0.0]

    def create(config: Any, settings: Any) -> Named:
        made.append(Named("ok", config))
        return made[-1]

    monkeypatch.setattr(providers, "create", create)
    settings = settings_with(openai_base_url="http://gateway.example/v1")
    keys = InMemoryAPIKeyService({"openai": "sk-one", "other": "sk-two"})
    return ClientManager(settings, keys, clock=lambda: now[0], **options), made, now


async def use(manager: ClientManager, **more: Any) -> Any:
    async with manager.client(asked(**more)) as client:
        return client


def test_one_client_for_one_key_and_server(monkeypatch: pytest.MonkeyPatch):
    """Fifty callers at once share one client; another key or server has another one."""
    manager, made, _ = pool(monkeypatch)

    async def go() -> None:
        assert len(set(map(id, await asyncio.gather(*(use(manager) for _ in range(50)))))) == 1
        await use(manager, api_key_id="other")
        await use(manager, base_url="http://localhost:1/v1")

    run(go())
    assert len(made) == 3
    assert [c.config.api_key and c.config.api_key.get_secret_value() for c in made] == ["sk-one", "sk-two", None]
    assert made[0].config.base_url == "http://gateway.example/v1"


def test_clients_live_for_an_hour(monkeypatch: pytest.MonkeyPatch):
    """After 3,600 s a new client takes over; the old one is closed, but not while somebody uses it."""
    manager, made, now = pool(monkeypatch)

    async def go() -> None:
        async with manager.client(asked()):
            now[0] = 3599
            await use(manager)
            now[0] = 3600
            await use(manager)
            assert [c.closed for c in made] == [0, 0]
        assert [c.closed for c in made] == [1, 0]
        await manager.cleanup()
        await manager.cleanup()

    run(go())
    assert [c.closed for c in made] == [1, 1]


def test_the_pool_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Beyond its size the client that was not used for longest is closed."""
    manager, made, now = pool(monkeypatch, size=2)

    async def go() -> None:
        for n, port in enumerate([1, 2, 1, 3]):
            now[0] = n
            await use(manager, base_url=f"http://localhost:{port}/v1")

    run(go())
    assert [(c.config.base_url, c.closed) for c in made] == [
        ("http://localhost:1/v1", 0),
        ("http://localhost:2/v1", 1),
        ("http://localhost:3/v1", 0),
    ]


@pytest.mark.parametrize(
    ("base_url", "has_key"),
    [
        (None, True),
        ("http://gateway.example/v1", True),
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://openai.com.evil.example/v1", False),
        ("https://evil.example/openai.com", False),
        ("http://127.0.0.1:8080/v1", False),
        ("http://[::1", False),
    ],
)
def test_a_key_goes_only_where_it_may(monkeypatch: pytest.MonkeyPatch, base_url: str | None, has_key: bool):
    """To the provider and the server of the settings; not to what a diagram names, on this machine neither."""
    manager, made, _ = pool(monkeypatch)
    run(use(manager, base_url=base_url))
    assert made[0].config.api_key == (SecretStr("sk-one") if has_key else None)

"""What calls cost: records of all providers, read by the real clients, against bills worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data_snapshot, types
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from dipeo_nb.domain.chat import LLMResponse, TokenUsage
from dipeo_nb.errors import LLMError
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.pricing import cost_usd, is_priced
from dipeo_nb.llm.providers.anthropic import UnifiedAnthropicClient
from dipeo_nb.llm.providers.google import UnifiedGoogleClient
from dipeo_nb.llm.providers.ollama import UnifiedOllamaClient
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from dipeo_nb.llm.usage import count, merged_counts, of_anthropic, of_google, of_openai
from tests.support import wire_anthropic, wire_google, wire_ollama
from tests.support.bills import ANTHROPIC, AT, GOOGLE, OLLAMA, OPENAI, PRICES, Bill
from tests.support.wire_openai import Reply, ScriptedServer, delta, final, message, request, run


@pytest.fixture(autouse=True)
def prices() -> Iterator[None]:
    """The price list of the bills."""
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(PRICES, from_auto_update=False))
    yield
    data_snapshot.set_custom_snapshot(None)


# The records, as each API sends them.


def _openai(bill: Bill) -> Reply:
    given = {"model": bill.model, "output": [message("Hi.")], **bill.sent}
    output = given.pop("output")
    return lambda call: call.stream([delta("Hi."), final(*output, **given)])


def _anthropic(bill: Bill) -> Reply:
    begin = wire_anthropic.start(model=bill.model, usage=bill.sent["start"])
    last, stop = wire_anthropic.end(bill.sent["reason"])
    if bill.sent["start"] is None:
        del begin["message"]["usage"]
    return wire_anthropic.streams(begin, *wire_anthropic.text("Hi."), {**last, "usage": bill.sent["delta"]}, stop)


def _google(bill: Bill) -> Reply:
    parts = bill.sent.get("parts", [wire_google.text("Hi.")])
    whole = wire_google.chunk(*parts, finish=bill.sent.get("finish", "STOP"), **bill.sent.get("candidate", {}))
    whole |= {"usageMetadata": bill.sent["usage"], "modelVersion": bill.model}
    headers = {"x_gemini_service_tier": bill.sent["tier"]} if "tier" in bill.sent else {}
    return wire_google.streams(whole, **headers)


def _ollama(bill: Bill) -> Reply:
    return wire_ollama.lines(wire_ollama.chunk("Hi."), {**wire_ollama.end(), **bill.sent})


SERVICES: dict[str, tuple[type[Any], Callable[[Bill], Reply], Sequence[Bill]]] = {
    "openai": (UnifiedOpenAIClient, _openai, OPENAI),
    "anthropic": (UnifiedAnthropicClient, _anthropic, ANTHROPIC),
    "gemini": (UnifiedGoogleClient, _google, GOOGLE),
    "ollama": (UnifiedOllamaClient, _ollama, OLLAMA),
}


async def _usages(server: ScriptedServer, kind: type[Any], bills: Sequence[Bill]) -> list[tuple[TokenUsage, str]]:
    """Usage and answering model of each reply, those of refusals and failures among them."""
    root = server.url.removesuffix("/v1")
    url = server.url if kind is UnifiedOpenAIClient else root
    config = AdapterConfig(provider_type=kind.provider, base_url=url, api_key=SecretStr("sk-x"), model="m", max_retries=0)
    client, found = kind(config), []
    for bill in bills:
        asked, response = request(service=kind.provider, model=bill.model), None
        try:
            async for event in client.stream(asked):
                response = event.response or response
            assert isinstance(response, LLMResponse)
            found.append((response.usage, response.model))
        except LLMError as error:
            found.append((error.usage or TokenUsage(), bill.model))
    await client.cleanup()
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_bills_are_those_worked_out_by_hand(service: str, monkeypatch: pytest.MonkeyPatch):
    """Tokens in their buckets, and the cost: exactly, or unknown; never too little."""
    kind, reply, bills = SERVICES[service]
    if kind is UnifiedOllamaClient:
        monkeypatch.setattr(kind, "_fetched", _nothing)  # the models are there
    with ScriptedServer(*map(reply, bills)) as server:
        usages = run(_usages(server, kind, bills))
    wrong: list[str] = []
    for bill, (usage, model) in zip(bills, usages, strict=True):
        tokens = usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning
        cost = cost_usd(service, model, usage, base_url=bill.base_url, batch=bill.batch, requested=bill.model, at=AT)
        if tokens != bill.tokens:
            wrong.append(f"{bill.name}: tokens {tokens}, right {bill.tokens}")
        if cost != (None if bill.usd is None else pytest.approx(bill.usd, rel=1e-9, abs=1e-15)):
            wrong.append(f"{bill.name}: {cost} USD, right {bill.usd}")
    assert not wrong, "\n".join(wrong)


async def _nothing(self: Any, model: str, context: Any) -> Any:
    for _ in ():
        yield


def test_the_bills_are_many():
    """All providers, known and unknown costs; no two of one provider have one name."""
    assert [len(bills) for _, _, bills in SERVICES.values()] == [62, 28, 27, 5]
    for _, _, bills in SERVICES.values():
        assert len({bill.name for bill in bills}) == len(bills)
        assert {bill.usd is None for bill in bills} == {True, False}


def test_one_answer_of_several_requests_has_the_bills_of_all():
    """A turn of Claude that was paused went on in a second request: fees add up, and each has its own tier of prices."""
    usage = {"input_tokens": 60_000, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    searched = {"output_tokens": 1000, "server_tool_use": {"web_search_requests": 2}}

    def part(reason: str) -> Reply:
        last, stop = wire_anthropic.end(reason)
        first = wire_anthropic.start(model="claude-haiku-5-5", usage=usage)
        return wire_anthropic.streams(first, *wire_anthropic.text("Hi."), {**last, "usage": searched}, stop)

    with ScriptedServer(part("pause_turn"), part("end_turn")) as server:
        ((found, model),) = run(_usages(server, UnifiedAnthropicClient, [Bill("paused", "claude-haiku-5-5", {}, (), None)]))
    assert (found.input, found.output) == (120_000, 2000)
    once = (60_000 * 0.1 + 1000 * 0.5) / 1_000_000 + 2 * 10 / 1000
    assert cost_usd("anthropic", model, found, at=AT) == pytest.approx(2 * once)


@pytest.mark.parametrize(
    ("answered", "asked", "known"),
    [
        ("gpt-7-2027-01-05", "gpt-7", True),
        ("gpt-7-20270105", "gpt-7", True),
        ("gpt-7-001", "gpt-7", True),
        ("models/gpt-7-latest", "gpt-7", True),
        ("gpt-7-pro", "gpt-7", False),
        ("gpt-7-pro-2027-01-05", "gpt-7", False),
        ("gpt-70", "gpt-7", False),
        ("x", "gpt-7", False),
    ],
)
def test_a_version_has_the_price_of_its_model(answered: str, asked: str, known: bool, monkeypatch: pytest.MonkeyPatch):
    """A version that is not listed is priced as the model that was asked for; another model is not."""
    from genai_prices import types

    exact = types.ModelInfo(id="gpt-7", match=types.ClauseEquals("gpt-7"), prices=PRICES[0].models[0].prices)
    listed = [types.Provider("openai", "OpenAI", "x", models=[exact])]
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(listed, from_auto_update=False))
    cost = cost_usd("openai", answered, TokenUsage(1000, 100), requested=asked, at=AT)
    assert cost == (pytest.approx(0.00009) if known else None)


NAMES = [
    ("openai", "gpt-5-nano", True),
    ("openai", "GPT-5-NANO", True),
    ("openai", "gpt-5-nano-2025-08-07", True),
    ("openai", "gpt-5-nano-turbo", False),
    ("openai", "gpt-5-nano-2025-08-07-turbo", False),
    ("openai", "gpt-4o-realtime-preview-2024-10-01", True),
    ("openai", "gpt-4o-realtime-large", False),
    ("openai", "gpt-6-luna-2027-01-02", True),
    ("openai", "ft:gpt-4o-mini-2024-07-18:org::abc", True),
    ("openai", "ft:gpt-3.5-turbo-0125:org", True),
    ("openai", "ft:gpt-3.5-turbo-huge:org", False),
    ("anthropic", "claude-sonnet-4-5-20250929", True),
    ("anthropic", "claude-sonnet-4-5-fast", False),
    ("anthropic", "claude-sonnet-4-20250514", True),
    ("anthropic", "claude-opus-5-20270101", True),
    ("anthropic", "claude-3-5-sonnet-pro", False),
    ("gemini", "models/gemini-2.5-pro", True),
    ("gemini", "gemini-2.5-pro-preview-06-05", True),
    ("gemini", "gemini-2.5-pro-max", False),
    ("gemini", "gemini-2.0-flash-001", True),
    ("gemini", "gemini-3.8-flash-large", False),
    ("gemini", "gemini-4-argon-2-max", False),
    ("gemini", "gemini-4-argon-20270102", True),
    ("gemini", "my-gemini-1.5-flash", False),
]


@pytest.mark.parametrize(("service", "model", "known"), NAMES)
def test_a_model_that_is_merely_named_like_another_has_no_price(service: str, model: str, known: bool):
    """The list finds models by how their names begin; a larger model with a longer name may cost more."""
    from genai_prices.types import (
        ClauseAnd,
        ClauseContains,
        ClauseEquals,
        ClauseOr,
        ClauseRegex,
        ClauseStartsWith,
        ModelInfo,
        Provider,
    )

    matches: dict[str, dict[str, Any]] = {  # as the list has them
        "openai": {
            "gpt-5-nano": ClauseOr([ClauseEquals("gpt-5-nano"), ClauseStartsWith("gpt-5-nano-")]),
            "gpt-4o-realtime-preview": ClauseStartsWith("gpt-4o-realtime"),
            "gpt-6-luna": ClauseOr([ClauseEquals("gpt-6-luna"), ClauseRegex(r"^gpt-6-luna-\d{4}-\d{2}-\d{2}$")]),
            "ft:gpt-4o-mini": ClauseStartsWith("ft:gpt-4o-mini-2024-"),
            "ft:gpt-3.5-turbo-": ClauseStartsWith("ft:gpt-3.5-turbo"),
        },
        "anthropic": {
            "claude-3-5-sonnet": ClauseOr([ClauseStartsWith("claude-3-5-sonnet"), ClauseStartsWith("claude-3.5-sonnet")]),
            "claude-sonnet-4-5": ClauseStartsWith("claude-sonnet-4-5"),
            "claude-sonnet-4-0": ClauseOr([ClauseStartsWith("claude-sonnet-4-2025"), ClauseStartsWith("claude-sonnet-4@")]),
            "claude-opus-5": ClauseOr([ClauseEquals("claude-opus-5"), ClauseRegex(r"^claude-opus-5[-@]\d{8}$")]),
        },
        "google": {
            "gemini-2.5-pro": ClauseAnd([ClauseStartsWith("gemini-2.5-pro"), ClauseRegex("^(?!.*-[tT][tT][sS](?:$|-))")]),
            "gemini-2.0-flash": ClauseOr([ClauseContains("gemini-2.0-flash-0"), ClauseContains("gemini-2.0-flash-exp")]),
            "gemini-3.8-flash": ClauseStartsWith("gemini-3.8-flash"),
            "gemini-4-argon": ClauseRegex(r"^gemini-4-argon-\d"),
            "gemini-1.5-flash": ClauseContains("gemini-1.5-flash"),
        },
    }
    price = PRICES[0].models[0].prices
    listed = [
        Provider(name, name, "x", models=[ModelInfo(id=known, match=match, prices=price) for known, match in models.items()])
        for name, models in matches.items()
    ]
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(listed, from_auto_update=False))
    assert (cost_usd(service, model, TokenUsage(1000, 1000), at=AT) is not None) == known


def test_the_names_are_many():
    assert len(NAMES) == 24
    assert sum(known for *_, known in NAMES) == 14


def test_prices_of_tools_are_asked_for_before_the_call():
    """A budget in dollars needs the price of what the model may use."""
    assert is_priced("openai", "gpt-5-nano", tools=["web_search"])
    assert is_priced("openai", "gpt-6-luna", tools=["function"])
    assert not is_priced("openai", "gpt-6-luna", tools=["web_search"])
    assert is_priced("openai", "any/model", base_url="https://openrouter.ai/api/v1")
    assert not is_priced("openai", "any/model", base_url="https://openrouter.ai.example.org/api/v1")
    assert is_priced("claude-code", "")


# Properties of any record.

_COUNTS = st.one_of(
    st.integers(-10, 10**9), st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.lists(st.integers())
)
_AMOUNTS = st.integers(0, 10**7)
_NAMES = {
    "openai": ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost"),
    "anthropic": ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "thinking_tokens",
                  "ephemeral_1h_input_tokens", "web_search_requests"),
    "gemini": ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "toolUsePromptTokenCount",
               "totalTokenCount"),
}  # fmt: skip


def _record(service: str, counts: dict[str, Any]) -> TokenUsage:
    """A usage with these counts at their places."""
    match service:
        case "openai":
            inner = {name: counts.get(name) for name in ("cached_tokens", "cache_write_tokens")}
            outer = {"reasoning_tokens": counts.get("reasoning_tokens")}
            return of_openai({"usage": {**counts, "input_tokens_details": inner, "output_tokens_details": outer}})
        case "anthropic":
            parts = {
                "output_tokens_details": {"thinking_tokens": counts.get("thinking_tokens")},
                "cache_creation": {"ephemeral_1h_input_tokens": counts.get("ephemeral_1h_input_tokens")},
                "server_tool_use": {"web_search_requests": counts.get("web_search_requests")},
            }
            return of_anthropic({**counts, **parts})
        case _:
            return of_google(counts)


MODELS = {"openai": "gpt-5.6-sol", "anthropic": "claude-sonnet-4-6", "gemini": "gemini-2.5-pro"}


@pytest.mark.parametrize("service", MODELS)
@given(data=st.data())
def test_nonsense_is_never_negative_and_never_an_error(service: str, data: st.DataObject):
    """Whatever a server sends, buckets are counts or unknown, add up to the total, and the cost is no less than 0."""
    counts = data.draw(st.dictionaries(st.sampled_from(_NAMES[service]), _COUNTS))
    usage = _record(service, counts)
    buckets = (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
    assert all(n is None or (type(n) is int and n >= 0) for n in buckets)
    assert usage.total == (sum(n or 0 for n in buckets) if any(n is not None for n in buckets) else None)
    cost = cost_usd(service, MODELS[service], usage, at=AT)
    assert cost is None or cost >= 0
    if usage.input is None or usage.output is None:
        assert cost is None or "cost" in counts


@pytest.mark.parametrize("service", MODELS)
@given(data=st.data())
def test_more_costs_more(service: str, data: st.DataObject):
    """Whatever is counted more, the same call costs no less; where both are known."""
    names = [name for name in _NAMES[service] if name not in ("total_tokens", "totalTokenCount", "cost")]
    counts = {name: data.draw(_AMOUNTS, name) for name in names}
    parts = {"openai": ("cached_tokens", "cache_write_tokens"), "gemini": ("cachedContentTokenCount",)}.get(service, ())
    whole = {"openai": "input_tokens", "gemini": "promptTokenCount"}.get(service)
    if whole is not None:  # parts are within the whole
        counts[whole] += sum(counts[part] for part in parts)
    if (thoughts := {"openai": "reasoning_tokens", "anthropic": "thinking_tokens"}.get(service)) is not None:
        counts["output_tokens"] += counts[thoughts]  # they are within; a record in which they are not contradicts itself
    more = counts | {
        (name := data.draw(st.sampled_from([n for n in names if n not in parts]))): counts[name] + data.draw(_AMOUNTS)
    }
    before, after = (cost_usd(service, MODELS[service], _record(service, c), at=AT) for c in (counts, more))
    assert before is None or after is None or after >= before * (1 - 1e-12)


@given(
    st.lists(st.dictionaries(st.sampled_from(_NAMES["anthropic"][:4]), st.one_of(st.none(), _AMOUNTS)), max_size=5),
    st.dictionaries(st.sampled_from(_NAMES["anthropic"][:4]), _AMOUNTS, min_size=1),
)
def test_what_is_said_many_times_counts_once(steps: list[dict[str, Any]], last: dict[str, int]):
    """Cumulative records of a stream, whatever they leave out, come to the largest that was said: not to a sum, and not to less."""
    so_far: dict[str, Any] = {}
    for step in [*steps, last, last]:
        so_far = merged_counts(so_far, step)
    largest = {
        name: max(n for step in [*steps, last] if (n := step.get(name)) is not None)
        for name in {name for step in [*steps, last] for name, n in step.items() if n is not None}
    }
    assert {name: n for name, n in so_far.items() if n is not None} == largest
    assert count(float("nan")) is count(10**13) is count("1e9") is None


def test_a_price_that_changes_on_a_day():
    """The day of the call counts, for batches as well."""

    def price(usd: str) -> types.ModelPrice:
        return types.ModelPrice(input_mtok=Decimal(usd), output_mtok=Decimal(usd))

    later = types.StartDateConstraint(start_date=date(2027, 1, 1))
    model = types.ModelInfo(
        id="gemini-x", match=types.ClauseEquals("gemini-x"),
        prices=[types.ConditionalPrice(prices=price("1")), types.ConditionalPrice(constraint=later, prices=price("2"))],
        price_variants=[
            types.PriceVariant(when={"processing": "batch"}, prices=price("1"), constraint=later),
            types.PriceVariant(when={"processing": "batch"}, prices=price("0.5")),
        ],
    )  # fmt: skip
    google = types.Provider("google", "Google", r"https://.*googleapis\.com", models=[model])
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([google], from_auto_update=False))
    for day, usd in ((datetime(2026, 12, 31, 23, tzinfo=UTC), 1.0), (datetime(2027, 1, 1, tzinfo=UTC), 2.0)):
        usage = TokenUsage(600_000, 400_000)
        assert cost_usd("gemini", "gemini-x", usage, at=day) == pytest.approx(usd)
        assert cost_usd("gemini", "gemini-x", usage, at=day, batch=True) == pytest.approx(usd / 2)

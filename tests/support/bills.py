"""Usage records as the APIs send them, and what the providers bill for them, worked out by hand.

The prices are list prices of 2026-11-28 in US dollars for a million tokens, or a thousand searches, written out in each bill; the
table for the test is `PRICES`, so that a newer price list changes no bill.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from genai_prices import types

AT = datetime(2026, 11, 28, tzinfo=UTC)
M = 1_000_000


class Bill(NamedTuple):
    """What was sent, and what is right."""

    name: str
    model: str
    sent: dict[str, Any]
    tokens: tuple[int | None, ...]
    """input, output, cache_read, cache_write, reasoning."""
    usd: float | None
    base_url: str | None = None
    batch: bool = False


# The price list.


def _price(**prices: Any) -> types.ModelPrice:
    """Prices; a pair is (price, price of all tokens of a longer prompt)."""
    made: dict[str, Any] = {}
    for name, value in prices.items():
        if name == "tier":
            continue
        unit = name if name.endswith("_kcount") else f"{name}_mtok"
        one = value if isinstance(value, tuple) else (value,)
        first, *longer = (Decimal(str(v)) for v in one)
        tiers = [types.Tier(prices["tier"], price) for price in longer]
        made[unit] = types.TieredPrices(first, tiers) if tiers else first
    return types.ModelPrice(**made)


def _model(name: str, *variants: tuple[dict[str, str], dict[str, Any]], **prices: Any) -> types.ModelInfo:
    made = [types.PriceVariant(when=when, prices=_price(**changed)) for when, changed in variants]
    return types.ModelInfo(id=name, match=types.ClauseStartsWith(name), prices=_price(**prices), price_variants=made)


BATCH = {"processing": "batch"}
_HALF = (BATCH, {"input": 0.025, "output": 0.2, "cache_read": 0.0025})
PRICES = [
    types.Provider("openai", "OpenAI", r"https://api\.openai\.com", models=[
        _model("gpt-5-nano", _HALF, ({"service_tier": "flex"}, {"input": 0.025, "output": 0.2, "cache_read": 0.0025}),
               input=0.05, output=0.4, cache_read=0.005, web_searches_kcount=10, storage_searches_kcount=2.5),
        _model("gpt-5.6-sol", ({"service_tier": "priority"}, {"input": 8, "output": 40}),
               input=4, output=20, cache_read=0.4, cache_write=5, web_searches_kcount=10),
        _model("gpt-6-luna", input=(0.1, 0.2), output=(0.5, 0.75), cache_read=(0.01, 0.02), cache_write=(0.125, 0.25), tier=272_000),
        _model("gpt-4.1-mini", input=0.4, output=1.6, web_searches_kcount=10),
        _model("gpt-4o", input=2.5, output=10, cache_read=1.25, web_searches_kcount=10),
        _model("gpt-image-1.5", input=5, output=10, cache_read=1.25, input_image=8, output_image=32, cache_image_read=2),
    ]),
    types.Provider("anthropic", "Anthropic", r"https://api\.anthropic\.com", models=[
        _model("claude-sonnet-4-6", (BATCH, {"input": 1.5, "output": 7.5, "cache_read": 0.15, "cache_write": 1.875, "cache_write_1h": 3}),
               input=3, output=15, cache_read=0.3, cache_write=3.75, cache_write_1h=6, web_searches_kcount=10),
        _model("claude-haiku-5-5", input=(0.1, 0.5), output=(0.5, 2.5), cache_read=(0.01, 0.05), cache_write=(0.125, 0.625),
               web_searches_kcount=10, tier=100_000),
        _model("claude-opus-5-5", ({"speed": "fast"}, {"input": 8, "output": 40, "cache_read": 0.4, "cache_write": 10}),
               input=4, output=20, cache_read=0.2, cache_write=5, cache_write_1h=8, web_searches_kcount=10),
        _model("claude-short", input=0.25, output=1.25, cache_read=0.03, cache_write=0.3),
    ]),
    types.Provider("google", "Google", r"https://.*googleapis\.com", models=[
        _model("gemini-2.5-flash-image", input=0.3, output=2.5, output_image=30),
        _model("gemini-2.5-flash", (BATCH, {"input": 0.15, "output": 1.25}),
               input=0.3, output=2.5, cache_read=0.03, input_audio=1, cache_audio_read=0.1, web_searches_kcount=35),
        _model("gemini-2.5-pro", input=(1.25, 2.5), output=(10, 15), cache_read=(0.125, 0.25), web_searches_kcount=35, tier=200_000),
        _model("gemini-3.8-flash", ({"service_tier": "flex"}, {"input": 0.375, "output": 1.875}),
               input=0.75, output=3.75, cache_read=0.075, web_searches_kcount=14),
        _model("gemma-4"),
    ]),
]  # fmt: skip


# OpenAI's Responses API: what is said of a `response`.


def _openai(
    put_in: Any, put_out: Any, read: Any = None, written: Any = None, reasoning: Any = None, **more: Any
) -> dict[str, Any]:
    usage = {
        "input_tokens": put_in,
        "input_tokens_details": {"cached_tokens": read or 0, "cache_write_tokens": written or 0},
        "output_tokens": put_out,
        "output_tokens_details": {"reasoning_tokens": reasoning or 0},
        "total_tokens": put_in + put_out,
    }
    return {"usage": usage, **more}


def _search(action: str = "search", status: str = "completed") -> dict[str, Any]:
    actions = {
        "search": {"query": "x"},
        "open_page": {"url": "https://x.org"},
        "find_in_page": {"url": "https://x.org", "pattern": "x"},
    }
    return {"id": "ws_1", "type": "web_search_call", "status": status, "action": {"type": action, **actions[action]}}


def _counts(**more: Any) -> dict[str, Any]:
    return {"usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100, **more}}


_PICTURE = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "iVBORw0KGgo="}
_DRAWN = {
    "input_tokens": 60, "input_tokens_details": {"image_tokens": 10, "text_tokens": 50}, "output_tokens": 1100, "total_tokens": 1160,
    "output_tokens_details": {"image_tokens": 1056, "text_tokens": 44},
}  # fmt: skip
_DRAWS = {"type": "image_generation", "model": "gpt-image-1.5"}
_NO_SEARCH = {"num_requests": 0}
_NO_IMAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
_REFUSAL = {
    "type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [{"type": "refusal", "refusal": "No."}],
}  # fmt: skip
_BASE = (1000 * 0.05 + 100 * 0.4) / M

OPENAI = [
    Bill("plain", "gpt-5-nano", _openai(1000, 100), (1000, 100, 0, 0, 0), (1000 * 0.05 + 100 * 0.4) / M),
    Bill("cached", "gpt-5-nano", _openai(1000, 100, 800), (200, 100, 800, 0, 0), (200 * 0.05 + 800 * 0.005 + 100 * 0.4) / M),
    Bill("cache written", "gpt-5.6-sol", _openai(10_000, 10, 0, 9000), (1000, 10, 0, 9000, 0), (1000 * 4 + 9000 * 5 + 10 * 20) / M),
    Bill("cache read and written", "gpt-5.6-sol", _openai(10_000, 10, 4000, 5000), (1000, 10, 4000, 5000, 0),
         (1000 * 4 + 4000 * 0.4 + 5000 * 5 + 10 * 20) / M),
    Bill("cache kept for 12 hours, no price", "gpt-5.6-sol",
         {"usage": {"input_tokens": 10_000, "output_tokens": 10, "total_tokens": 10_010, "output_tokens_details": {"reasoning_tokens": 0},
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 9000,
                                             "cache_write_tokens_details": {"ttl_12h_tokens": 9000, "ttl_30m_tokens": 0}}}},
         (1000, 10, 0, 9000, 0), None),
    Bill("reasoning within the output", "gpt-5-nano", _openai(1000, 500, 0, 0, 400), (1000, 100, 0, 0, 400),
         (1000 * 0.05 + 500 * 0.4) / M),
    Bill("at the limit of the tier", "gpt-6-luna", _openai(272_000, 1000), (272_000, 1000, 0, 0, 0), (272_000 * 0.1 + 1000 * 0.5) / M),
    Bill("beyond the tier, all of it", "gpt-6-luna", _openai(272_001, 1000, 200_000), (72_001, 1000, 200_000, 0, 0),
         (72_001 * 0.2 + 200_000 * 0.02 + 1000 * 0.75) / M),
    Bill("beyond the tier, read and written", "gpt-6-luna", _openai(300_000, 1000, 100_000, 50_000, 400), (150_000, 600, 100_000, 50_000, 400),
         (150_000 * 0.2 + 100_000 * 0.02 + 50_000 * 0.25 + 1000 * 0.75) / M),
    Bill("audio, not told from text", "gpt-5-nano",
         {"usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100, "input_tokens_details": {"audio_tokens": 900}}},
         (1000, 100, None, None, None), None),
    Bill("standard class", "gpt-5-nano", _openai(1000, 100, service_tier="default"), (1000, 100, 0, 0, 0), _BASE),
    Bill("flex", "gpt-5-nano", _openai(1000, 100, 800, service_tier="flex"), (200, 100, 800, 0, 0),
         (200 * 0.025 + 800 * 0.0025 + 100 * 0.2) / M),
    Bill("priority", "gpt-5.6-sol", _openai(1000, 100, service_tier="priority"), (1000, 100, 0, 0, 0), (1000 * 8 + 100 * 40) / M),
    Bill("priority, no price", "gpt-5-nano", _openai(1000, 100, service_tier="priority"), (1000, 100, 0, 0, 0), None),
    Bill("a class that is new", "gpt-5.6-sol", _openai(1000, 100, service_tier="ultrafast"), (1000, 100, 0, 0, 0), None),
    Bill("searches; pages that are opened are free", "gpt-5-nano",
         _openai(1000, 100, output=[_search(), _search("open_page"), _search(), _search("find_in_page"), _search()]),
         (1000, 100, 0, 0, 0), _BASE + 3 * 10 / 1000),
    Bill("a failed search is free", "gpt-5-nano", _openai(1000, 100, output=[_search(), _search(status="failed")]),
         (1000, 100, 0, 0, 0), _BASE + 10 / 1000),
    Bill("several queries in one search, not counted by the server", "gpt-5-nano",
         _openai(1000, 100, output=[_search() | {"action": {"type": "search", "queries": ["a", "b"]}}]), (1000, 100, 0, 0, 0), None),
    Bill("searches as counted by the server", "gpt-5-nano",
         _openai(1000, 100, output=[_search(), _search(), _search()], tool_usage={"web_search": {"num_requests": 2}, "image_gen": _NO_IMAGE}),
         (1000, 100, 0, 0, 0), _BASE + 2 * 10 / 1000),
    Bill("preview of search in an old model, another price", "gpt-4o",
         _openai(1000, 100, output=[_search()], tools=[{"type": "web_search_preview"}]), (1000, 100, 0, 0, 0), None),
    Bill("search in an old small model, hidden tokens", "gpt-4.1-mini",
         _openai(1000, 100, output=[_search()], tools=[{"type": "web_search"}]), (1000, 100, 0, 0, 0), None),
    Bill("search in an old model", "gpt-4o", _openai(1000, 100, output=[_search()], tools=[{"type": "web_search"}]),
         (1000, 100, 0, 0, 0), (1000 * 2.5 + 100 * 10) / M + 10 / 1000),
    Bill("search without a listed price", "gpt-6-luna", _openai(1000, 100, output=[_search()]), (1000, 100, 0, 0, 0), None),
    Bill("search in files", "gpt-5-nano",
         _openai(1000, 100, output=[{"id": "fs", "type": "file_search_call", "status": "completed", "queries": ["x"]}]),
         (1000, 100, 0, 0, 0), _BASE + 2.5 / 1000),
    Bill("code interpreter, no price", "gpt-5-nano",
         _openai(1000, 100, output=[{"id": "ci", "type": "code_interpreter_call", "status": "completed", "container_id": "c", "code": "1"}]),
         (1000, 100, 0, 0, 0), None),
    Bill("image", "gpt-5-nano",
         _openai(1000, 100, output=[_PICTURE], tools=[_DRAWS], tool_usage={"web_search": _NO_SEARCH, "image_gen": _DRAWN}),
         (1000, 100, 0, 0, 0), _BASE + (50 * 5 + 10 * 8 + 44 * 10 + 1056 * 32) / M),
    Bill("image, kinds of output not told apart", "gpt-5-nano",
         _openai(1000, 100, output=[_PICTURE], tools=[_DRAWS], tool_usage={
             "web_search": _NO_SEARCH, "image_gen": {k: v for k, v in _DRAWN.items() if k != "output_tokens_details"}}),
         (1000, 100, 0, 0, 0), _BASE + (50 * 5 + 10 * 8 + 1100 * 32) / M),
    Bill("image without a count", "gpt-5-nano", _openai(1000, 100, output=[_PICTURE], tools=[_DRAWS]), (1000, 100, 0, 0, 0), None),
    Bill("image of an unnamed model", "gpt-5-nano",
         _openai(1000, 100, output=[_PICTURE], tool_usage={"web_search": _NO_SEARCH, "image_gen": _DRAWN}), (1000, 100, 0, 0, 0), None),
    Bill("refusal", "gpt-5-nano", _openai(1000, 100, output=[_REFUSAL]), (1000, 100, 0, 0, 0), _BASE),
    Bill("filtered", "gpt-5-nano", _openai(1000, 100, status="incomplete", incomplete_details={"reason": "content_filter"}),
         (1000, 100, 0, 0, 0), _BASE),
    Bill("failed with a count", "gpt-5-nano", _openai(1000, 100, status="failed", error={"code": "server_error", "message": "x"}),
         (1000, 100, 0, 0, 0), _BASE),
    Bill("another model than asked for", "gpt-5-nano", _openai(1000, 100, model="gpt-6-luna"), (1000, 100, 0, 0, 0),
         (1000 * 0.1 + 100 * 0.5) / M),
    Bill("an unknown model than asked for", "gpt-5-nano", _openai(1000, 100, model="o9-mystery"), (1000, 100, 0, 0, 0), None),
    Bill("unlisted model", "gpt-9", _openai(1000, 100, model="gpt-9"), (1000, 100, 0, 0, 0), None),
    Bill("no usage", "gpt-5-nano", {"usage": None}, (None,) * 5, None),
    Bill("batch", "gpt-5-nano", _openai(1000, 100), (1000, 100, 0, 0, 0), (1000 * 0.025 + 100 * 0.2) / M, batch=True),
    Bill("batch, cached", "gpt-5-nano", _openai(1000, 100, 800), (200, 100, 800, 0, 0),
         (200 * 0.025 + 800 * 0.0025 + 100 * 0.2) / M, batch=True),
    Bill("batch with a search", "gpt-5-nano", _openai(1000, 100, output=[_search()]), (1000, 100, 0, 0, 0),
         (1000 * 0.025 + 100 * 0.2) / M + 10 / 1000, batch=True),
    Bill("batch without a listed price", "gpt-6-luna", _openai(1000, 100), (1000, 100, 0, 0, 0), None, batch=True),
    # Servers that speak the same API.
    Bill("no details: all at the full price", "gpt-5-nano", _counts(), (1000, 100, None, None, None), _BASE),
    Bill("output from the total", "gpt-5-nano", {"usage": {"input_tokens": 1000, "total_tokens": 1100}}, (1000, 100, None, None, None), _BASE),
    Bill("half a usage", "gpt-5-nano", {"usage": {"input_tokens": 1000}}, (1000, None, None, None, None), None),
    Bill("no record at all", "gpt-5-nano", {"usage": ["many"]}, (None,) * 5, None),
    Bill("nonsense", "gpt-5-nano", {"usage": {"input_tokens": -5, "output_tokens": "many", "total_tokens": True}}, (None,) * 5, None),
    Bill("numbers as text and as floats", "gpt-5-nano", {"usage": {"input_tokens": "1000", "output_tokens": 100.0}},
         (1000, 100, None, None, None), _BASE),
    Bill("regional server", "gpt-5-nano", _openai(1000, 100), (1000, 100, 0, 0, 0), None, "https://eu.api.openai.com/v1"),
    Bill("look-alike", "gpt-5-nano", _openai(1000, 100), (1000, 100, 0, 0, 0), None, "https://api.openai.com.example.org/v1"),
    Bill("Azure", "gpt-5-nano", _openai(1000, 100), (1000, 100, 0, 0, 0), None, "https://x.openai.azure.com/openai/v1"),
    Bill("vLLM", "gpt-5-nano", _counts(input_tokens_details={"cached_tokens": 0}), (1000, 100, 0, None, None), None, "http://10.0.0.5:8000/v1"),
    Bill("xAI: reasoning beside the output, more than it", "grok-5",
         {"usage": {"input_tokens": 30, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 200}, "total_tokens": 235}},
         (30, 5, None, None, 200), None, "https://api.x.ai/v1"),
    Bill("xAI: reasoning beside the output, less than it", "grok-5",
         {"usage": {"input_tokens": 30, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 100,
                    "cost_in_usd_ticks": 37_756_000}},
         (30, 50, None, None, 20), 0.0037756, "https://api.x.ai/v1"),
    Bill("OpenRouter", "openai/gpt-5-nano", _counts(cost=0.00123, is_byok=False), (1000, 100, None, None, None), 0.00123,
         "https://openrouter.ai/api/v1"),
    Bill("OpenRouter, a free model", "x/y:free", _counts(cost=0), (1000, 100, None, None, None), 0.0, "https://openrouter.ai/api/v1"),
    Bill("OpenRouter, a key of one's own", "openai/gpt-5-nano",
         _counts(cost=0.00005, is_byok=True, cost_details={"upstream_inference_cost": 0.001}), (1000, 100, None, None, None), 0.00105,
         "https://openrouter.ai/api/v1"),
    Bill("OpenRouter, a key of one's own, the other half unknown", "openai/gpt-5-nano", _counts(cost=0.00005, is_byok=True),
         (1000, 100, None, None, None), None, "https://openrouter.ai/api/v1"),
    Bill("LiteLLM", "my-alias", _counts(cost=0.0042), (1000, 100, None, None, None), 0.0042, "https://llm.corp.example/v1"),
    Bill("LiteLLM without a price says 0", "my-alias", _counts(cost=0.0), (1000, 100, None, None, None), None, "https://llm.corp.example/v1"),
    Bill("a cost that is none", "my-alias", _counts(cost=-3.0), (1000, 100, None, None, None), None, "https://llm.corp.example/v1"),
    Bill("Perplexity", "sonar", _counts(cost={"currency": "USD", "total_cost": 0.006}), (1000, 100, None, None, None), 0.006,
         "https://api.perplexity.ai/v1"),
    Bill("names of Chat Completions, as DeepSeek has them", "deepseek-chat",
         {"usage": {"prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300, "prompt_cache_hit_tokens": 600,
                    "prompt_cache_miss_tokens": 400, "completion_tokens_details": {"reasoning_tokens": 250}}},
         (400, 50, 600, None, 250), None, "https://api.deepseek.com/v1"),
    Bill("cached tokens beside the input", "m",
         {"usage": {"input_tokens": 100, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 900}, "total_tokens": 1010}},
         (100, 10, 900, None, None), None, "https://llm.corp.example/v1"),
]  # fmt: skip


# Anthropic's Messages API: usage of `message_start`, and that of `message_delta`; `reason` why it stopped.


def _claude(start: dict[str, Any] | None, delta: dict[str, Any] | None, reason: str = "end_turn") -> dict[str, Any]:
    return {"start": start, "delta": delta, "reason": reason}


def _input(put_in: int, read: int = 0, written: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": put_in,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": 1,
        **more,
    }


_SONNET = (1000 * 3 + 200 * 15) / M

ANTHROPIC = [
    Bill("plain", "claude-sonnet-4-6", _claude(_input(1000), {"output_tokens": 200}), (1000, 200, 0, 0, None), _SONNET),
    Bill("cache read and written", "claude-sonnet-4-6", _claude(_input(100, 5000, 2000), {"output_tokens": 200}), (100, 200, 5000, 2000, None),
         (100 * 3 + 5000 * 0.3 + 2000 * 3.75 + 200 * 15) / M),
    Bill("cache written for an hour", "claude-sonnet-4-6",
         _claude(_input(0, 0, 100_000, cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100_000}), {"output_tokens": 5}),
         (0, 5, 0, 100_000, None), (100_000 * 6 + 5 * 15) / M),
    Bill("cache written both ways", "claude-sonnet-4-6",
         _claude(_input(10, 0, 3000, cache_creation={"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000}), {"output_tokens": 5}),
         (10, 5, 0, 3000, None), (10 * 3 + 1000 * 3.75 + 2000 * 6 + 5 * 15) / M),
    Bill("an hour without a listed price", "claude-short",
         _claude(_input(10, 0, 3000, cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 3000}), {"output_tokens": 5}),
         (10, 5, 0, 3000, None), None),
    Bill("searches", "claude-sonnet-4-6",
         _claude(_input(1000), {"output_tokens": 200, "server_tool_use": {"web_search_requests": 5, "web_fetch_requests": 7}}),
         (1000, 200, 0, 0, None), _SONNET + 5 * 10 / 1000),
    Bill("searches without a listed price", "claude-short",
         _claude(_input(1000), {"output_tokens": 200, "server_tool_use": {"web_search_requests": 1}}), (1000, 200, 0, 0, None), None),
    Bill("another tool of the server", "claude-sonnet-4-6",
         _claude(_input(1000), {"output_tokens": 200, "server_tool_use": {"web_search_requests": 0, "code_execution_requests": 2}}),
         (1000, 200, 0, 0, None), None),
    Bill("thinking", "claude-sonnet-4-6", _claude(_input(1000), {"output_tokens": 200, "output_tokens_details": {"thinking_tokens": 150}}),
         (1000, 50, 0, 0, 150), _SONNET),
    Bill("the end repeats the beginning", "claude-sonnet-4-6", _claude(_input(1000), {**_input(1000), "output_tokens": 200}),
         (1000, 200, 0, 0, None), _SONNET),
    Bill("the end says 0 for what it does not know", "claude-sonnet-4-6", _claude(_input(1000), {"input_tokens": 0, "output_tokens": 200}),
         (1000, 200, 0, 0, None), _SONNET),
    Bill("the input is told at the end", "claude-sonnet-4-6", _claude({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 1000, "output_tokens": 200}),
         (1000, 200, None, None, None), _SONNET),
    Bill("the input grows with what a search found", "claude-sonnet-4-6",
         _claude(_input(1000), {"input_tokens": 9000, "output_tokens": 200, "server_tool_use": {"web_search_requests": 1}}),
         (9000, 200, 0, 0, None), (9000 * 3 + 200 * 15) / M + 10 / 1000),
    Bill("nulls", "claude-sonnet-4-6",
         _claude({**_input(1000), "cache_creation": None, "server_tool_use": None, "service_tier": None}, {"input_tokens": None, "output_tokens": 200}),
         (1000, 200, 0, 0, None), _SONNET),
    Bill("no usage", "claude-sonnet-4-6", _claude(None, None), (None,) * 5, None),
    Bill("a prompt within the tier, all kinds together", "claude-haiku-5-5", _claude(_input(40_000, 30_000, 30_000), {"output_tokens": 1000}),
         (40_000, 1000, 30_000, 30_000, None), (40_000 * 0.1 + 30_000 * 0.01 + 30_000 * 0.125 + 1000 * 0.5) / M),
    Bill("a prompt beyond the tier, all kinds together", "claude-haiku-5-5", _claude(_input(40_001, 30_000, 30_000), {"output_tokens": 1000}),
         (40_001, 1000, 30_000, 30_000, None), (40_001 * 0.5 + 30_000 * 0.05 + 30_000 * 0.625 + 1000 * 2.5) / M),
    Bill("standard class and speed", "claude-opus-5-5",
         _claude(_input(1000, service_tier="standard", speed="standard", inference_geo="global"), {"output_tokens": 200}),
         (1000, 200, 0, 0, None), (1000 * 4 + 200 * 20) / M),
    Bill("fast", "claude-opus-5-5", _claude(_input(1000, 500, 0, speed="fast"), {"output_tokens": 200}), (1000, 200, 500, 0, None),
         (1000 * 8 + 500 * 0.4 + 200 * 40) / M),
    Bill("fast without a listed price", "claude-sonnet-4-6", _claude(_input(1000, speed="fast"), {"output_tokens": 200}),
         (1000, 200, 0, 0, None), None),
    Bill("in the US: tokens cost a tenth more, searches do not", "claude-opus-5-5",
         _claude(_input(1000, 500, inference_geo="us"), {"output_tokens": 200, "server_tool_use": {"web_search_requests": 2}}),
         (1000, 200, 500, 0, None), 1.1 * (1000 * 4 + 500 * 0.2 + 200 * 20) / M + 2 * 10 / 1000),
    Bill("in a place that is new", "claude-opus-5-5", _claude(_input(1000, inference_geo="eu"), {"output_tokens": 200}),
         (1000, 200, 0, 0, None), None),
    Bill("priority, paid in advance", "claude-sonnet-4-6", _claude(_input(1000, service_tier="priority"), {"output_tokens": 200}),
         (1000, 200, 0, 0, None), None),
    Bill("refusal", "claude-sonnet-4-6", _claude(_input(1000), {"output_tokens": 200}, "refusal"), (1000, 200, 0, 0, None), _SONNET),
    Bill("batch", "claude-sonnet-4-6", _claude(_input(1000, service_tier="batch"), {"output_tokens": 200}), (1000, 200, 0, 0, None),
         (1000 * 1.5 + 200 * 7.5) / M, batch=True),
    Bill("batch, cached both ways", "claude-sonnet-4-6",
         _claude(_input(0, 500, 3000, cache_creation={"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000}), {"output_tokens": 200}),
         (0, 200, 500, 3000, None), (500 * 0.15 + 1000 * 1.875 + 2000 * 3 + 200 * 7.5) / M, batch=True),
    Bill("batch without a listed price", "claude-opus-5-5", _claude(_input(1000), {"output_tokens": 200}), (1000, 200, 0, 0, None), None, batch=True),
    Bill("another server", "claude-sonnet-4-6", _claude(_input(1000), {"output_tokens": 200}), (1000, 200, 0, 0, None), None,
         "https://api.deepseek.com/anthropic"),
]  # fmt: skip


# The Gemini API: `usageMetadata`, and what a candidate has besides.


def _gemini(
    prompt: int | None, said: int | None, cached: int = 0, thoughts: int = 0, tool: int = 0, **more: Any
) -> dict[str, Any]:
    counts = {
        "promptTokenCount": prompt, "candidatesTokenCount": said, "cachedContentTokenCount": cached, "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": tool, "totalTokenCount": (prompt or 0) + (said or 0) + thoughts + tool,
    }  # fmt: skip
    return {"usage": {name: n for name, n in counts.items() if n} | more.pop("usage", {}), **more}


def _found(*queries: str) -> dict[str, Any]:
    return {
        "groundingMetadata": {
            "webSearchQueries": list(queries),
            "groundingChunks": [{"web": {"uri": "https://x.org", "title": "x"}}],
        }
    }


def _of(kind: str, n: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": 20}, {"modality": kind, "tokenCount": n}]


_FLASH = (1000 * 0.3 + 100 * 2.5) / M
_IMAGE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}

GOOGLE = [
    Bill("plain", "gemini-2.5-flash", _gemini(1000, 100), (1000, 100, None, None, None), _FLASH),
    Bill("thoughts beside the answer", "gemini-2.5-flash", _gemini(1000, 100, thoughts=400), (1000, 100, None, None, 400),
         (1000 * 0.3 + 500 * 2.5) / M),
    Bill("thoughts within the answer, as gateways count", "gemini-2.5-flash",
         {"usage": {"promptTokenCount": 1000, "candidatesTokenCount": 500, "thoughtsTokenCount": 400, "totalTokenCount": 1500}},
         (1000, 100, None, None, 400), (1000 * 0.3 + 500 * 2.5) / M),
    Bill("cached within the prompt", "gemini-2.5-flash", _gemini(1000, 100, 600), (400, 100, 600, None, None),
         (400 * 0.3 + 600 * 0.03 + 100 * 2.5) / M),
    Bill("an answer of thoughts only", "gemini-2.5-flash", _gemini(1000, None, thoughts=400, finish="MAX_TOKENS"), (1000, 0, None, None, 400),
         (1000 * 0.3 + 400 * 2.5) / M),
    Bill("thoughts that only the total shows", "gemini-2.5-flash",
         {"usage": {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1500}}, (1000, 100, None, None, 400),
         (1000 * 0.3 + 500 * 2.5) / M),
    Bill("results of tools", "gemini-2.5-flash", _gemini(1000, 100, tool=300), (1300, 100, None, None, None), (1300 * 0.3 + 100 * 2.5) / M),
    Bill("a prompt within the tier", "gemini-2.5-pro", _gemini(200_000, 100), (200_000, 100, None, None, None), (200_000 * 1.25 + 100 * 10) / M),
    Bill("a prompt beyond the tier", "gemini-2.5-pro", _gemini(200_001, 100, 100_000), (100_001, 100, 100_000, None, None),
         (100_001 * 2.5 + 100_000 * 0.25 + 100 * 15) / M),
    Bill("grounding up to 2.5: once for a prompt", "gemini-2.5-flash", _gemini(1000, 100, candidate=_found("a", "b", "c")),
         (1000, 100, None, None, None), _FLASH + 35 / 1000),
    Bill("grounding of later models: each search, once", "gemini-3.8-flash", _gemini(1000, 100, candidate=_found("a", "", "b", "a")),
         (1000, 100, None, None, None), (1000 * 0.75 + 100 * 3.75) / M + 2 * 14 / 1000),
    Bill("grounding that found nothing worth a search", "gemini-3.8-flash",
         _gemini(1000, 100, candidate={"groundingMetadata": {"webSearchQueries": [""]}}), (1000, 100, None, None, None),
         (1000 * 0.75 + 100 * 3.75) / M),
    Bill("pages without the searches that found them", "gemini-3.8-flash", _gemini(1000, 100, candidate=_found()), (1000, 100, None, None, None), None),
    Bill("places", "gemini-3.8-flash",
         _gemini(1000, 100, candidate={"groundingMetadata": {"groundingChunks": [{"maps": {"uri": "https://x.org", "title": "x"}}]}}),
         (1000, 100, None, None, None), None),
    Bill("image", "gemini-2.5-flash-image", _gemini(1000, 1310, usage={"candidatesTokensDetails": _of("IMAGE", 1290)}, parts=[_IMAGE]),
         (1000, 1310, None, None, None), (1000 * 0.3 + 20 * 2.5 + 1290 * 30) / M),
    Bill("image without a count", "gemini-2.5-flash-image", _gemini(1000, 1310, parts=[_IMAGE]), (1000, 1310, None, None, None), None),
    Bill("image without a listed price", "gemini-2.5-flash", _gemini(1000, 1310, usage={"candidatesTokensDetails": _of("IMAGE", 1290)}),
         (1000, 1310, None, None, None), None),
    Bill("audio", "gemini-2.5-flash", _gemini(1000, 100, usage={"promptTokensDetails": _of("AUDIO", 980)}), (1000, 100, None, None, None),
         (20 * 0.3 + 980 * 1 + 100 * 2.5) / M),
    Bill("audio at the price of text", "gemini-2.5-pro", _gemini(1000, 100, usage={"promptTokensDetails": _of("AUDIO", 980)}),
         (1000, 100, None, None, None), (1000 * 1.25 + 100 * 10) / M),
    Bill("filtered", "gemini-2.5-flash", _gemini(1000, 100, finish="SAFETY"), (1000, 100, None, None, None), _FLASH),
    Bill("a call that cannot be read", "gemini-2.5-flash", _gemini(1000, 100, finish="MALFORMED_FUNCTION_CALL"),
         (1000, 100, None, None, None), _FLASH),
    Bill("no usage", "gemini-2.5-flash", {"usage": {}}, (None,) * 5, None),
    Bill("a model without any price", "gemma-4", _gemini(1000, 100), (1000, 100, None, None, None), None),
    Bill("flex", "gemini-3.8-flash", _gemini(1000, 100, tier="flex"), (1000, 100, None, None, None), (1000 * 0.375 + 100 * 1.875) / M),
    Bill("priority without a listed price", "gemini-3.8-flash", _gemini(1000, 100, tier="priority"), (1000, 100, None, None, None), None),
    Bill("standard class", "gemini-3.8-flash", _gemini(1000, 100, tier="standard"), (1000, 100, None, None, None), (1000 * 0.75 + 100 * 3.75) / M),
    Bill("batch; cached tokens are not cheaper", "gemini-2.5-flash", _gemini(1000, 100, 600), (400, 100, 600, None, None),
         (400 * 0.15 + 600 * 0.03 + 100 * 1.25) / M, batch=True),
]  # fmt: skip


# Ollama: the counts of the last line.

OLLAMA = [
    Bill("a server of one's own", "llama3.2", {"prompt_eval_count": 20, "eval_count": 9}, (20, 9, None, None, None), 0.0),
    Bill("in the private network", "llama3.2", {"prompt_eval_count": 20, "eval_count": 9}, (20, 9, None, None, None), 0.0, "http://10.0.0.5:11434"),
    Bill("a cached prompt has no count", "llama3.2", {"prompt_eval_count": None, "eval_count": 9}, (None, 9, None, None, None), 0.0),
    Bill("a model at ollama.com", "gpt-oss:120b-cloud", {"prompt_eval_count": 20, "eval_count": 9}, (20, 9, None, None, None), None),
    Bill("a server of somebody", "llama3.2", {"prompt_eval_count": 20, "eval_count": 9}, (20, 9, None, None, None), None, "https://llm.example.org"),
]  # fmt: skip

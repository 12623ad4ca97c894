"""What the APIs of the providers say of a call's tokens and fees, as `TokenUsage` with its bill.

Servers that imitate an API leave counts out, name them otherwise, count parts beside a total instead of within it, or send nonsense.
So here: what is not a count is unknown, neither 0 nor negative; the server's own total decides what is part of what; and whatever is
billed but cannot be priced goes into the bill under a name that no price list has, so that the cost is unknown instead of too low.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from dipeo_nb.domain.chat import BillItem, TokenUsage

MOST = 10**12
"""Tokens of a call at most; what is larger is not a count."""
TICKS = 10**10
"""xAI's ticks in a US dollar."""
UNKNOWN = "unreported"
"""Unit of what was used and not counted."""


NOTHING = TokenUsage(bill=(BillItem({UNKNOWN: 1}),))
"""The usage of an answer without one."""


def count(value: Any) -> int | None:
    """A count as servers send it: a whole number, perhaps as a float or as digits. None for anything else."""
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and re.fullmatch("[0-9]{1,13}", value)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST else None


def record(value: Any, *, by_alias: bool = False) -> dict[str, Any]:
    """A provider's record as it was sent; empty when it is none."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=by_alias, exclude_none=True, warnings=False)
    return {}


def merged_counts(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two cumulative records of one answer as one: a count never shrinks, and what the later one leaves out stays."""
    result = dict(before)
    for name, value in after.items():
        known = result.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[name] = merged_counts(cast("Mapping[str, Any]", known), cast("Mapping[str, Any]", value))
        elif (old := count(known)) is not None:
            new = count(value)
            result[name] = old if new is None else max(old, new)
        elif value is not None:
            result[name] = value
    return result


# OpenAI's Responses API, and what imitates it. Chat Completions has other names for the same; embedded models use those.


def of_openai(final: Any) -> TokenUsage:
    """The usage of a finished Responses API object: its tokens, what its built-in tools took, and what a gateway charges."""
    raw = record(_get(final, "usage"))
    usage = of_tokens(raw)
    tokens = usage.bill[0]
    if not raw or tokens.usd is not None:
        return usage
    fees, others = _tools(final)
    tier = _get(final, "service_tier")
    terms = {"service_tier": tier} if isinstance(tier, str) else {}
    return _billed(usage, BillItem({**tokens.units, **fees}, terms), *others)


def of_tokens(raw: Mapping[str, Any]) -> TokenUsage:
    """The tokens of a `usage` of Responses or Chat Completions: cached ones within the input, reasoning within the output, unless
    the total says that they are beside it (as xAI counts reasoning)."""
    if not raw:
        return NOTHING
    inner = _part(raw, "input_tokens_details", "prompt_tokens_details")
    outer = _part(raw, "output_tokens_details", "completion_tokens_details")
    put_in = _first(raw, "input_tokens", "prompt_tokens")
    put_out = _first(raw, "output_tokens", "completion_tokens")
    read = _first(inner, "cached_tokens")
    if read is None:
        read = _first(raw, "prompt_cache_hit_tokens", "cached_prompt_text_tokens")
    written, reasoning = _first(inner, "cache_write_tokens"), _first(outer, "reasoning_tokens")
    if reasoning is None:
        reasoning = _first(raw, "reasoning_tokens")
    total = _first(raw, "total_tokens")
    if total is not None:
        if put_out is None and put_in is not None and total >= put_in:
            put_out = total - put_in
        elif put_in is None and put_out is not None and total >= put_out:
            put_in = total - put_out
    cached = (read or 0) + (written or 0)
    cache_beside, thoughts_beside = _beside(total, put_in, put_out, cached, reasoning or 0)
    within = None if put_in is None else max(0, put_in - (0 if cache_beside else cached))
    said = None if put_out is None else put_out - (0 if thoughts_beside else reasoning or 0)
    units = {
        **_units(within, said, read, written, reasoning),
        **_some(
            input_audio_tokens=_first(inner, "audio_tokens"),
            output_audio_tokens=_first(outer, "audio_tokens"),
            output_image_tokens=_first(outer, "image_tokens"),
            cache_write_12h_tokens=_first(_part(inner, "cache_write_tokens_details"), "ttl_12h_tokens"),
        ),
    }
    return TokenUsage(within, said, read, written, reasoning, dict(raw), (BillItem(units, usd=_charged(raw)),))


def _beside(total: int | None, put_in: int | None, put_out: int | None, cached: int, reasoning: int) -> tuple[bool, bool]:
    """Whether cached tokens are counted beside the input, and reasoning beside the output."""
    likely = (False, put_out is not None and reasoning > put_out)
    if total is None or put_in is None or put_out is None:
        return likely
    for cache, thoughts in ((False, False), (False, True), (True, False), (True, True)):
        possible = (cache or cached <= put_in) and (thoughts or reasoning <= put_out)
        if possible and total == put_in + put_out + cache * cached + thoughts * reasoning:
            return cache, thoughts
    return likely


def _charged(raw: Mapping[str, Any]) -> float | None:
    """What a gateway says that it charges: xAI in ticks; OpenRouter, LiteLLM and others in dollars. With a key of one's own at
    OpenRouter, the provider's bill comes on top."""
    ticks = _amount(raw.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / TICKS
    cost: Any = raw.get("cost")
    if isinstance(cost, Mapping):
        whole = cast("Mapping[str, Any]", cost)
        cost = whole.get("total_cost") if whole.get("currency", "USD") == "USD" else None
    charged = _amount(cost)
    if charged is None or not raw.get("is_byok"):
        return charged
    upstream = _amount(_part(raw, "cost_details").get("upstream_inference_cost"))
    return None if upstream is None else charged + upstream


_FREE_ITEMS = frozenset({
    "message", "reasoning", "function_call", "custom_tool_call", "web_search_call", "image_generation_call", "file_search_call",
    "mcp_call", "mcp_list_tools", "mcp_approval_request", "compaction", "local_shell_call", "apply_patch_call",
})  # fmt: skip
"""Items of an output without a fee of their own, or with one that is counted in another way."""


def _tools(final: Any) -> tuple[dict[str, int], list[BillItem]]:
    """Fees of OpenAI's built-in tools by unit, and the bills of other models that they used."""
    output = [item for item in _list(_get(final, "output")) if _get(item, "type")]
    kinds = [str(_get(item, "type")) for item in output]
    used = record(_get(final, "tool_usage"))
    model = str(_get(final, "model") or "")
    fees: dict[str, int] = {}
    searches = _first(_part(used, "web_search"), "num_requests")
    if searches is None:
        made = list(filter(_is_search, output))
        searches = len(made)
        if any(len(_list(_get(_get(item, "action"), "queries"))) > 1 for item in made):
            fees["searches_of_several_queries"] = searches
    if searches:
        fees[_search_unit(final, model)] = searches
    fees |= _some(storage_searches=kinds.count("file_search_call"))
    fees |= {kind: kinds.count(kind) for kind in set(kinds) - _FREE_ITEMS}
    images = [item for item in output if _get(item, "type") == "image_generation_call" and _get(item, "result")]
    drawn = _part(used, "image_gen")
    if any(_get(image, "svg_usage") for image in images):
        fees["svg_images"] = len(images)
    elif _first(drawn, "output_tokens"):
        return fees, [_drawn(drawn, final)]
    elif images:
        fees["images"] = len(images)
    return fees, []


def _is_search(item: Any) -> bool:
    """Whether an item of the output is a search that is paid for: opening a page is none, and a failed one is not billed."""
    if _get(item, "type") != "web_search_call" or _get(item, "status") == "failed":
        return False
    return _get(_get(item, "action"), "type") in (None, "search")


def _search_unit(final: Any, model: str) -> str:
    """The price list has one price for searches; models that do not reason pay another one for previews, and small ones a fixed
    number of tokens beside it, which the usage does not show."""
    old = model.startswith(("gpt-4", "gpt-3", "chatgpt"))
    preview = any(str(_get(tool, "type") or "").startswith("web_search_preview") for tool in _list(_get(final, "tools")))
    return "web_searches_of_old_models" if old and (preview or "-mini" in model or "-nano" in model) else "web_searches"


def _drawn(used: Mapping[str, Any], final: Any) -> BillItem:
    """The bill of the image model; what is not distinguished counts as the more expensive kind."""
    tools = [tool for tool in _list(_get(final, "tools")) if _get(tool, "type") == "image_generation"]
    name = str(_get(tools[0], "model") or "") if tools else ""
    inner, outer = _part(used, "input_tokens_details"), _part(used, "output_tokens_details")
    kept = _part(used, "cached_tokens_details")
    output, pictures = _first(used, "output_tokens"), _first(outer, "image_tokens")
    units = _some(
        input_tokens=_first(used, "input_tokens"),
        input_image_tokens=_first(inner, "image_tokens"),
        cache_read_tokens=_first(used, "cached_tokens"),
        cache_image_read_tokens=_first(kept, "cached_image_tokens"),
        output_tokens=output,
        output_image_tokens=output if pictures is None else pictures,
    )
    return BillItem(units if name else {**units, "image_model": 1}, model=name or None)


# Anthropic's Messages API.


def of_anthropic(raw: Mapping[str, Any]) -> TokenUsage:
    """Anthropic counts cached input apart already; thinking is within the output where it is reported."""
    if not raw:
        return NOTHING
    put_in, put_out = _first(raw, "input_tokens"), _first(raw, "output_tokens")
    read, written = _first(raw, "cache_read_input_tokens"), _first(raw, "cache_creation_input_tokens")
    thinking = _first(_part(raw, "output_tokens_details"), "thinking_tokens")
    kept = _part(raw, "cache_creation")
    short, long = _first(kept, "ephemeral_5m_input_tokens"), _first(kept, "ephemeral_1h_input_tokens")
    if (by_time := (short or 0) + (long or 0)) > (written or 0):
        written = by_time
    said = put_out
    if put_out is not None and thinking is not None and thinking <= put_out:
        said = put_out - thinking
    tools = _part(raw, "server_tool_use")
    fees = {
        {"web_search_requests": "web_searches"}.get(name, name): n
        for name, value in tools.items()
        if name != "web_fetch_requests" and (n := count(value))
    }
    hidden = [step for step in _list(raw.get("iterations")) if _get(step, "type") not in (None, "message")]
    units = {
        **_units(put_in, said, read, written, thinking),
        **_some(cache_write_1h_tokens=long, iterations=len(hidden)),
        **fees,
    }
    terms = {name: raw[name] for name in ("service_tier", "speed", "inference_geo") if isinstance(raw.get(name), str)}
    if terms.get("service_tier") == "batch":
        terms["processing"] = terms.pop("service_tier")
    return TokenUsage(put_in, said, read, written, thinking, dict(raw), (BillItem(units, terms, usd=_charged(raw)),))


# The Gemini API.


def of_google(
    usage: Any, *, queries: Iterable[str] = (), grounded: bool = False, per_prompt: bool = False, images: int = 0,
    tier: str | None = None,
) -> TokenUsage:  # fmt: skip
    """Google counts cached tokens within the prompt, but thoughts and the results of tools beside it; it does not send zeros.

    Args:
        usage: `usageMetadata`, by the names of JSON, or the SDK's object.
        queries: searches that were made; an empty one is not billed, and one made twice once.
        grounded: whether the answer names pages of a search.
        per_prompt: whether the model's searches are billed once for a prompt (up to Gemini 2.5), and not each.
        images: pictures in the answer.
        tier: the class of service, as the answer's header says.
    """
    raw = record(usage, by_alias=True)
    if not raw:
        return NOTHING
    prompt, total = _first(raw, "promptTokenCount"), _first(raw, "totalTokenCount")
    read, thoughts = _first(raw, "cachedContentTokenCount"), _first(raw, "thoughtsTokenCount")
    tool, said = _first(raw, "toolUsePromptTokenCount") or 0, _first(raw, "candidatesTokenCount")
    if total is not None and prompt is not None:
        rest = total - prompt - tool
        if said is None and rest >= (thoughts or 0):
            said = rest - (thoughts or 0)
        elif said is not None and thoughts and rest == said >= thoughts:  # within the answer, as some gateways count
            said -= thoughts
        elif said is not None and thoughts is None and rest > said:
            thoughts = rest - said
    cached = read or 0
    put_in = None if prompt is None else prompt + tool - (cached if cached <= prompt else 0)
    pictures = _modality(raw, "candidatesTokensDetails", "IMAGE")
    asked = len({query for query in queries if query.strip()})
    if per_prompt:
        fees = _some(web_searches=int(bool(asked) or grounded))
    else:
        fees = _some(web_searches=asked, searches=int(grounded and not asked))
    units = {
        **_units(put_in, said, read, None, thoughts),
        **_some(
            input_audio_tokens=_modality(raw, "promptTokensDetails", "AUDIO"),
            cache_audio_read_tokens=_modality(raw, "cacheTokensDetails", "AUDIO"),
            output_audio_tokens=_modality(raw, "candidatesTokensDetails", "AUDIO"),
            output_video_tokens=_modality(raw, "candidatesTokensDetails", "VIDEO"),
            output_image_tokens=pictures,
            images=0 if pictures else images,
        ),
        **fees,
    }
    terms = {"service_tier": tier.lower()} if tier else {}
    return TokenUsage(put_in, said, read, None, thoughts, raw, (BillItem(units, terms),))


def _modality(raw: Mapping[str, Any], name: str, modality: str) -> int:
    return sum(
        _first(part, "tokenCount") or 0
        for part in map(record, _list(raw.get(name)))
        if str(part.get("modality", "")).upper() == modality
    )


# Parts.


def _billed(usage: TokenUsage, *items: BillItem) -> TokenUsage:
    return TokenUsage(usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning, usage.raw, tuple(items))


def _units(
    put_in: int | None, said: int | None, read: int | None, written: int | None, reasoning: int | None
) -> dict[str, int]:
    """Disjoint buckets as the price list counts: totals that include their parts."""
    known = put_in is not None and said is not None
    return {
        "input_tokens": (put_in or 0) + (read or 0) + (written or 0),
        "output_tokens": (said or 0) + (reasoning or 0),
        **_some(cache_read_tokens=read, cache_write_tokens=written, output_reasoning_tokens=reasoning),
        **({} if known else {UNKNOWN: 1}),
    }


def of_buckets(usage: TokenUsage) -> BillItem:
    """The bill of a usage that comes without one."""
    return BillItem(_units(usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning))


def _some(**units: int | None) -> dict[str, int]:
    """Those of which there are any."""
    return {name: n for name, n in units.items() if n}


def _amount(value: Any) -> float | None:
    """An amount of money; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < float("inf") else None


def _first(record: Mapping[str, Any], *names: str) -> int | None:
    """The first of these counts that there is."""
    return next((n for name in names if (n := count(record.get(name))) is not None), None)


def _part(raw: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The first of these records that there is."""
    return next((part for name in names if (part := record(raw.get(name)))), {})


def _list(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()


def _get(thing: Any, name: str) -> Any:
    """A field of an object of an SDK, or of the JSON that it was made from."""
    return cast("Mapping[str, Any]", thing).get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)

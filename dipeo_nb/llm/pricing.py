"""What a call cost, from the dated, offline price list of `genai-prices`. Unknown is None: never 0, and never too little.

A fee, a class of service or a kind of token that the list has no price for makes the cost of the call unknown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from dipeo_nb.domain.chat import BillItem, TokenUsage
from dipeo_nb.domain.llm_providers import facts_of
from dipeo_nb.llm.usage import of_buckets

REPORTING_HOSTS = frozenset({"openrouter.ai", "api.x.ai"})
"""Servers that say with each answer what they charge for it."""

_AT_THE_TOTALS_PRICE = frozenset({
    "cache_read_tokens", "cache_write_tokens", "output_reasoning_tokens", "input_image_tokens", "cache_image_read_tokens",
})  # fmt: skip
"""Parts that cost what their total costs where the list names no price for them. Any other part may cost more."""
_GOOGLE_UNIFIED = frozenset({"input_audio_tokens", "cache_audio_read_tokens"})
"""Parts for which Google's models ask what they ask for text, unless the list says otherwise."""
_USUAL = {
    "service_tier": {"", "auto", "default", "standard", "unspecified"},
    "speed": {"", "standard"},
    "inference_geo": {"", "global", "not_available"},
}
"""Terms under which the standard price holds."""
_FACTORS = {("anthropic", "inference_geo", "us"): Decimal("1.1")}
"""Terms that the list does not have, as (provider, term, value): what all tokens cost then, in standard prices
(https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing). Fees of tools stay as they are."""
_SNAPSHOT = re.compile(r"(-(\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4}|\d\d-\d\d|\d{3}|latest|preview|exp))*")
"""What may follow a model's name in the name of one of its versions."""
_SUFFIX = re.compile(r"([-@](\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4}|\d\d-\d\d|\d{3,4}|0\d?|latest|preview|exp|)|\[1m\])$")
"""How the name of a version, or the beginning of such names, may end."""
_SUFFIXES = 4
"""Of these a name may have."""


def cost_usd(
    service: str,
    model: str,
    usage: TokenUsage,
    *,
    base_url: str | None = None,
    batch: bool = False,
    requested: str | None = None,
    at: datetime | None = None,
) -> float | None:
    """US dollars of a call; None when a price or an amount is unknown.

    Args:
        model: that answered.
        batch: whether the provider's batch API answered, which has prices of its own.
        requested: the model that was asked for, whose price counts when *model* is a version of it that is not listed.
        at: when the call was made; None: now.
    """
    facts = facts_of(service)
    hosted = model.endswith("cloud") or (requested or "").endswith("cloud")  # of models at ollama.com, which are not free
    if facts.pricing == "free" or (facts.pricing == "self-hosted" and _is_own(base_url) and not hosted):
        return 0.0
    host = None if base_url is None else urlsplit(base_url).hostname or ""
    trusted = facts.pricing == "reported" or host in REPORTING_HOSTS
    # prices of other servers are not known; regional ones of the provider are higher
    listed = host is None or host in facts.hosts
    cost = Decimal(0)
    for item in usage.bill or (of_buckets(usage),):
        if item.usd is not None and (item.usd > 0 or trusted):  # gateways say 0 also of what they have no price for
            cost += Decimal(str(item.usd))
            continue
        name = item.model or model
        terms = {**item.terms, **({"processing": "batch"} if batch else {})}
        price = _price(service, name, item.units, terms, at) if listed else None
        if price is None and listed and item.model is None and requested and _is_version(name, requested):
            price = _price(service, requested, item.units, terms, at)
        if price is None:
            return None
        cost += price
    return float(cost)


def is_priced(service: str, model: str, *, base_url: str | None = None, tools: Collection[str] = ()) -> bool:
    """Whether the cost of a call to that model will be known, with the built-in *tools* it may use."""
    if facts_of(service).pricing == "reported" or (base_url is not None and urlsplit(base_url).hostname in REPORTING_HOSTS):
        return True
    searches = {"web_searches": 1} if {"web_search", "web_search_preview"} & set(tools) else {}
    probe = TokenUsage(1, 1, bill=(BillItem({"input_tokens": 1, "output_tokens": 1, **searches}),))
    return cost_usd(service, model, probe, base_url=base_url) is not None


def _price(service: str, model: str, units: Mapping[str, int], terms: Mapping[str, str], at: datetime | None) -> Decimal | None:
    """The list price of an item of a bill; None when the list does not have all of it."""
    from genai_prices import Usage, calc_price  # only now: it brings an HTTP client along
    from genai_prices.data_units import unit_data

    provider, when = facts_of(service).price_id or service, at or datetime.now(UTC)
    used = {unit: n for unit, n in units.items() if n > 0}
    if not used.keys() <= unit_data.keys():
        return None
    special = {k: v for k, v in terms.items() if v.lower() not in _USUAL.get(k, ())}
    factor = Decimal(1)
    for term, value in list(special.items()):
        if (known := _FACTORS.get((provider, term, value.lower()))) is not None:
            factor *= known
            del special[term]
    name = model.removeprefix("models/")

    def listed(part: Mapping[str, int]) -> Any:
        return calc_price(Usage(**part), name, provider_id=provider, genai_request_timestamp=when, price_context=special)

    try:
        whole = listed(used)
        if not _is_listed(name, whole.model):
            return None
        if not _has_terms(whole.model, special, when) or not _has_units(whole.model_price, used, unit_data, provider):
            return None
        if factor == 1:
            return whole.total_price
        fees = listed({u: n for u, n in used.items() if unit_data[u]["dimensions"]["family"] != "tokens"}).total_price
        return (whole.total_price - fees) * factor + fees
    except (LookupError, ValueError):  # no such model, or amounts that contradict each other
        return None


def _is_listed(name: str, model: Any) -> bool:
    """Whether the list means that model: one of its names, or a version of it. It also takes every name that begins like one of
    them, such as those of larger models that came later."""
    text = name.lower()
    if text.startswith("ft:"):
        text = "ft:" + text[3:].partition(":")[0]
    stem = _undated(text)
    return any(
        literal == text or _undated(literal) == stem if literal is not None else _begins(pattern, text)
        for literal, pattern in ((model.id.lower(), ""), *_names(model.match))
    )


def _undated(name: str) -> str:
    for _ in range(_SUFFIXES):
        name = _SUFFIX.sub("", name)
    return name


def _begins(pattern: str, name: str) -> bool:
    """Whether a name is what a pattern matches, or a version of that."""
    found = re.match(pattern, name)
    return found is not None and found.end() > 0 and _undated(name[found.end() :]) == ""


def _names(clause: Any) -> Iterator[tuple[str | None, str]]:
    """The names by which the list finds a model, each as (text, "") or (None, regular expression)."""
    ((kind, value),) = vars(clause).items()
    if kind in ("or_", "and_"):
        for part in value:
            yield from _names(part)
    elif kind == "regex":
        yield None, value
    else:
        yield value.lower(), ""


def _has_terms(model: Any, special: Mapping[str, str], when: datetime) -> bool:
    """Whether the list has prices for these terms; where it has none, it gives the standard price."""
    if len(special) > 1:
        return False
    return not special or any(
        variant.when == special and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


def _has_units(price: Any, used: Mapping[str, int], known: Mapping[str, Any], provider: str) -> bool:
    """Whether a price covers all that was used; what it does not name, the list counts at the price of the total, or not at all."""
    alike = _AT_THE_TOTALS_PRICE | (_GOOGLE_UNIFIED if provider == "google" else frozenset())
    return all(getattr(price, known[unit]["price_key"]) is not None or unit in alike for unit in used)


def _is_version(answered: str, requested: str) -> bool:
    """Whether the model that answered is a version of the one that was asked for, e.g. `gpt-7-2027-01-01` of `gpt-7`."""
    name = answered.removeprefix("models/")
    base = requested.removeprefix("models/")
    return name.startswith(base) and _SNAPSHOT.fullmatch(name[len(base) :]) is not None


def _is_own(base_url: str | None) -> bool:
    """Whether a server is on this machine or in a private network."""
    host = urlsplit(base_url or "http://localhost").hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan"))

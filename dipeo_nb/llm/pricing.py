"""What a call cost, from the dated, offline price list of `genai-prices`. Unknown is None, never 0."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from dipeo_nb.domain.chat import TokenUsage

FREE = frozenset({"local", "echo"})
"""Services whose calls cost nothing. So do those of `ollama`, on a server of one's own; not its models at ollama.com, whose names
end with `cloud`."""
SELF_REPORTED = frozenset({"claude-code", "claude-code-custom"})
"""Services that say themselves what a call cost."""
PROVIDERS = {"gemini": "google", "claude-code": "anthropic", "claude-code-custom": "anthropic"}
"""Service → provider id of the price list, where they differ."""
LISTED_HOSTS = ("openai.com", "anthropic.com", "googleapis.com")
"""Servers the list is about; what another server asks for a model of the same name is not known."""


def cost_usd(
    service: str, model: str, usage: TokenUsage, *, base_url: str | None = None, batch: bool = False
) -> float | None:
    """US dollars of a call; None when the price or the usage is unknown.

    Args:
        batch: whether the provider's batch API answered, which has prices of its own.
    """
    if service in FREE or (service == "ollama" and _is_own(base_url) and not model.endswith("cloud")):
        return 0.0
    if usage.input is None and usage.output is None:
        return None
    if base_url is not None and not _listed(base_url):
        return None
    from genai_prices import Usage, calc_price  # only now: it brings an HTTP client along

    cached, written = usage.cache_read or 0, usage.cache_write or 0
    # The price list counts cached tokens within the input and reasoning within the output.
    counted = Usage(
        input_tokens=(usage.input or 0) + cached + written,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        output_tokens=(usage.output or 0) + (usage.reasoning or 0),
    )
    listed = PROVIDERS.get(service, service)
    try:
        price = calc_price(counted, model, provider_id=listed).total_price
        if batch:
            standard = price
            price = calc_price(counted, model, provider_id=listed, price_context={"processing": "batch"}).total_price
            if price == standard and price:
                return None  # the list falls back to the standard price where it has none for batches
        return float(price)
    except LookupError:
        return None


def is_priced(service: str, model: str, *, base_url: str | None = None) -> bool:
    """Whether the cost of a call to that model will be known."""
    return service in SELF_REPORTED or cost_usd(service, model, TokenUsage(1, 1), base_url=base_url) is not None


def _is_own(base_url: str | None) -> bool:
    """Whether a server is on this machine or in a private network."""
    host = urlsplit(base_url or "http://localhost").hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan"))


def _listed(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return any(host == known or host.endswith(f".{known}") for known in LISTED_HOSTS)

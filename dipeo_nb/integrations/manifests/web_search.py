"""Hooks of the provider of web searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.text import did_you_mean
from dipeo_nb.errors import APIKeyNotFoundError, ConfigurationError

if TYPE_CHECKING:
    from dipeo_nb.integrations.manifest_provider import Steps

BACKENDS = ("brave", "tavily", "serper", "searxng", "google_cse")
"""In the order in which they are tried when none is chosen."""


async def search(call: Steps, parameters: Mapping[str, Any]) -> Any:
    """Search with the service that is chosen, else with the first that can be used."""
    chosen = parameters.get("backend") or ""
    if chosen and chosen not in BACKENDS:
        raise ConfigurationError(
            f"web_search: there is no '{chosen:.80}'.",
            hint=did_you_mean(chosen, BACKENDS, f"There are: {', '.join(BACKENDS)}."),
        )
    limit = parameters["limit"]
    for backend in (chosen,) if chosen else BACKENDS:
        most = min(limit, 10) if backend == "google_cse" else limit
        try:
            found = await call(f"{backend}.search", query=parameters["query"], limit=most)
        except (APIKeyNotFoundError, ConfigurationError):
            if chosen:
                raise
            continue  # it is not set up
        return found[:limit]
    raise APIKeyNotFoundError(
        "web_search needs a service.",
        hint='Store a key (dipeo-nb keys set brave, tavily or serper), or name a server: dp.provider("searxng", url="http://localhost:8888").',
    )

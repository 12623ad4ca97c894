"""Capabilities of models. The facts are data: `capabilities.toml`, one table per service and per family of models."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

from dipeo_nb.domain.llm_providers import facts_of, normalize_service
from dipeo_nb.errors import ConfigurationError
from dipeo_nb.llm.core.types import ProviderCapabilities, StreamingMode


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(resources.files("dipeo_nb.llm").joinpath("capabilities.toml").read_text("utf-8"))


def capabilities_of(service: str, model: str = "") -> ProviderCapabilities:
    """The profile of a model: what its service has, changed by the longest beginning of its name that the table has.

    The table of a third party's service is `abilities` of its client's class. Without one it is taken to stream text and to call
    tools, and structure is asked for in the prompt.
    """
    service = normalize_service(service)
    return _built_in(service, model) if service in _tables() else _profile(service, model, facts_of(service).abilities)


@cache
def _built_in(service: str, model: str) -> ProviderCapabilities:
    return _profile(service, model, _tables()[service])


def _profile(service: str, model: str, table: Mapping[str, Any]) -> ProviderCapabilities:
    name = model.removeprefix("ft:").rpartition("/")[2]
    families = [f for f in table.get("models", {}) if name.startswith(f)]
    facts = {k: v for k, v in table.items() if k != "models"}
    for family in sorted(families, key=len):
        facts |= table["models"][family]
    facts["structured"] = tuple(facts.get("structured", ("prompt",)))
    for name in ("options", "efforts"):
        if name in facts:
            facts[name] = tuple(facts[name])
    facts["reasoning"] = facts.get("reasoning", "effort") or None
    facts["streaming_modes"] = tuple(map(StreamingMode, facts.get("streaming_modes", ("sse",))))
    try:
        return ProviderCapabilities(service, model, **facts)
    except TypeError:
        unknown = sorted(set(facts) - {f.name for f in fields(ProviderCapabilities)})
        raise ConfigurationError(
            f"The abilities of the LLM service '{service}' have no field {', '.join(unknown)}.",
            hint=f"It has: {', '.join(f.name for f in fields(ProviderCapabilities))}.",
        ) from None

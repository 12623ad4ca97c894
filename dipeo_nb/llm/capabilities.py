"""What each model can do. The facts are data: `capabilities.toml`, one table per service and per family of models."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from dipeo_nb.domain.chat import normalize_service
from dipeo_nb.llm.core.types import ProviderCapabilities, StreamingMode


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(resources.files("dipeo_nb.llm").joinpath("capabilities.toml").read_text("utf-8"))


@cache
def capabilities_of(service: str, model: str = "") -> ProviderCapabilities:
    """The profile of a model: what its service has, changed by the longest matching name in the table.

    A service that the table does not know (a third party's) is taken to stream text and to call tools; structure is asked for
    in words.
    """
    service = normalize_service(service)
    table = _tables().get(service, {})
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
    return ProviderCapabilities(service, model, **facts)

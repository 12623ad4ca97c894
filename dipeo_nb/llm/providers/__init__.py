"""The providers, one file each, found by service name.

A third party adds one with a class that satisfies `domain.ports.LLMClient` and an entry point in the group
`dipeo_nb.llm_providers`: name = service, value = `package.module:Class`. The class is called with (settings, keys).
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import normalize_service
from dipeo_nb.domain.ports import APIKeyPort, LLMClient
from dipeo_nb.errors import ConfigurationError, UnsupportedError

BUILT_IN = {
    "openai": "dipeo_nb.llm.providers.openai:UnifiedOpenAIClient",
    "local": "dipeo_nb.llm.providers.local:UnifiedLocalClient",
    "echo": "dipeo_nb.llm.providers.echo:EchoClient",
}
"""Service → class. Imported on first use, so that no SDK loads before it is needed."""
GROUP = "dipeo_nb.llm_providers"


@cache
def _installed() -> dict[str, EntryPoint]:
    return {normalize_service(point.name): point for point in entry_points(group=GROUP)}


def services() -> tuple[str, ...]:
    """The services this installation has, sorted."""
    return tuple(sorted({*BUILT_IN, *_installed()}))


def create(service: str, settings: Settings, keys: APIKeyPort) -> LLMClient:
    """A new client for a service.

    Raises:
        UnsupportedError: there is no such service; the message lists the choices and the nearest.
        ConfigurationError: the package that brings it is broken.
    """
    name = normalize_service(service)
    factory: Any
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    elif name in _installed():
        factory = _loaded(_installed()[name])
    else:
        near = difflib.get_close_matches(name, services(), n=1)
        guess = f"Did you mean '{near[0]}'? " if near else ""
        raise UnsupportedError(
            f"This installation has no LLM service '{service}'; it has {', '.join(services())}.",
            hint=f"{guess}Move the persons to another one: --model local (model='local'), --model openai:NAME.",
            provider=service,
        )
    return factory(settings, keys)


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The LLM service '{point.name}' cannot be loaded from {point.value}: {error}.",
            hint="Install or repair the package that brings it.",
        ) from error

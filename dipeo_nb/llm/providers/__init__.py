"""The clients of the providers, one module each, found by service name.

A third party adds one with a subclass of `llm.core.client.UnifiedClient` (or any `domain.ports.LLMClient`) and an entry point in
the group `dipeo_nb.llm_providers`: name = service, value = `package.module:Class`; or, for this process only, as in a notebook, with
`register`. The class is called as `Class(AdapterConfig(…), settings=settings)`; the configuration holds the key and the server. Its
attributes state the facts about the provider: see `domain.llm_providers.ProviderFacts`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import SecretStr
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.common.text import nearest
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.enums import LLMService
from dipeo_nb.domain.llm_providers import BUILT_IN, facts_of, normalize_service, services
from dipeo_nb.domain.ports import LLMClient
from dipeo_nb.errors import ConfigurationError, UnsupportedError, ValidationError
from dipeo_nb.llm.core.types import AdapterConfig

__all__ = ["BUILT_IN", "announcing", "client_class", "create", "create_adapter", "register", "services"]


def register(service: str, client: Any) -> None:
    """Make a client's class that of a service, in this process; a class that is there already for that service is replaced.

    Clients in use stay as they are: create new sessions where the service was called before. The name of a family of Ollama's
    models (`mistral`) means this service from now on, also in diagrams that are read from now on.

    Raises:
        ConfigurationError: the service is one of ours, or another name of one.
    """
    name = normalize_service(service)
    if name == LLMService.OLLAMA and (own := service.strip().lower().replace("_", "-")) != name:
        name = own
    if name in BUILT_IN or not name:
        meaning = f" ('{service}' means '{name}')" if name != service else ""
        raise ConfigurationError(
            f"The LLM service '{name}' is built in{meaning}." if name else "The LLM service has no name.",
            hint="Give yours a name of its own.",
        )
    llm_providers.register(name, client)


def announcing() -> tuple[str, ...]:
    """The services whose providers announce the ends of their models (`announced_ends`) where they can be asked."""
    clients = ((service, client_class(service)) for service, facts in llm_providers.every() if facts.client is not None)
    return tuple(service for service, client in clients if hasattr(client, "announced_ends"))


def client_class(service: str) -> Any:
    """The class of a service's client.

    Raises:
        UnsupportedError: there is no such service; the message lists the choices and the nearest.
        ConfigurationError: the package that brings it is broken.
    """
    name = normalize_service(service)
    client = facts_of(name).client
    if isinstance(client, str):
        module, _, attribute = client.partition(":")
        return getattr(importlib.import_module(module), attribute)
    if client is not None:
        return client
    if name in llm_providers.installed():
        return _loaded(llm_providers.installed()[name])
    near = nearest(name, services())
    guess = f"Did you mean '{near}'? " if near else ""
    raise UnsupportedError(
        f"This installation has no LLM service '{service}'; it has {', '.join(services())}.",
        hint=f"{guess}Move the persons to another one: --model local (model='local'), --model openai:NAME.",
        provider=service,
    )


def create(config: AdapterConfig, settings: Settings) -> LLMClient:
    """A new client for the service that *config* names; errors as `client_class`."""
    return client_class(config.provider_type)(config, settings=settings)


def create_adapter(
    provider: str, model_name: str = "", api_key: str | None = None, base_url: str | None = None, **options: Any
) -> LLMClient:
    """A client by the seed's signature; *options* are further fields of `AdapterConfig`.

    Raises:
        ValidationError: there is no such option, or it has the wrong type or is out of range.
        UnsupportedError: there is no such service.
    """
    try:
        config = AdapterConfig(
            provider_type=provider,
            model=model_name,
            api_key=None if api_key is None else SecretStr(api_key),
            base_url=base_url,
            **options,
        )
    except PydanticValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise ValidationError(
            f"A client's option {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}.",
            hint=f"It has: {', '.join(sorted(AdapterConfig.model_fields))}.",
        ) from None
    return create(config, get_settings())


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ConfigurationError(
            f"The LLM service '{point.name}' cannot be loaded from {point.value}: {error}.",
            hint="Install or repair the package that brings it.",
        ) from error

"""What models there are to talk to: names as people write them, and the facts about each service."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from dipeo_nb.config import DEFAULT_MODEL, DEFAULT_MODEL_AFTER, DEFAULT_MODEL_ENDS, Settings, is_loopback
from dipeo_nb.config import default_model as default_of_openai
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, parse_model
from dipeo_nb.domain.lifecycle import at_provider, lifecycle
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import ConfigurationError, DipeoError
from dipeo_nb.llm import providers
from dipeo_nb.llm.capabilities import capabilities_of

BY_DEFAULT = "model_by_default"
"""Key of `LLMRequest.context`: the model is the successor of the default model of old, which nobody chose."""


class ServiceFacts(NamedTuple):
    """One service, as `dipeo-nb models` and `%dipeo models` show it."""

    service: str
    ready: bool
    """Whether it can be asked now."""
    why_not: str
    """What is missing, and what to do; empty when it is ready."""
    key: str
    """The variable that holds its key, and the key masked; empty when there is none."""
    model: str
    """Its default model; empty when one must be named, or the provider has its own."""
    abilities: tuple[str, ...]
    """tools, web search, images, batch, and the best way to structured answers (`native`, `grammar` …)."""
    ends: str = ""
    """When the default model is shut down, in how many days, and what comes then; empty when no end is announced."""


def named(model: str | None, settings: Settings) -> tuple[str, str]:
    """(service, model) of a name: `openai:gpt-6-luna`, `anthropic`, `local`, `llama3.2:3b`; None is the settings' default.

    The model is empty when only a service is named: it has a default of its own.

    Raises: as `parse_model`.
    """
    service, found = parse_model(settings.default_llm_model if model is None else model, providers.services())
    if model is None and settings.default_was_replaced:
        found = None
    return service, found or model_of(service, settings)


def model_of(service: str, settings: Settings) -> str:
    """The model of a service that is named without one: that of the settings' default when it is of that service; empty when the
    service has a default of its own. What only the folder suggests, and a default that names no model, does not count."""
    if is_successor(service, settings):
        _say_replaced()
    return _chosen(service, settings) or (default_of_openai() if service == DEFAULT_MODEL_SERVICE else "")


def is_successor(service: str, settings: Settings) -> bool:
    """Whether the default model of a service is the successor of the one that was shut down, which nobody chose."""
    return service == DEFAULT_MODEL_SERVICE and default_of_openai() == DEFAULT_MODEL_AFTER and not _chosen(service, settings)


def _chosen(service: str, settings: Settings) -> str:
    """The settings' default model when it is of that service; empty when it is not, or names no model, or nobody approved it."""
    if not (settings.default_was_replaced or settings.waits("default_llm_model")):
        with contextlib.suppress(DipeoError):
            default, model = parse_model(settings.default_llm_model, providers.services())
            if default == service and model:
                return model
    return ""


def _say_replaced() -> None:
    """Warn once in a process that the default model is another one than before."""
    if DEFAULT_MODEL not in _said:
        _said.add(DEFAULT_MODEL)
        warnings.warn(
            f"{DEFAULT_MODEL}, the default model, was shut down on {DEFAULT_MODEL_ENDS}; {DEFAULT_MODEL_AFTER} answers in its place. "
            "Name a model (DIPEO_DEFAULT_LLM_MODEL, `model` of the person) to choose.",
            DefaultModelWarning,
            stacklevel=4,
        )


_said: set[str] = set()


class DefaultModelWarning(UserWarning):
    """The default model was shut down, and its successor is the default."""


async def services(settings: Settings, keys: APIKeyPort) -> list[ServiceFacts]:
    """Every service of this installation. Asks nobody but this machine, and calls no model."""
    held: dict[str, Mapping[str, Any]] = {}
    for row in await keys.list_api_keys():
        held.setdefault(str(row["service"]), row)  # the first of a service is the one that is used
    # In a worker thread: modules are imported, and a server of this machine may be looked for.
    return await asyncio.to_thread(lambda: [_facts(name, settings, held) for name in providers.services()])


def _facts(service: str, settings: Settings, held: Mapping[str, Mapping[str, Any]]) -> ServiceFacts:
    able = capabilities_of(service, default_model(service, settings))
    has = {
        "tools": able.supports_tools,
        "web search": able.supports_web_search,
        "images": able.supports_image_generation,
        "batch": able.supports_batch,
    }
    abilities = (*(name for name, yes in has.items() if yes), *(f"structured: {mode}" for mode in able.structured[:1]))
    row = held.get(service)
    try:
        kind = providers.client_class(service)
    except (ConfigurationError, ImportError) as error:
        return ServiceFacts(service, False, f"cannot be loaded: {error}", "", "", abilities)
    key = f"{row['label']} {row['key']}" if row else ""
    why_not = _missing(service, kind, settings, bool(row))
    model = default_model(service, settings)
    return ServiceFacts(service, not why_not, why_not, key, model, abilities, _ends(service, model, settings))


def _ends(service: str, model: str, settings: Settings) -> str:
    found = lifecycle(service, model)
    if found.ends is None or not at_provider(service, None, settings):
        return ""
    chosen = settings.origin("default_llm_model").source != "default" and DEFAULT_MODEL in str(
        settings.peek("default_llm_model")
    )
    if model == DEFAULT_MODEL and not chosen:  # it moves by itself
        return f"{found.sentence}; {DEFAULT_MODEL_AFTER} is the default from then on"
    return f"{found.sentence}; {found.advice}"


def _missing(service: str, kind: Any, settings: Settings, has_key: bool) -> str:
    module = getattr(kind, "sdk_module", "")
    if module and not _installed(module):
        return f'pip install "{getattr(kind, "sdk_package", "") or module}"'
    setting = getattr(kind, "base_url_setting", "")
    own_server = bool(setting and settings.peek(setting))
    variable = getattr(kind, "key_variable", "")
    if setting and settings.waits(setting) and not is_loopback(str(settings.peek(setting))):
        origin = settings.origin(setting)
        return f"{origin.variable} of {origin.file} needs your approval: dipeo-nb trust ."
    if variable and not has_key and not own_server and not getattr(kind, "key_optional", False):
        return f"set {variable}"
    check = getattr(kind, "why_unavailable", None)
    return str(check(settings)) if check is not None else ""


def default_model(service: str, settings: Settings) -> str:
    """The model of a service when none is named."""
    chosen, model = parse_model(settings.peek("default_llm_model"), providers.services())
    if chosen == service and model:
        return model
    try:
        kind = providers.client_class(service)
    except (ConfigurationError, ImportError):  # `services` says so
        return ""
    usual = getattr(kind, "usual_model", None)
    return str(usual(settings) if usual is not None else getattr(kind, "default_model", ""))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False

"""Providers of language models: the facts about each that are needed where its client is not imported.

A built-in provider is its module below `llm/providers/` and its entry in `BUILT_IN`. The facts about a provider of a third party
are attributes of its class of the same names; the class is found by an entry point in the group `GROUP`, or registered in this
process (`llm.providers.register`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from dipeo_nb.common import lazy
from dipeo_nb.common.redaction import recognize_keys, redact_logs_of
from dipeo_nb.config import OWN_HOSTS
from dipeo_nb.domain.enums import SERVICE_ALIASES, LLMService

if TYPE_CHECKING:
    from importlib import metadata
    from importlib.metadata import EntryPoint
else:
    metadata = lazy.module("importlib.metadata")  # parses mail headers

GROUP = "dipeo_nb.llm_providers"
"""Group of the entry points of third parties: name = service, value = `package.module:Class`."""
Pricing = Literal["list", "free", "self-hosted", "reported"]
"""Source of the cost of a call: the price list; nothing to pay; nothing to pay on a server of one's own; the answer itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """The facts about one provider."""

    client: Any = None
    """Its client: a class, or `module:Class` of one that is imported on first use."""
    sdk_module: str = ""
    """The module of its SDK; empty when it needs none."""
    sdk_package: str = ""
    """The argument of `pip install` that brings this module."""
    key_variable: str = ""
    """The environment variable that holds its key; empty when it takes none."""
    other_key_variables: tuple[str, ...] = ()
    """Further variables that may hold it, in order of precedence."""
    key_optional: bool = False
    """Whether it also works without a key of ours."""
    key_prefixes: tuple[str, ...] = ()
    """Beginnings of its keys (`sk-`): a text with such a beginning and 16 or more further characters of keys is redacted. At least 3
    characters each."""
    own_login: bool = False
    """Whether its program has a login of the user's own, which is used where no key is given."""
    base_url_variable: str = ""
    """The environment variable that names another server."""
    base_url_setting: str = ""
    """The field of the settings that holds it."""
    hosts: tuple[str, ...] = ()
    """Hosts of its own servers; they and their subdomains may receive the key."""
    headers_variable: str = ""
    """The environment variable from which its SDK takes headers for every request, one a line."""
    ambient_headers: tuple[str, ...] = ()
    """Further headers that its SDK takes from the environment."""
    own_prompt: bool = False
    """Whether a system prompt that is given replaces that of a phase."""
    model_names: tuple[str, ...] = ()
    """Beginnings of the names of its models, as regular expressions: a bare name goes to the service with the longest match."""
    models_of: str = ""
    """The service whose models it serves, where that is another; their ends and their prices are looked up there."""
    price_id: str = ""
    """Its id in the price list (`genai-prices`); empty: its name."""
    pricing: Pricing = "list"
    telemetry_name: str = ""
    """`gen_ai.provider.name` of OpenTelemetry's conventions; empty: its name."""
    abilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Capabilities of its models, as a table of `llm/capabilities.toml`; those of built-in providers are in that file."""

    @property
    def key_variables(self) -> tuple[str, ...]:
        """All variables that may hold its key, in order of precedence."""
        return (self.key_variable, *self.other_key_variables) if self.key_variable else ()


_CLAUDE_CODE = ProviderFacts(
    client="dipeo_nb.llm.providers.claude_code:UnifiedClaudeCodeClient",
    sdk_module="claude_agent_sdk", sdk_package="claude-agent-sdk",
    key_variable="ANTHROPIC_API_KEY", key_optional=True, own_login=True,
    base_url_variable="ANTHROPIC_BASE_URL", base_url_setting="anthropic_base_url", hosts=OWN_HOSTS["anthropic"],
    models_of="anthropic", price_id="anthropic", pricing="reported",
)  # fmt: skip
BUILT_IN: Mapping[str, ProviderFacts] = MappingProxyType({
    "openai": ProviderFacts(
        client="dipeo_nb.llm.providers.openai:UnifiedOpenAIClient",
        sdk_module="openai", sdk_package="openai",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL", base_url_setting="openai_base_url", hosts=OWN_HOSTS["openai"],
        headers_variable="OPENAI_CUSTOM_HEADERS", ambient_headers=("OpenAI-Organization", "OpenAI-Project"),
        model_names=("(?:chat)?gpt", r"o\d", "ft:"),
    ),
    "anthropic": ProviderFacts(
        client="dipeo_nb.llm.providers.anthropic:UnifiedAnthropicClient",
        sdk_module="anthropic", sdk_package="anthropic",
        key_variable="ANTHROPIC_API_KEY",
        base_url_variable="ANTHROPIC_BASE_URL", base_url_setting="anthropic_base_url", hosts=OWN_HOSTS["anthropic"],
        headers_variable="ANTHROPIC_CUSTOM_HEADERS",
        model_names=("claude",),
    ),
    "gemini": ProviderFacts(
        client="dipeo_nb.llm.providers.google:UnifiedGoogleClient",
        sdk_module="google.genai", sdk_package="google-genai",
        key_variable="GOOGLE_API_KEY", other_key_variables=("GEMINI_API_KEY",),
        base_url_variable="GOOGLE_BASE_URL", base_url_setting="google_base_url", hosts=OWN_HOSTS["google"],
        model_names=("gemini",), price_id="google", telemetry_name="gcp.gemini",
    ),
    "ollama": ProviderFacts(
        client="dipeo_nb.llm.providers.ollama:UnifiedOllamaClient",
        sdk_module="ollama", sdk_package="ollama",
        key_optional=True,
        base_url_variable="OLLAMA_HOST", base_url_setting="ollama_host",
        model_names=("gpt-oss",), pricing="self-hosted",
    ),
    "claude-code": _CLAUDE_CODE,
    "claude-code-custom": replace(
        _CLAUDE_CODE, client="dipeo_nb.llm.providers.claude_code:UnifiedClaudeCodeCustomClient", own_prompt=True
    ),
    "local": ProviderFacts(
        client="dipeo_nb.llm.providers.local:UnifiedLocalClient", sdk_module="xllamacpp", sdk_package="dipeo-nb[local]", pricing="free"
    ),
    "echo": ProviderFacts(client="dipeo_nb.llm.providers.echo:EchoClient", pricing="free"),
})  # fmt: skip
"""Service → facts."""
OF_CLASSES = (
    "sdk_module", "sdk_package", "key_variable", "other_key_variables", "key_optional", "own_login", "base_url_variable", "base_url_setting",
    "hosts", "headers_variable", "ambient_headers", "own_prompt",
)  # fmt: skip
"""The facts that clients use themselves: classes of built-in providers have them as attributes, and subclasses inherit them. The
others are about one service: a subclass that is registered as another service does not take over its prices or its models."""
_REGISTERED: dict[str, ProviderFacts] = {}
"""Service → facts, of those that were registered in this process. A name among them is that service, and no alias: `mistral` is
no longer Ollama's model."""
_LOADED: dict[str, ProviderFacts] = {}
"""The same of installed packages, once they were loaded."""


def normalize_service(name: str) -> str:
    """The service a spelling means: lower case, `_` → `-`, aliases applied; unknown names are returned as they are."""
    text = name.strip().lower().replace("_", "-")
    if text in _REGISTERED or (service := SERVICE_ALIASES.get(text)) is None:
        return text
    return text if service == LLMService.OLLAMA and text in _named_by_packages() else str(service)


def register(service: str, client: Any) -> None:
    """Make a class that of a service, in this process. The name is normalized, and not that of a built-in provider."""
    _REGISTERED[service] = _learn(facts_of_class(client))


def services() -> tuple[str, ...]:
    """The services of this installation, sorted."""
    return tuple(sorted({*BUILT_IN, *installed(), *_REGISTERED}))


def is_service(name: str) -> bool:
    """Whether this installation has a service of that (normalized) name."""
    return name in BUILT_IN or name in _REGISTERED or name in installed()


def facts_of(service: str) -> ProviderFacts:
    """The facts about a service; those of one that nobody knows, or whose package is broken, are the defaults."""
    facts = BUILT_IN.get(service) or _REGISTERED.get(service)
    if facts is None and service in installed():
        facts = _LOADED.get(service) or _loaded(service)
    return facts or _UNKNOWN


def every() -> Iterator[tuple[str, ProviderFacts]]:
    """(service, facts) of this installation, the built-in ones first. Imports the packages of third parties."""
    yield from BUILT_IN.items()
    yield from ((service, facts_of(service)) for service in services() if service not in BUILT_IN)


def facts_of_class(client: Any) -> ProviderFacts:
    """The facts that a client's class states."""
    names = {f.name for f in fields(ProviderFacts)} - {"client"}
    return ProviderFacts(client=client, **{name: getattr(client, name) for name in names if hasattr(client, name)})


def service_of_model(name: str, *, separated: bool = False) -> str | None:
    """The service that the beginning of a model's name is known for; None: no service, or not known.

    Args:
        separated: only where nothing, or a `-`, follows this beginning.
    """
    own = _longest(name, (*_REGISTERED.items(), *BUILT_IN.items()), separated)
    return own or _longest(name, ((service, facts_of(service)) for service in installed()), separated)


def costs_nothing(service: str) -> bool:
    """Whether calls of a service are free, on a server of one's own at least."""
    return facts_of(service).pricing in ("free", "self-hosted")


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Service → entry point, of packages of third parties."""
    return MappingProxyType({normalize_service(name): point for name, point in _named_by_packages().items()})


@cache
def _named_by_packages() -> Mapping[str, EntryPoint]:
    return {point.name.strip().lower().replace("_", "-"): point for point in metadata.entry_points(group=GROUP)}


def _loaded(service: str) -> ProviderFacts | None:
    """The facts about a service of an installed package; None when it cannot be imported, which using it reports."""
    try:
        client = installed()[service].load()
    except Exception:  # noqa: BLE001 - whatever the import of a foreign module raises; `llm.providers.client_class` says it
        return None
    facts = _LOADED[service] = _learn(facts_of_class(client))
    return facts


def _learn(facts: ProviderFacts) -> ProviderFacts:
    """See to it that its keys appear in no event and no log line."""
    recognize_keys(*facts.key_prefixes)
    if facts.sdk_module:
        redact_logs_of(facts.sdk_module)
    return facts


def _longest(name: str, known: Iterable[tuple[str, ProviderFacts]], separated: bool) -> str | None:
    """The service whose pattern matches the longest beginning of *name*; of several, the first."""
    best, length = None, 0
    for service, facts in known:
        for pattern in facts.model_names:
            found = re.match(pattern, name, re.IGNORECASE)
            if (
                found is not None
                and found.end() > length
                and (not separated or name[found.end() :][:1] in ("", "-") or found[0].endswith("-"))
            ):
                best, length = service, found.end()
    return best


_UNKNOWN = ProviderFacts()

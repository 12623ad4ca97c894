"""API keys from the environment, through the settings; and which variable holds the key of what."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import SecretStr

from dipeo_nb.common.scrub import redactor
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.domain.chat import normalize_service
from dipeo_nb.domain.enums import LLMService
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError, ValidationError

VARIABLES: dict[str, tuple[str, ...]] = {
    # Language models.
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "claude-code": ("ANTHROPIC_API_KEY",),
    "claude-code-custom": ("ANTHROPIC_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "perplexity": ("PERPLEXITY_API_KEY",),
    "together": ("TOGETHER_API_KEY",),
    "xai": ("XAI_API_KEY",),
    # Other services.
    "github": ("GITHUB_TOKEN", "GH_TOKEN"),
    "google-search": ("GOOGLE_SEARCH_API_KEY",),
    "jira": ("JIRA_API_TOKEN",),
    "notion": ("NOTION_API_KEY", "NOTION_TOKEN"),
    "slack": ("SLACK_BOT_TOKEN", "SLACK_TOKEN"),
}
"""Service → variables that may hold its key; the first is the one to set."""
ALIASES = {"grok": "xai", "hf": "huggingface", "sonar": "perplexity", "command": "cohere"}
"""Further spellings of services, beyond those of diagrams (`domain.enums.SERVICE_ALIASES`)."""
MODELS = {
    "gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai",
    "claude-": "anthropic", "gemini-": "gemini",
    "codestral": "mistral", "devstral": "mistral", "magistral": "mistral", "ministral": "mistral", "mistral-": "mistral",
    "command-": "cohere", "deepseek-": "deepseek", "grok-": "xai", "sonar-": "perplexity",
}  # fmt: skip
"""Beginnings of names of models → service."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class EnvironmentAPIKeyService:
    """`APIKeyPort` over the environment (and `.env`); read-only.

    Keys are found by service, alias, name of a model (`gpt-5-nano`, `openai:gpt-5-nano`), and `env_SERVICE`, the id that lists
    give them.

    Args:
        settings: default: those of the process.
        variables: service → variable, or variables in the order in which they are tried; beyond `VARIABLES`, or instead of
            its entries.
    """

    def __init__(
        self, settings: Settings | None = None, variables: Mapping[str, str | Iterable[str]] | None = None
    ) -> None:
        self._settings = settings or get_settings()
        self._variables = dict(VARIABLES)
        for name, chosen in (variables or {}).items():
            self.register(name, *((chosen,) if isinstance(chosen, str) else chosen))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._variables)} services>"

    def register(self, name: str, *variables: str) -> None:
        """The key of the service *name* is in the first of *variables* that is set.

        Raises:
            ValidationError: there is no variable, or one has a name that no variable can have.
        """
        if not name.strip() or not variables or not all(map(_VARIABLE.match, variables)):
            raise ValidationError(
                "A service needs a name and the name of at least one variable.",
                hint='Say e.g. register("jira", "JIRA_API_TOKEN").',
            )
        self._variables[_spelled(name)] = variables

    async def get_api_key(self, key_id: str) -> SecretStr:
        service = service_of(key_id, self._variables)
        found = self._settings.secret(*self._variables.get(service, ()))
        if found is None:
            raise not_found(key_id, self._variables)
        redactor.add(found[1].get_secret_value())
        return found[1]

    async def set_api_key(self, key_id: str, key: str) -> None:
        raise self._read_only(key_id, "Set")

    async def delete_api_key(self, key_id: str) -> None:
        raise self._read_only(key_id, "Unset")

    async def list_api_keys(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for service, variables in self._variables.items():
            if (found := self._settings.secret(*variables)) is not None:
                variable, secret = found
                row = {"id": f"env_{service}", "label": variable, "service": service, "key": masked(secret)}
                rows.append({**row, "source": "environment"})
        return rows

    def _read_only(self, key_id: str, what: str) -> APIKeyError:
        service = service_of(key_id, self._variables)
        variable = self._variables.get(service, ("its variable",))[0]
        return APIKeyError(
            "Keys of the environment cannot be changed from here.",
            hint=f"{what} {variable} in your shell; `dipeo-nb keys set {redactor(service)}` stores a key for good.",
            key_id=redactor(key_id),
        )


def service_of(name: str, known: Collection[str] = VARIABLES) -> str:
    """The service that a spelling means: a service, an alias, `env_SERVICE`, the name of a model; else the name, in lower case
    with dashes."""
    text = _spelled(name).removeprefix("env-")
    if text in known:
        return text
    service = ALIASES.get(text) or normalize_service(text)
    if service in known:
        return service
    head, colon, _ = text.partition(":")
    if colon:
        return service_of(head, known)
    return next((MODELS[start] for start in MODELS if text.startswith(start)), service)


def not_found(key_id: str, variables: Mapping[str, tuple[str, ...]] = VARIABLES) -> APIKeyNotFoundError:
    """The error of a key that is not there: the variable to set, the command that stores one, and the way without a key."""
    service = service_of(key_id, variables)
    shown = redactor(key_id)  # somebody may have written the key itself where its id belongs
    variable = variables.get(service, (None,))[0]
    if variable:
        ways = [f"Set {variable}", f"store the key with `dipeo-nb keys set {service}`"]
    elif key_id.strip().upper().startswith("APIKEY_"):
        ways = [f"Store it with `dipeo-nb keys set {shown} --service SERVICE`", "name a service instead of the id"]
    else:
        ways = [f"Store it with `dipeo-nb keys set {shown}`"]
    if service in set(LLMService) or not variable:
        ways.append("run without a key on the embedded model: --model local (model='local')")
    return APIKeyNotFoundError(
        f"There is no API key for '{shown}'.", hint=f"{', or '.join(ways)}.", key_id=shown, variable=variable
    )


def masked(secret: SecretStr) -> str:
    """A key as it may be shown: its kind and last four characters; short ones not at all."""
    text = secret.get_secret_value()
    if len(text) < 12:
        return "…"
    return f"{'sk-' if text.startswith('sk-') else ''}…{text[-4:]}"


def _spelled(name: str) -> str:
    return name.strip().lower().replace("_", "-")

"""API keys from the environment, through the settings, and the variables of services."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from dipeo_nb.common import lazy
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Credential, Settings, get_settings
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.llm_providers import normalize_service
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError, ValidationError
from dipeo_nb.security.folder_settings import is_trusted_folder

if TYPE_CHECKING:
    from pydantic import SecretStr

    from dipeo_nb.config import folder_secret
else:
    folder_secret = lazy.module("dipeo_nb.config.folder_secret")  # needs pydantic

FURTHER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Language models.
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
        "brave": ("BRAVE_API_KEY",),
        "discord": ("DISCORD_BOT_TOKEN", "DISCORD_TOKEN"),
        "github": ("GITHUB_TOKEN", "GH_TOKEN"),
        "google-search": ("GOOGLE_SEARCH_API_KEY",),
        "jira": ("JIRA_API_TOKEN",),
        "notion": ("NOTION_API_KEY", "NOTION_TOKEN"),
        "serper": ("SERPER_API_KEY",),
        "slack": ("SLACK_BOT_TOKEN", "SLACK_TOKEN"),
        "tavily": ("TAVILY_API_KEY",),
    }
)
"""Service → variables that may hold its key, of services that are not LLM providers of this installation."""
ALIASES = {"grok": "xai", "hf": "huggingface", "sonar": "perplexity", "command": "cohere"}
"""Further spellings of services, beyond those of diagrams (`domain.enums.SERVICE_ALIASES`)."""
MODELS = {
    "codestral": "mistral", "devstral": "mistral", "magistral": "mistral", "ministral": "mistral", "mistral-": "mistral",
    "command-": "cohere", "deepseek-": "deepseek", "grok-": "xai", "sonar-": "perplexity",
}  # fmt: skip
"""Prefixes of model names → service, of services in `FURTHER`."""
_OF_FOLDER = "folder-"
"""Prefix of the ids of keys that came with a folder."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def variables_of_services() -> dict[str, tuple[str, ...]]:
    """Return the variables that may hold the key of each service; the first is the one to set. LLM providers come first."""
    providers = {service: facts.key_variables for service, facts in llm_providers.every() if facts.key_variable}
    return {**providers, **{service: names for service, names in FURTHER.items() if service not in providers}}


class EnvironmentAPIKeyService:
    """`APIKeyPort` over the environment (and `.env`); read-only.

    Keys are found by service, alias, model name (`gpt-6-luna`, `openai:gpt-6-luna`), and by the ids in lists, `env_SERVICE` or
    `folder_SERVICE`. The user's own keys take precedence over those that came with the folder.

    Args:
        settings: default: those of the process.
        variables: service → variable, or several variables in order of precedence; added to those of `variables_of_services`, or
            replacing them.
        part: a chain asks twice: before the stored keys for the user's variables, and after them for those of a folder that the
            user does not trust.
    """

    read_only = True

    def __init__(
        self,
        settings: Settings | None = None,
        variables: Mapping[str, str | Iterable[str]] | None = None,
        *,
        part: Literal["all", "before stored", "after stored"] = "all",
    ) -> None:
        self._part = part
        self._settings = settings or get_settings()
        self._own: dict[str, tuple[str, ...]] = {}
        for name, chosen in (variables or {}).items():
            self.register(name, *((chosen,) if isinstance(chosen, str) else chosen))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._variables)} services>"

    def register(self, name: str, *variables: str) -> None:
        """Register a service whose key is in the first of *variables* that is set.

        Raises:
            ValidationError: there is no variable, or one has an invalid name.
        """
        if not name.strip() or not variables or not all(map(_VARIABLE.match, variables)):
            raise ValidationError(
                "A service needs a name and the name of at least one variable.",
                hint='Use e.g. register("jira", "JIRA_API_TOKEN").',
            )
        self._own[_spelled(name)] = variables

    @property
    def _variables(self) -> dict[str, tuple[str, ...]]:
        """Service → variables; of providers that were registered since, too."""
        return {**variables_of_services(), **self._own}

    async def get_api_key(self, key_id: str) -> SecretStr:
        service = service_of(key_id, self._variables)
        found = self._found(service, of_folder=is_of_folder(key_id))
        if found is None:
            raise not_found(key_id, self._variables)
        redactor.add(text := found.secret.get_secret_value())
        return found.secret if found.origin.personal else folder_secret.FolderSecret(text, found.origin)

    async def set_api_key(self, key_id: str, key: str) -> None:
        raise self._read_only(key_id, "Set")

    async def delete_api_key(self, key_id: str) -> None:
        raise self._read_only(key_id, "Unset")

    async def list_api_keys(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for service in self._variables:
            if (found := self._found(service)) is not None:
                start = "env_" if found.origin.personal else _OF_FOLDER.replace("-", "_")
                row = {
                    "id": f"{start}{service}",
                    "label": found.variable,
                    "service": service,
                    "key": masked(found.secret),
                }
                source = found.origin.source if found.origin.source in (".env", "dipeo.toml") else "environment"
                rows.append({**row, "source": str(found.origin) if found.origin.source == "user" else source})
        return rows

    def _found(self, service: str, *, of_folder: bool = False) -> Credential | None:
        variables = self._variables.get(service, ())
        if self._part == "all":
            return self._settings.secret(*variables, of="folder" if of_folder else "anybody")
        before = self._part == "before stored"
        if before and not of_folder and (users := self._settings.secret(*variables, of="user")) is not None:
            return users
        found = self._settings.secret(*variables, of="folder")
        return found if found is not None and is_trusted_folder(self._settings) == before else None

    def _read_only(self, key_id: str, what: str) -> APIKeyError:
        service = service_of(key_id, self._variables)
        variable = self._variables.get(service, ("its variable",))[0]
        return APIKeyError(
            "Keys of the environment cannot be changed from here.",
            hint=f"{what} {variable} in your shell; `dipeo-nb keys set {redactor(service)}` stores a key for good.",
            key_id=redactor(key_id),
        )


def is_of_folder(key_id: str) -> bool:
    """Whether an id belongs to a key that came with a folder (`folder_openai`)."""
    return _spelled(key_id).startswith(_OF_FOLDER)


def service_of(name: str, known: Collection[str] | None = None) -> str:
    """Return the service of a spelling: a service, an alias, `env_SERVICE`, the name of a model; else the name, in lower case
    with dashes.

    Args:
        known: the services; None: those of `variables_of_services`.
    """
    known = variables_of_services() if known is None else known
    text = _spelled(name).removeprefix("env-").removeprefix(_OF_FOLDER)
    if text in known:
        return text
    service = ALIASES.get(text) or normalize_service(text)
    if service in known:
        return service
    head, colon, _ = text.partition(":")
    if colon:
        return service_of(head, known)
    of_model = llm_providers.service_of_model(text, separated=True)  # a service may be called `gptx`
    return of_model or next((MODELS[start] for start in MODELS if text.startswith(start)), service)


def names_other_key(name: str) -> bool:
    """Whether a name leads to the key of a model, or of a service that is spelled otherwise."""
    service = service_of(name)
    return service != _spelled(name) or service in llm_providers.services()


def not_found(key_id: str, variables: Mapping[str, tuple[str, ...]] | None = None) -> APIKeyNotFoundError:
    """Return the error for a missing key: the variable to set, the command that stores one, and the alternative without a key."""
    variables = variables_of_services() if variables is None else variables
    service = service_of(key_id, variables)
    shown = redactor(key_id)  # it may be the key itself in place of its id
    variable = variables.get(service, (None,))[0]
    if variable:
        ways = [f"Set {variable}", f"store the key with `dipeo-nb keys set {service}`"]
    elif key_id.strip().upper().startswith("APIKEY_"):
        ways = [f"Store it with `dipeo-nb keys set {shown} --service SERVICE`", "name a service instead of the id"]
    else:
        ways = [f"Store it with `dipeo-nb keys set {shown}`"]
    if llm_providers.is_service(service) or not variable:
        ways.append("run without a key on the embedded model: --model local (model='local')")
    return APIKeyNotFoundError(
        f"There is no API key for '{shown}'.", hint=f"{', or '.join(ways)}.", key_id=shown, variable=variable
    )


def masked(secret: SecretStr) -> str:
    """Mask a key for display: its kind and last four characters; short ones are hidden completely."""
    text = secret.get_secret_value()
    if len(text) < 12:
        return "…"
    return f"{'sk-' if text.startswith('sk-') else ''}…{text[-4:]}"


def _spelled(name: str) -> str:
    return name.strip().lower().replace("_", "-")

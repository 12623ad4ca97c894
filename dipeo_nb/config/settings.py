"""The settings, and values derived from them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeGuard
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    PrivateAttr,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dipeo_nb.common import child_environment, clock, lazy
from dipeo_nb.config.addresses import ollama_address
from dipeo_nb.config.default_model import DEFAULT_MODEL, DEFAULT_MODEL_ENDS, default_model
from dipeo_nb.config.explain import Setting, SettingsTable, standing
from dipeo_nb.config.fields import (
    AbsolutePath,
    declared,
    home,
    listed,
    path_list,
    path_or_url,
    path_or_url_text,
    setting,
    upper,
)
from dipeo_nb.config.origins import DEFAULT, GIVEN, Credential, Origin
from dipeo_nb.config.redaction import shown, without_password
from dipeo_nb.config.scopes import Scope
from dipeo_nb.config.sources import Sources, user_file
from dipeo_nb.config.suggestions import Approval, Suggestions, approval_of
from dipeo_nb.errors import ConfigurationError, SettingNotApprovedError

if TYPE_CHECKING:
    from urllib import request
else:
    request = lazy.module("urllib.request")  # brings an HTTP client and TLS


class Settings(BaseSettings):
    """Everything that can be configured; see each field for variable, unit and default.

    Reading a field whose only value is a suggestion of the folder that has not been approved raises SettingNotApprovedError.

    Args:
        given: values by field or variable; other fields are read from the environment and the files.

    Raises:
        ConfigurationError: a value is invalid, there is no such setting, or a file cannot be read.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(frozen=True, extra="forbid", validate_default=False)

    base_dir: AbsolutePath = setting("DIPEO_BASE_DIR", default=None, scope="personal")
    """Root of all relative names in diagrams (DIPEO_BASE_DIR; default: the current directory)."""
    default_llm_model: str = setting(
        "DIPEO_DEFAULT_LLM_MODEL", "DIPEO_LLM_DEFAULT_MODEL", default=DEFAULT_MODEL, scope="suggested"
    )
    """Model of persons without one: `model`, `service:model` or a service. The default is gpt-5-nano-2025-08-07 until
    2026-12-11, when it is shut down, and its successor gpt-6-luna from then on."""
    llm_timeout: float = setting("DIPEO_LLM_TIMEOUT", "DIPEO_LLM_TIMEOUT_S", default=300.0, gt=0, scope="harmless")
    """Seconds for one model call."""
    llm_idle_timeout: float = setting("DIPEO_LLM_IDLE_TIMEOUT", default=60.0, gt=0, scope="harmless")
    """Seconds between two chunks of a streamed answer."""
    llm_max_retries: int = setting("DIPEO_LLM_MAX_RETRIES", default=3, ge=0, scope="harmless")
    """Retries of a failed model call."""
    llm_temperature: float | None = setting("DIPEO_LLM_TEMPERATURE", default=None, ge=0, scope="harmless")
    """Sampling temperature of calls without one; None: the provider's default."""
    llm_max_tokens: int | None = setting("DIPEO_LLM_MAX_TOKENS", default=None, ge=1, scope="harmless")
    """Maximum tokens of an answer for calls without a limit; None: the provider's default."""
    llm_fallbacks: str = setting("DIPEO_LLM_FALLBACKS", default="", scope="suggested")
    """Models to try in turn when a person's own model fails: `anthropic:NAME, local`."""
    llm_mode: Literal["live", "record", "replay", "auto"] = setting("DIPEO_LLM_MODE", default="live", scope="suggested")
    """Recording of model answers: `record` calls models and records them, `replay` calls nothing, `auto` replays what is recorded
    and records the rest (a cache)."""
    llm_recordings: Annotated[Path | None, BeforeValidator(home)] = setting(
        "DIPEO_LLM_RECORDINGS", default=None, scope="suggested"
    )
    """Folder of the recordings, below base_dir when relative; default: <base_dir>/.dipeo/recordings."""
    execution_timeout: float = setting(
        "DIPEO_EXECUTION_TIMEOUT", "DIPEO_EXECUTION_ENGINE_TIMEOUT_S", default=3600.0, gt=0, scope="harmless"
    )
    """Seconds for one run."""
    node_timeout: float = setting("DIPEO_NODE_TIMEOUT", "DIPEO_EXECUTION_NODE_TIMEOUT_S", default=600.0, gt=0, scope="harmless")
    """Seconds for one run of one node, unless the node has its own limit. code_job: 30 s, user_response: no limit."""
    parallel_execution: bool = setting(
        "DIPEO_PARALLEL_EXECUTION", "DIPEO_EXECUTION_ENABLE_PARALLEL", default=True, scope="harmless"
    )
    """False: one node at a time."""
    execution_parallelism: int = setting("DIPEO_EXECUTION_PARALLELISM", default=20, ge=1, scope="harmless")
    """Nodes of one run that execute at the same time."""
    max_iterations: int = setting("DIPEO_MAX_ITERATIONS", "DIPEO_EXECUTION_MAX_ITERATIONS", default=100, ge=1, scope="harmless")
    """Runs of one node within one run of a diagram, after which the loop counts as endless."""
    state_store_path: Annotated[Path | str | None, BeforeValidator(path_or_url)] = setting(
        "STATE_STORE_PATH", "DIPEO_STATE_STORE_PATH", default=None, scope="suggested"
    )
    """The run store: an SQLite file (default: <base_dir>/.dipeo/runs.db), a PostgreSQL database (`postgresql://user@host/name`), or
    `:memory:` (runs are not kept)."""
    state_store_sync: Literal["normal", "full"] = setting("DIPEO_STATE_STORE_SYNC", default="normal", scope="harmless")
    """`normal` survives a killed process; `full` also survives a power failure, at about ten times the time per commit."""
    blob_store: Annotated[str | None, BeforeValidator(path_or_url_text)] = setting(
        "DIPEO_BLOB_STORE", default=None, scope="suggested"
    )
    """Store of blobs and artifacts: a path, `memory:`, `s3://bucket/prefix` …; default: <base_dir>/.dipeo/blobs."""
    conversation_store: Annotated[str | None, BeforeValidator(home)] = setting(
        "DIPEO_CONVERSATION_STORE", default=None, scope="suggested"
    )
    """Store of conversations and persons that outlive a run: the path of an SQLite file, `memory:`, or `redis://…`
    (conversations only); default: <base_dir>/.dipeo/conversations.db."""
    cache_dir: AbsolutePath = setting(
        "DIPEO_CACHE_DIR", default=Path(platformdirs.user_cache_dir("dipeo-nb", appauthor=False)), scope="personal"
    )
    """Folder of the embedded models."""
    data_dir: AbsolutePath = setting(
        "DIPEO_DATA_DIR", default=Path(platformdirs.user_data_dir("dipeo-nb", appauthor=False)), scope="personal"
    )
    """Folder of the user's own records: stored keys, and which code of diagrams from elsewhere is trusted. Never a folder
    that a server exposes."""
    keys_store: Literal["auto", "keyring", "file"] = setting("DIPEO_KEYS_STORE", default="auto", scope="personal")
    """Store that `keys set` writes to: `keyring` (the system's), `file` (apikeys.json in data_dir), `auto`: the keyring if there
    is one, else the file."""
    keys_passphrase: SecretStr | None = setting("DIPEO_KEYS_PASSPHRASE", default=None, scope="personal")
    """Encrypts the keys in that file; an unencrypted file is encrypted when it is next written."""
    local_model: Annotated[str, BeforeValidator(home)] = setting("DIPEO_LOCAL_MODEL", default="smollm2-135m", scope="suggested")
    """Model of `--model local`: a name of the model store, or the path of a GGUF file."""
    open_places: tuple[str, ...] = setting("DIPEO_OPEN_PLACES", default=())
    """Names beginning with a dot that diagrams may use, separated by commas (`.github,.vscode`)."""
    max_file_size: int = setting("DIPEO_MAX_FILE_SIZE", default=50 * 1024 * 1024, ge=1, scope="harmless")
    """Bytes; larger files are neither read nor written."""
    event_bus: str = setting("DIPEO_EVENT_BUS", "DIPEO_EVENT_BUS_BACKEND", default="memory", scope="suggested")
    """Transport of events: `memory` (within the process), a server's URL (`redis://host:6379/0`), or `redis` for that of
    DIPEO_REDIS_URL."""
    redis_url: str = setting("DIPEO_REDIS_URL", "DIPEO_MSG_REDIS_URL", default="redis://localhost:6379/0", scope="suggested")
    """The server meant by `redis` alone."""
    event_queue_size: int = setting(
        "DIPEO_EVENT_QUEUE_SIZE", "DIPEO_MSG_MAX_QUEUE_SIZE", default=10_000, ge=1, scope="harmless"
    )
    """Events that may wait for one slow subscriber."""
    pass_env: str = setting("DIPEO_PASS_ENV", default="")
    """Environment variables that the code of diagrams sees in addition to the harmless ones (`GH_PAT, AWS_*`; in a file also a
    list)."""
    otel: bool = setting("DIPEO_OTEL", default=False, scope="suggested")
    """Whether runs are reported to OpenTelemetry, configured by its own variables (OTEL_EXPORTER_OTLP_ENDPOINT …); without contents."""
    openai_api_key: SecretStr | None = setting("OPENAI_API_KEY", default=None, scope="key")
    anthropic_api_key: SecretStr | None = setting("ANTHROPIC_API_KEY", default=None, scope="key")
    google_api_key: SecretStr | None = setting("GOOGLE_API_KEY", "GEMINI_API_KEY", default=None, scope="key")
    openai_base_url: str | None = setting("OPENAI_BASE_URL", default=None, scope="suggested")
    anthropic_base_url: str | None = setting("ANTHROPIC_BASE_URL", default=None, scope="suggested")
    google_base_url: str | None = setting("GOOGLE_BASE_URL", "GOOGLE_GEMINI_BASE_URL", default=None, scope="suggested")
    """Another server for Gemini; without the version (`/v1beta`), which is appended."""
    ollama_host: str = setting("OLLAMA_HOST", default="http://localhost:11434", scope="suggested")
    """Address of the Ollama server; in any form that Ollama takes (`gpu-box`, `127.0.0.1:11434`, `http://…`)."""
    host: str = setting("DIPEO_HOST", default="127.0.0.1", scope="personal")
    """Address that `dipeo-nb serve` listens on; the default is reachable from this machine only."""
    port: int = setting("DIPEO_PORT", default=8000, ge=0, le=65535, scope="harmless")
    """Port of `dipeo-nb serve`; 0 chooses a free one."""
    serve_token: SecretStr | None = setting("DIPEO_SERVE_TOKEN", default=None, scope="personal")
    """Token of `dipeo-nb serve`; default: a new one for each start, printed."""
    cors_origins: str = setting("DIPEO_CORS_ORIGINS", default="")
    """Origins whose pages may call `dipeo-nb serve` (`https://lab.example.org`), separated by commas; `*`: all. Default: none."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(upper)] = setting(
        "DIPEO_LOG_LEVEL", default="INFO", scope="harmless"
    )
    """Lowest level that commands log to stderr. In a notebook, configure logging with the module `logging`."""
    guest_budget: float = setting("DIPEO_GUEST_BUDGET", default=0.10, ge=0)
    """US dollars that a run of an untrusted diagram may spend on models without approval, including its sub-diagrams (and 50 calls
    and 200,000 tokens at most); 0: approval is needed before any model is called."""
    trusted_folders: Annotated[tuple[AbsolutePath, ...], BeforeValidator(path_list)] = setting("DIPEO_TRUST", default=())
    """Folders whose diagrams, including those in subfolders, count as the user's own; in the variable separated as in PATH."""

    @field_validator("open_places", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("ollama_host", mode="before")
    @classmethod
    def _address(cls, value: Any) -> Any:
        return ollama_address(value) if isinstance(value, str) else value

    @field_validator("pass_env", mode="before")
    @classmethod
    def _passed(cls, value: Any) -> Any:
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if isinstance(text, str) and (never := child_environment.refused(listed(text))):
            raise ValueError(f"{', '.join(never)}: never handed to the code of diagrams")
        return text

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _waiting: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Suggestions of the folder; they have no effect until approved."""
    _sources: Sources = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what `Sources` has chosen, since the effect of a value depends on its origin."""
        return (init_settings,)

    def __init__(self, **given: Any) -> None:
        sources = Sources.read(FIELDS)
        chosen = sources.chosen(_by_field(given))
        try:
            super().__init__(**{name: value for name, (value, _) in chosen.items()})
        except ValidationError as error:
            raise _unusable(error, {name: origin for name, (_, origin) in chosen.items()}) from None
        self._sources = sources
        self._origins = {name: origin for name, (_, origin) in chosen.items()}
        for name, origin in self._origins.items():
            if origin.suggestion:
                self._waiting[name] = vars(self).pop(name)
        if "default_llm_model" not in self._origins:
            del vars(self)["default_llm_model"]  # it depends on the day on which it is read

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Look up suggestions of the folder and the default model, which are not in the instance's dictionary."""
            if name in FIELDS and name in self._waiting:
                return self._approved(name)
            if name == "default_llm_model" and name not in self._origins:
                return default_model()
            return super().__getattr__(name)

    def _approved(self, name: str) -> Any:
        approval = self.approval()
        if approval.state == "approved":
            return self._waiting[name]
        raise not_approved(self._origins[name], self._waiting[name], self._sources.folder)

    def approval(self) -> Approval:
        """Return the user's decision about the suggestions of the folder."""
        return approval_of(self.data_dir, self._sources.suggestions)

    def peek(self, name: str) -> Any:
        """Return the value of a field even if it has not been approved: for display only."""
        return self._waiting[name] if name in self._waiting else getattr(self, name)

    def waits(self, name: str) -> bool:
        """Whether the value of a field is a suggestion of the folder that has not been approved."""
        return name in self._waiting and self.approval().state != "approved"

    def origin(self, name: str) -> Origin:
        """Return the origin of a field's value."""
        if name not in FIELDS:
            raise _unknown(name)
        return self._origins.get(name, DEFAULT)

    @property
    def default_was_replaced(self) -> bool:
        """Whether the default model is the successor of one that was shut down, since nothing sets another."""
        return "default_llm_model" not in self._origins and clock.today() >= DEFAULT_MODEL_ENDS

    @property
    def folder(self) -> Path:
        """The folder whose `.env` and `dipeo.toml` were read: the current directory at that time."""
        return self._sources.folder

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, which are validated and count as the user's own.

        Raises:
            ConfigurationError: a value is invalid, or there is no such setting.
        """
        copied = super().model_copy(deep=deep)
        changes = _by_field(update or {})
        blank = type(self).__new__(type(self))
        try:
            BaseModel.__init__(blank, **changes)
        except ValidationError as error:
            raise _unusable(error, {}) from None
        vars(copied).update({name: vars(blank)[name] for name in changes})
        copied._origins = {**self._origins, **dict.fromkeys(changes, GIVEN)}
        copied._waiting = {name: value for name, value in self._waiting.items() if name not in changes}
        return copied

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler) -> Any:
        whole = BaseModel.model_copy(self)
        if "default_llm_model" not in self._origins:
            vars(whole)["default_llm_model"] = default_model()
        return handler(whole)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value
        if "default_llm_model" not in self._origins:
            yield "default_llm_model", default_model()

    def explain(self) -> SettingsTable:
        """Return all settings with value (keys masked), origin, standing and variables; a table in a notebook."""
        return SettingsTable(self._explained())

    def _explained(self) -> Iterator[Setting]:
        ignored = {name for names in self._sources.ignored.values() for name in names}
        for name, (variables, _) in FIELDS.items():
            origin, value = self.origin(name), self.peek(name)
            text = "…" if isinstance(value, SecretStr) else "" if value is None else shown(value)
            in_vain = bool(ignored & {name, name.upper(), *variables, *(v.lower() for v in variables)})
            source = str(origin)
            if name == "default_llm_model" and self.default_was_replaced:
                source = f"default since {DEFAULT_MODEL_ENDS}, when {DEFAULT_MODEL} was shut down"
            yield Setting(name, text, source, variables, standing(origin, self.approval, ignored=in_vain))

    def secret(self, *variables: str, of: Literal["anybody", "user", "folder"] = "anybody") -> Credential | None:
        """Return the first of *variables* that is set, also for services without a field here (`GITHUB_TOKEN`).

        A field's variable returns the field's value, even if changed in code; others are looked up in the current environment
        and in `.env`. The user's own keys take precedence.
        """
        fields = {name: field for field, (names, _) in FIELDS.items() for name in names}
        found: list[Credential] = []
        for variable in variables:
            if variable in fields:
                value, origin = getattr(self, fields[variable]), self.origin(fields[variable])
                text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
                name = origin.variable if origin.variable in variables else variable
                found.append(Credential(name, SecretStr(text.strip()), origin))
                continue
            values = (
                (os.environ.get(variable), Origin("environment", variable)),
                (self._sources.dotenv.get(variable.upper()), Origin(".env", variable, self._sources.folder / ".env")),
            )
            found += (Credential(variable, SecretStr((text or "").strip()), origin) for text, origin in values)
        wanted = {"anybody": (True, False), "user": (True,), "folder": (False,)}[of]
        there = [c for c in found if c.secret.get_secret_value() and c.origin.personal in wanted]
        return min(there, key=lambda c: not c.origin.personal, default=None)

    @property
    def own_places(self) -> tuple[Path, ...]:
        """Files and folders that belong to the package, wherever they are: diagrams cannot access them. Suggestions that have not been
        approved are not among them."""
        config = Path(platformdirs.user_config_dir("dipeo-nb", appauthor=False))
        places = [self.data_dir, self.cache_dir, config, self.base_dir / ".dipeo"]

        def used(name: str) -> Any:
            return None if self.waits(name) else getattr(self, name)

        if used("llm_recordings") is not None:
            places.append(self.recordings)
        blobs, store, conversations = used("blob_store"), used("state_store_path"), used("conversation_store")
        if blobs is not None and blobs.startswith("file://"):
            blobs = request.url2pathname(urlsplit(blobs).path)
        places += [Path(place) for place in (store, blobs) if _is_path(place)]
        if _is_path(conversations):
            places.append(self.base_dir / conversations)
        return tuple(place.expanduser().absolute() for place in places)

    @property
    def passed_variables(self) -> tuple[str, ...]:
        """The names in `pass_env`."""
        return listed(self.pass_env)

    @property
    def recordings(self) -> Path:
        """Folder of recorded model answers."""
        return self.base_dir / (self.llm_recordings or Path(".dipeo", "recordings"))

    @property
    def run_store(self) -> Path | str | None:
        """Path of the run store's file, or URL of its database; None: memory only."""
        place = self.state_store_path
        if place is None:
            return self.base_dir / ".dipeo" / "runs.db"
        return None if place in (":memory:", "memory:") else place


FIELDS = declared(Settings.model_fields)


def _is_path(place: Path | str | None) -> TypeGuard[Path | str]:
    """Whether a store is a file or folder rather than a server or memory."""
    return isinstance(place, Path) or (place is not None and "://" not in place and not place.endswith("memory:"))


def folder_suggestions(folder: Path) -> Suggestions:
    """Return what the files of a folder suggest at present.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    return Sources.read(FIELDS, folder).suggestions


def not_approved(origin: Origin, value: Any, folder: Path) -> SettingNotApprovedError:
    """Return the error for a suggestion of a folder that has not been approved, with both ways to resolve it."""
    return SettingNotApprovedError(
        f"{origin.variable}={shown(value)} in {origin.file} came with the folder and needs your approval.",
        hint=f'Approve it: dipeo-nb trust "{folder}" (dp.trust("{folder}")). Or decide yourself: set {_variable_of(origin)} in the '
        f"environment or in {user_file()}.",
        variable=origin.variable,
        file=str(origin.file),
        folder=str(folder),
    )


def _variable_of(origin: Origin) -> str:
    """Return the environment variable of a setting, which a file may name by its field."""
    return FIELDS[origin.variable].variables[0] if origin.variable in FIELDS else origin.variable


def scope_of(name: str) -> Scope:
    """Return the scope of a field."""
    return FIELDS[name].scope


def _by_field(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by field, given by field or by variable."""
    fields = {variable: field for field, (names, _) in FIELDS.items() for variable in names}
    found = {fields.get(name.upper(), name): value for name, value in given.items()}
    for name in found:
        if name not in FIELDS:
            raise _unknown(name)
    return found


def _unknown(name: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, FIELDS, n=1)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    return ConfigurationError(f"There is no setting '{name}'.", hint=f"{guess}get_settings().explain() lists them.")


def _unusable(error: ValidationError, origins: Mapping[str, Origin]) -> ConfigurationError:
    """Return the error for invalid values. It does not repeat them: one may be a key in the wrong variable."""
    wrong: dict[str, str] = {}
    for found in error.errors(include_input=False, include_url=False):
        name = str(found["loc"][0]) if found["loc"] else "settings"
        origin = origins.get(name, GIVEN)
        where = f"{origin.variable} ({origin.file})" if origin.file else origin.variable or name
        wrong.setdefault(where, str(found["msg"]))
    said = "; ".join(f"{where}: {message}" for where, message in wrong.items())
    return ConfigurationError(f"A setting cannot be used. {said}.", hint="Correct or unset it.")

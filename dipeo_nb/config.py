"""Settings. The only module that reads the environment.

Each variable is accepted under the name that upstream documents and under the one that worked there. What code or the command
line gives goes first, then the environment, then the user's own file (`config.toml` in the user's configuration folder), then `.env`
and `dipeo.toml` of the current directory (fields of `Settings` or variables as keys).

The first three are the user's word. The files of a folder may have come with it, so each field has a scope that says what they may
do: `personal` fields are ignored there, `suggested` ones wait until the user approves them, `harmless` ones have effect, a `key` is
used as `llm.pool` says. `get_settings().explain()` says where each value came from and what it is worth; a `DIPEO_*` variable that
nothing reads is warned about.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeGuard
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dipeo_nb.common import child_environment, clock
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.secret_names import is_secret_name, looks_random, may_be_secret_name, secrets_of_text
from dipeo_nb.common.settings_files import read_dotenv, read_toml
from dipeo_nb.common.text import printable
from dipeo_nb.errors import ConfigurationError, SettingNotApprovedError, UserError

DEFAULT_MODEL = "gpt-5-nano-2025-08-07"
"""The default model, of OpenAI."""
DEFAULT_MODEL_ENDS = date(2026, 12, 11)
"""The day on which it is shut down (`domain/lifecycle.toml`)."""
DEFAULT_MODEL_AFTER = "gpt-6-luna"
"""The default model from that day on."""

Scope = Literal["personal", "suggested", "harmless", "key"]
"""What a folder's file may do with a field."""


def _env(*names: str, default: Any, scope: Scope = "personal", **more: Any) -> Any:
    return Field(default=default, json_schema_extra={"variables": list(names), "scope": scope}, **more)


def _home(value: Any) -> Any:
    """`~` is the user's home in every path, wherever it is written."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        try:
            found = from_home(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return str(found) if isinstance(value, str) else found
    return value


def _absolute(value: Any) -> Any:
    return Path(_home(value)).absolute() if isinstance(value, str | Path) else value


def _place(value: Any) -> Any:
    """An absolute path, or the URL or `memory:` that it is."""
    if isinstance(value, str) and (_is_url(value) or value in (":memory:", "memory:")):
        return value
    return _absolute(value)


def _text_place(value: Any) -> Any:
    return str(_place(value)) if isinstance(value, str | Path) else value


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _list(value: Any) -> Any:
    """The paths of a variable such as PATH."""
    return tuple(part for part in value.split(os.pathsep) if part.strip()) if isinstance(value, str) else value


def _is_url(text: str) -> bool:
    return "://" in text


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]


class Settings(BaseSettings):
    """Everything that can be configured; see each field for variable, unit and default.

    A field of which the folder suggests a value that nobody has approved has none: reading it raises SettingNotApprovedError.

    Args:
        given: values of fields, by field or variable; the others are looked for in the environment and the files.

    Raises:
        ConfigurationError: a value cannot be used, there is no such setting, or a file cannot be read.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=False)

    base_dir: AbsolutePath = _env("DIPEO_BASE_DIR", default=None, scope="personal")
    """Root of all relative names in diagrams (DIPEO_BASE_DIR; default: the current directory)."""
    default_llm_model: str = _env("DIPEO_DEFAULT_LLM_MODEL", "DIPEO_LLM_DEFAULT_MODEL", default=DEFAULT_MODEL, scope="suggested")
    """Model of a person that names none: `model`, `service:model` or a service. The default is gpt-5-nano-2025-08-07 until
    2026-12-11, when it is shut down, and its successor gpt-6-luna from then on."""
    llm_timeout: float = _env("DIPEO_LLM_TIMEOUT", "DIPEO_LLM_TIMEOUT_S", default=300.0, gt=0, scope="harmless")
    """Seconds for one model call."""
    llm_idle_timeout: float = _env("DIPEO_LLM_IDLE_TIMEOUT", default=60.0, gt=0, scope="harmless")
    """Seconds between two pieces of a streamed answer."""
    llm_max_retries: int = _env("DIPEO_LLM_MAX_RETRIES", default=3, ge=0, scope="harmless")
    """Times a failed model call is repeated."""
    llm_temperature: float | None = _env("DIPEO_LLM_TEMPERATURE", default=None, ge=0, scope="harmless")
    """Sampling temperature of calls that name none; None: the provider's own default."""
    llm_max_tokens: int | None = _env("DIPEO_LLM_MAX_TOKENS", default=None, ge=1, scope="harmless")
    """Limit of answers in tokens for calls that name none; None: the provider's own."""
    llm_fallbacks: str = _env("DIPEO_LLM_FALLBACKS", default="", scope="suggested")
    """Models to ask in turn when a person's own cannot answer: `anthropic:NAME, local`."""
    llm_mode: Literal["live", "record", "replay", "auto"] = _env("DIPEO_LLM_MODE", default="live", scope="suggested")
    """Recorded answers of models: `record` calls and writes them down, `replay` calls nothing, `auto` replays what is recorded
    and records the rest (a cache)."""
    llm_recordings: Annotated[Path | None, BeforeValidator(_home)] = _env("DIPEO_LLM_RECORDINGS", default=None, scope="suggested")
    """Folder of the recordings, below base_dir when relative; default: <base_dir>/.dipeo/recordings."""
    execution_timeout: float = _env("DIPEO_EXECUTION_TIMEOUT", "DIPEO_EXECUTION_ENGINE_TIMEOUT_S", default=3600.0, gt=0, scope="harmless")
    """Seconds for one run."""
    node_timeout: float = _env("DIPEO_NODE_TIMEOUT", "DIPEO_EXECUTION_NODE_TIMEOUT_S", default=600.0, gt=0, scope="harmless")
    """Seconds for one run of one node, unless the node says otherwise. code_job: 30 s, user_response: no limit."""
    parallel_execution: bool = _env("DIPEO_PARALLEL_EXECUTION", "DIPEO_EXECUTION_ENABLE_PARALLEL", default=True, scope="harmless")
    """False: one node at a time."""
    execution_parallelism: int = _env("DIPEO_EXECUTION_PARALLELISM", default=20, ge=1, scope="harmless")
    """Nodes of one run that work at the same time."""
    max_iterations: int = _env("DIPEO_MAX_ITERATIONS", "DIPEO_EXECUTION_MAX_ITERATIONS", default=100, ge=1, scope="harmless")
    """Runs of one node within one run of a diagram, before the loop is called endless."""
    state_store_path: Annotated[Path | str | None, BeforeValidator(_place)] = _env("STATE_STORE_PATH", "DIPEO_STATE_STORE_PATH", default=None, scope="suggested")
    """The run store: an SQLite file (default: <base_dir>/.dipeo/runs.db), a PostgreSQL database (`postgresql://user@host/name`), or
    `:memory:`, which keeps no runs."""
    state_store_sync: Literal["normal", "full"] = _env("DIPEO_STATE_STORE_SYNC", default="normal", scope="harmless")
    """`normal` survives a killed process; `full` also survives a power cut, at about ten times the time per commit."""
    blob_store: Annotated[str | None, BeforeValidator(_text_place)] = _env("DIPEO_BLOB_STORE", default=None, scope="suggested")
    """Where blobs and artifacts are kept: a path, `memory:`, `s3://bucket/prefix` …; default: <base_dir>/.dipeo/blobs."""
    conversation_store: Annotated[str | None, BeforeValidator(_home)] = _env("DIPEO_CONVERSATION_STORE", default=None, scope="suggested")
    """Where conversations and persons that outlive a run are kept: the path of an SQLite file, `memory:`, or `redis://…`
    (conversations only); default: <base_dir>/.dipeo/conversations.db."""
    cache_dir: AbsolutePath = _env("DIPEO_CACHE_DIR", default=Path(platformdirs.user_cache_dir("dipeo-nb", appauthor=False)), scope="personal")
    """Where the embedded model is kept."""
    data_dir: AbsolutePath = _env("DIPEO_DATA_DIR", default=Path(platformdirs.user_data_dir("dipeo-nb", appauthor=False)), scope="personal")
    """Where the user's own records are kept: stored keys, and which code of diagrams from elsewhere is trusted. Never a folder
    that a server shows."""
    keys_store: Literal["auto", "keyring", "file"] = _env("DIPEO_KEYS_STORE", default="auto", scope="personal")
    """Where `keys set` stores keys: `keyring` (the system's), `file` (apikeys.json in data_dir), `auto`: the keyring where there
    is one, else the file."""
    keys_passphrase: SecretStr | None = _env("DIPEO_KEYS_PASSPHRASE", default=None, scope="personal")
    """Encrypts the keys in that file; a file without is encrypted when it is next written."""
    local_model: Annotated[str, BeforeValidator(_home)] = _env("DIPEO_LOCAL_MODEL", default="smollm2-135m", scope="suggested")
    """Model of `--model local`: a name of the model store, or the path of a GGUF file."""
    open_places: tuple[str, ...] = _env("DIPEO_OPEN_PLACES", default=())
    """Names that begin with a dot and may be used by diagrams all the same, separated by commas (`.github,.vscode`)."""
    max_file_size: int = _env("DIPEO_MAX_FILE_SIZE", default=50 * 1024 * 1024, ge=1, scope="harmless")
    """Bytes; larger files are neither read nor written."""
    event_bus: str = _env("DIPEO_EVENT_BUS", "DIPEO_EVENT_BUS_BACKEND", default="memory", scope="suggested")
    """How events travel: `memory` (within the process), a server's URL (`redis://host:6379/0`), or `redis` for that of
    DIPEO_REDIS_URL."""
    redis_url: str = _env("DIPEO_REDIS_URL", "DIPEO_MSG_REDIS_URL", default="redis://localhost:6379/0", scope="suggested")
    """The server meant by `redis` alone."""
    event_queue_size: int = _env("DIPEO_EVENT_QUEUE_SIZE", "DIPEO_MSG_MAX_QUEUE_SIZE", default=10_000, ge=1, scope="harmless")
    """Events waiting per slow subscriber."""
    pass_env: str = _env("DIPEO_PASS_ENV", default="")
    """Variables of the environment that the code of diagrams gets besides the harmless ones (`GH_PAT, AWS_*`; in a file also a
    list)."""
    otel: bool = _env("DIPEO_OTEL", default=False, scope="suggested")
    """Whether runs are sent to OpenTelemetry, by its own settings (OTEL_EXPORTER_OTLP_ENDPOINT …); without contents."""
    openai_api_key: SecretStr | None = _env("OPENAI_API_KEY", default=None, scope="key")
    anthropic_api_key: SecretStr | None = _env("ANTHROPIC_API_KEY", default=None, scope="key")
    google_api_key: SecretStr | None = _env("GOOGLE_API_KEY", "GEMINI_API_KEY", default=None, scope="key")
    openai_base_url: str | None = _env("OPENAI_BASE_URL", default=None, scope="suggested")
    anthropic_base_url: str | None = _env("ANTHROPIC_BASE_URL", default=None, scope="suggested")
    google_base_url: str | None = _env("GOOGLE_BASE_URL", "GOOGLE_GEMINI_BASE_URL", default=None, scope="suggested")
    """Another server for Gemini; without the version (`/v1beta`), which is added."""
    ollama_host: str = _env("OLLAMA_HOST", default="http://localhost:11434", scope="suggested")
    """Address of the Ollama server; in any form that Ollama takes (`gpu-box`, `127.0.0.1:11434`, `http://…`)."""
    host: str = _env("DIPEO_HOST", default="127.0.0.1", scope="personal")
    """Where `dipeo-nb serve` listens; the default is reached from this machine only."""
    port: int = _env("DIPEO_PORT", default=8000, ge=0, le=65535, scope="harmless")
    """Port of `dipeo-nb serve`; 0 chooses a free one."""
    serve_token: SecretStr | None = _env("DIPEO_SERVE_TOKEN", default=None, scope="personal")
    """Token of `dipeo-nb serve`; default: a new one each time, printed."""
    cors_origins: str = _env("DIPEO_CORS_ORIGINS", default="")
    """Origins whose pages may use `dipeo-nb serve` (`https://lab.example.org`), separated by commas; `*`: all. Default: none."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = _env(
        "DIPEO_LOG_LEVEL", default="INFO", scope="harmless"
    )
    """What the commands log to stderr, from this level on. In a notebook, logging is set up with the module `logging`."""
    guest_budget: float = _env("DIPEO_GUEST_BUDGET", default=0.10, ge=0)
    """US dollars that a run of an untrusted diagram may spend on models unasked, with its sub-diagrams (and 50 calls and 200,000
    tokens at most); 0: it is asked about before any model is called."""
    trusted_folders: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_list)] = _env("DIPEO_TRUST", default=())
    """Folders whose diagrams are the user's own, with all below them; in the variable separated as in PATH."""

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
        if isinstance(text, str) and (never := child_environment.refused(_listed(text))):
            raise ValueError(f"{', '.join(never)}: never handed to the code of diagrams")
        return text

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _waiting: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Values that the folder suggests; they have effect once they are approved."""
    _sources: _Sources = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `_Sources` has chosen, and nothing else: where each value comes from decides what it may do."""
        return (init_settings,)

    def __init__(self, **given: Any) -> None:
        sources = _Sources.read()
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
            """Fields of which only the folder has a value, and the default model, are not in the instance's dictionary."""
            if name in Settings.model_fields and name in self._waiting:
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
        """What the user has said to the suggestions of the folder."""
        return _approval_of(self.data_dir, self._sources.suggestions)

    def peek(self, name: str) -> Any:
        """The value of a field, also one that waits to be approved: to be shown, never to be used."""
        return self._waiting[name] if name in self._waiting else getattr(self, name)

    def waits(self, name: str) -> bool:
        """Whether the value of a field is a suggestion of the folder that is not approved."""
        return name in self._waiting and self.approval().state != "approved"

    def origin(self, name: str) -> Origin:
        """Where the value of a field came from."""
        if name not in type(self).model_fields:
            raise _unknown(name)
        return self._origins.get(name, DEFAULT)

    @property
    def default_was_replaced(self) -> bool:
        """Whether nothing names a default model, and the one of old has been shut down: its successor is the default now."""
        return "default_llm_model" not in self._origins and clock.today() >= DEFAULT_MODEL_ENDS

    @property
    def folder(self) -> Path:
        """The folder whose `.env` and `dipeo.toml` were read: the current directory when the settings were."""
        return self._sources.folder

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are checked and are the user's own.

        Raises:
            ConfigurationError: a value cannot be used, or there is no such setting.
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

    def explain(self) -> Explanation:
        """Every setting: its value (keys masked), where it came from, what it is worth, and its variables. A table in a notebook."""
        return Explanation(_explained(self))

    def secret(self, *variables: str, of: Literal["anybody", "user", "folder"] = "anybody") -> Credential | None:
        """The first of *variables* that holds something: keys of services that have no field here (`GITHUB_TOKEN`), too.

        Variables of a field give the field's value, also when that was changed in code; others are looked for in the
        environment, as it is now, and in `.env`. What is the user's own goes first.
        """
        fields = {name: field for field, info in type(self).model_fields.items() for name in _variables(info)}
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
        """Files and folders that belong to the product, wherever they are: no diagram reaches them. What waits to be approved is
        none of them."""
        config = Path(platformdirs.user_config_dir("dipeo-nb", appauthor=False))
        places = [self.data_dir, self.cache_dir, config, self.base_dir / ".dipeo"]

        def used(name: str) -> Any:
            return None if self.waits(name) else getattr(self, name)

        if used("llm_recordings") is not None:
            places.append(self.recordings)
        blobs, store, conversations = used("blob_store"), used("state_store_path"), used("conversation_store")
        if blobs is not None and blobs.startswith("file://"):
            blobs = url2pathname(urlsplit(blobs).path)
        places += [Path(place) for place in (store, blobs) if _is_path(place)]
        if _is_path(conversations):
            places.append(self.base_dir / conversations)
        return tuple(place.expanduser().absolute() for place in places)

    @property
    def passed_variables(self) -> tuple[str, ...]:
        """The names in `pass_env`."""
        return _listed(self.pass_env)

    @property
    def recordings(self) -> Path:
        """Folder of the recorded answers of models."""
        return self.base_dir / (self.llm_recordings or Path(".dipeo", "recordings"))

    @property
    def run_store(self) -> Path | str | None:
        """Path of the run store's file, or the URL of its database; None for memory only."""
        place = self.state_store_path
        if place is None:
            return self.base_dir / ".dipeo" / "runs.db"
        return None if place in (":memory:", "memory:") else place


def default_model() -> str:
    """The default model of today."""
    return DEFAULT_MODEL_AFTER if clock.today() >= DEFAULT_MODEL_ENDS else DEFAULT_MODEL


def _is_path(place: Path | str | None) -> TypeGuard[Path | str]:
    """Whether a store is a file or folder, not a server or memory."""
    return isinstance(place, Path) or (place is not None and "://" not in place and not place.endswith("memory:"))


def ollama_address(host: str) -> str:
    """The URL that an OLLAMA_HOST means: scheme http and port 11434 unless given; an address to listen at is one to call.

    The rules are those of Ollama's own client (envconfig.Host, envconfig.ConnectableHost).
    """
    text = host.strip().strip("\"'")
    scheme, there, rest = text.partition("://")
    rest = rest.rstrip("/")
    if there and not rest:
        return text  # no address: whoever wants to use it says so
    if not there:
        scheme, rest = "http", text.rstrip("/")
    place, slash, path = rest.partition("/")
    name, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):  # no port; `[::1]` has colons of its own
        name, port = place, "" if there else "11434"
    name = {"": "localhost", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)
    return f"{scheme}://{name}{':' if port else ''}{port}{slash}{path}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    source: Literal["default", "given", "environment", "user", ".env", "dipeo.toml"]
    variable: str = ""
    """The name under which it stood there."""
    file: Path | None = None
    suggestion: bool = False
    """Whether it is one that a folder may only suggest."""

    @property
    def personal(self) -> bool:
        """Whether it is the user's word; else it came with the folder."""
        return self.source not in (".env", "dipeo.toml")

    def __str__(self) -> str:
        if self.source == "environment":
            return f"environment {self.variable}"
        return str(self.file) if self.source == "user" else self.source


DEFAULT = Origin("default")
GIVEN = Origin("given")


class Credential(NamedTuple):
    """A key, the variable that holds it, and where that is set."""

    variable: str
    secret: SecretStr
    origin: Origin


class FolderSecret(SecretStr):
    """A key that came with a folder; keys of other types are the user's own."""

    def __init__(self, text: str, origin: Origin) -> None:
        super().__init__(text)
        self.origin = origin


class Suggestion(NamedTuple):
    """A value that a folder suggests."""

    name: str
    value: Any
    origin: Origin

    @property
    def shown(self) -> str:
        """The value as it may be shown, on one line."""
        return _shown(self.value)


class Suggestions(NamedTuple):
    """The values that the files of a folder suggest, also those that something of the user's goes before."""

    folder: Path
    entries: tuple[Suggestion, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the folder and the sorted names and values: what a yes holds for."""
        values = sorted((entry.name, json.dumps(entry.value, default=str)) for entry in self.entries)
        return hashlib.sha256(json.dumps([str(self.folder), values]).encode("utf-8", "surrogatepass")).hexdigest()


class Approval(NamedTuple):
    """What the user has said to the suggestions of a folder."""

    state: Literal["waiting", "approved", "declined"]
    at: str = ""
    """When, as `2026-11-28T10:00:00Z`."""


Approvals = Callable[[Path, Suggestions], Approval]
"""Looks up what was said: the user's data folder, the suggestions."""
_approvals: Approvals | None = None


def use_approvals(approvals: Approvals) -> None:
    """Say where approvals are looked up; without, everything that a folder suggests waits."""
    global _approvals
    _approvals = approvals


def _approval_of(data_dir: Path, suggestions: Suggestions) -> Approval:
    return Approval("waiting") if _approvals is None else _approvals(data_dir, suggestions)


def folder_suggestions(folder: Path) -> Suggestions:
    """What the files of a folder suggest now.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    return _Sources.read(folder).suggestions


def not_approved(origin: Origin, value: Any, folder: Path) -> SettingNotApprovedError:
    """The error of a value that a folder suggests and nobody has approved: what it is, and both ways out."""
    return SettingNotApprovedError(
        f"{origin.variable}={_shown(value)} in {origin.file} came with the folder and waits for your yes.",
        hint=f'Approve it: dipeo-nb trust "{folder}" (dp.trust("{folder}")). Or decide yourself: set {_variable_of(origin)} in the '
        f"environment or in {user_file()}.",
        variable=origin.variable,
        file=str(origin.file),
        folder=str(folder),
    )


def _variable_of(origin: Origin) -> str:
    """The environment variable of a setting that a file may name by its field."""
    info = Settings.model_fields.get(origin.variable)
    return _variables(info)[0] if info is not None else origin.variable


def user_file() -> Path:
    """The user's own file of settings."""
    return Path(platformdirs.user_config_dir("dipeo-nb", appauthor=False)) / "config.toml"


@dataclass(frozen=True, repr=False)  # there are keys in it
class _Layer:
    """The settings of one source: field → (name it had there, value)."""

    source: Literal["environment", "user", ".env", "dipeo.toml"]
    file: Path | None
    values: Mapping[str, tuple[str, Any]]

    def origin(self, name: str, *, suggestion: bool = False) -> Origin:
        return Origin(self.source, self.values[name][0], self.file, suggestion)

    @property
    def of_folder(self) -> bool:
        return self.source in (".env", "dipeo.toml")


@dataclass(frozen=True, repr=False)
class _Sources:
    """Everything that was read; which value counts is decided here."""

    folder: Path
    layers: tuple[_Layer, ...]
    """The first that has a value goes first."""
    dotenv: Mapping[str, str]
    """Everything in `.env` that is not empty, names in upper case."""
    names: tuple[tuple[str, Path | None], ...]
    """Names that may be settings, with the file they stand in."""

    @classmethod
    def read(cls, folder: Path | None = None) -> _Sources:
        """The environment, the user's file and the files of a folder; default: the current directory."""
        folder = Path.cwd() if folder is None else folder.resolve()
        dotenv_file, toml_file, own_file = folder / ".env", folder / "dipeo.toml", user_file()
        dotenv, toml, own = read_dotenv(dotenv_file), read_toml(toml_file), read_toml(own_file, own=True)
        layers = (
            _Layer("environment", None, _fields(os.environ.items())),
            _Layer("user", own_file, _fields(own.items(), by_name=True)),
            _Layer(".env", dotenv_file, _fields(dotenv.items())),
            _Layer("dipeo.toml", toml_file, _fields(toml.items(), by_name=True)),
        )
        places: list[tuple[Iterable[str], Path | None]] = [(os.environ, None), (own, own_file), (dotenv, dotenv_file), (toml, toml_file)]
        names = tuple((name, file) for found, file in places for name in found)
        return cls(folder, layers, {name: value for name, value in dotenv.items() if not _is_empty(value)}, names)

    def chosen(self, given: Mapping[str, Any]) -> dict[str, tuple[Any, Origin]]:
        """Field → (value, origin), for fields that have one; base_dir always has."""
        found: dict[str, tuple[Any, Origin]] = {name: (value, GIVEN) for name, value in given.items()}
        for name in Settings.model_fields:
            for layer in self.layers:
                if name in found:
                    break
                if name not in layer.values:
                    continue
                value = layer.values[name][1]
                scope = self._scope(name, value) if layer.of_folder else "harmless"
                if scope == "personal":
                    continue
                found[name] = value, layer.origin(name, suggestion=scope == "suggested")
        if found.get("base_dir", (None,))[0] is None:
            found["base_dir"] = self.folder, DEFAULT
        return found

    @property
    def ignored(self) -> dict[str, list[str]]:
        """File of the folder → names of personal settings in it, which have no effect."""
        return {
            str(layer.file): names
            for layer in self.layers
            if layer.of_folder
            and (names := [n for field, (n, value) in layer.values.items() if self._scope(field, value) == "personal"])
        }

    @property
    def suggestions(self) -> Suggestions:
        found: dict[str, Suggestion] = {}
        for layer in self.layers:
            for name, (_, value) in layer.values.items() if layer.of_folder else ():
                if name not in found and self._scope(name, value) == "suggested":
                    found[name] = Suggestion(name, value, layer.origin(name, suggestion=True))
        return Suggestions(self.folder, tuple(found.values()))

    def _scope(self, name: str, value: Any) -> Scope:
        """What a value of the folder may do: some fields are harmless with some values."""
        scope = scope_of(name)
        harmless = _HARMLESS.get(name)
        if harmless is not None and isinstance(value, str | bool) and harmless(value, self.folder):
            return "harmless"
        return scope


def _fields(pairs: Iterable[tuple[str, Any]], *, by_name: bool = False) -> dict[str, tuple[str, Any]]:
    """Field → (name, value) of those that are set, by variable in any case, and by field where files have those."""
    upper = {name.upper(): (name, value) for name, value in pairs if not _is_empty(value)}
    found: dict[str, tuple[str, Any]] = {}
    for field, info in Settings.model_fields.items():
        names = (*((field.upper(),) if by_name else ()), *_variables(info))
        if (there := next((upper[name] for name in names if name in upper), None)) is not None:
            found[field] = there
    return found


def _is_empty(value: Any) -> bool:
    """A variable that is set to nothing is not set, as in the shells' `${X:-default}` and in Compose files."""
    return isinstance(value, str) and not value.strip()


def _by_field(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by field, of what is given by field or by variable."""
    fields = {variable: field for field, info in Settings.model_fields.items() for variable in _variables(info)}
    found = {fields.get(name.upper(), name): value for name, value in given.items()}
    for name in found:
        if name not in Settings.model_fields:
            raise _unknown(name)
    return found


def _unknown(name: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    return ConfigurationError(f"There is no setting '{name}'.", hint=f"{guess}get_settings().explain() lists them.")


def _unusable(error: ValidationError, origins: Mapping[str, Origin]) -> ConfigurationError:
    """The error of values that cannot be used. They are not repeated: one may be a key in the wrong variable."""
    wrong: dict[str, str] = {}
    for found in error.errors(include_input=False, include_url=False):
        name = str(found["loc"][0]) if found["loc"] else "settings"
        origin = origins.get(name, GIVEN)
        where = f"{origin.variable} ({origin.file})" if origin.file else origin.variable or name
        wrong.setdefault(where, str(found["msg"]))
    said = "; ".join(f"{where}: {message}" for where, message in wrong.items())
    return ConfigurationError(f"A setting cannot be used. {said}.", hint="Correct or unset it.")


OWN_HOSTS = {"openai": ("api.openai.com",), "anthropic": ("api.anthropic.com",), "google": ("generativelanguage.googleapis.com",)}
"""The providers' own servers: these and what is below them."""


def is_own_server(url: str, hosts: Iterable[str]) -> bool:
    """Whether a URL is one of a provider's own servers, over https."""
    try:
        address = urlsplit(url)
        host, _ = address.hostname or "", address.port
    except ValueError:
        return False
    plain = not re.search(r"[\s\\\x00-\x1f]", url) and "@" not in address.netloc
    return plain and address.scheme == "https" and any(host == own or host.endswith(f".{own}") for own in hosts)


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine."""
    try:
        return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False


def _stays(value: Any, folder: Path) -> bool:
    """Whether a path stays in the folder, and out of its hidden places but our own."""
    text = str(value)
    if _is_url(text) or text.startswith("~"):
        return False
    if text in (":memory:", "memory:"):
        return True
    try:
        place = (folder / text).resolve().relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False
    return not any(part.startswith(".") and part != ".dipeo" for part in place.parts)


def _is_embedded(value: Any, folder: Path) -> bool:
    """Whether models are embedded ones by name, or `echo`: nothing leaves the machine, no file is opened."""
    names = [name.strip().lower() for name in str(value).split(",") if name.strip()]
    return all(re.fullmatch(r"(local|echo)(:[\w-]+(\.\w+)*)?", name) and not (folder / name[6:]).is_file() for name in names)


def _is_model_name(value: Any, folder: Path) -> bool:
    text = str(value)
    return bool(re.fullmatch(r"[\w-]++(?:\.\d++)*+[\w-]*+", text)) and not (folder / text).exists()


_HARMLESS: dict[str, Callable[[Any, Path], bool]] = {
    "base_dir": lambda value, folder: _stays(value, folder) and (folder / str(value)).is_dir(),
    "state_store_path": _stays,
    "blob_store": _stays,
    "conversation_store": _stays,
    "llm_recordings": _stays,
    "event_bus": lambda value, folder: value in ("memory", "memory:"),
    "otel": lambda value, folder: str(value).strip().lower() in ("false", "0", "no", "off", "f", "n"),
    "llm_mode": lambda value, folder: value == "live",
    "default_llm_model": _is_embedded,
    "llm_fallbacks": _is_embedded,
    "local_model": _is_model_name,
    "openai_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["openai"]),
    "anthropic_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["anthropic"]),
    "google_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["google"]),
}
"""Field → whether a value is harmless though the field as such is not."""


def scope_of(name: str) -> Scope:
    """The scope of a field."""
    return _more(Settings.model_fields[name])["scope"]


class Setting(NamedTuple):
    """One setting, explained."""

    name: str
    value: str
    source: str
    """`environment DIPEO_X`, the user's file, `.env`, `dipeo.toml`, `given` (changed in code) or `default`."""
    variables: tuple[str, ...]
    standing: str = ""
    """What it is worth: `personal`, `folder`, `folder, approved 28 Nov`, `folder, waiting → dp.trust(".")`,
    `folder, declined → dp.trust(".")`, `folder, ignored (personal)`; empty for defaults."""


class Explanation(tuple[Setting, ...]):
    """All settings; prints as a table."""

    def __repr__(self) -> str:
        wide = max(len(s.name) for s in self)
        return "\n".join(f"{s.name:<{wide}}  {s.value}  ({'; '.join(filter(None, (s.source, s.standing)))})" for s in self)

    def _repr_html_(self) -> str:
        titles = ("setting", "value", "from", "standing", "variables")
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (*s[:3], s.standing, ", ".join(s.variables))) + "</tr>"
            for s in self
        )
        head = "".join(f"<th>{title}</th>" for title in titles)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _explained(settings: Settings) -> Iterator[Setting]:
    ignored = {name for names in settings._sources.ignored.values() for name in names}
    for name, info in Settings.model_fields.items():
        variables, origin, value = _variables(info), settings.origin(name), settings.peek(name)
        shown = "…" if isinstance(value, SecretStr) else "" if value is None else _shown(value)
        standing = _standing(settings, origin)
        if ignored & {name, *variables} or ignored & {name.upper(), *(v.lower() for v in variables)}:
            standing = "; ".join(filter(None, (standing, "folder, ignored (personal)")))
        source = str(origin)
        if name == "default_llm_model" and settings.default_was_replaced:
            source = f"default since {DEFAULT_MODEL_ENDS}, when {DEFAULT_MODEL} was shut down"
        yield Setting(name, shown, source, variables, standing)


def _standing(settings: Settings, origin: Origin) -> str:
    if origin.source == "default":
        return ""
    if origin.personal:
        return "personal"
    if not origin.suggestion:
        return "folder"
    approval = settings.approval()
    if approval.state == "approved":
        return f"folder, approved {_day(approval.at)}".rstrip()
    return f'folder, {approval.state} → dp.trust(".")'


def _day(at: str) -> str:
    """`28 Nov` of `2026-11-28T10:00:00Z`."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    found = re.match(r"\d{4}-(\d\d)-(\d\d)", at)
    return f"{int(found[2])} {months[int(found[1]) - 1]}" if found and 1 <= int(found[1]) <= 12 else ""


def _shown(value: Any) -> str:
    """A value on one line, without passwords and without what a terminal would obey."""
    if isinstance(value, tuple):
        return os.pathsep.join(map(str, value))
    return printable(without_password(str(value))[:500])


def _more(info: Any) -> dict[str, Any]:
    return info.json_schema_extra


def _variables(info: Any) -> tuple[str, ...]:
    return tuple(_more(info)["variables"])


class FolderSettingWarning(UserWarning):
    """A file of a folder sets what only the user may set."""


class UnknownSettingWarning(UserWarning):
    """A DIPEO_* variable that nothing reads."""


NOT_USED = {
    "DIPEO_WORKERS": "the server is one process",
    "DIPEO_RELOAD": "the server does not reload itself",
    "DIPEO_ENV": "there are no environments to choose between",
    "DIPEO_COMPILE_PROMPTS": "prompts are always compiled",
}
"""Variables of upstream that mean nothing here, and why."""
OTHERS = ("DIPEO_DI_", "DIPEO_MSG_")
"""Beginnings of upstream's variables for machinery that does not exist here."""


MOST_WARNINGS = 20
"""Names of a file that are warned about one by one."""


def _warn(sources: _Sources) -> None:
    """Say once what of the sources has no effect."""
    variables = {v for info in Settings.model_fields.values() for v in _variables(info)}
    said: dict[Path | None, int] = {}
    for written, file in sorted(set(sources.names), key=str):
        name = written.upper()
        toml = file.name if file is not None and file.suffix == ".toml" else ""
        if name in variables or (toml and written.lower() in Settings.model_fields):
            continue
        if not toml and not name.startswith("DIPEO_"):
            continue
        said[file] = said.get(file, 0) + 1
        if file is not None and said[file] > MOST_WARNINGS:
            continue
        written, name = _shown(written), _shown(name)
        if name in NOT_USED:
            message = f"{name} has no effect: {NOT_USED[name]}."
        elif name.startswith(OTHERS):
            message = f"{name} has no effect: it belongs to machinery of upstream that does not exist here."
        elif toml:
            near = difflib.get_close_matches(written, Settings.model_fields, n=1)
            message = f"{toml}: there is no setting '{written}'." + (f" Did you mean '{near[0]}'?" if near else "")
        else:
            near = difflib.get_close_matches(name, variables, n=1)
            message = f"Nothing reads {name}." + (f" Did you mean {near[0]}?" if near else "")
        warnings.warn(message, UnknownSettingWarning, stacklevel=4)
    for file, count in said.items():
        if file is not None and count > MOST_WARNINGS:
            warnings.warn(f"{file.name}: {count - MOST_WARNINGS} more names mean nothing here.", UnknownSettingWarning, stacklevel=4)
    for file, names in sources.ignored.items():
        warnings.warn(
            f"{file}: {', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: a folder cannot set this. "
            f"Set it in the environment or in {user_file()}.",
            FolderSettingWarning,
            stacklevel=4,
        )


@cache
def _cached() -> Settings:
    settings = Settings()
    _warn(settings._sources)
    return settings


_override: ContextVar[Settings | None] = ContextVar("dipeo_nb_settings", default=None)


def get_settings() -> Settings:
    """The settings of this process: read once, then kept until `reset_settings`.

    Raises:
        ConfigurationError: a variable holds something that cannot be used; the message names it.
    """
    return _override.get() or _cached()


def reset_settings() -> None:
    """Forget what was read; the next `get_settings` reads the environment again."""
    _cached.cache_clear()


@contextmanager
def override_settings(**changes: Any) -> Iterator[Settings]:
    """Other settings within the block, for tests: `with override_settings(base_dir=tmp): …`.

    They hold for this thread, and for the tasks and `asyncio.to_thread` calls that begin within the block.

    Raises:
        ConfigurationError: a value cannot be used, or there is no such setting.
    """
    changed = get_settings().model_copy(update=changes)
    before = _override.set(changed)
    try:
        yield changed
    finally:
        _override.reset(before)


_PATH = re.compile(r"\s|^(?:[/~.]|[A-Za-z]:[/\\])")
_URL = re.compile(r"(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)(?P<rest>[^\s\"'<>]*)", re.IGNORECASE)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def without_password(text: str) -> str:
    """A text, with `…` for the passwords and keys of the URLs in it: in front of the host and in the query."""

    def masked(found: re.Match[str]) -> str:
        rest = found["rest"]
        for secret in sorted(_url_secrets(rest), key=len, reverse=True):
            rest = rest.replace(secret, "…")
        return found["scheme"] + rest

    return _URL.sub(masked, text)


def _url_secrets(rest: str) -> set[str]:
    """What of a URL (after `scheme://`) is a password or a key, as it is written there.

    A password may hold `/` and `@` that should have been written `%2F` and `%40`: it is taken for one all the same.
    """
    place, _, query = rest.partition("?")
    before, at, _ = place.rpartition("@")
    secrets: set[str] = set()
    if at:
        user, colon, password = before.partition(":")
        if colon and "/" not in user:
            secrets.add(password)
        elif not colon and len(user) >= 16 and "/" not in user:  # a token in the place of the user
            secrets.add(user)
    for pair in re.split(r"[&;#]", query):
        name, _, value = pair.partition("=")
        if _SECRET_PARAMETER.search(name):
            secrets.add(value)
    return {secret for secret in secrets if secret}


_SECRET_PARAMETER = re.compile(r"key|token|secret|pass|pwd|credential|auth|sig", re.IGNORECASE)


def secret_values(settings: Settings | None = None) -> set[str]:
    """What must never be written down: the keys of *settings* (None: those of the process), and the values of variables that
    look like secrets.

    Short values and paths are left out: they are words of ordinary texts, and no secrets.
    """
    settings = settings or get_settings()
    fields = [settings.peek(name) for name in type(settings).model_fields]
    keys = {value.get_secret_value().strip() for value in fields if isinstance(value, SecretStr)}
    urls = [found["rest"] for value in fields if isinstance(value, str) for found in _URL.finditer(value)]
    keys |= {text for url in urls for secret in _url_secrets(url) for text in (secret, unquote(secret))}
    others = (
        value.strip()
        for name, value in os.environ.items()
        if _SECRET.search(name) or is_secret_name(name) or (may_be_secret_name(name) and looks_random(value.strip()))
    )
    keys |= {secret for value in os.environ.values() if "://" in value for secret in secrets_of_text(value, code=False)}
    return {key for key in keys if len(key) >= 8} | {
        text for text in others if len(text) >= 12 and not _PATH.search(text)
    }


def ambient_headers(provider: str) -> frozenset[str]:
    """Names of the headers that variables make the SDK of `openai` or `anthropic` send to every server."""
    if provider not in ("openai", "anthropic"):
        return frozenset()
    lines = os.environ.get(f"{provider.upper()}_CUSTOM_HEADERS", "").splitlines()
    named = {line.partition(":")[0].strip() for line in lines if ":" in line}
    return frozenset(named | ({"OpenAI-Organization", "OpenAI-Project"} if provider == "openai" else set()))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def code_environment(pass_env: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a process that runs a diagram's code; see `common.child_environment`.

    Args:
        pass_env: names that it gets besides (`Settings.passed_variables`).
    """
    return child_environment.child_environment(os.environ, pass_env)


def missing_variable(code: str, message: str, pass_env: Iterable[str] = ()) -> str:
    """What to do when code failed because a variable was not handed to it; empty when that cannot be the reason."""
    name = child_environment.withheld(code, message, os.environ, pass_env)
    return child_environment.advice(name) if name else ""


def pip_environment(pass_env: Iterable[str] = ()) -> dict[str, str]:
    """The environment of pip: what any child gets, and where and how the user's pip looks for packages."""
    return child_environment.child_environment(
        os.environ, (*child_environment.PIP, *pass_env), credentials_of_proxies=True
    )


def claude_code_environment(*, key: str | None, base_url: str | None, pass_env: Iterable[str] = ()) -> dict[str, str]:
    """What changes the environment that the program of Claude Code inherits: variables that are not for it are emptied (its
    SDK cannot leave them out), then the key and the server it is to use are set. Our own retries are the only ones."""
    pass_env = tuple(pass_env)
    passed = child_environment.child_environment(
        os.environ, (*child_environment.CLAUDE_CODE, *pass_env), credentials_of_proxies=True
    )
    keys = {name for name in passed if _SECRET.search(name) and not child_environment.matches(name, pass_env)}
    hidden = {name: "" for name in os.environ if name not in passed or name in keys}
    mine = {"ANTHROPIC_API_KEY": key or "", "ANTHROPIC_AUTH_TOKEN": ""}
    if not key:  # the user's own login, however it is made
        mine = {name: os.environ[name] for name in os.environ if name.startswith("CLAUDE_CODE_OAUTH")}
    server = {"ANTHROPIC_BASE_URL": base_url} if base_url else {}
    quiet = {
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return {**hidden, **quiet, **mine, **server}

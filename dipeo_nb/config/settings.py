"""The settings, and values derived from them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeGuard
from urllib.parse import urlsplit

import platformdirs

from dipeo_nb.common import clock, lazy
from dipeo_nb.config.default_model import DEFAULT_MODEL, DEFAULT_MODEL_ENDS, default_model
from dipeo_nb.config.explain import Setting, SettingsTable, standing
from dipeo_nb.config.fields import (
    absolute,
    address,
    declared,
    home,
    listed,
    names,
    passed,
    path_or_url,
    path_or_url_text,
    paths,
    setting,
    upper,
)
from dipeo_nb.config.origins import DEFAULT, Credential, Origin
from dipeo_nb.config.redaction import shown
from dipeo_nb.config.scopes import Scope
from dipeo_nb.config.sources import Sources, user_file
from dipeo_nb.config.suggestions import Approval, Suggestions, approval_of
from dipeo_nb.errors import ConfigurationError, SettingNotApprovedError

if TYPE_CHECKING:
    from urllib import request

    import pydantic
    from pydantic import SecretStr
else:
    request = lazy.module("urllib.request")  # brings an HTTP client and TLS
    pydantic = lazy.module("pydantic")  # takes longer to import than a diagram to read
checked: Any = lazy.module("dipeo_nb.config.checked")


class Settings:
    """Everything that can be configured; see each field for variable, unit and default.

    This class declares the fields, and has what follows from their values. Its instances are `CheckedSettings`, a pydantic-settings
    model, or `PlainSettings` while no value needs a check.

    Reading a field whose only value is a suggestion of the folder that has not been approved raises SettingNotApprovedError.

    Args:
        given: values by field or variable; other fields are read from the environment and the files.

    Raises:
        ConfigurationError: a value is invalid, there is no such setting, or a file cannot be read.
    """

    base_dir: Path = setting("DIPEO_BASE_DIR", default=None, scope="personal", before=absolute)
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
    llm_recordings: Path | None = setting("DIPEO_LLM_RECORDINGS", default=None, scope="suggested", before=home)
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
    state_store_path: Path | str | None = setting(
        "STATE_STORE_PATH", "DIPEO_STATE_STORE_PATH", default=None, scope="suggested", before=path_or_url
    )
    """The run store: an SQLite file (default: <base_dir>/.dipeo/runs.db), a PostgreSQL database (`postgresql://user@host/name`), or
    `:memory:` (runs are not kept)."""
    state_store_sync: Literal["normal", "full"] = setting("DIPEO_STATE_STORE_SYNC", default="normal", scope="harmless")
    """`normal` survives a killed process; `full` also survives a power failure, at about ten times the time per commit."""
    streamed_text: Literal["pieces", "condensed"] = setting("DIPEO_STREAMED_TEXT", default="pieces", scope="harmless")
    """How texts of models stay in the record of a run that has ended: in the `pieces` in which they came, or `condensed`: each once, so
    that a replay shows it at once. `dipeo-nb runs condense` does it to old runs."""
    blob_store: str | None = setting("DIPEO_BLOB_STORE", default=None, scope="suggested", before=path_or_url_text)
    """Store of blobs and artifacts: a path, `memory:`, `s3://bucket/prefix` …; default: <base_dir>/.dipeo/blobs."""
    conversation_store: str | None = setting("DIPEO_CONVERSATION_STORE", default=None, scope="suggested", before=home)
    """Store of conversations and persons that outlive a run: the path of an SQLite file, `memory:`, or `redis://…`
    (conversations only); default: <base_dir>/.dipeo/conversations.db."""
    cache_dir: Path = setting(
        "DIPEO_CACHE_DIR",
        default=Path(platformdirs.user_cache_dir("dipeo-nb", appauthor=False)),
        scope="personal",
        before=absolute,
    )
    """Folder of the embedded models."""
    data_dir: Path = setting(
        "DIPEO_DATA_DIR",
        default=Path(platformdirs.user_data_dir("dipeo-nb", appauthor=False)),
        scope="personal",
        before=absolute,
    )
    """Folder of the user's own records: stored keys, and which code of diagrams from elsewhere is trusted. Never a folder
    that a server exposes."""
    keys_store: Literal["auto", "keyring", "file"] = setting("DIPEO_KEYS_STORE", default="auto", scope="personal")
    """Store that `keys set` writes to: `keyring` (the system's), `file` (apikeys.json in data_dir), `auto`: the keyring if there
    is one, else the file."""
    keys_passphrase: SecretStr | None = setting("DIPEO_KEYS_PASSPHRASE", default=None, scope="personal")
    """Encrypts the keys in that file; an unencrypted file is encrypted when it is next written."""
    local_model: str = setting("DIPEO_LOCAL_MODEL", default="smollm2-135m", scope="suggested", before=home)
    """Model of `--model local`: a name of the model store, or the path of a GGUF file."""
    open_places: tuple[str, ...] = setting("DIPEO_OPEN_PLACES", default=(), before=names)
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
    pass_env: str = setting("DIPEO_PASS_ENV", default="", before=passed)
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
    ollama_host: str = setting("OLLAMA_HOST", default="http://localhost:11434", scope="suggested", before=address)
    """Address of the Ollama server; in any form that Ollama takes (`gpu-box`, `127.0.0.1:11434`, `http://…`)."""
    host: str = setting("DIPEO_HOST", default="127.0.0.1", scope="personal")
    """Address that `dipeo-nb serve` listens on; the default is reachable from this machine only."""
    port: int = setting("DIPEO_PORT", default=8000, ge=0, le=65535, scope="harmless")
    """Port of `dipeo-nb serve`; 0 chooses a free one."""
    serve_token: SecretStr | None = setting("DIPEO_SERVE_TOKEN", default=None, scope="personal")
    """Token of `dipeo-nb serve`; default: a new one for each start, printed."""
    cors_origins: str = setting("DIPEO_CORS_ORIGINS", default="")
    """Origins whose pages may call `dipeo-nb serve` (`https://lab.example.org`), separated by commas; `*`: all. Default: none."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting(
        "DIPEO_LOG_LEVEL", default="INFO", scope="harmless", before=upper
    )
    """Lowest level that commands log to stderr. In a notebook, configure logging with the module `logging`."""
    guest_budget: float = setting("DIPEO_GUEST_BUDGET", default=0.10, ge=0)
    """US dollars that a run of an untrusted diagram may spend on models without approval, including its sub-diagrams (and 50 calls
    and 200,000 tokens at most); 0: approval is needed before any model is called."""
    trusted_folders: tuple[Path, ...] = setting("DIPEO_TRUST", default=(), before=paths)
    """Folders whose diagrams, including those in subfolders, count as the user's own; in the variable separated as in PATH."""

    if TYPE_CHECKING:
        _origins: dict[str, Origin]
        _waiting: dict[str, Any]
        """Suggestions of the folder; they have no effect until approved."""
        _sources: Sources

        def __init__(self, **given: Any) -> None: ...

        def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
            """Return a copy with other values, which are validated and count as the user's own.

            Raises:
                ConfigurationError: a value is invalid, or there is no such setting.
            """
            ...

    def __new__(cls, *args: Any, **given: Any) -> Self:
        # as `pathlib.Path` makes a path of this system
        return object.__new__(checked.CheckedSettings if cls is Settings else cls)

    def _absent(self, name: str) -> Any:
        """Return the value of a field that is not in the instance's dictionary: a suggestion of the folder, or the default model."""
        if name in self._waiting:
            return self._approved(name)
        if name == "default_llm_model" and name not in self._origins:
            return default_model()
        raise AttributeError(name)

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

    def explain(self) -> SettingsTable:
        """Return all settings with value (keys masked), origin, standing and variables; a table in a notebook."""
        return SettingsTable(self._explained())

    def _explained(self) -> Iterator[Setting]:
        ignored = {name for names in self._sources.ignored.values() for name in names}
        for name, field in FIELDS.items():
            variables, origin, value = field.variables, self.origin(name), self.peek(name)
            text = "" if value is None else "…" if field.secret else shown(value)
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
        found = [entry for variable in variables for entry in self._texts_of(variable, variables)]
        wanted = {"anybody": (True, False), "user": (True,), "folder": (False,)}[of]
        there = [(name, text.strip(), origin) for name, text, origin in found if text.strip() and origin.personal in wanted]
        if not there:
            return None
        name, text, origin = min(there, key=lambda entry: not entry[2].personal)
        return Credential(name, pydantic.SecretStr(text), origin)

    def _texts_of(self, variable: str, variables: Collection[str]) -> Iterator[tuple[str, str, Origin]]:
        """Yield the values of one of *variables*, each with the name it is set by and its origin."""
        name = FIELD_OF.get(variable)
        if name is None:
            yield variable, os.environ.get(variable, ""), Origin("environment", variable)
            text = self._sources.dotenv.get(variable.upper(), "")
            yield variable, text, Origin(".env", variable, self._sources.folder / ".env")
            return
        value, origin = getattr(self, name), self.origin(name)
        if value is not None:
            text = value.get_secret_value() if FIELDS[name].secret else str(value)
            yield origin.variable if origin.variable in variables else variable, text, origin

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


FIELDS = declared(Settings)
FIELD_OF = {variable: name for name, field in FIELDS.items() for variable in field.variables}
"""Variable → field."""


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


def by_field(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by field, given by field or by variable.

    Raises:
        ConfigurationError: there is no such setting.
    """
    found = {FIELD_OF.get(name.upper(), name): value for name, value in given.items()}
    for name in found:
        if name not in FIELDS:
            raise _unknown(name)
    return found


def _unknown(name: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, FIELDS, n=1)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    return ConfigurationError(f"There is no setting '{name}'.", hint=f"{guess}get_settings().explain() lists them.")

"""Settings. The only module that reads the environment (infra-spec §12).

Each variable is accepted under the name that upstream documents and under the one that worked there. What is not in the
environment is looked for in `.env` and then in `dipeo.toml` (fields of `Settings` as keys) of the current directory.
`get_settings().explain()` says where each value came from; a `DIPEO_*` variable that nothing reads is warned about.
"""

from __future__ import annotations

import difflib
import html
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from dipeo_nb.errors import ConfigurationError


def _env(*names: str, default: Any, **more: Any) -> Any:
    return Field(default=default, validation_alias=AliasChoices(*names), **more)


class Settings(BaseSettings):
    """Everything that can be configured; see each field for variable, unit and default."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        toml_file="dipeo.toml",
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    base_dir: Path = _env("DIPEO_BASE_DIR", default=None, validate_default=False)
    """Root of all relative names in diagrams (DIPEO_BASE_DIR; default: the current directory)."""
    default_llm_model: str = _env("DIPEO_DEFAULT_LLM_MODEL", "DIPEO_LLM_DEFAULT_MODEL", default="gpt-5-nano-2025-08-07")
    """Model of a person that names none."""
    llm_timeout: float = _env("DIPEO_LLM_TIMEOUT", "DIPEO_LLM_TIMEOUT_S", default=300.0, gt=0)
    """Seconds for one model call."""
    llm_idle_timeout: float = _env("DIPEO_LLM_IDLE_TIMEOUT", default=60.0, gt=0)
    """Seconds between two pieces of a streamed answer."""
    llm_max_retries: int = _env("DIPEO_LLM_MAX_RETRIES", default=3, ge=0)
    """Times a failed model call is repeated."""
    llm_temperature: float | None = _env("DIPEO_LLM_TEMPERATURE", default=None, ge=0)
    """Sampling temperature of calls that name none; None: the provider's own default."""
    llm_max_tokens: int | None = _env("DIPEO_LLM_MAX_TOKENS", default=None, ge=1)
    """Limit of answers in tokens for calls that name none; None: the provider's own."""
    llm_fallbacks: str = _env("DIPEO_LLM_FALLBACKS", default="")
    """Models to ask in turn when a person's own cannot answer: `anthropic:NAME, local`."""
    llm_mode: Literal["live", "record", "replay", "auto"] = _env("DIPEO_LLM_MODE", default="live")
    """Recorded answers of models: `record` calls and writes them down, `replay` calls nothing, `auto` replays what is recorded
    and records the rest (a cache)."""
    llm_recordings: Path | None = _env("DIPEO_LLM_RECORDINGS", default=None)
    """Folder of the recordings, below base_dir when relative; default: <base_dir>/.dipeo/recordings."""
    execution_timeout: float = _env("DIPEO_EXECUTION_TIMEOUT", "DIPEO_EXECUTION_ENGINE_TIMEOUT_S", default=3600.0, gt=0)
    """Seconds for one run."""
    node_timeout: float = _env("DIPEO_NODE_TIMEOUT", "DIPEO_EXECUTION_NODE_TIMEOUT_S", default=600.0, gt=0)
    """Seconds for one run of one node, unless the node says otherwise. code_job: 30 s, user_response: no limit."""
    parallel_execution: bool = _env("DIPEO_PARALLEL_EXECUTION", "DIPEO_EXECUTION_ENABLE_PARALLEL", default=True)
    """False: one node at a time."""
    execution_parallelism: int = _env("DIPEO_EXECUTION_PARALLELISM", default=20, ge=1)
    """Nodes of one run that work at the same time."""
    max_iterations: int = _env("DIPEO_MAX_ITERATIONS", "DIPEO_EXECUTION_MAX_ITERATIONS", default=100, ge=1)
    """Runs of one node within one run of a diagram, before the loop is called endless."""
    state_store_path: Path | str | None = _env("STATE_STORE_PATH", "DIPEO_STATE_STORE_PATH", default=None)
    """The run store: an SQLite file (default: <base_dir>/.dipeo/runs.db), a PostgreSQL database (`postgresql://user@host/name`), or
    `:memory:`, which keeps no runs."""
    state_store_sync: Literal["normal", "full"] = _env("DIPEO_STATE_STORE_SYNC", default="normal")
    """`normal` survives a killed process; `full` also survives a power cut, at about ten times the time per commit."""
    blob_store: str | None = _env("DIPEO_BLOB_STORE", default=None)
    """Where blobs and artifacts are kept: a path, `memory:`, `s3://bucket/prefix` …; default: <base_dir>/.dipeo/blobs."""
    conversation_store: str | None = _env("DIPEO_CONVERSATION_STORE", default=None)
    """Where conversations and persons that outlive a run are kept: the path of an SQLite file, `memory:`, or `redis://…`
    (conversations only); default: <base_dir>/.dipeo/conversations.db."""
    cache_dir: Path = _env("DIPEO_CACHE_DIR", default=Path(platformdirs.user_cache_dir("dipeo-nb", appauthor=False)))
    """Where the embedded model is kept."""
    data_dir: Path = _env("DIPEO_DATA_DIR", default=Path(platformdirs.user_data_dir("dipeo-nb", appauthor=False)))
    """Where the user's own records are kept: stored keys, and which code of diagrams from elsewhere is trusted. Never a folder
    that a server shows."""
    keys_store: Literal["auto", "keyring", "file"] = _env("DIPEO_KEYS_STORE", default="auto")
    """Where `keys set` stores keys: `keyring` (the system's), `file` (apikeys.json in data_dir), `auto`: the keyring where there
    is one, else the file."""
    keys_passphrase: SecretStr | None = _env("DIPEO_KEYS_PASSPHRASE", default=None)
    """Encrypts the keys in that file; a file without is encrypted when it is next written."""
    local_model: str = _env("DIPEO_LOCAL_MODEL", default="smollm2-135m")
    """Model of `--model local`: a name of the model store, or the path of a GGUF file."""
    max_file_size: int = _env("DIPEO_MAX_FILE_SIZE", default=50 * 1024 * 1024, ge=1)
    """Bytes; larger files are neither read nor written."""
    event_bus: str = _env("DIPEO_EVENT_BUS", "DIPEO_EVENT_BUS_BACKEND", default="memory")
    """How events travel: `memory` (within the process), a server's URL (`redis://host:6379/0`), or `redis` for that of
    DIPEO_REDIS_URL."""
    redis_url: str = _env("DIPEO_REDIS_URL", "DIPEO_MSG_REDIS_URL", default="redis://localhost:6379/0")
    """The server meant by `redis` alone."""
    event_queue_size: int = _env("DIPEO_EVENT_QUEUE_SIZE", "DIPEO_MSG_MAX_QUEUE_SIZE", default=10_000, ge=1)
    """Events waiting per slow subscriber."""
    otel: bool = _env("DIPEO_OTEL", default=False)
    """Whether runs are sent to OpenTelemetry, by its own settings (OTEL_EXPORTER_OTLP_ENDPOINT …); without contents."""
    openai_api_key: SecretStr | None = _env("OPENAI_API_KEY", default=None)
    anthropic_api_key: SecretStr | None = _env("ANTHROPIC_API_KEY", default=None)
    google_api_key: SecretStr | None = _env("GOOGLE_API_KEY", "GEMINI_API_KEY", default=None)
    openai_base_url: str | None = _env("OPENAI_BASE_URL", default=None)
    anthropic_base_url: str | None = _env("ANTHROPIC_BASE_URL", default=None)
    google_base_url: str | None = _env("GOOGLE_BASE_URL", "GOOGLE_GEMINI_BASE_URL", default=None)
    """Another server for Gemini; without the version (`/v1beta`), which is added."""
    ollama_host: str = _env("OLLAMA_HOST", default="http://localhost:11434")
    """Address of the Ollama server; in any form that Ollama takes (`gpu-box`, `127.0.0.1:11434`, `http://…`)."""
    host: str = _env("DIPEO_HOST", default="127.0.0.1")
    """Where `dipeo-nb serve` listens; the default is reached from this machine only."""
    port: int = _env("DIPEO_PORT", default=8000, ge=0, le=65535)
    """Port of `dipeo-nb serve`; 0 chooses a free one."""
    serve_token: SecretStr | None = _env("DIPEO_SERVE_TOKEN", default=None)
    """Token of `dipeo-nb serve`; default: a new one each time, printed."""
    log_level: str = _env("DIPEO_LOG_LEVEL", default="INFO")

    @field_validator("ollama_host", mode="before")
    @classmethod
    def _address(cls, value: Any) -> Any:
        return ollama_address(value) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    def model_post_init(self, context: Any, /) -> None:
        if self.base_dir is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "base_dir", Path.cwd())
        object.__setattr__(self, "base_dir", self.base_dir.expanduser().absolute())

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value

    def explain(self) -> Explanation:
        """Every setting: its value (keys masked), where it came from, and its variables. A table in a notebook."""
        return Explanation(_explained(self))

    def secret(self, *variables: str) -> tuple[str, SecretStr] | None:
        """The first of *variables* that holds something, and what: keys of services that have no field here (`GITHUB_TOKEN`).

        Variables of a field give the field's value, also when that was changed in code; others are looked for in the
        environment, as it is now, and in `.env`.
        """
        fields = {name: field for field, info in type(self).model_fields.items() for name in _variables(info)}
        for variable in variables:
            if variable in fields:
                value = getattr(self, fields[variable])
            else:
                value = os.environ.get(variable) or _dotenv().get(variable.upper())
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
            if text.strip():
                return variable, SecretStr(text.strip())
        return None

    @property
    def recordings(self) -> Path:
        """Folder of the recorded answers of models."""
        return self.base_dir / (self.llm_recordings or Path(".dipeo", "recordings")).expanduser()

    @property
    def run_store(self) -> Path | str | None:
        """Path of the run store's file, or the URL of its database; None for memory only."""
        place = self.state_store_path
        if place is None:
            return self.base_dir / ".dipeo" / "runs.db"
        if isinstance(place, str) and "://" in place:
            return place
        return None if str(place) == ":memory:" else Path(place)


def ollama_address(host: str) -> str:
    """The URL that an OLLAMA_HOST means: scheme http and port 11434 unless given; an address to listen at is one to call.

    The rules are those of Ollama's own client (envconfig.Host, envconfig.ConnectableHost).
    """
    text = host.strip().strip("\"'").rstrip("/")
    scheme, there, rest = text.partition("://")
    if not there:
        scheme, rest = "http", text
    place, slash, path = rest.partition("/")
    name, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):  # no port; `[::1]` has colons of its own
        name, port = place, "" if there else "11434"
    name = {"": "localhost", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)
    return f"{scheme}://{name}{':' if port else ''}{port}{slash}{path}"


class Setting(NamedTuple):
    """One setting, explained."""

    name: str
    value: str
    source: str
    """`environment DIPEO_X`, `.env`, `dipeo.toml`, `given` (changed in code) or `default`."""
    variables: tuple[str, ...]


class Explanation(tuple[Setting, ...]):
    """All settings; prints as a table."""

    def __repr__(self) -> str:
        wide = max(len(s.name) for s in self)
        return "\n".join(f"{s.name:<{wide}}  {s.value}  ({s.source})" for s in self)

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in (s.name, s.value, s.source, ", ".join(s.variables)))
            + "</tr>"
            for s in self
        )
        return f"<table><thead><tr><th>setting</th><th>value</th><th>from</th><th>variables</th></tr></thead><tbody>{rows}</tbody></table>"


def _explained(settings: Settings) -> Iterator[Setting]:
    environment = {name.upper(): value for name, value in os.environ.items()}
    dotenv = {name.upper() for name, value in DotEnvSettingsSource(Settings).env_vars.items() if value is not None}
    toml = TomlConfigSettingsSource(Settings).toml_data
    fresh = _cached()
    for name, info in Settings.model_fields.items():
        variables = _variables(info)
        value = getattr(settings, name)
        given = next((v for v in variables if v in environment), None)
        if value != getattr(fresh, name):
            source = "given"
        elif given:
            source = f"environment {given}"
        elif any(v in dotenv for v in variables):
            source = ".env"
        elif name in toml:
            source = "dipeo.toml"
        else:
            source = "default"
        shown = "…" if isinstance(value, SecretStr) else "" if value is None else without_password(str(value))
        yield Setting(name, shown, source, variables)


def _variables(info: Any) -> tuple[str, ...]:
    return tuple(str(choice) for choice in info.validation_alias.choices)


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


def _warn_of_unknown() -> None:
    known = {v for info in Settings.model_fields.values() for v in _variables(info)}
    dotenv = {name.upper() for name in DotEnvSettingsSource(Settings).env_vars}
    toml = TomlConfigSettingsSource(Settings).toml_data
    for name in sorted({n.upper() for n in os.environ} | dotenv):
        if not name.startswith("DIPEO_") or name in known:
            continue
        if name in NOT_USED:
            message = f"{name} has no effect: {NOT_USED[name]}."
        elif name.startswith(OTHERS):
            message = f"{name} has no effect: it belongs to machinery of upstream that does not exist here."
        else:
            near = difflib.get_close_matches(name, known, n=1)
            message = f"Nothing reads {name}." + (f" Did you mean {near[0]}?" if near else "")
        warnings.warn(message, UnknownSettingWarning, stacklevel=4)
    for name in sorted(set(toml) - set(Settings.model_fields)):
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        warnings.warn(f"dipeo.toml: there is no setting '{name}'.{guess}", UnknownSettingWarning, stacklevel=4)


@cache
def _dotenv() -> dict[str, str]:
    """Everything in `.env`, names in upper case."""
    return {name.upper(): value for name, value in DotEnvSettingsSource(Settings).env_vars.items() if value is not None}


@cache
def _cached() -> Settings:
    try:
        settings = Settings()
        _warn_of_unknown()
        return settings
    except TOMLDecodeError as error:
        raise ConfigurationError(f"dipeo.toml cannot be read: {error}.", hint="Correct or remove it.") from None
    except ValidationError as error:
        # The value itself is not repeated: it may be a key in the wrong variable.
        wrong = "; ".join(f"{e['loc'][0] if e['loc'] else 'settings'}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(
            f"A setting cannot be used. {wrong}.", hint="Correct or unset it, in the environment or in .env."
        ) from None


_override: Settings | None = None


def get_settings() -> Settings:
    """The settings of this process: read once, then kept until `reset_settings`.

    Raises:
        ConfigurationError: a variable holds something that cannot be used; the message names it.
    """
    return _override or _cached()


def reset_settings() -> None:
    """Forget what was read; the next `get_settings` reads the environment again."""
    _cached.cache_clear()
    _dotenv.cache_clear()


@contextmanager
def override_settings(**changes: Any) -> Iterator[Settings]:
    """Other settings within the block, for tests: `with override_settings(base_dir=tmp): …`."""
    global _override
    before = _override
    _override = get_settings().model_copy(update=changes)
    try:
        yield _override
    finally:
        _override = before


_PATH = re.compile(r"[/\\\s]")
_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/@:\s]*:)(?P<password>[^/@\s]+)@", re.IGNORECASE)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def without_password(text: str) -> str:
    """A text, with `…` for the password of the URL that it is."""
    return _PASSWORD.sub(lambda found: f"{found['before']}…@", text)


def secret_values(settings: Settings | None = None) -> set[str]:
    """What must never be written down: the keys of *settings* (None: those of the process), and the values of variables that
    look like secrets.

    Short values and paths are left out: they are words of ordinary texts, and no secrets.
    """
    settings = settings or get_settings()
    fields = [getattr(settings, name) for name in type(settings).model_fields]
    keys = {value.get_secret_value().strip() for value in fields if isinstance(value, SecretStr)}
    keys |= {unquote(m["password"]) for value in fields if isinstance(value, str) for m in _PASSWORD.finditer(value)}
    others = (value.strip() for name, value in os.environ.items() if _SECRET.search(name))
    return {key for key in keys if len(key) >= 8} | {
        text for text in others if len(text) >= 12 and not _PATH.search(text)
    }


def custom_headers(variable: str) -> str:
    """What a variable says that an SDK adds to every request; empty without one."""
    return os.environ.get(variable, "") if variable else ""


def child_environment() -> dict[str, str]:
    """The environment for a process that runs a diagram's code: without anything that looks like a secret."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


def claude_code_environment(*, key: str | None, base_url: str | None) -> dict[str, str]:
    """What the program of Claude Code is given beyond the environment it inherits: everything that looks like a secret is
    emptied, then the key and the server it is to use are set. Our own retries are the only ones."""
    hidden = {name: "" for name in os.environ if _SECRET.search(name)}
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

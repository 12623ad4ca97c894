"""Builds the services that the settings name; `dipeo_nb.runtime` runs diagrams with them."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dipeo_nb.codegen.services import BuilderService, ParserService
from dipeo_nb.common import lazy
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.open_on_use import call_lifecycle
from dipeo_nb.common.redaction import redact_logs_of_libraries, redactor
from dipeo_nb.common.root import own_root
from dipeo_nb.config import DEFAULT, FolderSettingWarning, Settings, get_settings, secret_values, without_password
from dipeo_nb.domain.ports import (
    APIKeyPort,
    ArtifactStorePort,
    ASTParserPort,
    BlobStorePort,
    Clock,
    CodeRunner,
    ConversationRepository,
    DBOperationsPort,
    EventBus,
    FileSystemPort,
    HTTPPort,
    IntegrationPort,
    IRBuilderPort,
    LLMServicePort,
    PersonRepository,
    RunStore,
    Services,
    TemplateProcessorPort,
)
from dipeo_nb.errors import ConfigurationError, SettingNotApprovedError

if TYPE_CHECKING:
    from dipeo_nb.diagram import templates
    from dipeo_nb.events import in_memory as event_memory
    from dipeo_nb.events import redis as event_redis
    from dipeo_nb.events import telemetry as opentelemetry
    from dipeo_nb.execution import code_runner
    from dipeo_nb.execution.state import in_memory as run_memory
    from dipeo_nb.execution.state import postgres, sqlite
    from dipeo_nb.integrations import http
    from dipeo_nb.integrations import on_use as providers
    from dipeo_nb.llm import recorded_calls
    from dipeo_nb.llm import service as llm_service
    from dipeo_nb.security import environment, trust
    from dipeo_nb.security import keys as api_keys
    from dipeo_nb.storage import artifacts as artifact_store
    from dipeo_nb.storage import cloud, conversation, json_db, local
    from dipeo_nb.storage import redis as storage_redis
else:
    # A command that only lists runs opens a run store, and no other service; one that checks a diagram opens none.
    templates = lazy.module("dipeo_nb.diagram.templates")
    event_memory = lazy.module("dipeo_nb.events.in_memory")
    code_runner = lazy.module("dipeo_nb.execution.code_runner")
    run_memory = lazy.module("dipeo_nb.execution.state.in_memory")
    sqlite = lazy.module("dipeo_nb.execution.state.sqlite")
    http = lazy.module("dipeo_nb.integrations.http")
    providers = lazy.module("dipeo_nb.integrations.on_use")
    llm_service = lazy.module("dipeo_nb.llm.service")
    recorded_calls = lazy.module("dipeo_nb.llm.recorded_calls")
    environment = lazy.module("dipeo_nb.security.environment")
    trust = lazy.module("dipeo_nb.security.trust")
    api_keys = lazy.module("dipeo_nb.security.keys")
    artifact_store = lazy.module("dipeo_nb.storage.artifacts")
    conversation = lazy.module("dipeo_nb.storage.conversation")
    json_db = lazy.module("dipeo_nb.storage.json_db")
    local = lazy.module("dipeo_nb.storage.local")
    # Each of these needs an optional package.
    event_redis = lazy.module("dipeo_nb.events.redis")
    opentelemetry = lazy.module("dipeo_nb.events.telemetry")
    postgres = lazy.module("dipeo_nb.execution.state.postgres")
    cloud = lazy.module("dipeo_nb.storage.cloud")
    storage_redis = lazy.module("dipeo_nb.storage.redis")


class _Withheld:
    """Stands for a service that only the folder's files choose, until the user approves it.

    Each use raises SettingNotApprovedError; what does not need the service works.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._service: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._service is None:
            self._service = self._make()
        return getattr(self._service, name)

    async def cleanup(self) -> None:
        if self._service is not None:
            await call_lifecycle(self._service, "cleanup")


class SystemClock:
    """The real time and random ids."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def new_id(self, prefix: str = "") -> str:
        return f"{prefix}{uuid.uuid4().hex}"


def build(settings: Settings | None = None, **overrides: Any) -> Services:
    """Build the services for *settings*; nothing is opened yet.

    Args:
        overrides: services that replace the default ones, by name (`llm=`, `store=` …); None: the default one.

    Raises:
        TypeError: a name that is not a service.
        ConfigurationError: an override lacks methods of its port; the message lists them.
    """
    names = Services.__dataclass_fields__
    unknown = set(overrides) - set(names)
    if unknown:
        raise TypeError(f"build() has no service {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    given = {name: service for name, service in overrides.items() if service is not None}
    for name, service in given.items():
        check_service(name, service)
    built = _Building(settings or get_settings(), given)
    return Services(**{name: getattr(built, name) for name in names})


def on_use(settings: Settings) -> Services:
    """The services for *settings*, each built when it is first used: for checks, which use few.

    Raises:
        ConfigurationError: something is set that names no service.
    """
    built = _Building(settings, {})
    for name, field in _NAMED.items():
        if settings.origin(field) != DEFAULT:
            getattr(built, name)
    return cast(Services, built)


_NAMED = {
    "store": "state_store_path",
    "bus": "event_bus",
    "blobs": "blob_store",
    "conversations": "conversation_store",
    "keys": "keys_store",
}
"""Service → the field that names it."""


class _Building:
    """Services by name, built when they are asked for, with those that they use."""

    def __init__(self, settings: Settings, given: Mapping[str, Any]) -> None:
        redactor.add(*secret_values(settings))
        redact_logs_of_libraries()
        self.settings = settings
        vars(self).update(given)

    def __getattr__(self, name: str) -> Any:
        if name not in _DEFAULTS:
            raise AttributeError(name)
        make = partial(_DEFAULTS[name], self)
        try:
            service = make()
        except SettingNotApprovedError:
            service = _Withheld(make)
        vars(self)[name] = service
        return service


_DEFAULTS: Mapping[str, Callable[[Any], Any]] = {
    "llm": lambda built: llm_service.LLMService(built.settings, built.keys),
    "files": lambda built: local.LocalFileSystemAdapter.of(built.settings),
    "db": lambda built: json_db.DBOperationsDomainService(built.files),
    "store": lambda built: run_store(built.settings),
    "bus": lambda built: _bus(built.settings),
    "blobs": lambda built: _blobs(built.settings),
    "artifacts": lambda built: artifact_store.ArtifactStoreAdapter(built.blobs),
    "conversations": lambda built: _conversations(built.settings),
    "persons": lambda built: _persons(built.settings),
    "keys": lambda built: api_keys.APIKeyChain.of(built.settings),
    "templates": lambda built: templates.SimpleTemplateProcessor(),
    "code": lambda built: partial(_code_runner, built.settings),
    "clock": lambda built: SystemClock(),
    "http": lambda built: http.HTTPClient(max_size=built.settings.max_file_size),
    "integrations": lambda built: _integrations(built),
    "typescript": lambda built: ParserService(built.settings.base_dir),
    "ir": lambda built: BuilderService(),
}
"""Service → what builds the one that the settings name."""


_PORTS: Mapping[str, Any] = {
    "llm": LLMServicePort, "files": FileSystemPort, "db": DBOperationsPort, "store": RunStore, "bus": EventBus,
    "blobs": BlobStorePort, "artifacts": ArtifactStorePort, "conversations": ConversationRepository,
    "persons": PersonRepository, "keys": APIKeyPort, "templates": TemplateProcessorPort, "clock": Clock, "http": HTTPPort,
    "integrations": IntegrationPort, "typescript": ASTParserPort, "ir": IRBuilderPort,
}  # fmt: skip
"""Service → its port; `code` is a factory, and has none."""


def check_service(name: str, service: Any) -> None:
    """Check that a service has the methods of its port.

    Raises:
        ConfigurationError: it is a class, or lacks some of them.
    """
    port = _PORTS.get(name)
    if port is None:
        return
    if isinstance(service, type):
        raise ConfigurationError(f"{name}= is a class.", hint=f"Pass an instance: {name}={service.__name__}(…).")
    missing = sorted(
        method
        for method in port.__abstractmethods__
        if not (
            hasattr(service, method)
            if isinstance(getattr(port, method), property)
            else callable(getattr(service, method, None))
        )
    )
    if missing:
        raise ConfigurationError(
            f"{type(service).__name__} is not a {port.__name__}: it lacks {', '.join(missing)}.",
            hint=f"Add them, or inherit from {port.__name__}, which then reports them when an instance is made.",
        )


def run_store(settings: Settings) -> RunStore:
    """The run store that the settings name, not opened yet.

    Raises:
        ConfigurationError: its URL has an unknown scheme.
    """
    place = settings.run_store
    if place is None:
        return run_memory.InMemoryRunStore()
    if isinstance(place, Path):
        return sqlite.SqliteRunStore(place, sync=settings.state_store_sync, base=settings.base_dir)
    if not place.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            f"'{without_password(place)}' is not a run store.",
            hint="Set STATE_STORE_PATH to a file, postgresql://user@host/database, or :memory:.",
        )
    return postgres.PostgresRunStore(place)


def _blobs(settings: Settings) -> BlobStorePort:
    if settings.blob_store is None:
        return local.LocalBlobAdapter(own_root(settings.base_dir).below("blobs"))
    return cloud.blob_store(settings.blob_store)


def _bus(settings: Settings) -> EventBus:
    if settings.event_bus in ("memory", "memory:"):
        return event_memory.InMemoryEventBus(settings.event_queue_size, apart=True)
    url = settings.redis_url if settings.event_bus == "redis" else settings.event_bus
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(
            f"'{without_password(settings.event_bus)}' is not an event bus.",
            hint="Set DIPEO_EVENT_BUS to memory, redis, or redis://host:6379/0.",
        )
    return event_redis.RedisEventBus(url, max_queue_size=settings.event_queue_size, apart=True)


def telemetry(settings: Settings) -> opentelemetry.Telemetry | None:
    """The export of runs to OpenTelemetry, when the settings turn it on."""
    if settings.waits("otel"):
        origin = settings.origin("otel")
        warnings.warn(
            f"{origin.variable} of {origin.file} needs your approval; until then, runs are not sent to OpenTelemetry.",
            FolderSettingWarning,
            stacklevel=2,
        )
        return None
    if not settings.otel:
        return None
    return opentelemetry.Telemetry()


def _variable(settings: Settings, name: str) -> str | None:
    found = settings.secret(name, of="user")
    return None if found is None else found.secret.get_secret_value()


def _code_runner(settings: Settings) -> CodeRunner:
    return code_runner.ProcessCodeRunner(settings.base_dir, settings.passed_variables)


def _integrations(built: Any) -> IntegrationPort:
    settings: Settings = built.settings
    return providers.IntegrationsOnUse(
        settings.base_dir, settings.data_dir / "locks", keys=built.keys, http=built.http, clock=built.clock,
        trusted=lambda path: trust.Trust(settings).in_trusted_folder(path), reserved=environment.names_other_key,
        recorded=partial(recorded_calls.recorded_call, settings), replaying=partial(recorded_calls.may_answer, settings),
        variable=partial(_variable, settings),
    )  # fmt: skip


def _conversations(settings: Settings) -> ConversationRepository:
    place = settings.conversation_store or ""
    if place in ("memory:", ":memory:"):
        return conversation.InMemoryConversationRepository()
    if "://" in place:
        if not place.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigurationError(
                f"'{without_password(place)}' is not a conversation store.",
                hint="Set DIPEO_CONVERSATION_STORE to the path of a file, redis://host:6379/0, or memory:.",
            )
        return storage_redis.RedisConversationRepository(place)
    return conversation.SqliteConversationRepository(_conversation_file(settings), base=settings.base_dir)


def _persons(settings: Settings) -> PersonRepository:
    if settings.conversation_store in ("memory:", ":memory:"):
        return conversation.InMemoryPersonRepository()
    return conversation.SqlitePersonRepository(_conversation_file(settings), base=settings.base_dir)


def _conversation_file(settings: Settings) -> Path:
    place = settings.conversation_store
    return settings.base_dir / (".dipeo/conversations.db" if place is None or "://" in place else place)


# Where these were before, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Prepared": "dipeo_nb.runtime",
            "Recovery": "dipeo_nb.runtime",
            "Runtime": "dipeo_nb.runtime",
            "run_named": "dipeo_nb.runtime.lookup",
            "with_services": "dipeo_nb.runtime",
        },
    )

"""The composition root: settings → Services, and the `Runtime` that both doors (notebook and CLI) run diagrams through."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dipeo_nb.common import imports
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.open_on_use import OpenOnUse, service_of
from dipeo_nb.common.root import own_root, private_root
from dipeo_nb.common.scrub import HIDDEN, redact_logs_of_libraries, redactor
from dipeo_nb.common.values import well_formed
from dipeo_nb.config import FolderSettingWarning, Settings, get_settings, secret_values, without_password
from dipeo_nb.diagram.closure import Closure, closure, plan_digest
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.diagram.labels import clean
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, parse_model
from dipeo_nb.domain.diagnostics import has_errors
from dipeo_nb.domain.enums import EventType, Severity, Status
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.payloads import ExecutionStarted, InteractiveResponse
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import (
    APIKeyPort,
    ArtifactStorePort,
    ASTParserPort,
    BlobStorePort,
    Clock,
    ConversationRepository,
    DBOperationsPort,
    EventBus,
    FileSystemPort,
    HTTPPort,
    IntegrationPort,
    InteractionPort,
    IRBuilderPort,
    LLMServicePort,
    PersonRepository,
    RunGate,
    RunStore,
    Services,
    Subscription,
    TemplateProcessorPort,
)
from dipeo_nb.errors import (
    ConfigurationError,
    DiagramError,
    InvalidDiagramError,
    SettingNotApprovedError,
    StorageError,
    TrustError,
    UserError,
)
from dipeo_nb.events.memory import InMemoryEventBus
from dipeo_nb.execution import handlers, live, nested_checks
from dipeo_nb.execution.code_runner import ProcessCodeRunner
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.inputs import run_inputs
from dipeo_nb.execution.interaction import no_question
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import check_services, checked_budget, checked_count, checked_mapping, checked_timeout
from dipeo_nb.execution.questions import chosen, unanswered
from dipeo_nb.execution.recovery import Recovered, recovered
from dipeo_nb.execution.replay import MAX_PAUSE_S, Replay, checked_pace
from dipeo_nb.execution.router import MessageRouter
from dipeo_nb.execution.run_list import PREFIX, ago, short_id, short_length
from dipeo_nb.execution.run_options import NodeRunKey, RunOptions
from dipeo_nb.execution.state.memory import InMemoryRunStore, answered
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.integrations.http import HTTPClient
from dipeo_nb.llm.service import LLMService
from dipeo_nb.mixins import InitializationMixin
from dipeo_nb.security.gate import GUEST_CALLS, GUEST_TOKENS, Gate, Level
from dipeo_nb.security.keys import APIKeyChain
from dipeo_nb.security.signatures import holds_objects
from dipeo_nb.security.trust import Allow, Say, Trust
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.conversation import (
    InMemoryConversationRepository,
    InMemoryPersonRepository,
    SqliteConversationRepository,
    SqlitePersonRepository,
)
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter

if TYPE_CHECKING:
    from dipeo_nb.events.telemetry import Telemetry


class _Part(NamedTuple):
    """A service with a lifecycle."""

    service: Any
    at_once: bool
    """Whether it is opened with the runtime; otherwise it opens itself when it is first used."""


TAKEN_S = 2.0
"""Seconds that who answers a run of another process waits to hear that it has the answer."""
TAKEN_POLL_S = 0.1
"""Seconds between two looks."""
_OPENING = (
    "store", "bus", "clock", "keys", "files", "db", "http", "templates", "code", "blobs", "artifacts", "conversations",
    "persons", "integrations", "typescript", "ir", "llm",
)  # fmt: skip
"""Services in the order in which they are opened: before those that use them."""


def _parts(services: Services, given: Collection[str], borrowed: Collection[str]) -> list[_Part]:
    """The services of a runtime in the order of opening, each once, also when one object is several of them."""
    parts: dict[int, _Part] = {}
    for name in _OPENING:
        service: Any = getattr(services, name)
        if service is None or name in borrowed:
            continue
        at_once = name in given or name in ("store", "bus")
        if name == "artifacts" and getattr(service, "blobs", None) is services.blobs:
            # It opens and closes its blob store itself.
            below = parts.pop(id(services.blobs), None)
            at_once = at_once or (below is not None and below.at_once)
        parts.setdefault(id(service), _Part(service, at_once))
    return list(parts.values())


async def _called(service: Any, name: str) -> None:
    """Call a lifecycle method that a service may have, plain or async."""
    result = getattr(service, name, lambda: None)()
    if inspect.isawaitable(result):
        await result


async def _close(parts: Sequence[_Part], error: BaseException | None) -> BaseException | None:
    """Close all of them, the last one first; *error*, or else the first error, has the further ones as notes."""
    for part in reversed(parts):
        try:
            await _called(part.service, "cleanup")
        except BaseException as further:  # noqa: BLE001 - given back; the others are to be closed all the same
            if error is None:
                error = further
            else:
                error.add_note(f"Closing {type(part.service).__name__} failed, too: {further!r}")
    return error


class _Withheld:
    """Stands for a service that only the folder's files choose, until somebody approves that: whatever is asked of it raises
    SettingNotApprovedError, so that what does not need it works."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._service: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._service is None:
            self._service = self._make()
        return getattr(self._service, name)

    async def cleanup(self) -> None:
        if self._service is not None:
            await _called(self._service, "cleanup")


class SystemClock:
    """The real time and random ids."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def new_id(self, prefix: str = "") -> str:
        return f"{prefix}{uuid.uuid4().hex}"


def build(settings: Settings | None = None, **overrides: Any) -> Services:
    """All ports for *settings*; `overrides` replaces any of them by name (`llm=`, `store=` …), None: the default one.

    Raises:
        TypeError: there is no service of that name.
        ConfigurationError: an override lacks methods of its port; the message lists them.
    """
    settings = settings or get_settings()
    unknown = set(overrides) - set(Services.__dataclass_fields__)
    if unknown:
        raise TypeError(
            f"build() has no service {', '.join(sorted(unknown))}; it has {', '.join(Services.__dataclass_fields__)}"
        )
    given = {name: service for name, service in overrides.items() if service is not None}
    for name, service in given.items():
        _check(name, service)
    redactor.add(*secret_values(settings))
    redact_logs_of_libraries()

    def chosen(name: str, default: Callable[[], Any]) -> Any:
        if name not in given:
            try:
                given[name] = default()
            except SettingNotApprovedError:
                given[name] = _Withheld(default)
        return given[name]

    keys = chosen("keys", lambda: APIKeyChain.of(settings))
    blobs = chosen("blobs", lambda: _blobs(settings))
    files = chosen("files", lambda: LocalFileSystemAdapter.of(settings))
    return Services(
        llm=chosen("llm", lambda: LLMService(settings, keys)),
        files=files,
        db=chosen("db", lambda: DBOperationsDomainService(files)),
        store=chosen("store", lambda: run_store(settings)),
        bus=chosen("bus", lambda: _bus(settings)),
        blobs=blobs,
        artifacts=chosen("artifacts", lambda: ArtifactStoreAdapter(blobs)),
        conversations=chosen("conversations", lambda: _conversations(settings)),
        persons=chosen("persons", lambda: _persons(settings)),
        keys=keys,
        templates=chosen("templates", SimpleTemplateProcessor),
        code=chosen("code", lambda: lambda: ProcessCodeRunner(settings.base_dir, settings.passed_variables)),
        clock=chosen("clock", SystemClock),
        http=chosen("http", lambda: HTTPClient(max_size=settings.max_file_size)),
        integrations=given.get("integrations"),
        typescript=given.get("typescript"),
        ir=given.get("ir"),
    )


_PORTS: Mapping[str, Any] = {
    "llm": LLMServicePort, "files": FileSystemPort, "db": DBOperationsPort, "store": RunStore, "bus": EventBus,
    "blobs": BlobStorePort, "artifacts": ArtifactStorePort, "conversations": ConversationRepository,
    "persons": PersonRepository, "keys": APIKeyPort, "templates": TemplateProcessorPort, "clock": Clock, "http": HTTPPort,
    "integrations": IntegrationPort, "typescript": ASTParserPort, "ir": IRBuilderPort,
}  # fmt: skip
"""Service → its port; `code` is a function that makes one."""


def _check(name: str, service: Any) -> None:
    port = _PORTS.get(name)
    if port is None:
        return
    if isinstance(service, type):
        raise ConfigurationError(f"{name}= is a class.", hint=f"Give an instance: {name}={service.__name__}(…).")
    missing = sorted(
        method
        for method in port.__abstractmethods__
        if not (hasattr(service, method) if isinstance(getattr(port, method), property) else callable(getattr(service, method, None)))
    )
    if missing:
        raise ConfigurationError(
            f"{type(service).__name__} is no {port.__name__}: it lacks {', '.join(missing)}.",
            hint=f"Add them, or inherit {port.__name__}, which tells it when an instance is made.",
        )


async def run_named(store: RunStore, run_id: str) -> RunSummary:
    """The row of a run, by its id or an unmistakable beginning of it.

    Raises:
        UserError: no run, or several, of that id.
    """
    if (row := await store.run(run_id)) is not None:
        return row
    rows = await store.runs(limit=sys.maxsize, nested=True)
    found = [r for r in rows if run_id and r.run_id.removeprefix(PREFIX).startswith(run_id.removeprefix(PREFIX))]
    if not found:
        raise UserError(f"There is no run '{clean(run_id, 80)}'.", hint="See dp.runs() (dipeo-nb runs).")
    if len(found) > 1:
        length = short_length(r.run_id for r in found)
        names = [f"{short_id(r.run_id, length)} ({clean(r.diagram, 40)}, {ago(r.started_at, time.time())})" for r in found[:5]]
        more = " …" if len(found) > len(names) else ""
        raise UserError(
            f"{len(found)} runs begin with '{clean(run_id, 80)}': {', '.join(names)}{more}.",
            hint="Write more of the id; see dp.runs() (dipeo-nb runs).",
        )
    return found[0]


def run_store(settings: Settings) -> RunStore:
    """The record of runs that the settings name, not opened yet.

    Raises:
        ConfigurationError: a URL of something else.
    """
    place = settings.run_store
    if place is None:
        return InMemoryRunStore()
    if isinstance(place, Path):
        return SqliteRunStore(place, sync=settings.state_store_sync, base=settings.base_dir)
    if not place.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            f"'{without_password(place)}' is no run store.",
            hint="Set STATE_STORE_PATH to a file, postgresql://user@host/database, or :memory:.",
        )
    from dipeo_nb.execution.state.postgres import PostgresRunStore

    return PostgresRunStore(place)


def _blobs(settings: Settings) -> BlobStorePort:
    if settings.blob_store is None:
        return LocalBlobAdapter(own_root(settings.base_dir).below("blobs"))
    from dipeo_nb.storage.cloud import blob_store

    return blob_store(settings.blob_store)


def _bus(settings: Settings) -> EventBus:
    if settings.event_bus in ("memory", "memory:"):
        return InMemoryEventBus(settings.event_queue_size, apart=True)
    url = settings.redis_url if settings.event_bus == "redis" else settings.event_bus
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(
            f"'{without_password(settings.event_bus)}' is no event bus.",
            hint="Set DIPEO_EVENT_BUS to memory, redis, or redis://host:6379/0.",
        )
    from dipeo_nb.events.redis import RedisEventBus

    return RedisEventBus(url, max_queue_size=settings.event_queue_size, apart=True)


def _telemetry(settings: Settings) -> Telemetry | None:
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
    from dipeo_nb.events.telemetry import Telemetry

    return Telemetry()


def _conversations(settings: Settings) -> ConversationRepository:
    place = settings.conversation_store or ""
    if place in ("memory:", ":memory:"):
        return InMemoryConversationRepository()
    if "://" in place:
        if not place.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigurationError(
                f"'{without_password(place)}' is no conversation store.",
                hint="Set DIPEO_CONVERSATION_STORE to the path of a file, redis://host:6379/0, or memory:.",
            )
        from dipeo_nb.storage.redis import RedisConversationRepository

        return RedisConversationRepository(place)
    return SqliteConversationRepository(_conversation_file(settings), base=settings.base_dir)


def _persons(settings: Settings) -> PersonRepository:
    if settings.conversation_store in ("memory:", ":memory:"):
        return InMemoryPersonRepository()
    return SqlitePersonRepository(_conversation_file(settings), base=settings.base_dir)


def _conversation_file(settings: Settings) -> Path:
    place = settings.conversation_store
    return settings.base_dir / (".dipeo/conversations.db" if place is None or "://" in place else place)


class Runtime(InitializationMixin):
    """Settings and services with a lifecycle; makes executions.

    Use as `with Runtime() as rt:` or `async with`; `initialize` and `cleanup` may be called any number of times.

    Args:
        services: ready-made, instead of what `build` makes of settings and `overrides`.
        borrowed: names of services that belong to somebody else: they are neither opened nor closed here.
        overrides: as of `build`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        services: Services | None = None,
        borrowed: Collection[str] = (),
        **overrides: Any,
    ) -> None:
        super().__init__()
        self.settings = settings or get_settings()
        imports.guard(self.settings.base_dir)
        if services is None:
            given = {name for name, service in overrides.items() if service is not None}
            services = build(self.settings, **overrides)
        else:
            given = set(Services.__dataclass_fields__) - set(borrowed)
            services = replace(services, **{name: service_of(getattr(services, name)) for name in given})
            for name in given:
                if (service := getattr(services, name)) is not None:
                    _check(name, service)
        self.replaced = frozenset(given)
        """Names of the services that were given, instead of what the settings say."""
        self.router = MessageRouter(services.store, services.bus, apart=True)
        self.trust = Trust(self.settings)
        self._telemetry = _telemetry(self.settings)
        self._traced: Subscription | None = None
        self._parts = _parts(services, given, borrowed)
        self._opened: list[_Part] = []
        self.services = self._opened_on_use(services)

    def _opened_on_use(self, services: Services) -> Services:
        """The services, of which those that were given, or work with a given one, are opened when somebody uses them first."""
        own = {id(getattr(services, name)) for name in ("store", "bus") if name not in self.replaced}  # they open themselves
        given = {id(part.service) for part in self._parts if part.at_once} - own
        given |= {id(getattr(services, name)) for name in self.replaced}
        stand_ins: dict[int, OpenOnUse] = {}

        def stand_in(service: Any) -> Any:
            if id(service) not in given or not hasattr(service, "initialize"):
                return service
            return stand_ins.setdefault(
                id(service), OpenOnUse(service, lambda: self.is_initialized, self.ensure_initialized)
            )

        return replace(services, **{name: stand_in(getattr(services, name)) for name in _OPENING})

    async def initialize(self) -> None:
        """Open the run store, the bus and every service that was given, each once, those that others need first; our own
        other services open when they are first used. A failure leaves nothing half-open."""
        opened: list[_Part] = []
        try:
            for part in self._parts:
                if part.at_once:
                    await _called(part.service, "initialize")
                    opened.append(part)
        except BaseException as error:
            await _close(opened, error)
            raise
        if self._telemetry is not None:
            self._traced = self.services.bus.subscribe(self._telemetry)
        self._opened = opened

    async def cleanup(self) -> None:
        """Close everything that was opened, in reverse order, also when one of them fails: the first error is raised then, the
        others are its notes. Safe to call twice."""
        opened, self._opened = self._opened, []
        traced, self._traced = self._traced, None
        closing = [part for part in self._parts if part in opened or not part.at_once]  # the latter may have been used
        error: BaseException | None = None
        try:
            await self.router.cleanup()
            if self._telemetry is not None and traced is not None:
                self.services.bus.unsubscribe(traced)
                await self._telemetry.close()
        except BaseException as first:  # noqa: BLE001 - raised below; the services are to be closed all the same
            error = first
        error = await _close(closing, error)
        if error is not None:
            raise error

    async def __aenter__(self) -> Runtime:
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cleanup()

    def __enter__(self) -> Runtime:
        run_sync(self.initialize())
        return self

    def __exit__(self, *error: object) -> None:
        run_sync(self.cleanup())

    def prepare(
        self,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any],
        *,
        trust: Say = None,
        allow: Allow | None = None,
        foreign: bool = False,
        model: str | None = None,
        by: str = "",
    ) -> Prepared:
        """Load and compile a diagram, and decide what a run of it may do.

        Args:
            trust: True says yes to whatever is there, and is remembered for exactly that; a text says yes to what has that code
                (`pin` of a TrustError); False makes a guest of anything.
            allow: what a guest may do besides, e.g. `{"read": "data/*.csv", "net": "api.x.org", "code": True}`.
            foreign: text without a file is not the user's own, such as what comes through a pipe.
            model: the user moves every person to that one.
            by: who says yes to a code, which is remembered then.

        Raises:
            DiagramNotFoundError, DiagramFormatError: it cannot be read.
            InvalidDiagramError: it was read and refused; `diagnostics` says where and why.
            TrustError: it is not the user's own, wants more than to call models, and nobody has said yes.
        """
        document = diagram if isinstance(diagram, Diagram) else load(diagram, base_dir=self.settings.base_dir)
        plan = self.compile(document)
        return Prepared(plan, self.gate(document, plan, say=trust, allow=allow, foreign=foreign, model=model, by=by))

    def gate(
        self,
        document: Diagram,
        plan: Plan,
        *,
        say: Say = None,
        allow: Allow | None = None,
        foreign: bool = False,
        model: str | None = None,
        by: str = "",
    ) -> Gate:
        """The gate of a run; see `prepare`."""
        chosen = model is not None
        decision = self.trust.decide(document, plan, say=say, allow=allow, foreign=foreign, model_chosen=chosen, by=by)
        found, budget = decision.closure, None
        if decision.level is Level.GUEST:
            dollars = self.settings.guest_budget
            budget = Budget(usd=dollars, calls=GUEST_CALLS, tokens=GUEST_TOKENS) if dollars > 0 else None

        def child(document: Diagram, plan: Plan, record: Event | None) -> Gate:
            if record is None:
                own = self.trust.owns(document)
            else:  # of a record: whatever file it says it is
                own = self.trust.verified(record) is Level.YOURS
                document = replace(document, path=None)
            if own:
                return made
            digest = plan_digest(plan)
            if digest not in known:  # children of one kind share a gate, and so a budget
                known[digest] = self.gate(document, plan, say=say, allow=allow, foreign=True, model=model, by=by)
                known[digest].records = made.records
            return known[digest]

        known: dict[str, Gate] = {}
        own_db = isinstance(self.services.db, DBOperationsDomainService)
        made = Gate(
            decision.level,
            self.services,
            closure=found,
            granted=decision.granted,
            budget=budget,
            drafts=None if found is None else lambda: self._drafts(found),
            db=DBOperationsDomainService if own_db else None,
            decide=child,
            stamp=self.trust.stamp(decision),
            signatures=self.trust.signatures,
            made=self.trust.remember_made,
            base=self.settings.base_dir,
            model_chosen=chosen,
        )
        return made

    def _drafts(self, found: Closure) -> LocalFileSystemAdapter:
        """The folder of a guest's files, below the base directory, or below the data folder when that cannot be written."""
        stem = re.sub(r"[^\w\-]+", "_", found.name)[:60].strip("_") or "diagram"
        name = f"{stem}-{found.digest[:8]}"
        base = self.settings.base_dir
        if os.access(base, os.W_OK):
            root = own_root(base).below(Path("drafts", name))
        else:
            root = private_root(Path("drafts", name), self.settings.data_dir)
        return LocalFileSystemAdapter(root, max_file_size=self.settings.max_file_size)

    def compile(self, document: Diagram) -> Plan:
        """The plan of a diagram that can run here, with the diagrams it runs; nothing about trust.

        Raises:
            InvalidDiagramError: as `prepare`.
        """
        plan = document.compile(base_dir=self.settings.base_dir)
        found = [*handlers.not_runnable(plan, self.services), *nested_checks.findings(plan, self.services)]
        if has_errors(found):
            problem = next(d for d in found if d.severity is Severity.ERROR)
            error = InvalidDiagramError(str(problem), hint="Nothing was run.")
            error.diagnostics = (*plan.diagnostics, *found)
            raise error
        return replace(plan, diagnostics=(*plan.diagnostics, *found)) if found else plan

    def execution(
        self,
        prepared: Prepared,
        *,
        variables: Mapping[str, Any] | None = None,
        model: str | None = None,
        own_models: Collection[str] = (),
        timeout: float | None = None,
        interaction: InteractionPort | None = None,
        max_iterations: int | None = None,
        source: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        recovered: Recovered | None = None,
        reuse: Mapping[NodeRunKey, Event] | None = None,
        forked_from: Mapping[str, Any] | None = None,
    ) -> Execution:
        """A run of what is prepared, not started. What is None comes from the settings.

        Args:
            own_models: ids of persons that *model* does not move.
            recovered: go on with that run (see `recover`).
            reuse, forked_from: take finished runs of nodes over (see `execution.fork.reusable`).

        Raises:
            UserError: an option is no such value, or there is no such model; nothing was run.
        """
        settings = self.settings
        plan, gate = prepared
        variables = checked_mapping(variables, "inputs", "{'topic': '…'}")
        timeout, budget = checked_timeout(timeout), checked_budget(budget)
        max_iterations = checked_count(max_iterations, "max_iterations")
        check_services(plan, model, own_models, self.services.llm.services)
        redactor.add_named(variables)
        options = RunOptions(
            variables=variables,
            model=model,
            own_models=frozenset(own_models),
            timeout=settings.execution_timeout if timeout is None else timeout,
            node_timeout=settings.node_timeout,
            parallelism=settings.execution_parallelism if settings.parallel_execution else 1,
            max_iterations=settings.max_iterations if max_iterations is None else max_iterations,
            interaction=interaction,
            pass_env=settings.passed_variables,
            source=source,
            budget=gate.budget if budget is None else budget,
            reuse=reuse or {},
            forked_from=forked_from,
        )
        execution = Execution(plan, gate, options, recovered=recovered)
        if self._telemetry is not None:
            self._telemetry.watch(execution.run_id)
        return execution

    async def check_settings(self, plan: Plan, *, model: str | None = None) -> None:
        """Look whether a run would need what only the folder's files name, before it begins.

        Raises:
            SettingNotApprovedError: it would need a server, or a store, that nobody approved.
        """
        check = getattr(self.services.llm, "check_server", None)
        if check is None:
            return
        if model is not None:
            await check(parse_model(model, self.services.llm.services)[0])
            return
        for person in plan.persons.values():
            service = person.llm.service or DEFAULT_MODEL_SERVICE
            if person.llm.follows_default:
                service = parse_model(self.settings.default_llm_model, self.services.llm.services)[0]
            await check(service, base_url=person.llm.base_url, api_key_id=person.llm.api_key_id)

    async def summary(self, run_id: str) -> RunSummary:
        """The row of a run, by its id or an unmistakable beginning of it.

        Raises:
            UserError: no run, or several, of that id.
        """
        await self.initialize()
        return await run_named(self.services.store, run_id)

    async def delete_runs(self, run_ids: Collection[str], *, give_back: bool = True) -> list[str]:
        """Forget runs, and the runs of their sub-diagrams.

        Args:
            run_ids: whole ids.
            give_back: shrink the store's file by what got free.

        Returns:
            The ids of all that were deleted.

        Raises:
            StorageError: `going_on`, one of them lives, here or elsewhere, or is a part of one that does: nothing was deleted.
        """
        await self.initialize()
        store = self.services.store
        related = [found for run_id in run_ids for found in await self._related(run_id)]
        # What this process has of them does not live: it would be reserved.
        with live.reserved(store, dict.fromkeys(related), "delete"):
            return await store.delete(*run_ids, mine=True, compact=give_back)

    async def _related(self, run_id: str) -> list[str]:
        """A run with all runs of sub-diagrams below it, and those above it."""
        store = self.services.store
        row = await store.run(run_id)
        related = [row.run_id] if row is not None else []
        for member in related:  # grows meanwhile
            related += [part.run_id for part in await store.runs(parent=member, limit=1_000_000) if part.run_id not in related]
        while row is not None and row.parent_run_id is not None and row.parent_run_id not in related:
            related.append(row.parent_run_id)
            row = await store.run(row.parent_run_id)
        return related

    async def prune(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        status: str | None = None,
        dry_run: bool = False,
    ) -> list[str]:
        """Forget old runs; those that go on are left alone. What several conditions say must hold together.

        Args:
            older_than: seconds since a run ended (or was cut off).
            keep: how many of the newest runs stay, whatever else.
            status: only runs with that status.
            dry_run: only say which.

        Returns:
            Ids of the runs that were deleted with those of their sub-diagrams; in a dry run, of the former alone.

        Raises:
            UserError: no condition at all.
        """
        if older_than is None and keep is None and status is None:
            raise UserError("Which runs?", hint="Say older_than=, keep= or status= (--older-than, --keep, --status).")
        await self.initialize()
        store = self.services.store
        rows = (await store.runs(limit=1_000_000))[keep or 0 :]
        latest = self.services.clock.now() - (older_than or 0.0)
        chosen_rows = [
            row.run_id
            for row in rows
            if row.status != Status.RUNNING
            and status in (None, row.status)
            and (older_than is None or (row.ended_at or row.started_at) < latest)
        ]
        if dry_run:
            return chosen_rows
        deleted: list[str] = []
        for run_id in chosen_rows:
            try:
                deleted += await self.delete_runs([run_id], give_back=False)
            except StorageError as error:
                if error.facts.get("cause") != "going_on":  # a part of it lives, so it is left alone
                    raise
        if deleted:
            await store.compact()
        return deleted

    async def answer(
        self, run_id: str, text: str, *, node: str | None = None, request_id: str | None = None
    ) -> RunSummary:
        """Answer a question of a run, wherever it goes on. A run that was interrupted takes the answer when it is resumed.

        Args:
            node: the label of the node that asks, its path through sub-diagrams, or its id.
            request_id: the question itself; with neither, the only one that waits.

        Returns:
            The row of the run.

        Raises:
            RunError: no such question waits, or not any more.
            UserError: there is no such run, or several questions could be meant.
            StorageError: it is answered already, or somebody else's answer was first.
        """
        row = await self.summary(run_id)
        store = self.services.store
        if row.status not in (Status.RUNNING, Status.INTERRUPTED):
            raise no_question(request_id or node, row.run_id)
        if row.parent_run_id is not None:
            raise UserError(
                f"Run {row.run_id} is a part of run {row.parent_run_id}, which asks for it.",
                hint=f"Answer there: dipeo-nb answer {row.parent_run_id} NODE=TEXT.",
            )
        events = await store.events(row.run_id)
        waiting = unanswered(events)
        chosen_id = chosen(waiting, row.run_id, node=node, request_id=request_id)
        here = live.holder(store, row.run_id)
        if isinstance(here, Execution):
            here.answer(chosen_id, text)
        else:
            await store.put_answer(row.run_id, chosen_id, text)
            if row.status == Status.RUNNING:
                await self._taken(row.run_id, chosen_id, text, after=events[-1].seq)
        return row

    async def _taken(self, run_id: str, request_id: str, text: str, *, after: int) -> None:
        """Wait, a little while, until the process that has the run has taken an answer.

        Raises:
            StorageError: another answer was first.
        """
        store = self.services.store
        for _ in range(int(TAKEN_S / TAKEN_POLL_S)):
            for event in await store.events(run_id, after=after):
                after = event.seq
                if event.type is EventType.INTERACTIVE_RESPONSE and event.payload["request_id"] == request_id:
                    await store.drop_answer(run_id, request_id)
                    if (recorded := cast(InteractiveResponse, event.payload)["answer"]) != well_formed(text) and HIDDEN not in recorded:
                        raise answered(run_id, request_id)
                    return
            await asyncio.sleep(TAKEN_POLL_S)

    async def replay(
        self, run_id: str, *, speed: float = 1.0, max_pause: float = MAX_PAUSE_S
    ) -> tuple[Runtime, Replay]:
        """A recorded run, to be gone through again in a runtime of its own, which nothing of this one sees.

        Args:
            speed: 1 takes the time that it took, 10 a tenth of it, infinity none.
            max_pause: seconds between two events at most, whatever the speed.

        Raises:
            UserError: no such run, it still goes on, or a speed or pause that is none.
        """
        checked_pace(speed, max_pause)
        row = await self.summary(run_id)
        if row.status == Status.RUNNING:
            raise UserError(f"Run {row.run_id} still goes on.", hint="Open it: dp.open_run(…).")
        services = replace(self.services, store=InMemoryRunStore(), bus=InMemoryEventBus(apart=True))
        events = await self.services.store.events(row.run_id)
        cut_off = row.status == Status.INTERRUPTED
        shared = set(Services.__dataclass_fields__) - {"store", "bus"}
        replay = Replay(services, events, speed=speed, max_pause=max_pause, was_cut_off=cut_off)
        return Runtime(self.settings, services=services, borrowed=shared), replay

    async def recorded(self, run_id: str, diagram: Diagram | None = None) -> tuple[Diagram, list[Event]]:
        """The diagram that a run in the store is of, as it was, and the run's log.

        A credential that stood in the diagram is not recorded: such a diagram is read from its file again, when that is
        exactly what ran, as the signature of the record says.

        Args:
            diagram: what ran, for one that held a credential and was read from no file, or from one that has moved.

        Raises:
            UserError: there is no such run, its record has no diagram, or what the record lacks is nowhere else.
        """
        await self.initialize()
        events = await self.services.store.events(run_id)
        if not events:
            raise UserError(f"There is no run '{run_id}'.", hint="See dp.runs() (dipeo-nb runs).")
        first = cast(ExecutionStarted, events[0].payload)
        if not isinstance(source := first.get("source"), Mapping):
            raise UserError(f"Run {run_id} was recorded without its diagram.", hint="Run the diagram again.")
        text = json.dumps(source, ensure_ascii=False)
        if HIDDEN in text:
            return await asyncio.to_thread(self._read_again, events[0], diagram), events
        document = load_text(text, format="native", path=first.get("diagram_id"), base_dir=self.settings.base_dir)
        return document, events

    def _read_again(self, first: Event, given: Diagram | None) -> Diagram:
        """The diagram of a run that held a credential: from its file, or as it is given again; exactly what ran."""
        path = cast(ExecutionStarted, first.payload).get("diagram_id")
        found, why = given, "and it came from no file"
        if found is None and path:
            try:
                found = load(path, base_dir=self.settings.base_dir)
            except (DiagramError, UserError, StorageError) as error:
                why = f"and its file cannot be read: {error.message}"
        if found is not None:
            if self._ran(first, found):
                return found
            why = "and what was given is not what ran" if given is not None else f"and {path} is not what ran any more"
        raise UserError(
            f"The diagram of run {first.run_id} held a credential, which is not recorded, {why}.",
            hint="Give it as it was: diagram= (--diagram FILE). Or take the key out of it (name it by `api_key_id` or a variable), "
            "and begin a new run.",
        )

    def _ran(self, first: Event, document: Diagram) -> bool:
        """Whether the record that begins so is of a run of this user, and of exactly this diagram."""
        mark = self.trust.signatures.mark(json.loads(document.to_text("native")))
        return self.trust.verified(first) is not None and mark is not None and mark == first.payload["trust"].get("whole")

    async def recover(
        self,
        run_id: str,
        *,
        diagram: Diagram | None = None,
        variables: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        trust: Say = None,
        allow: Allow | None = None,
        model: str | None = None,
        by: str = "",
    ) -> Recovery:
        """Take over a run that was cut off, failed or was aborted; nothing of it runs yet.

        Args:
            diagram: what ran, where the record lacks a part of it; see `recorded`.
            variables: values that were secrets and so are not recorded.
            answers: they must be for nodes that ask.
            trust, allow: as of `prepare`, for a record that is not known to be of this user.
            model: moves every person, as of `prepare`; default: as the run was begun.

        Raises:
            TrustError: the record is not known to be of this user, or of another base directory, and wants more than a guest may do.
            UserError: there is no such run, it is complete, it needs what is not recorded, or an answer is for no node.
            StorageError: `going_on`: it goes on, here or in another process; the message says where.
        """
        document, events = await self.recorded(run_id, diagram)
        plan = self.compile(document)
        gate = await asyncio.to_thread(self.regate, document, plan, events, trust=trust, allow=allow, model=model, by=by)
        await asyncio.to_thread(check_answers, answers, plan, self.settings.base_dir)
        options = (started := cast(ExecutionStarted, events[0].payload)).get("options")
        visits = options["max_iterations"] if options else self.settings.max_iterations
        given = run_inputs(variables or {})
        found = recovered(plan, events, variables=given, max_visits=visits)
        await self._claim(run_id, found)
        # Whoever had it may have written until just now.
        events = await self.services.store.events(run_id)
        if len(events) != len(found.events):
            before, found = found, recovered(plan, events, variables=given, max_visits=visits)
            live.enter(self.services.store, run_id, found, instead_of=before)
        own_models = frozenset(options.get("own_models", ()) if options else ())
        return Recovery(document, Prepared(plan, gate), found, visits, started.get("model"), own_models)

    async def _claim(self, run_id: str, found: Recovered) -> None:
        store = self.services.store
        live.enter(store, run_id, found)
        try:
            await store.claim(run_id, mine=True)  # what this process has of it does not live: `enter` would have refused
        except BaseException as error:
            live.leave(store, run_id, found)
            if isinstance(error, StorageError) and error.facts.get("cause") == "completed":
                raise UserError(error.message, hint=error.hint, cause="completed") from None
            raise

    def regate(
        self,
        document: Diagram,
        plan: Plan,
        events: Sequence[Event],
        *,
        trust: Say = None,
        allow: Allow | None = None,
        model: str | None = None,
        by: str = "",
    ) -> Gate:
        """The gate of a run that goes on from a record: as before where the record is known to be of this user and base directory.

        Raises:
            TrustError: it is not, it wants more than a guest may do, and nobody says yes.
        """
        first = events[0]
        level = self.trust.verified(first) if self.trust.signatures.hold(events) else None
        if level is Level.YOURS and trust is not False:
            own = replace(document, path=None)  # decided when it began, whatever stands in its file now
            gate = self.gate(own, plan, say=trust, allow=allow, model=model)
            gate.records = "any" if trust is True else "own"
            return gate
        if level is Level.TRUSTED and trust is None:
            found = closure(document, base_dir=self.settings.base_dir, plan=plan)
            if first.payload["trust"]["digest"] == found.digest:
                trust = found.code  # the yes of then holds for the rest of the run
        if level is None and trust is not True and (objects := holds_objects(events)):
            raise TrustError(
                f"Run {first.run_id} was recorded elsewhere, or its record was changed; it holds objects of code ({objects}), which only "
                "code makes anew.",
                hint="Run the diagram again, or say yes to it with --trust (trust=True).",
            )
        chosen = model or cast(ExecutionStarted, first.payload).get("model")
        if level is None:
            document = replace(document, path=None)  # whatever file it says it is
        gate = self.gate(document, plan, say=trust, allow=allow, foreign=True, model=chosen, by=by)
        gate.records = "any" if trust is True else "data" if level is None else "own"
        return gate

    async def run(self, execution: Execution) -> Execution:
        """Initialise when needed, then run to the end."""
        await self.initialize()
        await execution.run()
        return execution


class Prepared(NamedTuple):
    """A plan that can run, and what it may do."""

    plan: Plan
    gate: RunGate

    @classmethod
    def own(cls, plan: Plan, services: Services) -> Prepared:
        """A plan that was made in code: the user's own."""
        return cls(plan, Gate.open(services))


class Recovery(NamedTuple):
    """A run that can go on."""

    document: Diagram
    prepared: Prepared
    recovered: Recovered
    max_iterations: int
    model: str | None
    own_models: frozenset[str]


def with_services(runtime: Runtime, **changes: Any) -> Runtime:
    """A runtime with some services replaced, for tests: `with_services(rt, llm=fake)`."""
    return Runtime(runtime.settings, services=replace(runtime.services, **changes))

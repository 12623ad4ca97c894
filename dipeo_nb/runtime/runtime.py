"""`Runtime`: the object through which notebooks, the command line and the server run diagrams."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack, cast

from dipeo_nb.common import imports, injection
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.open_on_use import service_of
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.container import build, check_service, telemetry
from dipeo_nb.diagram.document import Diagram, load
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, parse_model
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.payloads import ExecutionStarted
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import InteractionPort, Services, Subscription
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution import live
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.inputs import run_inputs
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import check_services, checked_limits, checked_mapping
from dipeo_nb.execution.recovery import Recovered
from dipeo_nb.execution.replay import MAX_PAUSE_S, Replay, checked_pace
from dipeo_nb.execution.router import MessageRouter
from dipeo_nb.execution.run_options import NodeRunKey, RunLimits, RunOptions
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.mixins import InitializationMixin
from dipeo_nb.runtime import retention
from dipeo_nb.runtime.answers import answer_question
from dipeo_nb.runtime.compiling import runnable_plan
from dipeo_nb.runtime.gates import Gates
from dipeo_nb.runtime.lifecycle import ServiceLifecycle, close
from dipeo_nb.runtime.lookup import run_named
from dipeo_nb.runtime.notes import add_note
from dipeo_nb.runtime.prepared import Prepared, Recovery
from dipeo_nb.runtime.records import RecordCheck, diagram_and_start
from dipeo_nb.runtime.resuming import read_log
from dipeo_nb.security.gate import Gate
from dipeo_nb.security.trust import Allow, Say, Trust

E = TypeVar("E", bound=Execution | Replay)


class Runtime(InitializationMixin):
    """Settings and services with a lifecycle; creates executions.

    Use as `with Runtime() as rt:` or `async with`; `initialize` and `cleanup` may be called any number of times.

    Args:
        services: ready-made, instead of those that `container.build` makes from settings and `overrides`.
        borrowed: names of services that belong to another runtime: they are neither opened nor closed here.
        overrides: see `container.build`.
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
        self.settings: Settings = settings or get_settings()
        imports.guard(self.settings.base_dir)
        if services is None:
            given = {name for name, service in overrides.items() if service is not None}
            services = build(self.settings, **overrides)
        else:
            given = set(Services.__dataclass_fields__) - set(borrowed)
            services = replace(services, **{name: service_of(getattr(services, name)) for name in given})
            for name in given:
                if (service := getattr(services, name)) is not None:
                    check_service(name, service)
        self.replaced: frozenset[str] = frozenset(given)
        """Names of the services that were given, instead of those that the settings name."""
        self.router: MessageRouter = MessageRouter(services.store, services.bus, apart=True)
        self.trust: Trust = Trust(self.settings)
        self._telemetry = telemetry(self.settings)
        self._traced: Subscription | None = None
        self._lifecycle = ServiceLifecycle(services, given=given, borrowed=borrowed)
        self.services: Services = self._lifecycle.opened_on_use(lambda: self.is_initialized, self.ensure_initialized)

    async def initialize(self) -> None:
        """Open the run store, the bus and every service that was given, each once, those first that others need.

        The services that were built here open when they are first used. A failure leaves nothing half-open.
        """
        await self._lifecycle.open()
        if self._telemetry is not None:
            self._traced = self.services.bus.subscribe(self._telemetry)

    async def cleanup(self) -> None:
        """Close everything that was opened, in reverse order, also when one of them fails.

        The first error is raised then, with the others as its notes. Safe to call twice.
        """
        closing = self._lifecycle.to_close()
        traced, self._traced = self._traced, None
        error: BaseException | None = None
        try:
            await self.router.cleanup()
            if self._telemetry is not None and traced is not None:
                self.services.bus.unsubscribe(traced)
                await self._telemetry.close()
        except BaseException as first:  # noqa: BLE001 - raised below; the services are to be closed all the same
            error = first
        error = await close(closing, error)
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

    # Before a run.

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
            trust: True approves everything that the diagram wants, and is remembered for exactly this diagram; a text approves a
                diagram with that code (`pin` of a TrustError); False treats any diagram as a guest.
            allow: what a guest may do in addition, e.g. `{"read": "data/*.csv", "net": "api.x.org", "code": True}`.
            foreign: text without a file is not the user's own, such as what comes through a pipe.
            model: the user moves every person to that model.
            by: who approves a code, which is recorded with the approval.

        Raises:
            DiagramNotFoundError, DiagramFormatError: it cannot be read.
            InvalidDiagramError: it was read and refused; `diagnostics` says where and why.
            TrustError: it is not the user's own, wants more than to call models, and the user has not approved it.
        """
        document = diagram if isinstance(diagram, Diagram) else load(diagram, base_dir=self.settings.base_dir)
        plan = self.compile(document)
        return Prepared(plan, self._gates.gate(document, plan, say=trust, allow=allow, foreign=foreign, model=model, by=by))

    @property
    def _gates(self) -> Gates:
        return Gates(self.settings, self.services, self.trust)

    def compile(self, document: Diagram) -> Plan:
        """The plan of a diagram that can run here, with the diagrams that it runs; trust is not looked at.

        Raises:
            InvalidDiagramError: as `prepare`.
        """
        return runnable_plan(document, self.settings.base_dir, self.services)

    def execution(
        self,
        prepared: Prepared,
        *,
        variables: Mapping[str, Any] | None = None,
        model: str | None = None,
        own_models: Collection[str] = (),
        interaction: InteractionPort | None = None,
        source: Mapping[str, Any] | None = None,
        recovered: Recovered | None = None,
        reuse: Mapping[NodeRunKey, Event] | None = None,
        forked_from: Mapping[str, Any] | None = None,
        **limits: Unpack[RunLimits],
    ) -> Execution:
        """Create a run of what is prepared, not started. What is None comes from the settings.

        Args:
            own_models: ids of persons that *model* does not move.
            recovered: continue that run (see `recover`).
            reuse, forked_from: take over finished runs of nodes (see `execution.fork.reusable`).
            limits: see `RunLimits`.

        Raises:
            UserError: an option has an impossible value, or there is no such model; nothing was run.
        """
        settings = self.settings
        plan, gate = prepared
        variables = checked_mapping(variables, "inputs", "{'topic': '…'}")
        limits = checked_limits(limits)
        check_services(plan, model, own_models, self.services.llm.services)
        redactor.add_named(variables)
        options = RunOptions(
            variables=variables,
            model=model,
            own_models=frozenset(own_models),
            timeout=limits.get("timeout") or settings.execution_timeout,
            node_timeout=settings.node_timeout,
            parallelism=settings.execution_parallelism if settings.parallel_execution else 1,
            max_iterations=limits.get("max_iterations") or settings.max_iterations,
            interaction=interaction,
            pass_env=settings.passed_variables,
            source=source,
            budget=limits.get("budget") or gate.budget,
            reuse=reuse or {},
            forked_from=forked_from,
        )
        execution = Execution(plan, gate, options, recovered=recovered)
        if self._telemetry is not None:
            self._telemetry.watch(execution.run_id)
        return execution

    def resumption(
        self, recovery: Recovery, *, interaction: InteractionPort | None = None, **limits: Unpack[RunLimits]
    ) -> Execution:
        """Create the rest of a run that `recover` has found, not started: as `execution`, with the options that are recorded."""
        return self.execution(
            recovery.prepared,
            model=recovery.model,
            own_models=recovery.own_models,
            interaction=interaction,
            source=recovery.recovered.first.started.get("source"),
            recovered=recovery.recovered,
            **{"max_iterations": recovery.max_iterations, **limits},
        )

    async def check_settings(self, plan: Plan, *, model: str | None = None) -> None:
        """Check, before a run begins, that it needs nothing that only the folder's files name.

        Raises:
            SettingNotApprovedError: it would need a server, or a store, that the user has not approved.
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

    async def run(self, execution: E) -> E:
        """Initialise when needed, then run to the end."""
        await self.initialize()
        await execution.run()
        if self.settings.streamed_text == "condensed" and isinstance(execution, Execution):
            await retention.condense_whole(self.services.store, execution.run_id)
        return execution

    # Runs in the store.

    async def find_run(self, run_id: str) -> RunSummary:
        """The row of a run, by its id or an unambiguous prefix of it.

        Raises:
            UserError: no run, or several, with that id.
        """
        await self.initialize()
        return await run_named(self.services.store, run_id)

    async def summary(self, run_id: str) -> RunSummary:
        """Return what `find_run` returns: its former name, until 0.2."""
        warnings.warn("Runtime.summary is deprecated; it is called find_run.", DeprecationWarning, stacklevel=2)
        return await self.find_run(run_id)

    async def delete_runs(self, run_ids: Collection[str], *, give_back: bool = True) -> list[str]:
        """Delete runs, and the runs of their sub-diagrams.

        Args:
            run_ids: complete ids.
            give_back: shrink the store's file by the space that is freed.

        Returns:
            The ids of all that were deleted.

        Raises:
            StorageError: `going_on`: one of them is executing, here or elsewhere, or is a part of one that is; nothing was deleted.
        """
        await self.initialize()
        return await retention.delete_runs(self.services.store, run_ids, compact=give_back)

    async def prune(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        status: str | None = None,
        dry_run: bool = False,
    ) -> list[str]:
        """Delete old runs; those that are executing stay. A run must meet all conditions that are given.

        Args:
            older_than: seconds since the run ended or was interrupted.
            keep: number of the newest runs that stay in any case.
            status: only runs with that status.
            dry_run: only return what would be deleted.

        Returns:
            Ids of the runs that were deleted, with those of their sub-diagrams; in a dry run without these.

        Raises:
            UserError: no condition was given.
        """
        await self.initialize()
        return await retention.prune(
            self.services.store, self.services.clock.now(), older_than=older_than, keep=keep, status=status, dry_run=dry_run
        )

    async def condense(self, *, older_than: float | None = None) -> list[str]:
        """Keep each streamed text of runs that have ended once, in its first piece: a record says no more how the text grew.

        Args:
            older_than: only runs that ended more seconds ago.

        Returns:
            Ids of the runs that take less space now.
        """
        await self.initialize()
        return await retention.condense(self.services.store, self.services.clock.now(), older_than=older_than)

    async def answer(self, run_id: str, text: str, *, node: str | None = None, request_id: str | None = None) -> RunSummary:
        """Answer a question of a run, in whichever process it is executing. An interrupted run gets the answer when it is resumed.

        Args:
            node: the label of the node that asks, its path through sub-diagrams, or its id.
            request_id: the question itself; with neither, the only one that waits.

        Returns:
            The row of the run.

        Raises:
            RunError: no such question waits, or it no longer does.
            UserError: there is no such run, or several questions match.
            StorageError: it is answered already, or another answer was first.
        """
        row = await self.find_run(run_id)
        await answer_question(self.services.store, row, text, node=node, request_id=request_id)
        return row

    async def note(self, run_id: str, first: int, last: int | None, text: str) -> None:
        """Store a note on the events *first* to *last* (None: up to the latest one) of a run that is executing here, or has ended.

        Raises:
            UserError: no such run, no such events, or no text.
            StorageError: the run is executing elsewhere, or was cut off.
        """
        row, services = await self.find_run(run_id), self.services
        await add_note(services.store, services.bus, row, first, last, text, now=services.clock.now())

    async def replay(self, run_id: str, *, speed: float = 1.0, max_pause: float = MAX_PAUSE_S) -> tuple[Runtime, Replay]:
        """A replay of a recorded run, in a runtime of its own, so that nothing of it reaches this one's store and bus.

        Args:
            speed: 1 takes the time that the run took, 10 a tenth of it, infinity none.
            max_pause: seconds between two events at most, whatever the speed.

        Raises:
            UserError: no such run, it is still running, or an impossible speed or pause.
        """
        checked_pace(speed, max_pause)
        row = await self.find_run(run_id)
        if row.status == Status.RUNNING:
            raise UserError(f"Run {row.run_id} is still running.", hint="Open it: dp.open_run(…).")
        services = replace(self.services, store=InMemoryRunStore(), bus=InMemoryEventBus(apart=True))
        events = await self.services.store.events(row.run_id)
        cut_off = row.status == Status.INTERRUPTED
        shared = set(Services.__dataclass_fields__) - {"store", "bus"}
        replay = Replay(services, events, speed=speed, max_pause=max_pause, was_cut_off=cut_off)
        return Runtime(self.settings, services=services, borrowed=shared), replay

    async def recorded(self, run_id: str, diagram: Diagram | None = None) -> tuple[Diagram, Event]:
        """The diagram of a run in the store, as it was, and the run's first event.

        A credential in a diagram is not recorded: such a diagram is read from its file again, when that is exactly what ran, as
        the signature of the record shows.

        Args:
            diagram: what ran, for one that held a credential and has no file, or whose file has moved.

        Raises:
            UserError: there is no such run, its record has no diagram, or what the record lacks is not available elsewhere.
        """
        await self.initialize()
        store, base_dir = self.services.store, self.settings.base_dir
        return await diagram_and_start(store, run_id, base_dir=base_dir, trust=self.trust, diagram=diagram)

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
        """Claim a run that was interrupted, failed or was aborted; nothing of it runs yet.

        Args:
            diagram: what ran, where the record lacks a part of it; see `recorded`.
            variables: values that were secrets and so are not recorded.
            answers: they must be for nodes that ask.
            trust, allow: see `prepare`; for a record that is not known to be of this user.
            model: moves every person, see `prepare`; default: as when the run began.

        Raises:
            TrustError: the record is not known to be of this user, or of another base directory, and wants more than a guest may do.
            UserError: there is no such run, it is complete, it needs what is not recorded, or an answer matches no node.
            StorageError: `going_on`: it is executing, here or in another process; the message says where.
        """
        document, first = await self.recorded(run_id, diagram)
        plan, store = self.compile(document), self.services.store
        options = (started := cast(ExecutionStarted, first.payload)).get("options")
        visits = options["max_iterations"] if options else self.settings.max_iterations
        given = run_inputs(variables or {})
        record, recovering = await read_log(store, plan, first, self.trust.signatures, variables=given, max_visits=visits)
        gate = await asyncio.to_thread(
            self._gates.of_record, document, plan, record, trust=trust, allow=allow, model=model, by=by
        )
        await asyncio.to_thread(check_answers, answers, plan, self.settings.base_dir)
        found = recovering.result()
        await self._claim(run_id, found)
        row = await store.run(run_id)
        if row is not None and row.events != found.seq:  # the previous owner has appended events since they were read
            _, recovering = await read_log(store, plan, first, self.trust.signatures, variables=given, max_visits=visits)
            before, found = found, recovering.result()
            live.enter(store, run_id, found, instead_of=before)
        own_models = frozenset(options.get("own_models", ()) if options else ())
        return Recovery(document, Prepared(plan, gate), found, visits, started.get("model"), own_models)

    async def _claim(self, run_id: str, found: Recovered) -> None:
        store = self.services.store
        live.enter(store, run_id, found)
        try:
            injection.reach("run.claim")
            await store.claim(run_id, owned=True)  # when this process owns it, it is not executing: `enter` would have refused
        except BaseException as error:
            live.leave(store, run_id, found)
            if isinstance(error, StorageError) and error.facts.get("cause") == "completed":
                raise UserError(error.message, hint=error.hint, cause="completed") from None
            raise
        injection.reach("run.claimed")

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
        """The gate of a run that continues from its record; see `recover`."""
        record = RecordCheck.of(self.trust.signatures, events)
        return self._gates.of_record(document, plan, record, trust=trust, allow=allow, model=model, by=by)


def with_services(runtime: Runtime, **changes: Any) -> Runtime:
    """A runtime with some services replaced, for tests: `with_services(rt, llm=fake)`."""
    return Runtime(runtime.settings, services=replace(runtime.services, **changes))

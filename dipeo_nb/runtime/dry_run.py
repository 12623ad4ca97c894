"""A dry run: what a run of a diagram would do, and which keys it lacks. Nothing is sent, written or executed, and nothing is recorded.

The engine itself runs the diagram, over services that note what they are asked for (`dry_services`): prompts, requests and files are
those that a run would have, up to the values that only a run gives, for which placeholders stand. A branch that placeholders do
not take is listed as the diagram says it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from dipeo_nb.domain.capabilities import Use, uses_of
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, parse_model
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.nodes import IntegratedApiNode, PersonJobNode, provider_tool
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import DipeoError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution import nested
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import ScriptedPrompter
from dipeo_nb.execution.options import check_services
from dipeo_nb.execution.run_options import RunOptions
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.llm import catalogue
from dipeo_nb.runtime.dry_services import (
    DryAnswers,
    DryCode,
    DryDb,
    DryFiles,
    DryHTTP,
    DryIntegrations,
    DryModels,
    DryNodes,
    Effect,
    Noted,
)
from dipeo_nb.runtime.runtime import Runtime
from dipeo_nb.security.gate import Gate
from dipeo_nb.storage.conversation import InMemoryConversationRepository, InMemoryPersonRepository

Wanted = dict[tuple[str, str | None], list[str]]
"""(service or provider, id of a key) → labels of the nodes that need it."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A key or a package that a run would lack."""

    service: str
    nodes: tuple[str, ...]
    """Labels of the nodes that need it; `Sub/Node` for one of a sub-diagram."""
    hint: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do."""

    effects: Sequence[Effect]
    times: Mapping[Effect, int] = field(default_factory=dict[Effect, int])
    """How often an effect occurred that occurred more than once."""
    missing: Sequence[Missing] = ()
    error: str = ""
    """Why it ended early: most often a node that cannot work with a placeholder."""

    def report(self) -> dict[str, Any]:
        """The same as JSON values."""
        effects = [
            {"node": e.node, "kind": e.kind, "what": e.what, "detail": e.detail, "reached": e.reached,
             "times": self.times.get(e, 1)}
            for e in self.effects
        ]  # fmt: skip
        missing = [{"service": m.service, "nodes": list(m.nodes), "hint": m.hint} for m in self.missing]
        return {"effects": effects, "missing": missing, "error": self.error}


async def dry_run(
    runtime: Runtime,
    plan: Plan,
    *,
    variables: Mapping[str, Any] | None = None,
    model: str | None = None,
    answers: Mapping[str, str | Sequence[str]] | None = None,
    max_iterations: int | None = None,
) -> DryRun:
    """See what a run of *plan* would do. It needs nobody's trust: nothing of the diagram is executed.

    Raises:
        UserError: there is no such model.
    """
    settings, services = runtime.settings, runtime.services
    check_services(plan, model, (), services.llm.services)
    noted = Noted()
    options = RunOptions(
        variables=dict(variables or {}),
        model=model,
        timeout=settings.execution_timeout,
        node_timeout=settings.node_timeout,
        parallelism=1,
        max_iterations=settings.max_iterations if max_iterations is None else max_iterations,
        interaction=ScriptedPrompter(answers, DryAnswers(noted)),
        instead=DryNodes(noted, frozenset(NodeType)).instead,
    )
    gate = Gate.open(_services(services, noted, str(settings.peek("default_llm_model"))))  # nothing can happen behind it
    execution = Execution(plan, gate, options)
    await execution.run()
    state = execution.state
    not_reached = [
        Effect(use.node, use.kind, use.what, use.detail, reached=False)
        for node in plan.nodes
        if state.nodes[node.id].started_at is None
        for use in _in_order(uses_of(node, plan))
    ]
    error = state.error or {}
    where = f"At '{error['node']}': " if error.get("node") else ""
    return DryRun(
        (*noted.effects, *not_reached),
        {effect: count for effect, count in noted.effects.items() if count > 1},
        await missing_keys(runtime, plan, model=model),
        f"{where}{error.get('message', state.status)}" if state.status != "completed" else "",
    )


def _in_order(uses: Any) -> list[Use]:
    return sorted(uses, key=lambda use: (use.kind, use.what))


def _services(services: Services, noted: Noted, default: str) -> Services:
    files = DryFiles(noted, services.files)
    return replace(
        services,
        llm=DryModels(noted, services.llm, default),
        files=cast(Any, files),
        db=DryDb(cast(Any, files)),
        store=InMemoryRunStore(),
        bus=InMemoryEventBus(apart=True),
        conversations=InMemoryConversationRepository(),
        persons=InMemoryPersonRepository(),
        code=lambda: DryCode(noted),
        http=DryHTTP(noted),
        integrations=None if services.integrations is None else DryIntegrations(noted, services.integrations),
    )


async def missing_keys(runtime: Runtime, plan: Plan, *, model: str | None = None) -> list[Missing]:
    """The keys and packages that a run of *plan*, and of its sub-diagrams, would lack. Asks nobody but this machine."""
    models: Wanted = {}
    providers: Wanted = {}
    for path, part in nested.diagrams(plan, runtime.settings.base_dir):
        for node in part.nodes:
            label = "/".join((*path, node.label))
            if (wanted := _model_service(runtime, part, node, model)) is not None:
                models.setdefault(wanted, []).append(label)
            for wanted in _providers(node):
                providers.setdefault(wanted, []).append(label)
    found: list[Missing] = []
    if "llm" not in runtime.replaced:
        found += await _of_models(runtime, models)
    if runtime.services.integrations is not None and hasattr(runtime.services.integrations, "manifest_provider"):
        found += await _of_providers(runtime, providers)
    return found


def _model_service(runtime: Runtime, plan: Plan, node: PlanNode, model: str | None) -> tuple[str, str | None] | None:
    """(service, id of a key) that a node asks; None: none, or a server of its own, which may need no key."""
    reference = getattr(node.spec, "person", None)
    person = plan.persons.get(reference) if reference else None
    person = person or next((p for p in plan.persons.values() if reference in (p.label, f"person_{p.label}")), None)
    if person is None or not any(use.kind == "model" for use in uses_of(node, plan)):
        return None
    llm, known = person.llm, runtime.services.llm.services
    if model is not None:
        return parse_model(model, known)[0], None
    if llm.base_url:
        return None
    default = parse_model(str(runtime.settings.peek("default_llm_model")), known)[0]
    return (default if llm.follows_default else llm.service or DEFAULT_MODEL_SERVICE), llm.api_key_id


def _providers(node: PlanNode) -> list[tuple[str, str | None]]:
    """(provider, id of a key) of the operations that a node calls, or its model may."""
    if isinstance(node.spec, IntegratedApiNode):
        return [] if "{{" in node.spec.provider else [(node.spec.provider, node.spec.api_key_id)]
    if not isinstance(node.spec, PersonJobNode):
        return []
    tools = node.spec.tools
    names = map(provider_tool, tools if isinstance(tools, list) else [tools])
    return [(provider, None) for provider in dict.fromkeys(name.partition(".")[0] for name in names if name is not None)]


async def _of_models(runtime: Runtime, wanted: Mapping[tuple[str, str | None], Collection[str]]) -> list[Missing]:
    keys = runtime.services.keys
    facts = {row.service: row for row in await catalogue.services(runtime.settings, keys)} if wanted else {}
    found: list[Missing] = []
    for (service, key_id), nodes in wanted.items():
        if key_id is not None:
            try:
                await keys.get_api_key(key_id)
            except DipeoError as error:
                found.append(Missing(f"{service} (key {key_id})", tuple(nodes), error.hint or error.message))
        elif service in facts and not facts[service].ready:
            why = facts[service].why_not
            more = f", or: dipeo-nb keys set {service}" if why.startswith("set ") else ""
            found.append(Missing(service, tuple(nodes), f"{why}{more}"))
    return found


async def _of_providers(runtime: Runtime, wanted: Mapping[tuple[str, str | None], Collection[str]]) -> list[Missing]:
    service = cast(Any, runtime.services.integrations)
    found: list[Missing] = []
    for (provider, key_id), nodes in wanted.items():
        if key_id is not None:
            try:
                await runtime.services.keys.get_api_key(key_id)
            except DipeoError as error:
                found.append(Missing(f"{provider} (key {key_id})", tuple(nodes), error.hint or error.message))
            continue
        ready = str((await service.row(provider))["ready"])
        if ready.startswith("no: "):
            found.append(Missing(provider, tuple(nodes), ready.removeprefix("no: ")))
    return found

"""Works out a fork: which diagram, inputs and models it runs with, and which finished work of the old run it takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Unpack

from dipeo_nb.common.values import same
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.edit import person_of
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import InteractionPort
from dipeo_nb.errors import UserError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.fork import changed_nodes, reusable
from dipeo_nb.execution.inputs import run_inputs
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import checked_text
from dipeo_nb.execution.run_errors import no_node
from dipeo_nb.execution.run_options import NodeRunKey, RunLimits
from dipeo_nb.runtime.prepared import Prepared
from dipeo_nb.runtime.runtime import Runtime


class Fork(NamedTuple):
    """The diagram of the new run, and what it is run with."""

    document: Diagram
    prepared: Prepared
    variables: Mapping[str, Any]
    model: str | None
    own_models: frozenset[str]
    """Ids of persons that *model* does not move."""
    reuse: Mapping[NodeRunKey, Event]
    forked_from: Mapping[str, Any] | None

    def execution(
        self, runtime: Runtime, *, interaction: InteractionPort | None = None, **limits: Unpack[RunLimits]
    ) -> Execution:
        """The new run, not started."""
        return runtime.execution(
            self.prepared,
            variables=self.variables,
            model=self.model,
            own_models=self.own_models,
            **limits,
            interaction=interaction,
            source=self.document.to_data(),
            reuse=self.reuse,
            forked_from=self.forked_from,
        )


async def plan_fork(
    runtime: Runtime,
    run_id: str,
    *,
    at: str | None,
    of: int,
    changes: Mapping[str, Any],
    model: str | None,
    inputs: Mapping[str, Any],
    answers: Mapping[str, Any] | None = None,
    trust: bool | str | None = None,
    allow: Mapping[str, Any] | None = None,
    diagram: Diagram | None = None,
) -> Fork:
    """A fork of a recorded run; see `Session.fork` for the arguments.

    Args:
        run_id: the complete id of the old run.
        changes: `set` of `Session.fork`.

    Raises:
        UserError: no such node, or nothing would be different.
    """
    document, start = await runtime.recorded(run_id, diagram)
    events, first = await runtime.services.store.events(run_id), start.payload
    before = await asyncio.to_thread(runtime.compile, document)
    old_model = first.get("model")
    old_own = frozenset[str](first.get("options", {}).get("own_models", ()))
    own = {*(old_own if model is None else frozenset[str]())}
    for path, value in changes.items():
        about = person_of(document, path)
        document = document.set(path, value)
        if about is not None and about[1] in ("service", "model", "base_url"):
            own.add(about[0].id)
    model = old_model if model is None else model
    plan = await asyncio.to_thread(runtime.compile, document)
    gate = await asyncio.to_thread(runtime.regate, document, plan, events, trust=trust, allow=allow, model=model)
    await asyncio.to_thread(check_answers, answers, plan, runtime.settings.base_dir)
    node = _node(plan, at)
    old = first.get("variables", {})
    given = {**old, **run_inputs(inputs)}
    changed = changed_nodes(
        before,
        plan,
        moved=_moved(before, plan, (old_model, old_own), (model, own)),
        model=model != old_model,
        inputs=not same(given, old),
    )
    if node is None and not changed:
        raise UserError(
            "Nothing would be different.", hint="Name a node to run again from (at=…), or change something (set=…)."
        )
    return Fork(
        document,
        Prepared(plan, gate),
        given,
        model,
        frozenset(own),
        reuse=reusable(plan, events, at=node, run=of, changed=changed),
        forked_from={"run_id": run_id, "node": node.id if node else None, "run": of},
    )


def _node(plan: Plan, reference: str | None) -> PlanNode | None:
    if reference is None:
        return None
    try:
        return plan.node(checked_text(reference, "at", "at='Judge'"))
    except KeyError:
        raise no_node(reference, [n.label for n in plan.nodes]) from None


def _moved(
    before: Plan, after: Plan, old: tuple[str | None, Collection[str]], new: tuple[str | None, Collection[str]]
) -> set[str]:
    """Ids of persons that another model answers for, given each time the run's model and the persons that it does not move."""

    def models(plan: Plan, model: str | None, own: Collection[str]) -> dict[str, Any]:
        return {
            i: model if model is not None and i not in own else (p.llm.service, p.llm.model, p.llm.base_url)
            for i, p in plan.persons.items()
        }

    was, now = models(before, *old), models(after, *new)
    return {person for person, model in now.items() if was.get(person) != model}

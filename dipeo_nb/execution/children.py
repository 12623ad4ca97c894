"""The runs that a sub_diagram node begins: made, resumed, forked where their file has changed, and run to their end.

A child is a run of its own in the store, begun under an id that the parent's log knows before the child's first event. So
when the parent is resumed, or the node's work is tried again, children that had ended are not run again, and those that failed
or were cut off are resumed. They use the diagram's file as it is now: where it has changed, what is the same up to there is
taken over, as by a fork.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from dipeo_nb.common.redaction import HIDDEN, redactor
from dipeo_nb.diagram.closure import plan_digest
from dipeo_nb.diagram.document import Diagram, load_text
from dipeo_nb.diagram.nested import nested_document
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.domain.payloads import (
    ChildData,
    ExecutionStarted,
    NodeCompleted,
    NodeError,
)
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Question, RunGate
from dipeo_nb.errors import (
    BudgetExceededError,
    DiagramNotFoundError,
    NodeExecutionError,
    RunError,
    UserError,
)
from dipeo_nb.execution import handlers, live
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.conversation import as_record
from dipeo_nb.execution.fork import begun_work, changed_nodes, reusable
from dipeo_nb.execution.journal import legible
from dipeo_nb.execution.nested import matched
from dipeo_nb.execution.record import message_of, progress, progress_line
from dipeo_nb.execution.recovery import Recovered, recovered
from dipeo_nb.execution.run_errors import error_value
from dipeo_nb.execution.run_state import RunState


def diagram_of(context: NodeContext, spec: SubDiagramNode) -> Diagram:
    """The diagram that the node means.

    Raises:
        DiagramError: there is none, or it cannot be read.
    """
    base = context.services.files.base_path
    name = context.file_name(spec.diagram_name or "").strip()
    return nested_document(spec, name, source_path=context.execution.plan.source_path, base_dir=base)


@dataclass
class EndedChild:
    """A child that had completed before: its record stands where its execution would."""

    state: RunState
    last: Any
    """What its last node gave."""

    @property
    def run_id(self) -> str:
        return self.state.run_id

    def result(self) -> Any:
        ends = {label: self.state.outputs[label] for label in self.state.labels.values() if label in self.state.outputs}
        if ends:
            return next(iter(ends.values())) if len(ends) == 1 else ends
        return self.last


async def ended_children(context: NodeContext) -> dict[int, EndedChild]:
    """The children of this run of the node that have completed, by item."""
    known = context.execution.progress.begun.children.get((context.node.index, context.run), {})
    found: dict[int, EndedChild] = {}
    for index, run_id in known.items():
        events = await context.services.store.events(run_id)
        context.execution.gate.admit(events)
        if events and events[-1].type is EventType.EXECUTION_COMPLETED:
            found[index] = EndedChild(RunState.fold(events), _last_value(events))
    return found


def _last_value(events: list[Event]) -> Any:
    for event in reversed(events):
        if event.type is EventType.NODE_COMPLETED and "output" in (completed := cast(NodeCompleted, event.payload)):
            return completed["output"]
        if event.type is EventType.NODE_ERROR and (failed := cast(NodeError, event.payload)).get("handled"):
            return error_value(failed["error"])
    return None


class _Source(NamedTuple):
    document: Diagram
    plan: Plan
    gate: RunGate
    native: Mapping[str, Any]


class Children:
    """Makes the children of one run of a sub_diagram node."""

    def __init__(self, context: NodeContext, ended: Mapping[int, EndedChild]) -> None:
        self._context = context
        self._ended = ended
        self._known = context.execution.progress.begun.children.setdefault((context.node.index, context.run), {})
        self._source: _Source | None = None
        self._reading = asyncio.Lock()
        self._noted = False

    async def child(self, variables: Mapping[str, Any], index: int) -> Any:
        """The execution of one child: a new one, or the one that was begun before; or its record, when it has completed."""
        if index in self._ended:
            return self._ended[index]
        context, source = self._context, await self._read()
        known = self._known.get(index)
        events = await context.services.store.events(known) if known else []
        if known and events:
            return await self._again(source, events, variables, index)
        if known:  # cut off between the two first steps
            return self._execution(source, variables, index, run_id=known)
        return await self._begun(source, variables, index)

    async def _begun(self, source: _Source, variables: Mapping[str, Any], index: int, **more: Any) -> Any:
        """A new child. The parent's log knows of it before its first event."""
        context = self._context
        child = self._execution(source, variables, index, **more)
        self._known[index] = child.run_id
        context.begun.add(child.run_id)
        data: ChildData = {"run_id": child.run_id, "index": index, "diagram": child.plan.name}
        await context.record({"kind": "run", "text": "", "run": context.run, "data": data})
        return child

    async def _again(self, source: _Source, events: list[Event], variables: Mapping[str, Any], index: int) -> Any:
        """Resume a child that failed or was cut off."""
        context = self._context
        services = context.services
        visits = context.execution.options.max_iterations
        context.execution.gate.admit(events)
        recorded = cast(ExecutionStarted, events[0].payload).get("source")
        plan, changed = source.plan, set[int]()
        if recorded not in (source.native, legible(redactor(source.native))):
            before = await asyncio.to_thread(_plan, context, _recorded(context, events, source.document))
            same = matched(before, source.plan)
            ids = {old.id: new.id for old, new in zip(before.nodes, same.nodes, strict=True)}
            changed = changed_nodes(same, source.plan)
            if not changed and same.by_id.keys() == source.plan.by_id.keys():
                plan = before  # only its looks have changed
                if plan_digest(before) != plan_digest(source.plan):
                    gate = await asyncio.to_thread(context.execution.gate.child, source.document, before, events[0])
                    source = source._replace(gate=gate)
            else:
                return await self._forked(source, ids, events, variables, index, changed)
        try:
            found = recovered(plan, events, variables=variables, max_visits=visits)
        except (RunError, UserError) as error:  # it needs what held a secret
            if events[0].run_id not in context.begun:
                raise
            context.log("WARNING", f"{error.message} '{plan.name}' runs from its beginning.")
            return await self._begun(source, variables, index)
        live.enter(services.store, events[0].run_id, found)
        await services.store.claim(events[0].run_id, owned=True)
        return self._execution(source._replace(plan=plan), variables, index, recovered=found)

    async def _forked(
        self,
        source: _Source,
        ids: Mapping[str, str],
        events: list[Event],
        variables: Mapping[str, Any],
        index: int,
        changed: set[int],
    ) -> Any:
        """A child of a diagram whose file has changed: it takes over what depends on no change."""
        context, plan = self._context, source.plan
        events = [e._replace(node_id=ids.get(e.node_id or "", e.node_id)) for e in events]
        context.charge_run(RunState.fold(events))
        if not self._noted:
            self._noted = True
            names = ", ".join(f"'{plan.nodes[i].label}'" for i in sorted(changed)) or "fewer nodes"
            context.log(
                "INFO",
                f"The diagram '{plan.name}' has changed since ({names}); what it had done up to there is taken over.",
            )
        child = await self._begun(
            source,
            variables,
            index,
            reuse=reusable(plan, events, at=None, changed=changed),
            forked_from={"run_id": events[0].run_id, "node": None, "run": 1},
        )
        begun = begun_work(plan, events, without=changed)
        child.progress.begun = begun
        for items in begun.items.values():
            for i, item in items.items():
                items[i] = _heard_again(child, item)
        return child

    def _execution(
        self,
        source: _Source,
        variables: Mapping[str, Any],
        index: int,
        *,
        recovered: Recovered | None = None,
        run_id: str | None = None,
        **more: Any,
    ) -> Any:
        context = self._context
        execution = context.execution
        spec = cast(SubDiagramNode, context.node.spec)
        options = replace(
            execution.options,
            variables=variables,
            own_models=frozenset(),
            source=source.native,
            parent_run_id=execution.run_id,
            budget=execution.options.budget or source.gate.budget,
            interaction=_ParentPrompter(context, f"{context.node.label}[{index}]" if spec.batch else context.node.label),
            **{"reuse": {}, "forked_from": None, **more},
        )
        log = None if spec.isolate_conversation or spec.batch else execution.progress.log
        return execution.spawn(source.plan, source.gate, options, recovered=recovered, parent=context, log=log, run_id=run_id)

    async def _read(self) -> _Source:
        """The diagram as it is now; as it was recorded, when it is gone."""
        async with self._reading:
            if self._source is None:
                context = self._context
                record: Event | None = None
                try:
                    document = await asyncio.to_thread(diagram_of, context, cast(SubDiagramNode, context.node.spec))
                except DiagramNotFoundError as error:
                    events = await self._remembered()
                    if not events:
                        raise
                    document, record = _recorded(context, events), events[0]
                    context.log("WARNING", f"{error.message} The run continues with the diagram as it was recorded.")
                self._source = await self._of(document, record)
            return self._source

    async def _remembered(self) -> list[Event]:
        """The record of the first child that was begun."""
        for run_id in self._known.values():
            if events := await self._context.services.store.events(run_id):
                return events
        return []

    async def _of(self, document: Diagram, record: Event | None) -> _Source:
        context = self._context
        plan = await asyncio.to_thread(_plan, context, document)
        gate = await asyncio.to_thread(context.execution.gate.child, document, plan, record)
        return _Source(document, plan, gate, document.to_data())


def _recorded(context: NodeContext, events: list[Event], current: Diagram | None = None) -> Diagram:
    """The diagram of a run, as it was."""
    first = cast(ExecutionStarted, events[0].payload)
    path = first.get("diagram_id") if current is None else current.path
    text = json.dumps(first.get("source"), ensure_ascii=False)
    if current is None and HIDDEN in text:
        raise UserError(
            f"The sub-diagram '{first.get('diagram')}' held a credential, which is not recorded.",
            hint="Bring its file back as it was, or take the key out of it (name it by `api_key_id` or a variable), and run it again.",
        )
    return load_text(text, format="native", path=path, base_dir=context.services.files.base_path)


def _heard_again(child: Any, item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an item of a batch gave in another run, with its messages in the conversation of *child*."""
    meta = item.get("meta", {})
    messages = [message_of(record) for record in meta.get("messages", ())]
    added = [
        as_record(child.progress.log.add(m.from_person_id, m.to_person_id, m.content, timestamp=m.timestamp, node_id=m.node_id))
        for m in messages
    ]
    return {**item, "meta": {**meta, "messages": added}} if added else item


def _plan(context: NodeContext, document: Diagram) -> Plan:
    plan = document.compile(base_dir=context.services.files.base_path)
    if problems := handlers.not_runnable(plan, context.services):
        raise NodeExecutionError(f"'{plan.name}' cannot run: {problems[0].message}", hint=problems[0].hint)
    return plan


async def complete_child(context: NodeContext, child: Any, *, watched: bool = False, background: bool = False) -> None:
    """Run a child to its end, unless it is there already; stopped with its parent. What it spent is charged, however it ends.

    Raises:
        NodeExecutionError: it failed.
        BudgetExceededError: it reached the limit, which is that of the whole run.
    """
    if child.state.status == Status.COMPLETED:
        context.charge_run(child.state, background=background)
        return
    bus = context.services.bus
    subscription = bus.subscribe(_teller(context), run_id=child.run_id) if watched else None
    work = asyncio.get_running_loop().create_task(child.run())
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        child.stop("the run it is part of was stopped")
        await asyncio.gather(work, return_exceptions=True)
        raise
    finally:
        if subscription is not None:
            bus.unsubscribe(subscription)
        context.charge_run(child.state, background=background)
    if isinstance(child.error, BudgetExceededError):
        raise child.error
    if child.error is not None:
        raise _failure(child.plan.name, child.error, child.run_id) from child.error


def _failure(diagram: str, error: Any, run_id: str) -> NodeExecutionError:
    """The error of a child that failed. It names the place once, however deep: the nodes on the way down to the one at fault,
    and what was wrong there."""
    cause = getattr(error, "cause_message", error.message)
    steps: tuple[str, ...] = getattr(error, "steps", ())
    if label := getattr(error, "node", None):
        item = getattr(error, "item", None)
        steps = (label if item is None else f"{label}[{item}]", *steps)
    where = f" at '{' › '.join(steps)}'" if steps else ""
    message = f"The diagram '{diagram}' failed{where}: {cause}"
    return NodeExecutionError(message, hint=error.hint, child_run_id=run_id, steps=steps, cause_message=cause)


async def complete_alone(context: NodeContext, child: Any) -> None:
    """A child that no node waits for: its failure is reported in the parent's log."""
    try:
        await complete_child(context, child, background=True)
    except NodeExecutionError as error:
        context.log("ERROR", f"{error.message} {error.hint or ''}".strip())


def _teller(context: NodeContext) -> Any:
    """Shows in the parent's view where the child is."""

    def tell(event: Event) -> None:
        if (line := progress_line(event)) is not None:
            data = {"run_id": event.run_id, "node": event.node_id, "type": str(event.type)}
            context.show(progress(context.run, line, data))

    return tell


class _ParentPrompter:
    """`InteractionPort`: what a child asks, its parent asks, so that it is seen and answered there.

    Args:
        step: the node, and in a batch the item, that the child belongs to.
    """

    def __init__(self, context: NodeContext, step: str) -> None:
        self._context = context
        self._step = step

    async def ask(self, question: Question) -> tuple[str, str]:
        context = self._context
        return await context.execution.ask(
            context.node,
            question.prompt,
            timeout=question.timeout,
            default=question.default,
            path=(self._step, *question.path),
            form=question.form,
        )

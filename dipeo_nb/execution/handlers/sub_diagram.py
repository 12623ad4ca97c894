"""sub_diagram: runs another diagram, once or for each item of a list (diagram-spec §3.9 "Do").

A child is a run of its own in the store, begun under an id that the parent's log knows before the child's first event. So
when the parent is resumed, children that had ended are not run again, and those that were cut off go on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from dipeo_nb.diagram import detect
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.diagram.templates import resolve
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import SubDiagramNode, code_of
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Question
from dipeo_nb.errors import DiagramError, NodeExecutionError
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain
from dipeo_nb.execution.recovery import recovered

TIMEOUT = None  # the run's own limit holds for its children too
DEEPEST = 10
"""Diagrams within diagrams."""
_MISSING: Any = object()


async def run(context: NodeContext) -> Output:
    spec = cast(SubDiagramNode, context.node.spec)
    execution = context.execution
    if spec.ignore_if_sub and execution.parent is not None:
        return Output(plain(context.inputs.body), meta={"skipped": "this run is part of another diagram already"})
    if depth(context) > DEEPEST:
        raise NodeExecutionError(
            f"More than {DEEPEST} diagrams are nested; '{context.node.label}' seems to lead back to itself.",
            hint="Set ignore_if_sub on it, or name another diagram.",
        )
    document = await asyncio.to_thread(diagram_of, context, spec)
    if spec.batch:
        return await _batch(context, spec, document)
    variables = _variables(context, spec)
    if not spec.wait_for_completion:
        child = await _child(context, document, variables, 0)
        execution.in_background(_alone(context, child))
        return Output({"run_id": child.run_id, "diagram": document.name}, meta={"run_ids": [child.run_id]})
    child = await _child(context, document, variables, 0)
    await _completed(context, child, told=True)
    value = _projected(context, spec, child.result())
    return Output(value, as_text(value) if isinstance(value, str) else None, meta=_account(context, [child]))


async def go_on(context: NodeContext) -> None:
    """After the parent was cut off: see a child to its end that nobody waits for."""
    document = await asyncio.to_thread(diagram_of, context, cast(SubDiagramNode, context.node.spec))
    await _alone(context, await _child(context, document, {}, 0))


def depth(context: NodeContext) -> int:
    """1 in the outermost run."""
    count, parent = 1, context.execution.parent
    while parent is not None:
        count, parent = count + 1, parent.execution.parent
    return count


# Which diagram, with what.


def diagram_of(context: NodeContext, spec: SubDiagramNode) -> Diagram:
    """The diagram that the node means: inline, else looked up beside the parent's file and below the base directory.

    Raises:
        DiagramError: there is none, or it cannot be read.
        NodeExecutionError: it is outside the base directory, was chosen while the run went on, and brings code.
    """
    base = context.services.files.base_path
    source = context.execution.plan.source_path
    beside = Path(source).parent if source else None
    if spec.diagram_data:
        return load(spec.diagram_data, format=spec.diagram_format, base_dir=base)
    name = context.services.templates.process_single_brace(spec.diagram_name or "", context.names).strip()
    form = str(spec.diagram_format) if spec.diagram_format else None
    document = load(detect.find(name, base, beside=beside, format=form), format=form, base_dir=base)
    outside = document.path is not None and not document.path.resolve().is_relative_to(base.resolve())
    chosen = outside and name != (spec.diagram_name or "").strip()
    if chosen and any(code_of(node.spec) for node in document.compile(base_dir=base).nodes):
        raise NodeExecutionError(
            f"'{name}' is outside the base directory {base} and brings code that nobody was shown.",
            hint="Name the diagram without variables, so that it is shown before the run; or set --base-dir.",
        )
    return document


def _variables(context: NodeContext, spec: SubDiagramNode) -> dict[str, Any]:
    """The child's inputs: `input_mapping` when there is one, else all inputs of the node."""
    found: dict[str, Any] = {}
    if spec.pass_input_data or (spec.pass_input_data is None and not spec.input_mapping):
        found = {**context.inputs.spread, **context.inputs.values}
    for name, path in spec.input_mapping.items():
        value = resolve(path, context.names, _MISSING)
        if value is _MISSING:
            raise NodeExecutionError(
                f"input_mapping: there is no '{path}' for the child's '{name}'.",
                hint=f"There are: {', '.join(map(str, {**context.inputs.spread, **context.inputs.values})) or 'no inputs'}.",
            )
        found[name] = value
    return {name: plain(value) for name, value in found.items()}


def _projected(context: NodeContext, spec: SubDiagramNode, value: Any) -> Any:
    """The result as `output_mapping` asks for it."""
    if not spec.output_mapping:
        return value
    names = {**value, "default": value} if isinstance(value, Mapping) else {"default": value}
    found: dict[str, Any] = {}
    for name, path in spec.output_mapping.items():
        found[name] = resolve(path, names, _MISSING)
        if found[name] is _MISSING:
            raise NodeExecutionError(
                f"output_mapping: the result of '{context.node.label}' has no '{path}'.",
                hint=f"It has: {', '.join(map(str, names))}.",
            )
    return found


# Children.


async def _child(context: NodeContext, document: Diagram, variables: Mapping[str, Any], index: int) -> Any:
    """The execution of one child: a new one, or the one that was begun before the parent was cut off."""
    from dipeo_nb.execution.engine import Execution

    execution, services = context.execution, context.services
    spec = cast(SubDiagramNode, context.node.spec)
    known = execution.children.get((context.node.index, context.run), {}).get(index)
    events = await services.store.events(known) if known else []
    if events:
        text = json.dumps(events[0].payload["source"])
        document = load_text(text, format="native", path=document.path, base_dir=services.files.base_path)
    plan = await asyncio.to_thread(_plan, context, document)
    options = replace(
        execution.options,
        variables=variables,
        source=json.loads(document.to_text("native")),
        parent_run_id=execution.run_id,
        interaction=_Upwards(context),
        reuse={},
        forked_from=None,
    )
    log = None if spec.isolate_conversation or spec.batch else execution.log
    if known and events:
        found = recovered(plan, events, variables=variables, max_visits=options.max_iterations)
        if events[-1].type is not EventType.EXECUTION_COMPLETED:
            await services.store.claim(known, mine=True)
        return Execution(plan, services, options, recovered=found, parent=context, log=log)
    child = Execution(plan, services, options, parent=context, log=log, run_id=known)
    if known:  # cut off between the two first steps
        return child
    await execution.record(
        context.node,
        {
            "kind": "run",
            "text": "",
            "run": context.run,
            "data": {"run_id": child.run_id, "index": index, "diagram": plan.name},
        },
    )
    return child


def _plan(context: NodeContext, document: Diagram) -> Plan:
    plan = document.compile(base_dir=context.services.files.base_path)
    if problems := handlers.not_runnable(plan, context.services):
        raise NodeExecutionError(f"'{plan.name}' cannot run: {problems[0].message}", hint=problems[0].hint)
    return plan


async def _completed(context: NodeContext, child: Any, *, told: bool = False) -> None:
    """Run a child to its end, unless it is there already; stopped with its parent.

    Raises:
        NodeExecutionError: it failed.
    """
    if child.state.status == Status.COMPLETED:
        return
    bus = context.services.bus
    subscription = bus.subscribe(_teller(context), run_id=child.run_id) if told else None
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
    error = child.error
    if error is not None:
        where = f" at '{error.node}'" if getattr(error, "node", None) else ""
        raise NodeExecutionError(
            f"The diagram '{child.plan.name}' failed{where}: {error.message}",
            hint=error.hint,
            child_run_id=child.run_id,
        ) from error


async def _alone(context: NodeContext, child: Any) -> None:
    """A child that nobody waits for: its failure is told in the parent's log."""
    try:
        await _completed(context, child)
    except NodeExecutionError as error:
        context.execution.emit_log(context.node, "ERROR", f"{error.message} {error.hint or ''}".strip())


def _teller(context: NodeContext) -> Any:
    """Shows in the parent's view where the child is."""

    def tell(event: Event) -> None:
        label = event.payload.get("label")
        match event.type:
            case EventType.NODE_STARTED:
                text = f"{label} …"
            case EventType.NODE_COMPLETED if event.payload.get("status") == Status.COMPLETED:
                text = f"{label} ✓"
            case EventType.NODE_ERROR:
                text = f"{label} ✗"
            case _:
                return
        data = {"run_id": event.run_id, "node": event.node_id, "type": str(event.type)}
        context.execution.emit_delta(
            context.node, {"kind": "progress", "text": text, "data": data, "is_partial": True, "run": context.run}
        )

    return tell


class _Upwards:
    """`InteractionPort`: what a child asks, its parent asks, so that it is seen and answered there."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def ask(self, question: Question) -> tuple[str, str]:
        context = self._context
        return await context.execution.ask(
            context.node, question.prompt, timeout=question.timeout, default=question.default, label=question.label
        )


# Batches.


async def _batch(context: NodeContext, spec: SubDiagramNode, document: Diagram) -> Output:
    """One child per item; the outputs in the order of the items. When one fails the others end first, then the node fails.

    A child's variables are the keys of its item (of a mapping), `item` and `default` (the item itself), `_batch_index`,
    `_batch_total`, and the node's other inputs.
    """
    items = handlers.batch_items(context, spec.batch_input_key)
    others = _variables(context, replace(spec, input_mapping=spec.input_mapping))
    others.pop(spec.batch_input_key, None)
    room = asyncio.Semaphore(spec.max_concurrent if spec.batch_parallel else 1)
    finished = 0

    async def one(index: int, item: Any) -> Any:
        nonlocal finished
        own = dict(item) if isinstance(item, Mapping) else {}
        variables = {**others, **own, "default": item, "item": item, "_batch_index": index, "_batch_total": len(items)}
        async with room:
            try:
                child = await _child(context, document, variables, index)
                await _completed(context, child)
            except (NodeExecutionError, DiagramError) as error:
                return error
        finished += 1
        text = f"{finished} of {len(items)}"
        data = {"done": finished, "of": len(items)}
        context.execution.emit_delta(
            context.node, {"kind": "progress", "text": text, "data": data, "is_partial": True, "run": context.run}
        )
        return child

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index, item)) for index, item in enumerate(items)]
    done = [task.result() for task in tasks]
    children = [child for child in done if not isinstance(child, Exception)]
    account = _account(context, children)
    failed = [(index, error) for index, error in enumerate(done) if isinstance(error, Exception)]
    if failed:
        index, error = failed[0]
        raise NodeExecutionError(
            f"{len(failed)} of {len(items)} items failed; item {index}: {error}",
            hint="Mend the cause; resumed (dp.resume), the run does only the failed items again.",
        ) from error
    values = [_projected(context, spec, child.result()) for child in children]
    return Output(values, meta={**account, "total_items": len(items), "successful": len(values), "failed": 0})


def _account(context: NodeContext, children: list[Any]) -> dict[str, Any]:
    """What the children's models took, their run ids, and their messages where they talked in the parent's conversation."""
    for child in children:
        context.charge_run(child.state)
    spec = cast(SubDiagramNode, context.node.spec)
    shared = not (spec.isolate_conversation or spec.batch)
    messages = [m for child in children for m in child.state.conversation] if shared else []
    return {"run_ids": [c.run_id for c in children], "messages": messages, **context.spent()}

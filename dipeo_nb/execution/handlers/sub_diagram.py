"""sub_diagram: runs another diagram, once or for each item of a list.

How its runs are made and resumed is in `execution.children`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, cast

from dipeo_nb.diagram.nested import DEEPEST
from dipeo_nb.diagram.templates import resolve
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.errors import (
    DiagramError,
    NodeExecutionError,
)
from dipeo_nb.execution import batches
from dipeo_nb.execution.children import Children, complete_alone, complete_child, ended_children
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain
from dipeo_nb.execution.record import count

TIMEOUT = None  # the run's own limit holds for its children too
_MISSING: Any = object()


async def execute(context: NodeContext) -> Output:
    spec = cast(SubDiagramNode, context.node.spec)
    execution = context.execution
    if spec.ignore_if_sub and execution.parent is not None:
        return Output(plain(context.inputs.body), meta={"skipped": "this run is part of another diagram already"})
    if depth(context) > DEEPEST:
        raise NodeExecutionError(
            f"More than {DEEPEST} diagrams are nested; '{context.node.label}' seems to lead back to itself.",
            hint="Set ignore_if_sub on it, or name another diagram.",
        )
    if spec.batch:
        return await _batch(context, spec)
    variables = _variables(context, spec)
    child = await Children(context, await ended_children(context)).child(variables, 0)
    if not spec.wait_for_completion:
        execution.in_background(complete_alone(context, child))
        return Output({"run_id": child.run_id, "diagram": child.state.diagram}, meta={"run_ids": [child.run_id]})
    await complete_child(context, child, watched=True)
    value = _projected(context, spec, child.result())
    return Output(value, as_text(value) if isinstance(value, str) else None, meta=_account(context, [child]))


def resume(context: NodeContext) -> Coroutine[Any, Any, None] | None:
    """See a child that no node waits for to its end."""
    return None if cast(SubDiagramNode, context.node.spec).wait_for_completion else _resumed(context)


async def _resumed(context: NodeContext) -> None:
    await complete_alone(context, await Children(context, await ended_children(context)).child({}, 0))


def depth(context: NodeContext) -> int:
    """1 in the outermost run."""
    count, parent = 1, context.execution.parent
    while parent is not None:
        count, parent = count + 1, parent.execution.parent
    return count


def _variables(context: NodeContext, spec: SubDiagramNode) -> dict[str, Any]:
    """The child's inputs: `input_mapping` when there is one, else all inputs of the node."""
    found: dict[str, Any] = {}
    brought = context.inputs.names({})
    if spec.pass_input_data or (spec.pass_input_data is None and not spec.input_mapping):
        found = dict(brought)
    for name, path in spec.input_mapping.items():
        value = context.render_value(path) if "{{" in path else resolve(path, context.names, _MISSING)
        if value is _MISSING:
            raise NodeExecutionError(
                f"input_mapping: there is no '{path}' for the child's '{name}'.",
                hint=f"There are: {', '.join(map(str, brought)) or 'no inputs'}.",
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


# Batches.


async def _batch(context: NodeContext, spec: SubDiagramNode) -> Output:
    """One child per item; the outputs in the order of the items. When one fails the others end first, then the node fails.

    A child's variables are the names of its item (see `batches.item_names`), and the node's other inputs.
    """
    items = batches.batch_items(context, spec)
    others = _variables(context, spec)
    others.pop(spec.batch_input_key, None)
    children = Children(context, await ended_children(context))
    done: dict[int, Any] = {}
    failed: dict[int, NodeExecutionError | DiagramError] = {}

    async def one(index: int, item: Any) -> None:
        variables = {**others, **{k: plain(v) for k, v in batches.item_names(item, index, len(items)).items()}}
        try:
            child = await children.child(variables, index)
            await complete_child(context, child)
        except (NodeExecutionError, DiagramError) as error:
            failed[index] = error
            return
        done[index] = child
        context.show(count(context.run, len(done), len(items)))

    await batches.for_each(enumerate(items), one, at_once=spec.max_concurrent if spec.batch_parallel else 1)
    if failed:
        index = min(failed)
        error = failed[index]
        raise NodeExecutionError(
            f"{len(failed)} of {len(items)} items failed; item {index}: {error.message}",
            hint="Fix the cause, also in the file of the sub-diagram; dp.resume(run_id) then repeats only what failed.",
            item=index,
            steps=getattr(error, "steps", ()),
            cause_message=getattr(error, "cause_message", error.message),
        ) from error
    ended = [done[index] for index in range(len(items))]
    account = _account(context, ended)
    values = [_projected(context, spec, child.result()) for child in ended]
    return Output(values, meta={**account, "total_items": len(items), "successful": len(values), "failed": 0})


def _account(context: NodeContext, children: list[Any]) -> dict[str, Any]:
    """What the children's models took, their run ids, and their messages where they talked in the parent's conversation."""
    spec = cast(SubDiagramNode, context.node.spec)
    shared = not (spec.isolate_conversation or spec.batch)
    messages = [m for child in children for m in child.state.conversation] if shared else []
    return {"run_ids": [c.run_id for c in children], "messages": messages, **context.spent()}

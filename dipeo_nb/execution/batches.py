"""Batches: one run of a node does its work once for each item of a list.

What an item gave is durable as soon as it is there, so that neither a retry nor a resumed run does it again: a child of a
sub_diagram is a run of its own, and an answer of a person_job is an `item` output in the log of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from dipeo_nb.common.text import nearest
from dipeo_nb.common.values import parse_structured
from dipeo_nb.diagram.values import plain as unviewed
from dipeo_nb.domain.nodes import PersonJobNode, SubDiagramNode
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext

_MISSING: Any = object()


def batch_items(context: NodeContext, spec: PersonJobNode | SubDiagramNode) -> list[Any]:
    """The items of a batch node: the list of the name `batch_input_key`, else the unlabelled input when that is a list.

    Text that holds JSON is read; a mapping that has the name itself is unpacked. Another single value of that name is a batch
    of one item, with a warning in the log; an empty list has no items, which the log tells.

    Raises:
        NodeExecutionError: no input has that name.
    """
    name, label = spec.batch_input_key, context.node.label
    names = context.inputs.names(context.variables)
    found = names.get(name, _MISSING)
    items = _list(found, name)
    if items is None and found is _MISSING:
        items = _list(names.get("default"), name)
    if items is None and (found is _MISSING or found is None):
        raise _no_items(context, name, names, present=found is None)
    if items is None:
        kind = "mapping" if isinstance(unviewed(found), Mapping) else "single value"
        context.log(
            "WARNING",
            f"'{name}' of '{label}' is a {kind}, not a list: the batch has one item. Make it a list if that is not meant.",
        )
        items = [found]
    if not items:
        context.log("INFO", f"'{name}' of '{label}' is empty: there is nothing to do.")
    return items


def item_names(item: Any, index: int, total: int) -> dict[str, Any]:
    """The names that the work on one item can use.

    `default` and `item` are the item; `_batch_index` counts from 0, and `_batch_total` is the number of items. The keys of an
    item that is a mapping are names, too; only `default` stays the item. A mapping with no key but `default` stands for what
    it holds.
    """
    value = unviewed(item)
    while isinstance(value, Mapping) and len(value) == 1 and "default" in value:
        value = value["default"]
    own = {key: part for key, part in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}
    return {"item": item, **own, "default": value, "_batch_index": index, "_batch_total": total}


async def for_each(items: Iterable[tuple[int, Any]], work: Callable[[int, Any], Awaitable[None]], *, at_once: int) -> None:
    """Do the work for every (index, item), some at a time and in order. When it raises, no more is begun, what is at work is
    cancelled, and the exception is raised as it is."""
    pending = list(items)
    waiting = iter(pending)
    over = False

    async def worker() -> None:
        nonlocal over
        try:
            for index, item in waiting:
                await work(index, item)
                if over:
                    return
        except BaseException:
            over = True
            raise

    tasks = [asyncio.get_running_loop().create_task(worker()) for _ in range(min(at_once, len(pending)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _list(value: Any, name: str) -> list[Any] | None:
    """The items that a value holds; None when it is not a list."""
    value = parse_structured(unviewed(value))
    while isinstance(value, Mapping) and name in value:
        value = parse_structured(unviewed(value[name]))
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes, bytearray)):
        return list(value)
    return None


def _no_items(context: NodeContext, name: str, names: Mapping[str, Any], *, present: bool) -> NodeExecutionError:
    label = context.node.label
    if present:
        message = f"'{name}', the items of the batch of '{label}', is null."
    else:
        message = f"The batch of '{label}' has no items: no input is called '{name}', and no unlabelled one is a list."
    brought = sorted({*context.inputs.values, *context.inputs.spread} - {"default", "first"})
    close = nearest(name, brought) or next((n for n in brought if _list(names[n], n) is not None), None)
    hint = f"Set batch_input_key: {close}" if close and not present else f"Label an incoming arrow '{name}'"
    there = f" There are: {', '.join(brought)}." if brought else ""
    return NodeExecutionError(message, hint=f"{hint}, or give an empty list for a batch without items.{there}")

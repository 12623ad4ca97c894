"""What a run needs of the user from its first node on: a key that is missing is reported before anything has run.

A key is asked for where a run is certain to need it. Nodes behind a condition, and those whose failure does not matter, say so themselves.
"""

from __future__ import annotations

import asyncio

from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import DipeoError
from dipeo_nb.execution import handlers, nested
from dipeo_nb.execution.run_options import RunOptions


async def check(plan: Plan, services: Services, options: RunOptions, *, new: bool) -> None:
    """Check what the nodes of *plan* and of its sub-diagrams need.

    Args:
        new: nothing of the run has happened yet.

    Raises:
        DipeoError: what the first node that lacks something would fail with; `node` names it.
    """
    if not new or options.reuse or options.instead is not None or options.parent_run_id is not None:
        return  # the parent has been checked; what is taken over, or only shown, needs no key
    types = plan.types
    if NodeType.SUB_DIAGRAM not in types and not any(map(handlers.needs_of_user, types)):
        return
    parts = await asyncio.to_thread(
        lambda: [*nested.diagrams(plan, services.files.base_path, certain)]
    )  # reads and compiles files
    for path, part in parts:
        for node in certain(part):
            try:
                await handlers.ready(node, services)
            except DipeoError as error:
                error.node = "/".join((*path, node.label))  # type: ignore[attr-defined]
                raise


def certain(plan: Plan) -> list[PlanNode]:
    """The nodes that every run of *plan* reaches unless it fails before, and whose own failure fails it."""
    reached, following = set[int](), list(plan.roots)
    awaited = {node.index: len(node.required) for node in plan.nodes}
    while following:
        node = plan.nodes[following.pop()]
        reached.add(node.index)
        if node.type == NodeType.CONDITION:
            continue
        for edge in (plan.edges[index] for index in node.outgoing):
            if edge.required:
                awaited[edge.target] -= 1
                if not awaited[edge.target]:
                    following.append(edge.target)
    return [node for node in plan.nodes if node.index in reached and node.spec.on_error != "continue"]

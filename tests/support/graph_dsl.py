"""Graphs in one line, run by the real engine, with what every run of every node was given.

    s > a; a > ?c; c- > a:again; c+ > e

`?c` is a condition (at its first mention), `c+` and `c-` its branches, `?~c` a skippable one; `a:name` labels the arrow; `p/2` is
a person with that limit, `p^` its `first` handle. A condition decides as its letters say (T, F), one for each run. Every run gives its
own name: the second run of `a` gives `a2`. A condition gives on what it got.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from dipeo_nb.config import get_settings
from dipeo_nb.domain.enums import NodeCategory
from dipeo_nb.domain.nodes import ConditionNode, NodeMeta, NodeSpec, PersonJobNode, StartNode, register_node_spec
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import DipeoError
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import scripted
from tests.support.graphs import plan_of

_PART = re.compile(r"(\?~?)?(\w+)(/\d+)?([+^-])?(?::(\w+))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(NodeSpec):
    META: ClassVar = NodeMeta("test_note", NodeCategory.COMPUTE, "Gives its own name")


async def note(context: NodeContext) -> Output:
    await asyncio.sleep(0)
    return Output(f"{context.node.label}{context.run}")


register_node_spec(Note)
handlers.register("test_note", note)

Given = dict[str, list[dict[str, Any]]]
"""Node → for each of its runs, the inputs by name."""


def drawn(text: str) -> Plan:
    """The plan of a graph in this notation."""
    nodes: dict[str, NodeSpec] = {}
    arrows: list[str] = []
    for arrow in text.split(";"):
        left, right = (_PART.match(end.strip()) for end in arrow.split(">"))
        assert left is not None
        assert right is not None
        for end in (left, right):
            kind, name, limit = end[1], end[2], end[3]
            if kind:
                nodes[name] = ConditionNode(expression="True", skippable=kind == "?~")
            elif limit:
                nodes[name] = PersonJobNode(person="x", default_prompt="hi", max_iteration=int(limit[1:]))
            elif name not in nodes:
                nodes[name] = StartNode() if name in ("s", "t") else Note()
        handle = {"+": "[condtrue]", "-": "[condfalse]", None: ""}[left[4]]
        into = "[first]" if right[4] == "^" else ""
        label = f" : {right[5]}" if right[5] else ""
        arrows.append(f"{left[2]}{handle} -> {right[2]}{into}{label}")
    return plan_of(nodes, arrows)


@contextmanager
def scripted_handlers(decisions: Mapping[str, str], given: Given, *, seconds: float = 0) -> Iterator[None]:
    """Handlers for such plans.

    Args:
        decisions: condition → its branch in each of its runs, T or F.
        given: receives what every run of every node was given.
        seconds: what a run of a node takes that is not a start or a condition.
    """

    def kept(context: NodeContext) -> None:
        given.setdefault(context.node.label, []).append({k: plain(v) for k, v in context.inputs.values.items()})

    def start(context: NodeContext) -> Output:
        kept(context)
        return Output(f"{context.node.label}{context.run}")

    async def work(context: NodeContext) -> Output:
        kept(context)
        await asyncio.sleep(seconds)
        return Output(f"{context.node.label}{context.run}")

    def decide(context: NodeContext) -> Output:
        kept(context)
        word = decisions[context.node.label][context.run - 1]
        return Output(plain(context.inputs.body), handles=("condtrue" if word == "T" else "condfalse",))

    real = handlers.get

    def chosen(kind: str) -> Any:
        return {"start": start, "condition": decide, "test_note": work, "person_job": work}.get(kind) or real(kind)

    handlers.get = chosen  # the engine asks this module for every node
    try:
        yield
    finally:
        handlers.get = real


def run(text: str, decisions: Mapping[str, str]) -> tuple[Given, DipeoError | None, dict[str, str]]:
    """(what every run of every node was given, why the run failed, statuses of nodes that did not simply complete)."""
    return asyncio.run(_run(drawn(text), decisions))


async def _run(plan: Plan, decisions: Mapping[str, str]) -> tuple[Given, DipeoError | None, dict[str, str]]:
    given: Given = {}
    async with Runtime(get_settings(), llm=scripted(), store=InMemoryRunStore()) as runtime:
        execution = runtime.execution(Prepared.own(plan, runtime.services))
        with scripted_handlers(decisions, given):
            await runtime.run(execution)
    statuses = {execution.state.label(i): str(n.status) for i, n in execution.state.nodes.items() if n.status != "completed"}
    return given, execution.error, statuses

"""What is done with a run grows with the run: how often things are looked at is counted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import UserError
from dipeo_nb.execution.fork import reusable
from dipeo_nb.runtime import retention
from tests.support.graphs import START, WORK, plan_of
from tests.support.line_steps import steps


class Id(str):
    """Counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Id.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_runs_of_a_batch_are_not_compared_with_each_other_when_it_is_deleted():
    items = {Id(f"item{n}"): "whole" for n in range(200)}
    parents: dict[Id, str | None] = {Id("whole"): None, **items, **{Id(f"part{n}"): f"item{n}" for n in range(200)}}

    async def runs(*, parent: str, limit: int) -> list[Any]:
        return [
            SimpleNamespace(run_id=name) for name, above in parents.items() if above is not None and str(parent) == str(above)
        ]

    async def run(run_id: str) -> Any:
        name = next(name for name in parents if str(name) == run_id)
        return SimpleNamespace(run_id=name, parent_run_id=parents[name])

    store = cast(RunStore, SimpleNamespace(runs=runs, run=run))
    related = asyncio.run(retention._related(store, "whole"))
    assert Id.compared <= 3 * 401
    assert [str(name) for name in related] == [str(name) for name in parents]
    assert asyncio.run(retention._related(store, "part7")) == ["part7", "item7", "whole"]


def test_a_fork_at_a_later_run_asks_once_what_leads_to_its_node():
    """Not once for each node that is changed."""

    def work(count: int) -> int:
        names = [f"N{n}" for n in range(count)]
        nodes = {"S": START, "A": WORK, "B": WORK, **dict.fromkeys(names, WORK)}
        chain = [f"{a} -> {b}" for a, b in zip(["S", *names], names, strict=False)]
        plan = plan_of(nodes, [*chain, "S -> A", "A -> B"])
        at, changed = plan.node("B"), [plan.by_id[name] for name in names]
        events = [
            Event(seq, EventType.NODE_STARTED, "r", 1.0, "B", {"label": "B", "node_type": "code_job", "run": seq})
            for seq in (1, 2)
        ]
        with pytest.raises(UserError, match="comes before it"):
            reusable(plan, events, at=at, run=2, changed=[plan.by_id["A"]])
        return steps(lambda: reusable(plan, events, at=at, run=2, changed=changed))

    few, many = work(40), work(160)
    assert many < 4.5 * few, (few, many)

"""What the page of a run orders: another run made from it, in a kernel (`notebook.run_orders`) or over HTTP (`server.run_orders`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from dipeo_nb.errors import UserError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.single_node import single_node
from dipeo_nb.execution.snapshots import read_run
from dipeo_nb.runtime.forking import Fork, plan_fork
from dipeo_nb.runtime.runtime import Runtime

_FILES = {
    "default_prompt": ("prompt_file", "resolved_prompt"),
    "first_only_prompt": ("first_prompt_file", "resolved_first_prompt"),
}
"""Field of a node → fields that come before it."""


class AnotherRun(BaseModel):
    """An order for another run: `fork` runs from a node on, `alone` that node only, `again` all of it.

    Of the diagram, only the prompt of the node can be changed: an order brings no code along.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: Literal["fork", "alone", "again"]
    node: str | None = Field(default=None, min_length=1, max_length=1000)
    """Its id; not for `again`."""
    of: int = Field(default=1, ge=1)
    """Which run of the node."""
    prompt: str | None = Field(default=None, max_length=1_000_000)
    """The node's new prompt."""
    inputs: dict[str, Any] = {}
    """Other values of the run's inputs."""
    model: str | None = Field(default=None, min_length=1, max_length=300)

    def begins_at(self, state: RunState) -> str | None:
        """The id of the node from which it runs.

        Raises:
            UserError: the order names none.
        """
        if self.kind == "again":
            return next((str(n.get("id")) for n in state.in_source("nodes") if n.get("type") == "start"), None)
        if self.node is None:
            raise UserError(f"The order '{self.kind}' names no node.", hint='Send its id: {"node": "node_1"}.')
        return self.node

    def changes(self, state: RunState) -> dict[str, Any]:
        """Field of the node → its new value; None removes it.

        Raises:
            UserError: the node is not one of a person, whose prompt can be changed.
        """
        if self.prompt is None:
            return {}
        node = next((n for n in state.in_source("nodes") if n.get("id") == self.node), None)
        if node is None or node.get("type") != "person_job":
            raise UserError("Only prompts of persons can be changed here.", hint="Change the rest in code: run.fork(set={…}).")
        data: Mapping[str, Any] = node.get("data") or {}
        first = self.of == 1 and any(data.get(name) for name in ("first_only_prompt", *_FILES["first_only_prompt"]))
        field = "first_only_prompt" if first else "default_prompt"
        return {field: self.prompt, **{name: None for name in _FILES[field] if data.get(name)}}


async def plan_another(runtime: Runtime, run_id: str, order: AnotherRun) -> Fork:
    """The run that an order asks for, as far as the record of the old one is trusted; a node alone is always a guest.

    Raises:
        UserError: no such run, node or run of the node; TrustError: it wants more than a guest may do, and nobody has approved it.
    """
    await runtime.initialize()
    events: list[Any] = []
    await read_run(runtime.services.store, run_id, events.append)
    state = RunState.fold(events)
    at, changes = order.begins_at(state), order.changes(state)
    if order.kind != "alone" or at is None:
        paths = {f"nodes.{at}.{name}": value for name, value in changes.items()}
        return await plan_fork(runtime, run_id, at=at, of=order.of, changes=paths, model=order.model, inputs=order.inputs)
    document, inputs = single_node(state, events, at, order.of, changes)
    model = order.model or state.model
    prepared = await asyncio.to_thread(runtime.prepare, document, trust=False, model=model)
    return Fork(document, prepared, {**inputs, **order.inputs}, model, frozenset(), {}, None)

"""One node of a recorded run by itself: a diagram with it alone, and the inputs that it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from dipeo_nb.diagram.document import Diagram, load
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import NodeCompleted, NodeStarted
from dipeo_nb.errors import UserError
from dipeo_nb.execution.inputs import Output, plain, view
from dipeo_nb.execution.run_state import RunState

_UNABLE = frozenset({"start", "endpoint", "sub_diagram"})


class SingleNode(NamedTuple):
    document: Diagram
    inputs: Mapping[str, Any]


def single_node(state: RunState, events: Sequence[Event], node_id: str, run: int, changes: Mapping[str, Any]) -> SingleNode:
    """The node with the inputs of its run of that number. What persons remembered is left out.

    Args:
        changes: field of the node → its new value; None removes it.

    Raises:
        UserError: it has no such run, its type cannot run by itself, or the record lacks the diagram.
    """
    label = state.label(node_id)
    source = dict(state.source or {})
    node = next((n for n in state.in_source("nodes") if n.get("id") == node_id), None)
    started = next(
        (e for e in events if e.node_id == node_id and e.type is EventType.NODE_STARTED and e.payload.get("run") == run), None
    )
    if node is None or started is None:
        raise UserError(f"'{label}' has no run {run} in run {state.run_id}.", hint="See run.nodes for what ran how often.")
    if node.get("type") in _UNABLE:
        raise UserError(f"A {node['type']} does nothing by itself.", hint="Fork the run there instead: run.fork(at=…).")
    before = [e for e in events if e.seq < started.seq and e.type is EventType.NODE_COMPLETED]
    inputs: dict[str, Any] = dict(state.variables)
    for event in before:
        inputs.update(cast(NodeCompleted, event.payload).get("globals") or {})
    outputs = {(e.node_id, e.payload.get("run")): cast(NodeCompleted, e.payload) for e in before if "output" in e.payload}
    kinds = {str(a.get("label") or "default"): a.get("content_type") for a in state.in_source("arrows") if _ends_at(a, node_id)}
    for name, (origin, number) in cast(NodeStarted, started.payload).get("inputs", {}).items():
        if (completed := outputs.get((origin, number))) is not None:
            value = plain(view(Output(completed.get("output"), completed.get("text")), kinds.get(name)))
            inputs["default" if name == "first" else name] = value
            if name in ("default", "first") and isinstance(value, Mapping):
                inputs.update({str(key): item for key, item in value.items() if str(key) not in inputs})
    document = load(_alone(source, node), format="native")
    for name, value in changes.items():
        document = document.set(f"nodes.alone.{name}", value)
    return SingleNode(document, inputs)


def _alone(source: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The diagram with a start, that node, and an endpoint."""
    data = {name: value for name, value in dict(node.get("data") or {}).items() if name != "max_iteration"}
    nodes = [
        {"id": "before", "type": "start", "position": {"x": 0, "y": 0}, "data": {"label": "Inputs"}},
        {**node, "id": "alone", "position": {"x": 300, "y": 0}, "data": data},
        {"id": "behind", "type": "endpoint", "position": {"x": 600, "y": 0}, "data": {"label": "Output"}},
    ]
    arrows = [
        {"id": "in", "source": "before_default_output", "target": "alone_default_input", "content_type": "object"},
        {"id": "out", "source": "alone_default_output", "target": "behind_default_input"},
    ]
    name = f"{(source.get('metadata') or {}).get('name') or 'Diagram'}: {data.get('label')}"
    return {
        "nodes": nodes,
        "arrows": arrows,
        "persons": source.get("persons") or {},
        "metadata": {"name": name, "version": "2.0"},
    }


def _ends_at(arrow: Mapping[str, Any], node_id: str) -> bool:
    return str(arrow.get("target", "")).startswith(f"{node_id}_")

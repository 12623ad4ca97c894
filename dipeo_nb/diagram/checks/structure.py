"""Checks of a diagram as a whole: nodes there must be, what a start node reaches, loops that end, items of batches."""

from __future__ import annotations

from collections import Counter

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.domain.nodes import PersonJobNode, SubDiagramNode


def check_structure(state: CheckState) -> None:
    """Check that there are nodes, a start and an endpoint, and that ids and labels are unique."""
    nodes = state.model.nodes
    if not nodes:
        state.error("no-nodes", "The diagram has no nodes.", "Add at least a start node under `nodes`.")
        return
    if len(state.nodes) != len(nodes):
        for node_id, times in Counter(node.id for node in nodes).items():
            if times > 1:
                node = state.nodes[node_id]
                state.error(
                    "duplicate-id",
                    f"{times} nodes have the id '{shorten(node_id)}'.",
                    "Use a different id for each.",
                    node=node,
                )
    labels = Counter(node.label for node in nodes)
    if len(labels) != len(nodes):
        seen: set[str] = set()
        for node in nodes:
            if node.label in seen and node.label:
                state.warn(
                    "duplicate-label",
                    f"Another node is already labelled '{shorten(node.label)}'.",
                    f"Rename one of them, for example '{shorten(node.label)} 2'.",
                    node=node,
                )
            seen.add(node.label)
    if not any(node.type == "start" for node in nodes):
        state.error("no-start", "The diagram has no start node.", "Add a node of `type: start` and an arrow from it.")
    if not any(node.type == "endpoint" for node in nodes):
        state.warn(
            "no-endpoint", "The diagram has no endpoint, so a run has no result of its own.",
            "Add a node of `type: endpoint`, or read the nodes' outputs.",
        )  # fmt: skip


def check_flow(state: CheckState) -> None:
    """Warn about nodes that no start node leads to."""
    stack = [node.id for node in state.model.nodes if node.type == "start"]
    if not stack:
        return
    reached = set(stack)
    while stack:
        for arrow in state.outgoing[stack.pop()]:
            if arrow.target not in reached:
                reached.add(arrow.target)
                stack.append(arrow.target)
    if len(reached) == len(state.nodes):
        return
    for node in state.model.nodes:
        if node.id in reached:
            continue
        alone = not state.incoming[node.id]
        state.warn(
            "unreachable",
            "No arrow leads to this node: it runs once, by itself." if alone else "No start node leads to this node.",
            "Connect it to the others, or remove it.",
            node=node,
        )


def check_batches(state: CheckState) -> None:
    """Warn about batch nodes whose items nothing in the diagram can bring."""
    for node in state.model.nodes:
        spec = state.specs.get(node.id)
        if not isinstance(spec, (PersonJobNode, SubDiagramNode)) or not spec.batch:
            continue
        name = spec.batch_input_key
        if state.given.may_bring_items(node, name):
            continue
        labels = sorted({arrow.label for arrow in state.incoming[node.id] if arrow.label})
        close = nearest(name, labels) or (labels[0] if len(labels) == 1 else None)
        advice = f"Did you mean batch_input_key: {close}?" if close else f"Label an arrow '{name}'"
        advice += f" Or pass it to the run: --input {name}=…" if close else f", or pass it to the run: --input {name}=…"
        state.warn(
            "unknown-name",
            f"'batch_input_key' names '{shorten(name)}', which no arrow into this node provides.",
            advice,
            node=node,
            field="batch_input_key" if "batch_input_key" in node.data else "batch",
        )

"""Executable JSON: the compiled form, in which names are settled: ids everywhere, edges with what leaves and enters where.

It reads, runs and converts like the others. Made of a diagram that can run (`Diagram.to_text`), it holds the texts of the
prompt files, so it needs none of them. `execution_order` and `execution_hints` are for people and other tools: reading
takes them from the edges again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram import connections, person_fields
from dipeo_nb.diagram.connections import References
from dipeo_nb.diagram.formats.native import collection, read_nodes, written_node, written_persons
from dipeo_nb.diagram.metadata import read_metadata, unknown_top_keys, written_metadata
from dipeo_nb.diagram.reading import ReadContext, as_text
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode

if TYPE_CHECKING:
    from dipeo_nb.domain.plan import Plan

VERSION = "1.0"
TOP_KEYS = (
    "format", "version", "nodes", "edges", "persons", "handles", "execution_order", "execution_hints", "metadata"
)  # fmt: skip
EDGE_KEYS = frozenset(
    (
        "id", "source_node_id", "target_node_id", "source_output", "target_input", "content_type", "transform_rules",
        "is_conditional", "requires_first_execution", "execution_priority", "metadata",
    )
)  # fmt: skip
TARGET_HANDLE = "original_target_handle"
"""Key of an edge's metadata: the handle of an arrow whose label takes the place of `target_input`."""
PROMPT_FILES = ("prompt_file", "first_prompt_file", "judge_by_file", "text_format_file")
PROMPT_TEXTS = ("resolved_prompt", "resolved_first_prompt", "judge_by", "text_format")


# ----------------------------------------------------------------------------------------------------- reading


def read(reading: ReadContext) -> DomainDiagram:
    """The diagram of an executable document; findings go to *reading*.

    Raises:
        DiagramFormatError: `nodes` or `edges` is neither a list nor a mapping.
    """
    top = reading.value
    inner = top.get("metadata") if isinstance(top.get("metadata"), dict) else {}
    # Upstream's dump holds the persons in its metadata.
    given = top.get("persons", inner.get("persons") if isinstance(inner, dict) else None)
    people = person_fields.persons(given, lambda name: name if isinstance(given, dict) else f"person_{name}", reading)
    nodes = read_nodes(reading)
    references = References(nodes)
    handles = connections.handles(top.get("handles"), reading, references.by_id)
    drafts = [
        (arrow, at) for at, item in collection(reading, "edges") if (arrow := _arrow(item, reading, at, references)) is not None
    ]
    unknown = unknown_top_keys(reading, TOP_KEYS)
    said = {k: v for k, v in (inner or {}).items() if k != "persons" or "persons" in top}
    return DomainDiagram(
        nodes=person_fields.resolve_persons(nodes, people),
        arrows=tuple(connections.with_ids(drafts, reading)),
        persons=people,
        metadata=read_metadata(said or None, unknown, reading),
        handles=handles,
    )


def _arrow(item: Mapping[str, Any], reading: ReadContext, at: DocumentPath, references: References) -> DomainArrow | None:
    ends = [_node(item, key, reading, at, references) for key in ("source_node_id", "target_node_id")]
    for key in item.keys() - EDGE_KEYS:
        reading.warn(
            "unknown-property",
            f"'{shorten(key)}' is not a part of an edge; it has no effect.",
            *at,
            key,
            hint=did_you_mean(key, EDGE_KEYS, f"An edge takes {', '.join(sorted(EDGE_KEYS))}."),
            field=key,
        )
    source, target = ends
    if source is None or target is None:
        return None
    output = connections.legacy_handle(as_text(item.get("source_output"), reading, *at, "source_output") or "default")
    into = as_text(item.get("target_input"), reading, *at, "target_input") or "default"
    data = connections.arrow_data(item.get("metadata"), output, reading, (*at, "metadata"))
    handle = data.pop(TARGET_HANDLE, None)
    label: str | None = None
    if isinstance(handle, str):
        into, label = handle, into
    elif into not in connections.HANDLES:
        into, label = "default", into
    if item.get("requires_first_execution") is True:
        data.setdefault("requires_first_execution", True)
    return DomainArrow(
        id=as_text(item.get("id"), reading, *at, "id") or "",
        source=source,
        target=target,
        source_handle=output,
        target_handle=into,
        label=label,
        content_type=connections.content_type(item.get("content_type"), reading, (*at, "content_type")),
        execution_priority=connections.priority(item.get("execution_priority"), reading, (*at, "execution_priority")),
        data=data,
    )


def _node(item: Mapping[str, Any], key: str, reading: ReadContext, at: DocumentPath, references: References) -> str | None:
    """The id of the node at one end; None, with an error, when there is none."""
    text = as_text(item.get(key), reading, *at, key)
    if not text:
        reading.error("missing-end", f"The edge has no '{key}'.", *at, hint="Write the id of a node.", field=key)
    elif text in references.by_id:
        return text
    else:
        references.unknown(text, "output" if key.startswith("source") else "input", reading, (*at, key), by_id=True)
    return None


# ----------------------------------------------------------------------------------------------------- writing


def write(diagram: DomainDiagram) -> str:
    """The diagram as executable JSON, indented."""
    document: dict[str, Any] = {
        "format": "executable",
        "version": VERSION,
        "nodes": [written_node(node) for node in diagram.nodes],
        "edges": [_written_edge(arrow) for arrow in diagram.arrows],
        "persons": written_persons(diagram.persons),
        "execution_order": _order(diagram),
        "execution_hints": {
            "start_nodes": [node.id for node in diagram.nodes if node.type == "start"],
            "node_dependencies": _dependencies(diagram),
        },
    }
    if handles := connections.written_handles(diagram):
        document["handles"] = handles
    if meta := written_metadata(diagram.metadata):
        document["metadata"] = meta
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _written_edge(arrow: DomainArrow) -> dict[str, Any]:
    metadata = dict(arrow.data)
    if arrow.label:
        metadata[TARGET_HANDLE] = arrow.target_handle
    return {
        "id": arrow.id,
        "source_node_id": arrow.source,
        "target_node_id": arrow.target,
        "source_output": arrow.source_handle,
        "target_input": arrow.label or arrow.target_handle,
        "content_type": arrow.content_type,
        "transform_rules": {},
        "is_conditional": arrow.source_handle in connections.BRANCHES,
        "requires_first_execution": bool(arrow.data.get("requires_first_execution")),
        "execution_priority": arrow.execution_priority,
        "metadata": metadata,
    }


def _dependencies(diagram: DomainDiagram) -> dict[str, list[str]]:
    """Node → the nodes with an arrow into it."""
    found: dict[str, dict[str, None]] = {node.id: {} for node in diagram.nodes}
    for arrow in diagram.arrows:
        found[arrow.target][arrow.source] = None
    return {node: list(sources) for node, sources in found.items()}


def _order(diagram: DomainDiagram) -> list[str]:
    """The nodes in an order in which each comes after what leads to it; loops are entered where the file does."""
    following: dict[str, list[str]] = {node.id: [] for node in diagram.nodes}
    for arrow in reversed(diagram.arrows):
        following[arrow.source].append(arrow.target)
    roots = [node.id for node in diagram.nodes if node.type == "start"]
    seen: set[str] = set()
    done: list[str] = []
    for root in (*reversed(roots), *following):  # what no start leads to may still lead to what they do: it goes ahead
        _visit(root, following, seen, done)
    return done[::-1]


def _visit(root: str, following: Mapping[str, list[str]], seen: set[str], done: list[str]) -> None:
    """Add the nodes behind *root* to *done*, each after all that it leads to."""
    if root in seen:
        return
    seen.add(root)
    stack = [(root, iter(following[root]))]
    while stack:
        node, targets = stack[-1]
        for target in targets:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(following[target])))
                break
        else:
            stack.pop()
            done.append(node)


def self_contained(plan: Plan) -> DomainDiagram:
    """The diagram of *plan* with the texts of its prompt files in their place."""
    nodes: list[DomainNode] = []
    for node, compiled in zip(plan.diagram.nodes, plan.nodes, strict=True):
        texts = {name: text for name in PROMPT_TEXTS if (text := getattr(compiled.spec, name, None))}
        if any(node.data.get(name) for name in PROMPT_FILES):
            data = {name: value for name, value in node.data.items() if name not in PROMPT_FILES}
            node = dataclasses.replace(node, data=data | texts)
        nodes.append(node)
    people = tuple(
        dataclasses.replace(p, llm=dataclasses.replace(p.llm, prompt_file=None)) if p.llm.prompt_file else p
        for p in plan.persons.values()
    )
    return dataclasses.replace(plan.diagram, nodes=tuple(nodes), persons=people)

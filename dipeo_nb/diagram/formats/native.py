"""Native JSON: the wire model, loss-free.

The reader is lenient: lists or mappings, flat or nested persons and nodes, upper-case types, GraphQL's `__typename`,
old handle labels, and every alias of the light format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram import connections, node_fields, person_fields
from dipeo_nb.diagram.connections import References
from dipeo_nb.diagram.metadata import read_metadata, unknown_top_keys, written_metadata
from dipeo_nb.diagram.reading import ReadContext, as_text, list_items
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.diagram.vocabulary import properties, vocabulary
from dipeo_nb.domain.diagram import (
    DomainArrow,
    DomainDiagram,
    DomainHandle,
    DomainNode,
    DomainPerson,
    handle_id,
    parse_handle_id,
)
from dipeo_nb.domain.enums import HandleDirection
from dipeo_nb.domain.nodes import NODE_SPECS

TOP_KEYS = ("nodes", "arrows", "handles", "persons", "metadata", "version", "format")
NODE_KEYS = frozenset(("id", "type", "position", "data", "label"))
ARROW_KEYS = frozenset(("id", "source", "target", "content_type", "label", "execution_priority", "data"))


# ----------------------------------------------------------------------------------------------------- reading


def read(reading: ReadContext) -> DomainDiagram:
    """The diagram of a native document; findings go to *reading*.

    Raises:
        DiagramFormatError: `nodes` or `arrows` is neither a list nor a mapping.
    """
    reading.value = top = _without_dunders(reading.value)
    keyed = isinstance(top.get("persons"), dict)
    people = person_fields.persons(top.get("persons"), lambda name: name if keyed else f"person_{name}", reading)
    nodes = read_nodes(reading)
    references = References(nodes)
    handles = connections.handles(top.get("handles"), reading, references.by_id)
    arrows = _arrows(reading, references)
    unknown = unknown_top_keys(reading, TOP_KEYS)
    return DomainDiagram(
        nodes=person_fields.resolve_persons(nodes, people),
        arrows=arrows,
        persons=people,
        metadata=read_metadata(top.get("metadata"), unknown, reading),
        handles=handles,
    )


def _without_dunders(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_dunders(v) for k, v in value.items() if not k.startswith("__")}
    if isinstance(value, list):
        return [_without_dunders(v) for v in value]
    return value


def collection(reading: ReadContext, key: str) -> list[tuple[DocumentPath, dict[str, Any]]]:
    """The mappings of a list or of an id-keyed mapping (the key becomes the `id` when that is missing)."""
    value = reading.value.get(key)
    if not isinstance(value, dict):
        return list_items(reading, key, key)
    found: list[tuple[DocumentPath, dict[str, Any]]] = []
    for name, item in value.items():
        if isinstance(item, dict):
            found.append(((key, name), {"id": name, **item}))
        else:
            reading.warn(
                "stray-item",
                f"'{shorten(name)}' in '{key}' is not a mapping; it is ignored.",
                key,
                name,
                hint="Remove it, or write its fields.",
            )
    return found


def read_nodes(reading: ReadContext) -> list[DomainNode]:
    """The nodes of a document in wire form, with unique labels."""
    found: list[DomainNode] = []
    paths: list[DocumentPath] = []
    items = collection(reading, "nodes")
    taken = node_fields.given_ids(item for _, item in items)
    for at, item in items:
        node_id = as_text(item.get("id"), reading, *at, "id")
        node = _node(item, node_id or node_fields.free_id(len(found), taken), len(found), reading, at)
        reading.source.nodes.setdefault(node.id, at)
        found.append(node)
        paths.append(at)
    return node_fields.unique_labels(found, reading, paths.__getitem__)


def _node(item: Mapping[str, Any], node_id: str, index: int, reading: ReadContext, at: DocumentPath) -> DomainNode:
    inner = item.get("data")
    if inner is not None and not isinstance(inner, dict):
        reading.error(
            "wrong-type",
            f"'data' of a node is a mapping, not '{shorten(inner)}'.",
            *at,
            "data",
            hint="Write the properties as an object.",
            node=shorten(node_id),
            field="data",
        )
        inner = None
    # Flat nodes, `{"id": …, "type": …, "code": …}`, are read too.
    props = {key: value for key, value in item.items() if key not in NODE_KEYS} | (inner or {})
    label_value = props.pop("label", None)
    label = as_text(label_value, reading, *at, "data", "label")
    label = label or as_text(item.get("label"), reading, *at, "label") or node_id
    if isinstance(label_value, (list, dict)):
        reading.error(
            "wrong-type",
            "'label' of a node is text.",
            *at,
            "data",
            "label",
            hint="Write one text.",
            node=shorten(label),
            field="label",
        )
    node_type = node_fields.node_type(item.get("type"), reading, (*at, "type"), label)
    if node_type is None:
        node_type = node_fields.infer_type(label, props, first=index == 0)
        reading.warn(
            "missing-type",
            f"The node has no type; it is read as {node_type}.",
            *at,
            hint=f'Write "type": "{node_type}".',
            node=shorten(label),
            field="type",
        )
    return DomainNode(
        id=node_id,
        type=node_type,
        label=label,
        position=node_fields.position(item.get("position"), reading, (*at, "position"), label),
        data=properties(props, node_type, reading, at, label),
    )


def _arrows(reading: ReadContext, references: References) -> tuple[DomainArrow, ...]:
    found: list[tuple[DomainArrow, DocumentPath]] = []
    for at, item in collection(reading, "arrows"):
        source = _end(item, "source", HandleDirection.OUTPUT, reading, at, references)
        target = _end(item, "target", HandleDirection.INPUT, reading, at, references)
        for key in item.keys() - ARROW_KEYS:
            reading.warn(
                "unknown-property",
                f"'{shorten(key)}' is not a part of an arrow; it is kept in its data.",
                *at,
                key,
                hint=did_you_mean(key, ARROW_KEYS, f"An arrow takes {', '.join(sorted(ARROW_KEYS))}."),
                field=key,
            )
        if source is None or target is None:
            continue
        inner = item.get("data")
        branch = inner.get("branch") if isinstance(inner, dict) else None
        source = (source[0], connections.branch_handle(references.by_id[source[0]], source[1], branch))
        extra = {key: item[key] for key in item if key not in ARROW_KEYS}
        content_type = item.get("content_type") or None
        arrow = DomainArrow(
            id=as_text(item.get("id"), reading, *at, "id") or "",
            source=source[0],
            target=target[0],
            source_handle=source[1],
            target_handle=target[1],
            label=connections.arrow_label(item.get("label"), reading, (*at, "label")),
            content_type=connections.content_type(content_type, reading, (*at, "content_type")),
            execution_priority=connections.priority(item.get("execution_priority"), reading, (*at, "execution_priority")),
            data=extra | connections.arrow_data(item.get("data"), source[1], reading, (*at, "data")),
        )
        found.append((arrow, at))
    return tuple(connections.with_ids(found, reading))


def _end(
    item: Mapping[str, Any],
    key: str,
    direction: HandleDirection,
    reading: ReadContext,
    at: DocumentPath,
    references: References,
) -> tuple[str, str] | None:
    """Node id and handle label of `node_3_condtrue_output`; a bare node id means the default handle."""
    text = as_text(item.get(key), reading, *at, key)
    if not text:
        reading.error(
            "missing-end",
            f"The arrow has no '{key}'.",
            *at,
            hint=f'Write a handle id, e.g. "node_0_default_{direction}".',
            field=key,
        )
        return None
    parsed = _handle_of(text, references)
    # What reads as a handle of this side is one, also when a node has such an id.
    if text in references.by_id and not (parsed and parsed[0] in references.by_id and parsed[2] is direction):
        return text, "default"
    if parsed is None:
        reading.error(
            "bad-handle-id",
            f"'{shorten(text)}' is not a handle id.",
            *at,
            key,
            hint=f'Write <node id>_<handle>_{direction}, e.g. "node_0_default_{direction}".',
            field=key,
        )
        return None
    node_id, handle, found_direction = parsed
    node_id = node_id if node_id in references.by_id else node_id.strip()
    if node_id not in references.by_id:
        references.unknown(node_id, direction.value, reading, (*at, key), by_id=True)
        return None
    if found_direction is not direction:
        reading.error(
            "wrong-direction",
            f"The {key} of an arrow is an {direction}, but '{shorten(text)}' is an {found_direction}.",
            *at,
            key,
            hint=f'Write "{shorten(handle_id(node_id, handle, direction))}", or swap source and target.',
            field=key,
        )
        return None
    return node_id, connections.legacy_handle(handle)


def _handle_of(text: str, references: References) -> tuple[str, str, HandleDirection] | None:
    """Node id, handle and direction of a handle id; of a handle with underscores, as far as the nodes determine it."""
    try:
        node_id, handle, direction = parse_handle_id(text)
    except ValueError:
        return None
    whole = f"{node_id}_{handle}"
    cut = len(node_id)
    while cut > 0 and whole[:cut] not in references.by_id:
        cut = whole.rfind("_", 0, cut)
    return (whole[:cut], whole[cut + 1 :], direction) if cut > 0 else (node_id, handle, direction)


# ----------------------------------------------------------------------------------------------------- writing


def write(diagram: DomainDiagram) -> str:
    """The diagram as native JSON, indented; see `wire_form`."""
    return json.dumps(wire_form(diagram), ensure_ascii=False, indent=2) + "\n"


def wire_form(diagram: DomainDiagram) -> dict[str, Any]:
    """The diagram as native JSON has it: collections as id-keyed mappings, null fields left out. It shares values with the diagram.

    Collections in which an id repeats, or begins like GraphQL's keys, are lists: so nothing is lost.
    """
    document: dict[str, Any] = {
        "nodes": _keyed([written_node(node) for node in diagram.nodes]),
        "arrows": _keyed([_written_arrow(arrow) for arrow in diagram.arrows]),
        "handles": _keyed([connections.wire_handle(handle) for handle in _handles(diagram)]),
        "persons": _keyed(written_persons(diagram.persons)),
    }
    if meta := written_metadata(diagram.metadata):
        document["metadata"] = meta
    return document


def written_persons(people: Iterable[DomainPerson]) -> list[dict[str, Any]]:
    """Persons in wire form."""
    return [
        {
            "id": p.id,
            "label": p.label,
            "type": "person",
            # Both are required texts on the wire; empty ones mean "the default".
            "llm_config": {"service": p.llm.service, "model": "", **person_fields.llm_settings(p.llm)},
        }
        for p in people
    ]


def _keyed(entries: list[dict[str, Any]]) -> Any:
    keyed = {entry["id"]: entry for entry in entries if not entry["id"].startswith("__")}
    return keyed if len(keyed) == len(entries) else entries


def written_node(node: DomainNode) -> dict[str, Any]:
    """A node in wire form."""
    x, y = (node.position.x, node.position.y) if node.position else (None, None)
    made: dict[str, Any] = {"id": node.id, "type": node.type}
    if x is not None and y is not None:
        made["position"] = {"x": node_fields.whole(x), "y": node_fields.whole(y)}
    cls = NODE_SPECS.get(node.type)
    # A null is left out where it is the default; elsewhere it means "none".
    nullable = vocabulary(cls).empty if cls else frozenset[str]()
    data = {key: value for key, value in node.data.items() if value is not None or key not in nullable}
    return made | {"data": {"label": node.label, **data}}


def _written_arrow(arrow: DomainArrow) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": arrow.id,
        "source": handle_id(arrow.source, arrow.source_handle, HandleDirection.OUTPUT),
        "target": handle_id(arrow.target, arrow.target_handle, HandleDirection.INPUT),
    }
    if arrow.content_type is not None:
        made["content_type"] = arrow.content_type
    if arrow.label is not None:
        made["label"] = arrow.label
    if arrow.execution_priority:
        made["execution_priority"] = arrow.execution_priority
    # DiPeO's editor distinguishes the branches of a condition by this.
    branch = {"branch": connections.BRANCHES[arrow.source_handle]} if arrow.source_handle in connections.BRANCHES else {}
    data = {**branch, **arrow.data}
    return made | ({"data": data} if data else {})


def _handles(diagram: DomainDiagram) -> list[DomainHandle]:
    """All handles: those of the node types, those the file listed, and those that arrows use."""
    found = {h.id: h for node in diagram.nodes for h in connections.standard_handles(node)}
    found |= {h.id: h for h in diagram.handles}
    for arrow in diagram.arrows:
        for node, label, direction in (
            (arrow.source, arrow.source_handle, HandleDirection.OUTPUT),
            (arrow.target, arrow.target_handle, HandleDirection.INPUT),
        ):
            if handle_id(node, label, direction) not in found:
                made = connections.made_handle(node, label, direction)
                found[made.id] = made
    return list(found.values())

"""Light YAML, the main authoring format: nodes by label, connections between labels.

In addition to DiPeO's: `id` of nodes and connections, `execution_priority`, fractions of coordinates when reading, and
`content_type: null`, which means "none" where leaving the key out means `raw_text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram import connections, node_fields, person_fields
from dipeo_nb.diagram.connections import End, References
from dipeo_nb.diagram.formats.yaml_text import Flow, dump
from dipeo_nb.diagram.metadata import read_metadata, unknown_top_keys, written_metadata
from dipeo_nb.diagram.reading import ReadContext, as_text, list_items
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.diagram.vocabulary import properties, written_properties
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode

TOP_KEYS = ("version", "name", "description", "nodes", "connections", "persons", "handles", "metadata", "format")
NODE_KEYS = frozenset(("label", "type", "position", "props", "id"))
CONNECTION_KEYS = frozenset(("from", "to", "label", "content_type", "type", "data", "id", "execution_priority"))
BRANCH_KEYS = ("condition", "branch")
"""Keys of old files that name the branch of a condition, instead of a handle."""
DEFAULT_CONTENT_TYPE = "raw_text"


def default_person_id(name: str) -> str:
    """The id of a person that names none."""
    return name


# ----------------------------------------------------------------------------------------------------- reading


def read(reading: ReadContext) -> DomainDiagram:
    """The diagram of a light document; findings go to *reading*.

    Raises:
        DiagramFormatError: `nodes` or `connections` is not a list.
    """
    top = reading.value
    people = person_fields.persons(top.get("persons"), default_person_id, reading)
    nodes = _nodes(reading)
    references = References(nodes)
    handles = connections.handles(top.get("handles"), reading, references.by_id)
    references.handles = {(h.node_id, h.label, h.direction.value) for h in handles}
    arrows = _arrows(reading, references)
    beside = {key: top[key] for key in ("name", "description") if key in top}
    return DomainDiagram(
        nodes=person_fields.resolve_persons(nodes, people),
        arrows=arrows,
        persons=people,
        metadata=read_metadata(top.get("metadata"), beside | unknown_top_keys(reading, TOP_KEYS), reading),
        handles=handles,
    )


def _nodes(reading: ReadContext) -> list[DomainNode]:
    found: list[DomainNode] = []
    paths: list[DocumentPath] = []
    items = list_items(reading, "nodes", "nodes")
    taken = node_fields.given_ids(item for _, item in items)
    for at, item in items:
        node_id = as_text(item.get("id"), reading, *at, "id")
        node = _node(item, node_id or node_fields.free_id(len(found), taken), len(found), reading, at)
        reading.source.nodes.setdefault(node.id, at)
        found.append(node)
        paths.append(at)
    return node_fields.unique_labels(found, reading, paths.__getitem__)


def _node(item: Mapping[str, Any], node_id: str, index: int, reading: ReadContext, at: DocumentPath) -> DomainNode:
    props = {key: value for key, value in item.items() if key not in NODE_KEYS}
    long_form = item.get("props")
    inner: Mapping[str, Any] = {}
    if isinstance(long_form, dict):
        inner = long_form
        props = {key: value for key, value in long_form.items() if key not in NODE_KEYS} | props

    def part(name: str) -> tuple[Any, DocumentPath]:
        # Upstream refuses `props` that hold these three; here they count when the short form has none.
        return (inner[name], (*at, "props", name)) if name not in item and name in inner else (item.get(name), (*at, name))

    label_value, label_at = part("label")
    label = label_value.strip() if isinstance(label_value, str) else as_text(label_value, reading, *label_at)
    label = label or node_id
    if isinstance(label_value, (list, dict)):
        _wrong_type("label", "text", label_value, reading, label_at, label)
    if long_form is not None and not isinstance(long_form, dict):
        _wrong_type("props", "a mapping of properties", long_form, reading, (*at, "props"), label)
    type_value, type_at = part("type")
    node_type = node_fields.node_type(type_value, reading, type_at, label)
    if node_type is None:
        node_type = node_fields.infer_type(label, props, first=index == 0)
        reading.warn(
            "missing-type",
            f"The node has no type; it is read as {node_type}.",
            *at,
            hint=f"Write 'type: {node_type}'.",
            node=shorten(label),
            field="type",
        )
    position_value, position_at = part("position")
    return DomainNode(
        id=node_id,
        type=node_type,
        label=label,
        position=node_fields.position(position_value, reading, position_at, label),
        data=properties(props, node_type, reading, at, label),
    )


def _wrong_type(field: str, wanted: str, value: Any, reading: ReadContext, at: DocumentPath, label: str) -> None:
    reading.error(
        "wrong-type",
        f"'{field}' of a node is {wanted}, not '{shorten(value)}'.",
        *at,
        hint=f"Write {wanted}.",
        node=shorten(label),
        field=field,
    )


def _arrows(reading: ReadContext, references: References) -> tuple[DomainArrow, ...]:
    found: list[tuple[DomainArrow, DocumentPath]] = []
    silent: set[int] = set()
    for at, item in list_items(reading, "connections", "connections"):
        arrow = _arrow(item, reading, at, references)
        if arrow is None:
            continue
        if "content_type" not in item and not item.get("type"):
            silent.add(len(found))
        found.append((arrow, at))
    return tuple(fill_content_types(connections.with_ids(found, reading), silent))


def _arrow(item: Mapping[str, Any], reading: ReadContext, at: DocumentPath, references: References) -> DomainArrow | None:
    source = _end(item, "from", "output", reading, at, references)
    target = _end(item, "to", "input", reading, at, references)
    if not item.keys() <= CONNECTION_KEYS:
        for key in item.keys() - CONNECTION_KEYS:
            if key in BRANCH_KEYS and source and references.by_id[source.node].type == "condition":
                continue
            reading.warn(
                "unknown-property",
                f"'{shorten(key)}' is not a part of a connection; it has no effect.",
                *at,
                key,
                hint=did_you_mean(key, CONNECTION_KEYS, f"A connection takes {', '.join(sorted(CONNECTION_KEYS))}."),
                field=key,
            )
    if source is None or target is None:
        return None
    inner = item.get("data")
    said = [place.get(key) for place in (item, inner) if isinstance(place, dict) for key in BRANCH_KEYS]
    source = replace(source, handle=connections.branch_handle(references.by_id[source.node], source.handle, *said))
    data = connections.arrow_data(item["data"], source.handle, reading, (*at, "data")) if "data" in item else {}
    arrow_id = as_text(item.get("id", data.pop("id", None)), reading, *at, "id")
    if source.requires_first or target.requires_first:
        data["requires_first_execution"] = True
    return DomainArrow(
        id=arrow_id or "",
        source=source.node,
        target=target.node,
        source_handle=source.handle,
        target_handle=target.handle,
        label=connections.arrow_label(item["label"], reading, (*at, "label")) if "label" in item else None,
        content_type=_content_type(item, reading, at),
        execution_priority=connections.priority(item.get("execution_priority"), reading, (*at, "execution_priority")),
        data=data,
    )


def _end(
    item: Mapping[str, Any], key: str, direction: str, reading: ReadContext, at: DocumentPath, references: References
) -> End | None:
    value = item.get(key)
    if isinstance(value, (list, dict)):
        reading.error(
            "wrong-type",
            f"'{key}' of a connection is one label, not '{shorten(value)}'.",
            *at,
            key,
            hint="Write one connection for each pair of nodes; put labels with brackets into quotes.",
            field=key,
        )
        return None
    text = as_text(value, reading, *at, key)
    if not text:
        reading.error(
            "missing-end",
            f"The connection has no '{key}'.",
            *at,
            hint="Write 'from: A' and 'to: B' with labels of nodes.",
            field=key,
        )
        return None
    return references.end(text, direction, reading, (*at, key))


def _content_type(item: Mapping[str, Any], reading: ReadContext, at: DocumentPath) -> str | None:
    for key in ("content_type", "type"):
        if item.get(key):
            return connections.content_type(item[key], reading, (*at, key))
    explicit_none = "content_type" in item and item["content_type"] is None
    return None if explicit_none else DEFAULT_CONTENT_TYPE


def fill_content_types(arrows: list[DomainArrow], silent: set[int]) -> list[DomainArrow]:
    """Give arrows that leave a condition, and whose author named no content type, the one that all arrows into that
    condition share. *silent* holds the indexes of the arrows without one; conditions in file order."""
    waiting = [i for i in silent if arrows[i].source_handle in connections.BRANCHES]
    if not waiting:
        return arrows
    incoming: dict[str, list[int]] = {}
    for index, arrow in enumerate(arrows):
        incoming.setdefault(arrow.target, []).append(index)
    filled = list(arrows)
    for index in sorted(waiting):
        shared = {filled[i].content_type for i in incoming.get(arrows[index].source, ())}
        if len(shared) == 1 and (only := shared.pop()):
            filled[index] = replace(filled[index], content_type=only)
    return filled


# ----------------------------------------------------------------------------------------------------- writing


def write(diagram: DomainDiagram) -> str:
    """The diagram as light YAML.

    Lost: fractions of coordinates, and the handles that every node of a type has.
    """
    people, names = person_fields.written_persons(diagram.persons, default_person_id)
    references = References(diagram.nodes)
    meta = written_metadata(diagram.metadata)
    document: dict[str, Any] = {"version": "light"}
    for key in ("name", "description"):
        if value := meta.pop(key, None):
            document[key] = value
    document["nodes"] = [_written_node(node, index, names) for index, node in enumerate(diagram.nodes)]
    document["connections"] = [_written_arrow(a, index, references) for index, a in enumerate(diagram.arrows)]
    if people:
        document["persons"] = people
    if handles := connections.written_handles(diagram):
        document["handles"] = handles
    if meta.keys() - {"version", "created", "modified"} or meta.get("created") or meta.get("modified"):
        document["metadata"] = meta
    return dump(document)


def _written_node(node: DomainNode, index: int, names: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"label": node.label, "type": node.type}
    if node.id != f"node_{index}":
        made["id"] = node.id
    if node.position:
        made["position"] = Flow(x=round(node.position.x), y=round(node.position.y))
    props = written_properties(node, aliases=True)
    if isinstance(props.get("person"), str):
        props["person"] = names.get(props["person"], props["person"])
    clashing = {key: props.pop(key) for key in tuple(props) if key in NODE_KEYS or "." in key}
    made |= props
    if clashing:
        made["props"] = clashing
    return made


def _written_arrow(arrow: DomainArrow, index: int, references: References) -> dict[str, Any]:
    source, target = references.by_id[arrow.source], references.by_id[arrow.target]
    made = Flow({"from": references.text(source, arrow.source_handle)})
    made["to"] = references.text(target, arrow.target_handle)
    if arrow.label:
        made["label"] = arrow.label
    made["content_type"] = arrow.content_type
    if arrow.id != f"arrow_{index}":
        made["id"] = arrow.id
    if arrow.execution_priority:
        made["execution_priority"] = arrow.execution_priority
    if arrow.data:
        made["data"] = dict(arrow.data)
    return made

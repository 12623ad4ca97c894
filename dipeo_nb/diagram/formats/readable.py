"""Readable YAML: who, what, then the flow in words.

Flow items are `A -> B`, `A: B_first (raw_text)(topic)`, `A: to "B" in "_first" as "raw_text" naming "topic"`, or
`A: {to: B, in: _first, as: raw_text, naming: topic}`; a source may have a list of destinations.
An arrow without `as` has no content type (other than in light, where it has `raw_text`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram import connections, node_fields, person_fields
from dipeo_nb.diagram.connections import End, References
from dipeo_nb.diagram.formats.yaml_text import Flow, dump
from dipeo_nb.diagram.metadata import read_metadata, unknown_top_keys, written_metadata
from dipeo_nb.diagram.reading import ReadContext, as_text, stray_item
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.diagram.vocabulary import properties, written_properties
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, Vec2
from dipeo_nb.domain.nodes import NODE_SPECS

TOP_KEYS = ("version", "name", "description", "persons", "nodes", "flow", "handles", "metadata", "format")
NODE_KEYS = frozenset(("label", "type", "position", "props", "id"))
COMPACT_CONTENT_TYPES = frozenset(("raw_text", "conversation_state", "variable", "json", "object"))
"""Words that count as a content type in `B (raw_text)(topic)`; any other text there is the label."""

# Mapping form: word of the worded form, and the light spelling that is accepted as well.
DESTINATION_KEYS = {
    "from": "from",
    "to": "to",
    "in": "in",
    "as": "as",
    "naming": "naming",
    "content_type": "as",
    "type": "as",
    "label": "naming",
    "execution_priority": "execution_priority",
    "data": "data",
    "id": "id",
}


def default_person_id(name: str) -> str:
    """The id of a person that names none."""
    return f"person_{name}"


# ----------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Draft:
    """A node as the file names it, before its type is known."""

    node: DomainNode
    props: Mapping[str, Any]
    at: DocumentPath
    inferred: bool


@dataclass(slots=True)
class _Destination:
    """One arrow of a flow item, as text."""

    to: str
    source_handle: str | None = None
    target_handle: str | None = None
    content_type: Any = None
    label: Any = None
    more: Mapping[str, Any] | None = None


def read(reading: ReadContext) -> DomainDiagram:
    """The diagram of a readable document; findings go to *reading*.

    Raises:
        DiagramFormatError: `nodes` or `flow` is neither a list nor a mapping.
    """
    top = reading.value
    people = person_fields.persons(top.get("persons"), default_person_id, reading)
    drafts = list(_drafts(reading))
    labelled = node_fields.unique_labels([d.node for d in drafts], reading, lambda i: drafts[i].at)
    references = References(labelled)
    handles = connections.handles(top.get("handles"), reading, references.by_id)
    references.handles = {(h.node_id, h.label, h.direction.value) for h in handles}
    for draft, node in zip(drafts, labelled, strict=True):
        reading.source.nodes.setdefault(node.id, draft.at)
    arrows = _arrows(reading, references)
    branching = {a.source for a in arrows if a.source_handle in connections.BRANCHES}
    beside = {key: top[key] for key in ("name", "description") if key in top}
    return DomainDiagram(
        nodes=person_fields.resolve_persons(
            [
                _typed(draft, node, reading, first=index == 0, branches=node.id in branching)
                for index, (draft, node) in enumerate(zip(drafts, labelled, strict=True))
            ],
            people,
        ),
        arrows=arrows,
        persons=people,
        metadata=read_metadata(top.get("metadata"), beside | unknown_top_keys(reading, TOP_KEYS), reading),
        handles=handles,
    )


def _entries(reading: ReadContext, key: str, what: str) -> Iterator[tuple[DocumentPath, int, Any]]:
    """The items of a list, or of a mapping as one-entry mappings."""
    value = reading.value.get(key)
    if isinstance(value, dict):
        for index, (name, item) in enumerate(value.items()):
            yield (key,), index, {name: item}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (key, index), index, item
    elif value is not None:
        raise reading.refuse(
            f"'{key}' is a list of {what}, not '{shorten(value, 30)}'.", key, hint="Begin each item with '- '."
        )


def _drafts(reading: ReadContext) -> Iterator[_Draft]:
    entries = list(_entries(reading, "nodes", "nodes"))
    mappings = [item for _, _, item in entries if isinstance(item, dict)]
    configs = [*mappings, *(value for item in mappings for value in item.values() if isinstance(value, dict))]
    taken = node_fields.given_ids(configs)
    for at, index, item in entries:
        if isinstance(item, dict) and len(item) == 1 and (isinstance(v := next(iter(item.values())), dict) or v is None):
            name = next(iter(item))
            yield _draft(name, item[name] or {}, index, reading, (*at, name), taken)
        elif isinstance(item, dict) and "label" in item:  # as in light
            yield _draft(None, item, index, reading, at, taken)
        elif isinstance(item, str) and item.strip():
            yield _draft(item, {}, index, reading, at, taken)
        elif isinstance(item, dict) and item:
            name = next(iter(item))
            reading.error(
                "wrong-type",
                f"The node '{shorten(name)}' is not a mapping of properties.",
                *at,
                hint="Indent its properties below 'Name:'.",
                node=shorten(name),
            )
        else:
            stray_item(reading, "nodes", index, item)


def _draft(
    name: str | None,
    config: Mapping[str, Any],
    index: int,
    reading: ReadContext,
    at: DocumentPath,
    taken: frozenset[str],
) -> _Draft:
    label, kind, place = _node_key(name or "")
    label = as_text(config.get("label"), reading, *at, "label") or label
    node_id = as_text(config.get("id"), reading, *at, "id") or node_fields.free_id(index, taken)
    props = {k: v for k, v in config.items() if k not in NODE_KEYS}
    if isinstance(config.get("props"), dict):
        props = config["props"] | props
    label = label or node_id
    node_type = node_fields.node_type(config.get("type"), reading, (*at, "type"), label) or kind
    if place is None:
        place = node_fields.position(config.get("position"), reading, (*at, "position"), label)
    return _Draft(DomainNode(node_id, node_type or "", label, place), props, at, node_type is None)


_PLACE = re.compile(r"@\(\s*([-+]?\d+(?:\.\d*)?)\s*,\s*([-+]?\d+(?:\.\d*)?)\s*\)")


def _node_key(text: str) -> tuple[str, str | None, Vec2 | None]:
    """Split `Name [kind] @(x,y)` into label, type and position; brackets that hold no type belong to the label."""
    text = text.strip()
    place: Vec2 | None = None
    # Searched from the end, so that a label of any length costs one look.
    if text.endswith(")") and (match := _PLACE.fullmatch(text, max(text.rfind("@("), 0))):
        place = Vec2(float(match[1]), float(match[2]))
        text = text[: match.start()].rstrip()
    if text.endswith("]"):
        label, _, kind = text[:-1].rpartition("[")
        if kind.strip().lower() in NODE_SPECS:
            return label.rstrip(), kind.strip().lower(), place
    return text, None, place


def _typed(draft: _Draft, node: DomainNode, reading: ReadContext, *, first: bool, branches: bool) -> DomainNode:
    node_type = node.type
    if draft.inferred:
        node_type = node_fields.infer_type(node.label, draft.props, first=first, branches=branches)
    return replace(node, type=node_type, data=properties(draft.props, node_type, reading, draft.at, node.label))


def _arrows(reading: ReadContext, references: References) -> tuple[DomainArrow, ...]:
    found: list[tuple[DomainArrow, DocumentPath]] = []
    for at, source, destination in _flow(reading, references):
        arrow = _arrow(source, destination, reading, at, references)
        if arrow:
            found.append((arrow, at))
    return tuple(connections.with_ids(found, reading))


def _flow(reading: ReadContext, references: References) -> Iterator[tuple[DocumentPath, str, _Destination]]:
    """The arrows of the flow as texts: (place, source, destination)."""
    for at, index, item in _entries(reading, "flow", "flow items"):
        if isinstance(item, str) and " -> " in item:
            stations = [part.strip() for part in item.split(" -> ")]
            for source, target in pairwise(stations):
                yield at, source, _compact(target, reading, at, references)
        elif isinstance(item, dict) and item:
            for source, value in item.items():
                targets = value if isinstance(value, list) else [value]
                for number, target in enumerate(targets):
                    here = (*at, source, number) if isinstance(value, list) else (*at, source)
                    for destination in _destinations(target, reading, here, references):
                        yield here, source, destination
        else:
            if isinstance(item, str):
                reading.error("bad-flow", f"'{shorten(item)}' is not a flow item.", *at, hint="Write 'A -> B' or 'A: B'.")
            else:
                stray_item(reading, "flow", index, item)


def _destinations(value: Any, reading: ReadContext, at: DocumentPath, references: References) -> Iterator[_Destination]:
    if isinstance(value, dict):
        destination = _from_mapping(value, reading, at)
        if destination:
            yield destination
        return
    text = as_text(value, reading, *at)
    if not text:
        reading.error(
            "bad-flow",
            "A flow item has no destination.",
            *at,
            hint="Write 'A: B', or a list of destinations.",
        )
        return
    if references.find(text):
        yield _Destination(text)
        return
    parts = _split_outside_quotes(text)
    if len(parts) > 1 and not _is_worded(text) and references.find(_compact_parts(text, references)[0]):
        parts = [text]  # the dash belongs to a label
    for part in parts:
        yield _worded(part, reading, at) if _is_worded(part) else _compact(part, reading, at, references)


def _from_mapping(value: Mapping[str, Any], reading: ReadContext, at: DocumentPath) -> _Destination | None:
    said: dict[str, Any] = {}
    for key, item in value.items():
        if key not in DESTINATION_KEYS:
            reading.warn(
                "unknown-property",
                f"'{shorten(key)}' is not a part of a destination; it has no effect.",
                *at,
                key,
                hint=did_you_mean(key, DESTINATION_KEYS, "A destination takes from, to, in, as, naming."),
                field=key,
            )
        elif DESTINATION_KEYS[key] not in said or key == DESTINATION_KEYS[key]:
            said[DESTINATION_KEYS[key]] = item
    texts = {word: as_text(said.get(word), reading, *at, word) for word in ("to", "from", "in")}
    if not texts["to"]:
        reading.error(
            "missing-end", "A destination has no 'to'.", *at, hint="Write 'to: B' with the label of a node.", field="to"
        )
        return None
    return _Destination(
        texts["to"],
        texts["from"],
        texts["in"],
        said.get("as"),
        said.get("naming"),
        {key: said[key] for key in ("execution_priority", "data", "id") if key in said},
    )


_WORDED = re.compile(r'(?:^|\s)(from|to|in|as|naming)\s+"((?:[^"\\]|\\.)*)"')


def _is_worded(text: str) -> bool:
    return bool(_WORDED.match(text.strip()))


def _worded(text: str, reading: ReadContext, at: DocumentPath) -> _Destination:
    text = text.strip()
    said = {word: re.sub(r"\\(.)", r"\1", value).strip() for word, value in _WORDED.findall(text)}
    if rest := _WORDED.sub("", text).strip():
        reading.warn(
            "bad-flow",
            f"'{shorten(rest)}' in a flow item is not understood; it is ignored.",
            *at,
            hint='Write: from "_handle" to "Label" in "_handle" as "type" naming "variable".',
        )
    return _Destination(said.get("to", ""), said.get("from"), said.get("in"), said.get("as"), said.get("naming"))


def _compact(text: str, reading: ReadContext, at: DocumentPath, references: References) -> _Destination:
    label, groups = _compact_parts(text, references)
    content_type = next((g for g in groups if g.lower() in COMPACT_CONTENT_TYPES), None)
    others = list(groups)
    if content_type is not None:
        others.remove(content_type)
    if len(others) > 1:
        reading.warn(
            "bad-flow",
            f"'({shorten(others[1])})' in a flow item is ignored.",
            *at,
            hint="A destination takes one content type and one label.",
        )
    return _Destination(label, content_type=content_type, label=others[0] if others else None)


def _compact_parts(text: str, references: References) -> tuple[str, list[str]]:
    """Split `Label (raw_text)(topic)`; a group that belongs to a known label stays with it."""
    groups: list[str] = []
    text = text.strip()
    while text.endswith(")") and "(" in text and not references.find(text):
        text, _, group = text[:-1].rpartition("(")
        groups.insert(0, group.strip())
        text = text.rstrip()
    return text, groups


def _split_outside_quotes(text: str) -> list[str]:
    """Destinations in one text are separated by ` - `."""
    parts = [""]
    stretches = text.split('"')
    for number, stretch in enumerate(stretches):
        # As many quotes after it as make pairs: it is outside of quotes.
        outside = (len(stretches) - 1 - number) % 2 == 0
        first, *others = re.split(r"(?<!\s)\s++-\s+", stretch) if outside else [stretch]
        parts[-1] += f'"{first}' if number else first
        parts += others
    return [part for part in parts if part]


def _arrow(
    source: str, said: _Destination, reading: ReadContext, at: DocumentPath, references: References
) -> DomainArrow | None:
    start = references.end(source, "output", reading, at)
    target = references.end(said.to, "input", reading, at) if said.to else None
    if not said.to:
        references.unknown("", "input", reading, at)
    if start is None or target is None:
        return None
    start = _with_handle(start, said.source_handle, "output", references, reading, at)
    target = _with_handle(target, said.target_handle, "input", references, reading, at)
    more = said.more or {}
    data = connections.arrow_data(more["data"], start.handle, reading, (*at, "data")) if "data" in more else {}
    if start.requires_first or target.requires_first:
        data["requires_first_execution"] = True
    return DomainArrow(
        id=as_text(more.get("id"), reading, *at, "id") or "",
        source=start.node,
        target=target.node,
        source_handle=start.handle,
        target_handle=target.handle,
        label=connections.arrow_label(said.label, reading, at),
        content_type=connections.content_type(said.content_type, reading, at),
        execution_priority=connections.priority(more.get("execution_priority"), reading, (*at, "execution_priority")),
        data=data,
    )


def _with_handle(
    end: End, handle: str | None, direction: str, references: References, reading: ReadContext, at: DocumentPath
) -> End:
    """The end with a handle given in words; the writer's leading `_` is taken off."""
    if not handle:
        return end
    node = references.by_id[end.node]
    name = connections.legacy_handle(handle.removeprefix("_"))
    if not node.type and name in connections.HANDLES:  # the type is inferred from the handles, too
        return replace(end, handle=name)
    return references.with_handle(node, handle.removeprefix("_"), direction, reading, at)


# ----------------------------------------------------------------------------------------------------- writing


def write(diagram: DomainDiagram) -> str:
    """The diagram as readable YAML.

    Destinations are in words; those with quotes in their texts, a priority, data or an id of their own are mappings.
    Lost: fractions of coordinates, and the handles that every node of a type has.
    """
    people, names = person_fields.written_persons(diagram.persons, default_person_id)
    meta = written_metadata(diagram.metadata)
    document: dict[str, Any] = {"version": "readable"}
    for key in ("name", "description"):
        if value := meta.pop(key, None):
            document[key] = value
    if people:
        document["persons"] = people if isinstance(people, list) else [{name: config} for name, config in people.items()]
    document["nodes"] = [_written_node(node, index, names) for index, node in enumerate(diagram.nodes)]
    document["flow"] = _written_flow(diagram)
    if handles := connections.written_handles(diagram):
        document["handles"] = handles
    if meta.keys() - {"version", "created", "modified"} or meta.get("created") or meta.get("modified"):
        document["metadata"] = meta
    return dump(document)


def _written_node(node: DomainNode, index: int, names: Mapping[str, str]) -> dict[str, Any]:
    key = node.label
    if node.position:
        key += f" @({round(node.position.x)},{round(node.position.y)})"
    config: dict[str, Any] = {"type": node.type}
    if _node_key(key)[0] != node.label:
        config["label"] = node.label
    if node.id != f"node_{index}":
        config["id"] = node.id
    props = written_properties(node, aliases=False)
    if isinstance(props.get("person"), str):
        props["person"] = names.get(props["person"], props["person"])
    clashing = {name: props.pop(name) for name in tuple(props) if name in NODE_KEYS}
    config |= props
    if clashing:
        config["props"] = clashing
    return {key: config}


def _written_flow(diagram: DomainDiagram) -> list[dict[str, Any]]:
    """Neighbouring arrows of one source together; the order of the arrows is kept, since it means something."""
    references = References(diagram.nodes)
    groups: list[tuple[str, list[Any]]] = []
    for index, arrow in enumerate(diagram.arrows):
        source = references.by_id[arrow.source].label
        if not groups or groups[-1][0] != source:
            groups.append((source, []))
        groups[-1][1].append(_written_destination(arrow, index, references))
    return [{source: items[0] if len(items) == 1 else items} for source, items in groups]


def _written_destination(arrow: DomainArrow, index: int, references: References) -> Any:
    said: dict[str, Any] = {}
    target = references.by_id[arrow.target].label
    if arrow.source_handle != "default":
        said["from"] = f"_{arrow.source_handle}"
    said["to"] = target
    if arrow.target_handle != "default":
        said["in"] = f"_{arrow.target_handle}"
    if arrow.content_type:
        said["as"] = arrow.content_type
    if arrow.label:
        said["naming"] = arrow.label
    words = " ".join(f'{word} "{text}"' for word, text in said.items())
    simple = arrow.id == f"arrow_{index}" and not arrow.execution_priority and not arrow.data
    if not simple or not all(map(_quotable, said.values())) or references.find(words):
        if arrow.id != f"arrow_{index}":
            said["id"] = arrow.id
        if arrow.execution_priority:
            said["execution_priority"] = arrow.execution_priority
        if arrow.data:
            said["data"] = dict(arrow.data)
        return Flow(said)
    return words


def _quotable(text: str) -> bool:
    return not any(c in text for c in '"\\\n\r') and text == text.strip() and len(text) < 1000

"""Fields of nodes, as the readers of all formats share them: their type, position, id and label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.reading import ReadContext, as_text
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagram import DomainNode, Vec2
from dipeo_nb.domain.nodes import NODE_SPECS

_START_LABELS = ("start",)
_END_LABELS = ("end", "endpoint")


def infer_type(label: str, props: Mapping[str, Any], *, first: bool, branches: bool = False) -> str:
    """The type of a node that names none: by its properties, its label, its use, its place in the file."""
    base = label.partition("~")[0].strip().lower()
    if base in _START_LABELS or props.keys() & {"trigger_mode", "custom_data"}:
        return "start"
    if props.keys() & {"person", "default_prompt", "first_only_prompt", "max_iteration"} and not props.keys() & {
        "condition_type"
    }:
        return "person_job"
    if props.keys() & {"condition_type", "expression"} or branches:
        return "condition"
    if props.keys() & {"code", "language", "code_type"}:
        return "code_job"
    if "operation" in props and props.keys() & {"file", "source_details", "sub_type", "subType"}:
        return "db"
    if props.keys() & {"save_to_file", "file_format"} or base in _END_LABELS:
        return "endpoint"
    for evidence, node_type in _EVIDENCE:
        if evidence <= props.keys():
            return node_type
    return "start" if first else "person_job"


_EVIDENCE: tuple[tuple[set[str], str], ...] = (
    ({"url", "method"}, "api_job"),
    ({"diagram_name"}, "sub_diagram"),
    ({"template_path"}, "template_job"),
    ({"template_content"}, "template_job"),
    ({"hook_type"}, "hook"),
    ({"prompt"}, "user_response"),
)


def node_type(value: Any, reading: ReadContext, at: DocumentPath, label: str) -> str | None:
    """A `type` as a known one in lower case; an unknown one is kept and reported; None when it must be inferred."""
    if value is None:
        return None
    text = as_text(value, reading, *at)
    if text is None:
        reading.error(
            "wrong-type",
            "The type of a node is one word.",
            *at,
            hint="Write e.g. 'type: person_job'.",
            node=shorten(label),
            field="type",
        )
        return None
    text = text.lower()
    if text in ("job", ""):
        return None
    if text not in NODE_SPECS:
        reading.warn(
            "unknown-type",
            f"'{shorten(text)}' is not a node type; the node is kept but cannot run.",
            *at,
            hint=did_you_mean(text, NODE_SPECS, f"The types are {', '.join(NODE_SPECS)}."),
            node=shorten(label),
            field="type",
        )
    return text


def position(value: Any, reading: ReadContext, at: DocumentPath, label: str) -> Vec2 | None:
    """`{x: 100, y: 100.5}` or `[100, 100.5]` in pixels; anything else is reported and left out."""
    if value is None:
        return None
    pair: Sequence[Any] = ()
    if isinstance(value, dict):
        pair = (value.get("x", 0), value.get("y", 0))
    elif isinstance(value, list) and len(value) == 2:
        pair = value
    if pair and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in pair):
        x, y = (float(n) if abs(n) < 1e9 else math.nan for n in pair)
        if math.isfinite(x) and math.isfinite(y):
            return Vec2(x, y)
    reading.warn(
        "bad-position",
        f"'{shorten(value)}' is not a position; the node is placed automatically.",
        *at,
        hint="Write 'position: {x: 100, y: 200}'.",
        node=shorten(label),
        field="position",
    )
    return None


def given_ids(items: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The ids that the items of a document name."""
    return frozenset(str(item["id"]).strip() for item in items if item.get("id") is not None)


def free_id(index: int, taken: frozenset[str]) -> str:
    """The id of the node at *index*, which names none; never one that another of the nodes names."""
    made = f"node_{index}"
    while made in taken:
        made += "_"
    return made


def whole(number: float) -> int | float:
    """A coordinate for JSON: without a fraction when it has none."""
    return int(number) if number == int(number) else number


def unique_labels(nodes: Sequence[DomainNode], reading: ReadContext, at: Callable[[int], DocumentPath]) -> list[DomainNode]:
    """The nodes with unique labels: the first keeps the bare name, further ones get `~1`, `~2` …, with a warning."""
    counts = Counter(node.label for node in nodes)
    if len(counts) == len(nodes):
        return list(nodes)
    seen: set[str] = set()
    number: Counter[str] = Counter()
    result: list[DomainNode] = []
    for index, node in enumerate(nodes):
        if node.label in seen:
            label = node.label
            while label in counts:
                number[node.label] += 1
                label = f"{node.label}~{number[node.label]}"
            counts[label] += 1
            reading.warn(
                "duplicate-label",
                f"Another node is already labelled '{shorten(node.label)}'; this one is called '{shorten(label)}'.",
                *at(index),
                hint="Use a unique label.",
                node=shorten(label),
                field="label",
            )
            result.append(replace(node, label=label))
        else:
            seen.add(node.label)
            result.append(node)
    return result

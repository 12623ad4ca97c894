"""Connections in all formats: their ends (label or id, with a handle), content type, label, data.

Also the handles of nodes: explicit ones, and those that follow from the node types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.reading import ReadContext, as_text
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainHandle, DomainNode, handle_id
from dipeo_nb.domain.enums import ContentType, HandleDirection, HandleLabel
from dipeo_nb.domain.nodes import NODE_SPECS

HANDLES = frozenset(HandleLabel)
CONTENT_TYPES = frozenset(ContentType)
CONTENT_TYPE_ALIASES = {"json": "object", "text": "raw_text"}
BRANCHES = {"condtrue": "true", "condfalse": "false"}
"""Handles of a condition, and what the wire calls their branch."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection."""

    node: str
    """Id."""
    handle: str = "default"
    requires_first: bool = False
    """Written `X__first`: the arrow also carries `requires_first_execution`."""


class References:
    """Finds nodes by what connections call them: label or id, with an optional handle."""

    def __init__(self, nodes: Iterable[DomainNode]) -> None:
        self.by_id: dict[str, DomainNode] = {}
        self.by_label: dict[str, DomainNode] = {}
        self.handles: set[tuple[str, str, str]] = set()
        """Handles that the file lists besides those of the node types: (node id, label, direction)."""
        for node in nodes:
            self.by_id.setdefault(node.id, node)
            self.by_label.setdefault(node.label, node)
        self._told = 0

    def find(self, text: str) -> DomainNode | None:
        """The node with that label, else with that id."""
        return self.by_label.get(text) or self.by_id.get(text)

    def end(self, text: str, direction: str, reading: ReadContext, at: DocumentPath) -> End | None:
        """Read `LABEL`, `LABEL[HANDLE]`, `LABEL_HANDLE` or `LABEL__first`; None (with an error) when no node fits.

        A text that is a label as a whole beats every other reading.
        """
        text = text.strip()
        if node := self.find(text):
            return End(node.id)
        head, opened, handle = text[:-1].rpartition("[") if text.endswith("]") else ("", "", "")
        if opened and "]" not in handle and (node := self.find(head.strip())):
            return self.with_handle(node, handle.strip(), direction, reading, at)
        if found := self._split(text):
            node, rest = found
            handle = legacy_handle(rest.lstrip("_") or "default")
            if handle in HANDLES:
                return End(node.id, handle, requires_first=rest == "_first")
            cls = NODE_SPECS.get(node.type)
            allowed = (cls.META.inputs if direction == "input" else cls.META.outputs) if cls else ()
            # A node without a default handle cannot be entered or left there: what was meant has to be written.
            lost = bool(allowed) and "default" not in allowed
            report = reading.error if lost else reading.warn
            report(
                "unknown-handle",
                f"'{shorten(handle)}' in '{shorten(text)}' is not a handle{'' if lost else '; the default one is used'}.",
                *at,
                hint=did_you_mean(handle, allowed or HANDLES, f"The handles are {', '.join(allowed or HandleLabel)}."),
                node=shorten(node.label),
            )
            return None if lost else End(node.id)
        self.unknown(head.strip() if opened and "]" not in handle else text, direction, reading, at)
        return None

    def unknown(self, text: str, direction: str, reading: ReadContext, at: DocumentPath, *, by_id: bool = False) -> None:
        """Report a connection to nowhere."""
        self._told += 1
        names, other = (self.by_id, "Use the id of a node.") if by_id else (self.by_label, "Use the label of a node.")
        # Comparing with every name is slow; twenty hints are enough.
        hint = did_you_mean(text, names, other) if self._told <= 20 else other
        verb = "starts at" if direction == "output" else "leads to"
        what = f"'{shorten(text)}', which is not a node" if text else "nothing"
        reading.error("unknown-node", f"A connection {verb} {what}.", *at, hint=hint)

    def text(self, node: DomainNode, handle: str) -> str:
        """That end of a light connection as text: `LABEL`, or `LABEL[HANDLE]`."""
        if handle == "default":
            return node.label if self.find(node.label) is node else node.id
        names = [name for name in (node.label, node.id) if self.find(name) is node] or [node.label]
        padding = ""
        while True:
            for name in names:
                # Another node may be labelled so as a whole; blanks in the brackets mean nothing.
                if not self.find(text := f"{name}[{padding}{handle}]"):
                    return text
            padding += " "

    def with_handle(self, node: DomainNode, handle: str, direction: str, reading: ReadContext, at: DocumentPath) -> End:
        """The end with a handle that is named apart from the node; one that the node does not have is an error."""
        cls = NODE_SPECS.get(node.type)
        allowed = (cls.META.inputs if direction == "input" else cls.META.outputs) if cls else ()
        if not node.type:  # not inferred yet
            allowed = tuple(HandleLabel)
        written, handle = handle, legacy_handle(handle)
        listed = (node.id, handle, direction) in self.handles
        led = cls is not None and direction == "output" and cls.META.has_output(handle)
        # A node without handles on that side is the compiler's finding: there the whole arrow is wrong. So is a handle of
        # other types of nodes, which is kept, in every spelling and format.
        if handle in allowed or handle in HANDLES or led or listed or not allowed:
            return End(node.id, handle or "default")
        reading.error(
            "unknown-handle",
            f"'{shorten(written)}' is not an {direction} of a {node.type or 'node'}.",
            *at,
            hint=did_you_mean(handle, allowed, f"Its {direction}s are {', '.join(allowed)}."),
            node=shorten(node.label),
        )
        return End(node.id)

    def _split(self, text: str) -> tuple[DomainNode, str] | None:
        """The longest known label wins; blanks in labels may be written as underscores."""
        pieces = text.split("_")
        for end in range(len(pieces) - 1, max(0, len(pieces) - 20), -1):
            for joint in ("_", " "):
                if node := self.find(joint.join(pieces[:end])):
                    return node, "_".join(pieces[end:])
        node = self.find(" ".join(pieces))
        return (node, "") if node else None


def handles(value: Any, reading: ReadContext, nodes: Mapping[str, DomainNode]) -> tuple[DomainHandle, ...]:
    """The explicit handles of a diagram: a list, or a mapping by id. Legacy labels `true`/`false` are renamed.

    Those of unknown nodes are left out with a warning.
    """
    if value is None:
        return ()
    pairs: list[tuple[DocumentPath, Any]] = []
    if isinstance(value, dict):
        pairs = [(("handles", key), item) for key, item in value.items()]
    elif isinstance(value, list):
        pairs = [(("handles", index), item) for index, item in enumerate(value)]
    else:
        reading.error("wrong-type", "'handles' is a list or a mapping.", "handles", hint="Leave it out.")
    found: list[DomainHandle] = []
    for at, item in pairs:
        said: Mapping[str, Any] = item if isinstance(item, dict) else {}
        node = nodes.get(str(said.get("node_id")))
        direction = next((d for d in HandleDirection if d == said.get("direction")), None)
        if not node or not direction:
            reading.warn(
                "stray-handle",
                "This is not a handle of a node; it is ignored.",
                *at,
                hint="A handle has 'node_id', 'label' and 'direction' (input or output).",
            )
            continue
        label = legacy_handle(str(said.get("label") or "default"))
        found.append(
            DomainHandle(
                handle_id(node.id, label, direction),
                node.id,
                label,
                direction,
                str(said.get("data_type") or "any"),
                side if isinstance(side := said.get("position"), str) else None,
            )
        )
    return tuple(found)


def legacy_handle(label: str) -> str:
    """A handle label in today's spelling: old files call the branches of a condition `true` and `false`."""
    return {"true": "condtrue", "false": "condfalse"}.get(label.lower(), label)


def branch_handle(node: DomainNode | None, handle: str, *said: Any) -> str:
    """The handle of an arrow that leaves a condition on none: old files have `condition: true` with it or `branch: false`."""
    if node is None or node.type != "condition" or handle != "default":
        return handle
    return next((branch for value in said if (branch := _WORDS.get(str(value).strip().lower()))), handle)


_WORDS = {"true": "condtrue", "yes": "condtrue", "false": "condfalse", "no": "condfalse"}


def standard_handles(node: DomainNode) -> Iterator[DomainHandle]:
    """The handles that every node of that type has."""
    cls = NODE_SPECS.get(node.type)
    for label in cls.META.inputs if cls else ("default",):
        yield made_handle(node.id, label, HandleDirection.INPUT)
    for label in cls.META.outputs if cls else ("default",):
        yield made_handle(node.id, label, HandleDirection.OUTPUT)


def made_handle(node_id: str, label: str, direction: HandleDirection) -> DomainHandle:
    """A handle with the usual data type and side."""
    return DomainHandle(
        handle_id(node_id, label, direction),
        node_id,
        label,
        direction,
        "boolean" if label in BRANCHES else "any",
        "left" if direction is HandleDirection.INPUT else "right",
    )


def written_handles(diagram: DomainDiagram) -> list[dict[str, Any]]:
    """Explicit handles that the node types do not have, for the light and readable writers."""
    standard = {h.id for n in diagram.nodes for h in standard_handles(n)}
    return [wire_handle(h) for h in diagram.handles if h.id not in standard]


def wire_handle(handle: DomainHandle) -> dict[str, Any]:
    """A handle as the files spell it."""
    made = {
        "id": handle.id,
        "node_id": handle.node_id,
        "label": handle.label,
        "direction": handle.direction.value,
        "data_type": handle.data_type,
    }
    return made | ({"position": handle.position} if handle.position else {})


# ------------------------------------------------------------------------------------------------------ arrows


def content_type(value: Any, reading: ReadContext, at: DocumentPath) -> str | None:
    """A content type in its canonical spelling; an unknown one is an error and reads as None."""
    if value is None:
        return None
    text = (as_text(value, reading, *at) or "").lower()
    text = CONTENT_TYPE_ALIASES.get(text, text)
    if text in CONTENT_TYPES:
        return text
    reading.error(
        "unknown-content-type",
        f"'{shorten(value)}' is not a content type.",
        *at,
        hint=did_you_mean(value, CONTENT_TYPES, f"The content types are {', '.join(ContentType)}."),
        field="content_type",
    )
    return None


def arrow_label(value: Any, reading: ReadContext, at: DocumentPath) -> str | None:
    """The variable name on an arrow; empty means none."""
    if isinstance(value, (list, dict)):
        reading.error(
            "wrong-type", "The label of an arrow is text: a variable name.", *at, hint="Write one name.", field="label"
        )
    return as_text(value, reading, *at) or None


def arrow_data(value: Any, source_handle: str, reading: ReadContext, at: DocumentPath) -> dict[str, Any]:
    """The free mapping of an arrow, without what its source handle expresses already (`branch` and its like)."""
    if isinstance(value, dict):
        branch = BRANCHES.get(source_handle)
        implied = {"branch": branch, "is_conditional": True, "_isFromConditionBranch": True} if branch else {}
        return {k: v for k, v in value.items() if not (k in implied and implied[k] == v)}
    if value is not None:
        reading.error("wrong-type", "'data' of an arrow is a mapping.", *at, hint="Write 'data: {name: value}'.", field="data")
    return {}


def priority(value: Any, reading: ReadContext, at: DocumentPath) -> float:
    """The `execution_priority` of an arrow."""
    if value is None:
        return 0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    reading.error(
        "wrong-type",
        f"'execution_priority' is a number, not '{shorten(value)}'.",
        *at,
        hint="Write e.g. 'execution_priority: 1'.",
        field="execution_priority",
    )
    return 0


def with_ids(drafts: Sequence[tuple[DomainArrow, DocumentPath]], reading: ReadContext) -> list[DomainArrow]:
    """The arrows with ids, and their places noted: those without one are numbered, past the ids that others name."""
    taken = {arrow.id for arrow, _ in drafts}
    found: list[DomainArrow] = []
    for index, (arrow, at) in enumerate(drafts):
        if not arrow.id:
            made = f"arrow_{index}"
            while made in taken:
                made += "_"
            arrow = replace(arrow, id=made)
        reading.source.arrows.setdefault(arrow.id, at)
        found.append(arrow)
    return found

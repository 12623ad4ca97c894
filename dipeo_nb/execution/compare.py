"""What is different between two runs: their diagrams, and what every node did."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.execution.fold import NodeState, RunState
from dipeo_nb.execution.inputs import as_text


@dataclass(frozen=True, slots=True)
class NodeDiff:
    """One node in both runs; nodes are the same when their labels are."""

    label: str
    status: tuple[str | None, str | None]
    """None: the run's diagram has no such node."""
    runs: tuple[int, int]
    fields: tuple[tuple[str, Any, Any], ...]
    """(field, before, after) of the diagram."""
    output: tuple[str, str]
    seconds: tuple[float, float]
    tokens: tuple[int, int]
    cost_usd: tuple[float | None, float | None]

    __repr__ = bounded_repr

    @property
    def change(self) -> str:
        """`added`, `removed`, `edited` (its fields differ), `different` (only what it did does), or `same`."""
        if None in self.status:
            return "added" if self.status[0] is None else "removed"
        if self.fields:
            return "edited"
        return "same" if self.status[0] == self.status[1] and self.output[0] == self.output[1] else "different"


@dataclass(frozen=True, slots=True)
class RunDiff:
    """Two runs, side by side. Prints as text; a table in a notebook (`dp.diff`)."""

    runs: tuple[str, str]
    status: tuple[str, str]
    inputs: tuple[tuple[str, Any, Any], ...]
    """(variable, before, after) of those that differ."""
    nodes: tuple[NodeDiff, ...]
    """All nodes, in the order of the first run, then those that only the second has."""
    seconds: tuple[float, float]
    tokens: tuple[int, int]
    cost_usd: tuple[float | None, float | None]

    @property
    def changed(self) -> tuple[NodeDiff, ...]:
        """The nodes that are not the same."""
        return tuple(node for node in self.nodes if node.change != "same")

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    __repr__ = __str__


def compare(before: RunState, after: RunState) -> RunDiff:
    """The difference of two runs, of the same diagram or not."""
    old, new = _nodes(before), _nodes(after)
    fields = _fields(before), _fields(after)
    nodes = tuple(
        _node(label, old.get(label), new.get(label), (fields[0].get(label), fields[1].get(label)))
        for label in dict.fromkeys([*old, *new])
    )
    return RunDiff(
        (before.run_id, after.run_id),
        (str(before.status), str(after.status)),
        tuple(_changes(before.variables, after.variables)),
        nodes,
        (before.duration_s, after.duration_s),
        (before.usage.total or 0, after.usage.total or 0),
        (before.cost_usd, after.cost_usd),
    )


def words(before: str, after: str) -> list[tuple[str, str]]:
    """(mark, text) of a word by word difference: ` ` in both, `-` only before, `+` only after."""
    old, new = _split(before), _split(after)
    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append((" ", "".join(old[a:b])))
            continue
        if b > a:
            found.append(("-", "".join(old[a:b])))
        if d > c:
            found.append(("+", "".join(new[c:d])))
    return found


WORDS = 5000
"""Words that are compared one by one at most; longer texts are compared line by line."""


def _split(text: str) -> list[str]:
    pieces = re.split(r"(\s+)", text)
    return [piece for piece in pieces if piece] if len(pieces) <= 2 * WORDS else text.splitlines(keepends=True)


def _nodes(state: RunState) -> dict[str, NodeState]:
    return {state.label(node_id): node for node_id, node in state.nodes.items()}


def _fields(state: RunState) -> dict[str, Mapping[str, Any]]:
    """Label → fields of the node in the diagram that the run was of; positions do not count."""
    found: dict[str, Mapping[str, Any]] = {}
    source = state.source or {}
    nodes = source.get("nodes") or ()
    for node in nodes.values() if isinstance(nodes, Mapping) else nodes:
        data = node.get("data") or {}
        found[str(data.get("label"))] = {"type": node.get("type"), **data}
    return found


def _node(
    label: str,
    old: NodeState | None,
    new: NodeState | None,
    fields: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
) -> NodeDiff:
    def pair(of: Any, missing: Any) -> tuple[Any, Any]:
        return tuple(missing if node is None else of(node) for node in (old, new))  # type: ignore[return-value]

    return NodeDiff(
        label,
        pair(lambda node: str(node.status), None),
        pair(lambda node: node.runs, 0),
        tuple(_changes(fields[0], fields[1])) if fields[0] is not None and fields[1] is not None else (),
        pair(lambda node: as_text(node.output), ""),
        pair(lambda node: node.duration_s, 0.0),
        pair(lambda node: node.usage.total or 0, 0),
        pair(lambda node: node.cost_usd, None),
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _lines(diff: RunDiff) -> Iterator[str]:
    yield f"{diff.runs[0]} → {diff.runs[1]}: {diff.status[0]} → {diff.status[1]}, {_numbers(diff)}"
    for name, before, after in diff.inputs:
        yield f"  input {name}: {_short(before)} → {_short(after)}"
    for node in diff.changed:
        yield f"  {node.label}: {node.change}, {node.status[0]} → {node.status[1]}, {_numbers(node)}"
        for name, before, after in node.fields:
            yield f"    {name}: {_short(before)} → {_short(after)}"
        if node.output[0] != node.output[1] and None not in node.status:
            yield f"    output: {_short(node.output[0])} → {_short(node.output[1])}"
    if not diff.changed:
        yield "  every node gave the same"


def _numbers(item: RunDiff | NodeDiff) -> str:
    costs = [None if cost is None else f"${cost:.4f}" for cost in item.cost_usd]
    money = f", {costs[0] or 'unknown cost'} → {costs[1] or 'unknown cost'}" if any(costs) else ""
    return f"{item.seconds[0]:.1f} → {item.seconds[1]:.1f} s, {item.tokens[0]} → {item.tokens[1]} tokens{money}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"

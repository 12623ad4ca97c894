"""What is different between two runs: their diagrams, and what every node did."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.common.text import displayed, money
from dipeo_nb.common.word_diff import word_diff
from dipeo_nb.execution.inputs import as_text
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_state import RunState


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
    model: tuple[str | None, str | None] = (None, None)
    """Which one answered last; None: none did."""

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
    model: tuple[str | None, str | None] = (None, None)
    """What the runs moved their persons to; None: each has the model of the diagram."""
    persons: tuple[tuple[str, str, Any, Any], ...] = ()
    """(label, field, before, after) of what differs in the persons; the field of one that is only in one of the diagrams is
    `person`."""
    arrows: tuple[tuple[str | None, str | None], ...] = ()
    """(before, after) of arrows that differ, in words; None: there is none."""

    @property
    def different(self) -> bool:
        """Whether anything but the times and the costs is different."""
        moved = self.model[0] != self.model[1]
        return bool(moved or self.inputs or self.persons or self.arrows or self.changed)

    @property
    def changed(self) -> tuple[NodeDiff, ...]:
        """The nodes that are not the same."""
        return tuple(node for node in self.nodes if node.change != "same")

    @displayed
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
        (_cost(before), _cost(after)),
        (before.model, after.model),
        tuple(_person_changes(before, after)),
        tuple(_arrow_changes(before, after)),
    )


def words(before: str, after: str) -> list[tuple[str, str]]:
    """(mark, text) of a word by word difference: ` ` in both, `-` only before, `+` only after."""
    found: list[tuple[str, str]] = []
    for change in word_diff(before, after):
        found += [(" ", change.old)] if change.kept else [("-", change.old), ("+", change.new)]
    return [(mark, text) for mark, text in found if text]


def _nodes(state: RunState) -> dict[str, NodeState]:
    return {state.label(node_id): node for node_id, node in state.nodes.items()}


def _fields(state: RunState) -> dict[str, Mapping[str, Any]]:
    """Label → fields of the node in the diagram that the run was of; positions do not count."""
    found: dict[str, Mapping[str, Any]] = {}
    source = state.source or {}
    nodes = source.get("nodes") or ()
    for node in _things(nodes):
        data = node.get("data") or {}
        found[str(data.get("label"))] = {"type": node.get("type"), **data}
    return found


def _things(part: Any) -> list[Mapping[str, Any]]:
    """Nodes, persons or arrows of a diagram in native form, which may be a list or a mapping by id."""
    return list(part.values() if isinstance(part, Mapping) else part or ())


def _person_changes(before: RunState, after: RunState) -> Iterator[tuple[str, str, Any, Any]]:
    old, new = _persons(before), _persons(after)
    for label in dict.fromkeys([*old, *new]):
        if label not in old or label not in new:
            yield label, "person", old.get(label), new.get(label)
            continue
        for name, was, now in _changes(old[label], new[label]):
            yield label, name, was, now


def _persons(state: RunState) -> dict[str, Mapping[str, Any]]:
    """Label → how the person reaches its model, and its system prompt."""
    found: dict[str, Mapping[str, Any]] = {}
    for person in _things((state.source or {}).get("persons")):
        flat = {k: v for k, v in person.items() if k not in ("id", "label", "type", "llm_config")}
        config = {**flat, **(person.get("llm_config") or {})}
        found[str(person.get("label") or person.get("id"))] = {k: v for k, v in config.items() if v not in (None, "")}
    return found


def _arrow_changes(before: RunState, after: RunState) -> Iterator[tuple[str | None, str | None]]:
    return changed_arrows(_arrows(before), _arrows(after))


def changed_arrows(old: Counter[tuple[str, str]], new: Counter[tuple[str, str]]) -> Iterator[tuple[str | None, str | None]]:
    """Arrows that are only in one of the diagrams; two with the same ends are one that was changed."""
    removed, added = list((old - new).elements()), list((new - old).elements())
    ways: dict[str, deque[str]] = {}
    for ends, how in added:
        ways.setdefault(ends, deque()).append(how)
    changed: Counter[str] = Counter()
    for ends, how in removed:
        other = ways[ends].popleft() if ways.get(ends) else None
        changed[ends] += other is not None
        yield f"{ends}{how}", None if other is None else f"{ends}{other}"
    for ends, how in added:
        if changed[ends]:
            changed[ends] -= 1  # with the first of those ends that were removed
        else:
            yield None, f"{ends}{how}"


def _arrows(state: RunState) -> Counter[tuple[str, str]]:
    """(which nodes it connects, how) of each arrow, in words."""
    source = state.source or {}
    labels = {str(n.get("id")): str((n.get("data") or {}).get("label") or n.get("id")) for n in _things(source.get("nodes"))}
    found: Counter[tuple[str, str]] = Counter()
    for arrow in _things(source.get("arrows")):
        start, leaves = _end(str(arrow.get("source")), "output", labels)
        end, enters = _end(str(arrow.get("target")), "input", labels)
        facts = [f"'{arrow['label']}'" if arrow.get("label") else "", str(arrow.get("content_type") or "")]
        priority = (arrow.get("data") or {}).get("execution_priority")
        facts.append(f"priority {priority}" if priority else "")
        how = ", ".join(filter(None, facts))
        found[f"{start}{leaves} → {end}{enters}", f" ({how})" if how else ""] += 1
    return found


def _end(handle: str, side: str, labels: Mapping[str, str]) -> tuple[str, str]:
    """(label of the node, handle unless it is the default one) of an end of an arrow, `<node id>_<handle>_<side>`."""
    body = handle.removesuffix(f"_{side}")
    node, _, name = body.rpartition("_")
    return labels.get(node, node or body), "" if name in ("default", "") else f"_{name}"


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
        pair(lambda node: node.cost_usd if "cost_usd" in node.meta else 0.0, 0.0),
        pair(lambda node: node.meta.get("model"), None),
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _lines(diff: RunDiff) -> Iterator[str]:
    yield f"{diff.runs[0]} → {diff.runs[1]}: {diff.status[0]} → {diff.status[1]}, {_numbers(diff)}"
    if diff.model[0] != diff.model[1]:
        yield f"  model: {' → '.join(model_in_words(model) for model in diff.model)}"
    for name, before, after in diff.inputs:
        yield f"  input {name}: {_short(before)} → {_short(after)}"
    for label, name, before, after in diff.persons:
        if name == "person":
            yield f"  person {label}: {'added' if before is None else 'removed'}"
        else:
            yield f"  person {label}: {name}: {_short(before)} → {_short(after)}"
    for before, after in diff.arrows:
        yield f"  arrow {before or after}: {'added' if before is None else 'removed' if after is None else f'now {after}'}"
    for node in diff.changed:
        yield f"  {node.label}: {node.change}, {node.status[0]} → {node.status[1]}, {_numbers(node)}"
        for name, before, after in node.fields:
            yield f"    {name}: {_short(before)} → {_short(after)}"
        if node.model[0] != node.model[1] and None not in node.model:
            yield f"    answered by: {node.model[0]} → {node.model[1]}"
        if node.output[0] != node.output[1] and None not in node.status:
            yield f"    output: {_short(node.output[0])} → {_short(node.output[1])}"
    if not diff.changed:
        yield "  every node gave the same"


def _numbers(item: RunDiff | NodeDiff) -> str:
    """Seconds, and what models took; nothing is said of tokens and money where no model was asked."""
    parts = [f"{item.seconds[0]:.1f} → {item.seconds[1]:.1f} s"]
    if any(item.tokens) or any(cost != 0 for cost in item.cost_usd):
        parts.append(f"{item.tokens[0]} → {item.tokens[1]} tokens")
        parts.append(" → ".join(cost_in_words(*one) for one in zip(item.cost_usd, item.tokens, strict=True)))
    return ", ".join(parts)


def _cost(run: RunState) -> float | None:
    """What a run cost; None when that is not known. One that asked no model cost nothing."""
    return run.cost_usd or 0.0 if run.cost_complete else None


def cost_in_words(cost: float | None, tokens: int) -> str:
    """What tokens cost; an unknown cost stays unknown also where no tokens were counted."""
    return "unknown cost" if cost is None else "nothing" if not tokens and not cost else money(cost)


def model_in_words(model: str | None) -> str:
    """What a run moved its persons to."""
    return "as the diagram says" if model is None else model


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"

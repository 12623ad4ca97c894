"""Two runs compared, as one drawing: which nodes are the same, changed, new and gone; as a page takes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from dipeo_nb.common.redaction import redactor
from dipeo_nb.diagram.difference_drawing import united
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.labels import NodeLook, clean
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.execution.inputs import as_text
from dipeo_nb.execution.run_diff import NodeDiff, RunDiff, compare, model_in_words
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_state import RunState

KINDS = ("same", "changed", "new", "gone")
LIMIT = 20_000
"""Characters of one value that a page gets."""
_WORDS = {"added": "new", "removed": "gone", "same": "same"}


class ComparedDrawing(NamedTuple):
    diagram: DomainDiagram
    """Both diagrams as one."""
    looks: dict[str, NodeLook]
    alt: str


def compared_drawing(facts: RunDiff, before: RunState, after: RunState) -> ComparedDrawing | None:
    """The drawing of a difference; None when the record of the second run does not have its diagram."""
    old, new = diagram_of(before), diagram_of(after)
    if new is None:
        return None
    found = {node.label: node for node in facts.nodes}
    whole = united(old, new)
    looks = {node.id: _look(found[node.label]) for node in whole.nodes if node.label in found}
    counts = [f"{sum(look.status == kind for look in looks.values())} {kind}" for kind in KINDS]
    return ComparedDrawing(whole, looks, f"{clean(after.diagram, 120)}, two runs compared: {', '.join(counts)}")


def comparison(before: RunState, after: RunState) -> dict[str, Any]:
    """The difference of two runs as JSON values, with its drawing."""
    facts = compare(before, after)
    drawn = compared_drawing(facts, before, after)
    diagram = None if drawn is None else drawn.diagram
    ids = {} if diagram is None else {node.label: node.id for node in diagram.nodes}
    return redactor(
        {
            "runs": list(facts.runs),
            "names": [clean(state.diagram, 120) for state in (before, after)],
            "status": list(facts.status),
            "model": [model_in_words(model) for model in facts.model],
            "seconds": list(facts.seconds),
            "tokens": list(facts.tokens),
            "cost_usd": list(facts.cost_usd),
            "inputs": [[name, _text(old), _text(new)] for name, old, new in facts.inputs],
            "persons": [[f"{label}.{field}", _text(old), _text(new)] for label, field, old, new in facts.persons],
            "svg": "" if drawn is None else draw(drawn.diagram, live=True, title=drawn.alt),
            "nodes": [_node(node, ids.get(node.label), drawn) for node in facts.nodes],
        }
    )


def _node(node: NodeDiff, node_id: str | None, drawn: ComparedDrawing | None) -> dict[str, Any]:
    look = None if drawn is None else drawn.looks.get(node_id or "")
    return {
        "id": None if node_id is None else clean(node_id),
        "label": clean(node.label, 120),
        "kind": _WORDS.get(node.change, "changed"),
        "about": look.note if look is not None else "",
        "status": list(node.status),
        "seconds": list(node.seconds),
        "tokens": list(node.tokens),
        "cost_usd": list(node.cost_usd),
        "fields": [[name, _text(old), _text(new)] for name, old, new in node.fields],
        "output": [text[:LIMIT] for text in node.output],
    }


def _text(value: Any) -> str:
    return "" if value is None else as_text(value)[:LIMIT]


def _look(node: NodeDiff) -> NodeLook:
    """Same, changed, new or gone, and how long it took in both runs."""
    kind = _WORDS.get(node.change, "changed")
    seconds = [f"{s:.1f}" for s, status in zip(node.seconds, node.status, strict=True) if status is not None]
    what = {"edited": "edited", "different": "other output"}.get(node.change, kind)
    return NodeLook(kind, 0, f"{what} · {' → '.join(dict.fromkeys(seconds))} s" if max(node.seconds) >= 0.05 else what)

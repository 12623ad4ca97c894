"""Checks of arrows: their ends, handles and content types."""

from __future__ import annotations

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.domain.diagram import DomainArrow, DomainNode
from dipeo_nb.domain.enums import ContentType

_CONTENT_TYPES = frozenset(str(c) for c in ContentType)


def check_arrow(state: CheckState, arrow: DomainArrow) -> None:
    """Check the ends, the handles and the content type of an arrow."""
    place = state.source.arrow(arrow.id) if state.source is not None and _suspicious(state, arrow) else None
    for end, verb in ((arrow.source, "comes from"), (arrow.target, "leads to")):
        if end not in state.nodes:
            known = [*state.nodes, *(n.label for n in state.model.nodes)]
            close = nearest(end, known)
            state.error(
                "unknown-node",
                f"An arrow {verb} '{shorten(end)}', which is not a node.",
                f"Did you mean '{shorten(close)}'?" if close else "Correct the name, or add the node.",
                place=place,
            )
    source, target = state.nodes.get(arrow.source), state.nodes.get(arrow.target)
    if source is not None:
        _check_handle(state, arrow, source, arrow.source_handle, "output", place)
    if target is not None:
        _check_handle(state, arrow, target, arrow.target_handle, "input", place)
    if arrow.content_type is not None and arrow.content_type not in _CONTENT_TYPES:
        close = nearest(arrow.content_type, _CONTENT_TYPES)
        state.error(
            "unknown-content-type",
            f"'{shorten(arrow.content_type)}' is not a content type.",
            f"Did you mean '{close}'?" if close else f"Content types: {', '.join(sorted(_CONTENT_TYPES))}.",
            place=place,
            field="content_type",
        )


def _suspicious(state: CheckState, arrow: DomainArrow) -> bool:
    """Whether a finding is to be expected: places cost a second parse of the text."""
    source, target = state.specs.get(arrow.source), state.specs.get(arrow.target)
    return (
        source is None
        or target is None
        or not source.META.has_output(arrow.source_handle)
        or arrow.target_handle not in target.META.inputs
        or (arrow.content_type is not None and arrow.content_type not in _CONTENT_TYPES)
    )


def _check_handle(
    state: CheckState, arrow: DomainArrow, node: DomainNode, handle: str, direction: str, place: tuple[int, int] | None
) -> None:
    spec = state.specs.get(node.id)
    if spec is None:
        return
    allowed = spec.META.outputs if direction == "output" else spec.META.inputs
    if handle in allowed or (direction == "output" and spec.META.has_output(handle)):
        return
    if not allowed:
        verb = "leads into" if direction == "input" else "leaves"
        what = "a start node, which takes nothing" if node.type == "start" else f"the {node.type} '{shorten(node.label)}'"
        if node.type == "endpoint":
            what = "an endpoint, which ends the run"
        state.error(f"arrow-{'into' if direction == 'input' else 'out-of'}-{node.type}", f"An arrow {verb} {what}.",
                   "Remove the arrow, or turn it around.", node=node, place=place)  # fmt: skip
        return
    close = nearest(handle, allowed)
    state.error(
        "unknown-handle",
        f"'{shorten(handle)}' is not an {direction} of a {node.type}.",
        f"Did you mean '{close}'?" if close else f"Its {direction}s: {', '.join(allowed)}.",
        node=node,
        place=place,
    )

"""Checks of templates and expressions: their syntax, and whether anything provides the names that they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram import expressions, template_names
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.diagram.file_templates import check_file
from dipeo_nb.diagram.name_analysis import SPECIAL_NAMES
from dipeo_nb.domain.diagram import DomainNode
from dipeo_nb.domain.enums import Severity, TemplateEngine
from dipeo_nb.domain.nodes import NodeSpec, TemplateJobNode
from dipeo_nb.errors import ExpressionError, TemplateError

PROMPT_FIELDS = {
    "prompt_file": ("resolved_prompt", "default_prompt"),
    "first_prompt_file": ("resolved_first_prompt", "first_only_prompt"),
    "judge_by_file": ("judge_by", "judge_by"),
}
"""Field with a file's name → (field that takes its text, inline field that it accompanies)."""


def check_expression(state: CheckState, node: DomainNode, field: str, text: str) -> None:
    """Check the syntax of an expression, and note the names that it needs."""
    try:
        parsed = expressions.parse(text)
    except ExpressionError as error:
        line, column = getattr(error, "line", 1), getattr(error, "column", 1)
        place = state.inside(node, field, line, column)
        state.error("bad-expression", error.message.rstrip(), error.hint, node=node, field=field, place=place)
        return
    state.names.append((node, field, parsed.names))


def check_template(
    state: CheckState,
    node: DomainNode,
    field: str,
    text: str,
    *,
    check: Callable[[str], template_names.Names] = template_names.check,
    own: frozenset[str] = frozenset(),
    open_names: bool = False,
) -> None:
    """Check a template's syntax, and note the names that it needs.

    Args:
        own: names that the node itself provides.
        open_names: whether it may provide any others too.
    """
    try:
        names = check(text)
    except TemplateError as error:
        line = getattr(error, "line", None)
        origin = next((f for f, (into, _) in PROMPT_FIELDS.items() if into == field and node.data.get(f)), field)
        written_here = origin == field and node.data.get(field, text) == text
        place = state.inside(node, field, line, 1) if written_here and line else None
        message = error.message if origin == field else f"In '{shorten(node.data[origin])}': {error.message}"
        # A file of its own may still be changed, or written by an earlier node.
        severity = Severity.WARNING if field == "template_path" and text != node.data.get(field) else Severity.ERROR
        state.report(severity, "bad-template", message, error.hint, node=node, field=origin, place=place)
        return
    if names.needed - own and not open_names:
        state.names.append((node, field, names.needed - own))


def check_template_job(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    """Check the template itself, where it can be known before the run."""
    spec = cast(TemplateJobNode, spec)
    field, text = "template_content", spec.template_content
    if text is None and spec.template_path and "{" not in spec.template_path:
        field = "template_path"
        text = state.files.read(spec.template_path, base_first=True)[0]
    if not isinstance(text, str) or "{" not in text:
        return spec
    check = template_names.check if spec.engine is TemplateEngine.INTERNAL else check_file
    own = frozenset(spec.variables) | {"generated_at"}
    check_template(state, node, field, text, check=check, own=own, open_names=bool(spec.preprocessor))
    return spec


def brings(state: CheckState, node: DomainNode, name: str) -> bool:
    """Whether an arrow into *node* is labelled so, or a start node publishes that name."""
    return any(arrow.label == name for arrow in state.incoming[node.id]) or name in state.given.published


def check_names(state: CheckState) -> None:
    """Warn about names in templates and expressions that nothing in the diagram can provide."""
    if not state.names:
        return
    everywhere = SPECIAL_NAMES | state.given.published
    words: set[str] | None = None
    needs: dict[tuple[str, str], frozenset[str]] = {}
    for node, field, needed in state.names:
        needs[node.id, field] = needs.get((node.id, field), frozenset()) | needed
    for (node_id, field), needed in needs.items():
        node = state.nodes[node_id]
        given = state.given.into(node)
        if given is None:
            continue
        lacking = needed - given - everywhere
        if not lacking:
            continue
        if words is None:
            words = state.given.written
            if words is None:
                return
        for name in sorted(lacking - words):
            known = sorted(given - {"default", "first"} | state.given.published)
            close = nearest(name, known)
            advice = f"Did you mean '{close}'?" if close else f"Label an arrow '{name}'"
            advice += f" Or pass it to the run: --input {name}=…" if close else f", or pass it to the run: --input {name}=…"
            origin = next((f for f, (into, _) in PROMPT_FIELDS.items() if into == field and node.data.get(f)), field)
            state.warn(
                "unknown-name",
                f"'{origin}' names '{shorten(name)}', which no arrow into this node provides.",
                advice,
                node=node,
                field=origin,
            )

"""Compiles a diagram to a plan that can run, after every check that is possible before a run.

All checks run, so one look shows every finding; a plan is made only when none is an error. Nothing of the diagram is
executed: code is parsed, expressions and templates are parsed, prompt files are read.

    structure → nodes (typed specs, files, code, expressions, templates) → arrows → flow (who can be reached, what names
    the arrows bring) → `graph.link`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common import collecting
from dipeo_nb.common.text import shorten
from dipeo_nb.diagram.checks.arrows import check_arrow
from dipeo_nb.diagram.checks.loops import check_loops
from dipeo_nb.diagram.checks.names import check_names
from dipeo_nb.diagram.checks.nodes import check_node
from dipeo_nb.diagram.checks.persons import check_persons
from dipeo_nb.diagram.checks.state import CheckState, Runnable
from dipeo_nb.diagram.checks.structure import check_batches, check_flow, check_structure
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.specs import build_spec
from dipeo_nb.domain.diagnostics import Diagnostic, has_errors
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import InvalidDiagramError

__all__ = ["build_spec", "check_diagram", "compile_diagram"]


@collecting.paused()  # a large diagram sets off several collections, a fifth of the time
def compile_diagram(
    model: DomainDiagram,
    *,
    source: SourceMap | None = None,
    name: str = "diagram",
    path: Path | None = None,
    base_dir: Path | None = None,
    diagnostics: Sequence[Diagnostic] = (),
    runnable: Runnable | None = None,
) -> Plan:
    """The plan of a diagram.

    Args:
        source: positions in the text, for findings.
        path: the diagram's file; prompt files are also looked up next to it.
        base_dir: root of relative names; default: the settings' one.
        diagnostics: findings of reading; they are kept, and an error among them refuses the diagram.
        runnable: whether nodes of a type can run (`code_job:bash` for a code job in another language than Python);
            None: not asked.

    Returns:
        The plan, with all findings as `diagnostics`. Prompt files are read into it.

    Raises:
        InvalidDiagramError: the diagram cannot run; `diagnostics` has all findings.
    """
    state = _checked(CheckState(model, source, path, base_dir, runnable))
    found = _merged(diagnostics, state.found)
    if has_errors(found):
        raise _refusal(name, found)
    plan_nodes, plan_edges = state.link()
    return Plan(
        name=name,
        nodes=plan_nodes,
        edges=plan_edges,
        persons=state.persons,
        diagram=model,
        diagnostics=found,
        source_path=str(path) if path else None,
        by_id={node.id: node.index for node in plan_nodes},
    )


def check_diagram(
    model: DomainDiagram,
    *,
    source: SourceMap | None = None,
    name: str = "diagram",
    path: Path | None = None,
    base_dir: Path | None = None,
    diagnostics: Sequence[Diagnostic] = (),
    runnable: Runnable | None = None,
) -> tuple[Diagnostic, ...]:
    """All findings of reading and compiling, in file order. Never raises for a bad diagram; arguments as above."""
    state = _checked(CheckState(model, source, path, base_dir, runnable))
    return _merged(diagnostics, state.found)


def _merged(reading: Iterable[Diagnostic], compiling: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Both lists in file order, each finding once: the more severe one when both concern the same thing."""

    def subject(finding: Diagnostic) -> tuple[Any, ...]:
        return (finding.code, finding.line, finding.node, finding.field, None if finding.line else finding.message)

    read = list(dict.fromkeys(reading))
    found = list(dict.fromkeys(compiling))
    severe = {subject(d) for d in found if d.severity is Severity.ERROR}
    kept = [d for d in read if d.severity is Severity.ERROR or subject(d) not in severe]
    known = {subject(d) for d in kept}
    return tuple(sorted((*kept, *(d for d in found if subject(d) not in known)), key=lambda d: (d.line or 0, d.column or 0)))


def _refusal(name: str, found: tuple[Diagnostic, ...]) -> InvalidDiagramError:
    errors = [str(d) for d in found if d.severity is Severity.ERROR]
    if len(errors) == 1:
        message = errors[0]
    else:
        shown = "\n  ".join(errors[:10])
        more = f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
        message = f"The diagram '{shorten(name)}' cannot run, it has {len(errors)} errors:\n  {shown}{more}\n"
    error = InvalidDiagramError(message, hint="Nothing was run.")
    error.diagnostics = found
    return error


def _checked(state: CheckState) -> CheckState:
    """The state after all checks."""
    check_structure(state)
    check_persons(state)
    for node in state.model.nodes:
        state.specs[node.id] = check_node(state, node)
    for arrow in state.model.arrows:
        check_arrow(state, arrow)
    check_flow(state)
    check_batches(state)
    check_names(state)
    if not has_errors(state.found):
        check_loops(state)
    return state

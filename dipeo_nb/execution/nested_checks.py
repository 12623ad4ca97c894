"""What can be known before a run about the diagrams that its sub_diagram nodes run."""

from __future__ import annotations

from typing import cast

from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.nested import DEEPEST, nested_document
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import DiagramError, InvalidDiagramError
from dipeo_nb.execution import handlers


def findings(plan: Plan, services: Services) -> list[Diagnostic]:
    """An error for each diagram below *plan* that cannot run here; a warning where one is missing or has mistakes.

    The latter may be put right before its node is reached, since a run can write diagrams; a name with inputs in it is not
    known yet.
    """
    return _below(plan, services, {}, 0)


def _below(plan: Plan, services: Services, seen: dict[str, list[Diagnostic]], depth: int) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for node in plan.nodes:
        if node.type != "sub_diagram" or depth >= DEEPEST:
            continue
        spec = cast(SubDiagramNode, node.spec)
        if (spec.ignore_if_sub and depth) or (not spec.diagram_data and "{" in (spec.diagram_name or "{")):
            continue
        try:
            name = (spec.diagram_name or "").strip()
            document = nested_document(spec, name, source_path=plan.source_path, base_dir=services.files.base_path)
        except DiagramError as error:
            found.append(_finding(plan, node, Severity.WARNING, error.message, error.hint))
            continue
        key = str(document.path or id(spec))
        if key not in seen:
            seen[key] = []  # a diagram that leads back to itself is looked at once
            seen[key] = _problems(document, services, seen, depth)
        for problem in seen[key]:
            tolerated = problem.severity is not Severity.ERROR or node.spec.on_error == "continue"
            severity = Severity.WARNING if tolerated else Severity.ERROR
            found.append(_finding(plan, node, severity, f"In '{document.name}': {problem.message}", problem.hint))
    return found


def _problems(document: Diagram, services: Services, seen: dict[str, list[Diagnostic]], depth: int) -> list[Diagnostic]:
    try:
        child = document.compile(base_dir=services.files.base_path)
    except InvalidDiagramError as error:
        wrong = [d for d in error.diagnostics if d.severity is Severity.ERROR]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return [Diagnostic(Severity.WARNING, "not-runnable", f"{wrong[0].message}{more}", wrong[0].hint)]
    return [*handlers.not_runnable(child, services), *_below(child, services, seen, depth + 1)]


def _finding(plan: Plan, node: PlanNode, severity: Severity, message: str, hint: str | None) -> Diagnostic:
    return Diagnostic(severity, "not-runnable", message, hint, file=plan.source_path, node=node.label, field="diagram_name")

"""Compiles diagrams for the services that would run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.diagnostics import has_errors
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import InvalidDiagramError
from dipeo_nb.execution import handlers, nested_checks


def runnable_plan(document: Diagram, base_dir: Path, services: Services) -> Plan:
    """The plan of a diagram that can run with these services, with the diagrams that it runs; trust is not looked at.

    Raises:
        InvalidDiagramError: it cannot run.
    """
    plan = document.compile(base_dir=base_dir)
    found = [*handlers.not_runnable(plan, services), *nested_checks.findings(plan, services)]
    if has_errors(found):
        problem = next(d for d in found if d.severity is Severity.ERROR)
        error = InvalidDiagramError(str(problem), hint="Nothing was run.")
        error.diagnostics = (*plan.diagnostics, *found)
        raise error
    return replace(plan, diagnostics=(*plan.diagnostics, *found)) if found else plan

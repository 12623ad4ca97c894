"""State of the checks of one diagram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from dipeo_nb.common.text import shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import graph
from dipeo_nb.diagram.name_analysis import GivenNames
from dipeo_nb.diagram.person_fields import PersonNames
from dipeo_nb.diagram.prompt_files import PromptFiles
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.specs import Problem
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.nodes import NodeSpec
from dipeo_nb.domain.plan import PlanEdge, PlanNode

Runnable = Callable[[str], bool]
"""Whether nodes of a type can run (`code_job:bash` for a code job in another language than Python)."""


class CheckState:
    """One check of one diagram; `found`, `specs` and `persons` are its results."""

    def __init__(
        self,
        model: DomainDiagram,
        source: SourceMap | None,
        path: Path | None,
        base_dir: Path | None,
        runnable: Runnable | None,
    ) -> None:
        self.model = model
        self.source = source
        self.file: str | None = source.file if source and source.file else str(path) if path else None
        self.files: PromptFiles = PromptFiles(base_dir or get_settings().base_dir, path)
        self.runnable = runnable
        self.found: list[Diagnostic] = []
        self.specs: dict[str, NodeSpec | None] = {}
        self.persons: dict[str, DomainPerson] = {}
        self.references: PersonNames = PersonNames(model.persons)
        self.nodes: dict[str, DomainNode] = {node.id: node for node in model.nodes}
        self.incoming: dict[str, list[DomainArrow]] = {node.id: [] for node in model.nodes}
        self.outgoing: dict[str, list[DomainArrow]] = {node.id: [] for node in model.nodes}
        for arrow in model.arrows:
            if arrow.source in self.nodes and arrow.target in self.nodes:
                self.outgoing[arrow.source].append(arrow)
                self.incoming[arrow.target].append(arrow)
        self.given: GivenNames = GivenNames(model, self.incoming, self.specs)
        self.names: list[tuple[DomainNode, str, frozenset[str]]] = []
        """(node, field, names it needs) of templates and expressions."""
        self.linked: tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]] | None = None

    def link(self) -> tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]]:
        """Nodes and edges of the plan of a diagram without errors."""
        if self.linked is None:
            nodes = [(node, cast(NodeSpec, self.specs[node.id])) for node in self.model.nodes]
            self.linked = graph.link(nodes, self.model.arrows)
        return self.linked

    def report(
        self,
        severity: Severity,
        code: str,
        message: str,
        hint: str | None,
        *,
        node: DomainNode | None = None,
        field: str | None = None,
        place: tuple[int, int] | None = None,
    ) -> None:
        """Add a finding, at *place* (line, column) or else where the node, or its field, stands."""
        if place is None and node is not None and self.source is not None:
            place = self.source.node(node.id, field)
        line, column = place or (None, None)
        label = shorten(node.label or node.id) if node else None
        self.found.append(Diagnostic(severity, code, message, hint, self.file, line, column, label, field))

    def error(self, code: str, message: str, hint: str | None, **where: Any) -> None:
        """Report what forbids running the diagram; *where* as for `report`."""
        self.report(Severity.ERROR, code, message, hint, **where)

    def warn(self, code: str, message: str, hint: str | None, **where: Any) -> None:
        """Report what does not forbid running the diagram; *where* as for `report`."""
        self.report(Severity.WARNING, code, message, hint, **where)

    def problem(self, node: DomainNode, problem: Problem) -> None:
        """Report a problem with a node's properties."""
        self.report(problem.severity, problem.code, problem.message, problem.hint, node=node, field=problem.field)

    def inside(self, node: DomainNode, field: str, line: int, column: int) -> tuple[int, int] | None:
        """Place in the file of a line and column (1-based) inside the text of a field."""
        return self.source.inside(node.id, field, line, column) if self.source else None

"""`ParsedDiagram`: a diagram that has been read, with the text it came from; it can be checked and compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.common.text import displayed
from dipeo_nb.diagram import detect
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson

if TYPE_CHECKING:
    from dipeo_nb.diagram import compile as compiler
    from dipeo_nb.domain.plan import Plan
else:
    compiler = lazy.module("dipeo_nb.diagram.compile")  # reading a diagram does not need it


@dataclass(frozen=True, eq=False, repr=False)
class ParsedDiagram:
    """A diagram as it was read: its model, its text, and the findings of reading. Immutable."""

    model: DomainDiagram
    format: str = "light"
    """`light`, `native`, `readable` or `executable`."""
    text: str = ""
    """As read, byte for byte; comments and order included."""
    path: Path | None = None
    source: SourceMap = field(default_factory=SourceMap, repr=False)
    diagnostics: tuple[Diagnostic, ...] = ()
    """Of reading only; `check()` adds those of compiling."""
    base_dir: Path | None = None
    """Root of relative names in the diagram; None: the settings' one."""

    @displayed
    def __repr__(self) -> str:
        return f"{type(self).__name__}({short_repr(self.name)}, {len(self.nodes)} nodes)"

    @property
    def name(self) -> str:
        """The metadata's name, else the file name without suffixes, else `diagram`."""
        named = self.model.metadata.name if self.model.metadata else None
        return named or (detect.stem(self.path) if self.path else "diagram")

    @property
    def nodes(self) -> tuple[DomainNode, ...]:
        """All nodes, in file order."""
        return self.model.nodes

    @property
    def arrows(self) -> tuple[DomainArrow, ...]:
        """All arrows, in file order."""
        return self.model.arrows

    @property
    def persons(self) -> tuple[DomainPerson, ...]:
        """All persons, in file order."""
        return self.model.persons

    @checked_call
    def compile(self, *, base_dir: Path | None = None) -> Plan:
        """The plan that a run follows.

        Raises:
            InvalidDiagramError: with all findings as `diagnostics`.
        """
        return compiler.compile_diagram(self.model, **self._compile_arguments(base_dir))

    @checked_call
    def check(self, *, base_dir: Path | None = None) -> tuple[Diagnostic, ...]:
        """All findings of reading and compiling, in file order; never raises for a bad diagram."""
        return compiler.check_diagram(self.model, **self._compile_arguments(base_dir))

    def _compile_arguments(self, base_dir: Path | None) -> dict[str, Any]:
        return {
            "source": self.source,
            "name": self.name,
            "path": self.path,
            "base_dir": base_dir or self.base_dir,
            "diagnostics": self.diagnostics,
        }

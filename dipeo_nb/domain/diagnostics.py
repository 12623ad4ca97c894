"""Findings of the reader and the compiler about a diagram."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dipeo_nb.domain.enums import Severity


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding, with its place and its remedy.

    `str(diagnostic)` is `file:line:column: severity[code]: message (node 'Label'). hint`.
    """

    severity: Severity
    code: str
    """Stable kebab-case name, e.g. `unknown-person`."""
    message: str
    """The problem, naming what was expected."""
    hint: str | None = None
    """The next action, with the nearest correct spelling when there is one."""
    file: str | None = None
    line: int | None = None
    """1-based."""
    column: int | None = None
    """1-based."""
    node: str | None = None
    """Label of the node concerned."""
    field: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(p) for p in (self.file, self.line, self.column) if p is not None)
        where = f" (node '{self.node}')" if self.node else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{place + ': ' if place else ''}{self.severity}[{self.code}]: {self.message}{where}{hint}"


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any finding forbids running."""
    return any(d.severity is Severity.ERROR for d in diagnostics)

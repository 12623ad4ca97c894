"""What a run would do, as notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import displayed
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.labels import clean
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import checked_count, checked_mapping
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.calls import check_variables
from dipeo_nb.notebook.tables import Table
from dipeo_nb.runtime import Runtime
from dipeo_nb.runtime.dry_run import DryRun, Missing
from dipeo_nb.runtime.dry_run import dry_run as dry_run_of

OPTIONS = ("model", "answers", "inputs", "max_iterations")


class Effects(Table):
    """The effects of a run, one row each: node, kind, what, detail, reached."""

    missing: Sequence[Missing]
    """Keys and packages that a run would lack, each with what to do."""
    error: str
    """Why the dry run ended early; empty: it did not."""

    def __init__(self, found: DryRun) -> None:
        super().__init__(found.report()["effects"])
        self.missing = found.missing
        self.error = found.error

    def _notes(self) -> list[str]:
        lines = [f"Missing: {m.service} (for {', '.join(m.nodes)}): {m.hint}" for m in self.missing]
        return [clean(line, 400) for line in (*lines, *([f"It ended early. {self.error}"] if self.error else []))]

    @displayed
    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *self._notes()])

    @displayed
    def _repr_html_(self) -> str:
        return super()._repr_html_() + "".join(map(static_view.note, self._notes()))


def dry_run(
    runtime: Runtime,
    diagram: Diagram,
    model: str | None,
    answers: Mapping[str, str | Sequence[str]] | None,
    inputs: Mapping[str, Any] | None,
    max_iterations: int | None,
    variables: Mapping[str, Any],
) -> Effects:
    """See `Session.dry_run`."""
    given = checked_mapping(inputs, "inputs", "{'topic': '…'}")
    plan = runtime.compile(diagram)
    check_answers(answers, plan, runtime.settings.base_dir)
    check_variables(variables, plan, runtime.settings.base_dir, OPTIONS)
    found = dry_run_of(
        runtime, plan, variables={**variables, **given}, model=model, answers=answers,
        max_iterations=checked_count(max_iterations, "max_iterations"),
    )  # fmt: skip
    return Effects(run_sync(found))

"""The explanation of a run, in words and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.text import displayed
from dipeo_nb.diagram.labels import clean
from dipeo_nb.execution.metrics import RunMetrics, summarize
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.safe_markdown import safe
from dipeo_nb.notebook.tables import Table

SENTENCE = 2_000
"""Characters of one sentence about a run; labels of nodes may be of any length."""
METRIC_KINDS = {
    "node": str, "runs": int, "working_s": float, "waiting_s": float, "share": str, "tokens": int, "cost_usd": float, "retries": int,
}  # fmt: skip


class RunExplanation:
    """A run in words and a table: print it, display it, or paste `markdown` into a report."""

    def __init__(self, metrics: RunMetrics) -> None:
        self.metrics = metrics
        self.sentences: list[str] = [
            said if len(said) <= SENTENCE else f"{said[: SENTENCE - 1]}…" for said in summarize(metrics)
        ]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def table(self) -> Table:
        """One row per node; see `RunMetrics.rows`."""
        return Table(self.metrics.rows, METRIC_KINDS)

    @property
    def markdown(self) -> str:
        rows = self.metrics.rows
        if not rows:
            return self.text
        lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
        for row in rows:
            cells = ("" if value is None else clean(value, 200) for value in row.values())
            lines.append(" | ".join(safe(cell).replace("|", "\\|") for cell in cells))
        return "\n".join([safe(self.text), "", *(f"| {line} |" for line in lines)])

    @displayed
    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    @displayed
    def _repr_html_(self) -> str:
        return static_view.explanation(self.sentences, self.metrics)

    @displayed
    def _repr_markdown_(self) -> str:
        return self.markdown


# The former name, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Explanation": "dipeo_nb.notebook.explanation:RunExplanation",
        },
    )

"""Services of language models, as a notebook shows them."""

from __future__ import annotations

from typing import Any

from dipeo_nb.common.text import displayed
from dipeo_nb.llm import catalogue
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.tables import dataframe


class LLMServices(list[catalogue.ServiceFacts]):
    """Services of language models; shown as a table."""

    @displayed
    def _repr_html_(self) -> str:
        head = ("service", "ready", "key", "default model", "can", "ends")
        return static_view.table(head, map(_service_row, self))

    def to_dataframe(self) -> Any:
        """One row per service as a pandas DataFrame, with the fields of a row as columns.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        rows = [{**facts._asdict(), "abilities": ", ".join(facts.abilities)} for facts in self]
        return dataframe(rows, {name: bool if name == "ready" else str for name in catalogue.ServiceFacts._fields})

    @displayed
    def __repr__(self) -> str:
        return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(_service_row(s), (18, 44, 40, 26, 60, 0), strict=True)).rstrip() for s in self)  # fmt: skip


def _service_row(facts: catalogue.ServiceFacts) -> tuple[str, ...]:
    ready = "yes" if facts.ready else f"no: {facts.why_not}"
    return facts.service, ready, facts.key, facts.model, ", ".join(facts.abilities), facts.ends

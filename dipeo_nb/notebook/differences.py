"""Two runs side by side, as a notebook shows them."""

from __future__ import annotations

from dipeo_nb.common.text import displayed
from dipeo_nb.execution.run_diff import NodeDiff, RunDiff
from dipeo_nb.notebook import static_view


class Differences:
    """Two runs side by side; shown as tables. `facts` has it all, `changed` the nodes that are not the same."""

    def __init__(self, facts: RunDiff) -> None:
        self.facts = facts

    @property
    def changed(self) -> tuple[NodeDiff, ...]:
        return self.facts.changed

    @displayed
    def __repr__(self) -> str:
        return str(self.facts)

    @displayed
    def _repr_html_(self) -> str:
        return static_view.difference(self.facts)

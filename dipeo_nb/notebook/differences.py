"""Two runs, or more, side by side, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Sequence

from dipeo_nb.common.text import displayed, money
from dipeo_nb.diagram.difference_drawing import difference_figure
from dipeo_nb.diagram.labels import clean
from dipeo_nb.execution.inputs import as_text
from dipeo_nb.execution.run_comparison import compared_drawing
from dipeo_nb.execution.run_diff import NodeDiff, RunDiff, compare, model_in_words
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.static_view import Figure, Titled
from dipeo_nb.notebook.tables import text_table

_SHOWN = 200
"""Characters of an output in a table of several runs."""


class Differences:
    """Two runs side by side; shown as one drawing and tables. `facts` has it all, `changed` the nodes that are not the same.

    Args:
        states: of the two runs, for the drawing.
    """

    def __init__(self, facts: RunDiff, states: tuple[RunState, RunState] | None = None) -> None:
        self.facts = facts
        self._states = states

    @property
    def changed(self) -> tuple[NodeDiff, ...]:
        return self.facts.changed

    @displayed
    def __repr__(self) -> str:
        return str(self.facts)

    @displayed
    def _repr_html_(self) -> str:
        return static_view.difference(self.facts, self._drawing())

    def _drawing(self) -> str:
        drawn = None if self._states is None else compared_drawing(self.facts, *self._states)
        return "" if drawn is None else difference_figure(*drawn)


class SideBySide:
    """Several runs as a table: a row for each node, a column for each run. `=` marks what is as in the first run, `≠` what is not."""

    def __init__(self, states: Sequence[RunState]) -> None:
        self.states = tuple(states)
        self.facts: tuple[RunDiff, ...] = tuple(compare(states[0], other) for other in states[1:])
        """Each run after the first one, compared to that."""

    @property
    def _head(self) -> tuple[str, ...]:
        return "", *(Titled(state.run_id.removeprefix("exec_")[:8], state.run_id) for state in self.states)

    def _rows(self) -> list[tuple[str, ...]]:
        states = self.states
        rows: list[tuple[str, ...]] = [
            ("status", *(str(state.status) for state in states)),
            ("model", *(model_in_words(state.model) for state in states)),
            ("seconds", *(Figure(f"{state.duration_s:.2f}") for state in states)),
            ("tokens", *(Figure(f"{state.usage.total or 0:,}") for state in states)),
            ("cost", *(money(state.cost_usd) if state.usage.total else "nothing" for state in states)),
        ]
        inputs = dict.fromkeys(name for state in states for name in state.variables)
        rows += [(f"input {name}", *_marked([as_text(state.variables.get(name)) for state in states])) for name in inputs]
        nodes = [{state.label(i): node for i, node in state.nodes.items()} for state in states]
        for label in dict.fromkeys(label for found in nodes for label in found):
            said = [None if label not in found else as_text(found[label].output) or str(found[label].status) for found in nodes]
            rows.append((clean(label, 80), *_marked(said)))
        return rows

    @displayed
    def __repr__(self) -> str:
        return text_table(self._head, self._rows())

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))  # type: ignore[attr-defined]

    @displayed
    def _repr_html_(self) -> str:
        return static_view.table(self._head, self._rows())


def _marked(values: Sequence[str | None]) -> list[str]:
    """Texts, each after the first with a sign whether it is the same; None: there is none."""
    first, *others = values

    def text(value: str | None) -> str:
        return "none" if value is None else static_view.shown(value, _SHOWN)

    return [text(first), *("= the same" if other == first else f"≠ {text(other)}" for other in others)]

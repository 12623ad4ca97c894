"""What the page of a run orders of its kernel: another run made from it, a copy as text, a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.domain.budget import Budget
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.run_comparison import comparison
from dipeo_nb.execution.run_copies import input_facts
from dipeo_nb.execution.run_pages import RunQuery, page_of_runs, run_facts
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.run_display import OrderedRun
from dipeo_nb.runtime import Runtime
from dipeo_nb.runtime.orders import AnotherRun

OTHERS = 25
"""Runs that a page offers for a comparison."""


class Orderable(Protocol):
    """A run that others are made from."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> RunState: ...
    @property
    def finished(self) -> bool: ...
    @property
    def replayed(self) -> bool: ...
    def copied(self, kind: str, node_id: str | None = None, of: int | None = None) -> str: ...


class Maker(Protocol):
    """Makes runs from other ones: a session."""

    runtime: Runtime

    @property
    def fork(self) -> Callable[..., OrderedRun]: ...
    @property
    def rerun_node(self) -> Callable[..., OrderedRun]: ...
    @property
    def open_run(self) -> Callable[..., Any]: ...


class RunOrders:
    """The orders of the pages that show one run. Not on the loop thread, but for `can` and `others`.

    Args:
        budget: of the run; one that is made from it has the same limits.
    """

    def __init__(self, run: Orderable, session: Maker, budget: Budget | None = None) -> None:
        self._run, self._session, self._budget = run, session, budget

    def can(self) -> list[str]:
        """What may be ordered now."""
        noted = [] if self._run.replayed else ["note"]  # nothing of a replay is recorded
        return ["copy", *noted, "fork", "alone", "again", "compare"]  # of a run that continues: from what has finished

    def another(self, given: Mapping[str, Any]) -> OrderedRun:
        """Begin the run that is ordered. `trust` is the code of what the user has said yes to.

        Raises:
            ValidationError: the order is not understood; UserError: as `Session.fork`.
        """
        trust = given.get("trust")
        try:
            order = AnotherRun.model_validate({name: value for name, value in given.items() if name != "trust"})
        except PydanticValidationError as error:
            raise ValidationError(
                f"The order is not understood: {error.errors()[0]['msg']}.", hint="Load the page again."
            ) from None
        state, budget = self._run.state, self._budget and self._budget.renewed()
        at, changes = order.begins_at(state), order.changes(state)
        if order.kind == "alone":
            return self._session.rerun_node(
                self._run, at, of=order.of, set=changes, model=order.model, budget=budget, trust=trust or False
            )
        paths = {f"nodes.{at}.{name}": value for name, value in changes.items()}
        return self._session.fork(
            self._run, at=at, of=order.of, set=paths, inputs=order.inputs, model=order.model, budget=budget, trust=trust or None
        )

    def inputs(self) -> Mapping[str, Any]:
        """What a form for another run asks for."""
        state = self._run.state
        return {"inputs": input_facts(state), "model": state.model}

    def copy(self, kind: str, node_id: str | None, of: int | None) -> Mapping[str, Any]:
        """The run, or what a node asked, as a text of Python."""
        return {"text": self._run.copied(kind, node_id, of)}

    def compared(self, run_id: str) -> Mapping[str, Any]:
        """The difference from another run to this one."""
        return comparison(self._session.open_run(run_id).state, self._run.state)

    async def others(self) -> Mapping[str, Any]:
        """The newest runs, those of the same diagram first."""
        runtime = self._session.runtime
        await runtime.initialize()
        store = runtime.services.store
        page = await page_of_runs(store, RunQuery(limit=4 * OTHERS))
        own = self._run.state.diagram
        rows = sorted((row for row in page.runs if row.run_id != self._run.id), key=lambda row: row.diagram != own)[:OTHERS]
        return {"runs": await run_facts(store, rows)}

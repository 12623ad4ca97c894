"""Runs that are in the store: the part of a session that lists, opens, replays and compares them."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import nearest
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.options import checked_count, checked_flag, checked_mapping, checked_text
from dipeo_nb.execution.replay import MAX_PAUSE_S, checked_pace
from dipeo_nb.execution.run_comparison import comparison
from dipeo_nb.execution.run_diff import compare
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_list import recorded_states
from dipeo_nb.execution.run_pages import RunQuery, page_of_runs, run_facts
from dipeo_nb.execution.run_state import RunState, interrupted
from dipeo_nb.execution.single_node import single_node
from dipeo_nb.execution.snapshots import recorded_state
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.differences import Differences, SideBySide
from dipeo_nb.notebook.history import Runs
from dipeo_nb.notebook.run import Run, RunResult
from dipeo_nb.notebook.stretch import Stretch
from dipeo_nb.runtime import Runtime

if TYPE_CHECKING:
    from dipeo_nb.notebook import history_table, view
else:
    history_table = lazy.module("dipeo_nb.notebook.history_table")  # which brings ipywidgets along
    view = lazy.module("dipeo_nb.notebook.view")

NEWEST = 20
"""Runs of the live table that a notebook keeps."""


class RecordedRuns(ABC):
    """The methods of `Session` for runs in the store."""

    runtime: Runtime
    _going: weakref.WeakValueDictionary[str, Run]

    start: Callable[..., Run]
    """Starts a run; see `Session.start`."""

    @abstractmethod
    def _run(self, runtime: Runtime, state: RunState, **options: Any) -> Run:
        """A `Run` that belongs to this session."""

    @checked_call
    def runs(
        self,
        limit: int = 50,
        *,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> Runs:
        """List the recorded runs, newest first; runs whose process has ended are `interrupted`.

        Args:
            limit: maximum number of rows.
            status: only runs with that status.
            diagram: only runs of the diagram with that name.
            parent: only runs of sub-diagrams that the run with this id, or an unambiguous prefix of it, started.
            nested: also runs of sub-diagrams, which are omitted otherwise.
        """
        checked_count(limit, "limit")
        checked_flag(nested, "nested")
        if status is not None and status not in set(Status):
            near = nearest(status, Status) if isinstance(status, str) else None
            guess = f"Did you mean '{near}'? " if near else ""
            raise ValidationError(f"There is no status {status!r:.80}.", hint=f"{guess}There are: {', '.join(Status)}.")
        for name, text in (("diagram", diagram), ("parent", parent)):
            if text is not None:
                checked_text(text, name, f"{name}='…'")

        async def read() -> list[RunSummary]:
            await self.runtime.initialize()
            whole = None if parent is None else (await self.runtime.find_run(parent)).run_id
            return await self.runtime.services.store.runs(
                limit=limit, status=status, diagram=diagram, parent=whole, nested=nested
            )

        return Runs(run_sync(read()), self._spent, self._delete, self._table)

    def _table(self) -> Any:
        """The history as a widget; where no user is, its newest rows: a notebook would keep the state of a widget that is dead."""
        if kernel.unattended():
            return self.runs(limit=NEWEST)

        async def rows(query: RunQuery) -> Mapping[str, Any]:
            await self.runtime.initialize()
            store = self.runtime.services.store
            page = await page_of_runs(store, query)
            return {"total": page.total, "runs": await run_facts(store, page.runs)}

        opened: dict[str, Run] = {}  # one that is opened again is the same view, unless more has happened since, elsewhere

        def html(run_id: str) -> str:
            run, row = opened.get(run_id), run_sync(self.runtime.find_run(run_id))
            if run is None or (run.recorded_state.events, run.recorded_state.status) != (row.events, row.status):
                run = self.open_run(run_id)
            if run.finished:
                opened[run_id] = run
            return run.html_inside()

        view.views()  # in the main thread; runs are opened in another one
        return history_table.HistoryTable(
            query=lambda query: run_sync(rows(query)),
            html=html,
            compare=lambda before, after: comparison(self._state(before), self._state(after)),
            delete=lambda runs: run_sync(self.runtime.delete_runs(runs)),
            newest=lambda: self.runs(limit=NEWEST),
        )

    def _delete(self, rows: Sequence[RunSummary]) -> list[str]:
        return run_sync(self.runtime.delete_runs([row.run_id for row in rows]))

    def _spent(self, rows: Sequence[RunSummary]) -> list[RunState | None]:
        """The recorded states of runs, for as many as can be read at once; None for the others."""

        async def read() -> list[RunState | None]:
            await self.runtime.initialize()
            return await recorded_states(self.runtime.services.store, rows)

        return run_sync(read())

    @checked_call
    def open_run(self, run_id: Run | RunResult | RunSummary | str) -> Run:
        """Open a run by its id or an unambiguous prefix of it: the live object when it is running here, else the recorded run.

        Raises:
            UserError: no run, or several, with that id.
        """
        found = run_id if isinstance(run_id, str) and run_id in self._going else self._id(run_id)
        if found in self._going:
            return self._going[found]

        async def read() -> RunState:
            summary = await self.runtime.find_run(found)
            state = await recorded_state(self.runtime.services.store, found)
            return interrupted(state) if summary.status == Status.INTERRUPTED else state

        state = run_sync(read())
        return self._run(self.runtime, state, diagram=diagram_of(state))

    @checked_call
    def replay(
        self,
        run_id: Run | RunResult | RunSummary | str,
        *,
        speed: float = 1.0,
        max_pause: float = MAX_PAUSE_S,
        view: bool = True,
    ) -> Run:
        """Replay a recorded run as it happened: the same events in the same order, without any calls.

        Args:
            run_id: an id, an unambiguous prefix of it, or a run.
            speed: 1 takes the time that the run took, 10 a tenth of it, `float("inf")` none.
            max_pause: seconds between two events at most, whatever the speed; `float("inf")` keeps every pause.
            view: see `start`.

        Returns:
            A run like any other, which ends as that one did; nothing of it is recorded.

        Raises:
            UserError: no such run, it is still running, or an impossible speed or pause.
        """
        checked_flag(view, "view")
        checked_pace(speed, max_pause)
        runtime, replaying = run_sync(self.runtime.replay(self._id(run_id), speed=speed, max_pause=max_pause))
        diagram = diagram_of(RunState.fold(replaying.events[:1]))
        return self._run(runtime, replaying.state, execution=replaying, diagram=diagram, view=view)

    @checked_call
    def rerun_node(
        self,
        run: Run | RunResult | RunSummary | str,
        node: str,
        *,
        of: int = 1,
        set: Mapping[str, Any] | None = None,
        model: str | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = False,
        view: bool = True,
    ) -> Run:
        """Run one node of a recorded run by itself, with the inputs that it had; what persons remembered is left out.

            dp.rerun_node(run, "Writer", set={"default_prompt": "Shorter: {{draft}}"})

        Args:
            run: a run, or its id.
            node: label or id of the node.
            of: which run of the node (1-based).
            set: other values of its fields.
            model: use this model; default: as in the run.
            trust: see `start`; by default the node may call models and use a folder of its own, whatever the run was allowed to do.
            budget, view: see `start`.

        Raises:
            UserError: no such run, node or run of the node, or it cannot run by itself.
        """
        opened = run if isinstance(run, Run) else run.run if isinstance(run, RunResult) else self.open_run(run)
        checked_count(of, "of")
        state = opened.state
        node_id = opened.node_id(checked_text(node, "node", "'Writer'"))
        changes = checked_mapping(set, "set", "{'default_prompt': '…'}")
        document, inputs = single_node(state, opened.events, node_id, of, changes)
        return self.start(document, inputs=inputs, model=model or state.model, budget=budget, trust=trust, view=view)

    @checked_call
    def note(
        self, run: Run | RunResult | RunSummary | str, where: slice | range | tuple[int, int] | str | Stretch, text: str
    ) -> None:
        """Write a remark on a stretch of a run; `run.notes` has them, `dp.open_run(run)[120:340]` shows the stretch.

            dp.note(run, (120, 340), "The critic repeats itself from here on.")

        Args:
            run: a run that is executing here or has ended, or its id.
            where: the numbers of two events, from the first up to, and without, the second; a slice, a range, or "120:340"; or
                `run[120:340]`.
            text: 10,000 characters at most.

        Raises:
            UserError: no such run, no such events, or no text.
            StorageError: the run is executing in another process, or was cut off and not resumed.
        """
        checked_text(text, "text", "'Here it goes wrong.'")
        opened = run if isinstance(run, Run) else run.run if isinstance(run, RunResult) else self.open_run(run)
        opened.note(where, text)

    @checked_call
    def diff(
        self,
        before: Run | RunResult | RunSummary | str,
        after: Run | RunResult | RunSummary | str,
        *more: Run | RunResult | RunSummary | str,
    ) -> Differences | SideBySide:
        """Compare two runs: the model, the inputs, the diagram (nodes, persons, arrows), and what every node did, as one drawing
        and word by word. More than two are a table with a column for each.

        Args:
            before, after, more: ids, unambiguous prefixes of them, or runs.

        Raises:
            UserError: no such run.
        """
        old, new, *others = (self._state(run) for run in (before, after, *more))
        return SideBySide([old, new, *others]) if others else Differences(compare(old, new), (old, new))

    def _state(self, run: Run | RunResult | RunSummary | str) -> RunState:
        if isinstance(run, (Run, RunResult)):
            return run.state if isinstance(run, Run) else run.run.state
        return self.open_run(self._id(run)).state

    def _id(self, run: Run | RunResult | RunSummary | str) -> str:
        """The complete id of a run that is given as an object, its result, its row in `runs()`, its id or a prefix of that.

        Raises:
            UserError: it is none of these, or there is no run, or several, with that id.
        """
        if isinstance(run, (Run, RunResult)):
            return run.id
        if isinstance(run, RunSummary):
            return run.run_id
        return run_sync(self.runtime.find_run(checked_text(run, "run", "a Run, or an id; dp.runs() lists them"))).run_id

"""What each run of a node had to wait for, and so the longest chain of a run.

The critical path is found backwards: from the node that ended last, or was at work longest when the run was cut off, to the one
that it had to wait for, and so on to the start. A node waits for the one, among those whose output it takes, that ended last; when
there was no free place then, for the one that freed its place; and when it was held back although there was a free place (behind a loop
that was not over), for the one whose end let it go. Making anything else faster would not have made the run shorter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from dipeo_nb.execution.node_runs import NodeRun, NodeRuns, NodeRunTable
from dipeo_nb.execution.run_metrics import NOTABLE_S


class _Numbers:
    """Run of a node → a number, for runs that nearly always count up from 1."""

    def __init__(self) -> None:
        self._dense = array("q")
        self._others: dict[int, int] = {}

    def get(self, run: int) -> int:
        """The number of a run; -1 when it has none."""
        if 0 < run <= len(self._dense):
            return self._dense[run - 1]
        return self._others.get(run, -1)

    def put(self, run: int, number: int) -> None:
        if 0 < run <= len(self._dense):
            self._dense[run - 1] = number
        elif run == len(self._dense) + 1:
            self._dense.append(number)
        else:
            self._others[run] = number


class Waits:
    """Takes each run of a node that starts, ends or is cut off, in order.

    Args:
        table: the runs.
    """

    def __init__(self, table: NodeRunTable) -> None:
        self._table = table
        self._done: dict[str, _Numbers] = {}
        """Node → run → its place among the ends."""
        self._ends = array("q")
        """The runs that ended, in the order of ends, by their places in the table."""
        self._was_full = bytearray()
        """Of each of them, whether until then no place was free."""
        self._rounds = array("q")
        """Of each of them, how often nodes had been started together before."""
        self._round = 0
        self._starting = False
        """Whether the latest start or end of a node was a start."""
        self._resumed = False
        self._earlier = 0
        """Ends before the run was resumed."""
        self._cut: dict[tuple[str, int], NodeRun] = {}
        """(node, run) → its latest attempt that is made again when the run is resumed."""
        self._at_cut: NodeRun | None = None
        """The one, among the runs that were cut off together last, that had been at work longest."""
        self._failed: NodeRun | None = None
        """The run that made the run fail."""

    def started(self, run: NodeRun) -> None:
        """Note what it waited for (`after`), and since when it was ready; until now that is when the whole run began."""
        if not self._starting:
            self._starting, self._round = True, self._round + 1
        latest = max((self._end_of(*place) for place in run.inputs), default=-1)
        if latest >= 0:
            run.ready_at = max(run.ready_at, self._ended_run(latest).end)
        run.after, held_back = self._waited_for(run, latest)
        if held_back and run.after is not None:
            run.ready_at = max(run.ready_at, run.after.end)

    def ended(self, run: NodeRun, *, was_full: bool, fatal: bool) -> None:
        """It has ended.

        Args:
            was_full: no place was free until then.
            fatal: it failed, and the whole run with it.
        """
        place = run.node_id, run.run
        if fatal:
            self._failed = self._failed or run
            self._cut[place] = run
        self._done.setdefault(run.node_id, _Numbers()).put(run.run, len(self._ends))
        self._ends.append(run.place)
        self._was_full.append(was_full)
        self._rounds.append(self._round)
        self._starting = False

    def ended_run(self, node_id: str, run: int) -> NodeRun | None:
        """A run of a node that has ended; None when it has not."""
        place = self._end_of(node_id, run)
        return None if place < 0 else self._ended_run(place)

    def _end_of(self, node_id: str, run: int) -> int:
        """Its place among the ends; -1: it has not ended."""
        numbers = self._done.get(node_id)
        return -1 if numbers is None else numbers.get(run)

    def _ended_run(self, place: int) -> NodeRun:
        return NodeRun(self._table, self._ends[place])

    def cut_off(self, at_work: Iterable[NodeRun]) -> None:
        """These are cut off."""
        at_work = list(at_work)
        self._at_cut = _longest(at_work)
        self._cut.update({(run.node_id, run.run): run for run in at_work})

    def resumed(self) -> None:
        """The run is resumed after it was cut off."""
        self._resumed = True
        self._earlier, self._failed = len(self._ends), None

    def critical_path(self, at_work: Iterable[NodeRun] | None) -> Sequence[NodeRun]:
        """The longest chain, from the start.

        Args:
            at_work: the runs of nodes that have not ended; None: the run is over, and they were cut off.
        """
        last = self._at_cut if at_work is None else _longest(at_work)
        run = self._failed or last or (self._ended_run(-1) if self._ends else None)
        path, after = array("q"), self._table.after
        place = -1 if run is None else run.place
        while place >= 0:
            path.append(place)
            place = after[place]
        path.reverse()
        return NodeRuns(self._table, path)

    def _waited_for(self, run: NodeRun, latest: int) -> tuple[NodeRun | None, bool]:
        """The run that *run* waited for, and whether that neither brought it an input nor freed its place.

        Args:
            latest: place in `_ends` of its latest input, -1 without any.
        """
        source = self._ended_run(latest) if latest >= 0 else None
        since = max(latest + 1, self._earlier)
        for place in range(len(self._ends) - 1, since - 1, -1):
            if self._was_full[place]:
                return self._ended_run(place), False
        if self._resumed and latest < self._earlier:  # it was ready when the run was cut off
            if len(self._ends) > self._earlier:
                return source, False
            return self._cut.get((run.node_id, run.run)) or self._at_cut or source, False
        if source is None or since == len(self._ends):
            return source, False
        last = self._ended_run(-1)
        held_back = self._round > self._rounds[latest] + 1 or last.end - source.end > NOTABLE_S
        return (last, True) if held_back else (source, False)


def _longest(at_work: Iterable[NodeRun]) -> NodeRun | None:
    return min(at_work, key=lambda run: run.started_at, default=None)

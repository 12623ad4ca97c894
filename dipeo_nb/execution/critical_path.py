"""What each run of a node had to wait for, and so the longest chain of a run.

The critical path is found backwards: from the node that ended last, or was at work longest when the run was cut off, to the one
that it had to wait for, and so on to the start. A node waits for the one, among those whose output it takes, that ended last; when
there was no free place then, for the one that freed its place; and when it was held back although there was a free place (behind a loop
that was not over), for the one whose end let it go. Making anything else faster would not have made the run shorter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

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
    """Takes each run of a node that starts, ends or is cut off, in order; runs are named by their places in the table.

    Args:
        table: the runs.
    """

    def __init__(self, table: NodeRunTable) -> None:
        self._table = table
        self._done: dict[str, _Numbers] = {}
        """Node → run → its place among the ends."""
        self._ends = array("q")
        """The runs that ended, in the order of ends."""
        self._rounds = array("q")
        """Of each of them, how often nodes had been started together before."""
        self._full = -1
        """The latest of these ends until which no place was free; -1: there is none."""
        self._round = 0
        self._starting = False
        """Whether the latest start or end of a node was a start."""
        self._resumed = False
        self._earlier = 0
        """Ends before the run was resumed."""
        self._cut: dict[tuple[str, int], int] = {}
        """(node, run) → its latest attempt that is made again when the run is resumed."""
        self._at_cut = -1
        """The one, among the runs that were cut off together last, that had been at work longest; -1: there is none."""
        self._failed = -1
        """The run that made the run fail; -1: none did."""

    def started(self, node_id: str, run: int, inputs: Iterable[Sequence[Any]], begun_at: float) -> tuple[float, int]:
        """Since when a run of a node that starts was ready, and what it waited for (-1: nothing).

        Args:
            inputs: (node, run) of each.
            begun_at: when the whole run began.
        """
        if not self._starting:
            self._starting, self._round = True, self._round + 1
        latest = -1
        for source, number in inputs:
            if (numbers := self._done.get(source)) is not None and (place := numbers.get(number)) > latest:
                latest = place
        ready_at, ended = begun_at, self._table.ended
        if latest >= 0 and (at := ended[self._ends[latest]]) > ready_at:
            ready_at = at
        if latest >= 0 and latest == len(self._ends) - 1 and latest >= self._earlier:  # nothing else has ended since
            return ready_at, self._ends[latest]
        after, held_back = self._waited_for(node_id, run, latest)
        return max(ready_at, ended[after]) if held_back else ready_at, after

    def ended(self, place: int, node_id: str, run: int, *, was_full: bool, fatal: bool) -> None:
        """It has ended.

        Args:
            was_full: no place was free until then.
            fatal: it failed, and the whole run with it.
        """
        if fatal:
            if self._failed < 0:
                self._failed = place
            self._cut[node_id, run] = place
        end = len(self._ends)
        if (numbers := self._done.get(node_id)) is None:
            numbers = self._done[node_id] = _Numbers()
        numbers.put(run, end)
        self._ends.append(place)
        if was_full:
            self._full = end
        self._rounds.append(self._round)
        self._starting = False

    def ended_run(self, node_id: str, run: int) -> int:
        """A run of a node that has ended; -1 when it has not."""
        numbers = self._done.get(node_id)
        end = -1 if numbers is None else numbers.get(run)
        return -1 if end < 0 else self._ends[end]

    def cut_off(self, at_work: Iterable[int]) -> None:
        """These are cut off."""
        at_work = list(at_work)
        self._at_cut = self._longest(at_work)
        for place in at_work:
            run = NodeRun(self._table, place)
            self._cut[run.node_id, run.run] = place

    def resumed(self) -> None:
        """The run is resumed after it was cut off."""
        self._resumed = True
        self._earlier, self._failed = len(self._ends), -1

    def critical_path(self, at_work: Iterable[int] | None) -> NodeRuns:
        """The longest chain, from the start.

        Args:
            at_work: the runs of nodes that have not ended; None: the run is over, and they were cut off.
        """
        last = self._at_cut if at_work is None else self._longest(at_work)
        place = self._failed
        if place < 0:
            place = self._ends[-1] if last < 0 and self._ends else last
        path, after = array("q"), self._table.after
        while place >= 0:
            path.append(place)
            place = after[place]
        path.reverse()
        return NodeRuns(self._table, path)

    def _waited_for(self, node_id: str, run: int, latest: int) -> tuple[int, bool]:
        """The run that one which starts waited for (-1: none), and whether that neither brought it an input nor freed its place.

        Args:
            latest: the end of its latest input, -1 without any.
        """
        ends = self._ends
        source = ends[latest] if latest >= 0 else -1
        since = max(latest + 1, self._earlier)
        if self._full >= since:
            return ends[self._full], False
        if self._resumed and latest < self._earlier:  # it was ready when the run was cut off
            if len(ends) > self._earlier:
                return source, False
            cut = self._cut.get((node_id, run), self._at_cut)
            return source if cut < 0 else cut, False
        if source < 0 or since == len(ends):
            return source, False
        last, ended = ends[-1], self._table.ended
        held_back = self._round > self._rounds[latest] + 1 or ended[last] - ended[source] > NOTABLE_S
        return (last, True) if held_back else (source, False)

    def _longest(self, at_work: Iterable[int]) -> int:
        """The one that has been at work longest; -1 without any."""
        return min(at_work, key=self._table.started.__getitem__, default=-1)

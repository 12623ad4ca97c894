"""What each run of a node had to wait for, and so the longest chain of a run.

The critical path is found backwards: from the node that ended last, or was at work longest when the run was cut off, to the one
that it had to wait for, and so on to the start. A node waits for the one, among those whose output it takes, that ended last; when
there was no free place then, for the one that freed its place; and when it was held back although there was a free place (behind a loop
that was not over), for the one whose end let it go. Making anything else faster would not have made the run shorter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dipeo_nb.execution.run_metrics import NOTABLE_S, NodeRun


class _Ended(NamedTuple):
    """A run of a node that ended, in the order of ends."""

    run: NodeRun
    was_full: bool
    """Whether until then no place was free."""
    round: int
    """How often nodes had been started together before."""


class Waits:
    """Takes each run of a node that starts, ends or is cut off, in order."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int], int] = {}
        """(node, run) → place in `_ends`."""
        self._ends: list[_Ended] = []
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
        latest = max((self._done[place] for place in run.inputs if place in self._done), default=-1)
        if latest >= 0:
            run.ready_at = max(run.ready_at, self._ends[latest].run.end)
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
        self._done[place] = len(self._ends)
        self._ends.append(_Ended(run, was_full, self._round))
        self._starting = False

    def ended_run(self, node_id: str, run: int) -> NodeRun | None:
        """A run of a node that has ended; None when it has not."""
        place = self._done.get((node_id, run))
        return None if place is None else self._ends[place].run

    def cut_off(self, at_work: Iterable[NodeRun]) -> None:
        """These are cut off."""
        at_work = list(at_work)
        self._at_cut = _longest(at_work)
        self._cut.update({(run.node_id, run.run): run for run in at_work})

    def resumed(self) -> None:
        """The run is resumed after it was cut off."""
        self._resumed = True
        self._earlier, self._failed = len(self._ends), None

    def critical_path(self, at_work: Iterable[NodeRun] | None) -> list[NodeRun]:
        """The longest chain, from the start.

        Args:
            at_work: the runs of nodes that have not ended; None: the run is over, and they were cut off.
        """
        last = self._at_cut if at_work is None else _longest(at_work)
        run = self._failed or last or (self._ends[-1].run if self._ends else None)
        path: list[NodeRun] = []
        while run is not None:
            path.append(run)
            run = run.after
        return path[::-1]

    def _waited_for(self, run: NodeRun, latest: int) -> tuple[NodeRun | None, bool]:
        """The run that *run* waited for, and whether that neither brought it an input nor freed its place.

        Args:
            latest: place in `_ends` of its latest input, -1 without any.
        """
        source = self._ends[latest].run if latest >= 0 else None
        since = max(latest + 1, self._earlier)
        for place in range(len(self._ends) - 1, since - 1, -1):
            if self._ends[place].was_full:
                return self._ends[place].run, False
        if self._resumed and latest < self._earlier:  # it was ready when the run was cut off
            if len(self._ends) > self._earlier:
                return source, False
            return self._cut.get((run.node_id, run.run)) or self._at_cut or source, False
        if source is None or since == len(self._ends):
            return source, False
        last = self._ends[-1].run
        held_back = self._round > self._ends[latest].round + 1 or last.end - source.end > NOTABLE_S
        return (last, True) if held_back else (source, False)


def _longest(at_work: Iterable[NodeRun]) -> NodeRun | None:
    return min(at_work, key=lambda run: run.started_at, default=None)

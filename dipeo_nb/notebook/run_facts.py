"""The properties of a run that are computed from its event log."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.spending import Spending
from dipeo_nb.execution import run_file
from dipeo_nb.execution.metrics import Counting, RunMetrics
from dipeo_nb.execution.options import checked_text
from dipeo_nb.execution.run_copies import Given, copied, input_facts
from dipeo_nb.execution.run_errors import no_node
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.explanation import RunExplanation
from dipeo_nb.notebook.stretch import Notes, Stretch, bounds
from dipeo_nb.notebook.tables import Events, Outputs, Table
from dipeo_nb.notebook.timeline import Timeline, TimelineReader
from dipeo_nb.notebook.transcript import Transcript

TIMELINE_EVENTS = 20_000
"""Events of a run that are read for its timeline, at most."""
_NODE_KINDS = {"node": str, "status": str, "runs": int, "seconds": float, "tokens": int, "cost_usd": float}


class RunFacts(ABC):
    """The reading side of `Run`."""

    _state: RunState

    @property
    @abstractmethod
    def state(self) -> RunState:
        """The state after the events so far: a copy, which does not change while the run continues."""

    @property
    @abstractmethod
    def status(self) -> str:
        """pending, running, completed, failed, aborted or interrupted."""

    @property
    @abstractmethod
    def events(self) -> Events:
        """All events so far, from the run store."""

    @abstractmethod
    def _read(self, take: Callable[[Iterable[Event]], object]) -> None:
        """Give the events so far to *take*, some at a time, without holding the others."""

    @abstractmethod
    def _logs(self) -> list[run_file.Log]:
        """The run as it is now, and behind it those of its sub-diagrams."""

    @property
    @abstractmethod
    def _seen(self) -> RunState:
        """The state itself; reading it counts as reading the outcome."""

    @property
    @abstractmethod
    def id(self) -> str:
        """The id under which the run store has the run."""

    @abstractmethod
    def _add_note(self, first: int, last: int | None, text: str) -> None:
        """Store a note on these events."""

    @abstractmethod
    def _catch_up(self) -> None:
        """Apply notes that were written elsewhere since the run ended."""

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Endpoint label → value."""
        return Outputs(dict(self._state.outputs))

    @property
    def usage(self) -> TokenUsage:
        return self._state.usage

    @property
    def cost(self) -> float | None:
        """US dollars; None when nothing was spent yet or a price is unknown."""
        return self._state.cost_usd

    @property
    def persons(self) -> Mapping[str, Spending]:
        """Label of each person that answered → usage, cost_usd, calls."""
        return self.state.persons

    @property
    def error(self) -> Mapping[str, Any] | None:
        """type, message, node, hint of what made it fail."""
        return self._seen.error

    @property
    def conversation(self) -> Transcript:
        state = self.state
        return Transcript(state.conversation, state.turns, state.labels)

    def node(self, reference: str) -> Any:
        """State of a node by label or id.

        Raises:
            UnknownNodeError: there is no such node; the hint has the nearest label.
        """
        return self.state.nodes[self.node_id(reference)]

    @property
    def nodes(self) -> Table:
        """One row per node, in the order in which they first ran: node, status, runs, seconds, tokens, cost_usd, output."""
        state = self.state
        rows = (
            {
                "node": state.label(i),
                "status": str(n.status),
                "runs": n.runs,
                "seconds": round(n.duration_s, 3),
                "tokens": n.usage.total,
                "cost_usd": n.cost_usd,
                "output": n.output,
            }
            for i, n in static_view.in_order(state)
        )
        return Table(rows, _NODE_KINDS)

    @property
    def metrics(self) -> RunMetrics:
        """Where its time and money went so far: per node and in total, working and waiting, the critical path, bottlenecks."""
        counting = Counting()
        self._read(counting.take_all)
        return replace(counting.result(), status=self.status)

    @property
    def notes(self) -> Notes:
        """Remarks on the run: first, last (numbers of events), text, at."""
        self._catch_up()
        return Notes(self.state.notes)

    @checked_call
    def note(self, where: slice | range | tuple[int, int] | str | Stretch, text: str) -> None:
        """Write a remark on a stretch of the run: `run.note((120, 340), "here it goes wrong")`; see `dp.note`."""
        checked_text(text, "text", "run.note((120, 340), 'here it goes wrong')")
        self._add_note(*bounds(where), text)

    def __getitem__(self, where: Any) -> Stretch:
        """A stretch of the run: `run[120:340]` has the events from number 120 up to, and without, 340."""
        return Stretch(self, self._read, *bounds(where))

    @property
    def timeline(self) -> Timeline | None:
        """When its nodes worked and waited; None for a run that is too long to be read for a picture."""
        if self._state.events > TIMELINE_EVENTS:
            return None
        reader = TimelineReader()
        self._read(reader.take_all)
        return reader.result()

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Inputs of the run and of its start node: name, value, default, and kind (`text`, `number`, `boolean` or `json`); with
        others, `fork(inputs={…})` runs it again."""
        return input_facts(self.state)

    @checked_call
    def as_python(self, node: str | None = None, *, of: int | None = None) -> str:
        """A program that does the same again: the run, or the question that a model was asked by one of its nodes.

        Args:
            node: label or id of a node with a person; None: the whole run.
            of: which run of the node (1-based); default: the last one.

        Raises:
            UserError: the record does not have the diagram, or the node asked no model.
        """
        return self.copied("python", None if node is None else self.node_id(node), of)

    @checked_call
    def as_test(self) -> str:
        """A test for pytest that needs no model: with the recorded answers of models and people, the outputs are those of the run.

        Raises:
            UserError: the run did not complete, the record does not have the diagram, or it has runs of sub-diagrams.
        """
        return self.copied("test")

    def copied(self, kind: str, node_id: str | None = None, of: int | None = None) -> str:
        """The run, or one of its nodes, as a text of Python: what `as_python` and `as_test` return.

        Raises:
            UserError: as these; or there is no such form.
        """
        given = Given()
        if node_id is None:
            self._read(given.take_all)
        return copied(self.state, given, kind, node_id, of)

    def node_id(self, reference: str) -> str:
        """Id of a node by label or id.

        Raises:
            UnknownNodeError: there is no such node; the hint has the nearest label.
        """
        state = self.state
        for node_id in state.nodes:
            if reference in (node_id, state.label(node_id)):
                return node_id
        raise no_node(reference, state.labels.values())

    def explain(self) -> RunExplanation:
        """Explain what happened, in words and a table, from the event log; no model is called."""
        return RunExplanation(self.metrics)

    def to_dataframe(self) -> Any:
        """`nodes` as a pandas DataFrame. Its columns have the same types for every run, so frames can be concatenated.

        Raises:
            MissingDependencyError: pandas is not installed; `nodes` has the same rows without it.
        """
        return self.nodes.to_dataframe()

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the run, as far as it has come, to *path* as one HTML file: the view with its drawing, timeline and log, which
        opens offline in a browser. It needs no kernel, holds all texts of the run (without known secrets) and loads nothing. Of a
        run of more than 100,000 events it has the last ones and what those before led to; `dipeo-nb export RUN -o run.jsonl` writes all.

        Opened as `run.html#120`, it shows the moment of event 120.
        """
        file = Path(path)
        write_atomic(file, run_sync(run_file.html(self._logs())).encode())
        return file

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values, exactly the object that `dipeo-nb run --json` prints: run_id, status, diagram, outputs,
        node_runs, node_status, usage, cost_usd, duration_s, events, notes, error."""
        return json.loads(json_text(self._seen.report()))

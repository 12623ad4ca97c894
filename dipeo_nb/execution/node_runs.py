"""The runs of the nodes of a run, as columns: a run of a million events has half a million of them.

`NodeRun` is a row of the table, and as small as a pair; the values stand in arrays, which Python's garbage collector does not go
through.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import Status

_NONE = float("nan")
_RARE: Mapping[str, Any] = {
    "asked_s": 0.0, "first_text_s": None, "usage": TokenUsage(), "cost_usd": None, "calls": 0, "model": None, "retries": 0,
    "reused": False, "kept_at": None,
}  # fmt: skip
"""Fields that most runs of nodes do not have, with their values then."""


class NodeRunTable:
    """All runs of nodes, in the order in which they started."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], int] = {}
        self.nodes: list[tuple[str, str, str]] = []
        """(id, label, type) of each node."""
        self._status_numbers: dict[str, int] = {}
        self.statuses: list[str] = []
        self._running: int = self.status_number(Status.RUNNING)
        self.node: array[int] = array("q")
        self.status: array[int] = array("q")
        self.run: array[int] = array("q")
        self.after: array[int] = array("q")
        """The run that it had to wait for; -1: it could begin with the run."""
        self.ready: array[float] = array("d")
        self.started: array[float] = array("d")
        self.ended: array[float] = array("d")
        """Not a number: it is at work, or was cut off."""
        self.cut: dict[int, float] = {}
        self._sources: dict[str, int] = {}
        self.source_ids: list[str] = []
        self.sources: array[int] = array("q")
        self.source_runs: array[int] = array("q")
        self.ends_of_inputs: array[int] = array("q")
        """(node, run) of each input, and for each run of a node where its inputs end."""
        self.rare: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.run)

    def add(
        self,
        node: tuple[str, str, str],
        run: int,
        ready_at: float,
        started_at: float,
        after: int,
        inputs: Iterable[Sequence[Any]],
    ) -> int:
        """Add a run of a node that starts; its place.

        Args:
            node: its id, label and type.
            after: place of the run that it had to wait for, or -1.
            inputs: (id of the node, its run) of each input.
        """
        if (kind := self._kinds.get(node)) is None:
            kind = self._kinds[node] = len(self.nodes)
            self.nodes.append(node)
        for source, number in inputs:
            if (source_place := self._sources.get(source)) is None:
                source_place = self._sources[source] = len(self.source_ids)
                self.source_ids.append(source)
            self.sources.append(source_place)
            self.source_runs.append(number)
        place = len(self.run)
        self.ends_of_inputs.append(len(self.sources))
        self.node.append(kind)
        self.run.append(run)
        self.ready.append(ready_at)
        self.started.append(started_at)
        self.ended.append(_NONE)
        self.after.append(after)
        self.status.append(self._running)
        return place

    def status_number(self, status: str) -> int:
        if (number := self._status_numbers.get(status)) is None:
            number = self._status_numbers[status] = len(self.statuses)
            self.statuses.append(status)
        return number


class NodeRun:
    """One run of one node. Times are seconds since the epoch, UTC."""

    __slots__ = ("_table", "place")

    _fields = (
        "node_id", "label", "type", "run", "ready_at", "started_at", "ended_at", "cut_at", "status", "inputs", "asked_s", "first_text_s",
        "usage", "cost_usd", "calls", "model", "retries", "reused", "kept_at",
    )  # fmt: skip

    def __init__(self, table: NodeRunTable, place: int) -> None:
        self._table = table
        self.place: int = place
        """Its number, in the order in which runs of nodes started, from 0."""

    @property
    def node_id(self) -> str:
        return self._table.nodes[self._table.node[self.place]][0]

    @property
    def label(self) -> str:
        return self._table.nodes[self._table.node[self.place]][1]

    @property
    def type(self) -> str:
        return self._table.nodes[self._table.node[self.place]][2]

    @property
    def run(self) -> int:
        return self._table.run[self.place]

    @property
    def ready_at(self) -> float:
        """When the last of its inputs was there."""
        return self._table.ready[self.place]

    @property
    def started_at(self) -> float:
        return self._table.started[self.place]

    @property
    def ended_at(self) -> float | None:
        """None: it is at work, or was cut off."""
        ended = self._table.ended[self.place]
        return None if ended != ended else ended

    @property
    def cut_at(self) -> float | None:
        """When it was cut off; while it is at work, the time of the run's latest event."""
        return self._table.cut.get(self.place)

    @property
    def status(self) -> str:
        return self._table.statuses[self._table.status[self.place]]

    @property
    def inputs(self) -> list[tuple[str, int]]:
        """(id of the node, its run) of each input."""
        table, place = self._table, self.place
        begin, end = table.ends_of_inputs[place - 1] if place else 0, table.ends_of_inputs[place]
        return [(table.source_ids[table.sources[n]], table.source_runs[n]) for n in range(begin, end)]

    @property
    def after(self) -> NodeRun | None:
        """The run that it had to wait for; None: it could begin with the run."""
        place = self._table.after[self.place]
        return None if place < 0 else NodeRun(self._table, place)

    @property
    def asked_s(self) -> float:
        """Seconds that it waited for somebody's answer."""
        return self._rare("asked_s")

    @property
    def first_text_s(self) -> float | None:
        """Seconds from its start to the first piece of text of a model."""
        return self._rare("first_text_s")

    @property
    def usage(self) -> TokenUsage:
        return self._rare("usage")

    @property
    def cost_usd(self) -> float | None:
        return self._rare("cost_usd")

    @property
    def calls(self) -> int:
        """Calls of models."""
        return self._rare("calls")

    @property
    def model(self) -> str | None:
        return self._rare("model")

    @property
    def retries(self) -> int:
        return self._rare("retries")

    @property
    def reused(self) -> bool:
        """Taken over from the run that this one is a fork of."""
        return self._rare("reused")

    @property
    def kept_at(self) -> float | None:
        """When an item of a batch was last recorded, which is not done again."""
        return self._rare("kept_at")

    @property
    def waiting_s(self) -> float:
        """Seconds that it was ready and not at work: there was no free place."""
        return max(0.0, self.started_at - self.ready_at)

    @property
    def working_s(self) -> float:
        """Seconds at work, without those that it waited for an answer; of a run that was cut off, too."""
        return max(0.0, self.end - self.started_at - self.asked_s)

    @property
    def end(self) -> float:
        """Until when it was at work."""
        table, place = self._table, self.place
        end = table.ended[place]
        return table.cut.get(place, table.started[place]) if end != end else end

    def note(self, **fields: Any) -> None:
        """Set fields that most runs do not have; their usual values take no room."""
        for name, value in fields.items():
            if value != _RARE[name]:
                self._table.rare.setdefault(self.place, {})[name] = value
            elif self.place in self._table.rare:
                self._table.rare[self.place].pop(name, None)

    def paid(self, usage: Mapping[str, Any], cost: float | None, calls: int) -> None:
        """Add calls of models."""
        known = self.cost_usd if self.calls else 0.0
        self.note(
            usage=self.usage + TokenUsage.from_dict(usage),
            cost_usd=None if known is None or cost is None else known + cost,
            calls=self.calls + calls,
        )

    def _rare(self, name: str) -> Any:
        found = self._table.rare.get(self.place)
        return _RARE[name] if found is None else found.get(name, _RARE[name])

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, NodeRun) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]
    __repr__ = bounded_repr


class NodeRuns(Sequence[NodeRun]):
    """Some runs of nodes, each made when it is asked for.

    Args:
        places: which of the table, in order; default: all.
    """

    def __init__(self, table: NodeRunTable, places: Sequence[int] | None = None) -> None:
        self._table = table
        self._places: Sequence[int] = range(len(table)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> NodeRun: ...
    @overload
    def __getitem__(self, index: slice) -> NodeRuns: ...
    def __getitem__(self, index: int | slice) -> NodeRun | NodeRuns:
        if isinstance(index, slice):
            return NodeRuns(self._table, self._places[index])
        return NodeRun(self._table, self._places[index])

    def __iter__(self) -> Iterator[NodeRun]:
        return (NodeRun(self._table, place) for place in self._places)

    def work(self) -> Iterator[tuple[tuple[str, str, str], int, float]]:
        """(id, label, type) of the node, the run and `working_s` of each, in a fraction of the time of asking each of them."""
        table = self._table
        nodes, node, run, started, ended, rare = table.nodes, table.node, table.run, table.started, table.ended, table.rare
        for place in self._places:
            began, end = started[place], ended[place]
            if end != end:
                end = table.cut.get(place, began)
            worked = end - began
            if place in rare:
                worked -= rare[place].get("asked_s", 0.0)
            yield nodes[node[place]], run[place], worked if worked > 0.0 else 0.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (NodeRuns, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        more = f", … {len(self) - 3} more" if len(self) > 3 else ""
        return f"[{', '.join(map(repr, self[:3]))}{more}]"


class Distinct:
    """Counts different numbers, which nearly always count up from 1, so that most of them need not be kept."""

    __slots__ = ("_others", "_to")

    def __init__(self) -> None:
        self._to = 0
        """All from 1 to here were there."""
        self._others: set[int] = set()

    def add(self, number: int) -> None:
        if number == self._to + 1:
            self._to = number
        elif not 0 < number <= self._to:
            self._others.add(number)

    def __len__(self) -> int:
        return self._to + sum(not 0 < number <= self._to for number in self._others)

"""The beginning of a long run, for a page that holds only its end: one row, with the state after that beginning.

A page of a million events takes a browser half a minute and two gigabytes. What the row says is what `fold.js` would know after all the
events that it stands for, but for what was in the runs of a node before its last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.spending import Spending
from dipeo_nb.execution.live_clock import LiveClock
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_state import RunState

TYPE = "left_out"
"""What stands in the place of the type of an event."""
MESSAGES = 1_000
"""Of the conversation before, at most: the last ones."""


@dataclass(slots=True)
class _Turns:
    """The runs of one node, as `fold.js` counts them: each attempt is one."""

    count: int = 0
    seconds: float = 0.0
    """Of those before the last one."""
    sources: set[str] = field(default_factory=set[str])
    """Nodes from which values came."""
    children: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Id of each run of a sub-diagram → what its event says of it."""
    # Of the last one:
    seq: int = 0
    start: float = 0.0
    messages: int = 0
    """Of the conversation when it began."""
    started: Mapping[str, Any] = field(default_factory=dict[str, Any])
    end: float | None = None
    end_seq: int | None = None
    ended: Mapping[str, Any] | None = None
    status: str = Status.RUNNING

    def begins(self, seq: int, at: float, messages: int, payload: Mapping[str, Any]) -> None:
        if self.count:
            self.seconds += (at if self.end is None else self.end) - self.start
        self.count += 1
        self.seq, self.start, self.messages, self.started = seq, at, messages, payload
        self.end = self.end_seq = self.ended = None
        self.status = Status.RUNNING
        self.sources.update(one[0] for one in (payload.get("inputs") or {}).values())
        self.sources.update(one[0] for one in payload.get("arrived") or ())

    def ends(self, seq: int, at: float, status: str, result: Mapping[str, Any]) -> None:
        self.end_seq, self.end, self.status = seq, at, status
        self.ended = result if self.ended is None else {**self.ended, **result}

    def close(self, status: str, at: float) -> None:
        """End the one in flight with the run."""
        if self.count and self.end is None:
            self.status, self.end = status, at


class LeftOut:
    """Takes the events in that a page is not given."""

    def __init__(self) -> None:
        self.state = RunState()
        self._clock = LiveClock()
        self._nodes: dict[str, _Turns] = {}

    def take_all(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            self.state.apply(event)
            self._clock.take(event)
            if event.node_id is not None:
                self._of_node(event, event.node_id)
            elif event.type in FINAL_EVENTS or event.type is EventType.EXECUTION_STARTED:
                for node_id, turns in self._nodes.items():
                    turns.close(self.state.nodes[node_id].status, self._clock.seconds)

    def row(self) -> list[Any]:
        """What the page is given in the place of all events but the first one."""
        state, clock = self.state, self._clock
        return [state.events, TYPE, clock.at, None, {
            "from": 2,
            "time": clock.seconds,
            "status": state.status,
            "labels": _pairs(state.labels),
            "order": state.order,
            "ended": state.ended_at is not None,
            "seconds": state.duration_s,
            "error": state.error,
            "spent": _spent(state.spent),
            "persons": [[name, _spent(spent)] for name, spent in state.persons.items()],
            "outputs": _pairs(state.outputs),
            "conversation": state.conversation[-MESSAGES:],
            "questions": [[key, {**asked, "at": self._live(asked["asked_at"])}] for key, asked in state.questions.items()],
            "systems": _pairs(state.systems),
            "notes": state.notes,
            "resumed": state.resumed,
            "nodes": [[node_id, self._node(node, self._nodes.get(node_id) or _Turns())] for node_id, node in state.nodes.items()],
        }]  # fmt: skip

    def _of_node(self, event: Event, node_id: str) -> None:
        kind, p = event.type, event.payload
        turns = self._nodes.get(node_id)
        if kind is EventType.NODE_STARTED:
            if turns is None:
                turns = self._nodes[node_id] = _Turns()
            turns.begins(event.seq, self._clock.seconds, len(self.state.conversation), p)
        elif turns is None:
            return
        elif kind is EventType.NODE_COMPLETED:
            status = p.get("status", Status.COMPLETED)
            if status != Status.MAXITER_REACHED:  # else nothing ran
                result = {"output": p.get("output"), "meta": p.get("meta", {}), "globals": p.get("globals")}
                turns.ends(event.seq, self._clock.seconds, status, result)
        elif kind is EventType.NODE_ERROR:
            result = {"error": p.get("error"), "meta": p.get("meta", {})}
            turns.ends(event.seq, self._clock.seconds, Status.FAILED, result)
        elif kind is EventType.NODE_OUTPUT and p.get("kind") == "run":
            turns.children.setdefault(p["data"]["run_id"], p["data"])

    def _node(self, node: NodeState, turns: _Turns) -> dict[str, Any]:
        return {
            "status": node.status,
            "runs": node.runs,
            "seconds": node.duration_s,
            "error": node.error,
            "output": node.output,
            "text": node.text,
            "progress": _pairs(node.progress),
            "meta": node.meta,
            "spent": _spent(node.spent),
            "retries": node.retries,
            "reused": node.reused,
            "children": [turns.children.get(child, {"run_id": child}) for child in node.children],
            "paid": list(node.paid),
            "pieces": node.pieces,
            "estimated": node.estimated,
            "waiting": None if node.waiting_since is None else self._live(node.waiting_since),
            "earlier": {"turns": max(turns.count - 1, 0), "seconds": turns.seconds, "from": sorted(turns.sources)},
            "last": {
                "seq": turns.seq,
                "start": turns.start,
                "messages": max(turns.messages - max(len(self.state.conversation) - MESSAGES, 0), 0),
                "started": turns.started,
                "end": turns.end,
                "endSeq": turns.end_seq,
                "ended": turns.ended,
                "status": turns.status,
                "sent": _pairs(node.sent),
            } if turns.count else None,
        }  # fmt: skip

    def _live(self, at: float) -> float:
        """The live time of a moment of the last stretch in which the run was at work."""
        return max(0.0, self._clock.seconds - max(0.0, (self._clock.at or at) - at))


def _pairs(values: Mapping[str, Any]) -> list[list[Any]]:
    # ids and labels may be names that every object of JavaScript has
    return [[name, value] for name, value in values.items()]


def _spent(spent: Spending) -> dict[str, Any]:
    usage = {name: count for name, count in spent.usage.to_dict().items() if name != "total"}
    return {"usage": usage, "known": spent.known_usd, "complete": spent.complete, "calls": spent.calls}

"""Folds over a run's events: what the live view, the static picture, the CLI and the result show.

`RunState` is the only reading of a log that shows anything; feed it events in order, from the store or live.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import (
    ExecutionCompleted,
    ExecutionError,
    ExecutionStarted,
    InteractivePrompt,
    InteractiveResponse,
    NodeCompleted,
    NodeError,
    NodeMeta,
    NodeOutput,
    NodeStarted,
    PromptOutput,
    UsageData,
)
from dipeo_nb.domain.spending import Spending
from dipeo_nb.execution.asked import Asked
from dipeo_nb.execution.node_state import NONE, NOTHING, UNSPENT, Accounted, Children, NodeState

TEXT_LIMIT = 100_000
"""Characters of streamed text kept per node."""
PROGRESS_LIMIT = 200
"""Lines of progress kept per node."""
_ABSENT: Any = object()
_SIMPLE_META = frozenset({"branch", "variables_of_run"})
"""Facts in the `meta` of a finished node that add nothing to the state."""
_RUNNING, _COMPLETED, _MAXITER_REACHED = Status.RUNNING, Status.COMPLETED, Status.MAXITER_REACHED


@dataclass(slots=True)
class RunState(Accounted):
    """A run as its log tells it, up to `events`."""

    run_id: str = ""
    status: str = Status.PENDING
    diagram: str = ""
    model: str | None = None
    nodes: dict[str, NodeState] = field(default_factory=dict[str, NodeState])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    """Node id → label, in file order."""
    order: list[str] = field(default_factory=list[str])
    """Node ids in the order of their first start."""
    source: Mapping[str, Any] | None = None
    """The diagram that ran, in native form."""
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float = 0.0
    error: Mapping[str, Any] | None = None
    """type, message, node (label), hint."""
    spent: Spending = field(default_factory=Spending)
    persons: dict[str, Spending] = field(default_factory=dict[str, Spending])
    """Label of a person → what its answers took."""
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Endpoint label → value."""
    conversation: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Messages in order: id, from_person_id, to_person_id, content, message_type, timestamp, node_id."""
    turns: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """What persons did, in order: node_id, run, person_id, prompt, memory (see `handlers.person_job.Remembered.facts`), messages
    (those that the turn added; none for a decision), answer; and as far as the log tells system, template, variables, model."""
    systems: dict[str, str] = field(default_factory=dict[str, str])
    """Person → its system prompt, once it was sent."""
    questions: Asked = field(default_factory=Asked)
    """request_id → request_id, node_id, label, prompt, timeout, default, asked_at of each question now waiting; of some also kind,
    choices, arguments and tool."""
    parent: str | None = None
    forked_from: Mapping[str, Any] | None = None
    """run_id, node, run: what the run is a fork of."""
    resumed: int = 0
    """How often the run was interrupted and resumed."""
    events: int = 0
    """Number of the last event applied."""
    notes: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Remarks on stretches of the log, in order: first, last (numbers of events), text, at (seconds since the epoch), seq."""

    __repr__ = bounded_repr

    @classmethod
    def fold(cls, events: Iterable[Event]) -> RunState:
        """The state after *events*."""
        state = cls()
        state.apply_all(events)
        return state

    @classmethod
    def fresh(cls, run_id: str, diagram: str, labels: Mapping[str, str]) -> RunState:
        """The state before the first event: every node of the diagram is there, pending."""
        return cls(run_id, diagram=diagram, labels=dict(labels), nodes={node_id: NodeState() for node_id in labels})

    @property
    def finished(self) -> bool:
        """Whether the last event of the run was seen."""
        return self.ended_at is not None

    @property
    def estimated_tokens(self) -> int:
        """Tokens that are not accounted for, an estimate: of answers that were cut off, and of those under way."""
        return sum(node.estimated + node.pieces for node in list(self.nodes.values()))

    @property
    def pending_question(self) -> Mapping[str, Any] | None:
        """The question that waits longest for an answer."""
        return next(iter(list(self.questions.values())), None)  # the loop thread changes it meanwhile

    def snapshot(self) -> RunState:
        """A copy that nothing changes any more. The caller sees to it that no event is applied meanwhile."""
        copied = copy.copy(self)
        copied.nodes = {node_id: node.snapshot() for node_id, node in self.nodes.items()}
        copied.spent = copy.copy(self.spent)
        copied.persons = {name: copy.copy(spent) for name, spent in self.persons.items()}
        copied.questions = Asked(self.questions)
        for name in ("labels", "outputs", "systems"):
            setattr(copied, name, dict(getattr(self, name)))
        for name in ("order", "conversation", "turns", "notes"):
            setattr(copied, name, list(getattr(self, name)))
        return copied

    def report(self) -> dict[str, Any]:
        """The run in a few JSON values: what `run --json` prints and the server answers."""
        error = self.error
        return {
            "run_id": self.run_id,
            "status": str(self.status),
            "diagram": self.diagram,
            "outputs": self.outputs,
            "node_runs": {self.label(i): n.runs for i, n in list(self.nodes.items())},
            "node_status": {self.label(i): str(n.status) for i, n in list(self.nodes.items())},
            "usage": self.usage.to_dict(),
            "cost_usd": self.cost_usd,
            "duration_s": round(self.duration_s, 3),
            "events": self.events,
            "notes": [{name: note[name] for name in ("first", "last", "text")} for note in self.notes],
            "error": None if error is None else {key: error.get(key) for key in ("type", "message", "node", "hint")},
        }

    def fail(self, error: Mapping[str, Any], at: float) -> None:
        """The end of a run that no event tells of: it could not be recorded."""
        self.status, self.error, self.ended_at = Status.FAILED, error, at
        self.questions.clear()
        for node in list(self.nodes.values()):
            if node.status == Status.RUNNING:
                node.status = Status.ABORTED
            self._settle(node)

    def in_source(self, part: str) -> list[Mapping[str, Any]]:
        """The `nodes`, `arrows` or `persons` of the recorded diagram, which in native form are a list or a mapping by id."""
        found = (self.source or {}).get(part) or ()
        return list(found.values() if isinstance(found, Mapping) else found)

    def label(self, node_id: str) -> str:
        return self.labels.get(node_id, node_id)

    def apply(self, event: Event) -> None:
        """Take one event in; events come in order, each once."""
        self.events = event.seq
        handler = _APPLY.get(event.type)
        if handler is not None:
            handler(self, event)

    def apply_all(self, events: Iterable[Event]) -> None:
        """Take events in, as `apply` does."""
        find, event = _APPLY.get, None
        try:
            for event in events:
                if (handler := find(event[1])) is not None:
                    handler(self, event)
        finally:
            if event is not None:
                self.events = event[0]

    # One method per event type, in the order of a run.

    def _execution_started(self, event: Event) -> None:
        p = cast(ExecutionStarted, event.payload)
        if "resumed" in p:
            self._go_on()
            return
        self.run_id = event.run_id
        self.status = Status.RUNNING
        self.forked_from = p.get("forked_from")
        self.started_at = event.occurred_at
        self.diagram = p.get("diagram", "")
        self.model = p.get("model")
        self.variables = p.get("variables", {})
        self.source = p.get("source")
        self.parent = p.get("parent")
        self.labels = dict(p.get("labels", {}))
        self.nodes = {node_id: self.nodes.get(node_id) or NodeState() for node_id in self.labels}

    def _go_on(self) -> None:
        """The run is resumed after an interruption: what was in flight is interrupted, and what it had paid stays spent."""
        self.resumed += 1
        self.status, self.ended_at, self.error = Status.RUNNING, None, None
        self.questions.clear()
        for node in self.nodes.values():
            if node.status in (Status.RUNNING, Status.ABORTED):
                node.status = Status.INTERRUPTED
            self._settle(node)

    def _settle(self, node: NodeState) -> None:
        for call in node.paid:
            self._account(node, {"calls": 1, **call})
        node.paid = NONE
        node.estimated += node.pieces
        node.pieces, node.waiting_since = 0, None

    def _node_waiting(self, event: Event) -> None:
        if (node := self.nodes.get(event.node_id or "")) is not None:
            node.waiting_since = event.occurred_at

    def _node_started(self, event: Event) -> None:
        at, node_id = event[3], event[4]
        assert node_id is not None
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = NodeState()
            self.labels.setdefault(node_id, cast(NodeStarted, event.payload).get("label", node_id))
        if node.started_at is None:
            self.order.append(node_id)
        node.status = _RUNNING
        node.started_at = at
        node.text = ""
        node.waiting_since = node.error = None
        if node.pieces:
            node.estimated += node.pieces
            node.pieces = 0
        node.sent = node.progress = NOTHING

    def _node_output(self, event: Event) -> None:
        if (node := self.nodes.get(event.node_id or "")) is None or "kind" not in event.payload:
            return
        p = cast(NodeOutput, event.payload)
        match p["kind"]:
            case "text" | "stdout":
                if p.get("restart"):
                    node.text = ""
                node.text = (node.text + p.get("text", ""))[-TEXT_LIMIT:]
                if p["kind"] == "text" and p.get("text"):
                    node.pieces += p.get("pieces", 1)
            case "reasoning":
                node.pieces += p.get("pieces", 1)
            case "prompt":
                self._prompt_sent(node, p)
            case "usage":
                if p.get("background"):  # the node has finished
                    self._account(node, {"calls": 1, **p["data"]})
                else:
                    node.paid = node.paid or []
                    node.paid.append(p["data"])
                    node.pieces = 0
            case "run":
                if type(node.children) is not Children:
                    node.children = Children(node.children)
                node.children.add(p["data"]["run_id"])
            case "progress":
                data = p.get("data") or {}
                node.progress = node.progress or {}
                node.progress[f"{data.get('run_id', '')} {data.get('node', '')}"] = p.get("text", "")
                if len(node.progress) > PROGRESS_LIMIT:
                    del node.progress[next(iter(node.progress))]
            case _:
                pass

    def _prompt_sent(self, node: NodeState, p: PromptOutput) -> None:
        data = p["data"]
        person = data["person_id"]
        if "system" in data:
            self.systems[person] = data["system"]
        system = {"system": self.systems[person]} if person in self.systems else {}
        node.sent = node.sent or {}
        node.sent[str(data.get("index", ""))] = {"prompt": p["text"], **data, **system}

    def _node_completed(self, event: Event) -> None:
        p: NodeCompleted = event[5]  # pyright: ignore[reportAssignmentType] - a call less
        node_id = event[4]
        assert node_id is not None
        node = self.nodes[node_id]
        node.status = status = p.get("status", _COMPLETED)
        if status == _MAXITER_REACHED:
            return  # nothing ran: the last output was passed on
        node.runs = p.get("run") or node.runs + 1
        node.ended_at = event[3]
        node.duration_s += p.get("duration_ms", 0.0) / 1000
        node.output = p.get("output")
        node.pieces = 0
        if node.paid:
            node.paid = NONE
        if meta := p.get("meta"):
            node.meta = meta
            node.reused = "reused" in meta
            if not meta.keys() <= _SIMPLE_META:
                self._with_meta(event, node, meta)
        elif node.meta:
            node.meta = NOTHING
            node.reused = False
        if p.get("node_type") == "endpoint":
            self.outputs[self.label(node_id)] = node.output

    def _with_meta(self, event: Event, node: NodeState, meta: NodeMeta) -> None:
        node.retries += meta.get("retries", 0)
        self._account(node, meta)
        self.conversation.extend(meta.get("messages", ()))
        if "memory" in meta:
            kept = ("person_id", "prompt", "memory", "messages", "answer")
            turn = {k: v for k in kept if (v := meta.get(k, _ABSENT)) is not _ABSENT}
            self._add_turn(event, node, turn)
        for turn in meta.get("turns", ()):
            self._add_turn(event, node, turn)

    def _add_turn(self, event: Event, node: NodeState, turn: Mapping[str, Any]) -> None:
        """A turn, with what was sent; where the log does not tell that (the turn was taken over), with the question it answered."""
        sent = node.sent.get(str(turn.get("index", "")), {})
        asked = next((m["content"] for m in turn.get("messages", ()) if m["to_person_id"] == turn.get("person_id")), None)
        prompt = {} if asked is None else {"prompt": asked}
        self.turns.append({"node_id": event.node_id, "run": node.runs, **prompt, **sent, **turn})

    def _account(self, node: NodeState, meta: NodeMeta | UsageData) -> None:
        usage = meta.get("usage")
        if usage is None:
            return
        if node.spent is UNSPENT:
            node.spent = Spending()
        counts, cost, calls = TokenUsage.from_dict(usage), meta.get("cost_usd"), meta.get("calls", 1)
        node.spent.add(counts, cost, calls)
        self.spent.add(counts, cost, calls)
        if person := meta.get("person"):
            self.persons.setdefault(person, Spending()).add(counts, cost, calls)

    def _node_error(self, event: Event) -> None:
        assert event.node_id is not None
        node = self.nodes.setdefault(event.node_id, NodeState())
        self.questions.drop_of(event.node_id)  # it may have timed out
        node.status = Status.FAILED
        p = cast(NodeError, event.payload)
        node.error = p.get("error")
        node.ended_at = event.occurred_at
        node.runs = p.get("run", node.runs)
        node.duration_s += p.get("duration_ms", 0.0) / 1000
        meta = p.get("meta", {})
        known = meta.get("usage", {}).get("output", 0) - sum(call["usage"].get("output", 0) for call in node.paid)
        node.estimated += 0 if known > 0 else node.pieces  # else the answer that failed is accounted for
        node.paid, node.pieces = NONE, 0
        self._account(node, meta)

    def _interactive_prompt(self, event: Event) -> None:
        p = cast(InteractivePrompt, event.payload)
        self.questions.ask({**p, "node_id": event.node_id, "asked_at": event.occurred_at})

    def _interactive_response(self, event: Event) -> None:
        self.questions.drop(cast(InteractiveResponse, event.payload)["request_id"])

    def _run_note(self, event: Event) -> None:
        self.notes.append({**event.payload, "at": event.occurred_at, "seq": event.seq})

    def _execution_completed(self, event: Event) -> None:
        p = cast(ExecutionCompleted, event.payload)
        self._end(event, p, p.get("status", Status.COMPLETED))

    def _execution_error(self, event: Event) -> None:
        p = cast(ExecutionError, event.payload)
        self.error = p.get("error")
        self._end(event, p, p.get("status", Status.FAILED))

    def _end(self, event: Event, p: ExecutionCompleted | ExecutionError, status: str) -> None:
        self.status = status
        self.ended_at = event.occurred_at
        self.duration_s = p.get("total_duration_ms", 0.0) / 1000
        self.questions.clear()
        for node in self.nodes.values():
            if node.paid or node.pieces or node.waiting_since is not None:
                self._settle(node)
        for node_id, node_status in p.get("node_status", {}).items():
            if node_id in self.nodes:
                self.nodes[node_id].status = node_status


_APPLY = {
    EventType.EXECUTION_STARTED: RunState._execution_started,
    EventType.NODE_WAITING: RunState._node_waiting,
    EventType.NODE_STARTED: RunState._node_started,
    EventType.NODE_OUTPUT: RunState._node_output,
    EventType.NODE_COMPLETED: RunState._node_completed,
    EventType.NODE_ERROR: RunState._node_error,
    EventType.INTERACTIVE_PROMPT: RunState._interactive_prompt,
    EventType.INTERACTIVE_RESPONSE: RunState._interactive_response,
    EventType.RUN_NOTE: RunState._run_note,
    EventType.EXECUTION_COMPLETED: RunState._execution_completed,
    EventType.EXECUTION_ERROR: RunState._execution_error,
}


def interrupted(state: RunState) -> RunState:
    """A log without an end whose process is gone: the run and the nodes in flight are `interrupted`."""
    if state.status == Status.RUNNING:
        state.status = Status.INTERRUPTED
        for node in state.nodes.values():
            if node.status == Status.RUNNING:
                node.status = Status.INTERRUPTED
            state._settle(node)
    return state

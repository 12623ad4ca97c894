"""Checkpoints of runs: so that a run of a million events is resumed by reading the last few thousand.

A checkpoint says where the scheduler is, which runs of nodes are not over, and *where in the log* the values stand that are still
needed: outputs, variables, messages, what was begun. So it holds no value, and no secret. It is signed like the events that a run
resumes from, and it is used only where it and every event that it names are this user's; otherwise the whole log is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast
from zlib import crc32

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import InteractivePrompt, NodeCompleted, NodeError, NodeOutput
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Snapshot
from dipeo_nb.execution import schedule, schedule_state
from dipeo_nb.execution.asked import OpenQuestions
from dipeo_nb.execution.progress import RunProgress
from dipeo_nb.execution.record import published
from dipeo_nb.execution.run_options import NodeRunKey

_STARTED, _COMPLETED, _AT_LIMIT = EventType.NODE_STARTED, EventType.NODE_COMPLETED, Status.MAXITER_REACHED
KIND = "progress"
SIGNED_AS = "$checkpoint"
"""Stands for a node in the event by which a checkpoint is signed."""
_READ = frozenset({"run", "item", "usage"})
"""Kinds of output that a resumed run reads."""
_MEANING = 1
"""To be raised when the same fields come to mean something else, or the scheduler continues differently from the same state."""
VERSION = crc32(repr((_MEANING, schedule._Node.__slots__, schedule.Token._fields)).encode())
"""Of the checkpoints that this version of the package reads and writes."""


class LogPlaces:
    """Where in the log of a run stands what a resumed run needs: takes its events in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.outputs: dict[NodeRunKey, int] = {}
        """Finished run of a node → number of its event."""
        self.variables: dict[str, int] = {}
        """Global variable → number of the event that set it last."""
        self.messages: list[int] = []
        """Events with messages of the conversation."""
        self.begun: list[int] = []
        """Events that tell what runs of nodes had done before they finished."""
        self.prompts: dict[str, int] = {}
        """request_id → number of the event that asked."""
        self.asked: OpenQuestions = OpenQuestions()
        self.began: float = 0.0
        """When the run began, or was resumed last."""
        self.failing: bool = False
        """A node has failed, and the run with it: the node runs again when the run is resumed, which its progress does not know."""

    def take(self, event: Event) -> None:
        kind = event[1]
        if kind is _STARTED:
            return
        index = self._plan.by_id.get(event.node_id or "")
        if kind is _COMPLETED and index is not None:
            completed = cast(NodeCompleted, event.payload)
            if completed.get("status") != _AT_LIMIT:
                self.outputs[index, completed["run"]] = event.seq
                if completed.get("meta", {}).get("messages"):
                    self.messages.append(event.seq)
                for name in published(self._plan.nodes[index], completed):
                    self.variables[name] = event.seq
        elif kind is EventType.NODE_ERROR and index is not None:
            failed = cast(NodeError, event.payload)
            if failed.get("handled"):
                self.outputs[index, failed["run"]] = event.seq
            else:
                self.failing = True
        elif kind is EventType.NODE_OUTPUT:
            output = cast(NodeOutput, event.payload)
            if output.get("kind") in _READ and index is not None:
                self.begun.append(event.seq)
            return
        elif kind is EventType.EXECUTION_STARTED:
            self.began, self.failing = event.occurred_at, False
        asks = kind is EventType.INTERACTIVE_PROMPT
        if asks or self.prompts:
            for over in self.asked.take(event):
                self.prompts.pop(over, None)
            if asks:
                self.prompts[cast(InteractivePrompt, event.payload)["request_id"]] = event.seq


def checkpoint_of(
    progress: RunProgress, places: LogPlaces, last: Event, sign: Callable[[list[Event]], list[Event]]
) -> Snapshot | None:
    """The checkpoint of a run, at an event up to which *progress* and *places* know everything.

    Returns:
        None: it cannot be had here: the run has not begun or is ending, code shares variables, or a value is not in the log.
    """
    if progress.shares_code or progress.finish is not None or places.failing:
        return None
    waiting = [*progress.working.values(), *(command for command, _ in progress.ready)]
    edges = progress.plan.edges
    needed = {(index, run) for index, kept in progress.outputs.items() for run in kept}
    needed |= {(edges[e].source, run) for command in waiting for e, run, _ in command.inputs}
    if not (waiting or progress.ticks) or not needed <= places.outputs.keys():
        return None
    places.outputs = {key: places.outputs[key] for key in needed}  # nothing asks for the others any more
    attempts = Counter({key: n for command in waiting if (n := progress.attempts[key := (command.node, command.run)])})
    attempts.update(key for command in progress.working.values() if (key := (command.node, command.run)) not in attempts)
    content = {
        "at": last.occurred_at,
        "plan": _shape(progress.plan, progress.max_visits),
        "scheduler": schedule_state.state_of(progress.scheduler),
        "ticks": [[tick.node, tick.handles] if isinstance(tick, schedule.Done) else [] for tick in progress.ticks],
        "waiting": [schedule_state.command_state(command) for command in waiting],
        "attempts": [[*key, count] for key, count in attempts.items()],
        "completed": list(progress.completed.items()),
        "latest": progress.latest,
        "at_limit": sorted(progress.at_limit),
        "failed": sorted(progress.failed),
        "worked_ms": progress.worked_ms,
        "began": places.began,
        "outputs": [[*key, seq] for key, seq in places.outputs.items()],
        "variables": places.variables,
        "messages": places.messages,
        "begun": places.begun,
        "prompts": list(places.prompts.values()),
    }
    (event,) = sign([Event(last.seq, EventType.NODE_COMPLETED, last.run_id, last.occurred_at, SIGNED_AS, content)])
    if event.payload is content:
        return None  # nobody could tell whose it is
    return Snapshot(last.run_id, KIND, VERSION, last.seq, event.payload)


def signed_event(snapshot: Snapshot) -> Event:
    """The event by which a checkpoint is signed.

    Raises:
        KeyError: it is not a checkpoint.
    """
    content = snapshot.content
    return Event(snapshot.seq, EventType.NODE_COMPLETED, snapshot.run_id, content["at"], SIGNED_AS, content)


def events_named(content: Mapping[str, Any]) -> list[int]:
    """Numbers of the events that a checkpoint refers to, in order."""
    numbers = {seq for _, _, seq in content["outputs"]}.union(
        content["variables"].values(), content["messages"], content["begun"], content["prompts"]
    )
    return sorted(numbers)


def restore(content: Mapping[str, Any], progress: RunProgress, places: LogPlaces) -> list[schedule.RunNode]:
    """Bring a new run to the point of a checkpoint, but for what stands in the log.

    Returns:
        The runs of nodes that were not over, in the order in which they became ready.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is the checkpoint of another plan, or damaged.
    """
    if content["plan"] != _shape(progress.plan, progress.max_visits):
        raise ValueError("it is of another plan")
    schedule_state.restore(progress.scheduler, content["scheduler"])
    progress.ticks.extend(schedule.Done(tick[0], tuple(tick[1])) if tick else schedule.Begin() for tick in content["ticks"])
    progress.attempts.update({(node, run): count for node, run, count in content["attempts"]})
    progress.completed = dict(content["completed"])
    progress.latest = None if content["latest"] is None else cast(NodeRunKey, tuple(content["latest"]))
    progress.at_limit, progress.failed = set(content["at_limit"]), set(content["failed"])
    progress.worked_ms = content["worked_ms"]
    places.outputs = {(node, run): seq for node, run, seq in content["outputs"]}
    places.variables = dict(content["variables"])
    places.messages, places.begun = list(content["messages"]), list(content["begun"])
    places.began = content["began"]
    return [schedule_state.command_of(found) for found in content["waiting"]]


def _shape(plan: Plan, max_visits: int) -> str:
    """A digest of all that the numbers of a checkpoint depend on."""
    nodes: Sequence[Any] = [(node.id, node.type) for node in plan.nodes]
    edges: Sequence[Any] = [
        (edge.source, edge.target, edge.source_handle, edge.target_handle, edge.label) for edge in plan.edges
    ]
    return sha256(repr((nodes, edges, max_visits)).encode()).hexdigest()

"""Counts where a run's time and money went, from its events."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, cast

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
    NodeOutput,
    NodeStarted,
    UsageData,
)
from dipeo_nb.domain.spending import total_cost
from dipeo_nb.execution.critical_path import Waits
from dipeo_nb.execution.node_runs import NodeRun, NodeRuns, NodeRunTable
from dipeo_nb.execution.run_metrics import BOTTLENECK, Bottleneck, NodeMetrics, RunMetrics


def measure(events: Iterable[Event]) -> RunMetrics:
    """Count. The events are those of one run, in order, from the first on; a run that is still running is measured up to the last one."""
    counting = Counting()
    for event in events:
        counting.take(event)
    return counting.result()


class Counting:
    """Takes the events of one run, in order, from the first on."""

    def __init__(self) -> None:
        self.diagram: str = ""
        self.run_id: str = ""
        self.labels: dict[str, str] = {}
        self.status: str = Status.PENDING
        self.error: Mapping[str, Any] | None = None
        self.total_s: float | None = None
        self.begun_at: float = 0.0
        self.latest_at: float = 0.0
        self.worked_s: float = 0.0
        self.resumed: int = 0
        self.reached: Mapping[str, str] = {}
        self.open: dict[str, NodeRun] = {}
        self.table: NodeRunTable = NodeRunTable()
        self.waits: Waits = Waits(self.table)
        self.allowed: int | None = None
        """Nodes at work at the same time, as the run began."""
        self.parallelism: int | None = None
        """The same for the part of the run now counted."""
        self.lost_s: float = 0.0
        self.asked: dict[str, tuple[str, float]] = {}
        self.children: set[str] = set()
        self.paid: defaultdict[str, list[UsageData]] = defaultdict(list)
        """Calls of the run in flight of a node."""
        self.most_at_once: int = 0

    def take(self, event: Event) -> None:
        if event.type is EventType.RUN_NOTE:
            return  # the run may have been over for days
        match event.type:
            case EventType.EXECUTION_STARTED:
                self._run_started(event, cast(ExecutionStarted, event.payload))
            case EventType.NODE_STARTED:
                self._node_started(event, cast(NodeStarted, event.payload))
            case EventType.NODE_COMPLETED:
                completed = cast(NodeCompleted, event.payload)
                if completed.get("status") != Status.MAXITER_REACHED:  # else nothing ran: the last output was passed on
                    self._node_ended(event, completed, completed.get("status", Status.COMPLETED))
            case EventType.NODE_ERROR:
                error = cast(NodeError, event.payload)
                self._node_ended(event, error, Status.FAILED, fatal=not error.get("handled"))
            case EventType.NODE_OUTPUT if "kind" in event.payload:
                self._node_output(event, cast(NodeOutput, event.payload))
            case EventType.INTERACTIVE_PROMPT:
                self.asked[cast(InteractivePrompt, event.payload)["request_id"]] = (
                    event.node_id or "",
                    event.occurred_at,
                )
            case EventType.INTERACTIVE_RESPONSE:
                request_id = cast(InteractiveResponse, event.payload)["request_id"]
                asker, at = self.asked.pop(request_id, ("", event.occurred_at))
                if (run := self.open.get(asker)) is not None:
                    run.note(asked_s=run.asked_s + max(0.0, event.occurred_at - at))
            case EventType.EXECUTION_COMPLETED | EventType.EXECUTION_ERROR:
                end = cast("ExecutionCompleted | ExecutionError", event.payload)
                self.status, self.reached = end.get("status", self.status), end.get("node_status", {})
                self.error = end["error"] if event.type is EventType.EXECUTION_ERROR and "error" in end else None
                self.total_s = end.get("total_duration_ms", 0.0) / 1000
            case _:
                pass
        self.latest_at = event.occurred_at

    def _run_started(self, event: Event, payload: ExecutionStarted) -> None:
        begun_at, self.begun_at, self.status = self.begun_at, event.occurred_at, Status.RUNNING
        options = payload.get("options")
        if "resumed" not in payload:
            self.diagram, self.run_id = payload.get("diagram", ""), event.run_id
            self.labels = dict(payload.get("labels", {}))
            self.allowed = self.parallelism = options["parallelism"] if options else None
            return
        self._cut_off()
        self.resumed += 1
        self.worked_s += max(0.0, self.latest_at - begun_at)
        self.error, self.total_s = None, None
        self.waits.resumed()
        if options:
            self.parallelism = options["parallelism"]

    def _node_output(self, event: Event, payload: NodeOutput) -> None:
        node = event.node_id or ""
        run = self.open.get(node)
        match payload["kind"]:
            case "text" if run is not None and run.first_text_s is None:
                run.note(first_text_s=max(0.0, event.occurred_at - run.started_at))
            case "run":
                self.children.add(payload["data"]["run_id"])
            case "item" if run is not None:
                run.note(kept_at=event.occurred_at)
            case "usage" if payload.get("background"):
                if (ended := self.waits.ended_run(node, payload.get("run", 1))) is not None:
                    data = payload["data"]
                    ended.paid(data["usage"], data.get("cost_usd"), data.get("calls", 1))
            case "usage":
                self.paid[node].append(payload["data"])
            case _:
                pass

    def _node_started(self, event: Event, payload: NodeStarted) -> None:
        node = event.node_id or ""
        inputs = [(source, number) for source, number in payload.get("arrived") or payload.get("inputs", {}).values()]
        run = self.table.add(
            node, payload.get("label", node), payload.get("node_type", ""), payload.get("run", 1),
            self.begun_at, event.occurred_at, inputs,
        )  # fmt: skip
        self.waits.started(run)
        self.labels.setdefault(node, run.label)
        self.open[node] = run
        self.most_at_once = max(self.most_at_once, len(self.open))

    def _node_ended(self, event: Event, payload: NodeCompleted | NodeError, status: str, *, fatal: bool = False) -> None:
        node = event.node_id or ""
        if (run := self.open.pop(node, None)) is None:
            return
        meta = payload.get("meta", {})
        run.ended_at, run.status = event.occurred_at, status
        if meta:
            run.note(retries=meta.get("retries", 0), reused="reused" in meta, model=meta.get("model"))
        for asked in [k for k, (asker, _) in self.asked.items() if asker == node]:  # nobody answered in time
            run.note(asked_s=run.asked_s + max(0.0, event.occurred_at - self.asked.pop(asked)[1]))
        if (usage := meta.get("usage")) is not None:
            run.paid(usage, meta.get("cost_usd"), meta.get("calls", 1))
        self.paid.pop(node, None)  # the sum has them
        full = self.parallelism is not None and len(self.open) + 1 >= self.parallelism
        self.waits.ended(run, was_full=full, fatal=fatal)

    def _cut_off(self) -> None:
        self.waits.cut_off(self.open.values())
        for run in self.open.values():
            run.status, run.cut_at = Status.INTERRUPTED, self.latest_at
            for asker, at in self.asked.values():
                if asker == run.node_id:
                    run.note(asked_s=run.asked_s + max(0.0, self.latest_at - at))
            self.lost_s += max(0.0, self.latest_at - (run.kept_at or run.started_at))
            for call in self.paid.pop(run.node_id, ()):
                run.paid(call["usage"], call.get("cost_usd"), call.get("calls", 1))
                run.note(model=call.get("model", run.model))
        self.open.clear()
        self.asked.clear()

    def result(self) -> RunMetrics:
        """The figures up to the last event."""
        if self.total_s is not None:
            self._cut_off()  # what a failed or stopped run left
        for run in self.open.values():
            run.cut_at = self.latest_at
        duration = self.total_s if self.total_s is not None else self.worked_s + max(0.0, self.latest_at - self.begun_at)
        table = self.table
        of_node = [array("q") for _ in table.nodes]
        for place, node in enumerate(table.node):
            of_node[node].append(place)
        by_node: defaultdict[str, list[int]] = defaultdict(list)
        for node, (node_id, _, _) in enumerate(table.nodes):
            by_node[node_id].append(node)
        nodes = sorted(
            (_node(table, sorted(chain(*(of_node[n] for n in some)))) for some in by_node.values()), key=lambda n: -n.working_s
        )
        path = self.waits.critical_path(None if self.total_s is not None else self.open.values())
        paid = [NodeRun(table, place) for place in sorted(table.rare)]
        finished = [run for run in paid if run.calls]
        models = Counter[str]()
        for run in finished:
            models[run.model or ""] += run.calls
        return RunMetrics(
            run_id=self.run_id,
            diagram=self.diagram,
            status=str(self.status),
            error=self.error,
            duration_s=duration,
            working_s=sum(node.working_s for node in nodes),
            waiting_s=sum(node.waiting_s for node in nodes),
            asked_s=sum(node.asked_s for node in nodes),
            most_at_once=self.most_at_once,
            parallelism=self.allowed,
            usage=sum((node.usage for node in nodes), TokenUsage()),
            cost_usd=_cost(finished),
            calls=sum(models.values()),
            models=dict(models.most_common()),
            retries=sum(node.retries for node in nodes),
            resumed=self.resumed,
            lost_s=self.lost_s,
            reused=sum(run.reused for run in paid),
            children=len(self.children),
            skipped=[label for node, label in self.labels.items() if node not in by_node],
            at_limit=[self.labels.get(n, n) for n, s in self.reached.items() if s == Status.MAXITER_REACHED],
            nodes=nodes,
            runs=NodeRuns(table),
            critical_path=path,
            bottlenecks=_bottlenecks(path, duration),
        )


def _cost(runs: Sequence[NodeRun]) -> float | None:
    """None when nothing was spent, or one price is unknown: a part is never passed off as the whole."""
    return total_cost(run.cost_usd for run in runs if run.calls)


def _node(table: NodeRunTable, places: Sequence[int]) -> NodeMetrics:
    first = NodeRun(table, places[0])
    failed, cut_off = table.status_number(Status.FAILED), table.status_number(Status.INTERRUPTED)
    ended = [place for place in places if table.ended[place] == table.ended[place]]
    rare = [NodeRun(table, place) for place in places if place in table.rare]
    texts = [run.first_text_s for run in rare if run.first_text_s is not None]
    working = longest = waiting = 0.0
    for run in map(NodeRun, repeat(table), places):
        worked = run.working_s
        working, longest = working + worked, max(longest, worked)
        waiting += run.waiting_s
    return NodeMetrics(
        node_id=first.node_id,
        label=first.label,
        type=first.type,
        # One that was cut off or failed, and was begun again when the run was resumed, counts once.
        runs=len({table.run[place] for place in ended}),
        failed=sum(table.status[place] == failed for place in ended),
        cut_off=sum(table.status[place] == cut_off for place in places),
        working_s=working,
        longest_s=longest,
        waiting_s=waiting,
        asked_s=sum(run.asked_s for run in rare),
        first_text_s=sum(texts) / len(texts) if texts else None,
        usage=sum((run.usage for run in rare), TokenUsage()),
        cost_usd=_cost(rare),
        calls=sum(run.calls for run in rare),
        retries=sum(run.retries for run in rare),
    )


def _bottlenecks(path: Sequence[NodeRun], duration: float) -> list[Bottleneck]:
    seconds: defaultdict[str, float] = defaultdict(float)
    labels: dict[str, str] = {}
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for run in path:
        node = run.node_id
        seconds[node] += run.working_s
        labels.setdefault(node, run.label)
        numbers[node].add(run.run)
    found = [
        Bottleneck(node, labels[node], worked, min(1.0, worked / duration), len(numbers[node]))
        for node, worked in seconds.items()
        if duration > 0 and worked / duration >= BOTTLENECK
    ]
    return sorted(found, key=lambda one: -one.seconds)

"""Counts where a run's time and money went, from its events."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
from dipeo_nb.execution.node_runs import Distinct, NodeRun, NodeRuns, NodeRunTable
from dipeo_nb.execution.run_metrics import BOTTLENECK, Bottleneck, NodeMetrics, RunMetrics


def measure(events: Iterable[Event]) -> RunMetrics:
    """Count. The events are those of one run, in order, from the first on; a run that is still running is measured up to the last one."""
    counting = Counting()
    counting.take_all(events)
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
        self.open: dict[str, int] = {}
        """Nodes at work → the places of their runs."""
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
        self.take_all((event,))

    def take_all(self, events: Iterable[Event]) -> None:
        for event in events:
            _, kind, _, at, node, payload = event
            if kind is EventType.NODE_STARTED:
                self._node_started(node or "", at, cast(NodeStarted, payload))
            elif kind is EventType.NODE_COMPLETED:
                status = payload.get("status", Status.COMPLETED)
                if status != Status.MAXITER_REACHED:  # else nothing ran: the last output was passed on
                    self._node_ended(node or "", at, cast(NodeCompleted, payload), status)
            elif kind is EventType.NODE_OUTPUT:
                if "kind" in payload:
                    self._node_output(node or "", at, cast(NodeOutput, payload))
            elif kind is EventType.RUN_NOTE:
                continue  # the run may have been over for days
            else:
                self._take_rare(event)
            self.latest_at = at

    def _take_rare(self, event: Event) -> None:
        match event.type:
            case EventType.EXECUTION_STARTED:
                self._run_started(event, cast(ExecutionStarted, event.payload))
            case EventType.NODE_ERROR:
                error = cast(NodeError, event.payload)
                fatal = not error.get("handled")
                self._node_ended(event.node_id or "", event.occurred_at, error, Status.FAILED, fatal=fatal)
            case EventType.INTERACTIVE_PROMPT:
                self.asked[cast(InteractivePrompt, event.payload)["request_id"]] = (
                    event.node_id or "",
                    event.occurred_at,
                )
            case EventType.INTERACTIVE_RESPONSE:
                request_id = cast(InteractiveResponse, event.payload)["request_id"]
                asker, at = self.asked.pop(request_id, ("", event.occurred_at))
                if (place := self.open.get(asker)) is not None:
                    self._waited_for_answer(place, event.occurred_at - at)
            case EventType.EXECUTION_COMPLETED | EventType.EXECUTION_ERROR:
                end = cast("ExecutionCompleted | ExecutionError", event.payload)
                self.status, self.reached = end.get("status", self.status), end.get("node_status", {})
                self.error = end["error"] if event.type is EventType.EXECUTION_ERROR and "error" in end else None
                self.total_s = end.get("total_duration_ms", 0.0) / 1000
            case _:
                pass

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

    def _node_output(self, node: str, at: float, payload: NodeOutput) -> None:
        match payload["kind"]:
            case "text":
                place, table = self.open.get(node), self.table
                if place is not None and "first_text_s" not in table.rare.get(place, ()):
                    NodeRun(table, place).note(first_text_s=max(0.0, at - table.started[place]))
            case "run":
                self.children.add(payload["data"]["run_id"])
            case "item":
                if (place := self.open.get(node)) is not None:
                    NodeRun(self.table, place).note(kept_at=at)
            case "usage" if payload.get("background"):
                if (place := self.waits.ended_run(node, payload.get("run", 1))) >= 0:
                    data = payload["data"]
                    NodeRun(self.table, place).paid(data["usage"], data.get("cost_usd"), data.get("calls", 1))
            case "usage":
                self.paid[node].append(payload["data"])
            case _:
                pass

    def _node_started(self, node: str, at: float, payload: NodeStarted) -> None:
        label, number = payload.get("label", node), payload.get("run", 1)
        inputs = payload.get("arrived") or payload.get("inputs", {}).values()
        ready_at, after = self.waits.started(node, number, inputs, self.begun_at)
        self.open[node] = self.table.add((node, label, payload.get("node_type", "")), number, ready_at, at, after, inputs)
        if node not in self.labels:
            self.labels[node] = label
        if len(self.open) > self.most_at_once:
            self.most_at_once = len(self.open)

    def _node_ended(
        self, node: str, at: float, payload: NodeCompleted | NodeError, status: str, *, fatal: bool = False
    ) -> None:
        if (place := self.open.pop(node, None)) is None:
            return
        table = self.table
        table.ended[place] = at
        table.status[place] = table.status_number(status)
        if self.asked:
            for unanswered in [k for k, (asker, _) in self.asked.items() if asker == node]:
                self._waited_for_answer(place, at - self.asked.pop(unanswered)[1])
        if meta := payload.get("meta"):
            self._note(NodeRun(table, place), meta)
        if self.paid:
            self.paid.pop(node, None)  # the sum has them
        full = self.parallelism is not None and len(self.open) + 1 >= self.parallelism
        self.waits.ended(place, node, table.run[place], was_full=full, fatal=fatal)

    def _note(self, run: NodeRun, meta: Mapping[str, Any]) -> None:
        if "retries" in meta or "reused" in meta or "model" in meta:
            run.note(retries=meta.get("retries", 0), reused="reused" in meta, model=meta.get("model"))
        if (usage := meta.get("usage")) is not None:
            run.paid(usage, meta.get("cost_usd"), meta.get("calls", 1))

    def _waited_for_answer(self, place: int, seconds: float) -> None:
        run = NodeRun(self.table, place)
        run.note(asked_s=run.asked_s + max(0.0, seconds))

    def _cut_off(self) -> None:
        self.waits.cut_off(self.open.values())
        for node, place in self.open.items():
            run = NodeRun(self.table, place)
            self.table.status[place] = self.table.status_number(Status.INTERRUPTED)
            self.table.cut[place] = self.latest_at
            for asker, at in self.asked.values():
                if asker == node:
                    self._waited_for_answer(place, self.latest_at - at)
            self.lost_s += max(0.0, self.latest_at - (run.kept_at or run.started_at))
            for call in self.paid.pop(node, ()):
                run.paid(call["usage"], call.get("cost_usd"), call.get("calls", 1))
                run.note(model=call.get("model", run.model))
        self.open.clear()
        self.asked.clear()

    def result(self) -> RunMetrics:
        """The figures up to the last event."""
        if self.total_s is not None:
            self._cut_off()  # what a failed or stopped run left
        for place in self.open.values():
            self.table.cut[place] = self.latest_at
        duration = self.total_s if self.total_s is not None else self.worked_s + max(0.0, self.latest_at - self.begun_at)
        table = self.table
        paid = [NodeRun(table, place) for place in sorted(table.rare)]
        nodes = _nodes(table, paid)
        known = {node.node_id for node in nodes}
        path = self.waits.critical_path(None if self.total_s is not None else self.open.values())
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
            skipped=[label for node, label in self.labels.items() if node not in known],
            at_limit=[self.labels.get(n, n) for n, s in self.reached.items() if s == Status.MAXITER_REACHED],
            nodes=nodes,
            runs=NodeRuns(table),
            critical_path=path,
            bottlenecks=_bottlenecks(path, duration),
        )


def _cost(runs: Sequence[NodeRun]) -> float | None:
    """None when nothing was spent, or one price is unknown: a part is never passed off as the whole."""
    return total_cost(run.cost_usd for run in runs if run.calls)


class _Sums:
    """Of all runs of one node."""

    __slots__ = ("cut_off", "failed", "first", "longest", "rare", "runs", "waiting", "working")

    def __init__(self, first: tuple[str, str, str]) -> None:
        self.first = first
        self.runs = Distinct()
        self.failed = self.cut_off = 0
        self.working = self.longest = self.waiting = 0.0
        self.rare: list[NodeRun] = []

    def result(self) -> NodeMetrics:
        node_id, label, kind = self.first
        texts = [run.first_text_s for run in self.rare if run.first_text_s is not None]
        return NodeMetrics(
            node_id=node_id,
            label=label,
            type=kind,
            # One that was cut off or failed, and was begun again when the run was resumed, counts once.
            runs=len(self.runs),
            failed=self.failed,
            cut_off=self.cut_off,
            working_s=self.working,
            longest_s=self.longest,
            waiting_s=self.waiting,
            asked_s=sum(run.asked_s for run in self.rare),
            first_text_s=sum(texts) / len(texts) if texts else None,
            usage=sum((run.usage for run in self.rare), TokenUsage()),
            cost_usd=_cost(self.rare),
            calls=sum(run.calls for run in self.rare),
            retries=sum(run.retries for run in self.rare),
        )


def _nodes(table: NodeRunTable, rare: Iterable[NodeRun]) -> list[NodeMetrics]:
    """The nodes that ran, longest work first.

    Args:
        rare: runs with fields that most do not have, in order.
    """
    by_node: dict[str, _Sums] = {}
    of_kind: list[_Sums] = []
    for node in table.nodes:
        if (sums := by_node.get(node[0])) is None:
            sums = by_node[node[0]] = _Sums(node)
        of_kind.append(sums)
    for run in rare:
        of_kind[table.node[run.place]].rare.append(run)
    failed, cut_off = table.status_number(Status.FAILED), table.status_number(Status.INTERRUPTED)
    columns = zip(table.node, table.status, table.ready, table.started, table.ended, NodeRuns(table).work(), strict=True)
    for kind, status, ready_at, started_at, ended_at, (_, number, worked) in columns:
        sums = of_kind[kind]
        sums.working += worked
        if worked > sums.longest:
            sums.longest = worked
        if started_at > ready_at:
            sums.waiting += started_at - ready_at
        if ended_at == ended_at:
            sums.runs.add(number)
            if status == failed:
                sums.failed += 1
        if status == cut_off:
            sums.cut_off += 1
    return sorted((sums.result() for sums in by_node.values()), key=lambda node: -node.working_s)


def _bottlenecks(path: NodeRuns, duration: float) -> list[Bottleneck]:
    found: dict[str, _Share] = {}
    for (node_id, label, _), number, worked in path.work():
        if (share := found.get(node_id)) is None:
            share = found[node_id] = _Share(label)
        share.seconds += worked
        share.runs.add(number)
    large = [
        Bottleneck(node_id, share.label, share.seconds, min(1.0, share.seconds / duration), len(share.runs))
        for node_id, share in found.items()
        if duration > 0 and share.seconds / duration >= BOTTLENECK
    ]
    return sorted(large, key=lambda one: -one.seconds)


class _Share:
    """Of one node in the critical path."""

    __slots__ = ("label", "runs", "seconds")

    def __init__(self, label: str) -> None:
        self.label = label
        self.seconds = 0.0
        self.runs = Distinct()

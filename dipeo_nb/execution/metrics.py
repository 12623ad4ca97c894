"""Where a run's time and money went, out of its events: `measure` counts, `told` puts it in words. No model is asked.

The critical path is found backwards: from the node that ended last, or was at work longest when the run was cut off, to the one
that it had to wait for, and so on to the start. A node waits for the one, among those whose output it takes, that ended last; when
there was no free place then, for the one that freed its place; and when it was held back although there was a free place (behind a loop
that was not over), for the one whose end let it go. Making anything else faster would not have made the run shorter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.common.text import money
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event

BOTTLENECK = 0.1
"""Share of the run's time from which on a node on the critical path is called a bottleneck."""
NOTABLE_S = 0.05
"""Seconds of waiting that are worth a sentence, when they are also a twentieth of the run."""


@dataclass(slots=True)
class NodeRun:
    """One run of one node. Times are seconds since the epoch, UTC."""

    node_id: str
    label: str
    type: str
    run: int
    ready_at: float
    """When the last of its inputs was there."""
    started_at: float
    ended_at: float | None = None
    """None: it goes on, or was cut off."""
    cut_at: float | None = None
    """When it was cut off; while it goes on, the time of the run's latest event."""
    status: str = Status.RUNNING
    inputs: Sequence[tuple[str, int]] = ()
    """(id of the node, its run) of each input."""
    after: NodeRun | None = field(default=None, repr=False, compare=False)
    """The run that it had to wait for; None: it could begin with the run."""
    asked_s: float = 0.0
    """Seconds that it waited for somebody's answer."""
    first_text_s: float | None = None
    """Seconds from its start to the first piece of text of a model."""
    usage: TokenUsage = field(default_factory=TokenUsage)
    cost_usd: float | None = None
    calls: int = 0
    """Calls of models."""
    model: str | None = None
    retries: int = 0
    reused: bool = False
    """Taken over from the run that this one is a fork of."""
    kept_at: float | None = None
    """When an item of a batch was last recorded, which is not done again."""

    __repr__ = bounded_repr

    def paid(self, usage: Mapping[str, Any], cost: float | None, calls: int) -> None:
        spent = TokenUsage.from_dict(usage)
        known = self.cost_usd if self.calls else 0.0
        self.usage += spent
        self.cost_usd = None if known is None or cost is None else known + cost
        self.calls += calls

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
        return self.ended_at if self.ended_at is not None else self.cut_at if self.cut_at is not None else self.started_at


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """All runs of one node."""

    node_id: str
    label: str
    type: str
    runs: int
    failed: int
    cut_off: int
    """Runs that were lost, because the process ended or the run was stopped."""
    working_s: float
    longest_s: float
    waiting_s: float
    asked_s: float
    first_text_s: float | None
    """Mean, over the runs in which a model wrote."""
    usage: TokenUsage
    cost_usd: float | None
    """None: nothing was spent, or a price is unknown (then there are `calls`)."""
    calls: int
    retries: int

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class Bottleneck:
    node_id: str
    label: str
    seconds: float
    """On the critical path."""
    share: float
    """Of the run's time."""
    runs: int

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Where a run's time and money went."""

    run_id: str
    diagram: str
    status: str
    error: Mapping[str, Any] | None
    duration_s: float
    """Seconds that the run went on, without those between being cut off and being gone on with."""
    working_s: float
    """Sum over the nodes; more than `duration_s` when several worked at once."""
    waiting_s: float
    asked_s: float
    most_at_once: int
    parallelism: int | None
    """How many may be at work at once."""
    usage: TokenUsage
    cost_usd: float | None
    calls: int
    models: Mapping[str, int]
    """Model → calls; those of sub-diagrams are under ""."""
    retries: int
    resumed: int
    lost_s: float
    """Seconds of work that was cut off, and done again or given up."""
    reused: int
    """Node runs taken over from another run."""
    children: int
    """Runs of sub-diagrams."""
    skipped: Sequence[str]
    """Labels of nodes that never ran."""
    at_limit: Sequence[str]
    """Labels of nodes that reached the limit of their runs."""
    nodes: Sequence[NodeMetrics]
    """Longest work first."""
    runs: Sequence[NodeRun]
    """In the order in which they started."""
    critical_path: Sequence[NodeRun]
    bottlenecks: Sequence[Bottleneck]
    """Nodes that take `BOTTLENECK` of the time or more, on the critical path; the largest first."""

    __repr__ = bounded_repr

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per node, as tables show it: node, runs, working_s, waiting_s, share of the run's time, tokens, cost_usd, retries."""
        return [
            {
                "node": node.label,
                "runs": node.runs,
                "working_s": round(node.working_s, 3),
                "waiting_s": round(node.waiting_s + node.asked_s, 3),
                "share": f"{node.working_s / self.duration_s:.0%}" if self.duration_s else "",
                "tokens": node.usage.total,
                "cost_usd": node.cost_usd,
                "retries": node.retries,
            }
            for node in self.nodes
        ]


def measure(events: Iterable[Event]) -> RunMetrics:
    """Count. The events are those of one run, in order, from the first on; a run that goes on is measured up to the last one."""
    counting = _Counting()
    for event in events:
        counting.take(event)
    return counting.result()


class _Ended(NamedTuple):
    """A run of a node that ended, in the order of ends."""

    run: NodeRun
    was_full: bool
    """Whether until then no place was free."""
    round: int
    """How often nodes had been started together before."""


class _Counting:
    def __init__(self) -> None:
        self.started: Mapping[str, Any] = {}
        self.run_id = ""
        self.labels: dict[str, str] = {}
        self.status: str = Status.PENDING
        self.error: Mapping[str, Any] | None = None
        self.total_s: float | None = None
        self.begun_at = self.latest_at = self.worked_s = 0.0
        self.resumed = 0
        self.reached: Mapping[str, str] = {}
        self.open: dict[str, NodeRun] = {}
        self.done: dict[tuple[str, int], int] = {}
        """(node, run) → place in `ends`."""
        self.ends: list[_Ended] = []
        self.round = 0
        self.starting = False
        """Whether the latest start or end of a node was a start."""
        self.earlier = 0
        """Ends before the run was resumed."""
        self.cut: dict[tuple[str, int], NodeRun] = {}
        """(node, run) → its latest attempt that is made again when the run is resumed."""
        self.at_cut: NodeRun | None = None
        """The one, among the runs that were cut off together last, that had been at work longest."""
        self.failed: NodeRun | None = None
        """The run that made the run fail."""
        self.parallelism: int | None = None
        self.lost_s = 0.0
        self.all: list[NodeRun] = []
        self.asked: dict[str, tuple[str, float]] = {}
        self.children: set[str] = set()
        self.paid: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        """Calls of the run in flight of a node."""
        self.most_at_once = 0

    def take(self, event: Event) -> None:
        payload, node = event.payload, event.node_id or ""
        match event.type:
            case EventType.EXECUTION_STARTED if "resumed" in payload:
                self._cut_off()
                self.resumed += 1
                self.worked_s += max(0.0, self.latest_at - self.begun_at)
                self.begun_at, self.status, self.error, self.total_s = event.occurred_at, Status.RUNNING, None, None
                self.earlier, self.failed = len(self.ends), None
                self.parallelism = payload.get("options", {}).get("parallelism", self.parallelism)
            case EventType.EXECUTION_STARTED:
                self.started, self.run_id, self.status = payload, event.run_id, Status.RUNNING
                self.labels = dict(payload.get("labels", {}))
                self.begun_at = event.occurred_at
                self.parallelism = payload.get("options", {}).get("parallelism")
            case EventType.NODE_STARTED:
                self._node_started(event)
            case EventType.NODE_COMPLETED | EventType.NODE_ERROR:
                self._node_ended(event)
            case EventType.NODE_OUTPUT if payload.get("kind") == "run":
                self.children.add(payload["data"]["run_id"])
            case EventType.NODE_OUTPUT if payload.get("kind") == "item" and node in self.open:
                self.open[node].kept_at = event.occurred_at
            case EventType.NODE_OUTPUT if payload.get("kind") == "usage" and payload.get("background"):
                if (end := self.done.get((node, payload.get("run", 1)))) is not None:
                    data = payload["data"]
                    self.ends[end].run.paid(data["usage"], data.get("cost_usd"), data.get("calls", 1))
            case EventType.NODE_OUTPUT if payload.get("kind") == "usage":
                self.paid[node].append(payload["data"])
            case EventType.NODE_OUTPUT if payload.get("kind") == "text" and (run := self.open.get(node)) is not None:
                if run.first_text_s is None:
                    run.first_text_s = max(0.0, event.occurred_at - run.started_at)
            case EventType.INTERACTIVE_PROMPT:
                self.asked[payload["request_id"]] = node, event.occurred_at
            case EventType.INTERACTIVE_RESPONSE:
                asker, at = self.asked.pop(payload["request_id"], ("", event.occurred_at))
                if (run := self.open.get(asker)) is not None:
                    run.asked_s += max(0.0, event.occurred_at - at)
            case kind if kind in FINAL_EVENTS:
                self.status = payload.get("status", self.status)
                self.error = payload.get("error")
                self.total_s = payload.get("total_duration_ms", 0.0) / 1000
                self.reached = payload.get("node_status", {})
            case _:
                pass
        self.latest_at = event.occurred_at

    def _node_started(self, event: Event) -> None:
        payload, node = event.payload, event.node_id or ""
        inputs = [(source, number) for source, number in payload.get("arrived") or payload.get("inputs", {}).values()]
        if not self.starting:
            self.starting, self.round = True, self.round + 1
        latest = max((self.done[place] for place in inputs if place in self.done), default=-1)
        ready_at = self.ends[latest].run.end if latest >= 0 else self.begun_at
        run = NodeRun(
            node, payload.get("label", node), payload.get("node_type", ""), payload.get("run", 1),
            max(self.begun_at, ready_at), event.occurred_at, inputs=inputs,
        )  # fmt: skip
        run.after, held_back = self._waited_for(run, latest)
        if held_back and run.after is not None:
            run.ready_at = max(run.ready_at, run.after.end)
        self.labels.setdefault(node, run.label)
        self.open[node] = run
        self.all.append(run)
        self.most_at_once = max(self.most_at_once, len(self.open))

    def _waited_for(self, run: NodeRun, latest: int) -> tuple[NodeRun | None, bool]:
        """The run that *run* waited for, and whether that neither brought it an input nor freed its place.

        Args:
            latest: place in `ends` of its latest input, -1 without any.
        """
        source = self.ends[latest].run if latest >= 0 else None
        since = max(latest + 1, self.earlier)
        for place in range(len(self.ends) - 1, since - 1, -1):
            if self.ends[place].was_full:
                return self.ends[place].run, False
        if self.resumed and latest < self.earlier:  # it was ready when the run was cut off
            if len(self.ends) > self.earlier:
                return source, False
            return self.cut.get((run.node_id, run.run)) or self.at_cut or source, False
        if source is None or since == len(self.ends):
            return source, False
        last = self.ends[-1].run
        held_back = self.round > self.ends[latest].round + 1 or last.end - source.end > NOTABLE_S
        return (last, True) if held_back else (source, False)

    def _node_ended(self, event: Event) -> None:
        payload, node = event.payload, event.node_id or ""
        if payload.get("status") == Status.MAXITER_REACHED or (run := self.open.pop(node, None)) is None:
            return  # nothing ran: the last output was passed on
        meta = payload.get("meta", {})
        run.ended_at = event.occurred_at
        failed = event.type == EventType.NODE_ERROR
        if failed and not payload.get("handled"):
            self.failed = self.failed or run
            self.cut[node, run.run] = run
        run.status = Status.FAILED if failed else payload.get("status", Status.COMPLETED)
        run.retries, run.reused, run.model = meta.get("retries", 0), "reused" in meta, meta.get("model")
        for asked in [k for k, (asker, _) in self.asked.items() if asker == node]:  # nobody answered in time
            run.asked_s += max(0.0, event.occurred_at - self.asked.pop(asked)[1])
        if (usage := meta.get("usage")) is not None:
            run.paid(usage, meta.get("cost_usd"), meta.get("calls", 1))
        self.paid.pop(node, None)  # the sum has them
        self.done[node, run.run] = len(self.ends)
        full = self.parallelism is not None and len(self.open) + 1 >= self.parallelism
        self.ends.append(_Ended(run, full, self.round))
        self.starting = False

    def _cut_off(self) -> None:
        self.at_cut = self._longest_at_work()
        for run in self.open.values():
            run.status, run.cut_at = Status.INTERRUPTED, self.latest_at
            self.cut[run.node_id, run.run] = run
            for asker, at in self.asked.values():
                if asker == run.node_id:
                    run.asked_s += max(0.0, self.latest_at - at)
            self.lost_s += max(0.0, self.latest_at - (run.kept_at or run.started_at))
            for call in self.paid.pop(run.node_id, ()):
                run.paid(call["usage"], call.get("cost_usd"), call.get("calls", 1))
                run.model = call.get("model", run.model)
        self.open.clear()
        self.asked.clear()

    def result(self) -> RunMetrics:
        if self.total_s is not None:
            self._cut_off()  # what a failed or stopped run left
        for run in self.open.values():
            run.cut_at = self.latest_at
        duration = (
            self.total_s if self.total_s is not None else self.worked_s + max(0.0, self.latest_at - self.begun_at)
        )
        by_node: defaultdict[str, list[NodeRun]] = defaultdict(list)
        for run in self.all:
            by_node[run.node_id].append(run)
        nodes = sorted((_node(runs) for runs in by_node.values()), key=lambda n: -n.working_s)
        path = self._critical_path()
        finished = [run for run in self.all if run.calls]
        models = Counter[str]()
        for run in finished:
            models[run.model or ""] += run.calls
        return RunMetrics(
            run_id=self.run_id,
            diagram=self.started.get("diagram", ""),
            status=str(self.status),
            error=self.error,
            duration_s=duration,
            working_s=sum(node.working_s for node in nodes),
            waiting_s=sum(node.waiting_s for node in nodes),
            asked_s=sum(node.asked_s for node in nodes),
            most_at_once=self.most_at_once,
            parallelism=self.started.get("options", {}).get("parallelism"),
            usage=sum((node.usage for node in nodes), TokenUsage()),
            cost_usd=_cost(finished),
            calls=sum(models.values()),
            models=dict(models.most_common()),
            retries=sum(node.retries for node in nodes),
            resumed=self.resumed,
            lost_s=self.lost_s,
            reused=sum(run.reused for run in self.all),
            children=len(self.children),
            skipped=[label for node, label in self.labels.items() if node not in by_node],
            at_limit=[self.labels.get(n, n) for n, s in self.reached.items() if s == Status.MAXITER_REACHED],
            nodes=nodes,
            runs=self.all,
            critical_path=path,
            bottlenecks=_bottlenecks(path, duration),
        )

    def _critical_path(self) -> list[NodeRun]:
        cut_off = self.at_cut if self.total_s is not None else self._longest_at_work()
        run = self.failed or cut_off or (self.ends[-1].run if self.ends else None)
        path: list[NodeRun] = []
        while run is not None:
            path.append(run)
            run = run.after
        return path[::-1]

    def _longest_at_work(self) -> NodeRun | None:
        return min(self.open.values(), key=lambda run: run.started_at, default=None)


def _cost(runs: Sequence[NodeRun]) -> float | None:
    """None when nothing was spent, or one price is unknown: a part is never passed off as the whole."""
    costs = [run.cost_usd for run in runs if run.calls]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


def _distinct(runs: Iterable[NodeRun]) -> int:
    """How many there are; one that was cut off or failed, and was begun again when the run was resumed, counts once."""
    return len({run.run for run in runs})


def _node(runs: Sequence[NodeRun]) -> NodeMetrics:
    ended = [run for run in runs if run.ended_at is not None]
    texts = [run.first_text_s for run in runs if run.first_text_s is not None]
    return NodeMetrics(
        node_id=runs[0].node_id,
        label=runs[0].label,
        type=runs[0].type,
        runs=_distinct(ended),
        failed=sum(run.status == Status.FAILED for run in ended),
        cut_off=sum(run.status == Status.INTERRUPTED for run in runs),
        working_s=sum(run.working_s for run in runs),
        longest_s=max((run.working_s for run in runs), default=0.0),
        waiting_s=sum(run.waiting_s for run in runs),
        asked_s=sum(run.asked_s for run in runs),
        first_text_s=sum(texts) / len(texts) if texts else None,
        usage=sum((run.usage for run in runs), TokenUsage()),
        cost_usd=_cost(runs),
        calls=sum(run.calls for run in runs),
        retries=sum(run.retries for run in runs),
    )


def _bottlenecks(path: Sequence[NodeRun], duration: float) -> list[Bottleneck]:
    by_node: defaultdict[str, list[NodeRun]] = defaultdict(list)
    for run in path:
        by_node[run.node_id].append(run)
    found: list[Bottleneck] = []
    for node, runs in by_node.items():
        seconds = sum(run.working_s for run in runs)
        if duration > 0 and seconds / duration >= BOTTLENECK:
            found.append(Bottleneck(node, runs[0].label, seconds, min(1.0, seconds / duration), _distinct(runs)))
    return sorted(found, key=lambda one: -one.seconds)


# In words.


def told(metrics: RunMetrics) -> list[str]:
    """The run in sentences, the most important first; the same run gives the same ones."""
    return [sentence for tell in _TELL if (sentence := tell(metrics))]


def _outcome(m: RunMetrics) -> str:
    name = f"'{m.diagram}'" if m.diagram else "The run"
    match m.status:
        case Status.COMPLETED:
            return f"{name} completed in {seconds(m.duration_s)}."
        case Status.RUNNING | Status.PENDING | Status.INTERRUPTED:
            how = "has been going on for" if m.status != Status.INTERRUPTED else "was cut off after"
            return f"{name} {how} {seconds(m.duration_s)}."
        case _:
            error = m.error or {}
            where = f" in '{error['node']}'" if error.get("node") else ""
            what = f": {error['message']}" if error.get("message") else "."
            hint = f" {error['hint']}" if error.get("hint") else ""
            return f"{name} {m.status} after {seconds(m.duration_s)}{where}{what}{hint}"


def _work(m: RunMetrics) -> str:
    runs = sum(node.runs for node in m.nodes)
    if not runs:
        return "No node ran to its end."
    nodes = sum(node.runs > 0 for node in m.nodes)
    counted = f"{_count(nodes, 'node')} ran {_times(runs)}{' in all' if nodes > 1 else ''}"
    if m.most_at_once <= 1 or not m.duration_s:
        return f"{counted}, one after the other."
    mean = m.working_s / m.duration_s
    return f"{counted}, up to {m.most_at_once} at once; together they worked {seconds(m.working_s)}, {mean:.1f} times the run's time."


def _path(m: RunMetrics) -> str:
    if len(m.critical_path) < 2:
        return ""
    counts = Counter(label for label, _ in dict.fromkeys((run.label, run.run) for run in m.critical_path))
    chain = " → ".join(f"{label} ×{n}" if n > 1 else label for label, n in counts.items())  # in order of appearance
    worked = sum(run.working_s for run in m.critical_path)
    return f"The longest chain was {chain}: {seconds(worked)} of work."


def _bottleneck(m: RunMetrics) -> str:
    if not m.bottlenecks:
        return "No node stands out." if m.critical_path and m.duration_s >= NOTABLE_S else ""
    first = m.bottlenecks[0]
    rounds = f" in {first.runs} rounds" if first.runs > 1 else ""
    text = f"'{first.label}' took {first.share:.0%} of the time ({seconds(first.seconds)}{rounds})"
    if first.share >= 0.5:
        return f"{text}; making other nodes faster changes little."
    others = [f"'{one.label}' {one.share:.0%}" for one in m.bottlenecks[1:3]]
    return f"{text}, {' and '.join(others)}." if others else f"{text}."


def _waiting(m: RunMetrics) -> str:
    said: list[str] = []
    if m.asked_s >= NOTABLE_S:
        who = ", ".join(f"'{node.label}'" for node in m.nodes if node.asked_s >= NOTABLE_S)
        said.append(f"{who} waited {seconds(m.asked_s)} for an answer.")
    if m.waiting_s >= max(NOTABLE_S, m.duration_s / 20):
        full = m.parallelism is not None and m.most_at_once >= m.parallelism
        why = f" for one of {m.parallelism} places; DIPEO_EXECUTION_PARALLELISM allows more" if full else ""
        said.append(f"Nodes that were ready waited {seconds(m.waiting_s)}{why}.")
    return " ".join(said)


def _models(m: RunMetrics) -> str:
    if not m.calls:
        return ""
    names = ", ".join(filter(None, m.models)) or "models"
    price = "at a price that is not known" if m.cost_usd is None else money(m.cost_usd)
    cached = f" ({m.usage.cache_read:,} of them cached)" if m.usage.cache_read else ""
    put_in = (m.usage.input or 0) + (m.usage.cache_read or 0) + (m.usage.cache_write or 0)
    tokens = f"{put_in:,} tokens in{cached}, {(m.usage.output or 0) + (m.usage.reasoning or 0):,} out"
    text = f"{_count(m.calls, 'call')} of {names}: {tokens}, {price}."
    spenders = [node for node in m.nodes if node.cost_usd]
    if len(spenders) > 1 and m.cost_usd:
        most = max(spenders, key=lambda node: node.cost_usd or 0.0)
        text += f" '{most.label}' cost {(most.cost_usd or 0.0) / m.cost_usd:.0%} of it."
    dearest = max((run for run in m.runs if run.cost_usd), key=lambda run: run.cost_usd or 0.0, default=None)
    if dearest is not None and m.calls > 1 and m.cost_usd is not None:
        text += f" The most expensive answer was '{dearest.label}' #{dearest.run}, {money(dearest.cost_usd or 0.0)}."
    firsts = [node for node in m.nodes if node.first_text_s is not None]
    if firsts:
        slowest = max(firsts, key=lambda node: node.first_text_s or 0.0)
        text += f" '{slowest.label}' took {seconds(slowest.first_text_s or 0.0)} to its first word."
    return text


def _again(m: RunMetrics) -> str:
    said = [f"'{node.label}' was tried again {_times(node.retries)}." for node in m.nodes if node.retries]
    said += [
        f"'{node.label}' failed {_times(node.failed)}."
        for node in m.nodes
        if node.failed and m.status == Status.COMPLETED
    ]
    if m.resumed:
        said.append(f"The run was cut off and resumed {_times(m.resumed)}; {seconds(m.lost_s)} of work was lost.")
    if m.reused:
        said.append(f"{_count(m.reused, 'node run')} came from the run that this one is a fork of, and cost nothing.")
    return " ".join(said)


def _rest(m: RunMetrics) -> str:
    said: list[str] = []
    if m.children:
        said.append(f"It began {_count(m.children, 'run')} of sub-diagrams.")
    if m.at_limit:
        said.append(f"{_list(m.at_limit)} reached the limit of runs.")
    if m.skipped and m.status == Status.COMPLETED:
        said.append(f"{_list(m.skipped)} never ran.")
    return " ".join(said)


_TELL = (_outcome, _work, _path, _bottleneck, _waiting, _models, _again, _rest)


def seconds(value: float) -> str:
    """0.0004 → `0.4 ms`, 2.5 → `2.5 s`, 125 → `2 min 5 s`, 7384 → `2 h 3 min`."""
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _list(labels: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return ", ".join(f"'{label}'" for label in labels[:limit]) + more

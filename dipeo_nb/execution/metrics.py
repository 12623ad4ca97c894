"""Where a run's time and money went, in words. No model is asked."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence

from dipeo_nb.common.text import money
from dipeo_nb.domain.enums import Status
from dipeo_nb.execution.counting import Counting, measure
from dipeo_nb.execution.node_runs import Distinct, NodeRun
from dipeo_nb.execution.run_metrics import (
    BOTTLENECK,
    NOTABLE_S,
    Bottleneck,
    NodeMetrics,
    RunMetrics,
)

__all__ = [
    "BOTTLENECK",
    "NOTABLE_S",
    "Bottleneck",
    "Counting",
    "NodeMetrics",
    "NodeRun",
    "RunMetrics",
    "measure",
    "money",
    "seconds",
    "summarize",
]


def summarize(metrics: RunMetrics) -> list[str]:
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
    numbers: defaultdict[str, Distinct] = defaultdict(Distinct)
    seconds_of_work = array("d")
    for (_, label, _), number, worked in m.critical_path.work():
        numbers[label].add(number)
        seconds_of_work.append(worked)
    counts = {label: len(runs) for label, runs in numbers.items()}
    chain = " → ".join(f"{label} ×{n}" if n > 1 else label for label, n in counts.items())  # in order of appearance
    return f"The longest chain was {chain}: {seconds(sum(seconds_of_work))} of work."


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
        f"'{node.label}' failed {_times(node.failed)}." for node in m.nodes if node.failed and m.status == Status.COMPLETED
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

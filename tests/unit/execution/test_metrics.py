"""Where a run's time and money went: counted by hand in small logs, and against the fold in real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.text import money
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.metrics import RunMetrics, measure, seconds, summarize
from dipeo_nb.execution.node_runs import Distinct
from dipeo_nb.testing import scripted


class Log:
    """A log written by hand: `at` is seconds since the run began."""

    def __init__(self, *labels: str, parallelism: int = 20) -> None:
        self.events: list[Event] = []
        labelled = {label.lower(): label for label in labels}
        options = {"parallelism": parallelism}
        self.add(0, T.EXECUTION_STARTED, None, diagram="Test", labels=labelled, options=options)

    def add(self, at: float, of: T, node: str | None, /, **payload: Any) -> Log:
        self.events.append(Event(len(self.events) + 1, of, "r", 1000.0 + at, node, payload))
        return self

    def start(self, at: float, label: str, *inputs: tuple[str, int], run: int = 1) -> Log:
        named = {f"in{n}": list(place) for n, place in enumerate(inputs)}
        return self.add(at, T.NODE_STARTED, label.lower(), label=label, node_type="t", run=run, inputs=named)

    def done(self, at: float, label: str, *, run: int = 1, **meta: Any) -> Log:
        return self.add(at, T.NODE_COMPLETED, label.lower(), label=label, run=run, status="completed", meta=meta)

    def end(self, at: float) -> RunMetrics:
        self.add(at, T.EXECUTION_COMPLETED, None, status="completed", total_duration_ms=at * 1000, node_status={})
        return self.measured()

    def measured(self) -> RunMetrics:
        return measure(self.events)


def by_label(metrics: RunMetrics) -> dict[str, Any]:
    return {node.label: node for node in metrics.nodes}


def test_times_and_the_critical_path():
    """Two branches, the slow one decides; a join waits for both; what is not on the path is no bottleneck."""
    log = Log("A", "Slow", "Quick", "Join")
    log.start(0.0, "A").done(1.0, "A")
    log.start(1.0, "Slow", ("a", 1)).start(1.5, "Quick", ("a", 1))
    log.done(3.0, "Quick").done(9.0, "Slow")
    m = log.start(9.0, "Join", ("slow", 1), ("quick", 1)).done(10.0, "Join").end(10.0)
    assert (m.duration_s, m.working_s, m.waiting_s, m.most_at_once) == (10.0, 11.5, 0.5, 2)
    assert [run.label for run in m.critical_path] == ["A", "Slow", "Join"]
    assert [(b.label, b.share) for b in m.bottlenecks] == [("Slow", 0.8), ("A", 0.1), ("Join", 0.1)]
    assert [node.label for node in m.nodes] == ["Slow", "Quick", "A", "Join"]
    assert by_label(m)["Quick"].waiting_s == 0.5
    assert summarize(m) == [
        "'Test' completed in 10.0 s.",
        "4 nodes ran 4 times in all, up to 2 at once; together they worked 11.5 s, 1.1 times the run's time.",
        "The longest chain was A → Slow → Join: 10.0 s of work.",
        "'Slow' took 80% of the time (8.0 s); making other nodes faster changes little.",
        "Nodes that were ready waited 500 ms.",
    ]


def test_a_loop():
    """Each round counts; the path goes through all of them."""
    log = Log("A", "B")
    before: tuple[tuple[str, int], ...] = ()
    for n in range(3):
        log.start(2 * n, "A", *before, run=n + 1).done(2 * n + 1, "A", run=n + 1)
        log.start(2 * n + 1, "B", ("a", n + 1), run=n + 1).done(2 * n + 2, "B", run=n + 1)
        before = (("b", n + 1),)
    m = log.end(6)
    assert [(run.label, run.run) for run in m.critical_path] == [(x, n) for n in (1, 2, 3) for x in "AB"]
    assert [(b.label, b.runs, b.seconds) for b in m.bottlenecks] == [("A", 3, 3.0), ("B", 3, 3.0)]
    assert by_label(m)["A"].longest_s == 1.0
    assert "A ×3 → B ×3" in summarize(m)[2]


def test_few_calls_an_event():
    """A run of a million events is counted in seconds: most steps of a loop take a few calls of Python functions."""
    log = Log("A", "B")
    log.start(0, "A").done(1, "A")
    for n in range(1, 501):
        log.start(2 * n, "B", ("a", n), run=n).done(2 * n, "B", run=n, branch="true")
        log.start(2 * n + 1, "A", ("b", n), run=n + 1).done(2 * n + 1, "A", run=n + 1)
    log.end(1001)
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        summarize(measure(log.events))
    finally:
        sys.setprofile(before)
    assert calls < 12 * len(log.events), "36 with a property for each value of each step"


def test_different_numbers_are_counted_in_any_order():
    """Those that count up from 1 are not kept."""
    counted = Distinct()
    for number in (1, 2, 2, 1, 7, 4, 3, 4, -1, 0, 5, 7):
        counted.add(number)
    assert len(counted) == len({1, 2, 7, 4, 3, -1, 0, 5})


def test_the_longest_way_back_never_ends_in_a_circle():
    """An odd log, in which a run names itself as its input, is measured all the same."""
    m = Log("A").start(0, "A", ("a", 1)).done(1, "A").end(1)
    assert [run.label for run in m.critical_path] == ["A"]


def test_waiting_for_a_place():
    log = Log("A", "B", "C", parallelism=1)
    log.start(0, "A").done(1, "A").start(1, "B", ("a", 1)).done(3, "B").start(3, "C", ("a", 1)).done(4, "C")
    m = log.end(4)
    assert (m.waiting_s, m.most_at_once, m.parallelism) == (2.0, 1, 1)
    assert "Nodes that were ready waited 2.0 s for one of 1 places; DIPEO_EXECUTION_PARALLELISM allows more." in summarize(m)


def test_waiting_for_somebody():
    """The time of a question is not work; neither is that of one that nobody answers."""
    log = Log("Ask", "Late").start(0, "Ask")
    log.add(0.5, T.INTERACTIVE_PROMPT, "ask", request_id="1", prompt="?")
    log.add(8.5, T.INTERACTIVE_RESPONSE, "ask", request_id="1", answer="x").done(9, "Ask").start(9, "Late", ("ask", 1))
    log.add(9, T.INTERACTIVE_PROMPT, "late", request_id="2", prompt="?")
    m = log.add(10, T.NODE_ERROR, "late", run=1, error={"type": "Timeout"}, handled=True).end(10)
    nodes = by_label(m)
    assert (nodes["Ask"].working_s, nodes["Ask"].asked_s) == (1.0, 8.0)
    assert (nodes["Late"].working_s, nodes["Late"].asked_s, nodes["Late"].failed) == (0.0, 1.0, 1)
    words = " ".join(summarize(m))
    assert "'Ask', 'Late' waited 9.0 s for an answer." in words
    assert "'Late' failed once." in words


def test_models():
    """Tokens, costs, calls, the first word; cached tokens are counted in where a reader expects them."""
    log = Log("Write", "Judge").start(0, "Write")
    log.add(0.4, T.NODE_OUTPUT, "write", kind="text", text="a").add(0.8, T.NODE_OUTPUT, "write", kind="text", text="b")
    log.add(0.9, T.NODE_OUTPUT, "write", kind="usage", data={"usage": {"input": 999}, "cost_usd": 9.0})
    log.done(1, "Write", usage={"input": 10, "cache_read": 90, "output": 5}, cost_usd=0.003, calls=2, model="m1", retries=2)
    log.start(1, "Judge", ("write", 1)).done(2, "Judge", usage={"input": 10, "output": 1}, cost_usd=0.001, model="m2")
    m = log.end(2)
    assert (m.usage.input, m.usage.cache_read, m.usage.output) == (20, 90, 6)
    assert (m.cost_usd, m.calls, dict(m.models), m.retries) == (pytest.approx(0.004), 3, {"m1": 2, "m2": 1}, 2)
    assert by_label(m)["Write"].first_text_s == pytest.approx(0.4)
    words = " ".join(summarize(m))
    assert "3 calls of m1, m2: 110 tokens in (90 of them cached), 6 out, $0.0040." in words
    assert "'Write' cost 75% of it. The most expensive answer was 'Write' #1, $0.0030." in words
    assert "'Write' took 400 ms to its first word." in words
    assert "'Write' was tried again twice." in words


def test_an_unknown_price_is_not_a_small_one():
    log = Log("A", "B").start(0, "A").done(1, "A", usage={"input": 1}, cost_usd=0.5, model="m").start(1, "B", ("a", 1))
    m = log.done(2, "B", usage={"input": 1}, cost_usd=None, model="n").end(2)
    assert m.cost_usd is None
    assert (by_label(m)["A"].cost_usd, by_label(m)["B"].cost_usd) == (0.5, None)
    assert "at a price that is not known" in " ".join(summarize(m))


def test_a_run_that_was_cut_off_and_gone_on_with():
    """The time between does not count; what was at work is lost, but what it paid is not."""
    log = Log("A", "B").start(0, "A").done(1, "A").start(1, "B", ("a", 1))
    log.add(2, T.NODE_OUTPUT, "b", kind="usage", data={"usage": {"input": 7}, "cost_usd": 0.25})
    log.add(3, T.NODE_OUTPUT, "b", kind="text", text="x")
    assert log.measured().duration_s == 3.0
    assert summarize(log.measured())[0] == "'Test' has been going on for 3.0 s."
    log.add(1000, T.EXECUTION_STARTED, None, resumed=5).start(1000, "B", ("a", 1)).done(1002, "B")
    m = log.measured()
    assert (m.duration_s, m.resumed, m.lost_s, m.waiting_s) == (5.0, 1, 2.0, 0.0)
    assert (m.usage.input, m.cost_usd) == (7, 0.25)
    assert by_label(m)["B"].cut_off == 1
    assert "cut off and resumed once; 2.0 s of work was lost" in " ".join(summarize(m))


def test_a_batch_that_was_cut_off_and_resumed():
    """It is one run in two attempts, not two rounds; items that were recorded are not lost."""
    log = Log("A", "B").start(0, "A").done(1, "A").start(1, "B", ("a", 1))
    for at, index in ((3, 0), (5, 1)):
        log.add(at, T.NODE_OUTPUT, "b", kind="item", text="", run=1, data={"index": index, "text": "x"})
    log.add(6, T.NODE_OUTPUT, "b", kind="text", text="y")
    log.add(100, T.EXECUTION_STARTED, None, resumed=7).start(100, "B", ("a", 1)).done(104, "B")
    m = log.add(104, T.EXECUTION_COMPLETED, None, status="completed", total_duration_ms=10_000, node_status={}).measured()
    assert (m.duration_s, m.lost_s, by_label(m)["B"].runs, by_label(m)["B"].cut_off) == (10.0, 1.0, 1, 1)
    assert summarize(m) == [
        "'Test' completed in 10.0 s.",
        "2 nodes ran twice in all, one after the other.",
        "The longest chain was A → B: 10.0 s of work.",
        "'B' took 90% of the time (9.0 s); making other nodes faster changes little.",
        "The run was cut off and resumed once; 1.0 s of work was lost.",
    ]


def test_a_run_that_failed():
    log = Log("A", "B").start(0, "A").add(1, T.NODE_ERROR, "a", run=1, error={"type": "X"})
    error = {"type": "X", "message": "It broke.", "node": "A", "hint": "Mend it."}
    log.add(1, T.EXECUTION_ERROR, None, status="failed", error=error, total_duration_ms=1000, node_status={})
    assert summarize(log.measured())[0] == "'Test' failed after 1.0 s in 'A': It broke. Mend it."


def test_an_empty_log():
    m = measure([])
    assert (m.duration_s, m.nodes, m.critical_path, m.rows) == (0.0, [], [], [])
    assert summarize(m) == ["The run has been going on for 0.0 ms.", "No node ran to its end."]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0.4 ms"), (0.25, "250 ms"), (2.54, "2.5 s"), (125, "2 min 5 s"), (7384, "2 h 3 min")],
)
def test_seconds(value: float, text: str):
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "no cost"), (0.00123, "$0.0012"), (1.5, "$1.50")])
def test_money(value: float, text: str):
    assert money(value) == text


# Real runs.

FLOW = """
version: light
metadata: {name: Flow}
persons:
  Ada: {service: openai, model: gpt-5-nano-2025-08-07}
nodes:
- {label: Start, type: start}
- {label: Write, type: person_job, person: Ada, default_prompt: Go on., max_iteration: 3}
- {label: Enough, type: condition, condition_type: detect_max_iterations}
- {label: Code, type: code_job, language: python, code: "import time; time.sleep(0.2); result = 1"}
- {label: End, type: endpoint}
- {label: Never, type: code_job, language: python, code: result = 1}
connections:
- {from: Start, to: Write}
- {from: Start, to: Code}
- {from: Write, to: Enough}
- {from: Enough_condfalse, to: Write}
- {from: Enough_condtrue, to: End}
- {from: Code, to: End}
- {from: Code_error, to: Never}
"""


def test_a_real_run():
    """The numbers are those of the fold; two arrows of one name into a node both count."""
    with dp.Session(llm=scripted("Fine.")) as session:
        run = session.run(FLOW, trust=True)
        m, state = run.metrics, run.run.state
        assert m.status == "completed"
        assert m.usage == state.usage
        assert m.cost_usd == state.cost_usd
        assert m.duration_s == pytest.approx(state.duration_s)
        assert {node.label: node.runs for node in m.nodes} == {state.label(i): n.runs for i, n in state.nodes.items() if n.runs}
        assert m.calls == 3
        assert [one.label for one in m.critical_path] == ["Start", "Code", "End"]
        assert m.bottlenecks[0].label == "Code"
        assert m.skipped == ["Never"]
        # Times of the log are of the wall clock, durations of the monotonic one.
        assert all(one.waiting_s < 60 and one.working_s < 60 for one in m.runs)


def test_explain_in_words_html_and_markdown(tmp_path: Path):
    """Labels are escaped; the words are in all three; `print` shows the words."""
    text = FLOW.replace("Write", "'Wr<b>|ite'")
    with dp.Session(llm=scripted("Fine.")) as session:
        told_ = session.run(text, trust=True).explain()
    assert str(told_).startswith("'Flow' completed in ")
    html = told_._repr_html_()
    assert "<b>" not in html.replace("&lt;b&gt;", "")
    assert "Wr&lt;b&gt;|ite" in html
    lines = told_.markdown.splitlines()
    assert lines[0].replace("&lt;", "<") == str(told_), "the same words, but no live HTML in Markdown"
    assert "<b>" not in told_.markdown
    assert lines[2].startswith("| node | runs | working_s |")
    assert len({line.replace("\\|", "").count("|") for line in lines[2:]}) == 1, "every row has the same columns"
    assert told_.table[0]["node"] == "Code"


def test_metrics_of_a_run_that_goes_on():
    """They can be asked for at any time."""
    with dp.Session(llm=scripted("Fine.")) as session:
        run = session.start(FLOW, trust=True)
        assert run.metrics.status in ("pending", "running")
        run.wait()
        assert run.metrics.status == "completed"


def test_the_command(tmp_path: Path):
    """`dipeo-nb explain RUN`, with a file in the working directory."""
    (tmp_path / "flow.light.yaml").write_text(
        "version: light\nmetadata: {name: Small}\nnodes:\n- {label: Start, type: start}\n- {label: End, type: endpoint}\n"
        "connections:\n- {from: Start, to: End}\n"
    )

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dipeo_nb", *arguments, "--base-dir", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert command("run", "flow").returncode == 0
    with dp.Session(tmp_path) as session:
        run_id = session.runs()[0].run_id
    done = command("explain", run_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("'Small' completed in ")
    assert "working_s" in done.stdout
    assert "Start" in done.stdout
    missing = command("explain", "nothing")
    assert missing.returncode != 0
    assert "no run 'nothing'" in missing.stderr
